# SPDX-License-Identifier: Apache-2.0
"""One signature and what it is held against: who made it, and what was noted on the way."""

import base64
import json
from datetime import UTC, datetime

import pytest

from imagers.errors import (
    CouldNotVerify,
    FormatError,
    LocalError,
    SignatureInvalid,
    UntrustedSigner,
)
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity, path_identity
from imagers.model.reference import parse_reference
from imagers.sign.formats.bundle import build_bundle
from imagers.sign.formats.notation.check import Outcome
from imagers.sign.formats.notation.signed import (
    NotationMaterial,
    NotationSigned,
    notation_statement,
)
from imagers.sign.formats.notation.trust_policy import Check, parse_trust_policy
from imagers.sign.formats.sigstore import sign_payload
from imagers.sign.found import (
    BundleSignature,
    Found,
    NotationSignature,
    Reading,
    SimpleSignature,
    Subject,
)
from imagers.sign.judge import Case, judge
from imagers.sign.materials import Material, SignerMaterial, Trust, load_trust
from imagers.sign.payload import PayloadType, build_payload
from imagers.sign.policy_json import parse_policy

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


def test_judge_of_simple_signing_names_the_key_that_gpg_named(case, manifest):
    payload = build_payload(NAME, digest_of(manifest), kind=PayloadType.SIMPLE)
    reading = Reading(payload, fingerprint="A" * 40)
    asked, notes = case(SimpleSignature(b"", readings={"$.default[0]": reading}), SIGNED_BY)
    signer = judge(asked)
    assert (signer.fingerprint, signer.reference) == ("A" * 40, NAME)
    assert signer.where == "$.default[0]"
    assert "A" * 40 in notes[0]
    assert [note.partition(" '")[0] for note in notes[1:]] == [
        f"is for manifest {digest_of(manifest)}",
        "is for the name",
    ]


LOG = {"rekorPublicKeyPath": "/r"}
LOGIN = {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({"keyPath": "/k"}, (False, False)),
        ({"keyPath": "/k", **LOG}, (False, True)),
        ({"fulcio": LOGIN, **LOG}, (True, True)),
        ({"pki": {"caRootsPath": "/ca", "subjectEmail": "a@b"}}, (True, False)),
    ],
    ids=["key", "key and log", "login", "authority"],
)
def test_judge_reads_of_a_signature_what_the_requirement_asks_for(
    case, key, manifest, monkeypatch, members, wanted
):
    """What a signer put beside it can neither help nor harm where nobody asks for it."""

    def read(_, *, with_certificate, with_entry):
        raise FormatError(f"asked for {with_certificate}, {with_entry}")

    monkeypatch.setattr("imagers.sign.certified.evidence.read_evidence", read)
    policy = parse_policy(json.dumps({"default": [{"type": "sigstoreSigned", **members}]}).encode())
    trust = Trust(policy.select(IDENTITY), {"$.default[0]": SignerMaterial()})
    signature = sign_payload(build_payload(NAME, digest_of(manifest)), key)
    asked, _ = case(signature, trust=trust)
    with pytest.raises(SignatureInvalid) as caught:
        judge(asked)
    assert str(caught.value).endswith(f"asked for {wanted[0]}, {wanted[1]}")


def bundle_requirement(key):
    data = base64.b64encode(key.public_key.to_pem()).decode()
    return {"type": "sigstoreBundle", "keyData": data}


def test_judge_of_a_bundle_notes_what_it_is_for_and_knows_no_name(case, key, manifest):
    bundle = BundleSignature(build_bundle(digest_of(manifest), key))
    asked, notes = case(bundle, bundle_requirement(key))
    signer = judge(asked)
    assert (signer.fingerprint, signer.reference) == (key.public_key.fingerprint, "")
    assert notes[-1] == f"is for manifest {digest_of(manifest)}"


@pytest.mark.parametrize(
    "raw",
    [b"{}", b'{"mediaType": "application/vnd.dev.sigstore.bundle.v9+json"}', b"\xff"],
    ids=["no type", "a type of later", "no JSON"],
)
def test_judge_of_a_bundle_that_cannot_be_read_is_no(case, key, raw):
    asked, notes = case(BundleSignature(raw), bundle_requirement(key))
    with pytest.raises(SignatureInvalid, match="signature 1 of 1"):
        judge(asked)
    assert notes == []


NOTATION = NotationSigned("/p", "/s", where="$.default[0]")


def trust_policy(**scopes):
    """One that tells the name of the statement for each scope."""
    return parse_trust_policy(
        json.dumps(
            {
                "version": "1.0",
                "trustPolicies": [
                    {
                        "name": name,
                        "registryScopes": [scope],
                        "signatureVerification": {"level": "permissive"},
                        "trustStores": ["ca:acme"],
                        "trustedIdentities": ["*"],
                    }
                    for name, scope in scopes.items()
                ],
            }
        ).encode(),
        what="trust policy",
    )


@pytest.fixture
def notation_case(case):
    """A function: the case of a signature of notation at a time, and its notes."""

    def make(now):
        asked, notes = case(NotationSignature(b"{}", "application/jose+json"))
        material = NotationMaterial(trust_policy(all="*"))
        return Case(
            asked.signature,
            asked.name,
            NOTATION,
            asked.subject,
            Trust(asked.trust.selected, {NOTATION.where: material}),
            IDENTITY,
            now,
            asked.note,
        ), notes

    return make


def test_judge_of_notation_needs_the_time(notation_case):
    asked, _ = notation_case(None)
    with pytest.raises(CouldNotVerify, match="time is not known"):
        judge(asked)


@pytest.mark.parametrize(
    ("fingerprint", "reference"), [("f" * 64, ""), ("", None)], ids=["authentic", "only noted"]
)
def test_judge_of_notation_notes_what_is_not_enforced(
    notation_case, monkeypatch, fingerprint, reference
):
    def check(*_, now, note, **__):
        note(f"was looked at at {now:%Y}")
        return Outcome(fingerprint, "CN=acme", ("not enforced: it is expired",))

    monkeypatch.setattr("imagers.sign.formats.notation.check.check_signature", check)
    asked, notes = notation_case(datetime(2026, 6, 1, tzinfo=UTC))
    signer = judge(asked)
    assert (None if signer is None else signer.reference) == reference
    assert notes == ["was looked at at 2026", "not enforced: it is expired"]


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (IDENTITY, "app"),
        (docker_identity(parse_reference("r.example/app/x:v1")), "all"),
        (path_identity("oci", "/images/app"), "all"),
    ],
    ids=["its repository", "below it", "no repository"],
)
def test_notation_statement_is_that_of_the_repository_or_for_all(identity, name):
    material = NotationMaterial(trust_policy(all="*", app="r.example/app"))
    statement = notation_statement(material, identity, "here")
    assert statement.name == name
    assert Check.AUTHENTICITY in statement.actions


def test_notation_statement_without_a_trust_policy_could_not_look():
    with pytest.raises(CouldNotVerify, match="the trust policy of here was not loaded"):
        notation_statement(Material(), IDENTITY, "here")
