# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a layer, as one table: fault to exception.

Both implementations of the core name a `Fault` with its facts, and only here is it made
into an exception, so that they cannot differ in class, attributes or words. The numbers
are those of `enum imc_fault` in `src/imagers_core.h`; a test holds the two together.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import TYPE_CHECKING

from imagers.errors import (
    Cancelled,
    DigestMismatch,
    FormatError,
    IntegrityError,
    LocalError,
    TagMismatch,
    TrailingData,
    Truncated,
    Unsupported,
    WindowTooLarge,
)
from imagers.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Fault", "failure_of", "shown_name"]

_LONGEST_NAME = 200  # bytes of an entry's name that a message repeats


class Fault(IntEnum):
    """What is wrong. The comment says which facts come with it."""

    CANCELLED = 1
    NO_MEMORY = 2
    CRYPTO = 3  # libcrypto refused to work: a broken installation
    READ = 4  # number: errno
    WRITE = 5  # number: errno
    KEEP = 6  # number: errno
    STORED_SHORT = 10  # number: expected, other: actual
    STORED_LONG = 11  # number: expected
    STORED_DIGEST = 12  # text: expected digest, more: actual digest
    TAG = 13
    DIFF_ID = 14  # text: expected digest, more: actual digest
    CHANGED = 15  # number: bytes before
    NOT_GZIP = 20
    BAD_GZIP = 21
    SHORT_GZIP = 22
    GZIP_TRAILER = 23
    NOT_ZSTD = 24
    BAD_ZSTD = 25
    SHORT_ZSTD = 26
    ZSTD_TRAILER = 27
    ZSTD_WINDOW = 28  # number: limit
    TAR_BYTES = 30  # number: limit
    ENTRIES = 31  # number: limit
    NAME_BYTES = 32  # text: name, number: limit
    TAR_CHECKSUM = 40  # number: offset of the header, for this and all TAR_ faults
    TAR_NUMBER = 41  # text: name of the field
    TAR_SHORT = 42
    TAR_LONE_ZERO = 43
    TAR_PAX = 44
    TAR_PAX_VALUE = 45  # text: the record's name
    TAR_PAX_GLOBAL = 46  # text: the record's name
    TAR_EXTENSION_TWICE = 47
    TAR_EXTENSION_SIZE = 48  # number: limit
    TAR_NUL = 49
    ENTRY_DOTDOT = 61  # text: name, for this and all ENTRY_ faults
    ENTRY_ROOT = 62
    ENTRY_OWNER = 63
    ENTRY_TARGET = 64  # more: target
    ENTRY_TARGET_DOTDOT = 65  # more: target
    ENTRY_TARGET_DIRECTORY = 66  # more: target
    ENTRY_WHITEOUT = 67
    ENTRY_PARENT = 68
    ENTRY_LOOP = 69
    ENTRY_LONG_COMPONENT = 70
    ENTRY_KIND = 71  # number: type byte
    ENTRY_SPARSE = 72
    ENTRY_XATTR = 73  # more: the attribute's name
    ENTRY_XATTRS = 74  # number: limit
    ENTRY_SPARSE_MAP = 75
    ENTRY_EMPTY_TARGET = 76
    ENTRY_DEPTH = 77  # number: limit
    ENTRY_DEVICE = 78
    UNPACK = 80  # text: name, number: errno


# POSIX.1-2017 pax, "ustar Interchange Format", typeflag; GNU tar manual, "Basic Tar Format".
_KINDS = {
    ord("D"): "a GNU directory dump",
    ord("M"): "a continued file",
    ord("V"): "a volume label",
}


def shown_name(name: bytes) -> str:
    """A name from a tar as messages show it: quoted, on one line, bounded."""
    cut = name[:_LONGEST_NAME]
    text = cut.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "'" + text + ("…" if len(name) > len(cut) else "") + "'"


_FORMAT: dict[Fault, str] = {
    Fault.NOT_GZIP: "expected gzip data, got something else",
    Fault.BAD_GZIP: "gzip data is damaged",
    Fault.NOT_ZSTD: "expected zstd data, got something else",
    Fault.BAD_ZSTD: "zstd data is damaged",
}
_TAR: dict[Fault, str] = {
    Fault.TAR_CHECKSUM: "expected a tar header, got a block with a wrong checksum",
    Fault.TAR_NUMBER: "field {text} is not a number or out of range",
    Fault.TAR_LONE_ZERO: "a single block of zeros is no end of a tar",
    Fault.TAR_PAX: "a record of the extended header is malformed",
    Fault.TAR_PAX_VALUE: "record {text} of the extended header has a bad value",
    Fault.TAR_PAX_GLOBAL: (
        "record {text} in a global extended header is not supported: readers of tars differ"
    ),
    Fault.TAR_EXTENSION_TWICE: "one entry has two extended headers or long names of one kind",
    Fault.TAR_EXTENSION_SIZE: "an extended header is longer than {number} bytes",
    Fault.TAR_NUL: "a name has a NUL byte in it",
}
_ENTRY: dict[Fault, str] = {
    Fault.ENTRY_DOTDOT: "has '..' in its name and would leave the image root",
    Fault.ENTRY_ROOT: "would replace the image root, which must be a directory",
    Fault.ENTRY_OWNER: "has an owner that is not a 32-bit number below 4294967295",
    Fault.ENTRY_TARGET: "is a hard link to {more}, which is not there",
    Fault.ENTRY_TARGET_DOTDOT: "is a hard link to {more}, which would leave the image root",
    Fault.ENTRY_TARGET_DIRECTORY: "is a hard link to {more}, which is a directory",
    Fault.ENTRY_WHITEOUT: "is a whiteout of no file, or is no plain file itself",
    Fault.ENTRY_XATTR: "has the extended attribute {more}, whose name or value no file can have",
    Fault.ENTRY_SPARSE_MAP: "is a sparse file whose map does not fit its data",
    Fault.ENTRY_DEVICE: "is a device whose number Linux does not have",
    Fault.ENTRY_PARENT: "is below something that is not a directory",
    Fault.ENTRY_LOOP: "is below a symbolic link that leads in circles",
    Fault.ENTRY_EMPTY_TARGET: "is a symbolic link to nothing",
    Fault.ENTRY_LONG_COMPONENT: "has a part of its name that is longer than 255 bytes",
}


def failure_of(
    fault: int,
    *,
    what: str,
    text: bytes = b"",
    more: bytes = b"",
    number: int = 0,
    other: int = 0,
) -> Exception:
    """The exception of a fault, not raised.

    Args:
        fault: a number of `Fault`.
        what: the layer's name in messages.
        text: see the comments of `Fault`; so are `more`, `number` and `other`.
    """
    kind = Fault(fault)
    if kind in _FORMAT:
        return FormatError(_FORMAT[kind], what=what)
    if kind in _TAR:
        message = _TAR[kind].format(text=shown_name(text), number=number)
        return FormatError(message, what=what, where=f"byte {other} of the tar")
    if kind in _ENTRY:
        message = _ENTRY[kind].format(more=shown_name(more))
        return FormatError(message, what=what, where=f"entry {shown_name(text)}")
    return _OTHERS[kind](what, text, more, number, other)


def _digest_mismatch(noun: str) -> Callable[[str, bytes, bytes, int, int], Exception]:
    def make(what: str, text: bytes, more: bytes, _number: int, _other: int) -> Exception:
        expected, actual = (Digest(*one.decode("ascii").split(":")) for one in (text, more))
        return DigestMismatch(expected=expected, actual=actual, what=what, noun=noun)

    return make


def _unsupported_kind(what: str, text: bytes, _more: bytes, number: int, _other: int) -> Exception:
    kind = _KINDS.get(number, f"of the unknown type {chr(number)!a}")
    return Unsupported(f"{what}: entry {shown_name(text)} is {kind}, which is not supported")


_NO_ROOM = "make room, or choose a destination on another file system"
_NO_ROOM_BESIDE = (
    f"{_NO_ROOM}; layers are kept there until they are unpacked: --jobs 1 keeps one at a time, "
    "and --jobs 1 with --stream none"
)


def _local(message: str, path: bytes, number: int, *, no_room: str = _NO_ROOM) -> LocalError:
    shown = path.decode("utf-8", "backslashreplace")[:_LONGEST_NAME]
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    hint = no_room if number in (errno.ENOSPC, errno.EDQUOT) else None
    return LocalError(f"{message}: {os.strerror(number).lower()}", path=shown, hint=hint)


_BOMB = "the layer may be made to exhaust memory or disk"

_OTHERS: dict[Fault, Callable[[str, bytes, bytes, int, int], Exception]] = {
    Fault.CANCELLED: lambda what, *_: Cancelled(f"{what}: cancelled"),
    Fault.NO_MEMORY: lambda *_: MemoryError(),
    Fault.CRYPTO: lambda what, *_: LocalError(
        f"{what}: libcrypto failed: is one of its algorithms disabled on this machine?"
    ),
    Fault.READ: lambda what, _t, _m, number, _o: _local(f"cannot read {what}", b"", number),
    Fault.WRITE: lambda what, _t, _m, number, _o: _local(f"cannot write {what}", b"", number),
    Fault.KEEP: lambda what, _t, _m, number, _o: _local(
        f"cannot keep {what} until it is checked", b"", number, no_room=_NO_ROOM_BESIDE
    ),
    Fault.UNPACK: lambda what, text, _m, number, _o: _local(
        f"cannot unpack {what}", text, number, no_room=_NO_ROOM_BESIDE
    ),
    Fault.STORED_SHORT: lambda what, _t, _m, number, other: Truncated(
        expected=number, actual=other, what=what
    ),
    Fault.STORED_LONG: lambda what, _t, _m, number, _o: TrailingData(expected=number, what=what),
    Fault.STORED_DIGEST: _digest_mismatch("digest"),
    Fault.TAG: lambda what, *_: TagMismatch(what=what),
    Fault.DIFF_ID: _digest_mismatch("diff_id"),
    Fault.CHANGED: lambda what, _t, _m, number, _o: IntegrityError(
        f"{what}: expected the bytes that were checked, got others from byte {number} on",
        hint="something else writes to the disk that the layer was kept on; do not trust it",
    ),
    Fault.SHORT_GZIP: lambda what, *_: Truncated("gzip data ends too early", what=what),
    Fault.SHORT_ZSTD: lambda what, *_: Truncated("zstd data ends too early", what=what),
    Fault.TAR_SHORT: lambda what, *_: Truncated("tar ends inside an entry", what=what),
    Fault.GZIP_TRAILER: lambda what, *_: TrailingData(
        "has data after the end of its gzip data", what=what
    ),
    Fault.ZSTD_TRAILER: lambda what, *_: TrailingData(
        "has data after the end of its zstd data", what=what
    ),
    Fault.ZSTD_WINDOW: lambda what, _t, _m, number, _o: WindowTooLarge(
        f"{what}: needs a zstd window above the limit of {number} bytes",
        hint="--memory 256MiB allows one of 128 MiB",
    ),
    Fault.TAR_BYTES: lambda what, _t, _m, number, _o: Unsupported(
        f"{what}: has a tar above the limit of {number} bytes", hint=_BOMB
    ),
    Fault.ENTRIES: lambda what, _t, _m, number, _o: Unsupported(
        f"{what}: has a tar above the limit of {number} entries", hint=_BOMB
    ),
    Fault.NAME_BYTES: lambda what, text, _m, number, _o: Unsupported(
        f"{what}: name {shown_name(text)} is above the limit of {number} bytes"
    ),
    Fault.ENTRY_KIND: _unsupported_kind,
    Fault.ENTRY_SPARSE: lambda what, text, *_: Unsupported(
        f"{what}: entry {shown_name(text)} is a sparse file of a form that is not supported"
    ),
    Fault.ENTRY_XATTRS: lambda what, text, _m, number, _o: Unsupported(
        f"{what}: entry {shown_name(text)} has more than {number} extended attributes"
    ),
    Fault.ENTRY_DEPTH: lambda what, text, _m, number, _o: Unsupported(
        f"{what}: entry {shown_name(text)} hides directories nested deeper than {number}"
    ),
}
