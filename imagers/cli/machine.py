# SPDX-License-Identifier: Apache-2.0
"""The machine that the program runs on: who attests it, and where its TPM is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.evidence.plugins import TPMSettings
    from imagers.model.evidence import Attester

__all__ = ["attester_of_machine", "find_tpm"]

_PERSISTENT = range(0x81000000, 0x82000000)


def attester_of_machine(tee: str | None) -> Attester:
    """The attester of a TEE, or of the one that this machine is.

    Raises:
        NoTEE, PluginNotFound, PluginBroken: there is none.
        UsageError: the environment names no handle of a TPM.
    """
    from imagers.evidence.plugins import find_attester, load_attester

    tpm = find_tpm()
    return find_attester(tpm) if tee is None else load_attester(tee, tpm)


def find_tpm(device: str | None = None, handle: str | None = None) -> TPMSettings:
    """Where the machine has its TPM, by options or else by the environment.

    Raises:
        UsageError: the handle is none.
    """
    from imagers.evidence.plugins import TPMSettings

    settings = read_settings()
    name = "AA_TPM_AK_HANDLE" if handle is None else "--handle"
    device, handle = device or settings.tpm_device, handle or settings.tpm_ak_handle
    return TPMSettings(
        None if device is None else Path(device),
        None if handle is None else _parse_handle(name, handle),
    )


def _parse_handle(name: str, text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = 0
    if number not in _PERSISTENT:
        raise UsageError(f"expected a handle such as 0x81010002 for {name}, got {text[:40]!r}")
    return number
