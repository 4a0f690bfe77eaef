# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine, a guest of Intel TDX: a quote by configfs-tsm, and what was measured.

    evidence = TDXAttester().collect(ReportData(digest))

The log is the firmware's (CCEL) with the records of the agent of Confidential Containers behind
it. Without the firmware's there is none: the agent's alone does not begin where the registers do.

Spec: UEFI 2.11, section 38; ACPI 6.5, table CCEL; Linux,
Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import LocalError, NoTEE
from imagers.evidence.ccel import MAX_LOG, join_logs
from imagers.evidence.measure import AGENT_LOG, reading_log
from imagers.evidence.tsm import TSM_ROOT, Kernel, missing_tsm, read_tsm
from imagers.files import reason_of
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.evidence.measure import Register
    from imagers.model.evidence import Attester, ReportData

__all__ = ["FIRMWARE_LOG", "RTMR", "TDXAttester", "read_firmware_log", "read_logs"]

_PROVIDER = "tdx_guest"
FIRMWARE_LOG = Path("/sys/firmware/acpi/tables/data/CCEL")
_REGISTERS = Path("/sys/devices/virtual/misc/tdx_guest/measurements")
_REGISTER_BYTES = 48


class TDXAttester:
    """See `Attester`.

    Args:
        tsm: directory of configfs-tsm.
        firmware_log, agent_log: files with records; one that is not there is left out.
        registers: directory of the kernel's files, one a register (6.16 and newer).
        kernel: what the kernel does; tests have their own.
    """

    tee: ClassVar[str] = "tdx"

    def __init__(
        self,
        tsm: Path = TSM_ROOT,
        firmware_log: Path = FIRMWARE_LOG,
        agent_log: Path = AGENT_LOG,
        registers: Path = _REGISTERS,
        *,
        kernel: Kernel | None = None,
    ) -> None:
        self._tsm = tsm
        self._firmware_log = firmware_log
        self._agent_log = agent_log
        self._registers = registers
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
        with reading_log(self._agent_log) as agent:
            found = read_tsm(self._tsm, report_data.digest, provider=_PROVIDER, kernel=self._kernel)
        if not found.outblob:
            raise NoTEE("the host gives no quotes: its quote generation service is not there")
        log = read_logs(self._firmware_log, agent)
        body = {
            "quote": b64encode(found.outblob).decode(),
            "cc_eventlog": None if log is None else b64encode(log).decode(),
        }
        return Evidence(self.tee, dict(body), report_data)

    def read_config_id(self) -> bytes:
        """MRCONFIGID, as the TDX module has it: a quote would be what the host says.

        Raises:
            NoTEE: the kernel gives no register.
            LocalError: it may not be read, or is something else.
        """
        return _read_register(self._registers / "mrconfigid", self._kernel or Kernel())


def read_logs(firmware_log: Path, agent: bytes) -> bytes | None:
    """The firmware's log, with the agent's records behind it; None: there is none of the firmware.

    Raises:
        FormatError: the firmware's is none.
        LocalError: it cannot be read.
    """
    firmware = read_firmware_log(firmware_log)
    return None if firmware is None else join_logs(firmware, agent)


def read_firmware_log(path: Path = FIRMWARE_LOG) -> bytes | None:
    """The firmware's log; None: there is none.

    Raises:
        LocalError: it cannot be read, or is too long.
    """
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


def _read_register(path: Path, kernel: Kernel) -> bytes:
    try:
        value = kernel.read(path)
    except FileNotFoundError:
        raise NoTEE(
            f"there is no {path}", hint="Linux has it from 6.16 on, in a guest of Intel TDX"
        ) from None
    except OSError as error:
        raise LocalError(reason_of(error), path=str(path)) from error
    if len(value) != _REGISTER_BYTES:
        raise LocalError(f"expected {_REGISTER_BYTES} bytes, got {len(value)}", path=str(path))
    return value


@dataclass(frozen=True, slots=True)
class RTMR:
    """RTMR 3: the register that neither firmware nor boot loader extends. See `Register`.

    Attributes:
        directory: of the kernel's files, one a register (6.16 and newer); a write extends it.
        kernel: what the kernel does; tests have their own.
    """

    directory: Path = _REGISTERS
    kernel: Kernel = field(default_factory=Kernel)
    name: ClassVar[str] = "RTMR 3"
    index: ClassVar[int] = 4
    algorithm: ClassVar[str] = "SHA-384"
    counts_no_action: ClassVar[bool] = True

    def read(self) -> bytes:
        """See `Register`.

        Raises:
            NoTEE: the kernel gives no register.
            LocalError: it may not be read, or is something else.
        """
        return _read_register(self._file, self.kernel)

    def banks(self) -> tuple[str, ...]:
        """See `Register`."""
        return (self.algorithm,)

    def extend(self, digests: Mapping[str, bytes]) -> None:
        """See `Register`.

        Raises:
            LocalError: the kernel refuses.
        """
        try:
            self.kernel.write(self._file, digests[self.algorithm])
        except OSError as error:
            raise LocalError(
                reason_of(error), path=str(self._file), hint="measuring is for root"
            ) from error

    @property
    def _file(self) -> Path:
        return self.directory / "rtmr3:sha384"


if TYPE_CHECKING:
    _attester: Attester = TDXAttester()
    _register: Register = RTMR()
