# SPDX-License-Identifier: Apache-2.0
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

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.model.base64 import encode_base64
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.model.strict_json import JSONObject, View, dump_json
from imagers.pki.chain import MAX_CERTIFICATES, load_certificate
from imagers.sign.certified.rekor import MAX_TIME, LogEntry, check_dsse
from imagers.sign.certified.signer import Evidence
from imagers.sign.found import BUNDLE_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

    from imagers.model.digest import Digest
    from imagers.sign.sigstore_key import SigstorePrivateKey

__all__ = [
    "EMPTY",
    "EMPTY_TYPE",
    "build_bundle",
    "build_bundle_manifest",
    "check_statement",
    "parse_bundle_file",
]

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_MAX_BYTES = 1024 * 1024
_MAX_ENTRIES = 16  # log entries, time stamps
_MAX_SUBJECTS = 64
_WHAT = "bundle"
_MAX_NUMBER = 10**15 - 1  # as many entries no log has
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
        material = {"certificate": {"rawBytes": encode_base64(der)}}
    else:
        hint = encode_base64(bytes.fromhex(key.public_key.fingerprint))
        material = {"publicKey": {"hint": hint}}
    return dump_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payload": encode_base64(statement),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": encode_base64(signature)}],
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
    document = View.parse(raw, what=_WHAT, max_bytes=_MAX_BYTES)
    media_type = document.text("mediaType")
    if media_type != BUNDLE_TYPE:
        raise Unsupported(f"expected a bundle {BUNDLE_TYPE!r}, got {media_type[:80]!r}")
    if "dsseEnvelope" not in document or "messageSignature" in document:
        raise Unsupported("expected a bundle with a DSSE envelope and no other signature")
    envelope = document.object("dsseEnvelope")
    payload_type = envelope.text("payloadType")
    if payload_type != _PAYLOAD_TYPE:
        raise envelope.error(
            f"expected {_PAYLOAD_TYPE!r}, got {payload_type[:80]!r}", "payloadType"
        )
    signatures = envelope.objects("signatures")
    if len(signatures) != 1:
        raise envelope.error(f"expected one signature, got {len(signatures)}", "signatures")
    payload = envelope.bytes64("payload")
    material = document.object("verificationMaterial")
    certificate, chain = _certificates(material)
    return Bundle(
        Evidence(
            data=_pae(payload_type, payload),
            signature=signatures[0].bytes64("sig"),
            payload=payload,
            check_log=check_dsse,
            certificate=certificate,
            chain=chain,
            entries=_entries(material),
            stamps=_stamps(material),
        ),
        payload,
    )


def _certificates(
    material: View,
) -> tuple[x509.Certificate | None, tuple[x509.Certificate, ...]]:
    kinds = [k for k in ("publicKey", "certificate", "x509CertificateChain") if k in material]
    if len(kinds) != 1:
        raise material.error("expected one of publicKey, certificate and x509CertificateChain")
    if kinds[0] == "publicKey":  # the hint is only a hint: the policy says which keys count
        return None, ()
    if kinds[0] == "certificate":
        found: Sequence[View] = [material.object("certificate")]
    else:
        chain = material.object("x509CertificateChain")
        found = chain.objects("certificates", most=MAX_CERTIFICATES, non_empty=True)
    loaded = [load_certificate(one.bytes64("rawBytes"), what=_WHAT) for one in found]
    return loaded[0], tuple(loaded[1:])


def _entries(material: View) -> tuple[LogEntry, ...]:
    """The entries that a log has promised; those with a proof of inclusion alone are left out."""
    found = []
    for entry in material.objects("tlogEntries", most=_MAX_ENTRIES, null_is_empty=True):
        promise = entry.optional_object("inclusionPromise")
        if promise is None:
            continue
        found.append(
            LogEntry(
                body=entry.text("canonicalizedBody"),
                integrated_time=_number(entry, "integratedTime", MAX_TIME),
                log_index=_number(entry, "logIndex", _MAX_NUMBER),
                log_id=entry.object("logId").bytes64("keyId").hex(),
                promise=promise.bytes64("signedEntryTimestamp"),
            )
        )
    return tuple(found)


def _number(entry: View, name: str, maximum: int) -> int:
    """A 64-bit number, which protobuf writes as a string."""
    value = entry.value.get(name, "0")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _NUMBER.match(value) or int(value) > maximum:
        raise entry.error(f"expected a number from 0 to {maximum}", name)
    return int(value)


def _stamps(material: View) -> tuple[bytes, ...]:
    data = material.object("timestampVerificationData", null_is_empty=True)
    stamps = data.objects("rfc3161Timestamps", most=_MAX_ENTRIES, null_is_empty=True)
    return tuple(one.bytes64("signedTimestamp") for one in stamps)


def check_statement(payload: bytes, raw_manifest: bytes, *, what: str, noun: str) -> None:
    """Nothing, if a statement is a signature of exactly these bytes.

    Args:
        payload: of an envelope whose signature was verified.

    Raises:
        SignatureInvalid: it states something else, or about something else.
    """
    try:
        document = View.parse(payload, what="statement", max_bytes=_MAX_BYTES)
        told = (document.text("_type"), document.text("predicateType"))
        subjects = document.objects("subject", most=_MAX_SUBJECTS, non_empty=True)
        digests = [one.object("digest").value for one in subjects]
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
