# SPDX-License-Identifier: Apache-2.0
"""Signatures outside of the registry: a lookaside, an image directory, the registry's extension.

    found = find_in_lookaside("file:///srv/signatures", reference, digest, fetch=None)
    place = write_to_lookaside("file:///srv/signatures", reference, digest, blob)

Files are numbered from 1 without gaps: the first that is missing ends the list, so a file that
somebody removed hides those after it, for us as for containers/image. "Missing" is the file
system's or the server's own word; every other failure is "could not look".

A file begins with bit 7 set (OpenPGP), or with a zero byte, the name of a format and a newline.

Spec: containers-signature.5.md, "signature storage"; containers/image df7e80d2,
docker/docker_image_src.go getSignaturesFromLookaside, internal/signature/signature.go.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from imagers.errors import (
    Cancelled,
    CouldNotVerify,
    FormatError,
    ImagersError,
    LocalError,
    NotFound,
    RemoteError,
    Unsupported,
)
from imagers.files import StagedFile, local_errors, write_all
from imagers.model.base64 import encode_base64
from imagers.model.strict_json import JSONObject, View, dump_json
from imagers.sign.formats.format import FORMATS, find_format
from imagers.sign.found import (
    CouldNotLook,
    Found,
    Looked,
    SimpleSignature,
    UnreadableSignature,
)
from imagers.sign.registries_d import lookaside_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.digest import Digest
    from imagers.model.reference import Reference
    from imagers.sign.found import Signature

__all__ = [
    "MAX_SIGNATURES",
    "MAX_SIGNATURE_BYTES",
    "SignatureExtension",
    "SignatureExtensionSink",
    "find_in_directory",
    "find_in_extension",
    "find_in_lookaside",
    "parse_signature_file",
    "write_to_extension",
    "write_to_lookaside",
]

MAX_SIGNATURES = 256  # of one manifest
MAX_SIGNATURE_BYTES = 256 * 1024  # of one file: a payload in base64 with certificates
_MAX_LIST_BYTES = 4 * 1024 * 1024  # of the extension's answer
_WHAT = "signature file"
_SIMPLE = SimpleSignature.format


class SignatureExtension(Protocol):
    """A registry that may keep OpenPGP signatures itself, such as `RegistrySource`."""

    def supports_signatures(self) -> bool:
        """Whether it says `X-Registry-Supports-Signatures: 1`."""

    def read_signatures(self, digest: Digest, *, max_bytes: int) -> bytes:
        """The list of signatures of a manifest, as JSON."""


class SignatureExtensionSink(Protocol):
    """The same, to write to."""

    def put_signature(self, digest: Digest, body: bytes) -> None:
        """Add one signature, which is JSON."""


def parse_signature_file(raw: bytes, place: str) -> Signature:
    """The signature in one file of a lookaside or an image directory, readable or not.

    Raises:
        FormatError: it is too long to be looked at.
    """
    if len(raw) > MAX_SIGNATURE_BYTES:
        raise FormatError(
            f"expected at most {MAX_SIGNATURE_BYTES} bytes, got more", what=_WHAT, where=place
        )
    if not raw.startswith(b"\0"):
        # Whatever it is, gpg says whether it is a signature.
        return SimpleSignature(raw, place)
    name, newline, content = raw[1:].partition(b"\n")
    formats = {row.file_name.encode(): kind for kind, row in FORMATS.items() if row.file_name}
    if not newline or name not in formats:
        shown = name[:40].decode("ascii", "replace")
        error = Unsupported(f"{_WHAT} has the unknown format {shown!r}")
        return UnreadableSignature(error, None, place)
    try:
        return find_format(formats[name]).parse_file(content, place)
    except FormatError as damage:
        return UnreadableSignature(damage, formats[name], place)


def find_in_lookaside(
    base: str,
    reference: Reference,
    digest: Digest,
    *,
    fetch: Callable[[str], bytes | None] | None,
) -> Found:
    """The signatures below the URL `base` for a manifest. Nothing is verified.

    Args:
        fetch: gives the bytes of an http(s) URL, None for an answer 404; at most
            `MAX_SIGNATURE_BYTES`. None: there is no network.
    """

    def read(number: int) -> bytes | None:
        url = lookaside_url(base, reference.repository, digest.algorithm, digest.hex, number)
        if url.startswith("file:"):
            return _read_file(urlsplit(url).path)
        if fetch is None:
            raise CouldNotVerify(f"lookaside '{base}' needs the network")
        return fetch(url)

    return _find_numbered(read, base)


def find_in_directory(path: str, digest: Digest) -> Found:
    """The signatures in an image directory (`dir:`). Nothing is verified.

    Those of a manifest that is beside an index have its hex digits before their name.
    """
    is_beside = os.path.exists(f"{path}/{digest.hex}.manifest.json")
    prefix = f"{path}/{digest.hex}." if is_beside else f"{path}/"
    return _find_numbered(lambda number: _read_file(f"{prefix}signature-{number}"), f"dir:{path}")


def _find_numbered(read: Callable[[int], bytes | None], place: str) -> Found:
    found: list[Signature] = []
    try:
        while (raw := read(len(found) + 1)) is not None:
            if len(found) >= MAX_SIGNATURES:
                raise FormatError(
                    f"expected at most {MAX_SIGNATURES} signatures, got more", what=place
                )
            found.append(parse_signature_file(raw, f"{place}, signature-{len(found) + 1}"))
    except Cancelled:
        raise
    except ImagersError as error:
        # What was read so far stays: one of them may be good enough.
        named = None if place.startswith("dir:") else _SIMPLE
        return Found(tuple(found), failures=(CouldNotLook(error, named, place),))
    looked = []
    for name, row in FORMATS.items():
        count = len(Found(tuple(found)).of(name))
        # A lookaside is a place for others than OpenPGP only where it has some.
        if row.file_name and (name == _SIMPLE or count or place.startswith("dir:")):
            looked.append(Looked(name, place, count))
    return Found(tuple(found), tuple(looked))


def _read_file(path: str) -> bytes | None:
    """The bytes of a regular file, None where there is none."""
    # O_NONBLOCK: a FIFO in the place of a signature must not hold us up.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    with (
        local_errors(path),
        suppress(FileNotFoundError),
        open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file,
    ):
        return file.read(MAX_SIGNATURE_BYTES + 1)
    return None


def write_to_lookaside(base: str, reference: Reference, digest: Digest, blob: bytes) -> str:
    """Add a signature below a `file:` URL, under the first free number; its path.

    It appears whole or not at all, and never in the place of another one.

    Raises:
        Unsupported: `base` is no `file:` URL; http is for reading only.
        LocalError: it cannot be written, or there are too many.
    """
    if not base.startswith("file:"):
        raise Unsupported(
            f"lookaside '{base}' is for reading only",
            hint="name a file:// URL as lookaside-staging in registries.d",
        )
    first = urlsplit(
        lookaside_url(base, reference.repository, digest.algorithm, digest.hex, 1)
    ).path
    folder = Path(first).parent
    with local_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = StagedFile(folder)
        try:
            write_all(file.fileno(), blob)
            for number in range(1, MAX_SIGNATURES + 1):
                path = folder / f"signature-{number}"
                with suppress(FileExistsError):
                    file.publish_new(path)  # fails where somebody was faster
                    return str(path)
        finally:
            file.close()
    raise LocalError(f"has {MAX_SIGNATURES} signatures already", path=str(folder))


def find_in_extension(source: SignatureExtension, digest: Digest, place: str) -> Found | None:
    """The signatures that the registry itself keeps; None if it keeps none of anybody."""
    try:
        if not source.supports_signatures():
            return None
        try:
            raw = source.read_signatures(digest, max_bytes=_MAX_LIST_BYTES)
        except NotFound:
            return Found(looked=(Looked(_SIMPLE, place, 0),))
        found = _parse_list(raw, place)
    except Cancelled:
        raise
    except ImagersError as error:
        return Found(failures=(CouldNotLook(error, _SIMPLE, place),))
    return Found(found, (Looked(_SIMPLE, place, len(found)),))


def _parse_list(raw: bytes, place: str) -> tuple[Signature, ...]:
    document = View.parse(raw, what="list of signatures", max_bytes=_MAX_LIST_BYTES)
    found: list[Signature] = []
    for number, item in enumerate(document.objects("signatures", most=MAX_SIGNATURES), 1):
        # Other versions and types are for other readers, as in containers/image.
        if item.integer("schemaVersion") != 2 or item.text("type") != "atomic":
            continue
        item.text("content")
        try:
            found.append(SimpleSignature(item.bytes64("content"), f"{place}, {number}"))
        except FormatError as error:
            found.append(UnreadableSignature(error, _SIMPLE, f"{place}, {number}"))
    return tuple(found)


def write_to_extension(sink: SignatureExtensionSink, digest: Digest, blob: bytes) -> str:
    """Add a signature to those that the registry itself keeps; its name there.

    Raises:
        RemoteError: the registry did not take it.
    """
    name = f"{digest}@{secrets.token_hex(16)}"
    body: JSONObject = {
        "schemaVersion": 2,
        "name": name,
        "type": "atomic",
        "content": encode_base64(blob),
    }
    try:
        sink.put_signature(digest, dump_json(body))
    except NotFound as error:
        raise RemoteError(
            "the registry says that it keeps signatures and has no place for them",
            status=error.status,
        ) from error
    return name
