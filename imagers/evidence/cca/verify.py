# SPDX-License-Identifier: Apache-2.0
"""Whether a token of Arm CCA is genuine, for this handshake, of a secured platform. No IO.

    verifier = CCAVerifier.make(settings, None)
    evidence = verifier.parse(body)
    claims = verifier.verify(evidence, bound=bound, collateral={}, now=now, note=print)

1. *Trust anchor.* The operator gave a key for a platform of this instance id, of this
   implementation. There is no vendor's root to fall back to: without a key nobody could look.
2. *Platform.* The platform token is signed with that key, by its one algorithm.
3. *Binding.* The challenge of the platform token is the digest of the realm's key, by the hash
   algorithm that the realm token names: these two tokens belong together.
4. *Realm.* The realm token is signed with the realm's key.
5. *Lifecycle.* The platform is secured; under debugging only where that is allowed.
6. *Bound.* The realm's challenge is the report data, and its personalization value the init data,
   padded with zeros.

Both tokens are strict CBOR without headers outside of their signatures. What was measured is in
the claims; that it is *somebody's own* realm, on firmware that he knows, is for reference values
to say: nobody else vouches for the firmware of the platform.

Which platform token is signed with which key is cached by the bytes: it does not change.

Not looked at: the verification service that the platform names, and versions of its components.

Spec: RMM specification 1.0 (DEN0137), section A7.2; CCA Security Model (DEN0096), section 8;
draft-ffm-rats-cca-token-01.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from hmac import compare_digest
from typing import TYPE_CHECKING, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError, SignatureInvalid
from imagers.evidence.cca.token import MAX_TOKEN, Component, Platform, Realm, Token, parse_token
from imagers.evidence.steps import check_bound, mismatch, step
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, dump_json, parse_json
from imagers.pki.jwk import is_private_jwk, jwk_public_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.evidence.cca.remote import RemoteCCAVerifier
    from imagers.model.evidence import Bound, Verifier
    from imagers.model.strict_json import JSON
    from imagers.pki.cose import Sign1

__all__ = [
    "Anchor",
    "CCAVerifier",
    "check_realm",
    "claims_of",
    "parse",
    "parse_anchors",
    "parse_file",
    "platform_values",
    "realm_values",
    "software_digest",
]

_WHAT = "CCA evidence"
_MAX_JSON = 128 * 1024  # each byte of a token is a number there
_MAX_ANCHORS = 10_000
_CACHED = 256
_SECURED = range(0x3000, 0x3100)
_DEBUG = range(0x4000, 0x5100)  # of parts that are not of CCA, and of CCA itself, recoverable
_REMS = tuple(f"cca_realm_extensible_measurement_{number}" for number in range(4))
_MEASURED = ("cca_realm_initial_measurement", *_REMS, "cca_platform_software")
_HINT = "its key has to be among 'tees.cca.trust_anchors' of the appraisal policy"


@dataclass(frozen=True, slots=True)
class Anchor:
    """The key of one platform, which the operator has from its maker.

    Attributes:
        implementation_id: of the kind of platform that it is.
        key: public, in DER.
    """

    implementation_id: bytes
    key: bytes = field(repr=False)


def parse_anchors(settings: View) -> dict[bytes, Anchor]:
    """Keys by the instance id of their platform, from a list as Trustee's tastore.json has it.

        "trust_anchors": [{"instance-id": hex, "implementation-id": hex, "pkey": JWK}]

    Raises:
        FormatError: it is none, or has a platform twice, or a private key.
        Unsupported: a key is of another kind than RSA or EC.
    """
    anchors: dict[bytes, Anchor] = {}
    for one in settings.objects("trust_anchors", most=_MAX_ANCHORS, null_is_empty=True):
        one.exactly("instance-id", "implementation-id", "pkey")
        instance, key = one.hex("instance-id", size=33), one.object("pkey")
        if instance in anchors:
            raise one.error("is there twice", "instance-id")
        if is_private_jwk(key):
            raise one.error("expected a public key, got a private one", "pkey")
        der = jwk_public_key(key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        anchors[instance] = Anchor(one.hex("implementation-id", size=32), der)
    return anchors


def parse(body: JSON) -> Token:
    """The evidence in the JSON of the protocol: `{"token": [numbers]}`.

    Raises:
        FormatError: it is none.
    """
    return parse_token(View(body, what=_WHAT).octets("token", max_size=MAX_TOKEN))


def parse_file(data: bytes) -> Token:
    """The evidence in a file: a token as the guest's kernel gives it, or the protocol's JSON.

    Raises:
        FormatError: it is neither.
    """
    if data.lstrip()[:1] == b"{":
        return parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))
    return parse_token(data)


@dataclass(frozen=True, slots=True)
class CCAVerifier:
    """Judges tokens of Arm CCA, by the steps of the module.

    Attributes:
        anchors: by instance id.
        debug: whether a platform under debugging is let pass.
        roots: a public key in PEM, for each platform whatever its ids: for tests only.
    """

    anchors: Mapping[bytes, Anchor] = field(default_factory=dict, repr=False)
    debug: bool = False
    roots: bytes | None = None
    tee: ClassVar[str] = "cca"
    references: ClassVar[tuple[tuple[str, ...], ...]] = (_MEASURED,)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self | RemoteCCAVerifier:
        """A verifier with the settings of an appraisal.

            {"trust_anchors": [...], "debug": true} or {"veraison": {...}, "debug": true}

        Raises:
            FormatError: something else stands there, or `roots` is no public key.
        """
        settings.only("trust_anchors", "debug", "veraison")
        service = settings.optional_object("veraison")
        if service is not None:
            if "trust_anchors" in settings or roots is not None:
                raise settings.error("expected no other keys beside the service", "veraison")
            from imagers.evidence.cca.remote import RemoteCCAVerifier

            return RemoteCCAVerifier.make(service, debug=settings.flag("debug"))
        if roots is not None:
            _test_key(roots)  # a faulty file is told at the start
        return cls(parse_anchors(settings), settings.flag("debug"), roots)

    def parse(self, body: JSON) -> Token:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: Token) -> tuple[str, ...]:  # noqa: ARG002  # of the Protocol
        """See `Verifier`: nothing."""
        return ()

    def verify(
        self,
        evidence: Token,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],  # noqa: ARG002  # of the Protocol
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
            CouldNotVerify: there is no key for this platform.
        """
        platform = evidence.platform
        with step("1, trust anchor"):
            key = self._key_of(platform)
        note("step 1, trust anchor: there is a key for this platform")
        with step("2, platform"):
            _check_platform(platform, key)
        note(f"step 2, platform: signed, profile {platform.profile}")
        is_debug = check_realm(evidence, bound, note, debug=self.debug)
        return claims_of(
            evidence,
            maker="Arm CCA, a platform whose key the operator gave",
            is_debug=is_debug,
            now=now,
            test_root=self.roots is not None,
        )

    def _key_of(self, platform: Platform) -> bytes:
        """Step 1."""
        if self.roots is not None:
            return _test_key(self.roots)
        anchor = self.anchors.get(platform.instance_id)
        if anchor is None:
            raise CouldNotVerify("there is no trust anchor for this platform", hint=_HINT)
        if anchor.implementation_id != platform.implementation_id:
            expected, found = anchor.implementation_id.hex(), platform.implementation_id.hex()
            raise mismatch("implementation id", expected, found)
        return anchor.key


def check_realm(evidence: Token, bound: Bound, note: Callable[[str], None], *, debug: bool) -> bool:
    """Steps 3 to 6: whether the platform is under debugging.

    Raises:
        EvidenceRejected: a step says no.
    """
    platform, realm = evidence.platform, evidence.realm
    with step("3, binding"):
        digest = _hash(realm.key_hash_algorithm, realm.key_bytes)
        if not compare_digest(digest, platform.challenge):
            raise mismatch("digest of the realm's key", platform.challenge.hex(), digest.hex())
    note(f"step 3, binding: the realm's key, by {realm.key_hash_algorithm}")
    with step("4, realm"):
        _check_signature(realm.message, realm.key)
    note("step 4, realm: signed")
    with step("5, lifecycle"):
        is_debug = _check_lifecycle(platform.lifecycle, debug=debug)
    note(f"step 5, lifecycle: {'under debugging' if is_debug else 'secured'}")
    with step("6, bound"):
        told = check_bound(
            bound,
            report_data=realm.challenge,
            init_data=realm.personalization_value,
            field="the personalization value",
        )
    note(f"step 6, bound: {told}")
    return is_debug


def _check_lifecycle(state: int, *, debug: bool) -> bool:
    """Step 5: whether it is under debugging."""
    if state in _SECURED:
        return False
    if state not in _DEBUG:
        raise mismatch("lifecycle", "secured (0x3000 to 0x30ff)", hex(state))
    if not debug:
        raise mismatch("debugging", "a secured platform (0x3000 to 0x30ff)", hex(state))
    return True


def claims_of(
    evidence: Token, *, maker: str, is_debug: bool, now: datetime, test_root: bool = False
) -> Claims:
    """What tokens say for which all steps hold."""
    platform, realm = evidence.platform, evidence.realm
    measurements = (realm.initial_measurement, *realm.extensible_measurements)
    measured = [one.hex() for one in measurements]
    measured.append(software_digest(platform.components))
    return Claims(
        tee=CCAVerifier.tee,
        tee_class="cpu",
        maker=maker,
        measured=(dict(zip(_MEASURED, measured, strict=True)),),
        firmware={
            "cca_platform_implementation_id": platform.implementation_id.hex(),
            "cca_platform_config": platform.config.hex(),
            "cca_platform_lifecycle": platform.lifecycle,
        },
        configured={
            "cca_realm_personalization_value": realm.personalization_value.hex(),
            "cca_realm_hash_algorithm": realm.hash_algorithm,
        },
        debug=is_debug,
        report_data=realm.challenge.hex(),
        init_data=realm.personalization_value.hex(),
        values={
            "platform": platform_values(platform),
            "realm": realm_values(realm),
            "report_data": realm.challenge.hex(),
            "init_data": realm.personalization_value.hex(),
        },
        established_at=now,
        instance=hashlib.sha256(platform.instance_id).hexdigest(),
        test_root=test_root,
    )


def software_digest(components: Iterable[Component]) -> str:
    """One value for all firmware of a platform, whatever the order of its components.

    SHA-256, in hex, over compact JSON of the sorted list of `[type, measurement, signer]`, the
    last two in hex. A component that is missing changes it as one that is another does.
    """
    rows = sorted([one.kind, one.measurement.hex(), one.signer.hex()] for one in components)
    return hashlib.sha256(dump_json(rows)).hexdigest()


def _test_key(pem: bytes) -> bytes:
    try:
        return load_pem_public_key(pem).public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError("expected a public key in PEM", what="test root") from error


@lru_cache(_CACHED)
def _check_platform(platform: Platform, key: bytes) -> None:
    """Step 2; what raises is not cached."""
    _check_signature(platform.message, load_der_public_key(key))


def _check_signature(message: Sign1, key: object) -> None:
    try:
        message.check_signature(key)
    except SignatureInvalid as error:
        raise EvidenceRejected(str(error)) from error


def _hash(name: str, data: bytes) -> bytes:
    return hashlib.new(name.replace("-", ""), data).digest()


def platform_values(platform: Platform) -> dict[str, JSON]:
    """A platform's claims as Trustee names them, but for its id, which tells the machine."""
    components: list[JSON] = [
        {
            "measurement-type": one.kind,
            "measurement-value": encode_base64(one.measurement),
            "signer-id": encode_base64(one.signer),
            "version": one.version,
        }
        for one in platform.components
    ]
    return {
        "cca-platform-profile": platform.profile,
        "cca-platform-implementation-id": encode_base64(platform.implementation_id),
        "cca-platform-challenge": encode_base64(platform.challenge),
        "cca-platform-config": encode_base64(platform.config),
        "cca-platform-lifecycle": platform.lifecycle,
        "cca-platform-sw-components": components,
        "cca-platform-service-indicator": platform.service,
        "cca-platform-hash-algo-id": platform.hash_algorithm,
    }


def realm_values(realm: Realm) -> dict[str, JSON]:
    """A realm's claims as Trustee names them."""
    rems: list[JSON] = [encode_base64(one) for one in realm.extensible_measurements]
    return {
        "cca-realm-challenge": encode_base64(realm.challenge),
        "cca-realm-personalization-value": encode_base64(realm.personalization_value),
        "cca-realm-initial-measurement": encode_base64(realm.initial_measurement),
        "cca-realm-extensible-measurements": rems,
        "cca-realm-hash-algo-id": realm.hash_algorithm,
        "cca-realm-public-key": encode_base64(realm.key_bytes),
        "cca-realm-public-key-hash-algo-id": realm.key_hash_algorithm,
    }


if TYPE_CHECKING:
    _verifier: Verifier[Token] = CCAVerifier()
