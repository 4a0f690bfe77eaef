# SPDX-License-Identifier: Apache-2.0
"""Deleting an image of a repository, and no other one with it.

    deletion = delete_image(client, reference)

What a registry deletes is a manifest, by its digest, and with it go all tags that mean it.
Deletion by a tag is the specification's too, but many registries do not have it, and it leaves the
manifest there for whoever knows its digest. So:

1. Look up the name's digest; what is deleted is that, whatever a tag means a moment later.
2. Look which tags of the repository mean it, and which indexes have it among their images.
3. A name with a tag deletes that tag's image alone: where other tags or indexes would lose theirs,
   or nobody can tell, it is refused. A name with a digest says which manifest, and goes on.
4. Delete it by its digest.

Signatures and what else refers to the image are manifests of their own and stay.

Spec: OCI distribution-spec v1.1, "Content Management", "Deleting Manifests".
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from imagers.core.together import run_together
from imagers.errors import FormatError, NotFound, RemoteError, Unsupported, UsageError
from imagers.model.digest import Digest, digest_of, parse_digest
from imagers.model.manifest import Index, parse_manifest_or_index
from imagers.model.media import MANIFEST_TYPES
from imagers.registry.answers import DONE, PAGE, media_type_of
from imagers.registry.listing import list_tags
from imagers.registry.referrers import referrers_tag
from imagers.registry.source import ACCEPT, RegistrySource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagers.model.manifest import RawManifest
    from imagers.model.reference import Reference
    from imagers.registry.client import RegistryClient
    from imagers.waiting import Cancellation

__all__ = ["Deletion", "delete_image"]

_MAX_TAGS = 5000  # one small request each
_MAX_INDEXES = 64  # in one, at any depth
_JOBS = 8
_SHOWN = 5  # tags that a message names
# 400 and 405 are the specification's for deletion that is turned off.
_TURNED_OFF = frozenset({400, 405, 501})
_HINT = (
    "deletion may be turned off: docker-registry has it with REGISTRY_STORAGE_DELETE_ENABLED=true, "
    "others in pages or an API of their own"
)


@dataclass(frozen=True, slots=True)
class Deletion:
    """What was deleted, and what that leaves.

    Attributes:
        digest: of the manifest or index that is gone.
        tags: all tags that meant it; None: the registry does not tell.
        indexes: tags of indexes that had it among their images; None as for `tags`.
        entries: images of the index that is gone; they are there still, by their digests.
        referrers: what refers to it and is there still: tags and digests.
    """

    digest: Digest
    tags: tuple[str, ...] | None
    indexes: tuple[str, ...] | None
    entries: tuple[Digest, ...]
    referrers: tuple[str, ...]


def delete_image(client: RegistryClient, reference: Reference) -> Deletion:
    """Delete the image that `reference` means; see the module.

    Args:
        client: of the same repository, for all actions.

    Raises:
        NotFound: there is no such image.
        UsageError: other names of the repository would lose their image with this one.
        RemoteError: the registry does not delete, or could not be asked.
    """
    repository = _Repository(client, reference)
    # 1.
    top = repository.source.read_manifest()
    entries: tuple[Digest, ...] = ()
    with suppress(FormatError, Unsupported):  # whatever it is, it can be deleted
        document = parse_manifest_or_index(top.raw, media_type=top.media_type)
        if isinstance(document, Index):
            entries = tuple(dict.fromkeys(one.digest for one in document.manifests))
    # 2.
    listed: tuple[str, ...] | None
    tags: tuple[str, ...] | None
    indexes: tuple[str, ...] | None
    try:
        listed = list_tags(client)
        tags, indexes = repository.named(listed, top.digest)
    except (RemoteError, FormatError) as error:
        if reference.tag is not None:  # 3.
            error.hint = repository.by_digest(top.digest)
            raise
        listed = tags = indexes = None
    # 3.
    if reference.tag is not None:
        if reference.tag not in (tags or ()):
            # It lacks tags, or the tag has just moved: what else has this image, nobody knows.
            raise RemoteError(
                f"{reference}: tags: expected {top.digest} under its tag in the registry's list, "
                "which has it not",
                hint=repository.by_digest(top.digest),
            )
        others = [one for one in tags or () if one != reference.tag]
        if others or indexes:
            raise UsageError(
                f"{reference}: expected a digest: "
                + " and ".join(
                    f"{what} {_some(names)}"
                    for what, names in (
                        ("the same image is tagged", others),
                        ("it is in the index", indexes or ()),
                    )
                    if names
                )
                + ", which would lose it",
                hint=repository.by_digest(top.digest),
            )
    referrers = repository.referrers(top.digest, listed or ())
    repository.delete(top.digest)  # 4.
    return Deletion(top.digest, tags, indexes, entries, referrers)


class _Repository:
    def __init__(self, client: RegistryClient, reference: Reference) -> None:
        self._client = client
        self._reference = reference
        self.source = RegistrySource(reference, client, name=str(reference))

    def by_digest(self, digest: Digest) -> str:
        """The hint for who wants it gone under all its names."""
        return f"{self._reference.with_digest(digest)} deletes it under all its names"

    def named(
        self, tags: tuple[str, ...], digest: Digest
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tags that mean `digest`, and those of indexes that have it.

        Raises:
            FormatError: there are too many to look at.
            RemoteError: one of them could not be looked at.
        """
        if len(tags) > _MAX_TAGS:
            raise FormatError(
                f"expected at most {_MAX_TAGS} to look at, got {len(tags)}", what="tags"
            )
        found = run_together([partial(self._look, tag, digest) for tag in tags], jobs=_JOBS)
        pairs = list(zip(tags, found, strict=True))
        return (
            tuple(tag for tag, (is_it, _) in pairs if is_it),
            tuple(tag for tag, (_, has_it) in pairs if has_it),
        )

    def _look(self, tag: str, digest: Digest, _: Cancellation) -> tuple[bool, bool]:
        """Whether a tag means `digest`, and whether it means an index that has it."""
        try:
            answer = self._client.request(
                "HEAD",
                f"manifests/{tag}",
                doing=f"look at tag '{tag}'",
                headers={"Accept": ACCEPT},
                expected=(200,),
                any_answer=True,
            )
            told = answer.headers.get("Docker-Content-Digest", "")
            is_known = told.startswith(f"{digest.algorithm}:")
            if is_known and media_type_of(answer.headers) in MANIFEST_TYPES:
                return parse_digest(told) == digest, False
            found = self.source.read_tag(tag)
        except NotFound:
            return False, False  # it went meanwhile
        if digest_of(found.raw, digest.algorithm) == digest:
            return True, False
        return False, self._has(found, digest)

    def _has(self, top: RawManifest, digest: Digest) -> bool:
        """Whether `top` has an image, itself or in an index that is nested in it.

        Raises:
            FormatError: there are too many to look at.
            RemoteError: one of them could not be looked at.
        """
        waiting, seen = [top], {top.digest}
        while waiting:
            found = waiting.pop()
            try:
                document = parse_manifest_or_index(found.raw, media_type=found.media_type)
            except (FormatError, Unsupported):
                # Others may read what is refused here, and would miss what it names.
                if str(digest).encode() in found.raw:
                    return True
                continue
            for entry in document.manifests if isinstance(document, Index) else ():
                if entry.digest == digest:
                    return True
                if entry.media_type in MANIFEST_TYPES or entry.digest in seen:
                    continue
                seen.add(entry.digest)
                if len(seen) > _MAX_INDEXES:
                    raise FormatError(
                        f"expected at most {_MAX_INDEXES} indexes in one, got more", what="tags"
                    )
                with suppress(NotFound):  # so nobody has what it names
                    waiting.append(self.source.read_manifest(entry.digest))
        return False

    def referrers(self, digest: Digest, tags: tuple[str, ...]) -> tuple[str, ...]:
        """Tags and digests of what says that it refers to `digest`; what cannot be told is not."""
        prefix = referrers_tag(digest)
        found = [tag for tag in tags if tag == prefix or tag.startswith(f"{prefix}.")]
        with suppress(RemoteError, FormatError, Unsupported):
            found += [str(one.digest) for one in self.source.referrers(digest)]
        return tuple(found)

    def delete(self, digest: Digest) -> None:
        """Raise unless the registry says that it is gone."""
        try:
            self._client.request(
                "DELETE",
                f"manifests/{digest}",
                doing="deletion",
                expected=DONE,
                # The second answer would be that there is no such thing.
                repeatable=False,
            )
        except RemoteError as error:
            if error.code == "UNSUPPORTED" or (error.status in _TURNED_OFF and error.code != PAGE):
                error.hint = _HINT
            raise


def _some(names: Iterable[str]) -> str:
    shown = [f"'{one}'" for one in names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
