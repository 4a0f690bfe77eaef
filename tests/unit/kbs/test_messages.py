# SPDX-License-Identifier: Apache-2.0
import base64
import hashlib
import json
from contextlib import suppress

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, Unsupported
from imagers.kbs.messages import (
    Attestation,
    Challenge,
    ECPublicKey,
    InitData,
    Request,
    Response,
    RSAPublicKey,
    hash_report_data,
    parse_attestation,
    parse_challenge,
    parse_public_key,
    parse_request,
    parse_response,
    parse_tee_name,
)
from imagers.model.base64 import encode_base64url
from imagers.model.strict_json import View

NONCE = base64.b64encode(bytes(range(32))).decode()
KEY = ECPublicKey(
    crv="P-256",
    x=encode_base64url(bytes(range(32))),
    y=encode_base64url(bytes(range(32, 64))),
)
# Known answers, computed from the protocol's formulas by independent programs.
REPORT = {
    "sha256": "00f38bccdc8110beccec39dfcc01ddd8793025b807d7ededf5695ed469e620ee",
    "sha384": "62b64dc81f3d65b3926a4014c90a56d2fa0abcdf74ce53018fbd22a256ca4ab1"
    "f03d8cc4d132366d698ba19f321d21b8",
    "sha512": "3806f07ab0d508734d282d41bcb00758a5fb3bf7e61e97be8a3eb60b7d0736cd"
    "1dc5f532cbd1af5b6535794e896d53a1352b597944fa5ca50707adc8782e3997",
}


def attestation(**changes):
    value = {
        "init-data": None,
        "runtime-data": {"nonce": NONCE, "tee-pubkey": KEY.to_json()},
        "tee-evidence": {"primary_evidence": {"svn": "1"}, "additional_evidence": ""},
    }
    return json.dumps(value | changes).encode()


@pytest.mark.parametrize("name", REPORT)
def test_report_data_known_answer(name):
    found = hash_report_data(nonce=NONCE, tee_pubkey=KEY, report_hash=name)
    assert found.digest.hex() == REPORT[name]


def test_report_data_default_hash_is_sha384():
    assert hash_report_data(nonce=NONCE, tee_pubkey=KEY).digest.hex() == REPORT["sha384"]


def test_report_data_canonical_form_known_answer():
    value = {"b": 1, "a": "test", "c": {"d": "e"}}
    assert hashlib.sha384(rfc8785.dumps(value)).hexdigest() == (
        "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c"
        "4597480a186427c813ca941da78870c3"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": NONCE[:-4] + "AAA="},
        {"tee_pubkey": ECPublicKey(crv="P-256", x=KEY.y, y=KEY.x)},
        {"additional_evidence": "{}"},
    ],
    ids=["nonce", "key", "devices"],
)
def test_report_data_any_part_changed_differs(change):
    base = {"nonce": NONCE, "tee_pubkey": KEY, "additional_evidence": ""}
    assert hash_report_data(**(base | change)) != hash_report_data(**base)


def test_report_data_half_surrogate_is_a_format_error():
    with pytest.raises(FormatError) as caught:
        hash_report_data(nonce=NONCE, tee_pubkey=KEY, additional_evidence="\ud800")
    assert caught.value.where == "$.tee-evidence.additional_evidence"


def test_request_bytes_are_the_protocols():
    assert json.loads(Request.offering_hashes("snp").to_bytes()) == {
        "version": "0.4.0",
        "tee": "snp",
        "extra-params": {"supported-hash-algorithms": ["sha256", "sha384", "sha512"]},
    }


@pytest.mark.parametrize(
    "extra",
    ["", None, {"supported-hash-algorithms": ["sm3"]}, {"tee-metadata": {"primary_tee": {}}}],
)
def test_parse_request_any_extra_params_and_unknown_members_accepted(extra):
    data = json.dumps(
        {"version": "0.4.0", "tee": "snp", "extra-params": extra, "new": [1]}
    ).encode()
    assert parse_request(data) == Request(tee="snp", extra_params=extra)


@pytest.mark.parametrize(
    ("sent", "meant"), [("azsnpvtpm", "az-snp-vtpm"), ("az-tdx-vtpm", "az-tdx-vtpm")]
)
def test_parse_tee_name_both_spellings_accepted(sent, meant):
    assert parse_tee_name(sent, what="x") == meant


@pytest.mark.parametrize(
    ("data", "piece"),
    [
        (b"", "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "is missing"),
        (b'{"version":"0.4.0","tee":"snp"}', "$.extra-params"),
        (b'{"version":4,"tee":"snp","extra-params":""}', "$.version"),
        (b'{"version":"0.4.0","tee":"SNP","extra-params":""}', "lower case"),
        (b'{"version":"0.4.0","tee":"' + b"a" * 33 + b'","extra-params":""}', "TEE name"),
        (b'{"tee":"snp","tee":"tdx","version":"0.4.0","extra-params":""}', "twice"),
        (b'{"x":"' + b"a" * 70_000 + b'"}', "at most 65536 bytes"),
    ],
)
def test_parse_request_bad_message_refused(data, piece):
    with pytest.raises(FormatError) as caught:
        parse_request(data)
    assert piece in str(caught.value)


def test_challenge_round_trip_and_trustees_bytes():
    assert Challenge(NONCE).to_bytes() == b'{"nonce":"%s","extra-params":""}' % NONCE.encode()
    for one in (Challenge(NONCE), Challenge(NONCE, "sha512")):
        assert parse_challenge(one.to_bytes()) == one


def test_parse_challenge_selected_hash_without_regard_to_case():
    data = b'{"nonce":"n","extra-params":{"selected-hash-algorithm":"SHA256"}}'
    assert parse_challenge(data).report_hash == "sha256"


def test_parse_challenge_hash_that_was_not_offered_unsupported():
    data = b'{"nonce":"n","extra-params":{"selected-hash-algorithm":"sm3"}}'
    with pytest.raises(Unsupported, match="got 'sm3'"):
        parse_challenge(data)


@pytest.mark.parametrize("nonce", ["", "a" * 4097, "a\nb", "\u00e9"])
def test_parse_challenge_bad_nonce_refused(nonce):
    with pytest.raises(FormatError, match="printable") as caught:
        parse_challenge(json.dumps({"nonce": nonce, "extra-params": ""}).encode())
    assert caught.value.where == "$.nonce"


def test_attestation_round_trip():
    one = Attestation(
        nonce=NONCE,
        tee_pubkey=KEY,
        primary_evidence={"a": [1, None, "\u00e9"]},
        additional_evidence="{}",
        init_data=InitData("toml", 'version = "0.1.0"'),
    )
    assert parse_attestation(one.to_bytes()) == one


def test_attestation_member_names_are_the_protocols():
    value = json.loads(
        Attestation(nonce=NONCE, tee_pubkey=KEY, primary_evidence={"svn": "1"}).to_bytes()
    )
    assert value == json.loads(attestation())


def test_parse_attestation_unknown_members_of_the_key_are_dropped():
    key = KEY.to_json() | {"kid": "1", "use": "enc"}
    data = attestation(**{"runtime-data": {"nonce": NONCE, "tee-pubkey": key}})
    assert parse_attestation(data).tee_pubkey == KEY


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"runtime-data": None}, "$.runtime-data"),
        ({"runtime-data": {"nonce": 1, "tee-pubkey": {}}}, "$.runtime-data.nonce"),
        ({"runtime-data": {"nonce": NONCE}}, "$.runtime-data.tee-pubkey"),
        ({"tee-evidence": {}}, "$.tee-evidence.primary_evidence"),
        (
            {"tee-evidence": {"primary_evidence": 1, "additional_evidence": {}}},
            "$.tee-evidence.additional_evidence",
        ),
        ({"init-data": "text"}, "$.init-data"),
        ({"init-data": {"format": "toml"}}, "$.init-data.body"),
    ],
)
def test_parse_attestation_bad_member_refused_with_its_place(changes, where):
    with pytest.raises(FormatError) as caught:
        parse_attestation(attestation(**changes))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"x": KEY.x + "="}, "base64url without padding"),
        ({"x": KEY.x[:-1] + "9"}, "base64url without padding"),
        ({"x": encode_base64url(bytes(31))}, "expected 32 bytes, got 31"),
        ({"y": encode_base64url(bytes(33))}, "expected 32 bytes, got 33"),
        ({"x": 1}, "expected a string"),
        ({"y": None}, "is missing"),
    ],
)
def test_parse_public_key_bad_coordinate_refused(change, piece):
    with pytest.raises(FormatError) as caught:
        parse_public_key(View(KEY.to_json() | change, what="key"))
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"crv": "P-384"},
        {"alg": "ECDH-ES"},
        {"kty": "AKP", "alg": "ML-KEM-1024+A256KW"},
        {"kty": "RSA", "alg": "RSA1_5"},
        {"kty": "oct"},
    ],
)
def test_parse_public_key_other_kind_unsupported(change):
    with pytest.raises(Unsupported):
        parse_public_key(View(KEY.to_json() | change, what="key"))


def test_parse_public_key_rsa_gives_its_members_only():
    key = {
        "kty": "RSA",
        "alg": "RSA-OAEP-256",
        "n": encode_base64url(b"\xff" * 256),
        "e": "AQAB",
        "d": "x",
    }
    assert parse_public_key(View(key, what="key")) == RSAPublicKey(n=key["n"], e="AQAB")


@pytest.mark.parametrize(
    ("n", "e", "piece"),
    [
        (b"\xff" * 255, b"\x03", "$.n: expected 2048 to 8192 bits, got 2040"),
        (b"\x7f" + b"\xff" * 255, b"\x03", "$.n: expected 2048 to 8192 bits, got 2047"),
        (b"\x01" + b"\xff" * 1024, b"\x03", "$.n: expected 2048 to 8192 bits, got 8193"),
        (b"\xff" * 7000, b"\x03", "$.n: expected 2048 to 8192 bits, got 56000"),
        (bytes(158) + b"\xff" * 98, b"\x03", "$.n: expected a number without zero bytes"),
        (bytes(1) + b"\xff" * 256, b"\x03", "$.n: expected a number without zero bytes"),
        (b"", b"\x03", "$.n: expected 2048 to 8192 bits, got 0"),
        (b"\xff" * 256, b"\x01" + b"\xff" * 4, "$.e: expected 2 to 32 bits, got 33"),
        (b"\xff" * 256, b"\x01", "$.e: expected 2 to 32 bits, got 1"),
        (b"\xff" * 256, b"\0\x03", "$.e: expected a number without zero bytes"),
        (b"\xff" * 256, b"", "$.e: expected 2 to 32 bits, got 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else len(value),
)
def test_parse_public_key_rsa_out_of_bounds_refused(n, e, piece):
    key = {"kty": "RSA", "alg": "RSA-OAEP-256", "n": encode_base64url(n), "e": encode_base64url(e)}
    with pytest.raises(FormatError) as caught:
        parse_public_key(View(key, what="key"))
    assert piece in str(caught.value)


@pytest.mark.parametrize("n", [b"\x80" + bytes(255), b"\xff" * 1024], ids=len)
@pytest.mark.parametrize("e", [b"\x03", b"\xff" * 4], ids=len)
def test_parse_public_key_rsa_at_its_bounds_taken(n, e):
    key = {"kty": "RSA", "alg": "RSA-OAEP-256", "n": encode_base64url(n), "e": encode_base64url(e)}
    assert parse_public_key(View(key, what="key")) == RSAPublicKey(n=key["n"], e=key["e"])


def test_response_round_trip_and_it_does_not_print_its_token():
    one = Response("aaa.bbb.ccc")
    assert parse_response(one.to_bytes()) == one
    assert "bbb" not in repr(one)


@pytest.mark.parametrize(
    "token", ["", "a.b", "a.b.c.d", "a.b.c\r\nX: y", "a.b.\u00e9", "a" * 131_073 + ".b.c"]
)
def test_parse_response_token_that_is_no_jwt_refused(token):
    with pytest.raises(FormatError, match="expected a JWT"):
        parse_response(json.dumps({"token": token}).encode())


@given(st.binary(max_size=300))
def test_parsers_any_bytes_give_format_error_or_a_message(data):
    for parse in (parse_request, parse_challenge, parse_attestation, parse_response):
        with suppress(FormatError, Unsupported):
            parse(data)
