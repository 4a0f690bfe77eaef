# SPDX-License-Identifier: Apache-2.0
"""Evidence of the NVIDIA GPUs of this machine, by NVIDIA's management library.

    evidence = NVIDIAAttester().collect(ReportData(digest))

The library comes with the driver, and its binding `pynvml` is of the package nvidia-ml-py, which
is not one of ours: it is looked for when it is needed.

Spec: NVML API, nvmlDeviceGetConfComputeGpuAttestationReport and ...GpuCertificate.
"""

from __future__ import annotations

from base64 import b64encode
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from imagers.errors import LocalError, NoTEE
from imagers.evidence.nvidia.verify import MAX_DEVICES
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.evidence import Attester, ReportData
    from imagers.model.strict_json import JSON

__all__ = ["NVIDIAAttester"]

_NONCE = 32
_HOPPER = 9  # NVML_DEVICE_ARCH_HOPPER
_HINT = "it is of the package nvidia-ml-py, for a guest with NVIDIA's driver"


class NVIDIAAttester:
    """See `Attester`.

    Args:
        load: gives `pynvml`; tests have their own.
    """

    tee: ClassVar[str] = "nvidia"

    def __init__(self, load: Callable[[], Any] = lambda: import_module("pynvml")) -> None:
        self._load = load

    def missing(self) -> str:
        """Why this machine has no such GPU; "" if it has."""
        try:
            library = self._load()
        except ImportError:
            return "there is no pynvml"
        try:
            library.nvmlInit()
            try:
                count = int(library.nvmlDeviceGetCount())
            finally:
                library.nvmlShutdown()
        except library.NVMLError as error:
            return f"NVIDIA's library: {error}"
        return "" if count else "there is no GPU of NVIDIA's"

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`: of all GPUs.

        Raises:
            NoTEE: there is none, or no library.
            LocalError: a GPU or the driver refuses, or a GPU is of another line than Hopper.
        """
        if why := self.missing():
            raise NoTEE(why, hint=_HINT if "pynvml" in why else None)
        library = self._load()
        nonce = report_data.digest[:_NONCE].ljust(_NONCE, b"\0")
        try:
            library.nvmlInit()
            try:
                count = int(library.nvmlDeviceGetCount())
                if count > MAX_DEVICES:
                    raise LocalError(f"expected at most {MAX_DEVICES} GPUs, got {count}")
                devices = [_device(library, number, nonce) for number in range(count)]
            finally:
                library.nvmlShutdown()
        except library.NVMLError as error:
            raise LocalError(f"no report of a GPU: {error}") from error
        return Evidence(self.tee, {"device_evidence_list": [*devices]}, report_data)


def _device(library: Any, number: int, nonce: bytes) -> JSON:
    handle = library.nvmlDeviceGetHandleByIndex(number)
    if int(library.nvmlDeviceGetArchitecture(handle)) != _HOPPER:
        raise LocalError(f"GPU {number} is of another line than Hopper, which alone is supported")
    report = library.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
    chain = library.nvmlDeviceGetConfComputeGpuCertificate(handle)
    evidence = bytes(report.attestationReport[: report.attestationReportSize])
    certificate = bytes(chain.attestationCertChain[: chain.attestationCertChainSize])
    return {
        "arch": "HOPPER",
        "uuid": str(library.nvmlDeviceGetUUID(handle)),
        "evidence": b64encode(evidence).decode(),
        "certificate": b64encode(certificate).decode(),
    }


if TYPE_CHECKING:
    _attester: Attester = NVIDIAAttester()
