# SPDX-License-Identifier: Apache-2.0
"""Bundles with certificates, log entries and stamps through the whole decision."""

import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import SignatureInvalid, UntrustedSigner
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.sign.formats.bundle import build_bundle
from imagers.sign.formats.sigstore import sign_payload
from imagers.sign.found import BundleSignature, Found
from imagers.sign.payload import build_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import SigstorePrivateKey
from imagers.sign.verify import PolicyBasis, load_trust, verify_image

ISSUER = "https://login.example.org"
WHEN = datetime(2026, 6, 1, tzinfo=UTC)


def b64(data):
    return base64.b64encode(data).decode()


class Signer:
    """Signs as somebody who logs in at fulcio and enters the signature into a log."""

    def __init__(self, pki, log, manifest, pem):
        self.pki, self.log, self.manifest, self.pem = pki, log, manifest, pem
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
        extra = [(x509.UnrecognizedExtension(oid, ISSUER.encode()), False)]
        self.leaf = pki.leaf(extra=extra)

    def bundle(self, *, log=None, time=WHEN, logged=None, entry=True):
        document = json.loads(build_bundle(digest_of(self.manifest), self.log))
        envelope = document["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"])
        kind = envelope["payloadType"].encode()
        pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        signature = self.pki.keys["leaf"].sign(pae, ec.ECDSA(hashes.SHA256()))
        envelope["signatures"] = [{"sig": b64(signature)}]
        der = serialization.Encoding.DER
        material = {
            "x509CertificateChain": {
                "certificates": [
                    {"rawBytes": b64(one.public_bytes(der))} for one in (self.leaf, self.pki.middle)
                ]
            }
        }
        if entry:
            body = {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "payloadHash": {
                        "algorithm": "sha256",
                        "value": hashlib.sha256(logged or payload).hexdigest(),
                    },
                    "signatures": [
                        {"signature": b64(signature), "verifier": b64(self.pem(self.leaf))}
                    ],
                },
            }
            material["tlogEntries"] = [self.entry(body, log or self.log, time)]
        document["verificationMaterial"] = material
        return BundleSignature(json.dumps(document).encode())

    def entry(self, body, log, time):
        parts = {
            "body": b64(json.dumps(body).encode()),
            "integratedTime": int(time.timestamp()),
            "logIndex": 3,
            "logID": log.public_key.fingerprint,
        }
        return {
            "logIndex": "3",
            "integratedTime": str(parts["integratedTime"]),
            "logId": {"keyId": b64(bytes.fromhex(parts["logID"]))},
            "inclusionPromise": {"signedEntryTimestamp": b64(log.sign(rfc8785.dumps(parts)))},
            "canonicalizedBody": parts["body"],
        }


@pytest.fixture
def signer(pki, other_key, manifest, pem):
    return Signer(pki, other_key, manifest, pem)


def verify(signer, found, *, email="builder@example.org", issuer=ISSUER, raw=None, roots=None):
    requirement = {
        "type": "sigstoreBundle",
        "fulcio": {
            "caData": b64(signer.pem(roots or signer.pki.root)),
            "oidcIssuer": issuer,
            "subjectEmail": email,
        },
        "rekorPublicKeyData": b64(signer.log.public_key.to_pem()),
    }
    policy = parse_policy(json.dumps({"default": [requirement]}).encode())
    identity = docker_identity(parse_reference("r.example/app:v1"))
    trust = load_trust(policy.select(identity), lambda path: path.encode())
    # Years later: what counts is when the log has seen it.
    now = datetime(2045, 1, 1, tzinfo=UTC)
    return verify_image(trust, raw or signer.manifest, Found.everywhere([found]), now=now)


def test_bundle_of_a_login_in_a_log_is_good_years_later(signer):
    decision = verify(signer, signer.bundle())
    assert decision.basis is PolicyBasis.SIGNATURE
    assert decision.signers[0].subject == "builder@example.org"


@pytest.mark.parametrize(
    ("error", "piece", "made", "asked"),
    [
        (SignatureInvalid, "no entry", {"entry": False}, {}),
        (SignatureInvalid, "another payload", {"logged": b"other"}, {}),
        (SignatureInvalid, "not valid at", {"time": datetime(2040, 1, 1, tzinfo=UTC)}, {}),
        (SignatureInvalid, "another manifest", {}, {"raw": b"{}"}),
        (UntrustedSigner, "e-mail", {}, {"email": "other@example.org"}),
        (UntrustedSigner, "another issuer", {}, {"issuer": "https://evil.example.org"}),
    ],
)
def test_bundle_of_a_login_that_differs_in_anything_is_refused(signer, error, piece, made, asked):
    with pytest.raises(error) as caught:
        verify(signer, signer.bundle(**made), **asked)
    assert type(caught.value) is error
    assert piece in str(caught.value)


def test_bundle_in_another_log_or_of_another_authority_is_refused(signer, key):
    with pytest.raises(SignatureInvalid, match="no given log"):
        verify(signer, signer.bundle(log=key))
    stranger = type(signer.pki)()
    with pytest.raises(SignatureInvalid, match="no given root"):
        verify(signer, signer.bundle(), roots=stranger.root)


NAME = "r.example/app:v1"


def certified_key(pki):
    leaf = pki.leaf()
    return SigstorePrivateKey(pki.keys["leaf"]).with_certificates((leaf, pki.middle, pki.root))


def pki_trust(kind, roots, *, intermediates=b"", email="builder@example.org"):
    members = {"caRootsData": b64(roots), "subjectEmail": email}
    if intermediates:
        members["caIntermediatesData"] = b64(intermediates)
    policy = json.dumps({"default": [{"type": kind, "pki": members}]}).encode()
    selected = parse_policy(policy).select(docker_identity(parse_reference(NAME)))
    return load_trust(selected, None)


def test_signature_with_the_certificates_of_its_key_holds_by_the_root_alone(pki, pem, manifest):
    signature = sign_payload(build_payload(NAME, digest_of(manifest)), certified_key(pki))
    trust = pki_trust("sigstoreSigned", pem(pki.root))
    assert (
        verify_image(trust, manifest, Found.everywhere([signature]), now=WHEN).basis
        is PolicyBasis.SIGNATURE
    )
    for wrong in (
        pki_trust("sigstoreSigned", pem(pki.root), email="other@example.org"),
        pki_trust("sigstoreSigned", pem(type(pki)().root)),
    ):
        with pytest.raises((SignatureInvalid, UntrustedSigner)):
            verify_image(wrong, manifest, Found.everywhere([signature]), now=WHEN)


def test_bundle_with_the_certificate_of_its_key_holds_by_root_and_intermediates(pki, pem, manifest):
    bundle = BundleSignature(build_bundle(digest_of(manifest), certified_key(pki)))
    trust = pki_trust("sigstoreBundle", pem(pki.root), intermediates=pem(pki.middle))
    assert (
        verify_image(trust, manifest, Found.everywhere([bundle]), now=WHEN).basis
        is PolicyBasis.SIGNATURE
    )
    with pytest.raises(SignatureInvalid, match="no given root"):
        verify_image(
            pki_trust("sigstoreBundle", pem(pki.root)),
            manifest,
            Found.everywhere([bundle]),
            now=WHEN,
        )
