import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from imagers.errors import FormatError, KeyUnavailable, Unsupported, UsageError
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.sign.find import read_attached
from imagers.sign.found import Form
from imagers.sign.notation.envelope import COSE_TYPE, JWS_TYPE, parse_envelope
from imagers.sign.notation.make import NotationKey, attach_notation, parse_notation_key

NOW = datetime(2026, 6, 1, tzinfo=UTC)
REFERENCE = parse_reference("r.example/app:v1")


def pem_of(key, passphrase=None):
    sealed = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase)
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)


@pytest.mark.parametrize("media_type", [JWS_TYPE, COSE_TYPE])
def test_attach_notation_adds_and_keeps_others(repository, envelopes, media_type):
    repository.put_manifest_as(envelopes.manifest, OCI_MANIFEST, "v1")
    digest = digest_of(envelopes.manifest)
    for count in (1, 2):
        (signed,) = attach_notation(
            repository,
            repository,
            repository,
            REFERENCE,
            envelopes.key,
            created=NOW.replace(day=count),
            media_type=media_type,
        )
        assert (signed.digest, signed.count) == (digest, count)
    found = read_attached(repository, repository, digest, {Form.NOTATION})
    assert [one.media_type for one in found.signatures] == [media_type] * 2
    for one in found.signatures:
        parse_envelope(one.raw, media_type).check_integrity()


def test_attached_manifest_has_the_thumbprints(repository, envelopes):
    repository.put_manifest_as(envelopes.manifest, OCI_MANIFEST, "v1")
    attach_notation(repository, repository, repository, REFERENCE, envelopes.key, created=NOW)
    (entry,), _ = repository.read_referrers(digest_of(envelopes.manifest))
    manifest = parse_manifest(repository.read_manifest(entry.digest).raw)
    assert manifest.config.media_type == "application/vnd.cncf.notary.signature"
    listed = json.loads(manifest.annotations["io.cncf.notary.x509chain.thumbprint#S256"])
    assert len(listed) == 3
    assert entry.artifact_type == "application/vnd.cncf.notary.signature"


def test_notation_key_of_rsa_signs(pki):
    leaf = pki.leaf(key=rsa.generate_private_key(65537, 2048))
    key = NotationKey((leaf,), pki.keys["leaf"])
    assert len(key.sign(b"x")) == 256
    assert "_key" not in repr(key)


def test_notation_key_is_read_with_and_without_a_passphrase(pki, pem):
    leaf = pki.leaf()
    chain = pem(leaf, pki.middle)
    key = pki.keys["leaf"]
    assert parse_notation_key(pem_of(key), chain, None, what="k").chain == (leaf, pki.middle)
    with SecretKey(b"pw") as passphrase:
        assert parse_notation_key(pem_of(key, b"pw"), chain, passphrase, what="k")
        with pytest.raises(UsageError, match="the key has none"):
            parse_notation_key(pem_of(key), chain, passphrase, what="k")
    with pytest.raises(KeyUnavailable, match="none was given"):
        parse_notation_key(pem_of(key, b"pw"), chain, None, what="k")
    with SecretKey(b"no") as wrong, pytest.raises(KeyUnavailable, match="does not open"):
        parse_notation_key(pem_of(key, b"pw"), chain, wrong, what="k")


def test_notation_key_that_does_not_fit_is_refused(pki, pem):
    leaf = pki.leaf()
    with pytest.raises(FormatError, match="the certificate of the key first"):
        parse_notation_key(pem_of(pki.keys["leaf"]), pem(pki.middle, leaf), None, what="k")
    with pytest.raises(FormatError, match="k: expected a private key in PEM"):
        parse_notation_key(b"x", pem(leaf), None, what="k")
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Unsupported, match="RSA or an EC key"):
        parse_notation_key(pem_of(key), pem(leaf), None, what="k")
