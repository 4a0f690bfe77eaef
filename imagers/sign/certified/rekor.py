# SPDX-License-Identifier: Apache-2.0
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

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imagers.errors import FormatError, SignatureInvalid
from imagers.model.base64 import decode_base64
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.sign.public_key import PublicKey

__all__ = [
    "MAX_TIME",
    "LogEntry",
    "check_dsse",
    "check_entry",
    "check_hashedrekord",
    "parse_bundle",
]

MAX_TIME = 253402300799  # the last second of the year 9999
_MAX_BYTES = 256 * 1024
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
    raw = text.encode("utf-8", "surrogatepass")
    document = View.parse(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    document.exactly("SignedEntryTimestamp", "Payload")
    payload = document.object("Payload")
    payload.exactly("body", "integratedTime", "logIndex", "logID")
    return LogEntry(
        body=payload.text("body"),
        integrated_time=payload.integer("integratedTime", maximum=MAX_TIME),
        log_index=payload.integer("logIndex"),
        log_id=payload.text("logID"),
        promise=document.bytes64("SignedEntryTimestamp"),
    )


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
        digest = _sha256(spec.object("data").object("hash"))
        signed = spec.object("signature")
        content = signed.bytes64("content")
        der = _der_of(signed.object("publicKey").bytes64("content"))
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
        digest = _sha256(spec.object("payloadHash"))
        found = [
            (one.bytes64("signature"), _der_of(one.bytes64("verifier")))
            for one in spec.objects("signatures")
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


def _spec(entry: LogEntry, kind: str) -> View:
    raw = decode_base64(entry.body, what=_WHAT, where="body")
    document = View.parse(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    told = (document.value.get("kind"), document.value.get("apiVersion"))
    if told != (kind, "0.0.1"):
        raise document.error(
            f"expected an entry of kind {kind} 0.0.1, got {str(told[0])[:40]!r} "
            f"{str(told[1])[:40]!r}"
        )
    return document.object("spec")


def _sha256(found: View) -> str:
    algorithm = found.text("algorithm")
    if algorithm != "sha256":
        raise found.error(f"expected sha256, got {algorithm[:40]!r}", "algorithm")
    return found.text("value")


def _der_of(pem: bytes) -> bytes:
    """The content of one PEM block; what is around it makes no difference."""
    begin, _, rest = pem.strip().partition(b"-----\n")
    body, _, end = rest.partition(b"\n-----END ")
    label = begin.removeprefix(b"-----BEGIN ")
    if label not in (b"PUBLIC KEY", b"CERTIFICATE") or end != label + b"-----":
        raise FormatError("expected one PEM block, a public key or a certificate", what=_WHAT)
    # Lines of any length, as Go reads PEM.
    return decode_base64("".join(body.decode("latin-1").split()), what=f"{_WHAT}: PEM block")
