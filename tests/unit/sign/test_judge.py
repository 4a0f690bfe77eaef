"""One signature and what it is held against: who made it, and what was noted on the way."""

import base64
import json

import pytest

from imagers.errors import CouldNotVerify, LocalError, SignatureInvalid, UntrustedSigner
from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.sign.found import Found, NotationSignature, Reading, SimpleSignature, Subject
from imagers.sign.judge import Case, judge, notation_statement
from imagers.sign.materials import Material, Trust, load_trust
from imagers.sign.payload import build_payload
from imagers.sign.policy_json import docker_identity, parse_policy
from imagers.sign.requirements import NotationSigned
from imagers.sign.sigstore import sign_payload

NAME = "r.example/app:v1"
IDENTITY = docker_identity(parse_reference(NAME))


@pytest.fixture
def case(key, manifest):
    """A function: the case of a signature against a policy with one key, and its notes."""

    def make(signature, requirement=None, trust=None):
        if trust is None:
            data = base64.b64encode(key.public_key.to_pem()).decode()
            entry = requirement or {"type": "sigstoreSigned", "keyData": data}
            policy = parse_policy(json.dumps({"default": [entry]}).encode())
            trust = load_trust(policy.select(IDENTITY), lambda _: b"key")
        subject = Subject(manifest, Found())
        notes = []
        return Case(
            signature,
            "signature 1 of 1",
            trust.selected.requirements[0],
            subject,
            trust,
            IDENTITY,
            None,
            notes.append,
        ), notes

    return make


def test_judge_names_the_signer_and_notes_each_check(case, key, manifest):
    asked, notes = case(sign_payload(build_payload(NAME, digest_of(manifest)), key))
    signer = judge(asked)
    assert signer.fingerprint == key.public_key.fingerprint
    assert signer.reference == NAME
    assert f"is for manifest {digest_of(manifest)}" in notes
    assert notes[-1] == f"is for the name '{NAME}', wanted was '{NAME}'"


def test_judge_notes_nothing_of_a_signature_by_another_key(case, other_key, manifest):
    asked, notes = case(sign_payload(build_payload(NAME, digest_of(manifest)), other_key))
    with pytest.raises(SignatureInvalid, match="signature 1 of 1"):
        judge(asked)
    assert notes == []


def test_judge_looks_at_the_digest_before_the_name(case, key, manifest):
    wrong_both = build_payload("r.example/other:v1", digest_of(b"another"))
    asked, _ = case(sign_payload(wrong_both, key))
    with pytest.raises(SignatureInvalid, match="is for another manifest"):
        judge(asked)
    wrong_name = build_payload("r.example/other:v1", digest_of(manifest))
    asked, notes = case(sign_payload(wrong_name, key))
    with pytest.raises(UntrustedSigner, match="is for another name"):
        judge(asked)
    assert f"is for manifest {digest_of(manifest)}" in notes


def test_judge_without_loaded_keys_could_not_look(case, key, manifest):
    signature = sign_payload(build_payload(NAME, digest_of(manifest)), key)
    asked, _ = case(signature)
    asked, _ = case(signature, trust=Trust(asked.trust.selected, {}))
    with pytest.raises(CouldNotVerify, match="were not loaded"):
        judge(asked)


SIGNED_BY = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}


@pytest.mark.parametrize(
    ("reading", "error", "message"),
    [
        (None, CouldNotVerify, "gpg was not asked"),
        (Reading(None, "", "", LocalError("gpg is missing")), CouldNotVerify, "gpg is missing"),
        (Reading(None, "", "expired", None), SignatureInvalid, "not accepted: expired"),
    ],
    ids=["not asked", "failed", "refused"],
)
def test_judge_takes_gpgs_word_and_no_silence_for_it(case, reading, error, message):
    readings = {} if reading is None else {"$.default[0]": reading}
    asked, _ = case(SimpleSignature(b"", readings=readings), SIGNED_BY)
    with pytest.raises(error, match=message):
        judge(asked)


def test_judge_of_notation_needs_the_time(case):
    asked, _ = case(NotationSignature(b"{}", "application/jose+json"))
    requirement = NotationSigned("/p", "/s", "$.default[0]")
    asked = Case(
        asked.signature,
        asked.name,
        requirement,
        asked.subject,
        Trust(asked.trust.selected, {"$.default[0]": Material()}),
        IDENTITY,
        None,
        print,
    )
    with pytest.raises(CouldNotVerify, match="time is not known"):
        judge(asked)


def test_notation_statement_without_a_trust_policy_could_not_look():
    with pytest.raises(CouldNotVerify, match="the trust policy of here was not loaded"):
        notation_statement(Material(), IDENTITY, "here")
