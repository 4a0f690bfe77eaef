# SPDX-License-Identifier: Apache-2.0
"""The event log of a machine with a TPM, against its registers. No IO.

    bound = check_log(parse_event_log(data), values)

The firmware alone writes to registers 0 to 7, so that the log gives them. To others the operating
system writes too, which has logs of its own: there the log counts for a register that it gives, and
is no claim for one that went on after it. An agent that measures has a register for itself: where
the log has events of it and does not give the register, the log is not what was measured.

EV_NO_ACTION says something and extends nothing. One of it says at which locality the TPM was
started, from which register 0 begins.

Spec: TCG PC Client Platform Firmware Profile 1.06, section 10.4.5.3 (startup locality).
"""

from __future__ import annotations

from dataclasses import replace
from hmac import compare_digest
from typing import TYPE_CHECKING

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.ccel import NO_ACTION, is_of_agent, replay
from imagers.evidence.steps import mismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.evidence.ccel import Event

__all__ = ["check_log"]

_BANK = "SHA-256"
_OF_FIRMWARE = range(8)
_LOCALITY = b"StartupLocality\0"


def check_log(events: Sequence[Event], values: Sequence[bytes]) -> tuple[Event, ...]:
    """The events that the registers bind, with the digest that does it alone.

    Args:
        values: of all registers.

    Raises:
        EvidenceRejected: it does not give what the firmware, or an agent, measured.
    """
    measured = tuple(one for one in events if one.kind != NO_ACTION)
    of_agent = {one.register for one in measured if is_of_agent(one)}
    given = set()
    for register, value in enumerate(values):
        begin = _locality(events) if register == 0 else 0
        try:
            found = replay(measured, register, _BANK, begin=begin)
        except FormatError as error:
            raise EvidenceRejected(str(error)) from None
        if compare_digest(found, value):
            given.add(register)
        elif register in _OF_FIRMWARE or register in of_agent:
            raise mismatch(f"PCR {register} by the event log", value.hex(), found.hex())
    return tuple(
        replace(one, digests={_BANK: one.digests[_BANK]})
        for one in measured
        if one.register in given
    )


def _locality(events: Sequence[Event]) -> int:
    for event in events:
        if event.kind == NO_ACTION and event.register == 0 and event.data[:16] == _LOCALITY:
            return event.data[16] if len(event.data) == 17 else 0
    return 0
