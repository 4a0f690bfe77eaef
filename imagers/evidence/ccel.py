# SPDX-License-Identifier: Apache-2.0
"""The log of what a machine measured: firmware's (CCEL, or of a TPM), and behind it the agent's.

    events = parse_event_log(data)
    check_replay(events, {1: ("rtmr_0", rtmr_0)}, algorithm="SHA-384")

    first record   register u32, type u32 (3), 20 zeros, size u32, and in it
                   signature 16, 8 bytes, number of algorithms u32, (algorithm u16, size u16) each,
                   size of the vendor's part u8, that part
    every other    register u32, type u32, number of digests u32, (algorithm u16, digest) each,
                   size u32, data

Eight bytes of 00 or FF end it. Each register is zero at first and then the hash of itself and each
digest, in order: a log is true if that gives what the hardware says. Registers 1 to 4 are RTMR 0 to
3 of TDX, by SHA-384, and RTMR 1 to 4 of CSV, by SM3; register 0 is nobody's there. Of a TPM they
are its PCRs, 0 to 23; what else is different is in `tpm.log`.

What an event says is bound only where its digest is one of its data (`digest_matches_event`): the
digest of a program is one of the program.

An event of the agent has type 6, and as data the tag `LEAA`, a size and `DOMAIN OPERATION CONTENT`.
`agent_event` makes that, and `make_record` a record; `measure` puts them behind one another.

Spec: TCG PC Client Platform Firmware Profile 1.06, section 10; UEFI 2.11, section 38 and 10.3
(device paths); Trustee, the claim `uefi_event_logs`.
"""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import new
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.steps import mismatch
from imagers.model.strict_json import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from imagers.model.strict_json import JSON

__all__ = [
    "ALGORITHMS",
    "MAX_LOG",
    "NO_ACTION",
    "Event",
    "agent_event",
    "check_replay",
    "digest_by",
    "events_as_json",
    "is_of_agent",
    "join_logs",
    "make_header",
    "make_record",
    "parse_event_log",
    "parse_records",
    "replay",
]

MAX_LOG = 4 * 1024 * 1024
_WHAT = "event log"
_MAX_EVENTS = 10_000
_MAX_DEPTH = 64  # nodes of a device path
NO_ACTION = 3
"""The type of an event that says something, and of a TPM extends nothing."""
_EVENT_TAG = 6
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f]")
_SPEC_ID = b"Spec ID Event03\0"
_AGENT = 0x4141454C
_ENDS = (bytes(8), b"\xff" * 8)
ALGORITHMS = {0x04: "SHA-1", 0x0B: "SHA-256", 0x0C: "SHA-384", 0x0D: "SHA-512", 0x12: "SM3"}
"""By the numbers of TCG's registry."""
_SIZES = {"SHA-1": 20, "SHA-256": 32, "SHA-384": 48, "SHA-512": 64, "SM3": 32}
_NUMBERS = {name: number for number, name in ALGORITHMS.items()}
_TYPES = {
    0x00: "EV_PREBOOT_CERT",
    0x01: "EV_POST_CODE",
    0x02: "EV_UNUSED",
    0x03: "EV_NO_ACTION",
    0x04: "EV_SEPARATOR",
    0x05: "EV_ACTION",
    0x06: "EV_EVENT_TAG",
    0x07: "EV_S_CRTM_CONTENTS",
    0x08: "EV_S_CRTM_VERSION",
    0x09: "EV_CPU_MICROCODE",
    0x0A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0B: "EV_TABLE_OF_DEVICES",
    0x0C: "EV_COMPACT_HASH",
    0x0D: "EV_IPL",
    0x0E: "EV_IPL_PARTITION_DATA",
    0x0F: "EV_NONHOST_CODE",
    0x10: "EV_NONHOST_CONFIG",
    0x11: "EV_NONHOST_INFO",
    0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x80000000: "EV_EFI_EVENT_BASE",
    0x80000001: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    0x80000007: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x80000010: "EV_EFI_HCRTM_EVENT",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
    0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One record.

    Attributes:
        register: which measurement register was extended.
        digests: by algorithm, such as `SHA-384`.
    """

    register: int
    kind: int
    digests: Mapping[str, bytes]
    data: bytes = field(repr=False)

    @property
    def type_name(self) -> str:
        """As the specification has it; the number of an unknown one."""
        return _TYPES.get(self.kind, f"{self.kind:#010x}")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.is_cut_off = False  # the bytes end before a record does

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            left = len(self.data) - self.at
            self.is_cut_off = True
            raise FormatError(
                f"expected {size} bytes at {self.at}, got {left}: it is cut off", what=_WHAT
            )
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")


def parse_event_log(data: bytes) -> tuple[Event, ...]:
    """The events of a log, without its first record. Nothing is verified.

    Raises:
        FormatError: it is none, or too large.
    """
    return _read_log(data)[0]


def join_logs(firmware: bytes, agent: bytes) -> bytes:
    """One log of the firmware's, whose area is longer than it, and of the agent's records.

    Raises:
        FormatError: the firmware's is no log.
    """
    return firmware[: _read_log(firmware)[1]] + agent + _ENDS[1]


def _read_log(data: bytes) -> tuple[tuple[Event, ...], int]:
    """Its events, and where they end."""
    if len(data) > MAX_LOG:
        raise FormatError(f"expected at most {MAX_LOG} bytes, got {len(data)}", what=_WHAT)
    reader = _Reader(data)
    declared = _read_first(reader)
    events: list[Event] = []
    while reader.at < len(data) and data[reader.at : reader.at + 8] not in _ENDS:
        if len(events) == _MAX_EVENTS:
            raise FormatError(f"expected at most {_MAX_EVENTS} events", what=_WHAT)
        events.append(_read_event(reader, declared))
    return tuple(events), reader.at


def _read_event(reader: _Reader, declared: Collection[str]) -> Event:
    register, kind, count = (reader.number(4) for _ in range(3))
    if count > len(declared):
        raise FormatError(
            f"expected at most {len(declared)} digests in an event, got {count}", what=_WHAT
        )
    digests: dict[str, bytes] = {}
    for _ in range(count):
        name, size = _algorithm(reader.number(2))
        if name not in declared or name in digests:
            raise FormatError(f"expected one digest {name} in an event", what=_WHAT)
        digests[name] = reader.take(size)
    return Event(register, kind, digests, reader.take(reader.number(4)))


def parse_records(data: bytes) -> tuple[tuple[Event, ...], tuple[int, ...]]:
    """The records of an agent, which have no first one before them, and where each ends.

    The last one may be cut off, as a power cut leaves it: it is none then.

    Raises:
        FormatError: there is something else.
    """
    reader = _Reader(data)
    events: list[Event] = []
    ends: list[int] = []
    try:
        while reader.at < len(data):
            events.append(_read_event(reader, _SIZES))
            ends.append(reader.at)
    except FormatError:
        if not reader.is_cut_off:
            raise
    return tuple(events), tuple(ends)


def agent_event(domain: str, operation: str, content: str) -> bytes:
    """The data of an event of the agent.

    Spec: guest-components, Attestation Agent Event Log.
    """
    text = f"{domain} {operation} {content}".encode()
    return struct.pack("<II", _AGENT, len(text)) + text


def is_of_agent(event: Event) -> bool:
    """Whether an event says that it is one of the agent's."""
    return event.kind == _EVENT_TAG and event.data[:4] == struct.pack("<I", _AGENT)


def make_record(register: int, digests: Mapping[str, bytes], data: bytes) -> bytes:
    """The record of an event of the agent."""
    parts = [struct.pack("<III", register, _EVENT_TAG, len(digests))]
    parts += [struct.pack("<H", _NUMBERS[name]) + digest for name, digest in digests.items()]
    return b"".join([*parts, struct.pack("<I", len(data)), data])


def make_header(algorithms: Iterable[str]) -> bytes:
    """A first record, for a log of which the firmware wrote none."""
    declared = [struct.pack("<HH", _NUMBERS[name], _SIZES[name]) for name in algorithms]
    inner = _SPEC_ID + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(declared))
    inner += b"".join(declared) + b"\0"
    return struct.pack("<II", 0, NO_ACTION) + bytes(20) + struct.pack("<I", len(inner)) + inner


def _read_first(reader: _Reader) -> set[str]:
    """The algorithms that the log says it has."""
    _, kind = reader.number(4), reader.number(4)
    reader.take(20)
    inner = _Reader(reader.take(reader.number(4)))
    if kind != NO_ACTION or inner.take(16) != _SPEC_ID:
        raise FormatError("expected a first record 'Spec ID Event03'", what=_WHAT)
    inner.take(8)
    count = inner.number(4)
    if not 1 <= count <= len(ALGORITHMS):
        raise FormatError(f"expected 1 to {len(ALGORITHMS)} algorithms, got {count}", what=_WHAT)
    found: set[str] = set()
    for _ in range(count):
        (name, known), size = _algorithm(inner.number(2)), inner.number(2)
        if size != known or name in found:
            raise FormatError(f"expected {name} once, of {known} bytes", what=_WHAT)
        found.add(name)
    inner.take(inner.number(1))
    return found


def _algorithm(number: int) -> tuple[str, int]:
    if number not in ALGORITHMS:
        known = ", ".join(_SIZES)
        raise FormatError(f"expected an algorithm of {known}, got {number:#06x}", what=_WHAT)
    name = ALGORITHMS[number]
    return name, _SIZES[name]


def replay(events: Sequence[Event], register: int, algorithm: str, *, begin: int = 0) -> bytes:
    """What a register is after all events of a log.

    Args:
        begin: what it is before, as a number.

    Raises:
        FormatError: an event of it has no digest of this kind, so that nothing would bind it.
    """
    value = begin.to_bytes(_SIZES[algorithm])
    for event in events:
        if event.register != register:
            continue
        if algorithm not in event.digests:
            found = ", ".join(event.digests) or "none"
            raise FormatError(
                f"expected a digest {algorithm} in each event of register {register}, got {found}",
                what=_WHAT,
            )
        value = digest_by(algorithm, value + event.digests[algorithm])
    return value


def check_replay(
    events: Sequence[Event], registers: Mapping[int, tuple[str, bytes]], *, algorithm: str
) -> None:
    """Raise unless a log gives what the hardware says.

    Args:
        registers: by number in the log: its name, and its value.

    Raises:
        EvidenceRejected: it gives another value, or has an event that nothing binds.
    """
    for number, (name, found) in registers.items():
        try:
            replayed = replay(events, number, algorithm)
        except FormatError as error:
            raise EvidenceRejected(str(error)) from None
        if replayed != found:
            raise mismatch(f"{name} by the event log", found.hex(), replayed.hex())


def digest_by(algorithm: str, data: bytes) -> bytes:
    """The hash of bytes, by the name that a log has for it."""
    if algorithm == "SM3":  # hashlib has it only where OpenSSL was built with it
        state = hashes.Hash(hashes.SM3())
        state.update(data)
        return state.finalize()
    return new(algorithm.replace("-", "").lower(), data).digest()


def events_as_json(events: Sequence[Event]) -> list[JSON]:
    """The claim `uefi_event_logs`."""
    return [
        {
            "index": event.register,
            "type_name": event.type_name,
            "digests": [
                {"alg": name, "digest": digest.hex()} for name, digest in event.digests.items()
            ],
            "event": b64encode(event.data).decode(),
            "details": _details(event),
            "digest_matches_event": bool(event.digests)
            and all(digest_by(name, event.data) == one for name, one in event.digests.items()),
        }
        for event in events
    ]


def _details(event: Event) -> dict[str, JSON]:
    """What the data says, or nothing where it is not of the form that the specification gives."""
    with suppress(ValueError, IndexError, struct.error):
        match _TYPES.get(event.kind):
            case (
                "EV_EFI_VARIABLE_DRIVER_CONFIG"
                | "EV_EFI_VARIABLE_BOOT"
                | "EV_EFI_VARIABLE_BOOT2"
                | "EV_EFI_VARIABLE_AUTHORITY"
            ):
                return _variable(event.data)
            case "EV_EFI_BOOT_SERVICES_APPLICATION":
                return _application(event.data)
            case "EV_EVENT_TAG":
                return _tagged(event.data)
            case "EV_EFI_HANDOFF_TABLES2" | "EV_EFI_PLATFORM_FIRMWARE_BLOB2":
                return {"string": event.data[1 : event.data[0]].decode()}  # with a zero at its end
            case "EV_IPL":
                return {"string": _loader(event.data)}
            case "EV_PLATFORM_CONFIG_FLAGS":
                return {"string": _flags(event.data)}
            case "EV_POST_CODE" | "EV_ACTION" | "EV_EFI_ACTION" | "EV_COMPACT_HASH":
                return {"string": event.data.decode()}
            case "EV_OMIT_BOOT_DEVICE_EVENTS":
                return {"string": event.data.decode()}
    return {}


def _variable(data: bytes) -> dict[str, JSON]:
    guid = data[:16].hex()
    name_length, length = struct.unpack_from("<QQ", data, 16)
    if 32 + 2 * name_length + length > len(data):
        raise ValueError("is cut off")
    end = 32 + 2 * name_length
    return {
        "unicode_name": data[32:end].decode("utf-16-le"),
        "unicode_name_length": name_length,
        "variable_data": b64encode(data[end : end + length]).decode(),
        "variable_data_length": length,
        "variable_name": "-".join(
            guid[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
        ),
    }


def _application(data: bytes) -> dict[str, JSON]:
    (length,) = struct.unpack_from("<Q", data, 24)
    if not length:
        return {}
    path = data[32 : 32 + length]
    paths: list[JSON] = []
    if len(path) != length:
        raise ValueError("is cut off")
    while len(path) > 4 and len(paths) < _MAX_DEPTH:  # the last node says that it is the last
        kind, sub_kind, size = struct.unpack_from("<BBH", path)
        if not 4 <= size <= len(path):
            raise ValueError("is cut off")
        paths.append(_node(kind, sub_kind, path[4:size]))
        path = path[size:]
    return {"device_paths": paths}


def _node(kind: int, sub_kind: int, data: bytes) -> str:
    """A node of a device path as UEFI writes it; in hex where it is of another kind."""
    match kind, sub_kind:
        case 1, 1 if len(data) == 2:
            return f"Pci({data[0]},{data[1]})"
        case 2, 1 if len(data) == 8 and data[:2] == b"\xd0\x41":  # PNP, in five bits a letter
            hid, uid = struct.unpack("<II", data)
            return f"ACPI(PNP{hid >> 16:04X},{uid})"
        case 4, 1 if len(data) == 38 and data[36] in (1, 2):
            number, begin, size = struct.unpack_from("<IQQ", data)
            is_gpt = data[36] == 2
            signature = _guid(data[20:36]) if is_gpt else f"0x{data[23::-1][:4].hex()}"
            place = f",{begin:#x},{size:#x}" if number else ""
            return f"HD({number},{'GPT' if is_gpt else 'MBR'},{signature}{place})"
        case 4, 3 if len(data) >= 16:
            return f"VenMedia({_guid(data[:16])},{data[16:].hex()})"
        case 4, 4 if len(data) >= 2 and len(data) % 2 == 0:
            return f"File({data[:-2].decode('utf-16-le', 'replace')})"
    return f"Path({kind},{sub_kind},{data.hex()})"


def _guid(data: bytes) -> str:
    a, b, c = struct.unpack_from("<IHH", data)
    return f"{a:08X}-{b:04X}-{c:04X}-{data[8:10].hex().upper()}-{data[10:].hex().upper()}"


def _tagged(data: bytes) -> dict[str, JSON]:
    tag, size = struct.unpack_from("<II", data)
    if 8 + size > len(data):
        raise ValueError("is cut off")
    text = data[8 : 8 + size].decode().replace("\0", "")
    if tag != _AGENT:
        return {"string": text}
    domain, operation, rest = text.split(" ", 2)
    content: JSON = rest
    with suppress(FormatError):  # JSON, or any other text
        content = parse_json(rest.encode(), what=_WHAT, max_bytes=MAX_LOG)
    return {
        "string": text,
        "unicode_name": "AAEL",
        "data": {"domain": domain, "operation": operation, "content": content},
    }


def _loader(data: bytes) -> str:
    if data[:2] == b"\x2e\0":  # UTF-16 behind a dot, of Google
        return data[2:-2].decode("utf-16-le", "replace")
    text = data.partition(b"\0")[0]
    try:
        return text.decode()
    except ValueError:
        return data.hex()


def _flags(data: bytes) -> str:
    try:
        text = data.decode()
    except ValueError:
        return ""
    # td-shim has the length of its text in front of it, of which 0x10 is a part.
    return _CONTROLS.sub("", text.replace("\x10", " "))
