"""Sigstore bundles as cosign 3 writes them: a signed statement about one digest.

    raw = build_bundle(digest, key)
    bundle = parse_bundle_file(raw)            # nothing is verified
    check_statement(bundle.payload, digest)    # after the signature was

    bundle        mediaType application/vnd.dev.sigstore.bundle.v0.3+json
      verificationMaterial   hint of a key, or a certificate; log entries, time stamps
      dsseEnvelope           payload (in-toto statement), one signature over its PAE
    statement     subject = the digest; predicateType = that of cosign's signatures

The statement names no image: whoever trusts the key trusts every name for these bytes. What
else the same key has stated (an SBOM, a scan) is no signature: the predicate type is checked.

Spec: cosign specs/BUNDLE_SPEC.md; sigstore protobuf-specs v0.4, sigstore_bundle.proto; DSSE
v1.0 protocol.md; in-toto attestation v1.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.model.strict_json import (
    JSON,
    JSONObject,
    dump_json,
    get_list,
    get_object,
    get_optional_object,
    get_str,
    parse_object,
)
from imagers.pki.chain import MAX_CERTIFICATES, load_certificate
from imagers.sign.certified.rekor import LogEntry, check_dsse
from imagers.sign.certified.signer import Evidence

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from imagers.model.digest import Digest
    from imagers.sign.sigstore_key import SigstorePrivateKey

__all__ = [
    "BUNDLE_TYPE",
    "EMPTY",
    "EMPTY_TYPE",
    "build_bundle",
    "build_bundle_manifest",
    "check_statement",
    "parse_bundle_file",
]

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MAX_BYTES = 1024 * 1024
_MAX_ENTRIES = 16  # log entries, time stamps
_MAX_SUBJECTS = 64
_WHAT = "bundle"
_NUMBER = re.compile(r"[0-9]{1,15}\Z")


def _pae(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature is over: lengths and contents, so that none can be shifted."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def build_bundle(digest: Digest, key: SigstorePrivateKey) -> bytes:
    """A bundle that signs the manifest with `digest`, without log and time stamp.

    Of the certificates of the key only the leaf goes into it: this version of bundles has no
    place for others, which those who verify have.
    """
    statement = dump_json(
        {
            "_type": _STATEMENT,
            "subject": [{"digest": {digest.algorithm: digest.hex}}],
            "predicateType": _PREDICATE,
            "predicate": {},
        }
    )
    signature = key.sign(_pae(_PAYLOAD_TYPE, statement))
    material: JSONObject
    if key.certificates:
        der = key.certificates[0].public_bytes(serialization.Encoding.DER)
        material = {"certificate": {"rawBytes": base64.b64encode(der).decode("ascii")}}
    else:
        hint = base64.b64encode(bytes.fromhex(key.public_key.fingerprint)).decode("ascii")
        material = {"publicKey": {"hint": hint}}
    return dump_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode("ascii"),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode("ascii")}],
            },
        }
    )


def build_bundle_manifest(subject: Descriptor, bundle: bytes, *, created: datetime) -> bytes:
    """The manifest that attaches a bundle to `subject`, as cosign 3 writes it.

    Args:
        created: aware; for people.
    """
    empty = Descriptor(EMPTY_TYPE, digest_of(EMPTY), len(EMPTY))
    layer = Descriptor(BUNDLE_TYPE, digest_of(bundle), len(bundle))
    return dump_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": BUNDLE_TYPE,
            "config": empty.to_json(),
            "layers": [layer.to_json()],
            "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
            "annotations": {
                "dev.sigstore.bundle.content": "dsse-envelope",
                "dev.sigstore.bundle.predicateType": _PREDICATE,
                "org.opencontainers.image.created": (
                    f"{created.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
                ),
            },
        }
    )


@dataclass(frozen=True, slots=True)
class Bundle:
    """A parsed bundle. Nothing of it is verified.

    Attributes:
        evidence: for `certified.signer.check_signer`.
        payload: the statement, to be read after its signature was verified.
    """

    evidence: Evidence
    payload: bytes


def parse_bundle_file(raw: bytes) -> Bundle:
    """The bundle in `raw`.

    Raises:
        FormatError: it is none, or beyond a bound.
        Unsupported: a bundle of another version or with another kind of signature.
    """
    document = parse_object(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    media_type = get_str(document, "mediaType", what=_WHAT)
    if media_type != BUNDLE_TYPE:
        raise Unsupported(f"expected a bundle {BUNDLE_TYPE!r}, got {media_type[:80]!r}")
    if "dsseEnvelope" not in document or "messageSignature" in document:
        raise Unsupported("expected a bundle with a DSSE envelope and no other signature")
    envelope = get_object(document, "dsseEnvelope", what=_WHAT)
    where = "$.dsseEnvelope"
    payload_type = get_str(envelope, "payloadType", what=_WHAT, where=where)
    if payload_type != _PAYLOAD_TYPE:
        raise FormatError(
            f"expected {_PAYLOAD_TYPE!r}, got {payload_type[:80]!r}",
            what=_WHAT,
            where=f"{where}.payloadType",
        )
    signatures = get_list(envelope, "signatures", what=_WHAT, where=where)
    if len(signatures) != 1:
        raise FormatError(f"expected one signature, got {len(signatures)}", what=_WHAT, where=where)
    payload = _decode(envelope, "payload", where)
    signature = _decode(_object(signatures[0], where), "sig", where)
    material = get_object(document, "verificationMaterial", what=_WHAT)
    certificate, chain = _certificates(material)
    return Bundle(
        Evidence(
            data=_pae(payload_type, payload),
            signature=signature,
            payload=payload,
            check_log=check_dsse,
            certificate=certificate,
            chain=chain,
            entries=_entries(material),
            stamps=_stamps(material),
        ),
        payload,
    )


def _object(value: JSON, where: str) -> JSONObject:
    if not isinstance(value, dict):
        raise FormatError("expected an object", what=_WHAT, where=where)
    return value


def _decode(document: JSONObject, member: str, where: str) -> bytes:
    text = get_str(document, member, what=_WHAT, where=where)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("expected base64", what=_WHAT, where=f"{where}.{member}") from None


def _certificates(
    material: JSONObject,
) -> tuple[x509.Certificate | None, tuple[x509.Certificate, ...]]:
    where = "$.verificationMaterial"
    kinds = [k for k in ("publicKey", "certificate", "x509CertificateChain") if k in material]
    if len(kinds) != 1:
        raise FormatError(
            "expected one of publicKey, certificate and x509CertificateChain", what=_WHAT
        )
    if kinds[0] == "publicKey":  # the hint is only a hint: the policy says which keys count
        return None, ()
    if kinds[0] == "certificate":
        found = [get_object(material, "certificate", what=_WHAT, where=where)]
    else:
        chain = get_object(material, "x509CertificateChain", what=_WHAT, where=where)
        found = [
            _object(one, where) for one in get_list(chain, "certificates", what=_WHAT, where=where)
        ]
    if not 1 <= len(found) <= MAX_CERTIFICATES:
        raise FormatError(f"expected 1 to {MAX_CERTIFICATES} certificates", what=_WHAT)
    loaded = [load_certificate(_decode(one, "rawBytes", where), what=_WHAT) for one in found]
    return loaded[0], tuple(loaded[1:])


def _entries(material: JSONObject) -> tuple[LogEntry, ...]:
    """The entries that a log has promised; those with a proof of inclusion alone are left out."""
    value = material.get("tlogEntries") or []
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES:
        raise FormatError(f"expected a list of at most {_MAX_ENTRIES} log entries", what=_WHAT)
    found = []
    for one in value:
        where = "$.verificationMaterial.tlogEntries"
        entry = _object(one, where)
        promise = get_optional_object(entry, "inclusionPromise", what=_WHAT, where=where)
        if promise is None:
            continue
        log = get_object(entry, "logId", what=_WHAT, where=where)
        found.append(
            LogEntry(
                body=get_str(entry, "canonicalizedBody", what=_WHAT, where=where),
                integrated_time=_number(entry, "integratedTime", where),
                log_index=_number(entry, "logIndex", where),
                log_id=_decode(log, "keyId", where).hex(),
                promise=_decode(promise, "signedEntryTimestamp", where),
            )
        )
    return tuple(found)


def _number(document: JSONObject, member: str, where: str) -> int:
    """A 64-bit number, which protobuf writes as a string."""
    value = document.get(member, "0")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _NUMBER.match(value):
        raise FormatError("expected a number", what=_WHAT, where=f"{where}.{member}")
    number = int(value)
    if member == "integratedTime" and number > 253402300799:  # the year 9999
        raise FormatError("expected a time", what=_WHAT, where=f"{where}.{member}")
    return number


def _stamps(material: JSONObject) -> tuple[bytes, ...]:
    where = "$.verificationMaterial.timestampVerificationData"
    data = get_optional_object(material, "timestampVerificationData", what=_WHAT)
    value = [] if data is None else data.get("rfc3161Timestamps") or []
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES:
        raise FormatError(f"expected a list of at most {_MAX_ENTRIES} stamps", what=_WHAT)
    return tuple(_decode(_object(one, where), "signedTimestamp", where) for one in value)


def _subjects(statement: JSONObject) -> list[JSONObject]:
    subjects = get_list(statement, "subject", what="statement")
    if not 1 <= len(subjects) <= _MAX_SUBJECTS:
        raise FormatError(f"expected 1 to {_MAX_SUBJECTS} subjects", what="statement")
    return [get_object(_object(one, "$.subject"), "digest", what="statement") for one in subjects]


def check_statement(payload: bytes, raw_manifest: bytes, *, what: str, noun: str) -> None:
    """Nothing, if a statement is a signature of exactly these bytes.

    Args:
        payload: of an envelope whose signature was verified.

    Raises:
        SignatureInvalid: it states something else, or about something else.
    """
    try:
        document = parse_object(payload, what="statement", max_bytes=_MAX_BYTES)
        told = (
            get_str(document, "_type", what="statement"),
            get_str(document, "predicateType", what="statement"),
        )
        digests = _subjects(document)
    except FormatError as error:
        raise SignatureInvalid(f"{what}: {error}") from error
    if told != (_STATEMENT, _PREDICATE):
        raise SignatureInvalid(
            f"{what} is a statement of another kind: expected '{_PREDICATE}', "
            f"got '{told[1][:120]}'",
            hint="an attestation by the same key is no signature of the image",
        )
    actual = digest_of(raw_manifest)
    if not any(one.get("sha256") == actual.hex for one in digests):
        got = digests[0].get("sha256")
        raise SignatureInvalid(
            f"{what} is for another {noun}: expected '{actual}', got 'sha256:{str(got)[:64]}'",
            hint="the image changed after it was signed, or the signature was moved from another",
        )
