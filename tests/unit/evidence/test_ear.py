# SPDX-License-Identifier: Apache-2.0
"""Each step of reading another verifier's result says no to one thing that is wrong."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence import ear
from imagers.evidence.ear import EARTrust, parse_keys, read_ear
from imagers.model.base64 import encode_base64, encode_base64url
from imagers.model.strict_json import View, dump_json
from imagers.pki.algorithms import sign
from imagers.pki.chain import parse_certificates
from imagers.pki.jose import build_jws, sign_token
from tests.real_evidence import real_file

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ROOT_KEY = ec.generate_private_key(ec.SECP384R1())
NONCE = b"n" * 32
GOOD = {
    "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
    "iat": SECONDS,
    "exp": SECONDS + 300,
    "iss": "CoCo-Attestation-Service",
    "eat_nonce": encode_base64url(NONCE),
    "ear.verifier-id": {"developer": "https://example.org", "build": "1"},
    "submods": {
        "cpu0": {
            "ear.status": "affirming",
            "ear.trustworthiness-vector": {"executables": 3, "hardware": 2, "file-system": 0},
            "ear.appraisal-policy-id": "default",
            "ear.veraison.annotated-evidence": {"report_data": "00"},
        }
    },
}


def certificate(key, issuer=ROOT_KEY, *, ca=False, begin=NOW, usages=None, name="leaf"):
    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("root"))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin - timedelta(days=1))
        .not_valid_after(begin + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer, hashes.SHA256())


ROOT = certificate(ROOT_KEY, ca=True, name="root")


def jwk_of(key, chain=(), encode=encode_base64):
    numbers = key.public_key().public_numbers()
    parts = {name: encode_base64url(getattr(numbers, name).to_bytes(32)) for name in "xy"}
    found = {"kty": "EC", "crv": "P-256", **parts}
    if chain:
        found["x5c"] = [encode(one.public_bytes(Encoding.DER)) for one in chain]
    return found


def token(key=KEY, header=None, /, **changes):
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    return sign_token(claims, key=key, header=header)


def read(text, *, keys=(KEY,), roots=(), nonce=NONCE, now=NOW, **trust):
    public = tuple(one.public_key() for one in keys)
    return read_ear(text, trust=EARTrust(public, roots, **trust), nonce=nonce, now=now)


def refused(step, text, piece="", **options):
    with pytest.raises(EvidenceRejected) as caught:
        read(text, **options)
    assert caught.value.step == step
    assert piece in str(caught.value)


def test_result_with_a_key_that_was_given_is_believed():
    found = read(token(), issuer="CoCo-Attestation-Service")
    assert (found.status, found.verifier) == ("affirming", "https://example.org 1")
    part = found.submods["cpu0"]
    assert part.vector == {"executables": 3, "hardware": 2, "file-system": 0}
    assert part.policy == "default"
    assert part.evidence == {"report_data": "00"}
    assert "report_data" not in repr(found)


def test_key_on_the_larger_curve_signs_with_its_algorithm():
    key = ec.generate_private_key(ec.SECP384R1())
    assert read(token(key), keys=(KEY, key)).status == "affirming"


@pytest.mark.parametrize(
    "encode",
    [encode_base64, encode_base64url, lambda data: encode_base64(data).rstrip("=")],
    ids=["plain", "url", "bare"],
)
@pytest.mark.parametrize("place", ["jwk", "header"])
def test_certificate_that_leads_to_a_root_is_believed(place, encode):
    chain = [certificate(KEY), ROOT]
    jwk = jwk_of(KEY, chain, encode)
    header = {"jwk": jwk} if place == "jwk" else {"x5c": jwk["x5c"]}
    assert read(token(KEY, header), keys=(), roots=(ROOT,)).status == "affirming"
    refused("2, key", token(KEY, header), "of nobody whose key", keys=())
    stranger = certificate(OTHER, OTHER, ca=True, name="root")
    refused("2, key", token(KEY, header), "certificate of", keys=(), roots=(stranger,))


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"begin": NOW - timedelta(days=60)}, "not valid at"),
        ({"begin": NOW + timedelta(days=60)}, "not valid at"),
        ({"issuer": OTHER}, "no given root"),
        ({"ca": True}, "of an authority"),
        ({"usages": [x509.ExtendedKeyUsageOID.SERVER_AUTH]}, "an extended key usage"),
    ],
)
def test_certificate_that_is_none_of_a_verifier_is_refused(change, piece):
    header = {"jwk": jwk_of(KEY, [certificate(KEY, **change)])}
    refused("2, key", token(KEY, header), piece, keys=(), roots=(ROOT,))


def test_key_that_a_token_brings_along_is_no_reason_to_believe_it():
    for header in (
        {"jwk": jwk_of(OTHER)},
        {"jku": "https://example.org/keys"},
        {"x5u": "https://example.org/chain"},
        {"kid": "1"},
        {"jwk": jwk_of(OTHER, [certificate(OTHER, OTHER)])},
    ):
        refused("3, signature", token(OTHER, header))
        refused("2, key", token(OTHER, header), keys=(), roots=(ROOT,))


def test_key_beside_a_certificate_of_another_is_refused():
    header = {"jwk": jwk_of(OTHER, [certificate(KEY)])}
    for key in (KEY, OTHER):
        refused("2, key", token(key, header), "not that of its", keys=(), roots=(ROOT,))


@pytest.mark.parametrize("part", range(3))
def test_result_that_was_changed_is_refused(part):
    parts = token().split(".")
    changed = dump_json({**GOOD, "iat": SECONDS - 1}) if part == 1 else b""
    parts[part] = {
        0: encode_base64url(b'{"alg":"ES256"}'),
        1: encode_base64url(changed),
        2: encode_base64url(bytes(64)),
    }[part]
    refused("3, signature", ".".join(parts))


def test_result_of_another_algorithm_is_refused():
    pss = rsa.generate_private_key(65537, 2048)
    refused("1, form", token(pss), "expected ES256 or ES384, got PS256", keys=(pss,))
    for name in ("none", "HS256", "ES512"):
        members = build_jws({"alg": name}, dump_json(GOOD), lambda data: sign(KEY, data))
        text = ".".join(members[one] for one in ("protected", "payload", "signature"))
        refused("1, form", text, f"got {name}")
    # The right word for another key.
    members = build_jws({"alg": "ES384"}, dump_json(GOOD), lambda data: sign(KEY, data))
    text = ".".join(members[one] for one in ("protected", "payload", "signature"))
    refused("2, key", text)


def test_header_that_nobody_knows_is_refused():
    refused("1, form", token(KEY, {"crit": ["x"], "x": 1}), "critical")


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"exp": SECONDS - 61}, "end: expected after"),
        ({"iat": SECONDS + 61}, "issued: expected at most"),
        ({"nbf": SECONDS + 61}, "valid from: expected at most"),
        ({"exp": ..., "iat": SECONDS - 361}, "end"),
    ],
)
def test_result_of_another_time_is_refused(change, piece):
    refused("4, time", token(KEY, **change), piece)


@pytest.mark.parametrize(
    "change",
    [
        {"exp": SECONDS - 59},
        {"iat": SECONDS + 60},
        {"nbf": SECONDS + 60},
        {"exp": ..., "iat": SECONDS - 359},
    ],
    ids=range(4),
)
def test_clocks_may_differ_by_a_minute(change):
    assert read(token(KEY, **change)).issuer == "CoCo-Attestation-Service"


def test_result_without_an_end_counts_for_five_minutes():
    found = read(token(KEY, exp=...))
    assert found.expires == NOW + timedelta(minutes=5)


def test_result_is_by_whom_and_for_whom_it_is_wanted():
    refused("5, for us", token(), "issuer: expected 'Other'", issuer="Other")
    refused("5, for us", token(KEY, iss=...), "issuer", issuer="Other")
    refused("5, for us", token(), "audience: expected 'us', got none", audience="us")
    refused("5, for us", token(KEY, aud="them"), "audience: expected none, got them")
    refused("5, for us", token(KEY, aud=["them"]), "expected 'us', got them", audience="us")
    assert read(token(KEY, aud="us"), audience="us").status == "affirming"
    assert read(token(KEY, aud=["them", "us"]), audience="us").status == "affirming"


@pytest.mark.parametrize(
    "written",
    [
        encode_base64url(NONCE),
        encode_base64(NONCE),
        encode_base64url(NONCE) + "=",
        [encode_base64(NONCE)],
    ],
    ids=["bare", "plain", "url", "list"],
)
def test_nonce_may_be_written_with_padding_or_without(written):
    assert read(token(KEY, eat_nonce=written)).status == "affirming"


@pytest.mark.parametrize(
    ("written", "piece"),
    [
        (encode_base64url(b"o" * 32), "not the one"),
        (encode_base64url(NONCE[:-1]), "not the one"),
        ("", "not the one"),
        (..., "expected one, got 0"),
        ([encode_base64url(NONCE)] * 2, "expected one, got 2"),
    ],
    ids=range(5),
)
def test_result_of_another_nonce_is_refused(written, piece):
    refused("6, nonce", token(KEY, eat_nonce=written), piece)
    assert read(token(KEY, eat_nonce=written), nonce=None).status == "affirming"


def part(status, **vector):
    return {
        "ear.status": status,
        "ear.trustworthiness-vector": {name.replace("_", "-"): one for name, one in vector.items()},
    }


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"ear.status": "affirming"}, "affirming"),
        ({"ear.status": 2}, "affirming"),
        ({"ear.status": 96}, "contraindicated"),
        (part("affirming", hardware=-2, executables=31, file_system=1), "affirming"),
        (part("affirming", hardware=-32), "affirming"),
        (part("none", hardware=0), "none"),
        (part("none", hardware=2), "none"),
        (part("warning", hardware=-33, executables=2), "warning"),
        (part("warning", hardware=95), "warning"),
        (part("contraindicated", hardware=-128), "contraindicated"),
        (part("contraindicated", hardware=2), "contraindicated"),
    ],
    ids=range(11),
)
def test_status_is_that_of_the_result(told, status):
    assert read(token(KEY, submods={"cpu0": told})).status == status


@pytest.mark.parametrize(
    "told",
    [
        part("affirming", hardware=32),
        part("affirming", hardware=-97),
        part("none", hardware=33),
        part("warning", hardware=96, executables=2),
        part("warning", hardware=127),
    ],
)
def test_status_that_is_better_than_its_vector_is_refused(told):
    refused("7, results", token(KEY, submods={"cpu0": told}), "by its trust vector")


@pytest.mark.parametrize("other", ["none", "warning", "contraindicated"])
def test_status_of_all_is_that_of_the_worst(other):
    submods = {"cpu0": part("affirming", hardware=2), "gpu0": {"ear.status": other}}
    assert read(token(KEY, submods=submods)).status == other


@pytest.mark.parametrize(
    "change",
    [
        {"eat_profile": "tag:other"},
        {"eat_profile": ...},
        {"iat": ...},
        {"iat": "now"},
        {"exp": 2**60},
        {"submods": {}},
        {"submods": ...},
        {"submods": {"a": 7}},
        {"submods": {"a": {}}},
        {"submods": {"a": {"ear.status": "good"}}},
        {"submods": {"a": {"ear.status": True}}},
        {"submods": {"a": {"ear.status": False}}},
        {"submods": {"a": {"ear.status": []}}},
        {"submods": {"a": part("affirming", hardware=-129)}},
        {"submods": {"a": {"ear.status": 3}}},
        {"submods": {"a": part("affirming", other=2)}},
        {"submods": {"a": part("affirming", hardware=128)}},
        {"submods": {"a": part("affirming", hardware=True)}},
        {"submods": {str(number): part("affirming") for number in range(65)}},
        {"ear.verifier-id": ...},
        {"aud": 7},
        {"eat_nonce": "!"},
    ],
    ids=range(22),
)
def test_what_is_no_result_is_refused(change):
    with pytest.raises(FormatError):
        read(
            sign_token(
                {name: one for name, one in {**GOOD, **change}.items() if one is not ...}, key=KEY
            )
        )


def test_result_of_the_last_year_that_there_is_is_from_the_future():
    late = {name: value for name, value in GOOD.items() if name != "exp"}
    token = sign_token(late | {"iat": 253402300799}, key=KEY, header={})
    with pytest.raises(EvidenceRejected, match="step 4, time: issued"):
        read_ear(token, trust=EARTrust(keys=(KEY.public_key(),)), nonce=None, now=NOW)


@given(st.binary(max_size=200), st.integers(0, 600))
def test_any_text_is_refused_or_no_result(raw, at):
    good = token()
    for text in (raw.decode("latin-1"), good[:at] + raw[:2].hex() + good[at + 4 :]):
        if text != good:
            with pytest.raises((FormatError, EvidenceRejected)):
                read(text)


def real(name):
    text = real_file(f"token/tng/{name}.jwt").read_text().strip()
    pem = real_file(f"token/tng/{name}.as-ca.pem").read_bytes()
    return text, parse_certificates(pem, what="root")


def test_real_result_without_padding_is_believed_at_its_time():
    text, roots = real("ear")
    at = datetime(2026, 1, 20, 7, 56, tzinfo=UTC)
    found = read(text, keys=(), roots=roots, nonce=None, now=at)
    assert (found.status, list(found.submods)) == ("affirming", ["cpu0"])
    refused("4, time", text, keys=(), roots=roots, nonce=None, now=NOW)
    refused("2, key", text, keys=(), nonce=None, now=at, roots=(ROOT,))
    refused("3, signature", text, keys=(KEY,), nonce=None, now=at, roots=(ROOT,))


def test_real_token_of_another_form_is_refused():
    text, roots = real("simple")
    at = datetime(2026, 1, 19, 7, tzinfo=UTC)
    refused("1, form", text, "got RS384", keys=(), roots=roots, nonce=None, now=at)


@pytest.mark.parametrize("name", ["ear-claims", "ear-claims-tv-ok", "ear-claims-extension-ok"])
def test_real_claims_are_read_in_a_token_of_ours(name):
    claims = json.loads(real_file(f"token/veraison-ear/{name}.json").read_bytes())
    at = datetime.fromtimestamp(claims["iat"] + 1, UTC)
    found = read(sign_token(claims, key=KEY), nonce=None, now=at)
    assert (found.status, list(found.submods)) == ("affirming", ["test"])


EXCHANGE = {
    one["name"]: one for one in json.loads((VECTORS / "veraison" / "exchange.json").read_bytes())
}
VERAISON_NONCE = bytes(range(48)) + bytes(16)


def veraison(name, *, nonce=VERAISON_NONCE, later=timedelta(0)):
    """What the service answered, read with the key of its discovery document."""
    discovery = EXCHANGE["discovery"]["response"]["body"].encode()
    answer = json.loads(EXCHANGE[name]["response"]["body"])
    claims = json.loads(base64.urlsafe_b64decode(answer["result"].split(".")[1] + "=="))
    at = datetime.fromtimestamp(claims["iat"], UTC) + later
    trust = EARTrust(parse_keys(discovery, what="discovery"))
    return read_ear(answer["result"], trust=trust, nonce=nonce, now=at)


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("evidence", {"CCA_REALM": "affirming", "CCA_SSD_PLATFORM": "affirming"}),
        ("evidence of another realm", {"CCA_REALM": "warning", "CCA_SSD_PLATFORM": "affirming"}),
        (
            "evidence of a platform with other firmware",
            {"CCA_REALM": "affirming", "CCA_SSD_PLATFORM": "warning"},
        ),
        ("evidence for another nonce", {"ARM_CCA": "contraindicated"}),
        ("evidence of an unknown platform", {"ARM_CCA": "contraindicated"}),
        ("evidence with a signature that is not good", {"ARM_CCA": "contraindicated"}),
    ],
)
def test_result_of_veraison_says_what_it_found(name, statuses):
    found = veraison(name)
    assert {part: one.status for part, one in found.submods.items()} == statuses
    assert (found.status == "affirming") == (set(statuses.values()) == {"affirming"})


def test_result_of_veraison_is_for_its_nonce_and_its_time():
    with pytest.raises(EvidenceRejected, match="step 6, nonce"):
        veraison("evidence", nonce=bytes(64))
    with pytest.raises(EvidenceRejected, match="step 4, time"):
        veraison("evidence", later=timedelta(minutes=7))


def test_keys_are_read_in_each_form():
    public = KEY.public_key()
    jwk = jwk_of(KEY)
    for data in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        dump_json(jwk),
        dump_json({"keys": [jwk]}),
        dump_json({"ear-verification-key": jwk, "version": "1"}),
    ):
        assert parse_keys(data, what="k") == (public,)
    for data in (
        b"",
        b"{}",
        b'{"keys": []}',
        dump_json({**jwk, "d": "AAAA"}),
        dump_json({"keys": [jwk, {**jwk, "d": "AAAA"}]}),
    ):
        with pytest.raises(FormatError):
            parse_keys(data, what="k")


@pytest.mark.parametrize(
    ("number", "why"),
    [("01", ""), ("02", "not that of its certificate"), ("04", "no given root"), ("05", "")],
)
def test_keys_in_headers_of_trustee_count_as_its_own_verifier_counts_them(number, why):
    """Its vectors are headers without tokens: who may have signed is all that can be asked."""
    folder = "token/trustee/scenario"
    jwk = json.loads(real_file(f"{folder}{number}-jwk.json").read_bytes())
    roots = parse_certificates(real_file(f"{folder}{number}-trust.pem").read_bytes(), what="roots")
    trust = EARTrust(roots=roots)
    header = View({"alg": "RS256", "jwk": jwk}, what="header")
    now = datetime(2026, 11, 30, tzinfo=UTC)
    if why:
        with pytest.raises(EvidenceRejected, match=why):
            ear._keys(header, "RS256", trust, now)
    else:
        (key,) = ear._keys(header, "RS256", trust, now)
        assert key.key_size == 2048
