# SPDX-License-Identifier: Apache-2.0
"""One requirement of a policy: what it asks for, strictly parsed.

    {"type": "sigstoreSigned", "keyPath": "/etc/keys/release.pub",
     "signedIdentity": {"type": "matchRepository"}}

A member that is unknown, missing, null or of another type refuses the whole file. What a
signature can satisfy is parsed by its format, see `formats.format`. The types `encrypted`,
`allOf`, `anyOf`, `index`, `sigstoreBundle` and `notation` are ours; other readers of the file
refuse them, so that none can misread them. `signedBaseLayer` is valid and can never be
satisfied: it is parsed as strictly, kept as `Unchecked`, and refused by `verify` when an image
depends on it.

Spec: containers-policy.json(5), "Policy Requirements"; containers/image df7e80d2,
signature/policy_config.go and policy_config_sigstore.go; docs/policy.md for ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

from imagers.errors import FormatError
from imagers.model.base64 import decode_base64_lines
from imagers.model.reference import normal_name, parse_reference
from imagers.model.strict_json import View
from imagers.sign.formats.format import FORMATS, format_of_type
from imagers.sign.identity import (
    ExactReference,
    ExactRepository,
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    RemapIdentity,
    SignedIdentity,
    parse_signed_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagers.model.strict_json import JSONObject

__all__ = [
    "KEY_MEMBERS",
    "PKI",
    "REKOR_MEMBERS",
    "AllOf",
    "AnyOf",
    "CertificateSubject",
    "Encrypted",
    "Fulcio",
    "InsecureAcceptAnything",
    "KeyRefs",
    "OnIndex",
    "Reject",
    "Requirement",
    "SignatureRequirement",
    "Strict",
    "Unchecked",
    "parse_fulcio",
    "parse_keys",
    "parse_pki",
    "parse_requirement",
    "parse_signed_identity",
    "parse_trusted_root",
    "walk",
]

_MAX_KEYS = 64  # of one requirement: each signature is tried with each
_MAX_DEPTH = 8  # of allOf, anyOf and index within each other
KEY_MEMBERS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_FULCIO_SUBJECTS = {"subjectEmail": "email", "subjectURI": "uri", "subjectRegexp": "pattern"}
REKOR_MEMBERS = (
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
)


@dataclass(frozen=True, slots=True)
class KeyRefs:
    """Where keys or certificates are: files to read, or bytes in the policy itself.

    Attributes:
        paths: as the policy writes them; empty where `datas` are given.
        datas: not parsed yet; empty where `paths` are given.
        label: what they are, for messages.
    """

    paths: tuple[str, ...]
    datas: tuple[bytes, ...]
    label: str = "key"


@dataclass(frozen=True, slots=True)
class Reject:
    """No image is good."""

    where: str


@dataclass(frozen=True, slots=True)
class InsecureAcceptAnything:
    """Every image is good, signed or not."""

    where: str


@dataclass(frozen=True, slots=True)
class CertificateSubject:
    """What a certificate must say of its owner; each that is given must hold.

    Attributes:
        pattern: a regular expression of RE2 that a whole e-mail address or URI must match.
    """

    email: str | None = None
    hostname: str | None = None
    uri: str | None = None
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Fulcio:
    """A certificate of a few minutes that an authority made for a login.

    Attributes:
        roots: of the authority; those of the trusted root where the requirement names one.
        issuer: of the login, such as `https://accounts.example.org`.
    """

    roots: KeyRefs
    issuer: str
    subject: CertificateSubject


@dataclass(frozen=True, slots=True)
class PKI:
    """A certificate of an authority of one's own."""

    roots: KeyRefs
    intermediates: KeyRefs | None
    subject: CertificateSubject


@dataclass(frozen=True, slots=True)
class SignatureRequirement:
    """A good signature of one format. Each format has a class of its own.

    Attributes:
        format: its name in the table of `formats.format`.
        where: place of the requirement in the policy.
    """

    format: ClassVar[str]

    where: str = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Encrypted:
    """Encrypted layers.

    Attributes:
        layers: which, from 0, or from -1 for the last; None: all, and at least one.
    """

    layers: tuple[int, ...] | None
    where: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """Each part must hold."""

    parts: tuple[Requirement, ...]
    where: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One part must hold."""

    parts: tuple[Requirement, ...]
    where: str


@dataclass(frozen=True, slots=True)
class OnIndex:
    """Each part must hold for what the name led to: the index, if there is one.

    Everything outside of `index` is about the manifest of the platform.
    """

    parts: tuple[Requirement, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A requirement that is valid and that nothing can satisfy. Never a yes.

    Attributes:
        feature: what it would take, such as `signedBaseLayer`.
        document: as written; treat as read-only.
    """

    feature: str
    document: JSONObject
    where: str


Requirement = (
    Reject
    | InsecureAcceptAnything
    | SignatureRequirement
    | Encrypted
    | AllOf
    | AnyOf
    | OnIndex
    | Unchecked
)


def walk(
    requirements: Sequence[Requirement], *, on_index: bool = False
) -> Iterator[tuple[Requirement, bool]]:
    """Every requirement and its parts, each with whether it is about the index."""
    for one in requirements:
        yield one, on_index
        if isinstance(one, AllOf | AnyOf | OnIndex):
            yield from walk(one.parts, on_index=on_index or isinstance(one, OnIndex))


class Strict(View):
    """One object of a policy, in which nothing that is there may be empty."""

    __slots__ = ()

    def one_of(self, *members: str, optional: bool = False) -> str | None:
        """The one of `members` that is there; null is there.

        Args:
            optional: none of them is fine too, and gives None.
        """
        found = [name for name in members if name in self]
        if len(found) > 1 or not (found or optional):
            bound = "at most" if optional else "exactly"
            raise self.error(
                f"expected {bound} one of {', '.join(members)}, got "
                + (" and ".join(found) or "none of them")
            )
        return found[0] if found else None

    def text(self, name: str) -> str:
        """A string that is not empty."""
        if not (found := super().text(name)):
            raise self.error("expected a string that is not empty", name)
        return found

    def words(self, name: str) -> tuple[str, ...]:
        """A list of such strings that is not empty."""
        found = self.texts(name, most=_MAX_KEYS, non_empty=True)
        if "" in found:
            place = f"{name}[{found.index('')}]"
            raise self.error("expected a string that is not empty", place)
        return found

    def datas(self, name: str) -> tuple[bytes, ...]:
        """The bytes of base64, one or a list of them."""
        if not name.endswith("s"):
            return (self._data(name, self.text(name)),)
        return tuple(
            self._data(f"{name}[{index}]", text) for index, text in enumerate(self.words(name))
        )

    def _data(self, name: str, text: str) -> bytes:
        # Guest components write the PEM itself where containers/image writes base64 of it;
        # "-" is no base64, so the two cannot be confused.
        if text.lstrip().startswith("-----BEGIN "):
            return text.encode()
        data = decode_base64_lines(text, what=self.what, where=self.at(name))
        if not data:  # nothing but line ends
            raise self.error("expected base64", name)
        return data


def parse_requirement(strict: Strict, *, depth: int = 0) -> Requirement:
    """One entry of a list of requirements.

    Args:
        depth: how many `allOf`, `anyOf` and `index` are around it.

    Raises:
        FormatError: anything that the specification does not say.
    """
    kind = strict.text("type")
    parsers: dict[str, Callable[[Strict], Requirement]] = {
        "reject": _parse_reject,
        "insecureAcceptAnything": _parse_accept,
        "signedBaseLayer": _parse_signed_base_layer,
        "encrypted": _parse_encrypted,
    }
    groups: dict[str, type[AllOf | AnyOf | OnIndex]] = {
        "allOf": AllOf,
        "anyOf": AnyOf,
        "index": OnIndex,
    }
    if kind in groups:
        return groups[kind](_parse_parts(strict, depth + 1), strict.where)
    if kind in parsers:
        return parsers[kind](strict)
    if (signed := format_of_type(kind)) is not None:
        return signed.parse(strict)
    known = sorted([*parsers, *groups, *(row.requirement for row in FORMATS.values())])
    raise strict.error(f"expected one of {', '.join(known)}, got {kind[:80]!r}", "type")


def _parse_parts(strict: Strict, depth: int) -> tuple[Requirement, ...]:
    strict.only("type", "requirements")
    parts = strict.objects("requirements", non_empty=True)
    if depth > _MAX_DEPTH:
        raise strict.error(f"expected at most {_MAX_DEPTH} levels of requirements, got more")
    return tuple(parse_requirement(one, depth=depth) for one in parts)


def _parse_reject(strict: Strict) -> Requirement:
    strict.only("type")
    return Reject(strict.where)


def _parse_accept(strict: Strict) -> Requirement:
    strict.only("type")
    return InsecureAcceptAnything(strict.where)


def parse_keys(strict: Strict, member: str, label: str = "key") -> KeyRefs:
    """What a member such as `keyPaths` or `caData` names."""
    if member.endswith("Path"):
        return KeyRefs((strict.text(member),), (), label)
    if member.endswith("Paths"):
        return KeyRefs(strict.words(member), (), label)
    return KeyRefs((), strict.datas(member), label)


def parse_fulcio(parent: Strict, *, has_roots: bool = True) -> Fulcio:
    """The member `fulcio`.

    `subjectURI` and `subjectRegexp` are ours. Other readers refuse the file, or do not know
    `fulcio` at all and have no key then.

    Args:
        has_roots: whether it names the certificates of the authority.
    """
    strict = parent.object("fulcio")
    roots = KeyRefs((), (), "certificates of fulcio")
    authority = ("caPath", "caData") if has_roots else ()
    strict.only(*authority, "oidcIssuer", *_FULCIO_SUBJECTS)
    if has_roots:
        roots = parse_keys(strict, str(strict.one_of(*authority)), roots.label)
    issuer = strict.text("oidcIssuer")
    member = str(strict.one_of(*_FULCIO_SUBJECTS))
    text = strict.text(member)
    if member == "subjectRegexp":
        _check_pattern(strict, member, text)
    return Fulcio(roots, issuer, CertificateSubject(**{_FULCIO_SUBJECTS[member]: text}))


def parse_trusted_root(strict: Strict) -> tuple[Fulcio, str]:
    """The members `fulcio` and `trustedRootPath`: all but the owner comes from one file."""
    if "fulcio" not in strict:
        raise strict.error("expected fulcio beside trustedRootPath")
    return parse_fulcio(strict, has_roots=False), strict.text("trustedRootPath")


def _check_pattern(strict: Strict, member: str, pattern: str) -> None:
    """Raise unless `pattern` is a regular expression of RE2, which has no slow ones."""
    import re2  # only where somebody wrote one

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args else "unknown"
        raise strict.error(f"expected a regular expression of RE2: {reason}", member) from None


def parse_pki(parent: Strict) -> PKI:
    """The member `pki`."""
    strict = parent.object("pki")
    intermediates = ("caIntermediatesPath", "caIntermediatesData")
    subjects = ("subjectEmail", "subjectHostname")
    strict.only("caRootsPath", "caRootsData", *intermediates, *subjects)
    roots = parse_keys(
        strict, str(strict.one_of("caRootsPath", "caRootsData")), "root certificates"
    )
    found = strict.one_of(*intermediates, optional=True)
    if not any(name in strict for name in subjects):
        raise strict.error("expected subjectEmail, subjectHostname or both")
    return PKI(
        roots,
        None if found is None else parse_keys(strict, found, "intermediate certificates"),
        CertificateSubject(
            email=strict.text("subjectEmail") if "subjectEmail" in strict else None,
            hostname=strict.text("subjectHostname") if "subjectHostname" in strict else None,
        ),
    )


def _parse_signed_base_layer(strict: Strict) -> Requirement:
    strict.only("type", "baseLayerIdentity")
    _parse_identity(strict, "baseLayerIdentity")
    return Unchecked("signedBaseLayer", strict.value, strict.where)


def _parse_encrypted(strict: Strict) -> Requirement:
    strict.only("type", "layers")
    if "layers" not in strict:
        return Encrypted(None, strict.where)
    value = strict.value["layers"]
    if not isinstance(value, list) or not value:
        raise strict.error("expected a list that is not empty", "layers")
    for index, one in enumerate(value):
        if not isinstance(one, int) or isinstance(one, bool):
            raise strict.error("expected the number of a layer", f"layers[{index}]")
    return Encrypted(tuple(cast("list[int]", value)), strict.where)


def parse_signed_identity(strict: Strict) -> SignedIdentity:
    """The member `signedIdentity`, or what counts without it."""
    if "signedIdentity" not in strict:
        return MatchRepoDigestOrExact()
    return _parse_identity(strict, "signedIdentity")


def _parse_identity(parent: Strict, member: str) -> SignedIdentity:
    strict = parent.object(member)
    kind = strict.text("type")
    plain: dict[str, type[MatchExact | MatchRepoDigestOrExact | MatchRepository]] = {
        "matchExact": MatchExact,
        "matchRepoDigestOrExact": MatchRepoDigestOrExact,
        "matchRepository": MatchRepository,
    }
    if kind in plain:
        strict.only("type")
        return plain[kind]()
    if kind == "exactReference":
        strict.only("type", "dockerReference")
        name = parse_signed_name(
            strict.text("dockerReference"), what=strict.what, where=strict.at("dockerReference")
        )
        if name.is_name_only:
            raise strict.error(f"expected a tag or a digest, got '{name}'", "dockerReference")
        return ExactReference(name)
    if kind == "exactRepository":
        strict.only("type", "dockerRepository")
        name = parse_signed_name(
            strict.text("dockerRepository"), what=strict.what, where=strict.at("dockerRepository")
        )
        # containers/image drops the tag without a word: every tag would be good, not this one.
        if not name.is_name_only:
            raise strict.error(
                f"expected a repository without tag and digest, got '{name}'; use exactReference "
                "for one image",
                "dockerRepository",
            )
        return ExactRepository(name)
    if kind == "remapIdentity":
        strict.only("type", "prefix", "signedPrefix")
        return RemapIdentity(_parse_prefix(strict, "prefix"), _parse_prefix(strict, "signedPrefix"))
    known = ", ".join([*plain, "exactReference", "exactRepository", "remapIdentity"])
    raise strict.error(f"expected one of {known}, got {kind[:80]!r}", "type")


def _parse_prefix(strict: Strict, member: str) -> str:
    """A host, or a host with a part of a repository's name."""
    text = normal_name(strict.text(member))
    # With two more components docker.io adds none of its own.
    probe = f"{text}/x/y"
    try:
        good = parse_reference(probe).name == probe
    except FormatError:
        good = False
    if not good:
        raise strict.error(
            f"expected a registry or a repository with its registry, got {text[:160]!r}", member
        )
    return text
