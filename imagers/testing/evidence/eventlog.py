# SPDX-License-Identifier: Apache-2.0
"""Event logs of TDX and CSV for tests, and the registers that they lead to.

    log = event_log([Event(0, EV_SEPARATOR, bytes(4))])
    replay([...])                                        # RTMR 0 to 3
    replay([...], algorithm="SM3")                       # RTMR 1 to 4 of CSV

Spec: TCG PC Client Platform Firmware Profile, 10.2; register 0 is index 1 in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha384
from struct import pack
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BOOT", "EV_EVENT_TAG", "EV_IPL", "EV_SEPARATOR", "Event", "event_log", "replay"]

EV_NO_ACTION, EV_SEPARATOR, EV_EVENT_TAG, EV_IPL = 0x03, 0x04, 0x06, 0x0D
_ALGORITHMS = {"SHA-384": (0x000C, 48), "SM3": (0x0012, 32)}
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

    def measured(self, algorithm: str = "SHA-384") -> bytes:
        """What the register is extended with."""
        return _hash(algorithm, self.data) if self.digest is None else self.digest


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


def _hash(algorithm: str, data: bytes) -> bytes:
    if algorithm != "SM3":
        return sha384(data).digest()
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize()


def event_log(events: Sequence[Event], *, algorithm: str = "SHA-384") -> bytes:
    """The log of a guest, as its kernel gives it."""
    number, size = _ALGORITHMS[algorithm]
    header = b"Spec ID Event03\0" + pack("<IBBBB", 0, 0, 2, 0, 2)
    header += pack("<IHH", 1, number, size) + b"\0"
    first = pack("<II", 1, EV_NO_ACTION) + bytes(20) + pack("<I", len(header)) + header
    records = (
        pack("<IIIH", event.register + 1, event.kind, 1, number)
        + event.measured(algorithm)
        + pack("<I", len(event.data))
        + event.data
        for event in events
    )
    return first + b"".join(records) + _END


def replay(events: Sequence[Event], *, algorithm: str = "SHA-384") -> tuple[bytes, ...]:
    """The registers 0 to 3 after these events."""
    registers = [bytes(_ALGORITHMS[algorithm][1])] * _REGISTERS
    for event in events:
        before = registers[event.register]
        registers[event.register] = _hash(algorithm, before + event.measured(algorithm))
    return tuple(registers)
