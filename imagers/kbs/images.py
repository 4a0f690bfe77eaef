# SPDX-License-Identifier: Apache-2.0
"""What a broker knows of the images of a repository, and an admin's word that one is good.

What is signed, by the admin's key:

    imagers approval of an image, version 1
    repository: default
    image: sha256:0f2c...
    until: 1798761600

Four lines in ASCII, each with its line feed; `until` is in seconds since 1970. Neither a
repository nor a digest can have a line feed or a space in it, so one text has one meaning. The
admin's Ed25519 key also signs tokens: none of those begins with these words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from imagers.model.digest import parse_digest
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from imagers.model.digest import Digest

__all__ = ["KnownImage", "KnownImages", "is_approval", "parse_images", "sign_approval"]

_REMEMBERED = 4096  # signatures, each of 64 bytes: to verify one takes as long as half a release


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownImage:
    """What a broker knows of an image of a repository.

    Attributes:
        state: `active`, `proposed` (the policy demands more approvals than it has), `superseded`,
            `too-old` (older than the oldest that is served) or `revoked`.
        successor: what to take in its place, if that was said.
        reason: why it was revoked, else "".
        proposed_by: name of the admin, or the id of a key that is no admin's any more, or "".
        proposed_at: RFC 3339, or "".
        approvals: of admins by their names, until when each counts, RFC 3339.
    """

    digest: Digest
    state: str
    successor: Digest | None
    reason: str
    proposed_by: str
    proposed_at: str
    approvals: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KnownImages:
    """The images of a repository, the oldest first.

    Attributes:
        floor: the oldest that is served; None: all are.
    """

    repository: str
    floor: Digest | None
    images: tuple[KnownImage, ...]


def parse_images(body: bytes, *, max_bytes: int) -> KnownImages:
    """A broker's answer.

    Raises:
        FormatError: it is none.
    """
    answer = View.parse(body, what="images of a repository", max_bytes=max_bytes)
    return KnownImages(
        answer.text("repository"),
        _optional_digest(answer, "floor"),
        tuple(map(_parse_image, answer.objects("images"))),
    )


def _parse_image(image: View) -> KnownImage:
    return KnownImage(
        digest=parse_digest(image.text("manifest_digest"), what=image.what),
        state=image.text("state"),
        successor=_optional_digest(image, "successor"),
        reason=image.optional_text("reason") or "",
        proposed_by=image.optional_text("proposed_by") or "",
        proposed_at=image.optional_text("proposed_at") or "",
        approvals={one.text("admin"): one.text("until") for one in image.objects("approvals")},
    )


def _optional_digest(view: View, member: str) -> Digest | None:
    text = view.optional_text(member)
    return None if text is None else parse_digest(text, what=view.what, where=view.at(member))


def _text(repository: str, digest: Digest, until: int) -> bytes:
    lines = (
        "imagers approval of an image, version 1",
        f"repository: {repository}",
        f"image: {digest}",
        f"until: {until}",
    )
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def sign_approval(key: Ed25519PrivateKey, *, repository: str, digest: Digest, until: int) -> bytes:
    """The signature."""
    return key.sign(_text(repository, digest, until))


def is_approval(
    public_key: bytes, signature: bytes, *, repository: str, digest: Digest, until: int
) -> bool:
    """Whether a key signed just this.

    Args:
        public_key: its 32 bytes.
    """
    return _is_signed(public_key, signature, _text(repository, digest, until))


@lru_cache(maxsize=_REMEMBERED)
def _is_signed(public_key: bytes, signature: bytes, text: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text)
    except (InvalidSignature, ValueError):  # the latter: it is no key
        return False
    return True
