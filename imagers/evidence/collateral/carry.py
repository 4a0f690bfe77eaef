# SPDX-License-Identifier: Apache-2.0
"""Carrying collateral: out as one tar, in from what people and other tools have.

    pack(directory)                              # the bytes of a tar
    for one in bring(Path("store"), keeper=keeper):
        print(one.name, one.state)

| what is brought in | how it is known |
|---|---|
| a tar, or a directory, with documents at their names | as `pack` makes it, or `tar`, or `cp -r` |
| a directory of others, such as Trustee's offline store of VCEKs | each file by what is in it |
| one file: a certificate, a list, JSON of a cloud or a tool | by what is in it, or by a name |

What comes in is put into its place by a `Keeper`: signed by its vendor, and never an older one.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import EvidenceRejected, FormatError, LocalError
from imagers.evidence.collateral.directory import (
    MAX_DOCUMENT,
    MAX_DOCUMENTS,
    VENDORS,
    CollateralDirectory,
)
from imagers.evidence.collateral.fetch import Fetched, Keeper
from imagers.files import local_errors, read_bounded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["bring", "pack"]

_MAX_TAR = 256 * 1024 * 1024  # and of all files of a directory
_MODE = 0o644
_TAR_MAGIC = slice(257, 262)
_LONG_HEX = re.compile(r"[0-9A-Fa-f]{16,}")  # a chip's id is the name of a directory of Trustee's


def pack(directory: CollateralDirectory) -> bytes:
    """All documents as a tar, the same bytes for the same documents.

    Raises:
        LocalError, FormatError: they cannot be read, or are too many.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in directory.names():
            data = directory.read(name)
            if data is None:
                continue  # it went away meanwhile
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), _MODE
            tar.addfile(member, io.BytesIO(data))
            if buffer.tell() > _MAX_TAR:
                raise LocalError(
                    f"expected at most {_MAX_TAR} bytes of documents, got more",
                    path=str(directory.path),
                )
    return buffer.getvalue()


def bring(path: Path, *, keeper: Keeper, name: str | None = None) -> Iterator[Fetched]:
    """Put what a file or a directory has into its place, and tell of each document.

    Args:
        name: of the one document in the file, where nothing in it says so.

    Raises:
        LocalError: it cannot be read, or the directory of collateral cannot be written.
        FormatError: nothing in it is a document; of a file with one, why.
        EvidenceRejected: the one document is not signed by its vendor.
    """
    if name is not None:
        data = _bare(read_bounded(path, max_bytes=MAX_DOCUMENT))
        yield _put(keeper, name, {name: data}, path.name)
        return
    files = dict(_files(path))
    known = {one: data for one, data in files.items() if _is_name(one)}
    found = dict(known)
    errors: dict[str, FormatError | EvidenceRejected] = {}
    origin = dict.fromkeys(known, path.name)
    for label in files.keys() - known.keys():
        try:
            documents = _recognise(keeper, files[label])
        except FormatError as error:
            errors[label] = error
            continue
        found |= documents
        origin |= dict.fromkeys(documents, _shown(label))
    came_along: set[str] = set()
    count = 0
    for one in sorted(found):
        beside = keeper.vendor(one).beside(one)
        if one in came_along or not {one, *beside} <= found.keys():
            continue
        came_along.update(beside)
        try:
            yield _put(keeper, one, {part: found[part] for part in (one, *beside)}, origin[one])
            count += 1
        except (FormatError, EvidenceRejected) as error:
            errors[one] = error
    for label, refusal in errors.items():
        if len(files) == 1 or not count:
            raise refusal
        yield Fetched(_shown(label), "not taken", None, error=refusal)


def _put(keeper: Keeper, name: str, documents: dict[str, bytes], label: str) -> Fetched:
    state, document = keeper.put(name, documents)
    return Fetched(name, state, document, label)


def _is_name(name: str) -> bool:
    return name.partition("/")[0] in VENDORS and "/" in name


def _recognise(keeper: Keeper, data: bytes) -> dict[str, bytes]:
    """The documents in a file, by whichever vendor knows it."""
    data = _bare(data)
    told: FormatError | None = None
    for vendor in VENDORS:
        try:
            return keeper.vendor(f"{vendor}/").find(data)
        except FormatError as error:
            if told is None or (told.hint is None and error.hint is not None):
                told = error
    assert told is not None  # there is a vendor
    if told.hint is not None:
        raise told
    raise FormatError(
        "expected a certificate of a chip, a list of revoked certificates, or the JSON of a cloud "
        f"or a tool ({told})",
        what="collateral",
    )


def _bare(data: bytes) -> bytes:
    """The DER of what is one list in PEM; all else as it is."""
    from asn1crypto import pem

    if data.lstrip().startswith(b"-----BEGIN X509 CRL-----"):
        try:
            der: bytes = pem.unarmor(data)[2]
        except ValueError:
            raise FormatError("is no PEM", what="list of revoked certificates") from None
        return der
    return data


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a directory or of a tar by their paths in it, or the one file."""
    if os.path.isdir(path):
        yield from _below(path)
        return
    data = read_bounded(path, max_bytes=_MAX_TAR)
    if data[_TAR_MAGIC] == b"ustar":
        yield from _members(data, path)
    elif len(data) > MAX_DOCUMENT:
        raise LocalError(f"expected at most {MAX_DOCUMENT} bytes, got more", path=str(path))
    else:
        yield path.name, data


def _below(path: Path) -> Iterator[tuple[str, bytes]]:
    count = total = 0
    with local_errors(path, "cannot be read"):
        for above, _, names in os.walk(path):
            for name in sorted(names):
                count += 1
                if count > MAX_DOCUMENTS:
                    raise LocalError(
                        f"expected at most {MAX_DOCUMENTS} files, got more", path=str(path)
                    )
                file = Path(above, name)
                if not file.is_file():
                    continue  # as in a tar; a FIFO would hold us for ever
                data = read_bounded(file, max_bytes=MAX_DOCUMENT)
                total += len(data)
                if total > _MAX_TAR:
                    raise LocalError(
                        f"expected at most {_MAX_TAR} bytes in all files, got more", path=str(path)
                    )
                yield file.relative_to(path).as_posix(), data


def _members(data: bytes, path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for count, member in enumerate(tar):
                if count >= MAX_DOCUMENTS or member.size > MAX_DOCUMENT:
                    raise FormatError(
                        f"expected at most {MAX_DOCUMENTS} documents of {MAX_DOCUMENT} bytes each",
                        what=str(path),
                    )
                # One with holes is as long as it likes, and takes no room in the tar.
                is_whole = member.isreg() and not member.issparse()
                content = tar.extractfile(member) if is_whole else None
                if content is not None:
                    yield os.path.normpath(member.name), content.read()
    except (tarfile.TarError, ValueError, EOFError, OverflowError):
        raise FormatError("is a tar that cannot be read", what=str(path)) from None


def _shown(label: str) -> str:
    return _LONG_HEX.sub("…", label)
