"""Signature envelopes: flattened JWS and COSE_Sign1, read into one value.

    envelope = parse_envelope(raw, "application/jose+json")
    envelope.check_integrity()          # the leaf's key verifies it; nobody is trusted by this

The leaf's key decides the algorithm, and the envelope has to name that one:

| key                  | JWS                 | COSE          |
|----------------------|---------------------|---------------|
| RSA 2048, 3072, 4096 | PS256, PS384, PS512 | -37, -38, -39 |
| EC P-256, P-384, P-521 | ES256, ES384, ES512 | -7, -35, -36 |

Spec: notaryproject specifications v1.1, signature-specification.md, signature-envelope-jws.md,
signature-envelope-cose.md; RFC 7515; RFC 9052 section 4.2.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.model.strict_json import JSON, JSONObject, get_object, get_str, parse_object
from imagers.pki.chain import MAX_CERTIFICATES, load_certificate

if TYPE_CHECKING:
    from cryptography import x509

__all__ = [
    "COSE_TYPE",
    "JWS_TYPE",
    "PAYLOAD_TYPE",
    "SCHEME_AUTHORITY",
    "SCHEME_X509",
    "Algorithm",
    "Envelope",
    "algorithm_of",
    "cose_to_be_signed",
    "parse_envelope",
]

JWS_TYPE = "application/jose+json"
COSE_TYPE = "application/cose"
PAYLOAD_TYPE = "application/vnd.cncf.notary.payload.v1+json"
SCHEME_X509 = "notary.x509"
SCHEME_AUTHORITY = "notary.x509.signingAuthority"
PREFIX = "io.cncf.notary."
_MAX_BYTES = 1024 * 1024
_WHAT = "notation envelope"
_COSE_SIGN1 = 18  # the CBOR tag
_COSE_ALG, _COSE_CRIT, _COSE_TYPE, _COSE_CHAIN = 1, 2, 3, 33  # labels of headers
_KNOWN = frozenset({"signingScheme", "signingTime", "expiry", "authenticSigningTime"})
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,18}(?:Z|[+-][0-9]{2}:[0-9]{2})\Z")


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A signature algorithm: its name in JWS, its number in COSE, its hash."""

    jws: str
    cose: int
    hash: hashes.HashAlgorithm


_RSA = {
    2048: Algorithm("PS256", -37, hashes.SHA256()),
    3072: Algorithm("PS384", -38, hashes.SHA384()),
    4096: Algorithm("PS512", -39, hashes.SHA512()),
}
_EC = {
    256: Algorithm("ES256", -7, hashes.SHA256()),
    384: Algorithm("ES384", -35, hashes.SHA384()),
    521: Algorithm("ES512", -36, hashes.SHA512()),
}


def algorithm_of(key: object) -> Algorithm:
    """The one algorithm of a key.

    Raises:
        Unsupported: there is none for this kind and size.
    """
    found: Algorithm | None = None
    if isinstance(key, rsa.RSAPublicKey):
        found = _RSA.get(key.key_size)
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name.startswith("secp"):
        found = _EC.get(key.curve.key_size) if key.curve.name.endswith("r1") else None
    if found is None:
        raise Unsupported(
            "expected an RSA key of 2048, 3072 or 4096 bits, or an EC key on P-256, P-384 or P-521"
        )
    return found


@dataclass(frozen=True, slots=True)
class Envelope:
    """One parsed envelope. Nothing of it is verified.

    Attributes:
        payload: what was signed; read it after the check.
        to_be_signed: the bytes that the signature is over.
        algorithm: as the envelope names it: text of JWS, number of COSE.
        chain: leaf first.
        scheme: of signing, one of the two that there are.
        signing_time: by the signer's clock.
        expiry: None for never.
        authentic_time: by a signing authority; only with its scheme.
        stamp: time stamp over the signature; None without.
    """

    payload: bytes
    to_be_signed: bytes
    signature: bytes
    algorithm: str | int
    chain: tuple[x509.Certificate, ...]
    scheme: str
    signing_time: datetime | None
    expiry: datetime | None
    authentic_time: datetime | None
    stamp: bytes | None

    def check_integrity(self) -> None:
        """Nothing, if the leaf's key made the signature over exactly these bytes.

        Raises:
            SignatureInvalid: it did not.
        """
        try:
            key = self.chain[0].public_key()
            algorithm = algorithm_of(key)
        except (Unsupported, UnsupportedAlgorithm, ValueError) as error:
            raise SignatureInvalid(f"the certificate's key: {error}") from error
        if self.algorithm not in (algorithm.jws, algorithm.cose):
            raise SignatureInvalid(
                f"expected algorithm {algorithm.jws} for the certificate's key, "
                f"got '{str(self.algorithm)[:40]}'"
            )
        try:
            if isinstance(key, rsa.RSAPublicKey):
                pss = padding.PSS(padding.MGF1(algorithm.hash), padding.PSS.DIGEST_LENGTH)
                key.verify(self.signature, self.to_be_signed, pss, algorithm.hash)
            else:
                assert isinstance(key, ec.EllipticCurvePublicKey)
                size = (key.curve.key_size + 7) // 8
                if len(self.signature) != 2 * size:
                    raise SignatureInvalid(
                        f"expected a signature of {2 * size} bytes, got {len(self.signature)}"
                    )
                halves = (self.signature[:size], self.signature[size:])
                der = encode_dss_signature(*(int.from_bytes(one, "big") for one in halves))
                key.verify(der, self.to_be_signed, ec.ECDSA(algorithm.hash))
        except InvalidSignature:
            raise SignatureInvalid(
                "the signature does not fit its content and its certificate"
            ) from None


def parse_envelope(raw: bytes, media_type: str) -> Envelope:
    """The envelope in `raw`.

    Raises:
        FormatError: it is none, or something critical in it is not understood.
        Unsupported: another kind of envelope.
    """
    if len(raw) > _MAX_BYTES:
        raise FormatError(f"expected at most {_MAX_BYTES} bytes, got {len(raw)}", what=_WHAT)
    if media_type == JWS_TYPE:
        return _parse_jws(raw)
    if media_type == COSE_TYPE:
        return _parse_cose(raw)
    raise Unsupported(f"expected an envelope {JWS_TYPE} or {COSE_TYPE}, got {media_type[:80]!r}")


def _parse_jws(raw: bytes) -> Envelope:
    document = parse_object(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    if set(document) != {"payload", "protected", "header", "signature"}:
        raise FormatError("expected exactly payload, protected, header, signature", what=_WHAT)
    texts = {
        name: get_str(document, name, what=_WHAT) for name in ("payload", "protected", "signature")
    }
    parts = {name: _base64url(text, f"$.{name}") for name, text in texts.items()}
    protected = parse_object(parts["protected"], what=_WHAT, max_bytes=_MAX_BYTES)
    header = get_object(document, "header", what=_WHAT)
    chain = header.get("x5c")
    if not isinstance(chain, list):
        raise FormatError("expected a list", what=_WHAT, where="$.header.x5c")
    stamp = header.get(f"{PREFIX}timestampSignature")
    content_type = get_str(protected, "cty", what=_WHAT, where="$.protected")
    crit = protected.get("crit")
    attributes = {
        name: value for name, value in protected.items() if name not in ("alg", "cty", "crit")
    }
    return _make(
        payload=parts["payload"],
        to_be_signed=f"{texts['protected']}.{texts['payload']}".encode("ascii"),
        signature=parts["signature"],
        algorithm=get_str(protected, "alg", what=_WHAT, where="$.protected"),
        chain=[_base64(one, "$.header.x5c") for one in chain],
        content_type=content_type,
        crit=crit,
        attributes=attributes,
        stamp=None if stamp is None else _base64(stamp, "$.header"),
        time=_json_time,
    )


def _parse_cose(raw: bytes) -> Envelope:
    import cbor2

    try:
        message = cbor2.loads(raw)
        tag = message.tag
        protected_raw, header, payload, signature = message.value
        protected = cbor2.loads(protected_raw)
    except Exception as error:  # the library raises many kinds for bad bytes
        raise FormatError("is not COSE", what=_WHAT) from error
    if tag != _COSE_SIGN1:
        raise FormatError("expected a tagged COSE_Sign1", what=_WHAT)
    if not (
        isinstance(protected_raw, bytes)
        and isinstance(payload, bytes)
        and isinstance(signature, bytes)
        and _is_map(protected)
        and _is_map(header)
    ):
        raise FormatError("is not a COSE_Sign1 with an attached payload", what=_WHAT)
    chain = header.get(_COSE_CHAIN)
    if isinstance(chain, bytes):  # RFC 9360: one certificate needs no array
        chain = [chain]
    if not isinstance(chain, list | tuple) or not all(isinstance(one, bytes) for one in chain):
        raise FormatError("expected certificates in label 33", what=_WHAT)
    stamp = header.get(f"{PREFIX}timestampSignature")
    if stamp is not None and not isinstance(stamp, bytes):
        raise FormatError("expected bytes in timestampSignature", what=_WHAT)
    algorithm = protected.get(_COSE_ALG)
    if not isinstance(algorithm, int) or isinstance(algorithm, bool):
        raise FormatError("expected a number as algorithm", what=_WHAT)
    crit = protected.get(_COSE_CRIT)
    known = (_COSE_ALG, _COSE_CRIT, _COSE_TYPE)
    return _make(
        payload=payload,
        to_be_signed=cose_to_be_signed(protected_raw, payload),
        signature=signature,
        algorithm=algorithm,
        chain=list(chain),
        content_type=protected.get(_COSE_TYPE),
        crit=list(crit) if isinstance(crit, list | tuple) else None,
        attributes={str(k): v for k, v in protected.items() if k not in known},
        stamp=stamp,
        time=_cbor_time,
    )


def _is_map(value: object) -> bool:
    # A map inside of a tag comes as an immutable one.
    return isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value)


def cose_to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052, section 4.4."""
    import cbor2

    return bytes(cbor2.dumps(["Signature1", protected, b"", payload]))


def _make(
    *,
    payload: bytes,
    to_be_signed: bytes,
    signature: bytes,
    algorithm: str | int,
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
        payload=payload,
        to_be_signed=to_be_signed,
        signature=signature,
        algorithm=algorithm,
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


def _base64url(text: str, where: str) -> bytes:
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise FormatError("expected base64url without padding", what=_WHAT, where=where)
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _base64(value: JSON, where: str) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "!", validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("expected base64", what=_WHAT, where=where) from None


def _json_time(value: JSON, name: str) -> datetime:
    try:
        if isinstance(value, str) and _TIME.match(value):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise FormatError("expected a time of RFC 3339", what=_WHAT, where=f"$.protected.{name}")


def _cbor_time(value: object, name: str) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
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
