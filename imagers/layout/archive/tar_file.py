# SPDX-License-Identifier: Apache-2.0
"""Reading a tar by names: where each member is, found in one pass over the headers.

    with TarFile.open(path) as tar:
        tar.read("manifest.json", max_bytes=4096)

Python's `tarfile` reads extended headers whole, however long they say to be; here every
length has a bound. Only what archives of images have: files, directories, links; long names
of GNU and PAX.

Spec: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
"Basic Tar Format".
"""

from __future__ import annotations

import bz2
import lzma
import os
import posixpath
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagers.core import Limits, open_layer
from imagers.errors import FormatError, Truncated, Unsupported
from imagers.files import StagedFile, local_errors, open_regular, write_all
from imagers.model.closing import Closing
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, new_hasher
from imagers.model.media import Compression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Member", "TarFile", "TarRegion"]

_BLOCK = 512
_MAX_MEMBERS = 200_000
_MAX_EXTENSION = 1024 * 1024  # bytes of a PAX header or long name
_MAX_EXTENSIONS = 16 * 1024 * 1024  # bytes of all of them
_MAX_LENGTH_DIGITS = 7
_MAX_LINKS = 8  # in a row
# What a compressed archive may unpack to. Deflate reaches 1032, so that the ratio of layers would
# let 4 MB fill 4 GiB of a disk; archives of images come to 2 or 3.
_UNPACKED = Limits(max_ratio=100, free_tar_bytes=256 * 1024 * 1024)
_PACKED_PIECE = 16 * 1024  # at most a thousand times as much comes out of it
_FIRST_PIECE = 256  # of a gzip member: what follows a short one is not copied each time
_PLAIN_PIECE = 1024 * 1024  # of what comes out: 16 KiB of bzip2 can hold 300 MB
_XZ_MEMORY = 72 * 1024 * 1024  # xz -9 needs 65 MiB
_XZ_PADDING = 4  # bytes; xz file format 1.2.1, section 2.2
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_FILES = b"\0" + b"07"
_LINKS = b"12"  # hard, symbolic


@dataclass(frozen=True, slots=True)
class Member:
    """A file, or a link to one.

    Attributes:
        offset: of its bytes in the archive.
        target: normalised name that a link means; "" for a file.
    """

    offset: int
    size: int
    target: str = ""


class TarRegion:
    """A `RawStream` over the bytes of one member."""

    def __init__(self, fd: int, member: Member, path: Path) -> None:
        self._fd = os.dup(fd)
        self._at = member.offset
        self._left = member.size
        self._path = path

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill a part of `buffer`; 0 at the end of the member."""
        piece = buffer[: self._left]
        if not len(piece):
            return 0
        with local_errors(self._path):
            count = os.preadv(self._fd, [piece], self._at)
        self._at += count
        self._left -= count
        return count

    def close(self) -> None:
        """Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class TarFile(Closing):
    """The members of an archive by their normalised names.

    Args:
        fd: of a plain tar; owned by this object afterwards.
        path: as messages show it.

    Raises:
        FormatError, Truncated: it is no tar, or two files that differ have one name.
    """

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        try:
            with local_errors(path):
                self.members = _Scan(fd, path).members()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: Path) -> TarFile:
        """The archive at `path`; a compressed one is unpacked into a nameless file first.

        Raises:
            FileNotFoundError: there is none.
            FormatError, Truncated: what it is compressed with is damaged.
            Unsupported: it unpacks to more than `_UNPACKED` allows.
        """
        fd = open_regular(path)
        try:
            with local_errors(path):
                start = os.pread(fd, max(map(len, _MAGIC)), 0)
                kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "")
                if kind:
                    plain = _unpack(fd, path, kind)
                    os.close(fd)
                    fd = plain
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, path)

    def find(self, name: str) -> Member | None:
        """The file of that name, through links; None where there is none."""
        for _ in range(_MAX_LINKS):
            member = self.members.get(_normal(name))
            if member is None or not member.target:
                return member
            name = member.target
        raise FormatError("expected fewer links in a row", what=f"{self._path}: {name[:160]!r}")

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """The bytes of a file, or None where there is none.

        Raises:
            FormatError: it is longer.
        """
        member = self.find(name)
        if member is None:
            return None
        if member.size > max_bytes:
            raise FormatError(
                f"expected at most {max_bytes} bytes, got {member.size}",
                what=f"{self._path}: {name[:160]!r}",
            )
        data = bytearray(member.size)
        at = 0
        stream = self.open_member(member)
        with memoryview(data) as view:
            while count := stream.readinto(view[at:]):
                at += count
        stream.close()
        return bytes(data)

    def open_member(self, member: Member) -> TarRegion:
        """Its bytes, as a `RawStream` that outlives this object."""
        return TarRegion(self._fd, member, self._path)

    def close(self) -> None:
        """Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Scan:
    """One pass over the headers."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._end = os.fstat(fd).st_size
        self._at = 0
        self._extensions = 0  # bytes

    def members(self) -> dict[str, Member]:
        found: dict[str, Member] = {}
        records: dict[str, str] = {}
        for _ in range(_MAX_MEMBERS):
            header = self._header()
            if header is None:
                return found
            kind = header[156:157]
            size = self._number(header[124:136])
            if "size" in records and kind not in b"xgLK":
                size = self._decimal(records["size"])
            if kind in b"xgLK":
                data = self._extension(size)
                if kind == b"x":
                    records |= self._pax(data)
                elif kind == b"L":
                    records["path"] = _text(data)
                elif kind == b"K":
                    records["linkpath"] = _text(data)
                continue  # a global header has nothing that counts here
            name = records.get("path") or _name(header)
            target = records.get("linkpath") or _text(header[157:257])
            records = {}
            self._add(found, _normal(name), kind, size, target)
            if kind in _FILES:
                self._skip(size)
        raise self._wrong(f"expected at most {_MAX_MEMBERS} members")

    def _add(
        self, found: dict[str, Member], name: str, kind: bytes, size: int, target: str
    ) -> None:
        if kind in _FILES:
            member = Member(self._at, size)
        elif kind in _LINKS:
            base = posixpath.dirname(name) if kind == b"2" else ""
            member = Member(self._at, 0, _normal(posixpath.join(base, target)) or ".")
        else:
            return  # directories; all else is nothing that an image needs
        # Readers differ in which one counts, so that it must not matter: the same bytes, as
        # archives of several images have them, or the same link.
        if name in found and not self._is_same(found[name], member):
            raise self._wrong(f"expected one file {name[:160]!r}, got two that differ")
        found.setdefault(name, member)

    def _is_same(self, one: Member, other: Member) -> bool:
        if (one.size, one.target) != (other.size, other.target):
            return False
        # A file is read once for each time that it is there again: no more than the archive.
        for at in range(0, one.size, _PLAIN_PIECE):
            count = min(_PLAIN_PIECE, one.size - at)
            if os.pread(self._fd, count, one.offset + at) != os.pread(
                self._fd, count, other.offset + at
            ):
                return False
        return True

    def _header(self) -> bytes | None:
        """The next header; None at the end."""
        if self._at == self._end:
            return None
        header = os.pread(self._fd, _BLOCK, self._at)
        if len(header) < _BLOCK:
            if not self._at:
                raise self._wrong("")
            raise Truncated(what=str(self._path))
        if not any(header):
            return None
        told = header[148:156]
        actual = sum(header) - sum(told) + 8 * 0x20
        if self._number(told) != actual:
            raise self._wrong("expected a tar header")
        self._at += _BLOCK
        return header

    def _extension(self, size: int) -> bytes:
        if size > _MAX_EXTENSION:
            raise self._wrong(f"expected an extended header of at most {_MAX_EXTENSION} bytes")
        self._extensions += size
        if self._extensions > _MAX_EXTENSIONS:
            raise self._wrong(f"expected at most {_MAX_EXTENSIONS} bytes of extended headers")
        data = os.pread(self._fd, size, self._at)
        self._skip(size)
        return data

    def _skip(self, size: int) -> None:
        if size > self._end - self._at:
            raise Truncated(expected=self._at + size, actual=self._end, what=str(self._path))
        # The last member may lack its padding: some writers end there.
        self._at = min(self._at + -(-size // _BLOCK) * _BLOCK, self._end)

    def _number(self, field: bytes) -> int:
        if field[0] == 0x80:  # base-256, positive
            return int.from_bytes(field[1:], "big")
        digits = field.strip(b" \0")
        if not digits:
            return 0
        if digits.strip(b"01234567"):
            raise self._wrong("expected an octal number in a tar header")
        return int(digits, 8)

    def _decimal(self, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._wrong("expected a number in an extended header")
        return int(text)

    def _pax(self, data: bytes) -> dict[str, str]:
        """`length SP name=value LF`, where length counts all of it; the last of a name wins."""
        records = {}
        at = 0
        while at < len(data):
            # By positions: a copy of the rest for each record of 4 bytes would take minutes.
            space = data.find(b" ", at, at + _MAX_LENGTH_DIGITS + 1)
            length = data[at:space] if space > at else b""
            if not length.isdigit():
                raise self._wrong("expected a record in an extended header")
            end = at + int(length)
            if not space < end <= len(data) or data[end - 1] != ord("\n"):
                raise self._wrong("expected a record in an extended header")
            name, equals, value = data[space + 1 : end - 1].partition(b"=")
            if not equals:
                raise self._wrong("expected a record in an extended header")
            if name in (b"path", b"linkpath", b"size"):
                records[name.decode()] = _text(value)
            elif name.startswith(b"GNU.sparse."):
                raise self._wrong("expected plain files, got a sparse one")
            at = end
        return records

    def _wrong(self, message: str) -> FormatError:
        if not self._at:  # whatever is wrong with the first header: it is none
            message = "expected a tar header"
        return FormatError(message, what=str(self._path), hint="is this the archive of an image?")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _normal(name: str) -> str:
    """`name` without `.`, `..` and doubled slashes, relative; only ever looked up."""
    return posixpath.normpath("/" + name).lstrip("/")


def _unpack(fd: int, path: Path, kind: str) -> int:
    """A nameless file with the unpacked bytes.

    Raises:
        FormatError, Truncated: it is damaged.
        Unsupported: it unpacks to more than `_UNPACKED` allows, and no more than that is written;
            or it needs more memory than `_XZ_MEMORY` or the window of a layer.
    """
    size = os.fstat(fd).st_size
    file = StagedFile(path.parent if os.access(path.parent, os.W_OK) else Path("/var/tmp"))
    try:
        if kind == "zstd":
            _unpack_zstd(fd, file.fileno(), size, path)
        else:
            written, limit = 0, _UNPACKED.tar_bytes_of(size)
            for data in _unpacked(fd, path, kind):
                written += len(data)
                if written > limit:
                    raise Unsupported(
                        f"{path}: unpacks to more than {limit} bytes, which is the limit for "
                        "its size",
                        hint=f"if you trust it, unpack it first with {kind} -d",
                    )
                write_all(file.fileno(), data)
        return os.dup(file.fileno())
    finally:
        file.close()


def _unpacked(fd: int, path: Path, kind: str) -> Iterator[bytes]:
    """The pieces of all gzip members or streams in the file, each of a bounded length."""
    at = 0
    while piece := os.pread(fd, _FIRST_PIECE, at):
        if at and kind == "xz" and piece.startswith(bytes(_XZ_PADDING)):
            at += _XZ_PADDING
            continue
        decoder = _DECODERS[kind]()
        while True:
            try:
                yield from _feed(decoder, piece)
            except _DAMAGED as error:
                if getattr(error, "errno", None):  # of who takes the bytes, not of bzip2
                    raise
                if "emory" in str(error):
                    raise Unsupported(
                        f"{path}: needs more than {_XZ_MEMORY} bytes of memory to unpack",
                        hint="unpack it first with unxz; what xz -9 writes is read",
                    ) from error
                raise FormatError(f"expected {kind}", what=str(path)) from error
            at += len(piece) - len(decoder.unused_data)
            if decoder.eof:
                break
            piece = os.pread(fd, min(2 * len(piece), _PACKED_PIECE), at)
            if not piece:
                raise Truncated(what=str(path))


def _feed(decoder: _Decoder, data: bytes) -> Iterator[bytes]:
    yield decoder.decompress(data, _PLAIN_PIECE)
    # What was given and is not used yet: zlib hands it back, the others keep it.
    while not decoder.eof:
        rest = getattr(decoder, "unconsumed_tail", b"")
        if not rest and getattr(decoder, "needs_input", True):
            return
        yield decoder.decompress(rest, _PLAIN_PIECE)


class _Decoder(Protocol):
    """One stream: what the libraries of gzip, bzip2 and xz have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
}
_DAMAGED = (zlib.error, lzma.LZMAError, OSError)  # the last one is that of bzip2


def _unpack_zstd(fd: int, sink: int, size: int, path: Path) -> None:
    """By the code that opens layers, which wants to be told what it reads."""
    hasher = new_hasher("sha256")
    at = 0
    while data := os.pread(fd, _PLAIN_PIECE, at):
        hasher.update(data)
        at += len(data)
    open_layer(
        fd,
        sink,
        expected=Descriptor("", Digest("sha256", hasher.hexdigest()), size),
        cipher=None,
        hmac=None,
        compression=Compression.ZSTD,
        diff_id=None,
        what=str(path),
        limits=_UNPACKED,
    )
