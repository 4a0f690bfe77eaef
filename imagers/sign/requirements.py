"""One requirement of a policy: what it asks for, strictly parsed.

    {"type": "sigstoreSigned", "keyPath": "/etc/keys/release.pub",
     "signedIdentity": {"type": "matchRepository"}}

A member that is unknown, missing, null or of another type refuses the whole file. So do
requirements that are valid and that this version cannot check stay what they are: parsed as
strictly, kept as `Unchecked`, and refused by `verify` when an image depends on them.

Spec: containers-policy.json(5), "Policy Requirements"; containers/image df7e80d2,
signature/policy_config.go and policy_config_sigstore.go.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from imagers.errors import FormatError
from imagers.model.reference import parse_reference
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
    from collections.abc import Callable

    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "InsecureAcceptAnything",
    "Reject",
    "Requirement",
    "SigstoreSigned",
    "Strict",
    "Unchecked",
    "parse_requirement",
]

_MAX_KEYS = 64  # of one requirement: each signature is tried with each
_KEY_MEMBERS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_REKOR_MEMBERS = (
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
)
_KEY_TYPES = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")


@dataclass(frozen=True, slots=True)
class Reject:
    """No image is good."""

    where: str


@dataclass(frozen=True, slots=True)
class InsecureAcceptAnything:
    """Every image is good, signed or not."""

    where: str


@dataclass(frozen=True, slots=True)
class SigstoreSigned:
    """A good sigstore signature by one of the keys, for the right name.

    Attributes:
        key_paths: as the policy writes them; empty where `key_datas` are given.
        key_datas: PEM, not parsed yet; empty where `key_paths` are given.
        where: place of the requirement in the policy.
    """

    key_paths: tuple[str, ...]
    key_datas: tuple[bytes, ...]
    signed_identity: SignedIdentity
    where: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A requirement that is valid and that this version cannot check. Never a yes.

    Attributes:
        feature: what it would take, such as `signedBy` or `sigstoreSigned with fulcio`.
        document: as written; treat as read-only.
    """

    feature: str
    document: JSONObject
    where: str


Requirement = Reject | InsecureAcceptAnything | SigstoreSigned | Unchecked


class Strict:
    """One object of the policy: which members it may have, and typed access to them."""

    def __init__(self, value: JSON, *, what: str, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError("expected an object", what=what, where=where)
        self.value = value
        self.what = what
        self.where = where

    def error(self, message: str, member: str = "") -> FormatError:
        """A `FormatError` at this object, or at a member of it."""
        where = f"{self.where}.{member}" if member else self.where
        return FormatError(message, what=self.what, where=where)

    def only(self, *members: str) -> None:
        """Nothing, if there are no other members."""
        for name in self.value:
            if name not in members:
                raise self.error(
                    f"has the unknown member {name[:80]!r}, expected one of " + ", ".join(members)
                )

    def has(self, member: str) -> bool:
        """Whether the member is there; null is there."""
        return member in self.value

    def one_of(self, *members: str, at_least: int = 1) -> str | None:
        """The one of `members` that is there.

        Args:
            at_least: 0 where none of them is fine too, and gives None.
        """
        found = [name for name in members if name in self.value]
        if len(found) > 1 or len(found) < at_least:
            bound = "exactly" if at_least else "at most"
            raise self.error(
                f"expected {bound} one of {', '.join(members)}, got "
                + (" and ".join(found) or "none of them")
            )
        return found[0] if found else None

    def text(self, member: str) -> str:
        """A string that is not empty."""
        value = self.value.get(member)
        if not isinstance(value, str) or not value:
            raise self.error("expected a string that is not empty", member)
        return value

    def texts(self, member: str) -> tuple[str, ...]:
        """A list of such strings that is not empty."""
        value = self.value.get(member)
        if not isinstance(value, list) or not value:
            raise self.error("expected a list that is not empty", member)
        if len(value) > _MAX_KEYS:
            raise self.error(f"expected at most {_MAX_KEYS} entries, got {len(value)}", member)
        for index, one in enumerate(value):
            if not isinstance(one, str) or not one:
                raise self.error("expected a string that is not empty", f"{member}[{index}]")
        return tuple(cast("list[str]", value))

    def datas(self, member: str) -> tuple[bytes, ...]:
        """The bytes of base64, one or a list of them."""
        if member.endswith("s"):
            texts = [(f"{member}[{i}]", text) for i, text in enumerate(self.texts(member))]
        else:
            texts = [(member, self.text(member))]
        return tuple(self._bytes(name, text) for name, text in texts)

    def _bytes(self, member: str, text: str) -> bytes:
        # Guest components write the PEM itself where containers/image writes base64 of it;
        # "-" is no base64, so the two cannot be confused.
        if text.lstrip().startswith("-----BEGIN "):
            return text.encode("utf-8", "backslashreplace")
        try:
            data = base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if not data:
            raise self.error("expected base64", member)
        return data


def parse_requirement(value: JSON, *, what: str, where: str) -> Requirement:
    """One entry of a list of requirements.

    Raises:
        FormatError: anything that the specification does not say.
    """
    strict = Strict(value, what=what, where=where)
    kind = strict.text("type")
    parsers: dict[str, Callable[[Strict], Requirement]] = {
        "reject": _parse_reject,
        "insecureAcceptAnything": _parse_accept,
        "sigstoreSigned": _parse_sigstore_signed,
        "signedBy": _parse_signed_by,
        "signedBaseLayer": _parse_signed_base_layer,
    }
    if kind not in parsers:
        raise strict.error(
            f"expected one of {', '.join(sorted(parsers))}, got {kind[:80]!r}", "type"
        )
    return parsers[kind](strict)


def _parse_reject(strict: Strict) -> Requirement:
    strict.only("type")
    return Reject(strict.where)


def _parse_accept(strict: Strict) -> Requirement:
    strict.only("type")
    return InsecureAcceptAnything(strict.where)


def _parse_sigstore_signed(strict: Strict) -> Requirement:
    strict.only("type", *_KEY_MEMBERS, "fulcio", "pki", *_REKOR_MEMBERS, "signedIdentity")
    source = strict.one_of(*_KEY_MEMBERS, "fulcio", "pki")
    rekor = strict.one_of(*_REKOR_MEMBERS, at_least=0)
    identity = _parse_signed_identity(strict)
    paths: tuple[str, ...] = ()
    datas: tuple[bytes, ...] = ()
    if source == "fulcio":
        _check_fulcio(strict)
    elif source == "pki":
        _check_pki(strict)
    else:
        paths, datas = _keys(strict, str(source))
    if rekor is not None:
        _keys(strict, rekor)
    if source == "fulcio" and rekor is None:
        raise strict.error(f"expected one of {', '.join(_REKOR_MEMBERS)} beside fulcio")
    if source == "pki" and rekor is not None:
        raise strict.error(f"expected no {rekor} beside pki")
    # A log entry is one more thing to check, not one less: without checking it, no yes.
    unchecked = rekor if source not in ("fulcio", "pki") else source
    if unchecked is not None:
        return Unchecked(f"sigstoreSigned with {unchecked}", strict.value, strict.where)
    return SigstoreSigned(paths, datas, identity, strict.where)


def _keys(strict: Strict, member: str) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    if member.endswith("Path"):
        return (strict.text(member),), ()
    if member.endswith("Paths"):
        return strict.texts(member), ()
    return (), strict.datas(member)


def _check_fulcio(strict: Strict) -> None:
    fulcio = Strict(strict.value["fulcio"], what=strict.what, where=f"{strict.where}.fulcio")
    fulcio.only("caPath", "caData", "oidcIssuer", "subjectEmail")
    _keys(fulcio, str(fulcio.one_of("caPath", "caData")))
    fulcio.text("oidcIssuer")
    fulcio.text("subjectEmail")


def _check_pki(strict: Strict) -> None:
    pki = Strict(strict.value["pki"], what=strict.what, where=f"{strict.where}.pki")
    intermediates = ("caIntermediatesPath", "caIntermediatesData")
    subjects = ("subjectEmail", "subjectHostname")
    pki.only("caRootsPath", "caRootsData", *intermediates, *subjects)
    _keys(pki, str(pki.one_of("caRootsPath", "caRootsData")))
    found = pki.one_of(*intermediates, at_least=0)
    if found is not None:
        _keys(pki, found)
    given = [name for name in subjects if pki.has(name)]
    if not given:
        raise pki.error("expected subjectEmail, subjectHostname or both")
    for name in given:
        pki.text(name)


def _parse_signed_by(strict: Strict) -> Requirement:
    strict.only("type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity")
    kind = strict.text("keyType")
    if kind not in _KEY_TYPES:
        raise strict.error(f"expected 'GPGKeys', got {kind[:80]!r}", "keyType")
    _keys(strict, str(strict.one_of("keyPath", "keyPaths", "keyData")))
    _parse_signed_identity(strict)
    return Unchecked("signedBy", strict.value, strict.where)


def _parse_signed_base_layer(strict: Strict) -> Requirement:
    strict.only("type", "baseLayerIdentity")
    _parse_identity(strict, "baseLayerIdentity")
    return Unchecked("signedBaseLayer", strict.value, strict.where)


def _parse_signed_identity(strict: Strict) -> SignedIdentity:
    if not strict.has("signedIdentity"):
        return MatchRepoDigestOrExact()
    return _parse_identity(strict, "signedIdentity")


def _parse_identity(parent: Strict, member: str) -> SignedIdentity:
    where = f"{parent.where}.{member}"
    strict = Strict(parent.value.get(member), what=parent.what, where=where)
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
        place = f"{where}.dockerReference"
        name = parse_signed_name(strict.text("dockerReference"), what=strict.what, where=place)
        if name.is_name_only:
            raise strict.error(f"expected a tag or a digest, got '{name}'", "dockerReference")
        return ExactReference(name)
    if kind == "exactRepository":
        strict.only("type", "dockerRepository")
        place = f"{where}.dockerRepository"
        name = parse_signed_name(strict.text("dockerRepository"), what=strict.what, where=place)
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
    text = strict.text(member)
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
