# SPDX-License-Identifier: Apache-2.0
"""The machine that the program runs on: who attests it, what measures it, and where its TPM is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.evidence.plugins import MachineSettings
    from imagers.model.evidence import Attester, Measure

__all__ = ["attester_of_machine", "find_machine", "measure_of_machine"]

_PERSISTENT = range(0x81000000, 0x82000000)


def attester_of_machine(tee: str | None) -> Attester:
    """The attester of a TEE, or of the one that this machine is.

    Raises:
        NoTEE, PluginNotFound, PluginBroken: there is none.
        UsageError: the environment names no handle of a TPM.
    """
    from imagers.evidence.plugins import find_attester, load_attester

    machine = find_machine()
    return find_attester(machine) if tee is None else load_attester(tee, machine)


def measure_of_machine(register: str) -> Measure:
    """What measures into a register: `tpm:14`, `tpm:15`, `rtmr:3`, or that of the `agent`.

    Raises:
        UsageError: there is no such register, or it is not for this.
        LocalError: the log of the firmware cannot be read.
    """
    from imagers.evidence.measure import AGENT_LOG, MeasuredLog
    from imagers.evidence.tpm.collect import DEVICE, MEASURED, PCR, read_log

    machine = find_machine()
    log = machine.agent_log or AGENT_LOG
    for number in MEASURED:
        if register == f"tpm:{number}":
            return MeasuredLog(PCR(number, machine.device or DEVICE), log, read_log())
    if register == "rtmr:3":
        from imagers.evidence.tdx.collect import RTMR, read_firmware_log

        return MeasuredLog(RTMR(), log, read_firmware_log())
    word, _, path = register.partition(":")
    if word == "agent":
        from imagers.evidence.agent import AGENT_SOCKET, MeasuredByAgent

        return MeasuredByAgent(Path(path) if path else AGENT_SOCKET, log)
    known = ", ".join(f"tpm:{number}" for number in MEASURED)
    raise UsageError(
        f"--measure: expected one of {known}, rtmr:3, agent, agent:SOCKET, got {register[:40]!r}",
        hint="a machine is known by its other registers, or anybody can reset them: docs/guest.md",
    )


def find_machine(device: str | None = None, handle: str | None = None) -> MachineSettings:
    """Where the machine has its TPM, by options or else by the environment, and its log.

    Raises:
        UsageError: the handle is none.
    """
    from imagers.evidence.plugins import MachineSettings

    settings = read_settings()
    name = "AA_TPM_AK_HANDLE" if handle is None else "--handle"
    device, handle = device or settings.tpm_device, handle or settings.tpm_ak_handle
    return MachineSettings(
        None if device is None else Path(device),
        None if handle is None else _parse_handle(name, handle),
        None if settings.agent_log is None else Path(settings.agent_log),
    )


def _parse_handle(name: str, text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = 0
    if number not in _PERSISTENT:
        raise UsageError(f"expected a handle such as 0x81010002 for {name}, got {text[:40]!r}")
    return number
