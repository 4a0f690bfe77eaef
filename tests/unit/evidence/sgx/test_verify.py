# SPDX-License-Identifier: Apache-2.0
"""Quotes of enclaves: a real one as it is and with one thing changed, and those made here."""

import json
from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.intel.certificates import parse_pck
from imagers.evidence.intel.quote import MAX_QUOTE
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import load_verifier
from imagers.evidence.sgx.verify import Allowed, SGXVerifier, claims_of, parse, parse_file
from imagers.model.evidence import Bound
from imagers.model.strict_json import View
from tests.unit.evidence.intel.conftest import NOW, REAL, World

REAL_ENCLAVE = REAL["sgx"]
NONCE = b"n" * 48
INIT = b"i" * 48
BOUND = Bound(NONCE, INIT)
FIELDS = {"report_data": NONCE, "config_id": INIT}

# cryptography's, of a changed serial number; the certificate is refused all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")


@pytest.fixture(scope="module")
def world():
    return World("processor")


def look(data=None, *, collateral=None):
    told = []
    claims = judge_parsed(
        SGXVerifier(),
        parse_file(REAL_ENCLAVE.raw if data is None else bytes(data)),
        bound=Bound(),
        read=(collateral or REAL_ENCLAVE.collateral).get,
        now=REAL_ENCLAVE.now,
        note=told.append,
    )
    return claims, told


def judged(world, quote, *, bound=BOUND, **allowed):
    return judge_parsed(
        SGXVerifier(Allowed(**allowed), world.root_pem),
        quote,
        bound=bound,
        read=world.collateral("sgx").get,
        now=NOW,
    )


def test_quote_of_a_real_enclave_gives_its_claims():
    claims, told = look()
    quote = REAL_ENCLAVE.quote
    assert (claims.tee, claims.tee_class, claims.debug) == ("sgx", "cpu", False)
    assert claims.tcb_status == "ConfigurationAndSWHardeningNeeded"
    assert claims.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert claims.maker == "Intel, PCK below the Processor CA"
    assert [tuple(one) for one in claims.measured] == list(SGXVerifier.references)
    assert claims.measured[0] == {"sgx_mr_enclave": quote.octets("mr_enclave").hex()}
    assert isinstance(claims.measured[1]["sgx_isv_svn"], int)
    assert [one.partition(",")[0] for one in told] == [f"step {at}" for at in range(1, 12)]
    assert "step 10, enclave: closed" in told
    assert not claims.test_root
    assert claims.collateral["intel/sgx-qe-identity.json evaluation"] == 17
    pck = parse_pck(quote.chain)
    assert claims.instance == sha256(pck.instance).hexdigest()


def test_claims_are_named_as_trustee_names_them():
    values = claims_of(REAL_ENCLAVE.quote)
    assert set(values) == {"header", "body", "report_data", "init_data"}
    assert values["report_data"] == values["body"]["report_data"]
    assert values["init_data"] == values["body"]["config_id"]
    assert values["header"] == {
        "version": "0300",
        "att_key_type": "0200",
        "att_key_data_0": "00000000",
        "qe_svn": "0a00",
        "pce_svn": "0f00",
        "vendor_id": "939a7233f79c4ca9940a0db3957f0607",
        "user_data": REAL_ENCLAVE.raw[28:48].hex(),
    }
    assert set(values["body"]) == {
        "attributes.flags",
        "attributes.xfrm",
        "config_id",
        "config_svn",
        "cpu_svn",
        "isv_ext_prod_id",
        "isv_family_id",
        "isv_prod_id",
        "isv_svn",
        "misc_select",
        "mr_enclave",
        "mr_signer",
        "report_data",
        "reserved1",
        "reserved2",
        "reserved3",
        "reserved4",
    }
    assert (
        b"".join(bytes.fromhex(values["body"][name]) for name in REAL_ENCLAVE.quote.fields)
        == REAL_ENCLAVE.raw[48:432]
    )


def test_each_changed_byte_of_a_quote_is_refused():
    collateral = REAL_ENCLAVE.collateral
    for at in range(len(REAL_ENCLAVE.raw) - 1):  # the last is a zero behind the certificates
        data = bytearray(REAL_ENCLAVE.raw)
        data[at] ^= 1 << at % 8
        with pytest.raises((EvidenceRejected, FormatError)):
            look(data, collateral=collateral)


def test_quote_made_here_is_bound_to_this_handshake(world):
    claims = judged(world, world.quote("sgx", **FIELDS))
    assert claims.report_data == (NONCE + bytes(16)).hex()
    assert claims.init_data == (INIT + bytes(16)).hex()
    assert claims.measured == (
        {"sgx_mr_enclave": (b"e" * 32).hex()},
        {"sgx_mr_signer": (b"s" * 32).hex(), "sgx_isv_prod_id": 7, "sgx_isv_svn": 3},
    )
    assert claims.test_root
    quote = world.quote("sgx", **FIELDS)
    with pytest.raises(EvidenceRejected, match="step 11, bound: report data"):
        judged(world, quote, bound=Bound(b"o" * 48, INIT))
    with pytest.raises(EvidenceRejected, match="step 11, bound: init data in config_id"):
        judged(world, quote, bound=Bound(NONCE, b"j" * 48))


def test_enclave_with_kss_says_what_it_was_given(world):
    fields = {
        "attributes__flags": b"\x85",
        "config_svn": b"\5\0",
        "isv_family_id": b"F" * 16,
        "isv_ext_prod_id": b"X" * 16,
    }
    claims = judged(world, world.quote("sgx", **FIELDS, **fields))
    assert claims.configured == {
        "sgx_attributes": "8500000000000000",
        "sgx_xfrm": "e700000000000000",
        "sgx_misc_select": "00000000",
        "sgx_config_id": INIT.ljust(64, b"\0").hex(),
        "sgx_config_svn": 5,
        "sgx_isv_family_id": (b"F" * 16).hex(),
        "sgx_isv_ext_prod_id": (b"X" * 16).hex(),
    }


@pytest.mark.parametrize(
    ("fields", "piece"),
    [
        ({"attributes__flags": b"\4"}, "INIT in the enclave's attributes: expected 1, got 0"),
        (
            {"attributes__flags": b"\7"},
            "debugging: expected forbidden by the enclave's attributes, got allowed",
        ),
        ({"attributes__flags": b"\x0d"}, "the enclave has attributes that are unknown here: 0x8"),
        ({"reserved1": b"\1"}, "reserved1 of the report: expected zeros"),
        ({"reserved4": b"\1"}, "reserved4 of the report: expected zeros"),
    ],
)
def test_enclave_that_is_not_closed_is_refused(world, fields, piece):
    with pytest.raises(EvidenceRejected) as caught:
        judged(world, world.quote("sgx", **FIELDS, **fields))
    assert str(caught.value).startswith(f"step 10, enclave: {piece}")


@pytest.mark.parametrize("bit", range(2, 64))
def test_attribute_is_one_of_those_of_intel(world, bit):
    flags = (1 | 1 << bit).to_bytes(8, "little")
    quote = world.quote("sgx", **FIELDS, attributes__flags=flags)
    if bit in (2, 4, 5, 6, 7, 10):
        assert judged(world, quote).configured["sgx_attributes"] == flags.hex()
        return
    with pytest.raises(EvidenceRejected, match="attributes that are unknown here"):
        judged(world, quote)


def test_file_above_a_limit_is_refused():
    text = json.dumps({"quote": b64encode(REAL_ENCLAVE.raw).decode()}).encode()
    limit = 128 * 1024
    assert parse_file(text.ljust(limit)) == parse_file(REAL_ENCLAVE.raw)
    with pytest.raises(FormatError, match=f"at most {limit} bytes"):
        parse_file(text.ljust(limit + 1))
    with pytest.raises(FormatError, match=r"\$\.quote"):
        parse({"quote": b64encode(bytes(MAX_QUOTE + 1)).decode()})


def test_enclave_under_debug_is_good_where_that_is_allowed(world):
    quote = world.quote("sgx", **FIELDS, attributes__flags=b"\7")
    verifier, told = SGXVerifier(Allowed(debug=True), world.root_pem), []
    read = world.collateral("sgx").get
    claims = judge_parsed(verifier, quote, bound=BOUND, read=read, now=NOW, note=told.append)
    assert claims.debug
    assert "step 10, enclave: under debug" in told


def test_quote_of_a_later_version_has_the_same_claims(world):
    quote = world.quote("sgx", version=4, **FIELDS)
    claims = judged(world, quote)
    assert claims.values["header"]["tee_type"] == "00000000"
    assert claims.measured == judged(world, world.quote("sgx", **FIELDS)).measured


def test_settings_of_an_appraisal_are_those_two(world):
    view = View({"debug": True, "crl": "optional"}, what="settings")
    expected = SGXVerifier(Allowed(debug=True, without_crl=True), world.root_pem)
    assert load_verifier("sgx", settings=view, roots=world.root_pem) == expected
    with pytest.raises(FormatError, match="test root"):
        load_verifier("sgx", roots=b"x")
    assert load_verifier("sgx") == SGXVerifier()
    with pytest.raises(FormatError):
        load_verifier("sgx", settings=View({"migration": True}, what="settings"))


def test_file_is_a_quote_or_the_json_of_the_protocol(world):
    raw = REAL_ENCLAVE.raw
    body = {"quote": b64encode(raw).decode()}
    assert parse_file(raw) == parse_file(json.dumps(body).encode()) == parse(body)
    quote = b64encode(world.raw_quote("sgx", **FIELDS)).decode()
    arguments = {"bound": BOUND, "read": world.collateral("sgx").get, "now": NOW}
    verifier = SGXVerifier(roots=world.root_pem)
    assert judge_parsed(verifier, verifier.parse({"quote": quote}), **arguments).tee == "sgx"
    for data in (b"", b"{}", b'{"quote": null}', b'{"quote": "AAAA"}', raw[:100]):
        with pytest.raises(FormatError):
            parse_file(data)


def test_quote_wants_the_documents_of_its_machine():
    assert set(SGXVerifier().wanted(REAL_ENCLAVE.quote)) == set(REAL_ENCLAVE.collateral)


@given(st.binary(max_size=2000))
def test_any_bytes_are_no_evidence(data):
    with pytest.raises(FormatError):
        parse_file(data)
