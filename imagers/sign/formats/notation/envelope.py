# SPDX-License-Identifier: Apache-2.0
"""Signature envelopes: flattened JWS and COSE_Sign1, read into one value.

    envelope = parse_envelope(raw, "application/jose+json")
    envelope.check_integrity()          # the leaf's key verifies it; nobody is trusted by this

The leaf's key decides the algorithm, and the envelope has to name that one; it is an RSA or an
EC key (`imagers.pki.algorithms`).

Spec: notaryproject specifications v1.1, signature-specification.md, signature-envelope-jws.md,
signature-envelope-cose.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.model.strict_cbor import Tag
from imagers.model.strict_json import View
from imagers.pki.chain import MAX_CERTIFICATES, load_certificate
from imagers.pki.cose import ALG, CONTENT_TYPE, CRIT, Sign1, parse_sign1
from imagers.pki.jose import JWS, parse_jws, x5c_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from imagers.model.strict_cbor import CBOR
    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "COSE_TYPE",
    "JWS_TYPE",
    "PAYLOAD_TYPE",
    "SCHEME_AUTHORITY",
    "SCHEME_X509",
    "Envelope",
    "parse_envelope",
]

JWS_TYPE = "application/jose+json"
COSE_TYPE = "application/cose"
PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
SCHEME_X509 = "notary.x509"
SCHEME_AUTHORITY = "notary.x509.signingAuthority"
PREFIX = "io.cncf.notary."
_STAMP = f"{PREFIX}timestampSignature"
_MAX_BYTES = 1024 * 1024
_WHAT = "notation envelope"
_KNOWN = frozenset({"signingScheme", "signingTime", "expiry", "authenticSigningTime"})
_TIME_TAG = 1  # seconds since 1970; notation has whole ones
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9]{2}:[0-9]{2})\Z")


@dataclass(frozen=True, slots=True)
class Envelope:
    """One parsed envelope. Nothing of it is verified.

    Attributes:
        message: the envelope in its own form.
        chain: leaf first.
        scheme: of signing, one of the two that there are.
        signing_time: by the signer's clock.
        expiry: None for never.
        authentic_time: by a signing authority; only with its scheme.
        stamp: time stamp over the signature; None without.
    """

    message: JWS | Sign1
    chain: tuple[x509.Certificate, ...]
    scheme: str
    signing_time: datetime | None
    expiry: datetime | None
    authentic_time: datetime | None
    stamp: bytes | None

    @property
    def payload(self) -> bytes:
        """What was signed; read it after the check."""
        return self.message.payload

    @property
    def signature(self) -> bytes:
        """What a time stamp is over."""
        return self.message.signature

    def check_integrity(self) -> None:
        """Raise unless the leaf's key made the signature over exactly these bytes.

        Raises:
            SignatureInvalid: it did not.
        """
        try:
            key = self.chain[0].public_key()
        except (UnsupportedAlgorithm, ValueError) as error:
            raise SignatureInvalid(f"the certificate's key: {error}") from error
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise SignatureInvalid("the certificate's key: expected an RSA or an EC key")
        self.message.check_signature(key)


def parse_envelope(raw: bytes, media_type: str) -> Envelope:
    """The envelope in `raw`.

    Raises:
        FormatError: it is none, or something critical in it is not understood.
        Unsupported: another kind of envelope.
    """
    if media_type == JWS_TYPE:
        return _parse_jws(raw)
    if media_type == COSE_TYPE:
        return _parse_cose(raw)
    raise Unsupported(f"expected an envelope {JWS_TYPE} or {COSE_TYPE}, got {media_type[:80]!r}")


def _parse_jws(raw: bytes) -> Envelope:
    document = View.parse(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    document.exactly("payload", "protected", "header", "signature")
    message = parse_jws(document)
    header = document.object("header")
    message.header.text("alg")
    attributes = message.header.value
    return _make(
        message,
        chain=x5c_of(header),
        content_type=message.header.text("cty"),
        crit=attributes.get("crit"),
        attributes=attributes,
        stamp=header.bytes64(_STAMP) if header.value.get(_STAMP) is not None else None,
        time=_json_time,
    )


def _parse_cose(raw: bytes) -> Envelope:
    message = parse_sign1(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    stamp = message.unprotected.get(_STAMP)
    if stamp is not None and not isinstance(stamp, bytes):
        raise FormatError("expected bytes in timestampSignature", what=_WHAT)
    algorithm = message.protected.get(ALG)
    if not isinstance(algorithm, int) or isinstance(algorithm, bool):
        raise FormatError("expected a number as algorithm", what=_WHAT)
    crit = message.protected.get(CRIT)
    return _make(
        message,
        chain=message.certificates(),
        content_type=message.protected.get(CONTENT_TYPE),
        crit=list(crit) if isinstance(crit, tuple) else None,
        attributes={str(name): value for name, value in message.protected.items()},
        stamp=stamp,
        time=_cbor_time,
    )


def _make(
    message: JWS | Sign1,
    *,
    chain: list[bytes],
    content_type: object,
    crit: object,
    attributes: Mapping[str, Any],
    stamp: bytes | None,
    time: Any,
) -> Envelope:
    if content_type != PAYLOAD_TYPE:
        raise FormatError(
            f"expected content of type {PAYLOAD_TYPE!r}, got {str(content_type)[:80]!r}", what=_WHAT
        )
    names = _critical(crit)
    scheme = attributes.get(f"{PREFIX}signingScheme")
    if scheme not in (SCHEME_X509, SCHEME_AUTHORITY):
        raise FormatError(f"has the unknown signing scheme {str(scheme)[:80]!r}", what=_WHAT)
    times = {
        name: time(attributes[f"{PREFIX}{name}"], name)
        for name in ("signingTime", "expiry", "authenticSigningTime")
        if f"{PREFIX}{name}" in attributes
    }
    # What decides has to be critical, so that no reader passes over it.
    must = {"signingScheme", *({"expiry", "authenticSigningTime"} & set(times))}
    if not must <= names:
        raise FormatError(f"expected {', '.join(sorted(must))} to be critical", what=_WHAT)
    if ("authenticSigningTime" in times) != (scheme == SCHEME_AUTHORITY):
        raise FormatError("expected authenticSigningTime exactly with an authority", what=_WHAT)
    if not 1 <= len(chain) <= MAX_CERTIFICATES:
        raise FormatError(f"expected 1 to {MAX_CERTIFICATES} certificates", what=_WHAT)
    return Envelope(
        message=message,
        chain=tuple(load_certificate(one, what=_WHAT) for one in chain),
        scheme=str(scheme),
        signing_time=times.get("signingTime"),
        expiry=times.get("expiry"),
        authentic_time=times.get("authenticSigningTime"),
        stamp=stamp,
    )


def _critical(crit: object) -> set[str]:
    """Which attributes are critical, without their prefix; all must be known."""
    if not isinstance(crit, list) or not crit or not all(isinstance(one, str) for one in crit):
        raise FormatError("expected a list of critical attributes", what=_WHAT)
    for one in crit:
        if not one.startswith(PREFIX) or one.removeprefix(PREFIX) not in _KNOWN:
            raise FormatError(
                f"has the critical attribute {one[:80]!r}, which is not understood", what=_WHAT
            )
    return {one.removeprefix(PREFIX) for one in crit}


def _json_time(value: JSON, name: str) -> datetime:
    try:
        if isinstance(value, str) and _TIME.match(value):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise FormatError("expected a time of RFC 3339", what=_WHAT, where=f"$.protected.{name}")


def _cbor_time(value: CBOR, name: str) -> datetime:
    if isinstance(value, Tag) and value.number == _TIME_TAG and type(value.value) is int:
        try:
            return datetime.fromtimestamp(value.value, UTC)
        except (ValueError, OverflowError, OSError):  # a year that has no name
            pass
    raise FormatError("expected a time of CBOR tag 1", what=_WHAT, where=name)


def attributes_json(
    scheme: str, signing_time: datetime, expiry: datetime | None
) -> tuple[list[str], JSONObject]:
    """Names of the critical attributes, and all signed attributes as JSON has them."""
    crit = [f"{PREFIX}signingScheme"]
    attributes: JSONObject = {
        f"{PREFIX}signingScheme": scheme,
        f"{PREFIX}signingTime": f"{signing_time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    if expiry is not None:
        crit.append(f"{PREFIX}expiry")
        attributes[f"{PREFIX}expiry"] = f"{expiry.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return crit, attributes
