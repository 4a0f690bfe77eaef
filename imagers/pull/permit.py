# SPDX-License-Identifier: Apache-2.0
"""May this image be read at all: the policy's answer for those who copy or change an image.

    with open_image(name, transport) as image, open_sink(other, transport) as sink:
        top = permit_image(image, policy, platform=Platform("linux", "amd64"))
        copy_image(image.source, sink, top=top, platform=Platform("linux", "amd64"))

The decision is that of steps 2 to 4 of `trust.py`, for one image or for all of an index. It
speaks of the bytes `top` and of what they name by digest, so whoever goes on must go on from
`top`: a name that is read again may mean another image by then. Config and layers are not
looked at, and what is copied may be no image: there is no `TrustedImage` at the end.

Spec: containers-policy.json(5); containers/image df7e80d2, copy/copy.go, which also asks about
an index and each of its images where all are copied.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.descriptor import Platform
from imagers.model.image import read_entry
from imagers.model.manifest import Index, RawManifest, parse_manifest_or_index
from imagers.pull.named import NamedImage
from imagers.sign.found import Found, Subject
from imagers.sign.policy_json import Policy
from imagers.sign.verify import explain_image

if TYPE_CHECKING:
    from imagers.model.digest import Digest
    from imagers.model.manifest import Manifest

__all__ = ["permit_image"]

_MAX_NESTING = 3  # of indexes in indexes


def permit_image(image: NamedImage, policy: Policy, *, platform: Platform | None) -> RawManifest:
    """What the name of the image means, which the policy lets through.

    The caller uses nothing but this and what it names by digest.

    Args:
        platform: which image of an index; None: the index and everything in it.

    Raises:
        VerificationError: the policy says no; its sub-classes say why.
        CouldNotVerify: it would need signatures that nobody could look for.
        Unsupported: a requirement that cannot be checked here.
        NotFound: an index without the platform.
    """
    now, source = datetime.now(UTC), image.source
    trust = image.requirements(policy)
    top = source.read_manifest()
    find = cache(image.signatures(trust))  # those of an index count for itself and for its images
    document = parse_manifest_or_index(top.raw, media_type=top.media_type)
    index = document if isinstance(document, Index) else None

    def found_for(one: Manifest | Index, *, on_index: bool) -> Found:
        if not trust.formats(on_index=on_index):
            return Found()
        return find(one.descriptor.digest)

    around = None if index is None else Subject(index.raw, found_for(index, on_index=True), "index")

    def judge(one: Manifest | Index) -> None:
        explain_image(
            trust, one.raw, found_for(one, on_index=False), index=around, now=now
        ).require()

    seen: set[tuple[Digest, int, str]] = set()  # each once, however many paths lead to it

    def judge_all(one: Manifest | Index, depth: int) -> None:
        judge(one)
        if not isinstance(one, Index):
            return
        if depth == _MAX_NESTING:
            raise FormatError(f"expected indexes nested at most {depth} deep", what=source.name)
        for entry in one.manifests:
            key = (entry.digest, entry.size, entry.media_type)
            if key not in seen:
                seen.add(key)
                judge_all(read_entry(source, entry), depth + 1)

    if index is None or platform is None:
        judge_all(document, 0)
    else:
        # It may be an index again, which is copied with all that is in it.
        judge_all(read_entry(source, index.require_platform(platform, what=source.name)), 1)
    return top
