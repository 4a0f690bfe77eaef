# SPDX-License-Identifier: Apache-2.0
"""What refers to a manifest: the list that a registry keeps, or the tag in its place.

    entries, has_api = list_referrers(client, digest)
    add_to_referrers_tag(client, referrer_of(manifest), subject=digest)

Nothing of the list is verified, and whoever may push may write it: an entry may have another
artifact type than its manifest, or name one that refers to something else.

Bounds: 1024 entries and 16 MiB on at most 32 pages.

Spec: OCI distribution-spec v1.1, "Listing Referrers", "Pushing Manifests with Subject",
"Referrers Tag Schema".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, NotFound, RemoteError, Unauthorized, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_index
from imagers.model.media import OCI_INDEX
from imagers.model.strict_json import JSON, JSONObject, dump_json
from imagers.registry.answers import DONE, NO_API, check_json
from imagers.registry.listing import read_pages

if TYPE_CHECKING:
    from imagers.model.digest import Digest
    from imagers.registry.client import RegistryClient

__all__ = [
    "MAX_REFERRERS",
    "add_to_referrers_tag",
    "list_referrers",
    "read_referrers",
    "referrer_of",
    "referrers_tag",
]

MAX_REFERRERS = 1024  # of one manifest, all pages together
_MAX_PAGES = 32
_MAX_LIST_BYTES = 16 * 1024 * 1024  # all pages together
_MAX_ALGORITHM = 32  # characters, as the tag schema cuts them
_MAX_HEX = 64
_FORBIDDEN = 403
_ATTEMPTS = 4  # to bring an entry into the tag, beside other writers


def referrers_tag(digest: Digest) -> str:
    """The tag that lists referrers where the registry has no API for them."""
    return f"{digest.algorithm[:_MAX_ALGORITHM]}-{digest.hex[:_MAX_HEX]}"


def referrer_of(document: Manifest | Index) -> Descriptor:
    """The entry for a manifest or an index in the list of its subject."""
    kind = document.artifact_type
    if not kind and isinstance(document, Manifest):
        kind = document.config.media_type
    return Descriptor(
        media_type=document.descriptor.media_type,
        digest=document.descriptor.digest,
        size=document.descriptor.size,
        annotations=document.annotations,
        artifact_type=kind or None,
    )


def read_referrers(client: RegistryClient, subject: Digest) -> tuple[Descriptor, ...]:
    """As `list_referrers`, the entries alone."""
    return list_referrers(client, subject)[0]


def list_referrers(client: RegistryClient, subject: Digest) -> tuple[tuple[Descriptor, ...], bool]:
    """All that says it refers to `subject`, each once; whether the registry has the API.

    Without the API it is the tag's list. Nothing is filtered: cosign 3.1 writes another
    artifact type into the list than into the manifest, and servers copy what they like.

    Raises:
        FormatError: the answer is no index, or beyond a bound.
        RemoteError: it could not be asked; this is not "there is none".
    """
    found: dict[Digest, Descriptor] = {}
    pages = read_pages(
        client,
        f"referrers/{subject}",
        doing="referrers",
        accept=OCI_INDEX,
        max_pages=_MAX_PAGES,
        max_bytes=_MAX_LIST_BYTES,
        max_page_bytes=MAX_MANIFEST_BYTES,
    )
    has_api = False
    try:
        for body in pages:
            has_api = True
            for entry in parse_index(body).manifests:
                found.setdefault(entry.digest, entry)
            if len(found) > MAX_REFERRERS:
                raise FormatError(
                    f"expected at most {MAX_REFERRERS} entries, got more", what="referrers"
                )
    except RemoteError as error:
        if has_api or error.status not in NO_API:
            raise
        return _read_tag(client, subject)[0], False
    return tuple(found.values()), True


def add_to_referrers_tag(client: RegistryClient, entry: Descriptor, *, subject: Digest) -> None:
    """Bring `entry` into the tag that lists the referrers of `subject`.

    Two writers at the same moment may lose an entry, which the specification knows: it is
    read again after the writing, and written again if it was lost.

    Raises:
        FormatError, Unsupported: the tag is no index of referrers, or it is full.
        RemoteError: the registry did not take it.
    """
    target = f"manifests/{referrers_tag(subject)}"
    entries, members = _read_tag(client, subject, to_write=True)
    for _ in range(_ATTEMPTS):
        if any(one.digest == entry.digest for one in entries):
            return
        listed = members.get("manifests")
        members["manifests"] = [*(listed if isinstance(listed, list) else []), entry.to_json()]
        body = dump_json(members)
        if len(entries) >= MAX_REFERRERS or len(body) > MAX_MANIFEST_BYTES:
            raise FormatError(
                f"expected room for one more entry, got {len(entries)} of {len(body)} bytes",
                what="referrers tag",
                hint="delete referrers that nobody needs",
            )
        client.request(
            "PUT",
            target,
            doing="referrers tag",
            headers={"Content-Type": OCI_INDEX},
            body=body,
            expected=DONE,
        )
        entries, members = _read_tag(client, subject, to_write=True)
    if any(one.digest == entry.digest for one in entries):
        return
    raise RemoteError(
        f"{client.reference.name}: the referrers tag does not keep the entry, {_ATTEMPTS} times "
        "in a row",
        temporary=True,
        hint="others write it at the same time; run the command again",
    )


def _read_tag(
    client: RegistryClient, subject: Digest, *, to_write: bool = False
) -> tuple[tuple[Descriptor, ...], dict[str, JSON]]:
    """The entries of the tag, and its document; empty ones where there is no such tag.

    Args:
        to_write: some registries say 403 of what is not there; whoever writes it finds out.
    """
    empty: JSONObject = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    try:
        answer = client.request(
            "GET",
            f"manifests/{referrers_tag(subject)}",
            doing="referrers tag",
            headers={"Accept": OCI_INDEX},
            max_bytes=MAX_MANIFEST_BYTES,
            expected=(200,),
        )
    except (NotFound, Unauthorized) as error:
        if isinstance(error, Unauthorized) and not (to_write and error.status == _FORBIDDEN):
            raise
        return (), empty
    check_json(answer, doing="referrers tag", name=str(client.reference))
    index = parse_index(answer.body)
    if index.descriptor.media_type != OCI_INDEX:
        raise Unsupported(
            f"media type {index.descriptor.media_type!r} of the referrers tag is not supported: "
            f"expected {OCI_INDEX}"
        )
    found: dict[Digest, Descriptor] = {}
    for entry in index.manifests:
        found.setdefault(entry.digest, entry)
    return tuple(found.values()), dict(index.document)
