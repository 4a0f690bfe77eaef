# SPDX-License-Identifier: Apache-2.0
import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jws import JWS

from imagers.broker.refusals import Refusal
from imagers.broker.tokens import (
    Accepted,
    GuestTokens,
    Judged,
    check_issuer,
    make_signing_key,
)
from imagers.errors import UsageError
from imagers.evidence.appraise import appraise_claims
from imagers.kbs.messages import Attestation, hash_report_data
from imagers.kbs.tee_key import ECKey
from imagers.model.evidence import Claims
from imagers.model.strict_json import View
from imagers.pki.jose import sign_token

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
KEY = ECKey().public

CLAIMS = Claims(
    tee="sample",
    tee_class="cpu",
    maker="nobody",
    measured=({"launch_digest": "abcde"},),
    firmware={"svn": "1"},
    tcb_status="OutOfDate",
    advisories=("A-1",),
    debug=False,
    report_data="00",
    values={"svn": "1", "uefi_event_logs": [{"long": 1}]},
    established_at=NOW,
    instance="chip",
)


def judged(claims, judge="by whom"):
    return Judged(claims, appraise_claims(claims, {}, now=NOW), judge)


def parts_of(token):
    return [json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]]


@pytest.fixture
def private():
    return make_signing_key()


@pytest.fixture
def tokens(private):
    return GuestTokens(private)


@pytest.fixture
def token(tokens):
    return issue(tokens, CLAIMS)


def issue(tokens, claims):
    return tokens.issue(
        [judged(claims)],
        attestation=Attestation(nonce="bm9uY2U=", tee_pubkey=KEY, primary_evidence={}),
        report_data=hash_report_data(nonce="bm9uY2U=", tee_pubkey=KEY),
        now=NOW,
        expires=LATER,
    )


def test_token_is_an_ear_with_the_members_of_trustee_in_order(token):
    header, payload = parts_of(token)
    assert header["typ"] == "JWT"
    assert header["alg"] == "ES256"
    assert list(header) == ["typ", "alg", "kid"]
    assert list(payload) == [
        "eat_profile",
        "iat",
        "ear.verifier-id",
        "submods",
        "exp",
        "iss",
        "imagers.tee",
        "imagers.store",
    ]
    assert payload["eat_profile"] == "tag:github.com,2024:confidential-containers/Trustee"
    assert payload["exp"] - payload["iat"] == 300


def test_token_of_a_guest_that_no_reference_value_knows_says_so(token):
    appraisal = parts_of(token)[1]["submods"]["cpu0"]
    assert appraisal["ear.status"] == "contraindicated"
    vector = appraisal["ear.trustworthiness-vector"]
    assert max(vector.values()) == 97
    assert vector["executables"] == 33


def test_token_has_the_key_where_trustee_looks_for_it(token):
    evidence = parts_of(token)[1]["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert evidence["runtime_data_claims"]["tee-pubkey"] == KEY.to_json()
    assert evidence["sample"] == {"svn": "1"}


def event(number, **members):
    """One that an agent measured, as a verifier tells of it."""
    data = {"domain": "imagers", "operation": "PullImage", "content": {"image": number}}
    return {
        "index": 14,
        "type_name": "EV_EVENT_TAG",
        "digests": [{"alg": "SHA-256", "digest": "00" * 32}],
        "event": "TEVBQQ==",
        "details": {"string": "long", "unicode_name": "AAEL", "data": data},
        "digest_matches_event": True,
        **members,
    }


def events_in_a_token(tokens, events):
    claims = replace(CLAIMS, values={"svn": "1", "uefi_event_logs": events})
    evidence = parts_of(issue(tokens, claims))[1]["submods"]["cpu0"][
        "ear.veraison.annotated-evidence"
    ]
    return evidence["sample"].get("uefi_event_logs")


def test_token_has_of_an_event_log_what_an_agent_measured(tokens):
    others = [
        {"index": 4, "details": {"string": "a kernel"}, "digest_matches_event": True},
        event(2, digest_matches_event=False),
        event(3, details={}),
    ]
    (told,) = events_in_a_token(tokens, [*others, event(1)])
    assert told["index"] == 14
    assert told["details"] == {"unicode_name": "AAEL", "data": event(1)["details"]["data"]}
    assert told["digests"] == event(1)["digests"]
    assert "event" not in told
    assert events_in_a_token(tokens, others) is None


def test_token_has_none_of_too_many_events(tokens):
    """A policy that asks for one then says no."""
    assert len(events_in_a_token(tokens, [event(one) for one in range(20)])) == 20
    assert events_in_a_token(tokens, [event(one) for one in range(60)]) is None


def test_others_check_a_token_with_the_published_key_of_its_id(tokens, token):
    """As Trustee does: it finds the key by `kid`, takes `alg` of it, and wants no jwk beside."""
    (published,) = json.loads(tokens.jwks())["keys"]
    assert list(published) == ["kty", "crv", "alg", "x", "y", "kid", "use"]
    assert (published["alg"], published["use"]) == ("ES256", "sig")
    key = JWK(**published)
    assert published["kid"] == key.thumbprint() == parts_of(token)[0]["kid"]
    checked = JWS.from_jose_token(token)
    checked.verify(key, "ES256")
    assert json.loads(checked.payload)["iss"] == "imagers-broker"


def test_key_set_has_no_private_key_in_it(tokens):
    assert not JWKSet.from_json(tokens.jwks().decode()).get_key(tokens.key_id).has_private


def test_issuer_that_is_a_url_is_discovered_below_it(private):
    tokens = GuestTokens(private, issuer="https://broker.example/kbs")
    found = json.loads(tokens.discovery())
    assert found["issuer"] == "https://broker.example/kbs"
    assert found["jwks_uri"] == "https://broker.example/kbs/.well-known/jwks.json"
    assert found["id_token_signing_alg_values_supported"] == ["ES256"]


def test_issuer_that_is_a_name_is_not_discovered(tokens):
    assert tokens.discovery() is None


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a\n", "http://broker", "https://", "https://a/", "https://a?b", "x:y", "a" * 201],
)
def test_issuer_that_can_be_none_refused(name):
    with pytest.raises(UsageError, match="issuer: expected an https URL") as caught:
        check_issuer(name)
    assert "--issuer" in caught.value.hint


@pytest.mark.parametrize("name", ["imagers-broker", "https://b", "https://broker.example:8443/a"])
def test_issuer_can_be_a_name_or_a_url(name):
    check_issuer(name)


def test_check_gives_the_guest_back(tokens, token):
    guest = tokens.check(token, now=NOW)
    assert (guest.tee, guest.tee_pubkey) == ("sample", KEY)
    assert guest.accepted == (
        Accepted(replace(CLAIMS, values={}, instance=""), "by whom", ("cpu0",)),
    )
    assert guest.evidence_of(guest.accepted[0])["sample"] == {"svn": "1"}


def test_guest_of_a_token_is_the_same_where_it_was_made_and_where_it_is_verified(tokens, token):
    made = tokens.check(token, now=NOW)
    tokens._good.clear()
    verified = tokens.check(token, now=NOW)
    assert made == verified
    assert json.dumps(made.claims) == json.dumps(verified.claims)


def test_no_more_tokens_are_remembered_than_there_may_be(tokens, token):
    for number in range(300):
        tokens._remember(f"{number}", View(parts_of(token)[1], what="token"))
    assert len(tokens._good) == 256
    assert token not in tokens._good


def test_token_made_under_a_root_for_tests_says_so(tokens, token):
    assert "imagers.test-root" not in parts_of(token)[1]
    claims = replace(CLAIMS, test_root=True)
    made = tokens.issue(
        [judged(claims)],
        attestation=Attestation(nonce="bm9uY2U=", tee_pubkey=KEY, primary_evidence={}),
        report_data=hash_report_data(nonce="bm9uY2U=", tee_pubkey=KEY),
        now=NOW,
        expires=LATER,
    )
    assert parts_of(made)[1]["imagers.test-root"] is True
    assert tokens.check(made, now=NOW).accepted[0].claims.test_root


def test_token_has_a_submod_for_each_device_and_gives_them_back_in_their_order(tokens):
    devices = [replace(CLAIMS, tee=name, tee_class="gpu") for name in ("b", "a")]
    made = tokens.issue(
        [judged(CLAIMS), *(judged(one, "of a device") for one in devices)],
        attestation=Attestation(nonce="bm9uY2U=", tee_pubkey=KEY, primary_evidence={}),
        report_data=hash_report_data(nonce="bm9uY2U=", tee_pubkey=KEY),
        now=NOW,
        expires=LATER,
    )
    assert list(parts_of(made)[1]["submods"]) == ["cpu0", "gpu0", "gpu1"]
    guest = tokens.check(made, now=NOW)
    assert guest.tee == "sample"
    assert [(one.claims.tee, one.judge) for one in guest.accepted] == [
        ("sample", "by whom"),
        ("b", "of a device"),
        ("a", "of a device"),
    ]


def test_check_of_a_token_just_made_says_what_it_says_to_who_reads_it(private, tokens, token):
    """What is remembered is what stands in it."""
    assert tokens.check(token, now=NOW) == GuestTokens(private).check(token, now=NOW)


def test_check_of_a_token_that_is_like_a_known_one_refused(tokens, token):
    tokens.check(token, now=NOW)
    head, body, signature = token.split(".")
    for other in (f"{head}.{body}.{'A' * len(signature)}", token + "A", token + "=", token + " "):
        with pytest.raises(Refusal, match="TokenVerifierError"):
            tokens.check(other, now=NOW)


@pytest.mark.parametrize("now", [LATER, NOW - timedelta(minutes=6)], ids=["over", "to come"])
def test_check_of_a_known_token_judges_its_times_each_time(tokens, token, now):
    tokens.check(token, now=NOW)
    with pytest.raises(Refusal, match=r"has expired|from the future"):
        tokens.check(token, now=now)


def test_check_by_another_process_with_the_same_key(private, token):
    assert GuestTokens(private).check(token, now=NOW).tee == "sample"


@pytest.mark.parametrize("now", [LATER, LATER + timedelta(days=1)])
def test_check_expired_refused(tokens, token, now):
    with pytest.raises(Refusal, match="expired") as caught:
        tokens.check(token, now=now)
    assert caught.value.status == 401


def test_check_token_of_a_clock_that_was_far_ahead_refused(tokens, token):
    """It would be good for as long as the clock was ahead."""
    assert tokens.check(token, now=NOW - timedelta(minutes=5)).tee == "sample"
    with pytest.raises(Refusal, match="from the future") as caught:
        tokens.check(token, now=NOW - timedelta(minutes=5, seconds=1))
    assert caught.value.name == "TokenVerifierError"


def test_check_of_another_broker_refused_though_its_key_is_in_the_header(token):
    with (
        make_signing_key() as other,
        pytest.raises(Refusal, match="token: the signature does not fit"),
    ):
        GuestTokens(other).check(token, now=NOW)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é.b.c", "a" * 200_000])
def test_check_text_that_is_no_token_refused(tokens, text):
    with pytest.raises(Refusal) as caught:
        tokens.check(text, now=NOW)
    assert caught.value.name == "TokenVerifierError"


@pytest.mark.parametrize(
    "payload",
    [{}, {"exp": 9e9}, {"exp": 99999999999, "imagers.tee": "snp", "submods": {"a": 1, "b": 2}}],
    ids=str,
)
def test_check_own_signature_on_something_else_refused(private, tokens, payload):
    with private.view() as data:
        key = load_pem_private_key(bytes(data), None)
    with pytest.raises(Refusal):
        tokens.check(sign_token(payload, key=key), now=NOW)
