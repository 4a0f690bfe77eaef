# SPDX-License-Identifier: Apache-2.0
"""The decision about one envelope; each attack names the step of check.py."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from imagers.errors import CouldNotVerify, SignatureInvalid, UntrustedSigner
from imagers.sign.formats.notation.check import check_signature, check_target
from imagers.sign.formats.notation.envelope import COSE_TYPE, JWS_TYPE
from imagers.sign.formats.notation.trust_policy import parse_trust_policy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
P = "io.cncf.notary."


def statement(level="strict", stores=("ca:acme",), identities=("*",), **verification):
    document = {
        "version": "1.0",
        "trustPolicies": [
            {
                "name": "p",
                "registryScopes": ["*"],
                "signatureVerification": {"level": level, **verification},
                "trustStores": list(stores),
                "trustedIdentities": list(identities),
            }
        ],
    }
    return parse_trust_policy(json.dumps(document).encode(), what="x").select("r/a")


def check(envelopes, raw=None, rules=None, *, media_type=JWS_TYPE, now=NOW, stores=None):
    return check_signature(
        envelopes.good(media_type) if raw is None else raw,
        media_type,
        rules or statement(),
        {"ca:acme": (envelopes.pki.root,)} if stores is None else stores,
        envelopes.manifest,
        now=now,
        what="x",
        note=[].append,
    )


@pytest.mark.parametrize("media_type", [JWS_TYPE, COSE_TYPE])
def test_check_good_envelope_says_who(envelopes, media_type):
    outcome = check(envelopes, media_type=media_type)
    assert outcome.is_authentic
    assert "CN=release" in outcome.subject
    assert outcome.notes == ()


def refused(error, piece, *words, **named):
    with pytest.raises(error) as caught:
        check(*words, **named)
    assert type(caught.value) is error
    assert piece in str(caught.value)


AUDIT = statement("audit")


def test_check_of_another_manifest_is_refused_at_every_level(envelopes):
    """Step 1."""
    raw = envelopes.good()
    envelopes.manifest += b" "
    for rules in (statement(), statement("permissive"), AUDIT):
        refused(SignatureInvalid, "another manifest", envelopes, raw, rules)


def test_check_of_a_broken_signature_is_refused_at_every_level(envelopes):
    """Step 1."""
    document = json.loads(envelopes.good())
    document["signature"] = "A" * 86
    for rules in (statement(), AUDIT):
        refused(SignatureInvalid, "does not fit", envelopes, json.dumps(document).encode(), rules)


def test_check_to_another_root_is_refused_and_in_an_audit_by_nobody(envelopes):
    """Step 2."""
    stranger = type(envelopes.pki)()
    stores = {"ca:acme": (stranger.root,)}
    refused(SignatureInvalid, "no given root", envelopes, stores=stores)
    outcome = check(envelopes, rules=AUDIT, stores=stores)
    assert not outcome.is_authentic
    assert outcome.subject == ""
    assert "not enforced" in outcome.notes[0]


def test_check_in_an_audit_that_holds_is_authentic(envelopes):
    assert check(envelopes, rules=AUDIT).is_authentic


@pytest.mark.parametrize("kind", ["signingAuthority", "tsa"])
def test_check_against_a_store_for_something_else_is_refused(envelopes, kind):
    """Step 2: a certificate of an authority for stamps signs no images."""
    name = f"{kind}:acme"
    stores = {name: (envelopes.pki.root,), "ca:empty": (type(envelopes.pki)().root,)}
    rules = statement(stores=[name, "ca:empty"])
    refused(SignatureInvalid, "no given root", envelopes, rules=rules, stores=stores)


def test_check_identity_must_have_every_attribute(envelopes):
    """Step 2."""
    good = statement(identities=["x509.subject: C=DE, ST=BE, O=acme\\, inc"])
    assert check(envelopes, rules=good).is_authentic
    other = "x509.subject: C=DE, ST=BE, O=acme\\, inc, CN=other"
    refused(UntrustedSigner, "trusted identities", envelopes, rules=statement(identities=[other]))


def test_check_of_an_expired_certificate_is_refused(envelopes):
    """Step 3."""
    later = datetime(2031, 1, 1, tzinfo=UTC)
    refused(SignatureInvalid, "not valid at", envelopes, now=later)
    assert check(envelopes, rules=statement("permissive"), now=later).notes


def test_check_of_an_expired_signature_is_refused(envelopes):
    """Step 4."""
    raw = envelopes.good(expiry=NOW + timedelta(hours=1))
    assert check(envelopes, raw).is_authentic
    refused(SignatureInvalid, "is expired", envelopes, raw, now=NOW + timedelta(hours=2))


def test_check_of_certificates_that_could_be_revoked_could_not_look(envelopes):
    """Step 5."""
    place = x509.DistributionPoint(
        [x509.UniformResourceIdentifier("http://crl.example.org")], None, None, None
    )
    leaf = envelopes.pki.leaf(extra=[(x509.CRLDistributionPoints([place]), False)])
    envelopes.key = replace(
        envelopes.key, chain=(leaf, *envelopes.key.chain[1:]), _key=envelopes.pki.keys["leaf"]
    )
    raw = envelopes.good()
    refused(CouldNotVerify, "revoked", envelopes, raw)
    assert check(envelopes, raw, statement(override={"revocation": "log"})).notes
    assert not check(envelopes, raw, statement(override={"revocation": "skip"})).notes


def test_check_of_the_scheme_of_an_authority_takes_its_store_and_its_time(envelopes):
    """Steps 2 and 3."""
    names = ["signingScheme", "authenticSigningTime"]
    protected = {
        f"{P}signingScheme": "notary.x509.signingAuthority",
        f"{P}authenticSigningTime": "2026-01-02T00:00:00Z",
        "crit": [P + name for name in names],
    }
    raw = envelopes.changed(protected=protected)
    stores = {"signingAuthority:a": (envelopes.pki.root,)}
    rules = statement(stores=["signingAuthority:a"])
    later = datetime(2031, 1, 1, tzinfo=UTC)
    assert check(envelopes, raw, rules, stores=stores, now=later).is_authentic
    refused(SignatureInvalid, "no given root", envelopes, raw)
    protected[f"{P}authenticSigningTime"] = "2025-01-02T00:00:00Z"
    early = envelopes.changed(protected=protected)
    refused(SignatureInvalid, "not valid at", envelopes, early, rules, stores=stores)


def test_check_with_a_store_of_stamps_demands_one(envelopes):
    """Step 3."""
    stores = {"ca:acme": (envelopes.pki.root,), "tsa:t": (envelopes.pki.root,)}
    rules = statement(stores=list(stores))
    refused(SignatureInvalid, "no time stamp", envelopes, rules=rules, stores=stores)
    lazy = statement(stores=list(stores), verifyTimestamp="afterCertExpiry")
    assert check(envelopes, rules=lazy, stores=stores).is_authentic
    later = datetime(2031, 1, 1, tzinfo=UTC)
    refused(SignatureInvalid, "no time stamp", envelopes, rules=lazy, stores=stores, now=later)


def test_check_of_a_self_signed_certificate_in_the_store(envelopes):
    """Step 2."""
    leaf = envelopes.pki.make("leaf", None)
    envelopes.key = replace(envelopes.key, chain=(leaf,), _key=envelopes.pki.keys["leaf"])
    raw = envelopes.good()
    assert check(envelopes, raw, stores={"ca:acme": (leaf,)}).is_authentic
    refused(SignatureInvalid, "no given root", envelopes, raw)


def test_check_of_a_root_that_signs_images_itself_is_refused(envelopes):
    """Step 2: a CA is no signer."""
    pki = envelopes.pki
    envelopes.key = replace(envelopes.key, chain=(pki.root,), _key=pki.keys["root"])
    refused(SignatureInvalid, "certificate", envelopes, envelopes.good())


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:" + "0" * 64},
        {"size": 1},
        {"mediaType": "application/vnd.oci.image.index.v1+json"},
        {"digest": "md5:0"},
    ],
)
def test_check_target_must_name_type_digest_and_size(envelopes, change):
    """Step 1."""
    target = {**envelopes.subject.to_json(), **change}
    with pytest.raises(SignatureInvalid, match="another manifest"):
        check_target(json.dumps({"targetArtifact": target}).encode(), envelopes.manifest, what="x")


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"targetArtifact":{},"more":1}'])
def test_check_target_of_another_shape_is_refused(envelopes, payload):
    with pytest.raises(SignatureInvalid, match="notation payload"):
        check_target(payload, envelopes.manifest, what="x")
