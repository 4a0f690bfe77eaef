# SPDX-License-Identifier: Apache-2.0
"""Who signed; each attack names the step of signer.py."""

from datetime import UTC, datetime

import pytest
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import CouldNotVerify, SignatureInvalid, UntrustedSigner
from imagers.sign.certified.rekor import LogEntry
from imagers.sign.certified.signer import Evidence, check_signer
from imagers.sign.materials import SignerMaterial
from imagers.sign.requirements import PKI, CertificateSubject, Fulcio, KeyRefs

NOW = datetime(2026, 6, 1, tzinfo=UTC)
REFS = KeyRefs(("/r",), ())
ISSUER = "https://login.example.org"
SUBJECT = CertificateSubject(email="builder@example.org")
FULCIO, OWN = Fulcio(REFS, ISSUER, SUBJECT), PKI(REFS, None, SUBJECT)
DATA = b"data"


def no_log(*_, **__):
    return None


def entry_of(log, time=NOW):
    parts = {
        "body": "e30=",
        "integratedTime": int(time.timestamp()),
        "logIndex": 1,
        "logID": log.public_key.fingerprint,
    }
    promise = log.sign(rfc8785.dumps(parts))
    return LogEntry("e30=", parts["integratedTime"], 1, parts["logID"], promise)


def evidence_of(pki, *, signer="leaf", certificate=None, **members):
    key = pki.keys[signer]
    signature = key.sign(DATA, ec.ECDSA(hashes.SHA256()))
    members = {"chain": (pki.middle,), "check_log": no_log, **members}
    return Evidence(DATA, signature, DATA, certificate=certificate, **members)


def check(evidence, material, *, fulcio=None, pki=None, now=NOW):
    notes = []
    who = check_signer(
        evidence, material, fulcio=fulcio, pki=pki, now=now, what="x", note=notes.append
    )
    assert notes
    return who


def fulcio_leaf(pki, issuer=ISSUER):
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
    return pki.leaf(extra=[(x509.UnrecognizedExtension(oid, issuer.encode()), False)])


def test_signer_by_an_own_pki_is_named(pki):
    leaf = pki.leaf()
    who = check(evidence_of(pki, certificate=leaf), SignerMaterial(roots=(pki.root,)), pki=OWN)
    assert who.subject == "builder@example.org"
    given = SignerMaterial(roots=(pki.root,), intermediates=(pki.middle,))
    assert check(evidence_of(pki, certificate=leaf, chain=()), given, pki=OWN)


def test_signer_by_fulcio_and_a_log_is_named(pki, other_key):
    material = SignerMaterial(roots=(pki.root,), rekor=(other_key.public_key,))
    leaf = fulcio_leaf(pki)
    good = evidence_of(pki, certificate=leaf, entries=(entry_of(other_key),))
    assert check(good, material, fulcio=FULCIO, now=None).subject == "builder@example.org"


def refused(error, piece, *words, **named):
    with pytest.raises(error) as caught:
        check(*words, **named)
    assert type(caught.value) is error
    assert piece in str(caught.value)


def test_signer_with_a_key_where_a_certificate_is_demanded_is_refused(pki):
    """Step 1."""
    pki.leaf()
    refused(
        SignatureInvalid,
        "no certificate",
        evidence_of(pki),
        SignerMaterial(roots=(pki.root,)),
        pki=OWN,
    )


def test_signer_whose_certificate_is_of_another_key_is_refused(pki):
    """Step 5."""
    leaf = pki.leaf()
    pki.leaf("thief")
    stolen = evidence_of(pki, signer="thief", certificate=leaf)
    refused(
        SignatureInvalid,
        "does not verify with the key",
        stolen,
        SignerMaterial(roots=(pki.root,)),
        pki=OWN,
    )


def test_signer_of_another_authority_is_refused(pki):
    """Step 4."""
    evidence = evidence_of(pki, certificate=pki.leaf())
    stranger = type(pki)()
    for roots in ((stranger.root,), ()):
        refused(SignatureInvalid, "no given root", evidence, SignerMaterial(roots=roots), pki=OWN)


def test_signer_with_another_subject_is_refused(pki):
    """Step 6."""
    other = PKI(REFS, None, CertificateSubject(email="x@example.org"))
    evidence = evidence_of(pki, certificate=pki.leaf())
    refused(UntrustedSigner, "e-mail", evidence, SignerMaterial(roots=(pki.root,)), pki=other)


def test_signer_without_a_time_could_not_be_looked_at(pki):
    evidence = evidence_of(pki, certificate=pki.leaf())
    refused(CouldNotVerify, "time", evidence, SignerMaterial(roots=(pki.root,)), pki=OWN, now=None)


def test_signer_without_the_demanded_entry_is_refused(pki, other_key):
    """Step 2."""
    material = SignerMaterial(roots=(pki.root,), rekor=(other_key.public_key,))
    evidence = evidence_of(pki, certificate=fulcio_leaf(pki))
    refused(SignatureInvalid, "no entry", evidence, material, fulcio=FULCIO)


def test_signer_without_any_witness_is_refused_even_if_nobody_demands_one(pki):
    """Step 4: the parser demands one; the check does not rely on it."""
    evidence = evidence_of(pki, certificate=fulcio_leaf(pki))
    refused(
        SignatureInvalid,
        "nobody witnessed",
        evidence,
        SignerMaterial(roots=(pki.root,)),
        fulcio=FULCIO,
    )


def test_signer_logged_outside_of_the_certificates_life_is_refused(pki, other_key):
    """Step 4."""
    material = SignerMaterial(roots=(pki.root,), rekor=(other_key.public_key,))
    late = entry_of(other_key, datetime(2031, 1, 1, tzinfo=UTC))
    evidence = evidence_of(pki, certificate=fulcio_leaf(pki), entries=(late,))
    refused(SignatureInvalid, "not valid at", evidence, material, fulcio=FULCIO)


def test_signer_with_an_entry_about_something_else_is_refused(pki, other_key):
    """Step 2."""

    def about_something_else(*_, **__):
        raise SignatureInvalid("another payload")

    material = SignerMaterial(roots=(pki.root,), rekor=(other_key.public_key,))
    evidence = evidence_of(
        pki,
        certificate=fulcio_leaf(pki),
        entries=(entry_of(other_key),),
        check_log=about_something_else,
    )
    refused(SignatureInvalid, "another payload", evidence, material, fulcio=FULCIO)


def test_signer_with_one_good_entry_of_several_is_accepted(pki, other_key, key):
    material = SignerMaterial(roots=(pki.root,), rekor=(other_key.public_key,))
    entries = (entry_of(key), entry_of(other_key))
    evidence = evidence_of(pki, certificate=fulcio_leaf(pki), entries=entries)
    assert check(evidence, material, fulcio=FULCIO)


def test_signer_with_a_login_somewhere_else_is_refused(pki, other_key):
    """Step 6."""
    material = SignerMaterial(roots=(pki.root,), rekor=(other_key.public_key,))
    leaf = fulcio_leaf(pki, "https://evil.example.org")
    evidence = evidence_of(pki, certificate=leaf, entries=(entry_of(other_key),))
    refused(UntrustedSigner, "another issuer", evidence, material, fulcio=FULCIO)


def test_signer_without_the_demanded_stamp_is_refused(pki):
    """Step 3."""
    material = SignerMaterial(roots=(pki.root,), tsa=(pki.root,))
    evidence = evidence_of(pki, certificate=fulcio_leaf(pki))
    refused(SignatureInvalid, "no time stamp", evidence, material, fulcio=FULCIO)
    evidence = evidence_of(pki, certificate=fulcio_leaf(pki), stamps=(b"x",))
    refused(SignatureInvalid, "time stamp", evidence, material, fulcio=FULCIO)


def test_signer_by_a_key_needs_the_entry_too(key, other_key):
    """Step 2, for keys."""
    evidence = Evidence(DATA, key.sign(DATA), DATA, no_log)
    material = SignerMaterial(keys=(key.public_key,))
    assert check(evidence, material).fingerprint == key.public_key.fingerprint
    logged = SignerMaterial(keys=(key.public_key,), rekor=(other_key.public_key,))
    refused(SignatureInvalid, "no entry", evidence, logged)
    refused(SignatureInvalid, "none of the trusted keys", evidence, SignerMaterial())


def test_signer_with_one_witness_of_two_that_would_do(pki, other_key, key):
    """A trusted root file names logs and authorities; a signature has one of them or both."""
    material = SignerMaterial(
        roots=(pki.root,), rekor=(other_key.public_key,), tsa=(pki.root,), one_witness=True
    )
    leaf = fulcio_leaf(pki)
    logged = evidence_of(pki, certificate=leaf, entries=(entry_of(other_key),))
    assert check(logged, material, fulcio=FULCIO)
    bare = evidence_of(pki, certificate=leaf)
    refused(SignatureInvalid, "nobody witnessed", bare, material, fulcio=FULCIO)
    # What is there has to be good: another log, a stamp that is none.
    other = evidence_of(pki, certificate=leaf, entries=(entry_of(key),))
    refused(SignatureInvalid, "no given log", other, material, fulcio=FULCIO)
    both = evidence_of(pki, certificate=leaf, entries=(entry_of(other_key),), stamps=(b"x",))
    refused(SignatureInvalid, "time stamp", both, material, fulcio=FULCIO)
