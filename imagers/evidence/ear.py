# SPDX-License-Identifier: Apache-2.0
"""Attestation results of other verifiers (EAR): tokens of Trustee, OpenAnolis and Veraison.

    trust = EARTrust(keys=(key,), issuer="CoCo-Attestation-Service")
    result = read_ear(token, trust=trust, nonce=nonce, now=now)
    result.status, result.submods["cpu0"].vector

1. *Form.* A compact JWT, ES256 or ES384, without critical members in its header.
2. *Key.* One that the caller gave; or that of the certificate in `x5c` where its chain leads to a
   root that the caller gave, valid now, and where a `jwk` around it is the same key. What a token
   says of its key beside that (`jwk`, `jku`, `x5u`, `kid`) is never a reason to believe it.
3. *Signature*, by the key's one algorithm.
4. *Time.* Not expired, not from the future; one without an end counts for five minutes.
5. *For us.* The issuer is the one that is wanted, and the audience; a token for an audience is
   refused by who is none.
6. *Nonce.* The one nonce in it is the one that was asked with, compared in constant time.
7. *Results.* Each submodule has a status that is not better than its trust vector.

What a verifier found is his word: that the machine is one's own is not in it, unless he was told
what is.

No IO and no clock here.

Spec: draft-ietf-rats-ear-00, draft-ietf-rats-ar4si-09; RFC 7519 section 4.1; RFC 9711, eat_nonce.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from imagers.errors import EvidenceRejected, FormatError, SignatureInvalid, Unsupported
from imagers.evidence.appraise import AFFIRMING, tier_of
from imagers.evidence.steps import mismatch, step
from imagers.model.base64 import decode_base64url
from imagers.model.strict_json import View
from imagers.pki.algorithms import algorithm_of
from imagers.pki.chain import MAX_CERTIFICATES, check_chain, load_certificate
from imagers.pki.jose import JWS, MAX_TOKEN_BYTES, parse_token
from imagers.pki.jwk import is_private_jwk, jwk_public_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

    from imagers.model.strict_json import JSONObject

__all__ = [
    "EAR",
    "MAX_EAR",
    "TRUSTEE_PROFILE",
    "VERAISON_PROFILE",
    "EARTrust",
    "Submod",
    "parse_keys",
    "read_ear",
]

MAX_EAR = MAX_TOKEN_BYTES
"""In bytes."""
_WHAT = "attestation result"
_ALGORITHMS = ("ES256", "ES384")
TRUSTEE_PROFILE = "tag:github.com,2024:confidential-containers/Trustee"
VERAISON_PROFILE = "tag:github.com,2023:veraison/ear"
_PROFILES = (TRUSTEE_PROFILE, VERAISON_PROFILE)
_LEEWAY = timedelta(seconds=60)  # between clocks
_WITHOUT_END = timedelta(minutes=5)  # as long as Trustee's, of Veraison's that have no end
_MAX_SUBMODS = 64
_MAX_KEYS = 256 * 1024
_MEMBERS = frozenset(
    {
        "instance-identity", "configuration", "executables", "file-system", "hardware",
        "runtime-opaque", "storage-opaque", "sourced-data",
    }
)  # fmt: skip
_TO_URL = str.maketrans("+/", "-_")
_STATUSES = {"none": 0, "affirming": 2, "warning": 32, "contraindicated": 96}


@dataclass(frozen=True, slots=True)
class EARTrust:
    """Whose results are believed, and for whom they are.

    Attributes:
        keys: public keys of verifiers.
        roots: certificates that lead to those of verifiers.
        issuer: None: whoever has such a key.
        audience: None: only results for nobody in particular.
    """

    keys: tuple[object, ...] = ()
    roots: tuple[x509.Certificate, ...] = ()
    issuer: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class Submod:
    """What was found of one part of a machine.

    Attributes:
        status: `none`, `affirming`, `warning` or `contraindicated`.
        vector: members that were looked at.
        policy: by which it was judged, as the verifier calls it.
        evidence: what the verifier says that the evidence says; empty where nothing.
    """

    status: str
    vector: Mapping[str, int]
    policy: str
    evidence: JSONObject = field(repr=False)


@dataclass(frozen=True, slots=True)
class EAR:
    """A result that was believed.

    Attributes:
        verifier: developer and build, in its own words.
        expires: from then on it counts no more.
        claims: all that stands in it.
    """

    profile: str
    issuer: str
    verifier: str
    issued_at: datetime
    expires: datetime
    submods: Mapping[str, Submod]
    claims: View = field(repr=False)

    @property
    def status(self) -> str:
        """Of the worst part."""
        return max((one.status for one in self.submods.values()), key=_rank)


def read_ear(token: str, *, trust: EARTrust, nonce: bytes | None, now: datetime) -> EAR:
    """The result in a token, if every step holds.

    Args:
        nonce: that was asked with; None: whatever is there.
        now: aware.

    Raises:
        EvidenceRejected: a step says no.
        FormatError: it is no such token.
    """
    message = parse_token(token, what=_WHAT)
    with step("1, form"):
        told = message.header.text("alg")
        if told not in _ALGORITHMS:
            raise mismatch("algorithm", " or ".join(_ALGORITHMS), told[:40])
        if "crit" in message.header:
            raise EvidenceRejected("it has critical members in its header, which nobody knows")
    with step("2, key"):
        candidates = _keys(message.header, told, trust, now)
    with step("3, signature"):
        _check_signature(message, candidates)
    claims = View.parse(message.payload, what=_WHAT, max_bytes=MAX_EAR)
    with step("4, time"):
        issued, expires = _check_times(claims, now)
    with step("5, for us"):
        issuer = _check_parties(claims, trust)
    with step("6, nonce"):
        _check_nonce(claims, nonce)
    profile = claims.text("eat_profile")
    if profile not in _PROFILES:
        expected = " or ".join(map(repr, _PROFILES))
        raise claims.error(f"expected {expected}, got {profile[:80]!r}", "eat_profile")
    with step("7, results"):
        submods = _submods(claims.object("submods"))
    verifier = claims.object("ear.verifier-id")
    return EAR(
        profile=profile,
        issuer=issuer,
        verifier=f"{verifier.text('developer')[:200]} {verifier.text('build')[:200]}",
        issued_at=issued,
        expires=expires,
        submods=submods,
        claims=claims,
    )


def parse_keys(data: bytes, *, what: str) -> tuple[object, ...]:
    """The public keys of a verifier: PEM, a JWK, a list of them (JWKS), or Veraison's discovery.

    Raises:
        FormatError: it is none of these, or has a private key.
        Unsupported: a key of another kind than RSA or EC.
    """
    if data.lstrip()[:1] != b"{":
        try:
            return (load_pem_public_key(data),)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FormatError("expected a public key in PEM, or a JWK", what=what) from error
    view = View.parse(data, what=what, max_bytes=_MAX_KEYS)
    if "ear-verification-key" in view:
        found: Sequence[View] = [view.object("ear-verification-key")]
    elif "keys" in view:
        found = view.objects("keys", most=64, non_empty=True)
    else:
        found = [view]
    if any(map(is_private_jwk, found)):
        raise view.error("expected a public key, got a private one")
    if "keys" in view:
        # RFC 7517 section 5: a set may have keys of other kinds, and for other uses.
        found = [one for one in found if one.value.get("kty") in ("RSA", "EC") and _signs(one)]
        if not found:
            raise view.error("expected a key of RSA or EC that signs", "keys")
    return tuple(map(jwk_public_key, found))


def _signs(key: View) -> bool:
    return key.value.get("use") in (None, "sig")


def _keys(header: View, algorithm: str, trust: EARTrust, now: datetime) -> tuple[object, ...]:
    """Step 2: the keys that may have signed; which of them did, the signature says."""
    given = tuple(key for key in trust.keys if _algorithm(key) == algorithm)
    jwk = header.optional_object("jwk")
    holder = header if "x5c" in header else jwk
    if trust.roots and holder is not None and "x5c" in holder:
        leaf, *others = _certificates(holder)
        try:
            check_chain(leaf, others, trust.roots, at=now, purpose=None, what="certificate")
        except SignatureInvalid as error:
            if not given:
                raise EvidenceRejected(str(error)) from error
        else:
            key = leaf.public_key()
            if jwk is not None and not _is_same(jwk, key):
                raise EvidenceRejected("the key in its header is not that of its certificate")
            given = (*given, key)
    if not given:
        raise EvidenceRejected("it is of nobody whose key or root was given")
    return given


def _is_same(jwk: View, key: object) -> bool:
    try:
        return bool(jwk_public_key(jwk) == key)
    except Unsupported:
        return False


def _algorithm(key: object) -> str:
    try:
        return algorithm_of(key).jws
    except Unsupported:
        return ""


def _certificates(holder: View) -> list[x509.Certificate]:
    """Of `x5c`, leaf first."""
    found = []
    for index, text in enumerate(holder.texts("x5c", non_empty=True, most=MAX_CERTIFICATES)):
        where = f"{holder.at('x5c')}[{index}]"
        der = _loose_base64(text, what=holder.what, where=where)
        found.append(load_certificate(der, what=f"{holder.what} at {where}"))
    return found


def _loose_base64(text: str, *, what: str, where: str) -> bytes:
    """The bytes of base64 in either alphabet, with its padding or without."""
    plain = text.rstrip("=") if len(text) % 4 == 0 else text
    return decode_base64url(plain.translate(_TO_URL), what=what, where=where)


def _check_signature(message: JWS, candidates: tuple[object, ...]) -> None:
    """Step 3."""
    for key in candidates:
        try:
            message.check_signature(key)
        except SignatureInvalid:
            continue
        return
    raise EvidenceRejected("it is not signed with any key that was given, or was changed")


def _check_times(claims: View, now: datetime) -> tuple[datetime, datetime]:
    """Step 4: since when, and until when."""
    issued = _time(claims, "iat")
    begins = _time(claims, "nbf") if "nbf" in claims else issued
    for name, found in (("issued", issued), ("valid from", begins)):
        if found > now + _LEEWAY:
            raise mismatch(name, f"at most {now:%Y-%m-%dT%H:%M:%SZ}", f"{found:%Y-%m-%dT%H:%M:%SZ}")
    expires = _time(claims, "exp") if "exp" in claims else issued + _WITHOUT_END
    if expires <= now - _LEEWAY:
        raise mismatch("end", f"after {now:%Y-%m-%dT%H:%M:%SZ}", f"{expires:%Y-%m-%dT%H:%M:%SZ}")
    return issued, expires


def _time(claims: View, name: str) -> datetime:
    return datetime.fromtimestamp(claims.integer(name, maximum=253402300799), UTC)


def _check_parties(claims: View, trust: EARTrust) -> str:
    """Step 5: the issuer."""
    issuer = claims.optional_text("iss") or ""
    if trust.issuer is not None and issuer != trust.issuer:
        raise mismatch("issuer", repr(trust.issuer), repr(issuer[:200]))
    is_one = isinstance(claims.value.get("aud"), str)
    audience = (claims.text("aud"),) if is_one else claims.texts("aud", most=64, null_is_empty=True)
    if (trust.audience is None and audience) or (
        trust.audience is not None and trust.audience not in audience
    ):
        expected = "none" if trust.audience is None else repr(trust.audience)
        raise mismatch("audience", expected, ", ".join(one[:80] for one in audience) or "none")
    return issuer


def _check_nonce(claims: View, nonce: bytes | None) -> None:
    """Step 6. Some verifiers write it with padding, and some without."""
    if nonce is None:
        return
    is_one = isinstance(claims.value.get("eat_nonce"), str)
    found = (
        (claims.text("eat_nonce"),)
        if is_one
        else claims.texts("eat_nonce", most=64, null_is_empty=True)
    )
    if len(found) != 1:
        raise mismatch("nonces", "one", len(found))
    said = _loose_base64(found[0], what=_WHAT, where=claims.at("eat_nonce"))
    if not compare_digest(said, nonce):
        raise EvidenceRejected("the nonce is not the one that was asked with", claim="nonce")


def _submods(view: View) -> dict[str, Submod]:
    """Step 7."""
    if not 1 <= len(view.value) <= _MAX_SUBMODS:
        raise view.error(f"expected 1 to {_MAX_SUBMODS} submodules")
    return {name: _submod(view.object(name)) for name in view.value}


def _submod(view: View) -> Submod:
    told = view.value.get("ear.status")
    # A number stands for the tier that begins with it.
    words = {word: word for word in _STATUSES} | {one: word for word, one in _STATUSES.items()}
    if isinstance(told, bool) or not isinstance(told, str | int) or told not in words:
        raise view.error(f"expected one of {', '.join(_STATUSES)}", "ear.status")
    status = words[told]
    vector: dict[str, int] = {}
    if "ear.trustworthiness-vector" in view:
        members = view.object("ear.trustworthiness-vector")
        members.only(*sorted(_MEMBERS))
        vector = {name: members.integer(name, minimum=-128, maximum=127) for name in members.value}
    worst = max(
        (tier_of(value) for value in vector.values()), key=_STATUSES.__getitem__, default="none"
    )
    # What was not looked at (none) lowers no status.
    if _STATUSES[status] < _STATUSES[worst] and worst != AFFIRMING:
        raise mismatch(f"status of {view.where}", f"{worst}, by its trust vector", status)
    evidence = view.object("ear.veraison.annotated-evidence", null_is_empty=True)
    policy = view.optional_text("ear.appraisal-policy-id") or ""
    return Submod(status, vector, policy, evidence.value)


def _rank(status: str) -> int:
    """How bad it is: that nothing is known is worse than good, and no warning."""
    return ("affirming", "none", "warning", "contraindicated").index(status)
