# SPDX-License-Identifier: Apache-2.0
"""The tar format in plain Python: bytes in, entries out, no file touched.

    0         100      108   116   124    136     148      156  157        257   265 ... 345     500
    name      mode     uid   gid   size   mtime   chksum   type linkname   magic         prefix

    329        337        386                  482        483
    devmajor   devminor   sparse regions (GNU) continued  real size (GNU)

What readers of tars understand differently is refused here, because a layer that means
two things can be checked as one and run as the other. What the readers of all engines pass
over is passed over: most global records, and what is behind the end.

Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar 1.35
manual, "Basic Tar Format" (long names, base-256 numbers). Sparse files: plain_sparse.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from imagers.core.failures import Fault, failure_of
from imagers.core.plain_sparse import BadMap, SparseMap, UnknownForm, map_of_records

if TYPE_CHECKING:
    from imagers.core.values import Limits

__all__ = ["Entry", "EntrySink", "Kind", "TarReader"]

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MAX_EXTENSION = 1024 * 1024  # bytes of an extended header or long name; Go's reader has the same
_MAX_INT64 = 2**63 - 1
_MAX_OWNER = 2**32 - 2  # the last uint32 means "leave it" to chown(2)
_MAX_MAJOR, _MAX_MINOR = 0xFFF, 0xFFFFF  # dev_t of Linux, linux/kdev_t.h
_MAX_ATTRIBUTES = 256  # of one entry
_MAX_ATTRIBUTE_NAME = 255  # XATTR_NAME_MAX of Linux
_MAX_ATTRIBUTE_BYTES = 65536  # XATTR_SIZE_MAX
_GNU = b"ustar  \0"
# Global records that would change what is unpacked. Engines pass over all global records.
_NOT_GLOBAL = (b"path", b"linkpath", b"size", b"uid", b"gid")
_NOT_GLOBAL_STARTS = (b"GNU.sparse.", b"SCHILY.xattr.", b"SCHILY.realsize")
_DECIMAL = re.compile(rb"[0-9]{1,19}\Z")
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?\Z")


class Kind(Enum):
    """The kinds of entries that are unpacked."""

    FILE = 0
    HARD_LINK = 1
    SYMLINK = 2
    CHARACTER_DEVICE = 3
    BLOCK_DEVICE = 4
    DIRECTORY = 5
    FIFO = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, with its extended headers applied.

    Attributes:
        name: as written, perhaps absolute; not checked.
        target: of a link, as written.
        size: of the file, with its holes; 0 for all but files.
        mtime: in nanoseconds since 1970.
        device: major and minor number.
        attributes: extended ones, in the order to set them; None: a kind of record that says
            something which is never set.
        is_sparse: data comes with holes, see `EntrySink.seek`.
    """

    kind: Kind
    name: bytes
    target: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    device: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[bytes, bytes | None], ...] = ()
    is_sparse: bool = False


class EntrySink(Protocol):
    """What the entries of a tar are given to."""

    def begin(self, entry: Entry) -> None:
        """An entry starts; `entry.size` bytes of data follow, or fewer of a sparse file."""

    def seek(self, offset: int) -> None:
        """Up to here there is a hole; the next data goes here."""

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
    MAP = 4  # blocks of a sparse file's map
    ENDED = 5  # after two blocks of zeros: the rest is covered by the diff_id, and ignored


class TarReader:
    """Takes a tar in pieces and gives its entries to `sink`.

    Args:
        tar_bytes: the most that the holes of sparse files may have together: whoever reads
            the tree reads them, so they count as bytes of a tar do.

    Attributes:
        hole_bytes: what they have so far.
    """

    def __init__(self, sink: EntrySink, limits: Limits, what: str, *, tar_bytes: int) -> None:
        self._sink = sink
        self._limits = limits
        self._what = what
        self._tar_bytes = tar_bytes
        self.hole_bytes = 0
        self._sparse: SparseMap | None = None  # of the entry at hand
        self._name = b""  # of the entry at hand
        self._position = 0  # in the data of a sparse file
        self._region = 0  # the one that its next data goes to
        self._state = _State.HEADER
        self._offset = 0  # of the next byte in the tar
        self._header_at = 0
        self._block = b""
        self._left = 0  # of extension, data or padding
        self._padding = 0
        self._extension = bytearray()
        self._extension_type = 0
        self._had_zeros = False
        self._records: list[tuple[bytes, bytes]] | None = None
        self._long_name: bytes | None = None
        self._long_target: bytes | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        at = 0
        while at < len(data):
            if self._state is _State.ENDED:
                return
            if self._state in (_State.HEADER, _State.MAP):
                part = data[at : at + _BLOCK - len(self._block)]
                self._block += part
                at += len(part)
                if len(self._block) == _BLOCK:
                    block, self._block = self._block, b""
                    at_block, self._offset = self._offset, self._offset + _BLOCK
                    if self._state is _State.MAP:
                        self._take_map(block)
                    else:
                        self._header_at = at_block
                        self._take_header(block)
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            self._offset += len(part)
            if self._state is _State.EXTENSION:
                self._extension += part
            elif self._state is _State.DATA:
                self._put(part)
            if not self._left:
                self._end_of_part()

    def finish(self) -> None:
        """Be told that there is no more."""
        # Padding behind the last entry is of no use to anybody: Go's reader does not ask for it.
        inside = self._state not in (_State.HEADER, _State.PADDING, _State.ENDED)
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
            # Values for all later entries: some readers apply them, those of engines do not.
            for name, _ in self._parse_records(payload):
                if name in _NOT_GLOBAL or name.startswith(_NOT_GLOBAL_STARTS):
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

    def _parse_records(self, payload: bytes) -> list[tuple[bytes, bytes]]:
        """`length SP name=value LF`, where length counts all of it."""
        records: list[tuple[bytes, bytes]] = []
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
            records.append((name, value))
            at = end
        return records

    def _take_entry(self, block: bytes, kind: int) -> None:
        pairs, self._records = self._records or [], None
        records = dict(pairs)  # the last of a name wins
        name, target = self._take_names(block, records)
        self._name = name
        attributes = self._attributes_of(name, pairs)
        self._sparse = self._sparse_of(name, pairs)
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
        device = (0, 0)
        if what_it_is in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
            device = self._device_of(block, name)
        continued = self._check_sparse(block, kind, what_it_is)
        # Only files have data, whatever the field says: Go's and Python's readers agree.
        size = size if what_it_is is Kind.FILE else 0
        self._sink.begin(
            Entry(
                what_it_is,
                name,
                target,
                mode & 0o7777,
                uid,
                gid,
                size if self._sparse is None else self._sparse.size,
                mtime,
                device,
                attributes,
                self._sparse is not None,
            )
        )
        self._left = size
        if continued:
            self._state = _State.MAP
            return
        self._expect_data()

    def _take_names(self, block: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
        long_name, self._long_name = self._long_name, None
        long_target, self._long_target = self._long_target, None
        name = block[:100].split(b"\0", 1)[0]
        # POSIX ustar only: GNU keeps times where the prefix would be.
        prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
        if prefix:
            name = prefix + b"/" + name
        target = block[157:257].split(b"\0", 1)[0]
        # An empty value takes a record back: POSIX, pax Extended Header.
        # The name of a sparse file: the other one says "GNUSparseFile.1" to those who know none.
        path = records.get(b"GNU.sparse.name") or records.get(b"path")
        linkpath = records.get(b"linkpath")
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
        return name, target

    def _kind_of(self, kind: int, name: bytes) -> Kind:
        if kind == 0 and name.endswith(b"/"):
            return Kind.DIRECTORY  # before POSIX there was no other way to write one
        if kind in b"\x0007S":  # 7 is a file that asks to be contiguous, S a sparse one
            return Kind.FILE
        if kind not in b"123456":
            raise failure_of(Fault.ENTRY_KIND, what=self._what, text=name, number=kind)
        return Kind(kind - ord("0"))

    def _device_of(self, block: bytes, name: bytes) -> tuple[int, int]:
        major = self._number(block, 329, 8, b"devmajor")
        minor = self._number(block, 337, 8, b"devminor")
        if not (0 <= major <= _MAX_MAJOR and 0 <= minor <= _MAX_MINOR):
            # mknod(2) would make another one of it.
            raise failure_of(Fault.ENTRY_DEVICE, what=self._what, text=name)
        return major, minor

    def _attributes_of(
        self, name: bytes, records: list[tuple[bytes, bytes]]
    ) -> tuple[tuple[bytes, bytes | None], ...]:
        """Extended attributes, then what else must not be lost in silence.

        An empty value is a value here: so GNU tar writes an empty attribute.
        """
        found: dict[bytes, bytes | None] = {}

        def put(attribute: bytes, value: bytes | None) -> None:
            if value is not None or attribute not in found:
                found[attribute] = value
            if len(found) > _MAX_ATTRIBUTES:
                number = _MAX_ATTRIBUTES
                raise failure_of(Fault.ENTRY_XATTRS, what=self._what, text=name, number=number)

        for record, value in records:
            if record.startswith(b"SCHILY.xattr."):
                attribute = record.removeprefix(b"SCHILY.xattr.")
                fits = 0 < len(attribute) <= _MAX_ATTRIBUTE_NAME
                if not fits or len(value) > _MAX_ATTRIBUTE_BYTES:
                    raise failure_of(Fault.ENTRY_XATTR, what=self._what, text=name, more=attribute)
                put(attribute, value)
        for record, _ in records:
            # libarchive writes both, and engines read only the other one.
            if record.startswith(b"LIBARCHIVE.xattr."):
                put(record.removeprefix(b"LIBARCHIVE.xattr."), None)
            elif record.startswith(b"RHT.security."):  # GNU tar and star, beside the other one
                put(record.removeprefix(b"RHT."), None)
            elif record.startswith(b"SCHILY.acl."):
                put(record, None)
        return tuple(found.items())

    # Sparse files

    def _bad_map(self) -> Exception:
        return failure_of(Fault.ENTRY_SPARSE_MAP, what=self._what, text=self._name)

    def _sparse_of(self, name: bytes, records: list[tuple[bytes, bytes]]) -> SparseMap | None:
        try:
            return map_of_records(records)
        except BadMap:
            raise self._bad_map() from None
        except UnknownForm:
            raise failure_of(Fault.ENTRY_SPARSE, what=self._what, text=name) from None

    def _check_sparse(self, block: bytes, kind: int, what_it_is: Kind) -> bool:
        """Take the map of an old header, if it is one; whether more of the map follows."""
        if kind != ord("S"):
            if self._sparse is not None and what_it_is is not Kind.FILE:
                raise self._bad_map()
            return self._sparse is not None and self._sparse.is_in_data
        if self._sparse is not None:
            raise self._bad_map()
        if block[257:265] != _GNU:  # star has an S of its own
            raise failure_of(Fault.ENTRY_SPARSE, what=self._what, text=self._name)
        size = self._number(block, 483, 12, b"realsize")
        if size < 0:
            raise self._bad_map()
        self._sparse = SparseMap(size)
        self._take_regions(block, 386, 4)
        return block[482] != 0

    def _take_regions(self, block: bytes, at: int, count: int) -> None:
        """Pairs of numbers of 12 bytes; the first that is empty ends them, as in GNU tar and Go."""
        assert self._sparse is not None  # of the old form
        for start in range(at, at + 24 * count, 24):
            if block[start] == 0:
                return
            offset = self._number(block, start, 12, b"offset")
            length = self._number(block, start + 12, 12, b"numbytes")
            try:
                self._sparse.add(offset, length)
            except BadMap:
                raise self._bad_map() from None

    def _take_map(self, block: bytes) -> None:
        """A block of the map that stands behind the header."""
        sparse = self._sparse
        assert sparse is not None  # in this state
        if not sparse.is_in_data:
            self._take_regions(block, 0, 21)
            if block[504] == 0:
                self._expect_data()
            return
        self._left -= _BLOCK
        if self._left < 0:
            raise self._bad_map()
        try:
            is_complete = sparse.take_lines(block)
        except BadMap:
            raise self._bad_map() from None
        if is_complete:
            self._expect_data()

    def _expect_data(self) -> None:
        """The entry began, and its map is complete if it has one."""
        sparse = self._sparse
        self._position = self._region = 0
        if sparse is not None:
            if sparse.stored != self._left:
                raise self._bad_map()
            self.hole_bytes += sparse.size - sparse.stored
            if self.hole_bytes > self._tar_bytes:
                raise failure_of(Fault.TAR_BYTES, what=self._what, number=self._tar_bytes)
        self._expect(_State.DATA, self._left)

    def _put(self, data: bytes) -> None:
        """Data of a file, to where its map says."""
        if self._sparse is None:
            self._sink.data(data)
            return
        at = 0
        while at < len(data):
            offset, length = self._sparse.regions[self._region]
            if self._position == 0:
                self._sink.seek(offset)
            part = data[at : at + length - self._position]
            self._sink.data(part)
            at += len(part)
            self._position += len(part)
            if self._position == length:
                self._position, self._region = 0, self._region + 1

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
