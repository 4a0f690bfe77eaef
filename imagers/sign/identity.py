# SPDX-License-Identifier: Apache-2.0
"""Which names a signature may carry: the six kinds of `signedIdentity`.

A signature names an image in `critical.identity.docker-reference`. Whether that name is good
enough for the image at hand is decided here, on parsed and normalised names of both sides, so
`busybox:latest` and `docker.io/library/busybox:latest` are one name. A signature without tag
and digest (as cosign writes it) says only the repository, and matches only where a repository
is asked for.

    image = parse_reference("r.example/app:v1")
    MatchRepository().matches(image, parse_signed_name("r.example/app"))

Everything that cannot be parsed does not match; there is no other default.

Spec: containers-policy.json(5), "signedIdentity"; containers/image df7e80d2,
signature/policy_reference_match.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imagers.errors import FormatError
from imagers.model.digest import Digest, parse_digest
from imagers.model.reference import Reference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ExactReference",
    "ExactRepository",
    "MatchExact",
    "MatchRepoDigestOrExact",
    "MatchRepository",
    "RemapIdentity",
    "SignedIdentity",
    "SignedName",
    "parse_signed_name",
]

_MAX_NAME_TEXT = 1024  # characters: 255 of a name, 128 of a tag, 136 of a digest, and room


@dataclass(frozen=True, slots=True)
class SignedName:
    """A name as signatures and policies carry it: unlike a `Reference`, nothing is filled in.

    Attributes:
        name: registry and repository, normalised.
        tag: None where the text has none; `latest` is not assumed.
        digest: None where the text has none. Both may be set.
    """

    name: str
    tag: str | None
    digest: Digest | None

    @property
    def is_name_only(self) -> bool:
        """Whether it names a repository and no image of it."""
        return self.tag is None and self.digest is None

    def __str__(self) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{self.name}{tag}{digest}"


def parse_signed_name(text: str, *, what: str = "docker-reference", where: str = "") -> SignedName:
    """The name in `text`, normalised as docker does it.

    Raises:
        FormatError: it is not a name.
    """
    if len(text) > _MAX_NAME_TEXT:
        raise FormatError(
            f"expected a name of at most {_MAX_NAME_TEXT} characters, got {len(text)}",
            what=what,
            where=where,
        )
    rest, at, digest_text = text.partition("@")
    try:
        digest = parse_digest(digest_text) if at else None
        parsed = parse_reference(rest)
    except FormatError:
        raise FormatError(
            f"expected an image name such as 'r.example.org/team/app:v1', got {text[:160]!r}",
            what=what,
            where=where,
        ) from None
    has_tag = rest.rfind(":") > rest.rfind("/")
    return SignedName(parsed.name, parsed.tag if has_tag else None, digest)


def _name_of(reference: Reference) -> SignedName:
    return SignedName(reference.name, reference.tag, reference.digest)


class SignedIdentity(Protocol):
    """One kind of `signedIdentity`."""

    def matches(self, image: Reference | None, signed: SignedName) -> bool:
        """Whether a signature for `signed` counts for `image`.

        Args:
            image: as the user named it; None for an image in a directory, which has no name.
        """

    def wanted(self, image: Reference | None) -> str:
        """What a signature would have to name, for messages."""


_NAMELESS = "a name, and an image in a directory has none: use exactReference or exactRepository"


def _wanted(image: Reference | None, text: Callable[[Reference], str]) -> str:
    return _NAMELESS if image is None else text(image)


@dataclass(frozen=True, slots=True)
class MatchExact:
    """The same tag or the same digest, as text."""

    def matches(self, image: Reference | None, signed: SignedName) -> bool:
        """See `SignedIdentity`."""
        if image is None or signed.is_name_only:
            return False
        return _name_of(image) == signed

    def wanted(self, image: Reference | None) -> str:
        """See `SignedIdentity`."""
        return _wanted(image, lambda one: f"'{one}'")


def _repo_digest_or_exact(image: SignedName, signed: SignedName) -> bool:
    # A signature that names a repository only says nothing of which image was meant.
    if signed.is_name_only:
        return False
    if image.tag is not None:
        return image == signed
    # The digest in the name is not compared: the caller has held the manifest to it, and the
    # signature is held to the manifest (verify.py, step 5).
    return image.digest is not None and image.name == signed.name


@dataclass(frozen=True, slots=True)
class MatchRepoDigestOrExact:
    """By tag: the same tag. By digest: any image of the same repository. The default."""

    def matches(self, image: Reference | None, signed: SignedName) -> bool:
        """See `SignedIdentity`."""
        return image is not None and _repo_digest_or_exact(_name_of(image), signed)

    def wanted(self, image: Reference | None) -> str:
        """See `SignedIdentity`."""
        return _wanted(
            image,
            lambda one: f"a tag or digest of '{one.name}'" if one.is_pinned else f"'{one}'",
        )


@dataclass(frozen=True, slots=True)
class MatchRepository:
    """Any image of the same repository."""

    def matches(self, image: Reference | None, signed: SignedName) -> bool:
        """See `SignedIdentity`."""
        return image is not None and image.name == signed.name

    def wanted(self, image: Reference | None) -> str:
        """See `SignedIdentity`."""
        return _wanted(image, lambda one: f"repository '{one.name}'")


@dataclass(frozen=True, slots=True)
class ExactReference:
    """One name that the policy gives, whatever the image is called here."""

    reference: SignedName

    def matches(self, image: Reference | None, signed: SignedName) -> bool:  # noqa: ARG002  # the policy names it
        """See `SignedIdentity`."""
        if self.reference.is_name_only or signed.is_name_only:
            return False
        return self.reference == signed

    def wanted(self, image: Reference | None) -> str:  # noqa: ARG002  # the policy names it
        """See `SignedIdentity`."""
        return f"'{self.reference}'"


@dataclass(frozen=True, slots=True)
class ExactRepository:
    """Any image of one repository that the policy gives."""

    repository: SignedName

    def matches(self, image: Reference | None, signed: SignedName) -> bool:  # noqa: ARG002  # the policy names it
        """See `SignedIdentity`."""
        return self.repository.name == signed.name

    def wanted(self, image: Reference | None) -> str:  # noqa: ARG002  # the policy names it
        """See `SignedIdentity`."""
        return f"repository '{self.repository.name}'"


@dataclass(frozen=True, slots=True)
class RemapIdentity:
    """As the default, after a prefix of the image's name was replaced: for mirrors.

    An image whose name does not begin with the prefix is compared under its own name.
    """

    prefix: str
    signed_prefix: str

    def _remap(self, image: Reference) -> SignedName | None:
        name = image.name
        # Only on borders of components: `mirror/vendor` is no prefix of `mirror/vendor-evil`.
        if name != self.prefix and not name.startswith(self.prefix + "/"):
            return _name_of(image)
        remapped = self.signed_prefix + name[len(self.prefix) :]
        try:
            parsed = parse_reference(remapped)
        except FormatError:
            return None
        # A short name would be completed to one at docker.io that nobody wrote.
        if parsed.name != remapped:
            return None
        return SignedName(parsed.name, image.tag, image.digest)

    def matches(self, image: Reference | None, signed: SignedName) -> bool:
        """See `SignedIdentity`."""
        if image is None:
            return False
        remapped = self._remap(image)
        return remapped is not None and _repo_digest_or_exact(remapped, signed)

    def wanted(self, image: Reference | None) -> str:
        """See `SignedIdentity`."""
        if image is None:
            return _NAMELESS
        remapped = self._remap(image)
        if remapped is None:
            return f"a name under '{self.signed_prefix}', and there can be none for '{image}'"
        return f"'{remapped}'" if image.tag else f"a tag or digest of '{remapped.name}'"
