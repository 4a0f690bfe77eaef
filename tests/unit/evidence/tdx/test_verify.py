# SPDX-License-Identifier: Apache-2.0
"""Quotes of guests: real ones as they are and with one thing changed, and those made here."""

import json
from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256, sha384

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.ccel import (
    MAX_LOG,
    agent_event,
    join_logs,
    make_header,
    make_record,
    parse_event_log,
    replay,
)
from imagers.evidence.intel.certificates import parse_pck
from imagers.evidence.intel.documents import EnclaveLevel, read_tcb_info
from imagers.evidence.intel.engine import _check_signature, judge_tcb
from imagers.evidence.intel.quote import MAX_QUOTE, TDX, parse_quote
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import load_verifier
from imagers.evidence.tdx.verify import (
    Allowed,
    TDXEvidence,
    TDXVerifier,
    claims_of,
    parse,
    parse_file,
)
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from tests.real_evidence import real_file
from tests.unit.evidence.intel.conftest import NOW, REAL, World, signer_of

GOOD = REAL["tdx up to date"]
DEBUG = REAL["tdx under debug"]
NONCE = b"n" * 48
INIT = b"i" * 32
BOUND = Bound(NONCE, INIT)
FIELDS = {"report_data": NONCE, "mr_config_id": INIT}

# cryptography's, of a changed serial number; the certificate is refused all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")


@pytest.fixture(scope="module")
def world():
    return World()


def look(case, data=None, *, bound=None, now=None, collateral=None, allowed=None):
    told = []
    claims = judge_parsed(
        TDXVerifier(allowed or Allowed()),
        parse_file(case.raw if data is None else bytes(data)),
        bound=bound or Bound(),
        read=(case.collateral if collateral is None else collateral).get,
        now=now or case.now,
        note=told.append,
    )
    return claims, told


def judged(world, evidence, *, bound=BOUND, collateral=None, **allowed):
    return judge_parsed(
        TDXVerifier(Allowed(**allowed), world.root_pem),
        evidence,
        bound=bound,
        read=(collateral or world.collateral()).get,
        now=NOW,
    )


@pytest.mark.parametrize("name", ["tdx up to date", "tdx out of date"])
def test_quote_of_a_real_guest_gives_its_claims(name):
    case = REAL[name]
    claims, told = look(case)
    quote = case.quote
    assert (claims.tee, claims.tee_class, claims.debug) == ("tdx", "cpu", False)
    assert (claims.tcb_status, claims.values["tcb_status"]) == (case.status, case.status)
    assert claims.maker == "Intel, PCK below the Platform CA"
    measured = {one: quote.octets(one).hex() for one in ("mr_td", "rtmr_1", "rtmr_2")}
    assert claims.measured == (measured,)
    assert [tuple(one) for one in claims.measured] == list(TDXVerifier.references)
    assert claims.firmware == {"mr_seam": quote.octets("mr_seam").hex()}
    assert claims.report_data == quote.octets("report_data").hex()
    assert claims.configured["xfam"] == "e702060000000000"
    assert claims.established_at == case.now
    assert not claims.test_root
    assert [one.partition(",")[0] for one in told] == [f"step {at}" for at in range(1, 13)]
    assert told[9:11] == ["step 10, guest: closed", "step 11, event log: none came along"]
    assert claims.values["td_attributes"]["debug"] is False
    assert claims.collateral["intel/tdx-qe-identity.json evaluation"] == 17
    assert told[-1] == (
        "step 12, bound: report data not compared, init data in mr_config_id not compared"
    )


def test_guest_under_debug_is_refused_unless_that_is_allowed():
    with pytest.raises(EvidenceRejected, match="step 10, guest: debugging: expected forbidden"):
        look(DEBUG)
    claims, told = look(DEBUG, allowed=Allowed(debug=True))
    assert (claims.debug, claims.tcb_status) == (True, "UpToDate")
    assert "step 10, guest: under debug" in told


def test_claims_are_field_by_field_those_of_trustee():
    log = parse_event_log(real_file("eventlog/trustee/CCEL_data").read_bytes())
    expected = json.loads(real_file("tdx/trustee/parse_tdx_claims_expected.json").read_bytes())
    instance = bytes.fromhex(expected.pop("platform_instance_id"))
    found = claims_of(TDXEvidence(DEBUG.quote, log))
    attributes = found["td_attributes"]
    assert expected["td_attributes"].items() <= attributes.items()
    assert attributes.keys() - expected["td_attributes"] == {"icssd", "lass", "migratable"}
    assert found == expected | {"td_attributes": attributes}
    claims, _ = look(DEBUG, allowed=Allowed(debug=True))
    assert claims.instance in {sha256(one).hexdigest() for one in (instance, instance[::-1])}
    assert instance.hex() not in json.dumps(claims.values)
    assert instance[::-1].hex() not in json.dumps(claims.values)


def test_claims_of_version_5_have_its_kind_and_more_fields():
    data = real_file("tdx/trustee/tdx_quote_5.dat").read_bytes()
    quote = claims_of(parse_file(data))["quote"]
    assert (quote["type"], quote["size"]) == ("0300", "88020000")
    assert quote["body"]["tee_tcb_svn2"] == "05010200000000000000000000000000"
    assert quote["body"]["mr_servicetd"].startswith("383c87d3")
    assert quote["header"]["version"] == "0500"


def test_machine_that_reaches_no_level_is_refused():
    """A real quote, and TCB info of its kind of machine that is newer than its firmware."""
    quote = parse_file(real_file("tdx/trustee/tdx_quote_5.dat").read_bytes()).quote
    info = real_file("tdx/go-tdx-guest/sample_tcbinfo_response_v5").read_bytes()
    signer = signer_of(GOOD.collateral["intel/tdx-qe-identity.pem"])
    level = EnclaveLevel(4, "UpToDate", "", ())
    with pytest.raises(EvidenceRejected, match="reaches no level of the TCB info"):
        judge_tcb(quote, parse_pck(quote.chain), read_tcb_info(info, signer, "tdx"), level)


def test_quote_that_intels_own_samples_have_is_signed_below_their_root():
    """Its certificates come beside it, and its QE identity is that of another enclave."""
    folder = real_file("tdx/intel-qvl")

    def read(name):
        return (folder / name).read_bytes()

    def pem(data):
        found = x509.load_pem_x509_certificates(data)
        return [one.public_bytes(Encoding.PEM) for one in found]

    raw = read("quote.dat")
    root, issuer = pem(read("pckSignChain.pem"))
    chain = b"".join((*pem(read("pckCert.pem")), issuer, root))
    old = parse_quote(raw, tee=TDX).chain
    at = raw.index(old)
    raw = bytearray(raw[:at] + chain)
    for place, size in ((632, 64 + 64 + 6), (766, 0), (at - 4, None)):
        length = len(chain) if size is None else len(raw) - place - 4
        raw[place : place + 4] = length.to_bytes(4, "little")
    signers = b"".join(reversed(pem(read("tcbSignChain.pem"))))
    documents = {
        "intel/root-ca.crl": read("rootCaCrl.der"),
        "intel/pck-processor.crl": read("intermediateCaCrl.der"),
        "intel/tdx-ED742AF8ADF5.json": read("tcbInfo.json"),
        "intel/tdx-ED742AF8ADF5.pem": signers,
        "intel/tdx-qe-identity.json": read("qeIdentity.json"),
        "intel/tdx-qe-identity.pem": signers,
    }
    evidence, told = parse_file(bytes(raw)), []
    arguments = {"bound": Bound(), "read": documents.get, "now": datetime(2025, 1, 1, tzinfo=UTC)}
    verifier = TDXVerifier(roots=read("trustedRootCaCert.pem"))
    with pytest.raises(EvidenceRejected, match="step 7, quoting enclave: signer of the QE"):
        judge_parsed(verifier, evidence, note=told.append, **arguments)
    assert told[-1] == "step 6, attestation key: that of the QE"
    _check_signature(evidence.quote)
    with pytest.raises(EvidenceRejected, match="step 1, chain: the root of the quote"):
        judge_parsed(TDXVerifier(), evidence, **arguments)


# Where one byte is changed: the step that says no.
MUTATIONS = {
    "mr_td": (184, "8, signature"),
    "report data": (568, "8, signature"),
    "attestation key": (700, "6, attestation key"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_changed_byte_ends_at_the_step_that_it_is_for(name):
    at, step = MUTATIONS[name]
    data = bytearray(GOOD.raw)
    data[at] ^= 1
    with pytest.raises(EvidenceRejected) as caught:
        look(GOOD, data)
    assert str(caught.value).startswith(f"step {step}")


def test_documents_out_of_date_are_could_not_look():
    with pytest.raises(CouldNotVerify, match=r"step 2, revocation: .* is not valid at 2026-11-23"):
        look(GOOD, now=datetime(2026, 11, 23, tzinfo=UTC))


def test_changed_tcb_info_ends_at_its_signature():
    name = "intel/tdx-B0C06F000000.json"
    collateral = GOOD.collateral
    changed = collateral[name].replace(b"OutOfDate", b"UpToDate")
    assert changed != collateral[name]
    with pytest.raises(EvidenceRejected, match="step 3, TCB info: the signature"):
        look(GOOD, collateral=collateral | {name: changed})


def test_each_changed_byte_of_a_quote_is_refused():
    """Of the 4,936 before the padding; seven of the bits of each, one after another."""
    collateral = GOOD.collateral
    evidence = GOOD.raw
    end = 636 + int.from_bytes(evidence[632:636], "little")
    for at in range(end - 1):  # the last is a zero behind the certificates
        data = bytearray(evidence)
        data[at] ^= 1 << at % 8
        with pytest.raises((EvidenceRejected, FormatError)):
            look(GOOD, data, collateral=collateral)
    assert look(GOOD, evidence[:end], collateral=collateral)[0].tcb_status == "UpToDate"


def test_parts_of_two_quotes_do_not_mix():
    """Body and signature data of two real guests, either way round; and their certificates."""
    first, second = GOOD, REAL["tdx out of date"]
    both = first.collateral | second.collateral
    for a, b in ((first, second), (second, first)):
        mixed = a.raw[:632] + b.raw[632:]
        with pytest.raises(EvidenceRejected, match="step 8, signature"):
            look(b, mixed, collateral=b.collateral)
        chain, other = a.quote.chain, b.quote.chain
        swapped = a.raw.replace(chain, other.ljust(len(chain), b"\0")[: len(chain)])
        with pytest.raises((EvidenceRejected, FormatError, CouldNotVerify)):
            look(a, swapped, collateral=both)


def test_quote_made_here_is_bound_to_this_handshake(world):
    evidence = TDXEvidence(world.quote(**FIELDS))
    claims = judged(world, evidence)
    assert claims.report_data == (NONCE + bytes(16)).hex()
    assert claims.init_data == (INIT + bytes(16)).hex()
    assert claims.test_root
    with pytest.raises(EvidenceRejected, match="step 12, bound: report data: expected 6f6f"):
        judged(world, evidence, bound=Bound(b"o" * 48, INIT))
    with pytest.raises(EvidenceRejected, match="step 12, bound: init data in mr_config_id"):
        judged(world, evidence, bound=Bound(NONCE, b"j" * 32))
    judged(world, evidence, bound=Bound())


def attributes(*bits):
    return {"td_attributes": sum(1 << bit for bit in bits).to_bytes(8, "little")}


@pytest.mark.parametrize(
    ("bits", "piece"),
    [
        ((), "SEPT_VE_DISABLE in the TD's attributes: expected 1, got 0"),
        ((28, 0), "debugging: expected forbidden by the TD's attributes, got allowed"),
        ((28, 7), "debugging: expected"),
        ((28, 29), "migration: expected forbidden by the TD's attributes, got allowed"),
        ((28, 8), "the TD has attributes that are unknown here: 0x100"),
        ((28, 62), "the TD has attributes that are unknown here: 0x4000000000000000"),
    ],
)
def test_guest_that_is_not_closed_is_refused(world, bits, piece):
    evidence = TDXEvidence(world.quote(**FIELDS, **attributes(*bits)))
    with pytest.raises(EvidenceRejected) as caught:
        judged(world, evidence)
    assert str(caught.value).startswith(f"step 10, guest: {piece.partition(':')[0]}")
    assert piece in str(caught.value)


def test_guest_under_debug_has_the_other_attributes_too(world):
    evidence = TDXEvidence(world.quote(**FIELDS, **attributes(0)))
    with pytest.raises(EvidenceRejected, match="SEPT_VE_DISABLE"):
        judged(world, evidence, debug=True)


def test_advisories_are_those_of_the_level(world):
    info = world.tcb_info(levels=[world.level("OutOfDate", advisories=["A"])])
    claims = judged(
        world, TDXEvidence(world.quote(**FIELDS)), collateral=world.collateral(info=info)
    )
    assert (claims.tcb_status, claims.advisories) == ("OutOfDate", ("A",))


def test_guest_that_may_be_looked_into_or_moved_is_good_where_that_is_allowed(world):
    evidence = TDXEvidence(world.quote(**FIELDS, **attributes(28, 0, 29, 30, 31, 63)))
    claims = judged(world, evidence, debug=True, migration=True)
    assert claims.debug
    found = claims.values["td_attributes"]
    assert found == dict.fromkeys(found, True) | {"icssd": False, "lass": False}


def test_settings_of_an_appraisal_are_those_three(world):
    view = View({"debug": True, "migration": True, "crl": "optional"}, what="settings")
    assert Allowed.parse(view) == Allowed(debug=True, migration=True, without_crl=True)
    assert load_verifier("tdx") == TDXVerifier()
    assert load_verifier("tdx", settings=view, roots=world.root_pem) == TDXVerifier(
        Allowed(debug=True, migration=True, without_crl=True), world.root_pem
    )
    with pytest.raises(FormatError, match="test root"):
        load_verifier("tdx", roots=b"x")
    for settings in ({"sept_ve": True}, {"debug": 1}, {"crl": "no"}):
        with pytest.raises(FormatError):
            load_verifier("tdx", settings=View(settings, what="settings"))


def test_log_that_gives_the_registers_of_the_quote_is_a_claim(world):
    raw = real_file("eventlog/trustee/CCEL_AAEL_alibabacloud").read_bytes()
    events = parse_event_log(raw)
    registers = {f"rtmr_{at}": replay(events, at + 1, "SHA-384") for at in range(4)}
    quote = world.raw_quote(**FIELDS, **registers)
    body = {"quote": b64encode(quote).decode(), "cc_eventlog": b64encode(raw).decode()}
    verifier = TDXVerifier(roots=world.root_pem)
    arguments = {"bound": BOUND, "read": world.collateral().get, "now": NOW}
    told = []
    evidence = verifier.parse(body)
    assert "events" not in repr(evidence)
    claims = judge_parsed(verifier, evidence, note=told.append, **arguments)
    assert "step 11, event log: 87 events" in told
    logs = claims.values["uefi_event_logs"]
    assert logs[-2]["details"]["data"]["domain"] == "coco.com"
    del body["cc_eventlog"]
    assert "uefi_event_logs" not in judge_parsed(verifier, verifier.parse(body), **arguments).values
    for name, value in registers.items():
        other = sha384(value).digest()
        changed = world.raw_quote(**FIELDS, **registers | {name: other})
        with pytest.raises(EvidenceRejected, match=f"step 11, event log: {name} by the event log"):
            judged(world, parse(_json(changed, raw)))
    shorter = raw[:-600]
    with pytest.raises((EvidenceRejected, FormatError)):
        judged(world, parse(_json(quote, shorter)))


@pytest.mark.parametrize("register", [0, 5, 14])
def test_event_of_a_register_that_the_quote_has_not_is_no_claim(world, register):
    """Nothing binds it, and in a PCR's place it would look like one."""
    data = agent_event("imagers", "Settings", "{}")
    record = make_record(register, {"SHA-384": sha384(data).digest()}, data)
    quote = world.raw_quote(**FIELDS, **{f"rtmr_{at}": bytes(48) for at in range(4)})
    body = _json(quote, join_logs(make_header(["SHA-384"]), record))
    claims = judged(world, parse(body))
    assert claims.values["uefi_event_logs"] == []


def _json(quote, log=None):
    return {
        "quote": b64encode(quote).decode(),
        "cc_eventlog": None if log is None else b64encode(log).decode(),
    }


def test_file_is_a_quote_or_the_json_of_the_protocol():
    raw = GOOD.raw
    text = json.dumps(_json(raw)).encode()
    assert parse_file(raw) == parse_file(b"\n" + text) == parse(json.loads(text))
    for data in (b"", b"{}", b"[]", b'{"quote": 5}', b'{"quote": "AAAA"}', raw[:100]):
        with pytest.raises(FormatError):
            parse_file(data)


def test_file_above_a_limit_is_refused():
    text = json.dumps(_json(GOOD.raw)).encode()
    limit = 6 * 1024 * 1024
    assert parse_file(text.ljust(limit)) == parse_file(GOOD.raw)
    with pytest.raises(FormatError, match=f"at most {limit} bytes"):
        parse_file(text.ljust(limit + 1))
    for name, size in (("quote", MAX_QUOTE), ("cc_eventlog", MAX_LOG)):
        body = _json(GOOD.raw) | {name: b64encode(bytes(size + 1)).decode()}
        with pytest.raises(FormatError) as caught:
            parse(body)
        assert f"$.{name}" in str(caught.value)


def test_quote_wants_the_documents_of_its_machine(world):
    wanted = TDXVerifier().wanted(TDXEvidence(world.quote()))
    assert wanted == (
        "intel/root-ca.crl",
        "intel/pck-platform.crl",
        "intel/tdx-00A06D080000.json",
        "intel/tdx-00A06D080000.pem",
        "intel/tdx-qe-identity.json",
        "intel/tdx-qe-identity.pem",
    )
    with pytest.raises(FormatError, match="are not PEM"):
        TDXVerifier().wanted(TDXEvidence(world.quote(chain=b"x")))


def test_claims_of_a_later_kind_have_its_service_td(world):
    quote = world.quote(version=5, kind=3, mr_servicetd=b"S" * 48, **FIELDS)
    claims = judged(world, TDXEvidence(quote))
    assert claims.configured["mr_servicetd"] == (b"S" * 48).hex()


def test_quote_without_a_service_td_equals_no_reference_value_of_one(world):
    """A host that chooses the older kind of quote does not choose that nobody looks."""
    claims = judged(world, TDXEvidence(world.quote(**FIELDS)))
    known = {name: value for way in claims.measured for name, value in way.items()}
    for value in ((b"S" * 48).hex(), bytes(48).hex()):
        references = {
            name: ReferenceValue(name, (one,))
            for name, one in (*known.items(), ("mr_servicetd", value))
        }
        (miss,) = appraise_claims(claims, references, now=NOW).misses
        assert (miss.claim, miss.found) == ("mr_servicetd", "")


@given(st.binary(max_size=2000))
def test_any_bytes_are_no_evidence(data):
    with pytest.raises(FormatError):
        parse_file(data)


@given(st.data())
def test_any_change_of_a_real_quote_is_refused(data):
    raw = bytearray(GOOD.raw.rstrip(b"\0"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    if bytes(raw) == GOOD.raw.rstrip(b"\0"):
        return
    with pytest.raises((EvidenceRejected, FormatError, CouldNotVerify)):
        look(GOOD, raw)
