# SPDX-License-Identifier: Apache-2.0
"""What an attested guest carries.

The guest's token is an EAR (EAT attestation result) as Trustee writes it: ES256, the
verifier's claims below `submods`, and the guest's public key where Trustee looks for it.
It is made and checked with the broker's own key. Its header names that key by its id and does
not bring it along: other readers have it from `jwks`, which a broker publishes. One that stood in
the header would be one that Trustee wants a certificate of.

Status and trustworthiness vector are those of the moment when it was made. What a guest may have is
decided by the claims in it, appraised anew by the reference values in force when it asks.

The guest's TEE has the submod `cpu0`; each of its devices one more, such as `gpu0`.

A token made under roots for tests says so, in `imagers.test-root`. By which roots and settings a
verifier judged is in `imagers.judge` of the submod, as a digest: a broker that is started with
others believes nothing that was accepted under these. The store is named in `imagers.store`: one
whose time begins again has another name, and takes no token from before.

Spec: draft-ietf-rats-ear; draft-ietf-rats-ar4si; Trustee attestation token.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from imagers import __version__
from imagers.broker.clock import MAX_CLOCK_ERROR
from imagers.broker.refusals import Refusal
from imagers.errors import FormatError, ImagersError, UsageError
from imagers.evidence.claims import claims_from_json, claims_to_json
from imagers.kbs.messages import parse_public_key
from imagers.kbs.tee_key import public_jwk
from imagers.model.base64 import encode_base64, encode_base64url
from imagers.model.keys import SecretKey
from imagers.model.strict_json import View, dump_json
from imagers.pki.jose import parse_token, sign_token, verify_token

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

    from imagers.evidence.appraise import Appraisal
    from imagers.kbs.messages import Attestation, TEEPublicKey
    from imagers.model.evidence import Claims, ReportData
    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "DEFAULT_ISSUER",
    "EVIDENCE",
    "Accepted",
    "AttestedGuest",
    "GuestTokens",
    "Judged",
    "Vouched",
    "check_issuer",
    "load_signing_key",
    "make_signing_key",
    "published_jwk",
]

_PROFILE = "tag:github.com,2024:confidential-containers/Trustee"
DEFAULT_ISSUER = "imagers-broker"
EVIDENCE = "ear.veraison.annotated-evidence"
"""The member of a submod that has what Trustee names claims."""
_CLAIMS = "imagers.claims"
_JUDGE = "imagers.judge"
_GUEST = "cpu0"
_STORE = "imagers.store"
_STORE_DIGITS = 16
# What would make a token too long for a header; registers that it led to are measured.
_LOG = "uefi_event_logs"
_MAX_EVENTS = 12 * 1024  # of an agent's events, in JSON
_REMEMBERED = 256  # good tokens, of 32 KiB at most
_ISSUER = re.compile(r"[!-~]{1,200}\Z")
_ISSUER_URL = re.compile(r"https://[^/?#]+(?:/[^?#]*[^/?#])?\Z")


@dataclass(frozen=True, slots=True)
class Judged:
    """Accepted evidence of a TEE or of a device, and its worth.

    Attributes:
        judge: digest of the roots and settings of the verifier.
    """

    claims: Claims
    appraisal: Appraisal
    judge: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a token says of one piece of evidence.

    Attributes:
        claims: without those by Trustee's names.
        judge: as in `Judged`.
        submods: the one of the token that says it.
    """

    claims: Claims
    judge: str
    submods: tuple[str, ...]

    @property
    def tee(self) -> str:
        """Name of the TEE or device."""
        return self.claims.tee


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the token of another verifier says of one part of a machine.

    Attributes:
        appraisal: what it is worth here; None: that is to be found out, of the claims.
        claims: to be appraised; None: the appraisal is all.
        submods: those of the token that say it.
    """

    tee: str
    submods: tuple[str, ...]
    appraisal: Appraisal | None = None
    claims: Claims | None = None


@dataclass(frozen=True, slots=True)
class AttestedGuest:
    """What a good token says: whose evidence was accepted, and what answers are sealed to.

    Attributes:
        accepted: that of the TEE first, then those of its devices.
        claims: all of the token.
        claims_digest: SHA-256 of what the token says of the guest, its `submods`, in hex.
        issuer: who vouches for it, if that is not this broker.
    """

    tee_pubkey: TEEPublicKey
    accepted: tuple[Accepted | Vouched, ...]
    claims: JSONObject = field(repr=False)
    issuer: str = ""
    claims_digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = sha256(dump_json(self.claims.get("submods"))).hexdigest()
        object.__setattr__(self, "claims_digest", digest)

    @property
    def tee(self) -> str:
        """Name of the TEE."""
        return self.accepted[0].tee

    def evidence_of(self, one: Accepted | Vouched) -> JSONObject:
        """What Trustee names claims of one piece of evidence; empty where the token has none."""
        submods = self.claims.get("submods")
        for name in one.submods:
            submod = submods.get(name) if isinstance(submods, dict) else None
            evidence = submod.get(EVIDENCE) if isinstance(submod, dict) else None
            if isinstance(evidence, dict):
                return evidence
        return {}


def check_issuer(name: str) -> None:
    """Raise unless a broker can have this name in its tokens: an https URL, or no URL at all.

    Raises:
        UsageError: else.
    """
    if not _ISSUER.match(name) or (":" in name and not _ISSUER_URL.match(name)):
        raise UsageError(
            f"issuer: expected an https URL without a query and '/' at its end, or a name without "
            f"spaces and ':', got {name[:80]!r}",
            hint="for example --issuer https://broker.example",
        )


def make_signing_key() -> SecretKey:
    """A new private key for ES256, in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return SecretKey(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def load_signing_key(private_pem: SecretKey) -> EllipticCurvePrivateKey:
    """The key of `make_signing_key`."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with private_pem.view() as data:
        key = load_pem_private_key(bytes(data), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def published_jwk(key: EllipticCurvePublicKey) -> JSONObject:
    """What others check signatures by a P-256 key with; `kid` is its thumbprint.

    Spec: RFC 7517 section 4; RFC 7638.
    """
    public = public_jwk(key, "P-256")
    # These members in this order.
    named: JSONObject = {"crv": public.crv, "kty": "EC", "x": public.x, "y": public.y}
    return {
        "kty": "EC",
        "crv": public.crv,
        "alg": "ES256",
        "x": public.x,
        "y": public.y,
        "kid": encode_base64url(sha256(dump_json(named)).digest()),
        "use": "sig",
    }


class GuestTokens:
    """Makes and checks the tokens of guests.

    Args:
        private_pem: the P-256 key of this broker.
        issuer: what the broker is called in them.

    Attributes:
        key_id: of its key, in the header of each token.

    Threads: safe.
    """

    def __init__(self, private_pem: SecretKey, *, issuer: str = DEFAULT_ISSUER) -> None:
        self._key = load_signing_key(private_pem)
        # Tokens that were made or verified: a good one stays good until its end.
        self._good: OrderedDict[str, tuple[int, int, AttestedGuest]] = OrderedDict()
        self._jwk = published_jwk(self._key.public_key())
        self.key_id = str(self._jwk["kid"])
        self._issuer = issuer

    def jwks(self) -> bytes:
        """The JSON of the keys that others check these tokens with.

        Spec: RFC 7517 section 5.
        """
        return dump_json({"keys": [self._jwk]})

    def discovery(self) -> bytes | None:
        """The JSON that says where the keys are; None where the issuer is no URL.

        Spec: OpenID Connect Discovery 1.0, sections 3 and 4.
        """
        if ":" not in self._issuer:
            return None
        return dump_json(
            {
                "issuer": self._issuer,
                "jwks_uri": f"{self._issuer}/.well-known/jwks.json",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }
        )

    def issue(
        self,
        judged: Sequence[Judged],
        *,
        attestation: Attestation,
        report_data: ReportData,
        now: datetime,
        expires: datetime,
        init_data: JSONObject | None = None,
        store_id: bytes = b"",
    ) -> str:
        """The token of a guest whose evidence was accepted.

        Args:
            judged: that of the TEE first, then those of its devices.
            init_data: what policies may see of the init data that the evidence binds.
            store_id: where it counts; another one when the time of the store begins again.
        """
        runtime: JSONObject = {
            "nonce": attestation.nonce,
            "tee-pubkey": attestation.tee_pubkey.to_json(),
        }
        counts: Counter[str] = Counter()
        submods: JSONObject = {}
        for index, one in enumerate(judged):
            claims = one.claims
            name = f"{claims.tee_class}{counts[claims.tee_class]}"
            counts[claims.tee_class] += 1
            submods[name] = _submod(one, report_data, runtime, init_data if index == 0 else None)
        claims = judged[0].claims
        payload: JSONObject = {
            "eat_profile": _PROFILE,
            "iat": int(now.timestamp()),
            "ear.verifier-id": {"developer": "imagers", "build": f"imagers-broker {__version__}"},
            "submods": submods,
            "exp": int(expires.timestamp()),
            "iss": self._issuer,
            "imagers.tee": claims.tee,
            _STORE: _store_name(store_id),
        }
        if any(one.claims.test_root for one in judged):
            payload["imagers.test-root"] = True
        token = sign_token(payload, key=self._key, header={"kid": self.key_id})
        self._remember(token, View(payload, what="token"))
        return token

    def is_named_in(self, token: str) -> bool:
        """Whether a token says that its key is this broker's. Nothing of it is verified."""
        try:
            return parse_token(token, what="token").header.value.get("kid") == self.key_id
        except FormatError:
            return False

    def check(self, token: str, *, now: datetime, store_id: bytes | None = None) -> AttestedGuest:
        """The guest of a token that this broker made and that is not over.

        Args:
            store_id: of the store as it is now; None: of any.

        Raises:
            Refusal: it is another's, changed, or expired.
        """
        try:
            known = self._good.get(token) or self._remember(
                token, verify_token(token, key=self._key.public_key(), what="token")
            )
        except ImagersError as error:
            raise Refusal("TokenVerifierError", str(error)) from None
        issued, expires, guest = known
        # No leeway: the same clock made it.
        if now.timestamp() >= expires:
            raise Refusal("TokenVerifierError", "the token has expired")
        # Made while the clock was far ahead: it would be good for as long.
        if issued > (now + MAX_CLOCK_ERROR).timestamp():
            raise Refusal("TokenVerifierError", "the token is from the future")
        if store_id is not None and guest.claims.get(_STORE) != _store_name(store_id):
            # It may have ended, by the time that was before.
            raise Refusal("TokenVerifierError", "the token is from before the time began again")
        return guest

    def _remember(self, token: str, payload: View) -> tuple[int, int, AttestedGuest]:
        """What a token says that is known to be good."""
        said = payload.integer("iat"), payload.integer("exp"), _guest_of(payload)
        self._good[token] = said
        if len(self._good) > _REMEMBERED:
            self._good.popitem(last=False)
        return said


def _store_name(store_id: bytes) -> str:
    return sha256(store_id).hexdigest()[:_STORE_DIGITS]


def _submod(
    judged: Judged, report_data: ReportData, runtime: JSONObject, init_data: JSONObject | None
) -> JSONObject:
    claims = judged.claims
    evidence: JSONObject = {
        claims.tee: _told(claims.values),
        "report_data": encode_base64(report_data.digest),
        "init_data": claims.init_data,
        "runtime_data_claims": runtime,
    }
    if init_data is not None:
        evidence["init_data_claims"] = init_data
    return {
        "ear.status": judged.appraisal.status,
        "ear.trustworthiness-vector": dict(judged.appraisal.vector),
        "ear.appraisal-policy-id": "default",
        EVIDENCE: evidence,
        _CLAIMS: claims_to_json(claims),
        _JUDGE: judged.judge,
    }


def _told(values: Mapping[str, JSON]) -> JSONObject:
    """The claims by Trustee's names, and of the event log what an agent measured.

    An event counts whose data its digest binds. Of too many there are none: a policy that asks for
    what it does not see says no.
    """
    told = {name: value for name, value in values.items() if name != _LOG}
    log = values.get(_LOG)
    events: list[JSON] = []
    for one in log if isinstance(log, list) else []:
        details = one.get("details") if isinstance(one, dict) else None
        if (
            isinstance(one, dict)
            and one.get("digest_matches_event") is True
            and isinstance(details, dict)
            and details.get("unicode_name") == "AAEL"
        ):
            data: JSONObject = {"unicode_name": "AAEL", "data": details.get("data")}
            events.append({name: one[name] for name in one if name != "event"} | {"details": data})
    if events and len(dump_json(events)) <= _MAX_EVENTS:
        told[_LOG] = events
    return told


def _guest_of(payload: View) -> AttestedGuest:
    submods = payload.object("submods")
    guest = submods.object(_GUEST)
    runtime_data = guest.object(EVIDENCE).object("runtime_data_claims")
    names = (_GUEST, *(name for name in submods.value if name != _GUEST))
    return AttestedGuest(
        parse_public_key(runtime_data.object("tee-pubkey")),
        tuple(_accepted(name, submods.object(name)) for name in names),
        payload.value,
    )


def _accepted(name: str, submod: View) -> Accepted:
    return Accepted(claims_from_json(submod.object(_CLAIMS)), submod.text(_JUDGE), (name,))
