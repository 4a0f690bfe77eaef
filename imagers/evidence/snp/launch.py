# SPDX-License-Identifier: Apache-2.0
"""The launch measurement of a guest of AMD SEV-SNP, SEV-ES or SEV, from what its host starts.

    digest = measure_launch(Launch(firmware=Path("OVMF.fd"), vcpus=4, vcpu_type="EPYC-v4"))
    digest = measure_launch(Launch(tee="sev", firmware=Path("OVMF.fd")))

It covers the firmware, the processors' first state (their number and model, of SEV-SNP the features
that the host switches on; of SEV nothing of them), and, with a firmware for direct boot, hashes of
kernel, initrd and command line.

The work is done by sev-snp-measure, of the extra `references`.

Spec: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, section 8.17.2; SEV API (55766) 3.24,
section 6.5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from imagers.errors import FormatError, Unsupported, UsageError
from imagers.files import local_errors

__all__ = ["TEES", "Launch", "measure_launch"]

TEES = ("snp", "sev-es", "sev")

_MAX_VCPUS = 4096
_MODES = {"snp": "snp", "sev-es": "seves", "sev": "sev"}  # of the library
# What the library raises where a file is not what it expects.
_FAULTS = (RuntimeError, ValueError, KeyError, AssertionError, AttributeError, struct.error)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a host starts a guest with.

    Attributes:
        firmware: OVMF, with the metadata of SEV.
        vcpus: how many processors; of SEV they are not measured.
        vcpu_type: their model, as QEMU calls it; so too.
        kernel, initrd, append: of a direct boot; the command line without a kernel is none.
        guest_features: bits of SEV_FEATURES, as KVM sets them: 1 on most; of SEV-SNP.
        host: `QEMU`, `ec2` or `gce`.
        tee: one of `TEES`.
    """

    firmware: Path
    vcpus: int | None = None
    vcpu_type: str | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    guest_features: int = 1
    host: str = "QEMU"
    tee: str = "snp"


def measure_launch(launch: Launch) -> bytes:
    """The launch measurement: 48 bytes of SEV-SNP, 32 of the others.

    Raises:
        FormatError: the firmware is none for this TEE, or none for what is started with it.
        LocalError: a file cannot be read.
        Unsupported: sev-snp-measure is not installed.
        UsageError: processors that are not said, an unknown model, or what belongs to a kernel
            without one.
    """
    try:
        from sevsnpmeasure.guest import calc_launch_digest
        from sevsnpmeasure.sev_mode import SevMode
        from sevsnpmeasure.vcpu_types import CPU_SIGS
        from sevsnpmeasure.vmm_types import VMMType
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"measuring a launch needs the package {error.name}",
            hint="in the clone of imagers: pip install '.[references]'",
        ) from None
    vcpus, signature = 0, 0
    if launch.tee != "sev":
        vcpus, model = launch.vcpus or 0, launch.vcpu_type or ""
        if model not in CPU_SIGS:
            raise UsageError(
                f"expected a model of {', '.join(sorted(CPU_SIGS))}, got {model[:40]!r}"
            )
        if not 1 <= vcpus <= _MAX_VCPUS:
            raise UsageError(f"expected 1 to {_MAX_VCPUS} processors, got {vcpus}")
        signature = CPU_SIGS[model]
    if launch.kernel is None and (launch.initrd is not None or launch.append):
        raise UsageError("initrd and command line belong to a kernel: expected one, got none")
    for path in (launch.firmware, launch.kernel, launch.initrd):
        if path is not None:
            with local_errors(path):
                path.stat()
    try:
        with local_errors(launch.firmware):
            digest: bytes = calc_launch_digest(
                SevMode.from_str(_MODES[launch.tee]),
                vcpus,
                signature,
                str(launch.firmware),
                "" if launch.kernel is None else str(launch.kernel),
                "" if launch.initrd is None else str(launch.initrd),
                launch.append,
                launch.guest_features,
                "",
                vmm_type=VMMType[launch.host],
            )
    except _FAULTS as error:
        raise FormatError(
            f"it cannot be measured: {str(error)[:200] or type(error).__name__}",
            what=f"{launch.tee.upper()} firmware",
            hint="a direct boot needs a firmware that is built for it (AmdSev of OVMF)"
            if launch.kernel is not None
            else None,
        ) from error
    return digest
