# SPDX-License-Identifier: Apache-2.0
"""Veraison's word for a platform: what the real service said, replayed, and what a liar would."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError, LocalError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.cca.remote import RemoteCCAVerifier
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import find_parser, load_verifier
from imagers.evidence.veraison import DISCOVERY, RESULT
from imagers.model.base64 import encode_base64url
from imagers.model.evidence import Bound, RemoteVerifier
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.pki.jose import sign_token

VECTORS = Path(__file__).parents[3] / "vectors" / "veraison"
EXCHANGE = {one["name"]: one for one in json.loads((VECTORS / "exchange.json").read_text())}
NOW = datetime(2026, 11, 30, 1, 14, tzinfo=UTC)
NONCE = bytes(range(48))
URL = "https://veraison.example.org"
KEY = ec.generate_private_key(ec.SECP256R1())


def evidence(name="evidence"):
    return find_parser("cca")(base64.b64decode(EXCHANGE[name]["request"]["body"]))


def token(name="evidence"):
    return json.loads(EXCHANGE[name]["response"]["body"])["result"]


def payload(name="evidence"):
    part = token(name).split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=="))


def documents(name="evidence", **others):
    discovery = EXCHANGE["discovery"]["response"]["body"].encode()
    return {DISCOVERY: discovery, RESULT: token(name).encode(), **others}


def verifier(**settings):
    view = View({"veraison": {"url": URL, **settings}}, what="settings for cca")
    return load_verifier("cca", settings=view)


def verify(name="evidence", *, answer=None, said=None, bound=None, now=NOW, **settings):
    """Judge the evidence of one request with the answer to another, or with what a liar says."""
    notes = []
    collateral = documents(answer or name)
    if said is not None:
        numbers = KEY.public_key().public_numbers()
        x, y = (encode_base64url(one.to_bytes(32)) for one in (numbers.x, numbers.y))
        settings["keys"] = {"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y}
        collateral[RESULT] = sign_token(said, key=KEY).encode()
    claims = verifier(**settings).verify(
        evidence(name),
        bound=Bound(NONCE) if bound is None else bound,
        collateral=collateral,
        now=now,
        note=notes.append,
    )
    return claims, notes


def refused(*names, error=EvidenceRejected, **more):
    with pytest.raises(error) as caught:
        verify(*names, **more)
    return str(caught.value)


def test_evidence_that_the_service_calls_affirming_is_genuine_and_is_whose_the_values_say():
    claims, notes = verify()
    assert claims.maker == "Arm CCA, a platform that Veraison Project N/A vouches for"
    assert [note.partition(",")[0] for note in notes[-6:]] == [
        f"step {number}" for number in range(1, 7)
    ]
    known = {name: ReferenceValue(name, (one,)) for name, one in claims.measured[0].items()}
    assert appraise_claims(claims, known, now=NOW).is_affirming
    assert not appraise_claims(claims, {}, now=NOW).is_affirming


def test_without_report_data_the_nonce_is_the_realms_own():
    verify(bound=Bound())
    assert "step 1.6, nonce" in refused(bound=Bound(b"x" * 48))


@pytest.mark.parametrize(
    "name",
    [
        "evidence for another nonce",
        "evidence of an unknown platform",
        "evidence with a signature that is not good",
    ],
)
def test_evidence_that_the_service_rejects_is_refused(name):
    told = refused(name)
    assert "step 2, platform: parts of the result: expected CCA_SSD_PLATFORM and CCA_REALM" in told
    assert "ARM_CCA: contraindicated" in told


def test_platform_that_is_a_warning_is_refused():
    told = refused("evidence of a platform with other firmware")
    assert told.endswith("status of CCA_SSD_PLATFORM: expected affirming, got warning")


def test_realm_that_the_service_does_not_know_is_for_reference_values_to_say():
    claims, _ = verify("evidence of another realm")
    assert claims.measured[0]["cca_realm_initial_measurement"] == (b"m" * 32).hex()


@pytest.mark.parametrize("name", ["evidence of another realm", "evidence of an unknown platform"])
def test_result_of_other_evidence_is_refused(name):
    """A good result, and evidence that was never shown to the service."""
    assert "the result is of other evidence" in refused(name, answer="evidence")


def lie(**changes):
    said = payload()
    said["iat"] = int(NOW.timestamp())
    platform, realm = said["submods"]["CCA_SSD_PLATFORM"], said["submods"]["CCA_REALM"]
    for path, value in changes.items():
        part, _, member = path.partition("__")
        {"platform": platform, "realm": realm}[part]["ear.veraison.annotated-evidence"][
            member.replace("_", "-")
        ] = value
    return said


def test_every_claim_of_the_result_has_to_be_that_of_the_evidence():
    verify(said=lie())
    for part, submod in (("platform", "CCA_SSD_PLATFORM"), ("realm", "CCA_REALM")):
        claims = payload()["submods"][submod]["ear.veraison.annotated-evidence"]
        assert len(claims) >= 7
        for name in claims:
            told = refused(said=lie(**{f"{part}__{name}": "x"}))
            assert told.endswith(f"the result is of other evidence: {name} of {submod} differs")


def test_realm_without_an_identity_is_refused():
    said = lie()
    said["submods"]["CCA_REALM"]["ear.trustworthiness-vector"]["instance-identity"] = 97
    said["submods"]["CCA_REALM"]["ear.status"] = "contraindicated"
    assert "instance-identity of CCA_REALM: expected 2 to 31, got 97" in refused(said=said)


def test_platform_whose_identity_was_not_looked_at_is_refused():
    """A status alone may be that of nothing."""
    said = lie()
    said["submods"]["CCA_SSD_PLATFORM"]["ear.trustworthiness-vector"] = {}
    assert "instance-identity of CCA_SSD_PLATFORM: expected 2 to 31, got 0" in refused(said=said)


def test_keys_are_one_or_a_list():
    numbers = KEY.public_key().public_numbers()
    x, y = (encode_base64url(one.to_bytes(32)) for one in (numbers.x, numbers.y))
    jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    assert verifier(keys=[jwk, jwk]).keys == (KEY.public_key(),) * 2
    assert verifier(keys=jwk).keys == (KEY.public_key(),)
    with pytest.raises(FormatError, match="not empty"):
        verifier(keys=[])


def test_result_by_another_key_is_refused():
    assert "step 1.3, signature" in refused(
        keys={
            "kty": "EC",
            "crv": "P-256",
            "x": encode_base64url(KEY.public_key().public_numbers().x.to_bytes(32)),
            "y": encode_base64url(KEY.public_key().public_numbers().y.to_bytes(32)),
        }
    )


def test_result_that_is_old_is_refused():
    assert "step 1.4, time" in refused(now=NOW + timedelta(minutes=10))


def test_realm_is_bound_and_signed_also_where_the_service_says_so():
    """The service may be wrong about what it did not look at."""
    good = evidence()
    changed = bytearray(good.raw)
    changed[-1] ^= 1
    with pytest.raises(EvidenceRejected, match="step 4, realm"):
        verifier().verify(
            find_parser("cca")(bytes(changed)),
            bound=Bound(NONCE),
            collateral=documents(),
            now=NOW,
            note=lambda _: None,
        )


@pytest.mark.parametrize("missing", [DISCOVERY, RESULT])
def test_document_that_is_missing_is_could_not_look(missing):
    found = {name: one for name, one in documents().items() if name != missing}
    with pytest.raises(CouldNotVerify, match="step 1, service: there is no"):
        verifier().verify(evidence(), bound=Bound(), collateral=found, now=NOW, note=lambda _: None)


def test_judge_asks_the_service_with_the_report_data_as_nonce(monkeypatch):
    asked = []

    def ask(self, _evidence, *, profile, nonce):
        asked.append((self.url, profile, nonce))
        return documents()

    monkeypatch.setattr("imagers.evidence.veraison.Veraison.ask", ask)
    one = verifier()
    assert isinstance(one, RemoteVerifier)
    judge_parsed(one, evidence(), bound=Bound(NONCE), read=lambda _: None, now=NOW)
    assert asked == [(URL, "http://arm.com/CCA-SSD/1.0.0", NONCE.ljust(64, b"\0"))]


@pytest.mark.parametrize(
    ("settings", "piece"),
    [
        ({"url": "http://veraison.example.org"}, "expected https"),
        ({"url": f"{URL}/path"}, "without a path"),
        ({"url": "veraison"}, "url"),
        ({"keys": {"kty": "oct", "k": "AA"}}, "key"),
        ({"more": 1}, "more"),
    ],
)
def test_settings_that_are_none_are_refused(settings, piece):
    with pytest.raises(FormatError, match=piece):
        verifier(**settings)


def test_file_of_certificates_that_is_none_is_told_at_the_start(tmp_path):
    with pytest.raises(LocalError, match="could not be read"):
        verifier(ca_file=str(tmp_path / "none.pem"))


def test_service_takes_the_place_of_keys():
    for more, roots in (({"trust_anchors": []}, None), ({}, b"x")):
        view = View({"veraison": {"url": URL}, **more}, what="settings")
        with pytest.raises(FormatError, match="no other keys beside the service"):
            load_verifier("cca", settings=view, roots=roots)
    view = View({"veraison": {"url": URL}, "debug": True}, what="settings")
    made = load_verifier("cca", settings=view)
    assert isinstance(made, RemoteCCAVerifier)
    assert made.debug
