"""Entries of the transparency log Rekor, verified offline by the log's key.

    entry = parse_bundle(annotation)                   # the annotation of cosign 2
    check_entry(entry, keys, what="signature 1 of 1")  # the log's promise
    check_hashedrekord(entry, payload=..., signature=..., signer=...)

The log's promise (signed entry timestamp) is an ECDSA signature over the RFC 8785 form of
`{"body","integratedTime","logID","logIndex"}`. It says that the log has seen the body at that
time; the body then has to be about this payload, this signature and this key or certificate,
or it is somebody else's entry.

Spec: cosign SIGNATURE_SPEC.md; rekor v1 openapi, hashedrekord v0.0.1, dsse v0.0.1;
containers/image df7e80d2, signature/internal/rekor_set.go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imagers.errors import FormatError, SignatureInvalid
from imagers.model.strict_json import (
    JSON,
    JSONObject,
    get_int,
    get_list,
    get_object,
    get_str,
    parse_object,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.sign.public_key import PublicKey

__all__ = ["LogEntry", "check_dsse", "check_entry", "check_hashedrekord", "parse_bundle"]

_MAX_BYTES = 256 * 1024
_MAX_TIME = 253402300799  # the last second of the year 9999
_WHAT = "log entry"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What a log is said to have promised. Nothing is verified by being in this type.

    Attributes:
        body: base64 as it was signed.
        integrated_time: seconds since 1970.
        log_id: hex SHA-256 of the log's key.
        promise: the signature of the log.
    """

    body: str
    integrated_time: int
    log_index: int
    log_id: str
    promise: bytes

    @property
    def time(self) -> datetime:
        """When the log has seen it."""
        return datetime.fromtimestamp(self.integrated_time, UTC)


def parse_bundle(text: str) -> LogEntry:
    """The entry in the annotation `dev.sigstore.cosign/bundle`.

    Raises:
        FormatError: not exactly such a document.
    """
    document = parse_object(text.encode("utf-8", "surrogatepass"), what=_WHAT, max_bytes=_MAX_BYTES)
    _exactly(document, ("SignedEntryTimestamp", "Payload"), "$")
    payload = get_object(document, "Payload", what=_WHAT)
    _exactly(payload, ("body", "integratedTime", "logIndex", "logID"), "$.Payload")
    where = "$.Payload"
    return LogEntry(
        body=get_str(payload, "body", what=_WHAT, where=where),
        integrated_time=get_int(
            payload, "integratedTime", what=_WHAT, where=where, maximum=_MAX_TIME
        ),
        log_index=get_int(payload, "logIndex", what=_WHAT, where=where),
        log_id=get_str(payload, "logID", what=_WHAT, where=where),
        promise=decode(document, "SignedEntryTimestamp", "$"),
    )


def decode(document: JSONObject, member: str, where: str) -> bytes:
    """A member of strict base64.

    Raises:
        FormatError: it is none.
    """
    text = get_str(document, member, what=_WHAT, where=where)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("expected base64", what=_WHAT, where=f"{where}.{member}") from None


def _exactly(document: JSONObject, members: tuple[str, ...], where: str) -> None:
    if set(document) != set(members):
        raise FormatError(f"expected exactly {', '.join(members)}", what=_WHAT, where=where)


def check_entry(entry: LogEntry, keys: Sequence[PublicKey], *, what: str) -> datetime:
    """The time at which one of the logs with `keys` has promised to have seen the entry.

    Raises:
        SignatureInvalid: none has.
    """
    import rfc8785

    try:
        signed = rfc8785.dumps(
            {
                "body": entry.body,
                "integratedTime": entry.integrated_time,
                "logIndex": entry.log_index,
                "logID": entry.log_id,
            }
        )
    except (rfc8785.CanonicalizationError, UnicodeError):
        raise SignatureInvalid(f"{what}: log entry: it has no canonical form") from None
    for key in keys:
        # The promise names its log: a key that fits by another name is a mistake somewhere.
        if key.fingerprint == entry.log_id and key.is_good(entry.promise, signed):
            return entry.time
    raise SignatureInvalid(
        f"{what}: log entry: no given log has promised it: expected log "
        + " or ".join(key.fingerprint for key in keys[:4])
        + f", got '{entry.log_id[:80]}'"
    )


def check_hashedrekord(
    entry: LogEntry, *, payload: bytes, signature: bytes, signer_der: bytes, what: str
) -> None:
    """Nothing, if the entry is about exactly this signature.

    Args:
        signer_der: DER of the public key (SubjectPublicKeyInfo) or of the certificate.

    Raises:
        SignatureInvalid: it is about something else.
    """
    try:
        spec = _spec(entry, "hashedrekord")
        data = get_object(spec, "data", what=_WHAT, where="$.spec")
        found = get_object(data, "hash", what=_WHAT, where="$.spec.data")
        digest = _sha256(found, "$.spec.data.hash")
        signed = get_object(spec, "signature", what=_WHAT, where="$.spec")
        content = decode(signed, "content", "$.spec.signature")
        key = get_object(signed, "publicKey", what=_WHAT, where="$.spec.signature")
        pem = decode(key, "content", "$.spec.signature.publicKey")
        der = _der_of(pem)
    except FormatError as error:
        raise SignatureInvalid(f"{what}: {error}") from error
    _compare("another payload", hashlib.sha256(payload).hexdigest(), digest, what)
    _compare("another signature", signature.hex(), content.hex(), what)
    _compare("another key or certificate", signer_der.hex(), der.hex(), what)


def check_dsse(
    entry: LogEntry, *, payload: bytes, signature: bytes, signer_der: bytes, what: str
) -> None:
    """The same for an entry of kind `dsse`, which logs a whole envelope.

    Args:
        payload: of the envelope, before the pre-authentication encoding.
        signature: of the one signature in the envelope.

    Raises:
        SignatureInvalid: it is about something else.
    """
    try:
        spec = _spec(entry, "dsse")
        hashed = get_object(spec, "payloadHash", what=_WHAT, where="$.spec")
        digest = _sha256(hashed, "$.spec.payloadHash")
        found = [
            (decode(one, "signature", "$.spec.signatures"), _der_of(decode(one, "verifier", "$")))
            for one in get_list(spec, "signatures", what=_WHAT, where="$.spec")
            if isinstance(one, dict)
        ]
    except FormatError as error:
        raise SignatureInvalid(f"{what}: {error}") from error
    _compare("another payload", hashlib.sha256(payload).hexdigest(), digest, what)
    if found != [(signature, signer_der)]:
        raise SignatureInvalid(f"{what}: log entry: it is for another signature or another key")


def _compare(noun: str, expected: str, actual: str, what: str) -> None:
    if expected != actual:
        raise SignatureInvalid(
            f"{what}: log entry: it is for {noun}: expected '{expected[:64]}', got '{actual[:64]}'"
        )


def _spec(entry: LogEntry, kind: str) -> JSONObject:
    try:
        raw = base64.b64decode(entry.body, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("expected base64", what=_WHAT, where="body") from None
    document = parse_object(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    told: tuple[JSON, JSON] = (document.get("kind"), document.get("apiVersion"))
    if told != (kind, "0.0.1"):
        raise FormatError(
            f"expected an entry of kind {kind} 0.0.1, got {str(told[0])[:40]!r} "
            f"{str(told[1])[:40]!r}",
            what=_WHAT,
        )
    return get_object(document, "spec", what=_WHAT)


def _sha256(found: JSONObject, where: str) -> str:
    algorithm = get_str(found, "algorithm", what=_WHAT, where=where)
    if algorithm != "sha256":
        raise FormatError(f"expected sha256, got {algorithm[:40]!r}", what=_WHAT, where=where)
    return get_str(found, "value", what=_WHAT, where=where)


def _der_of(pem: bytes) -> bytes:
    """The content of one PEM block; what is around it makes no difference."""
    begin, _, rest = pem.strip().partition(b"-----\n")
    body, _, end = rest.partition(b"\n-----END ")
    label = begin.removeprefix(b"-----BEGIN ")
    if label not in (b"PUBLIC KEY", b"CERTIFICATE") or end != label + b"-----":
        raise FormatError("expected one PEM block, a public key or a certificate", what=_WHAT)
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("expected one PEM block", what=_WHAT) from None
