"""The tar format in plain Python: bytes in, entries out, no file touched.

    0         100      108   116   124    136     148      156  157        257   265 ... 345     500
    name      mode     uid   gid   size   mtime   chksum   type linkname   magic         prefix

What readers of tars understand differently is refused here, because a layer that means
two things can be checked as one and run as the other.

Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar 1.35
manual, "Basic Tar Format" (long names, base-256 numbers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from imagers.core.failures import Fault, failure_of

if TYPE_CHECKING:
    from imagers.core.values import Limits

__all__ = ["Entry", "EntrySink", "Kind", "TarReader"]

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MAX_EXTENSION = 1024 * 1024  # bytes of an extended header or long name; Go's reader has the same
_MAX_INT64 = 2**63 - 1
_MAX_OWNER = 2**32 - 2  # the last uint32 means "leave it" to chown(2)
_DECIMAL = re.compile(rb"[0-9]{1,19}\Z")
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?\Z")


class Kind(Enum):
    """The kinds of entries that are unpacked."""

    FILE = 0
    HARD_LINK = 1
    SYMLINK = 2
    DIRECTORY = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, with its extended headers applied.

    Attributes:
        name: as written, perhaps absolute; not checked.
        target: of a link, as written.
        size: of the data that follows; 0 for all but files.
        mtime: in nanoseconds since 1970.
    """

    kind: Kind
    name: bytes
    target: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int


class EntrySink(Protocol):
    """Who takes the entries."""

    def begin(self, entry: Entry) -> None:
        """An entry starts; `entry.size` bytes of data follow."""

    def data(self, data: bytes) -> None:
        """Some of the data."""

    def end(self) -> None:
        """All data of the entry was given."""

    def finish(self) -> None:
        """The tar has ended well."""


class _State(Enum):
    HEADER = 0
    EXTENSION = 1
    DATA = 2
    PADDING = 3
    ENDED = 4  # after two blocks of zeros: the rest is covered by the diff_id, and ignored


class TarReader:
    """Takes a tar in pieces and gives its entries to `sink`."""

    def __init__(self, sink: EntrySink, limits: Limits, what: str) -> None:
        self._sink = sink
        self._limits = limits
        self._what = what
        self._state = _State.HEADER
        self._offset = 0  # of the next byte in the tar
        self._header_at = 0
        self._block = b""
        self._left = 0  # of extension, data or padding
        self._padding = 0
        self._extension = bytearray()
        self._extension_type = 0
        self._had_zeros = False
        self._records: dict[bytes, bytes] | None = None
        self._long_name: bytes | None = None
        self._long_target: bytes | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        at = 0
        while at < len(data):
            if self._state is _State.ENDED:
                return
            if self._state is _State.HEADER:
                part = data[at : at + _BLOCK - len(self._block)]
                self._block += part
                at += len(part)
                if len(self._block) == _BLOCK:
                    block, self._block = self._block, b""
                    self._header_at = self._offset
                    self._offset += _BLOCK
                    self._take_header(block)
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            self._offset += len(part)
            if self._state is _State.EXTENSION:
                self._extension += part
            elif self._state is _State.DATA:
                self._sink.data(part)
            if not self._left:
                self._end_of_part()

    def finish(self) -> None:
        """Be told that there is no more."""
        inside = self._state not in (_State.HEADER, _State.ENDED)
        if self._block or inside or self._has_pending():
            raise failure_of(Fault.TAR_SHORT, what=self._what)
        self._sink.finish()

    def _has_pending(self) -> bool:
        """Whether something was said of an entry that did not come."""
        extensions = (self._records, self._long_name, self._long_target)
        return any(one is not None for one in extensions)

    def _bad(self, fault: Fault, text: bytes = b"", number: int = 0) -> Exception:
        return failure_of(fault, what=self._what, text=text, number=number, other=self._header_at)

    def _end_of_part(self) -> None:
        """The extension, the data or the padding is complete."""
        if self._state is _State.EXTENSION:
            self._take_extension(bytes(self._extension))
            self._extension.clear()
        elif self._state is _State.DATA:
            self._sink.end()
        if self._state is not _State.PADDING and self._padding:
            self._state, self._left = _State.PADDING, self._padding
        else:
            self._state = _State.HEADER

    def _expect(self, state: _State, size: int) -> None:
        self._state, self._left, self._padding = state, size, -size % _BLOCK
        if not size:
            self._end_of_part()

    def _take_header(self, block: bytes) -> None:
        if block == _ZEROS:
            if self._had_zeros:
                if self._has_pending():
                    raise failure_of(Fault.TAR_SHORT, what=self._what)
                self._state = _State.ENDED
            self._had_zeros = True
            return
        if self._had_zeros:
            raise self._bad(Fault.TAR_LONE_ZERO)
        self._check_sum(block)
        kind = block[156]
        if kind in b"xgLK":
            size = self._number(block, 124, 12, b"size")
            if not 0 <= size <= _MAX_EXTENSION:
                raise self._bad(Fault.TAR_EXTENSION_SIZE, number=_MAX_EXTENSION)
            self._extension_type = kind
            self._expect(_State.EXTENSION, size)
            return
        self._take_entry(block, kind)

    def _check_sum(self, block: bytes) -> None:
        """The checksum, with bytes as unsigned or, as some old tars have it, signed numbers."""
        try:
            expected = self._number(block, 148, 8, b"chksum")
        except Exception:  # noqa: BLE001  # any fault in it is a fault of the checksum
            raise self._bad(Fault.TAR_CHECKSUM) from None
        counted = block[:148] + b" " * 8 + block[156:]
        unsigned = sum(counted)
        signed = unsigned - 256 * sum(1 for byte in counted if byte > 127)
        if expected not in (unsigned, signed):
            raise self._bad(Fault.TAR_CHECKSUM)

    def _number(self, block: bytes, at: int, length: int, field: bytes) -> int:
        """A numeric field: octal, or base-256 where the first bit is set."""
        raw = block[at : at + length]
        if raw[0] & 0x80:
            value = int.from_bytes(raw, "big")
            bits = 8 * length
            value &= (1 << (bits - 1)) - 1
            if raw[0] & 0x40:
                value -= 1 << (bits - 1)
            if not -_MAX_INT64 - 1 <= value <= _MAX_INT64:
                raise self._bad(Fault.TAR_NUMBER, field)
            return value
        digits = raw.strip(b" \0")
        if any(byte not in b"01234567" for byte in digits):
            raise self._bad(Fault.TAR_NUMBER, field)
        return int(digits, 8) if digits else 0

    def _take_extension(self, payload: bytes) -> None:
        kind = chr(self._extension_type)
        if kind == "g":
            # Values for all later entries: some readers apply them, some do not.
            for name in self._parse_records(payload):
                if name != b"comment":
                    raise self._bad(Fault.TAR_PAX_GLOBAL, name)
        elif kind == "x":
            if self._records is not None:
                raise self._bad(Fault.TAR_EXTENSION_TWICE)
            self._records = self._parse_records(payload)
        else:
            text = payload.split(b"\0", 1)[0]
            twice = self._long_name if kind == "L" else self._long_target
            if twice is not None:
                raise self._bad(Fault.TAR_EXTENSION_TWICE)
            if kind == "L":
                self._long_name = text
            else:
                self._long_target = text

    def _parse_records(self, payload: bytes) -> dict[bytes, bytes]:
        """`length SP name=value LF`, where length counts all of it; the last of a name wins."""
        records: dict[bytes, bytes] = {}
        at = 0
        while at < len(payload):
            space = payload.find(b" ", at, at + 8)
            digits = payload[at:space] if space > at else b""
            if not digits.isdigit():
                raise self._bad(Fault.TAR_PAX)
            end = at + int(digits)
            if end > len(payload) or end < space + 2 or payload[end - 1] != ord("\n"):
                raise self._bad(Fault.TAR_PAX)
            name, equals, value = payload[space + 1 : end - 1].partition(b"=")
            if not equals or not name or b"\0" in name:
                raise self._bad(Fault.TAR_PAX)
            records[name] = value
            at = end
        return records

    def _take_entry(self, block: bytes, kind: int) -> None:
        records, self._records = self._records or {}, None
        long_name, self._long_name = self._long_name, None
        long_target, self._long_target = self._long_target, None
        name = block[:100].split(b"\0", 1)[0]
        # POSIX ustar only: GNU keeps times where the prefix would be.
        prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
        if prefix:
            name = prefix + b"/" + name
        target = block[157:257].split(b"\0", 1)[0]
        # An empty value takes a record back: POSIX, pax Extended Header.
        path, linkpath = records.get(b"path"), records.get(b"linkpath")
        if (path and long_name is not None) or (linkpath and long_target is not None):
            raise self._bad(Fault.TAR_EXTENSION_TWICE)
        name = path or (name if long_name is None else long_name)
        target = linkpath or (target if long_target is None else long_target)
        if b"\0" in name or b"\0" in target:
            raise self._bad(Fault.TAR_NUL)
        for one in (name, target):
            if len(one) > self._limits.max_name_bytes:
                limit = self._limits.max_name_bytes
                raise failure_of(Fault.NAME_BYTES, what=self._what, text=one, number=limit)
        self._refuse_records(name, records)
        mode = self._number(block, 100, 8, b"mode")
        uid = self._pax_number(records, b"uid", self._number(block, 108, 8, b"uid"))
        gid = self._pax_number(records, b"gid", self._number(block, 116, 8, b"gid"))
        size = self._pax_number(records, b"size", self._number(block, 124, 12, b"size"))
        mtime = self._number(block, 136, 12, b"mtime") * 10**9
        if records.get(b"mtime"):
            mtime = self._pax_time(records[b"mtime"])
        if not 0 <= size <= _MAX_INT64:
            raise self._bad(Fault.TAR_NUMBER, b"size")
        if not (0 <= uid <= _MAX_OWNER and 0 <= gid <= _MAX_OWNER):
            raise failure_of(Fault.ENTRY_OWNER, what=self._what, text=name)
        what_it_is = self._kind_of(kind, name)
        # Only files have data, whatever the field says: Go's and Python's readers agree.
        size = size if what_it_is is Kind.FILE else 0
        self._sink.begin(Entry(what_it_is, name, target, mode & 0o7777, uid, gid, size, mtime))
        self._expect(_State.DATA, size)

    def _kind_of(self, kind: int, name: bytes) -> Kind:
        if kind == 0 and name.endswith(b"/"):
            return Kind.DIRECTORY  # before POSIX there was no other way to write one
        if kind in b"\x0007":  # 7 is a file that asks to be contiguous
            return Kind.FILE
        found = {ord("1"): Kind.HARD_LINK, ord("2"): Kind.SYMLINK, ord("5"): Kind.DIRECTORY}
        if kind not in found:
            raise failure_of(Fault.ENTRY_KIND, what=self._what, text=name, number=kind)
        return found[kind]

    def _refuse_records(self, name: bytes, records: dict[bytes, bytes]) -> None:
        """What would be lost if it were ignored."""
        for record in records:
            if record.startswith((b"GNU.sparse.", b"SCHILY.realsize")):
                raise failure_of(Fault.ENTRY_SPARSE, what=self._what, text=name)
            for start in (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.", b"RHT.security."):
                if record.startswith(start):
                    more = record if start == b"RHT.security." else record[len(start) :]
                    raise failure_of(Fault.ENTRY_XATTR, what=self._what, text=name, more=more)
            if record.startswith(b"SCHILY.acl."):
                raise failure_of(Fault.ENTRY_ACL, what=self._what, text=name)

    def _pax_number(self, records: dict[bytes, bytes], name: bytes, header: int) -> int:
        text = records.get(name)
        if not text:
            return header
        if not _DECIMAL.match(text):
            raise self._bad(Fault.TAR_PAX_VALUE, name)
        return int(text)

    def _pax_time(self, text: bytes) -> int:
        match = _TIME.match(text)
        if not match:
            raise self._bad(Fault.TAR_PAX_VALUE, b"mtime")
        fraction = int((match[3] or b"")[:9].ljust(9, b"0"))
        value = int(match[2]) * 10**9 + fraction
        return -value if match[1] else value
