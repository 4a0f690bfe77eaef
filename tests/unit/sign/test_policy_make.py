# SPDX-License-Identifier: Apache-2.0
"""Policies of a few words are what policy.json would say."""

import pytest

from imagers.errors import FormatError, UsageError
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.sign.identity import MatchRepository
from imagers.sign.policy_make import (
    policy_of_identity,
    policy_of_key,
    policy_of_pin,
    requirement_of_keys,
)
from imagers.sign.requirements import CertificateSubject, InsecureAcceptAnything, walk

LOGIN = {"issuer": "https://login.example.org", "trusted_root": "root.json"}


def kinds(policy):
    """Each kind of requirement, with whether it is about the index."""
    return [(type(one).__name__, on_index) for one, on_index in walk(policy.default)]


def test_policy_of_a_key_takes_both_forms_of_the_image_and_of_its_index(key):
    pem = key.public_key.to_pem()
    policy = policy_of_key("k.pub", pem)
    assert kinds(policy) == [
        ("AnyOf", False),
        ("SigstoreSigned", False),
        ("SigstoreBundle", False),
        ("OnIndex", False),
        ("AnyOf", True),
        ("SigstoreSigned", True),
        ("SigstoreBundle", True),
    ]
    signed = policy.default[0].parts[0]
    assert (signed.key_paths, signed.signed_identity) == ((), MatchRepository())
    assert signed.key_datas == (pem,)  # read once: `--key <(...)` is a pipe
    assert policy.transports == {}


def test_policy_of_a_key_with_text_before_it_is_for_that_key(key):
    pem = b"Public-Key: (256 bit)\n" + key.public_key.to_pem()
    assert kinds(policy_of_key("k.pub", pem)) == kinds(
        policy_of_key("k.pub", key.public_key.to_pem())
    )


def test_policy_of_a_key_of_gpg_takes_its_signatures():
    policy = policy_of_key("k.gpg", b"\x99\x01")
    assert kinds(policy) == [
        ("AnyOf", False),
        ("SignedBy", False),
        ("OnIndex", False),
        ("SignedBy", True),
    ]


@pytest.mark.parametrize(
    ("data", "piece"),
    [
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "expected an OpenPGP public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "'k.pub'"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "'k.pub'"),
        (b"", "expected a public key in PEM, or an OpenPGP key"),
        (b"root:x:0:0::/root:/bin/sh\n", "expected a public key in PEM, or an OpenPGP key"),
    ],
)
def test_policy_of_what_is_no_public_key_is_refused(data, piece):
    with pytest.raises(FormatError) as caught:
        policy_of_key("k.pub", data)
    assert piece in str(caught.value)


def test_armored_key_of_gpg_is_one_of_gpg():
    armored = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
    assert requirement_of_keys({"k.asc": armored}, "matchExact")["keyType"] == "GPGKeys"


def test_keys_of_two_kinds_make_no_requirement(key):
    with pytest.raises(UsageError, match="keys of one kind") as caught:
        requirement_of_keys({"a": b"\x99", "b": key.public_key.to_pem()}, "matchExact")
    assert "anyOf" in caught.value.hint


@pytest.mark.parametrize(
    ("identity", "subject"),
    [
        ("a@b.example", CertificateSubject(email="a@b.example")),
        (
            "https://ci.example/o/r/w.yml@refs/heads/main",
            CertificateSubject(uri="https://ci.example/o/r/w.yml@refs/heads/main"),
        ),
        ("spiffe://d/builder", CertificateSubject(uri="spiffe://d/builder")),
    ],
)
def test_policy_of_an_identity_demands_it_in_every_form(identity, subject):
    policy = policy_of_identity(identity, **LOGIN)
    found = [one for one, _ in walk(policy.default) if hasattr(one, "fulcio")]
    assert len(found) == 4
    for one in found:
        assert (one.fulcio.issuer, one.fulcio.subject) == (LOGIN["issuer"], subject)
        assert one.trusted_root == "root.json"


def test_policy_of_a_pattern_demands_it():
    policy = policy_of_identity(r".*@b\.example", **LOGIN, is_pattern=True)
    assert policy.default[0].parts[0].fulcio.subject == CertificateSubject(pattern=r".*@b\.example")


@pytest.mark.parametrize("identity", ["builder", "", "github.com/org"])
def test_policy_of_what_no_certificate_holds_is_refused(identity):
    with pytest.raises(UsageError, match="expected an e-mail address or a URI"):
        policy_of_identity(identity, **LOGIN)


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1", "a{1000}{1000}"])
def test_policy_of_a_pattern_that_is_none_is_refused(pattern, capfd):
    with pytest.raises(FormatError, match="regular expression of RE2") as caught:
        policy_of_identity(pattern, **LOGIN, is_pattern=True)
    assert caught.value.where.endswith("fulcio.subjectRegexp")
    assert capfd.readouterr() == ("", "")


def test_policy_of_a_digest_is_for_a_name_with_a_digest_only():
    tagged = docker_identity(parse_reference("r.example/app:v1"))
    pinned = docker_identity(parse_reference("r.example/app@sha256:" + "0" * 64))
    assert policy_of_pin(tagged) is None
    assert [type(one) for one in policy_of_pin(pinned).default] == [InsecureAcceptAnything]
