# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine, a guest of Hygon CSV.

    evidence = CSVAttester().collect(ReportData(digest))

The device `/dev/csv-guest` gives a report in the place of a request, in a page of 4096 bytes:

    report data 64, nonce 16, SM3 of both 32, "ATTESTATION_EXT" and a zero 16, flags 4

With the last two, and flags 1, firmware from build 2337 on gives version 2; older firmware gives
version 1 to a request without them. The nonce comes back, and is the key of the MAC over what names
the chip: the guest looks whether nobody changed that on the way from the firmware.

HSK and CEK are for the verifier to have: a guest need not reach Hygon's service.

Spec: Hygon CSV API; openanolis/csv-rs, `api::guest`; the driver `csv-guest`.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from base64 import b64encode
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cryptography.hazmat.primitives import hashes

from imagers.errors import LocalError, NoTEE
from imagers.evidence.csv.certificates import certificate_to_json
from imagers.evidence.csv.report import (
    EXTENDED,
    PAGE,
    Report,
    mac_of,
    parse_report,
    report_to_json,
)
from imagers.evidence.measure import AGENT_LOG, reading_log
from imagers.evidence.tdx.collect import FIRMWARE_LOG, read_logs
from imagers.files import reason_of
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.evidence import Attester, ReportData
    from imagers.model.strict_json import JSON

__all__ = ["CSVAttester"]

_DEVICE = Path("/dev/csv-guest")
_GET_REPORT = 0xC0104401  # _IOWR('D', 1, struct csv_guest_report_req), of 16 bytes
_CALL = struct.Struct("<QI4x")
_USER_DATA, _NONCE = 64, 16


class CSVAttester:
    """See `Attester`.

    Args:
        device: that gives reports.
        firmware_log, agent_log: files with records; one that is not there is left out.
        ioctl: what the kernel does; tests have their own.
    """

    tee: ClassVar[str] = "csv"

    def __init__(
        self,
        device: Path = _DEVICE,
        firmware_log: Path = FIRMWARE_LOG,
        agent_log: Path = AGENT_LOG,
        *,
        ioctl: Callable[[int, int, bytearray], object] = fcntl.ioctl,
    ) -> None:
        self._device = device
        self._firmware_log = firmware_log
        self._agent_log = agent_log
        self._ioctl = ioctl

    def missing(self) -> str:
        """Why this machine is no such guest; "" if it is."""
        return "" if self._device.exists() else f"there is no {self._device}"

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: this machine is none.
            LocalError: the kernel refuses, what it gave is not for this request, or a log cannot
                be read.
            FormatError: what it gave is no report, or the firmware's log is none.
        """
        try:
            fd = os.open(self._device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoTEE(f"there is no {self._device}") from None
        except OSError as error:
            raise LocalError(reason_of(error), path=str(self._device)) from error
        data = report_data.digest.ljust(_USER_DATA, b"\0")
        try:
            with reading_log(self._agent_log) as agent:
                report = self._report(fd, data)
        finally:
            os.close(fd)
        log = read_logs(self._firmware_log, agent) if report.version == 2 else None
        body: dict[str, JSON] = {
            "attestation_report": report_to_json(report),
            "cert_chain": {"pek": certificate_to_json(report.pek)},
            "serial_number": list(report.serial.encode().ljust(64, b"\0")),
            "cc_eventlog": None if log is None else b64encode(log).decode(),
        }
        return Evidence(self.tee, body, report_data)

    def _report(self, fd: int, data: bytes) -> Report:
        nonce = os.urandom(_NONCE)
        request = data + nonce + _sm3(data + nonce)
        try:
            raw = self._ask(fd, request + EXTENDED + struct.pack("<I", 1))
        except OSError:  # of a firmware that does not know the longer request
            try:
                raw = self._ask(fd, request)
            except OSError as error:
                raise LocalError(
                    f"no report: {reason_of(error)}", path=str(self._device)
                ) from error
        report = parse_report(raw)
        told = (report.octets("report_data"), report.octets("mnonce"), report.mac)
        wanted = (data, nonce, mac_of(nonce, report.signer))
        for one, other in zip(told, wanted, strict=True):
            if not compare_digest(one, other):
                raise LocalError(
                    "the report is for another request, or was changed on its way from the "
                    "firmware",
                    path=str(self._device),
                )
        return report

    def _ask(self, fd: int, request: bytes) -> bytes:
        # An array stays where it is: the kernel is told its address.
        page = array("B", request.ljust(PAGE, b"\0"))
        self._ioctl(fd, _GET_REPORT, bytearray(_CALL.pack(page.buffer_info()[0], PAGE)))
        return page.tobytes()


def _sm3(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize()


if TYPE_CHECKING:
    _attester: Attester = CSVAttester()
