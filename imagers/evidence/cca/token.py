# SPDX-License-Identifier: Apache-2.0
"""The attestation token of Arm CCA: platform and realm token, each a COSE_Sign1.

    token = parse_token(raw)
    token.platform.instance_id, token.realm.initial_measurement       # nothing is verified

    399({44234: bytes of the platform token, 44241: bytes of the realm token})

Two profiles of the platform's claims are taken, which have the same labels, and two of the
realm's, which write the realm's key in two ways.

A platform's token stays the same until its firmware is started anew: what was parsed is cached by
the bytes.

Spec: RMM specification 1.0 (DEN0137), section A7.2; draft-ffm-rats-cca-token-01.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import FormatError
from imagers.model.strict_cbor import CBORView, Tag, parse_cbor
from imagers.pki.cose import ALG, Sign1, parse_sign1

__all__ = ["MAX_TOKEN", "Component", "Platform", "Realm", "Token", "parse_token"]

MAX_TOKEN = 16 * 1024
"""In bytes; the kernel's interface gives up to 4096."""
_COLLECTION, _PLATFORM, _REALM = 399, 44234, 44241
_PLATFORM_PROFILES = ("http://arm.com/CCA-SSD/1.0.0", "tag:arm.com,2023:cca_platform#1.0.0")
_REALM_PROFILE = "tag:arm.com,2023:realm#1.0.0"
_HASHES = ("sha-256", "sha-384", "sha-512")
_SIZES = (32, 48, 64)  # of digests
_REMS = 4
_POINT_BYTES = 97
_MAX_COMPONENTS = 64
_MAX_TEXT = 1024
_CACHED = 256
# Labels of a COSE_Key (RFC 9052, section 7; RFC 9053, section 7.1.1).
_KTY, _CRV, _X, _Y = 1, -1, -2, -3
_EC2, _P384, _COORDINATE = 2, 2, 48


@dataclass(frozen=True, slots=True)
class Component:
    """A piece of the platform's firmware."""

    kind: str
    measurement: bytes
    signer: bytes
    version: str


@dataclass(frozen=True, slots=True, eq=False)
class Platform:
    """What the platform says of itself, and its message; the same object for the same bytes.

    Attributes:
        challenge: digest of the realm's key.
        instance_id: of this one machine; it does not print.
        implementation_id: of the kind of machine.
        service: where Arm's documents say that a verifier is; None: nothing is said.
    """

    message: Sign1 = field(repr=False)
    profile: str
    challenge: bytes
    implementation_id: bytes
    instance_id: bytes = field(repr=False)
    config: bytes
    lifecycle: int
    components: tuple[Component, ...]
    hash_algorithm: str
    service: str | None


@dataclass(frozen=True, slots=True)
class Realm:
    """What the realm's manager says of the realm, and its message.

    Attributes:
        key_bytes: as it stands in the claim, which the platform has the digest of.
        key: what signs the realm's token.
        profile: None: the older one.
    """

    message: Sign1 = field(repr=False)
    profile: str | None
    challenge: bytes
    personalization_value: bytes
    initial_measurement: bytes
    extensible_measurements: tuple[bytes, ...]
    hash_algorithm: str
    key_bytes: bytes
    key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)
    key_hash_algorithm: str


@dataclass(frozen=True, slots=True)
class Token:
    """Both tokens. Nothing of it is verified, nor that they belong together.

    Attributes:
        raw: as it came.
    """

    platform: Platform
    realm: Realm
    raw: bytes = field(repr=False)


def parse_token(raw: bytes) -> Token:
    """The token in `raw`.

    Raises:
        FormatError: it is none, or of another profile, or says something outside of a signature.
    """
    what = "CCA token"
    tagged = parse_cbor(raw, what=what, max_bytes=MAX_TOKEN)
    if not isinstance(tagged, Tag) or tagged.number != _COLLECTION:
        raise FormatError(f"expected a collection with tag {_COLLECTION}", what=what)
    collection = CBORView(tagged.value, what=what)
    collection.only(_PLATFORM, _REALM)
    return Token(
        _parse_platform(collection.byte_string(_PLATFORM)),
        _parse_realm(collection.byte_string(_REALM)),
        raw,
    )


def _message(raw: bytes, what: str) -> tuple[Sign1, CBORView]:
    message = parse_sign1(raw, what=what, max_bytes=MAX_TOKEN, empty_unprotected=True)
    # Whatever else a header means, it is not looked at: what is critical could change the meaning.
    CBORView(message.protected, what=f"{what}, protected headers").only(ALG)
    return message, CBORView.parse(message.payload, what=what, max_bytes=MAX_TOKEN)


@lru_cache(_CACHED)
def _parse_platform(raw: bytes) -> Platform:
    message, claims = _message(raw, "platform token")
    profile = claims.text(265)
    if profile not in _PLATFORM_PROFILES:
        expected = " or ".join(map(repr, _PLATFORM_PROFILES))
        raise claims.error(f"expected {expected}, got {profile[:80]!r}", 265)
    instance = claims.byte_string(256, sizes=(33,))
    if instance[0] != 1:
        raise claims.error("expected an id of type 1", 256)
    return Platform(
        message=message,
        profile=profile,
        challenge=claims.byte_string(10, sizes=_SIZES),
        implementation_id=claims.byte_string(2396, sizes=(32,)),
        instance_id=instance,
        config=claims.byte_string(2401, max_size=_MAX_TEXT),
        lifecycle=claims.integer(2395, maximum=0xFFFF),
        components=tuple(
            _parse_component(one) for one in claims.maps(2399, least=1, most=_MAX_COMPONENTS)
        ),
        hash_algorithm=_hash_algorithm(claims, 2402),
        service=_text(claims, 2400) or None,
    )


def _parse_component(claims: CBORView) -> Component:
    return Component(
        kind=_text(claims, 1),
        measurement=claims.byte_string(2, sizes=_SIZES),
        signer=claims.byte_string(5, sizes=_SIZES),
        version=_text(claims, 4),
    )


def _parse_realm(raw: bytes) -> Realm:
    message, claims = _message(raw, "realm token")
    profile = claims.text(265) if 265 in claims else None
    if profile not in (None, _REALM_PROFILE):
        raise claims.error(f"expected {_REALM_PROFILE!r}, got {profile[:80]!r}", 265)
    rems = claims.byte_strings(44239, least=_REMS, most=_REMS)
    initial = claims.byte_string(44238, sizes=_SIZES)
    if any(len(one) != len(initial) for one in rems):
        raise claims.error(f"expected {_REMS} measurements of {len(initial)} bytes", 44239)
    key_bytes = claims.byte_string(
        44237, sizes=(_POINT_BYTES,) if profile is None else (), max_size=_MAX_TEXT
    )
    return Realm(
        message=message,
        profile=profile,
        challenge=claims.byte_string(10, sizes=(64,)),
        personalization_value=claims.byte_string(44235, sizes=(64,)),
        initial_measurement=initial,
        extensible_measurements=rems,
        hash_algorithm=_hash_algorithm(claims, 44236),
        key_bytes=key_bytes,
        key=_load_key(key_bytes if profile is None else _point(key_bytes)),
        key_hash_algorithm=_hash_algorithm(claims, 44240),
    )


def _load_key(point: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point)
    except ValueError as error:
        raise FormatError("is no point of P-384", what="realm key") from error


def _point(raw: bytes) -> bytes:
    """The point of a COSE_Key."""
    key = CBORView.parse(raw, what="realm key", max_bytes=_MAX_TEXT)
    kty, curve = key.integer(_KTY), key.integer(_CRV)
    if (kty, curve) != (_EC2, _P384):
        raise key.error(f"expected a key on P-384 (type 2, curve 2), got {kty}, {curve}")
    x, y = (key.byte_string(one, sizes=(_COORDINATE,)) for one in (_X, _Y))
    return b"\x04" + x + y


def _hash_algorithm(claims: CBORView, label: int) -> str:
    name = claims.text(label)
    if name not in _HASHES:
        raise claims.error(f"expected one of {', '.join(_HASHES)}, got {name[:40]!r}", label)
    return name


def _text(claims: CBORView, label: int) -> str:
    """A text, or "" where it is absent."""
    text = claims.text(label) if label in claims else ""
    if len(text) > _MAX_TEXT:
        raise claims.error(f"expected at most {_MAX_TEXT} characters", label)
    return text
