# SPDX-License-Identifier: Apache-2.0
"""Whose tokens are taken in place of evidence, and what they are worth."""

import json
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.passports import Passports, parse_issuers
from imagers.broker.references import References
from imagers.broker.refusals import Refusal
from imagers.broker.releases import Credentials
from imagers.broker.resources import Resources
from imagers.broker.server import BrokerConfig, running
from imagers.broker.start import open_state
from imagers.broker.tenants import Tenants
from imagers.broker.tokens import GuestTokens, Judged, make_signing_key
from imagers.errors import FormatError, LocalError, TagMismatch, UsageError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.claims import claims_to_json
from imagers.kbs.jwe import open_answer
from imagers.kbs.messages import Attestation, hash_report_data
from imagers.kbs.tee_key import ECKey
from imagers.model.base64 import decode_base64url, encode_base64, encode_base64url
from imagers.model.digest import digest_of
from imagers.model.evidence import Claims
from imagers.model.keys import SecretKey
from imagers.model.strict_json import View, dump_json
from imagers.pki.algorithms import sign
from imagers.pki.jose import build_jws, sign_token
from tests.real_evidence import real_file
from tests.unit.broker.conftest import Now, Release, first_admin

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
GUEST = ECKey().public
ISSUER = "CoCo-Attestation-Service"
SNP = {
    "measurement": "ab" * 48,
    "policy_abi_major": 0,
    "policy_abi_minor": 31,
    "policy_smt_allowed": True,
    "policy_migrate_ma": False,
    "policy_debug_allowed": False,
    "policy_single_socket": False,
    "platform_smt_enabled": True,
    "platform_tsme_enabled": False,
    "reported_tcb_bootloader": 3,
    "reported_tcb_tee": 0,
    "reported_tcb_snp": 8,
    "reported_tcb_microcode": 115,
}
# As Trustee writes it, members in its order.
GOOD = {
    "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
    "iat": SECONDS,
    "ear.verifier-id": {
        "developer": "https://confidentialcontainers.org",
        "build": "attestation-service 0.1.0",
    },
    "submods": {
        "cpu0": {
            "ear.status": "affirming",
            "ear.trustworthiness-vector": {
                "instance-identity": 0,
                "configuration": 2,
                "executables": 3,
                "file-system": 0,
                "hardware": 2,
                "runtime-opaque": 0,
                "storage-opaque": 0,
                "sourced-data": 0,
            },
            "ear.appraisal-policy-id": "default",
            "ear.veraison.annotated-evidence": {
                "snp": SNP,
                "report_data": "00" * 48,
                "init_data": "00" * 32,
                "runtime_data_claims": {"nonce": "bm9uY2U=", "tee-pubkey": GUEST.to_json()},
            },
        }
    },
    "exp": SECONDS + 300,
    "iss": ISSUER,
}
CPU = "submods/cpu0/"
EVIDENCE = CPU + "ear.veraison.annotated-evidence/"


def changed(**paths):
    """The good claims with members changed; `...` removes one."""
    claims = deepcopy(GOOD)
    for path, value in paths.items():
        *way, last = path.split("/")
        place = claims
        for one in way:
            place = place[one]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return claims


def jwk_of(key, **members):
    numbers = key.public_key().public_numbers()
    parts = {name: encode_base64url(getattr(numbers, name).to_bytes(32)) for name in "xy"}
    return {"kty": "EC", "crv": "P-256", "alg": "ES256", **parts, **members}


def certificate(key, issuer=ROOT_KEY, *, ca=False, name="leaf", usages=None):
    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("root"))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer, hashes.SHA256())


ROOT = certificate(ROOT_KEY, ca=True, name="root")
FILES = {
    "keys.json": json.dumps({"keys": [jwk_of(KEY, kid="1", use="sig")]}).encode(),
    "root.pem": ROOT.public_bytes(Encoding.PEM),
    "private.json": json.dumps({"keys": [jwk_of(KEY, d="AA")]}).encode(),
    "none.json": b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}',
}


def x5c(*chain):
    return [encode_base64(one.public_bytes(Encoding.DER)) for one in chain]


def parsed(*issuers, allow_sample=False):
    table = dump_json({"issuers": list(issuers)})
    return parse_issuers(table, what="table", read=FILES.__getitem__, allow_sample=allow_sample)


def listed(**changes):
    entry = {"issuer": ISSUER, "keys": ["keys.json"], "tees": ["snp"], **changes}
    return {name: value for name, value in entry.items() if value is not ...}


def token(claims=GOOD, key=KEY, header=None):
    return sign_token(claims, key=key, header=header)


def check(text, *, tenant="default", now=NOW, **entry):
    return parsed(listed(**entry)).check(text, tenant=tenant, now=now)


def refused(text, where, why, **options):
    """The guest learns the step, and the owner what was expected."""
    with pytest.raises(Refusal) as caught:
        check(text, **options)
    assert (caught.value.name, caught.value.status) == ("TokenVerifierError", 401)
    assert where in caught.value.detail
    assert why in caught.value.told
    return caught.value


# --- what is taken


def test_guest_of_a_passport_is_who_its_key_is_of():
    guest = check(token())
    assert (guest.tee_pubkey, guest.tee, guest.issuer) == (GUEST, "snp", ISSUER)


@pytest.mark.parametrize("place", ["jwk", "header"])
def test_certificate_of_a_listed_root_is_a_key_of_the_issuer(place):
    chain = x5c(certificate(KEY), ROOT)
    header = {"jwk": jwk_of(KEY, x5c=chain)} if place == "jwk" else {"x5c": chain}
    assert check(token(header=header), keys=..., roots="root.pem").tee == "snp"


def test_issuer_without_a_name_is_listed_as_null():
    assert check(token(changed(iss=...)), issuer=None).issuer == "an issuer without a name"
    refused(token(changed(iss=...)), "1, issuer", "issuer")
    refused(token(), "1, issuer", "issuer", issuer=None)


def test_tenants_have_issuers_of_their_own():
    table = parsed(listed(tenant="b"), listed(tenant="c", tees=["tdx"]))
    assert table.check(token(), tenant="b", now=NOW).tee == "snp"
    for tenant, why in (("default", "listed for 'default'"), ("c", "one of tdx, got 'snp'")):
        with pytest.raises(Refusal) as caught:
            table.check(token(), tenant=tenant, now=NOW)
        assert why in caught.value.told


def test_audience_is_compared():
    good = token(changed(aud=["https://ours.example", "https://theirs.example"]))
    assert check(good, audience="https://ours.example").tee == "snp"
    refused(good, "2.5, for us", "audience")
    refused(token(), "2.5, for us", "audience", audience="https://ours.example")


# --- what it is worth


def worth(claims=GOOD, **entry):
    (found,) = check(token(claims), **entry).accepted
    return found


def test_word_of_an_issuer_is_nothing_by_default():
    found = worth()
    assert not found.appraisal.is_affirming
    (miss,) = found.appraisal.misses
    assert "not asked which machines are yours" in miss.told()
    assert (miss.member, miss.claim, miss.found, miss.source) == (
        "executables",
        "passport",
        ISSUER,
        "",
    )
    assert found.appraisal.vector == {"executables": 33}


def test_word_of_a_trusted_issuer_is_his_appraisal():
    assert worth(affirming="trusted").appraisal.is_affirming
    warning = changed(
        **{CPU + "ear.status": "warning", CPU + "ear.trustworthiness-vector/executables": 33}
    )
    assert not worth(warning, affirming="trusted").appraisal.is_affirming


@pytest.mark.parametrize("member", ["executables", "hardware"])
@pytest.mark.parametrize("value", [0, ...])
def test_trusted_issuer_who_did_not_look_at_the_guest_makes_nobody_known(member, value):
    claims = changed(**{f"{CPU}ear.trustworthiness-vector/{member}": value})
    found = worth(claims, affirming="trusted").appraisal
    assert not found.is_affirming
    assert f"says nothing of its {member}" in found.misses[0].told()


def test_warning_of_a_trusted_issuer_makes_nobody_known_whatever_he_affirms_beside_it():
    vector = CPU + "ear.trustworthiness-vector/"
    claims = changed(**{CPU + "ear.status": "warning", vector + "configuration": 36})
    found = worth(claims, affirming="trusted").appraisal
    assert not found.is_affirming
    assert "says warning" in found.misses[0].told()


def test_status_without_a_vector_makes_nobody_known():
    claims = changed(**{CPU + "ear.trustworthiness-vector": ...})
    assert not worth(claims, affirming="trusted").appraisal.is_affirming


@pytest.mark.parametrize("affirming", [..., "trusted"])
@pytest.mark.parametrize("status", ["contraindicated", "none", 96])
def test_part_that_is_contraindicated_or_unknown_is_nobodys(affirming, status):
    """Veraison calls so what has no good signature."""
    claims = changed(**{CPU + "ear.status": status})
    refused(token(claims), "7, worth", "status of cpu0", affirming=affirming)
    refused(token(claims), "7, worth", '"affirming": "reappraised"', affirming=affirming)


def test_claims_of_trustee_are_appraised_whatever_it_thought_of_them():
    claims = changed(
        **{
            CPU + "ear.status": "contraindicated",
            CPU + "ear.trustworthiness-vector": {
                "configuration": 36,
                "executables": 33,
                "hardware": 97,
            },
        }
    )
    found = worth(claims, affirming="reappraised")
    assert found.appraisal is None
    assert found.claims.measured == ({"snp_launch_measurement": "ab" * 48},)
    assert not appraise_claims(found.claims, {}, now=NOW).is_affirming


@pytest.mark.parametrize("number", [99, 1, -1])
@pytest.mark.parametrize("affirming", [..., "trusted", "reappraised"])
def test_evidence_that_its_verifier_could_not_read_is_nobodys(affirming, number):
    status = "contraindicated" if number == 99 else "affirming"
    claims = changed(
        **{CPU + "ear.status": status, CPU + "ear.trustworthiness-vector/hardware": number}
    )
    refused(token(claims), "5, read", "hardware", affirming=affirming)


def test_claims_that_cannot_be_appraised_are_refused():
    claims = changed(**{EVIDENCE + "snp": ..., EVIDENCE + "sgx": {}})
    refused(token(claims), "", "Trustee's names", affirming="reappraised", tees=["sgx"])
    debug = changed(**{EVIDENCE + "snp/policy_debug_allowed": True})
    refused(token(debug), "7, worth", "debugging", affirming="reappraised")


CLAIMS = Claims(
    tee="cca",
    tee_class="cpu",
    maker="Arm",
    measured=({"cca_realm_initial_measurement": "ab"},),
    debug=False,
    report_data="00",
    values={"one": 1},
    established_at=NOW,
    counts_if_measured=True,
)


def of_another_broker(claims, **changes):
    """A token of a broker of ours, which its key and issuer are of."""
    private = make_signing_key()
    tokens = GuestTokens(private, issuer="https://other.example")
    FILES["other.json"] = tokens.jwks()
    made = tokens.issue(
        [Judged(claims, appraise_claims(claims, {}, now=NOW), "by whom")],
        attestation=Attestation(nonce="bm9uY2U=", tee_pubkey=GUEST, primary_evidence={}),
        report_data=hash_report_data(nonce="bm9uY2U=", tee_pubkey=GUEST),
        now=NOW,
        expires=NOW + timedelta(minutes=5),
    )
    entry = {"issuer": "https://other.example", "keys": ["other.json"], "tees": ["cca"]}
    return made, {**entry, "affirming": "reappraised", **changes}


def test_token_of_another_broker_of_ours_has_all_its_claims():
    made, entry = of_another_broker(CLAIMS)
    (found,) = check(made, **entry).accepted
    assert found.claims.measured == CLAIMS.measured
    assert found.claims.counts_if_measured
    assert not appraise_claims(found.claims, {}, now=NOW).counts


@pytest.mark.parametrize("affirming", [..., "trusted", "reappraised"])
def test_token_that_was_made_under_roots_for_tests_is_nobodys(affirming):
    made, entry = of_another_broker(replace(CLAIMS, test_root=True), affirming=affirming)
    refused(made, "4, tests", "roots for tests", **entry)


@pytest.mark.parametrize("said", ["yes", 1, None, {}])
def test_mark_of_tests_in_another_form_is_one(said):
    refused(token(changed(**{"imagers.test-root": said})), "4, tests", "roots for tests")


def test_claims_of_another_tee_than_the_evidence_are_refused():
    told = claims_to_json(replace(CLAIMS, tee="tdx"))
    claims = changed(**{CPU + "imagers.claims": told})
    refused(token(claims), "7, worth", "expected 'snp', got 'tdx'", affirming="reappraised")
    told = claims_to_json(replace(CLAIMS, tee="snp"))
    claims = changed(**{CPU + "imagers.claims": told})
    assert worth(claims, affirming="reappraised").claims.measured == CLAIMS.measured


def test_claims_under_roots_for_tests_are_refused_where_only_they_say_so():
    told = claims_to_json(replace(CLAIMS, tee="snp", test_root=True))
    claims = changed(**{CPU + "imagers.claims": told})
    refused(token(claims), "7, worth", "roots for tests", affirming="reappraised")


# --- devices


GPU = {
    "ear.status": "affirming",
    "ear.trustworthiness-vector": {"hardware": 2},
    "ear.veraison.annotated-evidence": {"nvidia": {}, "report_data": "00"},
}


@pytest.mark.parametrize("name", ["gpu0", "gpu100", "some-gpu9"])
def test_device_counts_beside_its_machine(name):
    guest = check(
        token(changed(**{f"submods/{name}": GPU})), tees=["snp", "nvidia"], affirming="trusted"
    )
    assert [one.tee for one in guest.accepted] == ["snp", "nvidia"]
    assert all(one.appraisal.is_affirming for one in guest.accepted)


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"gpu0": GPU}, "6, parts"),
        ({"cpu0": GPU}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "cpu1": GOOD["submods"]["cpu0"]}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "gpu0": GOOD["submods"]["cpu0"]}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "x": GPU}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "gpu00": GPU}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "gpu1000": GPU}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "gpu-0": GPU}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "0": GPU}, "6, parts"),
        ({"CPU0": GOOD["submods"]["cpu0"]}, "6, parts"),
        ({"cpu0": GOOD["submods"]["cpu0"], "gpu0": {**GPU, "ear.status": "none"}}, "7, worth"),
    ],
)
def test_part_in_another_place_is_refused(parts, where):
    for affirming in (..., "trusted"):
        refused(
            token(changed(submods=parts)), where, "", tees=["snp", "nvidia"], affirming=affirming
        )


def test_device_needs_no_member_of_a_guests_vector_to_be_known():
    gpu = {**GPU, "ear.trustworthiness-vector": {"configuration": 2}}
    guest = check(
        token(changed(**{"submods/gpu0": gpu})), tees=["snp", "nvidia"], affirming="trusted"
    )
    assert all(one.appraisal.is_affirming for one in guest.accepted)


def test_device_that_is_a_sample_has_no_place_of_a_machine():
    device = deepcopy(GOOD["submods"]["cpu0"])
    evidence = device["ear.veraison.annotated-evidence"]
    evidence["sampledevice"] = evidence.pop("snp")
    table = parsed(listed(tees=["snp", "sample", "sampledevice"]), allow_sample=True)
    for parts in ({"cpu0": device}, {**GOOD["submods"], "cpu1": device}):
        with pytest.raises(Refusal) as caught:
            table.check(token(changed(submods=parts)), tenant="default", now=NOW)
        assert "which has another place" in caught.value.told
    parts = {**GOOD["submods"], "gpu0": device}
    assert table.check(token(changed(submods=parts)), tenant="default", now=NOW).tee == "snp"


def test_part_that_the_issuer_may_not_speak_for_is_refused():
    refused(token(), "6, parts", "one of tdx, got 'snp'", tees=["tdx"])
    with_gpu = token(changed(**{"submods/gpu0": GPU}))
    refused(with_gpu, "6, parts", "one of snp, got 'nvidia'")


@pytest.mark.parametrize(
    "evidence", [{}, {"snp": SNP, "tdx": {}}, {"snp": SNP, "sample": {}}, {"report_data": "00"}]
)
def test_evidence_of_no_tee_or_of_several_is_refused(evidence):
    kept = {"runtime_data_claims": {"tee-pubkey": GUEST.to_json()}}
    claims = changed(**{EVIDENCE[:-1]: {**evidence, **kept}})
    refused(token(claims), "6, parts", "TEE of cpu0", tees=["snp", "tdx", "sgx"])


def test_sample_is_nobodys_unless_it_is_allowed():
    with pytest.raises(UsageError, match="proves nothing") as caught:
        parsed(listed(tees=["snp", "sample"]))
    assert "--allow-sample-tee" in caught.value.hint
    with pytest.raises(UsageError, match="'sampledevice' proves nothing"):
        parsed(listed(tees=["snp", "sampledevice"]))
    claims = changed(**{EVIDENCE + "snp": ..., EVIDENCE + "sample": {}})
    refused(token(claims), "6, parts", "got 'sample'", affirming="trusted")
    table = parsed(listed(tees=["sample"]), allow_sample=True)
    assert table.check(token(claims), tenant="default", now=NOW).tee == "sample"


# --- the key


@pytest.mark.parametrize(
    "place",
    [
        "tdx/attester_runtime_data",
        "tdx/attester_user_data",
        "customized_claims/runtime_data",
        "submods/cpu0/ear.veraison.annotated-evidence/runtime_data_claims",
        "",
    ],
)
def test_key_is_found_where_trustee_looks_for_it(place):
    claims = changed(**{EVIDENCE + "runtime_data_claims": {}})
    holder = claims
    for one in filter(None, place.split("/")):
        holder = holder.setdefault(one, {})
    holder["tee-pubkey"] = GUEST.to_json()
    assert check(token(claims)).tee_pubkey == GUEST


def test_first_place_that_has_a_key_counts():
    other = ECKey().public
    claims = changed(**{"tee-pubkey": other.to_json(), "mine": {"a/b~c": other.to_json()}})
    assert check(token(claims)).tee_pubkey == GUEST
    assert check(token(claims), key_pointers=["/mine/a~1b~0c"]).tee_pubkey == other


@pytest.mark.parametrize("value", ["x", [], 7, None, {"attester_runtime_data": "tee-pubkey"}])
def test_place_that_leads_nowhere_is_passed_over(value):
    assert check(token(changed(tdx=value))).tee_pubkey == GUEST


def test_key_that_is_none_is_not_passed_over():
    claims = changed(tdx={"attester_runtime_data": {"tee-pubkey": None}})
    refused(token(claims), "", "expected an object")


@pytest.mark.parametrize(
    "key",
    [
        ...,
        {},
        [],
        "x",
        {**GUEST.to_json(), "y": GUEST.x},
        {**GUEST.to_json(), "crv": "P-384"},
        {**GUEST.to_json(), "alg": "none"},
    ],
)
def test_passport_that_binds_no_good_key_is_refused(key):
    refused(token(changed(**{EVIDENCE + "runtime_data_claims/tee-pubkey": key})), "", "passport")


# --- forged ones


FORGED = {
    "another key": token(key=OTHER),
    "another key in the header": token(key=OTHER, header={"jwk": jwk_of(OTHER)}),
    "a place of another key": token(key=OTHER, header={"jku": "https://evil.example", "kid": "1"}),
    "a place of a certificate": token(key=OTHER, header={"x5u": "https://evil.example"}),
    "a certificate of its own": token(
        key=OTHER, header={"x5c": x5c(certificate(OTHER, OTHER, ca=True, name="root"))}
    ),
    "a certificate for TLS": token(
        key=OTHER,
        header={"x5c": x5c(certificate(OTHER, usages=[x509.ExtendedKeyUsageOID.SERVER_AUTH]))},
    ),
    "another key beside the certificate": token(
        key=OTHER, header={"jwk": jwk_of(OTHER, x5c=x5c(certificate(KEY), ROOT))}
    ),
    "the key of the certificate beside another key": token(
        key=KEY, header={"jwk": jwk_of(OTHER, x5c=x5c(certificate(KEY), ROOT))}
    ),
    "critical members": token(header={"crit": ["b64"], "b64": False}),
    "no algorithm": token().split(".")[1].join(["eyJhbGciOiJub25lIn0.", ".AA"]),
    "RSA": token(key=rsa.generate_private_key(65537, 2048)),
}


@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("trust", ["keys", "roots"])
def test_forged_passport_is_refused(kind, trust):
    entry = {"keys": ["keys.json"]} if trust == "keys" else {"keys": ..., "roots": "root.pem"}
    if trust == "keys" and kind == "the key of the certificate beside another key":
        assert (
            check(FORGED[kind], **entry).tee == "snp"
        )  # the issuer's key, whatever the header says
        return
    refused(FORGED[kind], "", "", **entry)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES384", "RS256", "EdDSA", "es256", ""])
def test_algorithm_is_that_of_the_key(algorithm):
    members = build_jws({"alg": algorithm}, dump_json(GOOD), lambda data: sign(KEY, data))
    text = ".".join(members[one] for one in ("protected", "payload", "signature"))
    refused(text, "", "")


def raw(payload):
    members = build_jws({"alg": "ES256"}, payload, lambda data: sign(KEY, data))
    return ".".join(members[one] for one in ("protected", "payload", "signature"))


def test_name_twice_is_refused():
    text = dump_json(GOOD).decode()
    assert check(raw(text.encode())).tee == "snp"
    for member in ('"iss":"x",', '"exp":9999999999,', '"submods":{},'):
        refused(raw(("{" + member + text[1:]).encode()), "", "passport")


@pytest.mark.parametrize(
    ("claims", "where", "why"),
    [
        (changed(exp=...), "3, end", "does not say when it ends"),
        (changed(exp=SECONDS + 86_401), "3, end", "at most 1 day"),
        (changed(**{EVIDENCE + "runtime_data_claims": {}}), "8, key", "binds no public key"),
        (changed(exp=SECONDS - 61, iat=SECONDS - 300), "2.4, time", "end"),
        (changed(iat=SECONDS + 61), "2.4, time", "issued"),
        (changed(nbf=SECONDS + 61), "2.4, time", "valid from"),
        (changed(iss="another"), "1, issuer", "another"),
        (changed(iss=ISSUER.lower()), "1, issuer", "coco"),
        (changed(iss=7), "", "iss"),
        (changed(aud="somebody"), "2.5, for us", "audience"),
        (changed(eat_profile="tag:example.org,2026:mine"), "", "eat_profile"),
        (changed(eat_profile=...), "", "eat_profile"),
        (changed(exp="9999999999"), "", "exp"),
        (changed(exp=True), "", "exp"),
        (changed(submods={}), "", "submod"),
    ],
)
def test_passport_with_a_claim_that_is_not_good_is_refused(claims, where, why):
    refused(token(claims), where, why)


TOLD = [
    (
        changed(iss="x" * 300),
        f"issuer: expected one that is listed for 'default', got '{'x' * 200}'",
    ),
    (
        changed(exp=SECONDS + 86_401),
        "time from issue to end: expected at most 1 day, 0:00:00, got more",
    ),
    (changed(submods={"x" * 300: GPU}), f"parts: expected 'cpu0', got {'x' * 200}"),
    (
        changed(**{"submods/gpu0": GPU, EVIDENCE + "tdx": {}, EVIDENCE + "snp": ...}),
        "TEE: expected one of snp, got 'nvidia'",
    ),
    (changed(**{EVIDENCE + "snp": ...}), "TEE of cpu0: expected one, got none"),
    (
        changed(**{EVIDENCE + "a" * 150: {}, EVIDENCE + "b" * 150: {}, EVIDENCE + "snp": ...}),
        f"TEE of cpu0: expected one, got {'a' * 150}, {'b' * 48}",
    ),
]


@pytest.mark.parametrize(("claims", "told"), TOLD)
def test_owner_is_told_what_was_expected_and_found(claims, told):
    assert refused(token(claims), "", "").told.endswith(f": {told}")


def test_owner_is_told_of_claims_of_another_tee_and_of_a_key_that_is_none():
    other = claims_to_json(replace(CLAIMS, tee="t" * 60))
    claims = changed(**{CPU + "imagers.claims": other})
    found = refused(token(claims), "", "", affirming="reappraised")
    assert found.told.endswith(f"TEE of the claims of cpu0: expected 'snp', got '{'t' * 40}'")
    claims = changed(tdx={"attester_runtime_data": {"tee-pubkey": None}})
    found = refused(token(claims), "", "")
    assert found.told.startswith("passport: passport at /tdx/attester_runtime_data/tee-pubkey: ")


def test_text_that_is_no_token_is_told_as_it_is():
    found = refused("x", "", "")
    assert found.detail == "the token is no passport that is taken here"
    assert found.told == "passport: passport: expected a JWT"


@given(st.data())
def test_passport_with_any_claim_changed_is_refused_or_says_the_same(data):
    """A signature covers all of it: whatever is changed on the way is noticed."""
    parts = token().split(".")
    index = data.draw(st.integers(0, 2))
    place = data.draw(st.integers(0, len(parts[index]) - 1))
    letter = data.draw(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0_-"))
    if parts[index][place] == letter:
        return
    parts[index] = parts[index][:place] + letter + parts[index][place + 1 :]
    with pytest.raises(Refusal) as caught:
        check(".".join(parts))
    assert caught.value.name == "TokenVerifierError"


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_no_passport(text):
    with pytest.raises(Refusal):
        check(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*GOOD, *GOOD["submods"]["cpu0"], "cpu0", "snp", "tee-pubkey"]),
                inner,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([*GOOD, *(f"{CPU}{one}" for one in GOOD["submods"]["cpu0"])]),
    st.sampled_from([..., "trusted", "reappraised"]),
)
def test_what_an_issuer_writes_is_never_a_fault_of_the_broker(value, path, affirming):
    claims = changed(**{path: value})
    try:
        guest = check(token(claims), affirming=affirming)
    except Refusal:
        return
    assert guest.tee == "snp"


# --- real ones


@pytest.mark.parametrize(
    ("name", "issuer", "why"),
    [
        ("ear", None, "binds no public key"),
        ("simple", "CoCo-Attestation-Service", "ES256 or ES384, got RS384"),
    ],
)
def test_token_of_the_openanolis_service_is_good_and_binds_no_key(name, issuer, why):
    text = real_file(f"token/tng/{name}.jwt").read_text().strip()
    FILES["tng.pem"] = real_file(f"token/tng/{name}.as-ca.pem").read_bytes()
    payload = json.loads(decode_base64url(text.split(".")[1], what="token"))
    now = datetime.fromtimestamp(payload["iat"] + 60, UTC)
    entry = {"issuer": issuer, "keys": ..., "roots": "tng.pem", "tees": ["tdx"]}
    refused(text, "", why, now=now, affirming="trusted", **entry)
    late = now + timedelta(minutes=10)
    refused(text, "2.", "", now=late, affirming="trusted", **entry)


VERAISON = {
    one["name"]: one for one in json.loads((VECTORS / "veraison/exchange.json").read_bytes())
}
FILES["veraison.json"] = VERAISON["discovery"]["response"]["body"].encode()


def of_veraison(name):
    """A recorded result, its claims, and a time at which it counts."""
    text = json.loads(VERAISON[name]["response"]["body"])["result"]
    claims = json.loads(decode_base64url(text.split(".")[1], what="token"))
    return text, claims, datetime.fromtimestamp(claims["iat"], UTC)


def test_result_of_veraison_does_not_say_when_it_ends():
    text, claims, now = of_veraison("evidence")
    entry = {"issuer": claims.get("iss"), "keys": ["veraison.json"], "tees": ["cca"]}
    refused(text, "3, end", "does not say when it ends", now=now, affirming="trusted", **entry)


@pytest.mark.parametrize(
    ("name", "affirming", "is_known"),
    [
        ("evidence", "trusted", True),
        ("evidence", ..., False),
        ("evidence of another realm", "trusted", False),
        ("evidence of a platform with other firmware", "trusted", False),
    ],
)
def test_both_parts_of_a_result_of_veraison_are_one_guest(name, affirming, is_known):
    """As the service writes it, with an end and a key, which a newer one may have."""
    _, claims, now = of_veraison(name)
    whole = claims | {"exp": claims["iat"] + 300, "tee-pubkey": GUEST.to_json()}
    entry = {"issuer": claims.get("iss"), "tees": ["cca"], "affirming": affirming}
    (found,) = check(token(whole), now=now, **entry).accepted
    assert (found.tee, found.appraisal.is_affirming) == ("cca", is_known)
    entry["affirming"] = "reappraised"
    refused(token(whole), "7, worth", "cannot be appraised", now=now, **entry)
    for gone in claims["submods"]:
        part = whole | {"submods": {gone: claims["submods"][gone]}}
        refused(token(part), "6, parts", "those of a CCA guest", now=now, **entry)


def test_realm_whose_executables_nobody_looked_at_is_not_known():
    _, claims, now = of_veraison("evidence")
    claims["submods"]["CCA_REALM"]["ear.trustworthiness-vector"]["executables"] = 0
    whole = claims | {"exp": claims["iat"] + 300, "tee-pubkey": GUEST.to_json()}
    entry = {"issuer": claims.get("iss"), "tees": ["cca"], "affirming": "trusted"}
    (found,) = check(token(whole), now=now, **entry).accepted
    assert not found.appraisal.is_affirming


def test_realm_with_a_warning_is_not_known_whatever_is_said_of_its_platform():
    _, claims, now = of_veraison("evidence")
    claims["submods"]["CCA_REALM"]["ear.status"] = "warning"
    whole = claims | {"exp": claims["iat"] + 300, "tee-pubkey": GUEST.to_json()}
    entry = {"issuer": claims.get("iss"), "tees": ["cca"], "affirming": "trusted"}
    (found,) = check(token(whole), now=now, **entry).accepted
    assert "says warning" in found.appraisal.misses[0].told()


def test_parts_that_are_none_of_a_guest_of_veraison_are_told():
    _, claims, now = of_veraison("evidence")
    (_, part) = claims["submods"].popitem()
    whole = claims | {"exp": claims["iat"] + 300, "submods": {"x" * 300: part}}
    found = refused(token(whole), "6", "", now=now, issuer=claims.get("iss"), tees=["cca"])
    assert found.told.endswith(f": parts: expected those of a CCA guest, got {'x' * 200}")


def test_result_of_veraison_about_evidence_that_is_not_good_is_nobodys():
    for name in (
        "evidence for another nonce",
        "evidence of an unknown platform",
        "evidence with a signature that is not good",
    ):
        _, claims, now = of_veraison(name)
        whole = claims | {"exp": claims["iat"] + 300, "tee-pubkey": GUEST.to_json()}
        for affirming in (..., "trusted", "reappraised"):
            entry = {"issuer": claims.get("iss"), "tees": ["cca"], "affirming": affirming}
            refused(token(whole), "5, read", "could not read", now=now, **entry)


# --- the table


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        ({"issuer": ...}, "$.issuers[0].issuer", "is missing"),
        ({"issuer": ""}, "$.issuers[0].issuer", "a name, or null"),
        ({"issuer": 7}, "$.issuers[0].issuer", "expected a string"),
        ({"keys": ...}, "$.issuers[0]", "'keys' or 'roots'"),
        ({"keys": []}, "$.issuers[0]", "'keys' or 'roots'"),
        ({"tees": ...}, "$.issuers[0].tees", "expected a"),
        ({"tees": []}, "$.issuers[0].tees", "expected a"),
        ({"tees": ["SNP"]}, "$.issuers[0].tees", "the name of a TEE"),
        ({"affirming": "always"}, "$.issuers[0].affirming", "'trusted' or 'reappraised'"),
        ({"affirming": True}, "$.issuers[0].affirming", "expected a string"),
        ({"tenant": "A"}, "$.issuers[0].tenant", "lower-case"),
        ({"key_pointers": ["a"]}, "$.issuers[0].key_pointers", "a JSON pointer"),
        ({"key_pointers": ["/a~2"]}, "$.issuers[0].key_pointers", "a JSON pointer"),
        ({"jku": "https://x"}, "$.issuers[0]", "unknown member"),
    ],
)
def test_table_that_is_none_is_refused(change, where, why):
    with pytest.raises(FormatError, match=why) as caught:
        parsed(listed(**change))
    assert caught.value.where == where


@pytest.mark.parametrize(
    "table", [b"", b"[]", b"{}", b'{"issuers": []}', b'{"issuers": {}}', b'{"issuers": [], "x": 1}']
)
def test_document_that_is_no_table_is_refused(table):
    with pytest.raises(FormatError):
        parse_issuers(table, what="table", read=FILES.__getitem__, allow_sample=False)
    whole = dump_json({"issuers": [listed()], "more": 1})
    with pytest.raises(FormatError, match="unknown member 'more'"):
        parse_issuers(whole, what="table", read=FILES.__getitem__, allow_sample=False)


@pytest.mark.parametrize(
    ("member", "one", "most"),
    [("tees", "t{}", 32), ("key_pointers", "/{}", 16), ("keys", "keys.json", 16)],
)
def test_table_is_bounded(member, one, most):
    for count in (most, most + 1):
        entry = listed(**{member: [one.format(number) for number in range(count)]})
        if count == most:
            assert parsed(entry)
        else:
            with pytest.raises(FormatError, match=f"at most {most}"):
                parsed(entry)


@pytest.mark.parametrize("name", ["a", "0-9", "a" * 64])
def test_name_of_a_tenant_is_taken(name):
    assert parsed(listed(tenant=name)).check(token(), tenant=name, now=NOW).tee == "snp"


@pytest.mark.parametrize("name", ["a" * 65, "a\n", "-a", "a_b"])
def test_name_of_a_tenant_that_can_be_none_is_refused(name):
    with pytest.raises(FormatError, match="lower-case letters"):
        parsed(listed(tenant=name))


def test_longest_passport_counts_for_a_day():
    assert check(token(changed(exp=SECONDS + 86_400))).tee == "snp"


def test_issuer_that_is_listed_twice_is_refused():
    with pytest.raises(FormatError, match="twice for the tenant 'default'") as caught:
        parsed(listed(), listed(tenant="default"))
    assert caught.value.where == "$.issuers[1].issuer"


def test_table_has_no_more_issuers_and_bytes_than_one_reads():
    many = [listed(issuer=str(number)) for number in range(1001)]
    assert parsed(*many[:-1])
    with pytest.raises(FormatError, match="at most 1000"):
        parsed(*many)
    table = dump_json({"issuers": [listed()]})
    table += b" " * (256 * 1024 - len(table))
    assert parse_issuers(table, what="table", read=FILES.__getitem__, allow_sample=False)
    with pytest.raises(FormatError):
        parse_issuers(table + b" ", what="table", read=FILES.__getitem__, allow_sample=False)


@pytest.mark.parametrize("name", ["t", "t" * 32])
def test_name_of_a_tee_is_taken(name):
    assert parsed(listed(tees=[name])).tees == {name}


@pytest.mark.parametrize("name", ["t" * 33, "t\n", "-t", ""])
def test_name_of_a_tee_that_can_be_none_is_refused(name):
    with pytest.raises(FormatError, match="the name of a TEE"):
        parsed(listed(tees=[name]))


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"keys": ["private.json"]}, "got a private one"),
        ({"keys": ["none.json"]}, "a key of RSA or EC that signs"),
        ({"keys": ["root.pem"]}, "public key in PEM"),
        ({"roots": "keys.json"}, "PEM blocks"),
    ],
)
def test_file_of_a_table_that_is_none_is_refused(files, why):
    with pytest.raises(FormatError, match=why):
        parsed(listed(**files))


def test_no_table_is_empty():
    assert not Passports()
    assert parsed(listed(), listed(issuer="b", tees=["tdx"])).tees == {"snp", "tdx"}


def test_view_of_good_claims_is_what_trustee_writes():
    assert list(View(GOOD, what="token").value) == [
        "eat_profile", "iat", "ear.verifier-id", "submods", "exp", "iss",
    ]  # fmt: skip


# --- a broker that takes them


KEPT = "default/key/1"
SECRET = b"a very secret key-encryption key"
IMAGE = digest_of(b"manifest")
GUEST_KEY = ECKey()


def made_for(key):
    return {EVIDENCE + "runtime_data_claims/tee-pubkey": key.public.to_json()}


@pytest.fixture
def broker(tmp_path):
    """Its resources, under the default policy, with issuers that the test lists."""
    opened = []

    def make(**entry):
        (tmp_path / "keys.json").write_bytes(FILES["keys.json"])
        table = tmp_path / "issuers.json"
        table.write_bytes(dump_json({"issuers": [listed(**entry)]}))
        config = BrokerConfig(
            state_directory=tmp_path / "state", passport_issuers_file=table, clock=lambda: NOW
        )
        state = open_state(config)
        opened.append(state)
        admin = first_admin(state)
        resources = Now(Resources(state), admin)
        resources.release = Release(state)
        resources.put(KEPT, SecretKey(SECRET), replace=False)
        resources.bind(KEPT, json.dumps({"manifest_digest": str(IMAGE)}).encode())
        return resources, Now(References(state), admin), state

    yield make
    for one in opened:
        one.close()


def released(resources, claims):
    credentials = Credentials(bearer=token(claims))
    answer = resources.release(credentials, KEPT, [str(IMAGE)])
    with open_answer(answer, GUEST_KEY) as secret, secret.view() as data:
        return bytes(data)


def denied(resources, claims):
    with pytest.raises(Refusal) as caught:
        resources.release(Credentials(bearer=token(claims)), KEPT, [str(IMAGE)])
    return caught.value


def last_row(state):
    with state.store.transaction() as transaction:
        return transaction.list_audit(1)[0]


def test_trusted_passport_opens_what_needs_an_affirming_guest(broker):
    resources, _, state = broker(affirming="trusted")
    assert released(resources, changed(**made_for(GUEST_KEY))) == SECRET
    assert last_row(state)["detail"] == f"vouched for by {ISSUER}"


def test_passport_whose_word_is_nothing_opens_nothing_that_needs_an_affirming_guest(broker):
    resources, _, state = broker()
    refusal = denied(resources, changed(**made_for(GUEST_KEY)))
    assert (refusal.name, refusal.rule) == ("PolicyDeny", "bound-image")
    assert ISSUER not in refusal.detail
    assert "not asked which machines are yours" in last_row(state)["detail"]
    resources.set_policy(
        b'{"rules": [{"name": "genuine", "effect": "allow", "resource": "*/*/*", "image": "any"}]}'
    )
    assert released(resources, changed(**made_for(GUEST_KEY))) == SECRET


def test_reappraised_passport_opens_by_reference_values_of_this_broker(broker):
    resources, references, _ = broker(affirming="reappraised")
    claims = changed(**made_for(GUEST_KEY))
    assert denied(resources, claims).name == "NoReferenceValue"
    value = {"name": "snp_launch_measurement", "values": ["ab" * 48]}
    references.set(dump_json({"reference_values": [value]}), add=False)
    assert released(resources, claims) == SECRET
    other = changed(**made_for(GUEST_KEY), **{EVIDENCE + "snp/measurement": "ac" * 48})
    assert denied(resources, other).name == "PolicyDeny"
    references.delete("snp_launch_measurement")
    assert denied(resources, claims).name == "NoReferenceValue"


def test_passport_that_is_refused_has_its_reason_in_the_audit_log_only(broker):
    resources, _, state = broker(affirming="trusted", audience="https://ours.example")
    refusal = denied(resources, changed(aud="https://theirs.example"))
    assert refusal.name == "TokenVerifierError"
    assert "ours.example" not in refusal.detail
    assert "ours.example" in last_row(state)["detail"]


def test_passport_is_taken_where_its_issuer_is_listed_for_the_owner_alone(broker):
    resources, _, state = broker(affirming="trusted", tenant="a")
    admin, claims = first_admin(state), changed(**made_for(GUEST_KEY))
    tenants = Now(Tenants(state), admin)
    tenants.add("a")
    tenants.assign("of-a", b'{"tenant": "a"}')
    of_a = replace(admin, id="0" * 64, tenant="a")
    with state.store.transaction() as transaction:
        transaction.insert_admin(of_a)
    owner = Now(Resources(state), of_a)
    owner.put("of-a/key/1", SecretKey(SECRET), replace=False)
    owner.bind("of-a/key/1", json.dumps({"manifest_digest": str(IMAGE)}).encode())
    refusal = denied(resources, claims)
    assert refusal.name == "TokenVerifierError"
    assert (last_row(state)["tenant"], "'default'" in last_row(state)["detail"]) == (
        DEFAULT_TENANT,
        True,
    )
    credentials = Credentials(bearer=token(claims))
    answer = resources.release(credentials, "of-a/key/1", [str(IMAGE)])
    with open_answer(answer, GUEST_KEY) as secret, secret.view() as data:
        assert bytes(data) == SECRET
    assert last_row(state)["tenant"] == "a"


def test_answer_to_a_passport_is_for_nobody_who_stole_it(broker):
    resources, _, _ = broker(affirming="trusted")
    answer = resources.release(
        Credentials(bearer=token(changed(**made_for(GUEST_KEY)))), KEPT, [str(IMAGE)]
    )
    with pytest.raises(TagMismatch):
        open_answer(answer, ECKey())


def test_own_tokens_are_taken_beside_passports_and_nobodys_are_own(broker):
    _, _, state = broker(affirming="trusted")
    foreign = token(header={"kid": state.guest_tokens.key_id})
    with pytest.raises(Refusal) as caught:
        state.guest_of(foreign, DEFAULT_TENANT, now=NOW)
    assert "token" in caught.value.detail


def test_broker_of_passports_alone_can_release_something(broker):
    _, _, state = broker()
    assert state.why_nothing_is_released() == ""


def test_rule_for_a_device_that_passports_speak_for_can_release_something(broker):
    resources, _, state = broker(tees=["snp", "nvidia"])
    rule = {"name": "a", "effect": "allow", "resource": "*/*/*", "image": "any"}
    resources.set_policy(dump_json({"rules": [{**rule, "devices": ["nvidia"]}]}))
    assert state.why_nothing_is_released() == ""


def test_broker_with_passports_of_devices_alone_says_so(broker):
    _, _, state = broker(tees=["nvidia"])
    assert "no TEE beside which" in state.why_nothing_is_released()


def test_table_with_a_file_that_is_not_there_says_which(tmp_path):
    table = tmp_path / "issuers.json"
    table.write_bytes(dump_json({"issuers": [listed()]}))
    config = BrokerConfig(state_directory=tmp_path / "state", passport_issuers_file=table)
    with pytest.raises(LocalError) as caught:
        open_state(config)
    assert caught.value.path == str(tmp_path / "keys.json")
    assert "issuers.json" in str(caught.value)
    assert not (tmp_path / "state").exists()


def test_large_passport_is_taken_over_http(tmp_path, http_of):
    """Tokens of others are long: they carry event logs."""
    (tmp_path / "keys.json").write_bytes(FILES["keys.json"])
    table = tmp_path / "issuers.json"
    table.write_bytes(dump_json({"issuers": [listed()]}))
    config = BrokerConfig(
        state_directory=tmp_path / "state", port=0, passport_issuers_file=table, clock=lambda: NOW
    )
    claims = changed(**{EVIDENCE + "init_data_claims": "x" * 40_000})
    with running(config) as broker:
        assert broker.issuers == (f"{ISSUER} (snp)",)
        status, _, body = http_of(broker.url)(
            "GET", f"/kbs/v0/resource/{KEPT}", Authorization=f"Bearer {token(claims)}"
        )
    assert (status, json.loads(body)["type"].rpartition("/")[2]) == (404, "ResourceNotFound")
