# SPDX-License-Identifier: Apache-2.0
"""Evidence of this enclave of Intel SGX, inside Gramine.

    evidence = SGXAttester().collect(ReportData(digest))

    /dev/attestation/attestation_type    dcap
    /dev/attestation/user_report_data    64 bytes to write
    /dev/attestation/quote               to read then

Spec: Gramine, "Attestation and Secret Provisioning", low-level interface.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import LocalError, NoTEE
from imagers.files import reason_of
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from imagers.model.evidence import Attester, ReportData

__all__ = ["SGXAttester"]

_ROOT = Path("/dev/attestation")
_REPORT_DATA = 64
_MAX_QUOTE = 64 * 1024


class SGXAttester:
    """See `Attester`.

    Args:
        root: directory of Gramine.
    """

    tee: ClassVar[str] = "sgx"

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root

    def missing(self) -> str:
        """Why this is no such enclave; "" if it is."""
        path = self._root / "attestation_type"
        try:
            kind = _read(path).strip()
        except OSError as error:
            return f"{path}: {reason_of(error)}"
        if kind != b"dcap":
            return f"{path}: expected 'dcap', got '{kind[:40].decode('ascii', 'replace')}'"
        return ""

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: this is no enclave of Gramine that has quotes of DCAP.
            LocalError: it has none now.
        """
        if why := self.missing():
            raise NoTEE(why)
        try:
            with open(self._root / "user_report_data", "wb", buffering=0) as file:
                file.write(report_data.digest.ljust(_REPORT_DATA, b"\0"))
            quote = _read(self._root / "quote")
        except OSError as error:
            raise LocalError(f"no quote: {reason_of(error)}", path=str(self._root)) from error
        return Evidence(self.tee, {"quote": b64encode(quote).decode()}, report_data)


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MAX_QUOTE)


if TYPE_CHECKING:
    _attester: Attester = SGXAttester()
