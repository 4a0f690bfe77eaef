# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine, a guest of Intel TDX: a quote by configfs-tsm, and what was measured.

    evidence = TDXAttester().collect(ReportData(digest))

The log is the firmware's (CCEL) with the records of the agent of Confidential Containers behind
it. Without the firmware's there is none: the agent's alone does not begin where the registers do.

Spec: UEFI 2.11, section 38; ACPI 6.5, table CCEL.
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import LocalError, NoTEE
from imagers.evidence.ccel import MAX_LOG, join_logs
from imagers.evidence.tsm import TSM_ROOT, missing_tsm, read_tsm
from imagers.files import reason_of
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from imagers.evidence.tsm import Kernel
    from imagers.model.evidence import Attester, ReportData

__all__ = ["AGENT_LOG", "FIRMWARE_LOG", "TDXAttester", "read_logs"]

_PROVIDER = "tdx_guest"
FIRMWARE_LOG = Path("/sys/firmware/acpi/tables/data/CCEL")
AGENT_LOG = Path("/run/attestation-agent/eventlog")


class TDXAttester:
    """See `Attester`.

    Args:
        tsm: directory of configfs-tsm.
        firmware_log, agent_log: files with records; one that is not there is left out.
        kernel: what the kernel does; tests have their own.
    """

    tee: ClassVar[str] = "tdx"

    def __init__(
        self,
        tsm: Path = TSM_ROOT,
        firmware_log: Path = FIRMWARE_LOG,
        agent_log: Path = AGENT_LOG,
        *,
        kernel: Kernel | None = None,
    ) -> None:
        self._tsm = tsm
        self._firmware_log = firmware_log
        self._agent_log = agent_log
        self._kernel = kernel

    def missing(self) -> str:
        """Why this machine is no such guest; "" if it is."""
        return missing_tsm(self._tsm, _PROVIDER, self._kernel)

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: this machine is none.
            LocalError: the kernel refuses, or a log cannot be read.
            FormatError: the firmware's log is none.
        """
        found = read_tsm(self._tsm, report_data.digest, provider=_PROVIDER, kernel=self._kernel)
        if not found.outblob:
            raise NoTEE("the host gives no quotes: its quote generation service is not there")
        log = read_logs(self._firmware_log, self._agent_log)
        body = {
            "quote": b64encode(found.outblob).decode(),
            "cc_eventlog": None if log is None else b64encode(log).decode(),
        }
        return Evidence(self.tee, dict(body), report_data)


def read_logs(firmware_log: Path, agent_log: Path) -> bytes | None:
    """The firmware's log, with the agent's behind it; None: there is none of the firmware.

    Raises:
        FormatError: the firmware's is none.
        LocalError: one cannot be read.
    """
    firmware = _read(firmware_log)
    return None if firmware is None else join_logs(firmware, _read(agent_log) or b"")


def _read(path: Path) -> bytes | None:
    """A log; None: there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_LOG + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalError(reason_of(error), path=str(path)) from error
    if len(data) > MAX_LOG:
        raise LocalError(f"expected at most {MAX_LOG} bytes, got more", path=str(path))
    return data


if TYPE_CHECKING:
    _attester: Attester = TDXAttester()
