# SPDX-License-Identifier: Apache-2.0
"""Event logs of TDX for tests, and the registers that they lead to.

    log = event_log([Event(0, EV_SEPARATOR, bytes(4))])
    replay([...])                                        # RTMR 0 to 3

Spec: TCG PC Client Platform Firmware Profile, 10.2; TDX: register 0 is index 1 in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha384
from struct import pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BOOT", "EV_EVENT_TAG", "EV_IPL", "EV_SEPARATOR", "Event", "event_log", "replay"]

EV_NO_ACTION, EV_SEPARATOR, EV_EVENT_TAG, EV_IPL = 0x03, 0x04, 0x06, 0x0D
_SHA384 = 0x000C
_REGISTERS = 4
_END = b"\xff" * 8


@dataclass(frozen=True, slots=True)
class Event:
    """What firmware or guest measured into a register.

    Attributes:
        register: 0 to 3.
        digest: None: that of the data.
    """

    register: int
    kind: int
    data: bytes
    digest: bytes | None = None

    @property
    def measured(self) -> bytes:
        """What the register is extended with."""
        return sha384(self.data).digest() if self.digest is None else self.digest


def _agent_event(text: bytes) -> bytes:
    return pack("<II", 0x4141454C, len(text)) + text


BOOT = (
    Event(0, EV_SEPARATOR, bytes(4)),
    Event(1, EV_IPL, b"a kernel"),
    Event(1, EV_SEPARATOR, bytes(4)),
    Event(2, EV_IPL, b"console=hvc0 root=/dev/vda\0"),
    Event(3, EV_EVENT_TAG, _agent_event(b"imagers.test boot done")),
)
"""Of a guest whose evidence names no other events."""


def event_log(events: Sequence[Event]) -> bytes:
    """The log of a guest, as its kernel gives it."""
    header = b"Spec ID Event03\0" + pack("<IBBBB", 0, 0, 2, 0, 2)
    header += pack("<IHH", 1, _SHA384, sha384().digest_size) + b"\0"
    first = pack("<II", 1, EV_NO_ACTION) + bytes(20) + pack("<I", len(header)) + header
    records = (
        pack("<IIIH", event.register + 1, event.kind, 1, _SHA384)
        + event.measured
        + pack("<I", len(event.data))
        + event.data
        for event in events
    )
    return first + b"".join(records) + _END


def replay(events: Sequence[Event]) -> tuple[bytes, ...]:
    """The registers 0 to 3 after these events."""
    registers = [bytes(48)] * _REGISTERS
    for event in events:
        before = registers[event.register]
        registers[event.register] = sha384(before + event.measured).digest()
    return tuple(registers)
