# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine, a guest of AMD SEV-SNP.

    evidence = SNPAttester().collect(ReportData(digest))

It comes by configfs-tsm, or from the older device `/dev/sev-guest`. With the report the host gives
certificates, or none: then verifiers have the chip's from their collateral.

    certificate table   GUID 16, offset u32, length u32, for each certificate; zeros end it

GUIDs stand in the order of their text. Certificates are DER, and PEM where a host was given that.

Spec: AMD SEV-ES Guest-Hypervisor Communication Block Standardization (56421) 2.03, section 4.1.8.1;
Linux, include/uapi/linux/sev-guest.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

from asn1crypto import pem

from imagers.errors import FormatError, LocalError, NoTEE
from imagers.evidence.snp.report import REPORT_BYTES, parse_report, report_to_json
from imagers.evidence.tsm import TSM_ROOT, missing_tsm, read_tsm
from imagers.files import reason_of
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagers.evidence.tsm import Kernel
    from imagers.model.evidence import Attester, ReportData
    from imagers.model.strict_json import JSON

__all__ = ["SNPAttester", "certificates_of"]

_DEVICE = Path("/dev/sev-guest")
_PROVIDER = "sev_guest"
_KINDS = {
    UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
}
_ENTRY = struct.Struct("<16sII")
_MAX_ENTRIES = 32
_USER_DATA = 64
_TABLE_BYTES = 16 * 1024  # SEV_FW_BLOB_MAX_SIZE
_GET_EXT_REPORT = 0xC0205302  # _IOWR('S', 2, struct snp_guest_request_ioctl), of 32 bytes
_REQUEST = struct.Struct("<64sI28xQI4x")  # snp_ext_report_req
_RESPONSE_BYTES = 4000
_RESPONSE = struct.Struct("<II24x")  # status, size of the report
_IOCTL = struct.Struct("<B7xQQQ")  # snp_guest_request_ioctl


class SNPAttester:
    """See `Attester`.

    Args:
        tsm: directory of configfs-tsm.
        device: of kernels without it.
        kernel, ioctl: what the kernel does; tests have their own.
    """

    tee: ClassVar[str] = "snp"

    def __init__(
        self,
        tsm: Path = TSM_ROOT,
        device: Path = _DEVICE,
        *,
        kernel: Kernel | None = None,
        ioctl: Callable[[int, int, bytearray], object] = fcntl.ioctl,
    ) -> None:
        self._tsm = tsm
        self._device = device
        self._kernel = kernel
        self._ioctl = ioctl

    def missing(self) -> str:
        """Why this machine is no such guest; "" if it is."""
        why = missing_tsm(self._tsm, _PROVIDER, self._kernel)
        if not why or self._device.exists():
            return ""
        return f"{why}; there is no {self._device}"

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: this machine is none.
            LocalError: the kernel or the host refuses.
            FormatError: what they gave is no report.
        """
        try:
            found = read_tsm(self._tsm, report_data.digest, provider=_PROVIDER, kernel=self._kernel)
            report, table = found.outblob, found.auxblob
        except NoTEE as error:
            report, table = self._by_device(report_data.digest, error)
        chain: list[JSON] = [
            {"cert_type": kind, "data": list(der)} for kind, der in certificates_of(table)
        ]
        body: JSON = {
            "attestation_report": report_to_json(parse_report(report)),
            "cert_chain": chain or None,
        }
        return Evidence(self.tee, body, report_data)

    def _by_device(self, report_data: bytes, why: NoTEE) -> tuple[bytes, bytes]:
        try:
            fd = os.open(self._device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoTEE(f"{why}; there is no {self._device}") from None
        except OSError as error:
            raise LocalError(reason_of(error), path=str(self._device)) from error
        try:
            return _extended_report(fd, report_data, self._ioctl)
        except OSError as error:
            raise LocalError(f"no report: {reason_of(error)}", path=str(self._device)) from error
        finally:
            os.close(fd)


def _extended_report(
    fd: int, report_data: bytes, ioctl: Callable[[int, int, bytearray], object]
) -> tuple[bytes, bytes]:
    """Report and certificate table, by the device."""
    # Arrays stay where they are: the kernel is told their addresses.
    response, table = array("B", bytes(_RESPONSE_BYTES)), array("B", bytes(_TABLE_BYTES))
    request = array(
        "B",
        _REQUEST.pack(report_data.ljust(_USER_DATA, b"\0"), 0, table.buffer_info()[0], len(table)),
    )
    call = bytearray(_IOCTL.pack(1, request.buffer_info()[0], response.buffer_info()[0], 0))
    ioctl(fd, _GET_EXT_REPORT, call)
    error = _IOCTL.unpack(call)[3]
    status, size = _RESPONSE.unpack_from(response)
    if error or status or size != REPORT_BYTES:
        raise LocalError(
            f"no report: expected status 0 and {REPORT_BYTES} bytes, got status {status:#x}, "
            f"{size} bytes, error {error:#x}",
            path=str(_DEVICE),
        )
    return response[_RESPONSE.size : _RESPONSE.size + size].tobytes(), table.tobytes()


def certificates_of(table: bytes) -> Iterator[tuple[str, bytes]]:
    """The certificates that a host gave with a report: kind and DER, in their order.

    Raises:
        FormatError: it is no certificate table.
    """
    for number in range(len(table) // _ENTRY.size):
        guid, offset, length = _ENTRY.unpack_from(table, number * _ENTRY.size)
        if not any(guid):
            return
        if number >= _MAX_ENTRIES or offset + length > len(table):
            raise FormatError("an entry leads out of it", what="certificate table")
        kind = _KINDS.get(UUID(bytes=guid))
        if kind is not None and length:  # others are the host's own
            yield kind, _der(table[offset : offset + length])


def _der(data: bytes) -> bytes:
    if not pem.detect(data):
        return data
    try:
        _, _, der = next(iter(pem.unarmor(data, multiple=True)))
    except ValueError:
        raise FormatError("a certificate is no PEM", what="certificate table") from None
    return bytes(der)


if TYPE_CHECKING:
    _attester: Attester = SNPAttester()
