"""What refers to a manifest: the list that a registry keeps, or the tag in its place.

    entries = read_referrers(client, digest)
    add_to_referrers_tag(client, descriptor, subject=digest)

Nothing of the list is verified, and whoever may push may write it.

Spec: OCI distribution-spec v1.1, "Listing Referrers", "Pushing Manifests with Subject",
"Referrers Tag Schema".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagers.errors import FormatError, NotFound, RemoteError
from imagers.model.descriptor import Descriptor
from imagers.model.manifest import MAX_MANIFEST_BYTES, Manifest, parse_index
from imagers.model.media import OCI_INDEX
from imagers.model.strict_json import JSON, JSONObject, dump_json
from imagers.net.urls import join_url, parse_origin

if TYPE_CHECKING:
    from imagers.model.digest import Digest
    from imagers.registry.client import RegistryClient

__all__ = [
    "MAX_REFERRERS",
    "add_to_referrers_tag",
    "read_referrers",
    "referrer_of",
    "referrers_tag",
]

MAX_REFERRERS = 1024  # of one manifest, all pages together
_MAX_PAGES = 32
_NEXT = re.compile(r"<([^<>]{1,2048})>\s*;\s*rel=\"?next\"?\s*(?:[;,].*)?\Z", re.IGNORECASE)
_MAX_ALGORITHM = 32  # characters, as the tag schema cuts them
_MAX_HEX = 64
# What registries without the API say: distribution 404; others, as go-containerregistry
# lists them, 400 and 406; some proxies 405.
_NO_API = frozenset({400, 404, 405, 406})
_ATTEMPTS = 4  # to bring an entry into the tag, beside other writers
_CREATED = (200, 201, 204)


def referrers_tag(digest: Digest) -> str:
    """The tag that lists referrers where the registry has no API for them."""
    return f"{digest.algorithm[:_MAX_ALGORITHM]}-{digest.hex[:_MAX_HEX]}"


def referrer_of(manifest: Manifest) -> Descriptor:
    """The entry for a manifest in the list of its subject."""
    return Descriptor(
        media_type=manifest.descriptor.media_type,
        digest=manifest.descriptor.digest,
        size=manifest.descriptor.size,
        annotations=manifest.annotations,
        artifact_type=manifest.artifact_type or manifest.config.media_type,
    )


def read_referrers(client: RegistryClient, subject: Digest) -> tuple[Descriptor, ...]:
    """All that says it refers to `subject`, from the API or else from the tag.

    Raises:
        FormatError: the answer is no index, or beyond a bound.
        RemoteError: it could not be asked; this is not "there is none".
    """
    found: list[Descriptor] = []
    target = f"referrers/{subject}"
    first_url = ""
    for _ in range(_MAX_PAGES):
        try:
            answer = client.request(
                "GET",
                target,
                doing="referrers",
                headers={"Accept": OCI_INDEX},
                max_bytes=MAX_MANIFEST_BYTES,
                expected=(200,),
            )
        except RemoteError as error:
            if found or first_url or error.status not in _NO_API:
                raise
            return _read_tag(client, subject)[0]
        found += parse_index(answer.body).manifests
        if len(found) > MAX_REFERRERS:
            raise FormatError(
                f"expected at most {MAX_REFERRERS} entries, got more", what="referrers"
            )
        link = _NEXT.match(answer.headers.get("Link", "").strip())
        if link is None:
            return tuple(found)
        first_url = first_url or answer.url
        target = join_url(answer.url, link[1])
        if parse_origin(target) != parse_origin(first_url):
            raise FormatError("the next page is on another server", what="referrers")
    raise FormatError(f"expected at most {_MAX_PAGES} pages, got more", what="referrers")


def add_to_referrers_tag(client: RegistryClient, entry: Descriptor, *, subject: Digest) -> None:
    """Bring `entry` into the tag that lists the referrers of `subject`.

    Two writers at the same moment may lose an entry, which the specification knows: it is
    read again after the writing, and written again if it was lost.

    Raises:
        FormatError: the tag is no index, or it is full.
        RemoteError: the registry did not take it.
    """
    target = f"manifests/{referrers_tag(subject)}"
    entries, members = _read_tag(client, subject)
    for _ in range(_ATTEMPTS):
        if any(one.digest == entry.digest for one in entries):
            return
        if len(entries) >= MAX_REFERRERS:
            raise FormatError(
                f"expected room for one more entry, got {len(entries)}", what="referrers tag"
            )
        listed = members.get("manifests")
        members["manifests"] = [*(listed if isinstance(listed, list) else []), entry.to_json()]
        client.request(
            "PUT",
            target,
            doing="referrers tag",
            headers={"Content-Type": OCI_INDEX},
            body=dump_json(members),
            expected=_CREATED,
        )
        entries, members = _read_tag(client, subject)
    raise RemoteError(
        f"{client.reference.name}: the entry in the referrers tag was lost each of {_ATTEMPTS} "
        "times",
        temporary=True,
        hint="others write it at the same time; run the command again",
    )


def _read_tag(
    client: RegistryClient, subject: Digest
) -> tuple[tuple[Descriptor, ...], dict[str, JSON]]:
    """The entries of the tag, and its document; empty ones where there is no such tag."""
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
    except NotFound:
        return (), empty
    index = parse_index(answer.body)
    return index.manifests, dict(index.document)
