# SPDX-License-Identifier: Apache-2.0
"""TCB info and QE identities: Intel's, and those that are not in order."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.intel.certificates import Issued, built_in_root, read_signer
from imagers.evidence.intel.collateral import import_documents
from imagers.evidence.intel.documents import read_identity, read_tcb_info
from tests.real_evidence import real_file
from tests.unit.evidence.intel.conftest import REAL, raw_signature

NEGATIVE = [
    "CompSvn",
    "Float",
    "IntegerOverflow",
    "IntegerWithSign",
    "InvalidIssueDate",
    "InvalidNextUpdate",
    "MissingNextUpdate",
    "PceSvn",
    *(f"PropertyMissingLevel{level}" for level in range(4)),
    *(f"PropertyWrongTypeLevel{level}" for level in range(4)),
    "Signature",
    "StringEscape",
]


def negative(name):
    return real_file(f"sgx/openenclave-tcbinfo-negative/tcbInfoNegative{name}.json").read_bytes()


@pytest.fixture(scope="module")
def intel():
    """Intel's signer of documents."""
    chain = REAL["tdx up to date"].collateral["intel/tdx-qe-identity.pem"]
    return read_signer(chain, built_in_root(), "x")


@pytest.fixture(scope="module")
def signer(world):
    return Issued.read(world.signer)


@pytest.mark.parametrize(
    ("path", "fmspc", "evaluation", "levels", "modules"),
    [
        ("tdx/trustee/tcbInfo.json", "00a06d080000", 17, 2, ["TDX_03", "TDX_01"]),
        ("tdx/go-tdx-guest/sample_tcbInfo_response", "50806f000000", 15, 2, []),
        (
            "tdx/go-tdx-guest/sample_tcbinfo_response_v5",
            "90c06f000000",
            18,
            2,
            ["TDX_01", "TDX_03"],
        ),
    ],
)
def test_tcb_info_of_intel_is_read(intel, path, fmspc, evaluation, levels, modules):
    info = read_tcb_info(real_file(path).read_bytes(), intel, "tdx")
    assert info.fmspc.hex() == fmspc
    assert info.period.evaluation == evaluation
    assert sorted(info.modules) == sorted(modules)
    assert len(info.levels) >= levels
    assert all(len(one.tdx) == 16 for one in info.levels)


@pytest.mark.parametrize(
    "path", ["tdx/trustee/enclaveIdentity.json", "tdx/go-tdx-guest/sample_qeIdentity_response"]
)
def test_identity_of_intel_is_read(intel, path):
    identity = read_identity(real_file(path).read_bytes(), intel, "tdx")
    assert identity.signer.hex().startswith("dc9e2a7c")
    assert (identity.product, identity.levels[0].isv_svn) == (2, 4)


@pytest.mark.parametrize("name", NEGATIVE)
def test_document_that_must_not_be_taken_is_not(intel, name):
    """The 18 of Open Enclave: neither as they stand, nor if somebody signed them."""
    with pytest.raises((FormatError, EvidenceRejected)):
        read_tcb_info(negative(name), intel, "sgx")


@pytest.mark.parametrize("name", NEGATIVE)
def test_document_that_must_not_be_taken_is_not_where_it_is_signed(world, signer, name):
    text = negative(name)
    inner = text[text.index(b":") + 1 : text.rindex(b",")].strip()
    signature = raw_signature(world.keys["signer"], inner).hex().encode()
    data = b'{"tcbInfo":' + inner + b',"signature":"' + signature + b'"}'
    with pytest.raises(FormatError):
        read_tcb_info(data, signer, "sgx")


def test_document_may_have_spaces_outside_of_what_is_signed(world, signer):
    data = world.tcb_info()
    spaced = (
        data.replace(b'{"tcbInfo":', b' {\n "tcbInfo" : ').replace(b',"sig', b' ,\n"sig') + b"\n"
    )
    assert read_tcb_info(spaced, signer, "tdx") == read_tcb_info(data, signer, "tdx")
    for changed in (
        data.replace(b'"version":3', b'"version": 3'),
        data.replace(b"UpToDate", b"OutOfDate"),
        data.replace(b'"tcbType":0', b'"tcbType":0,"x":0'),
    ):
        with pytest.raises(EvidenceRejected, match="signature of the TCB info of TDX is not"):
            read_tcb_info(changed, signer, "tdx")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data.replace(b"tcbInfo", b"tcbinfo"),
        lambda data: data.replace(b'"signature"', b'"Signature"'),
        lambda data: data[:-3] + b'"}',
        lambda data: data + b"{}",
        lambda data: b'{"a":1,' + data[1:],
        lambda data: data + b" " * 256 * 1024,
    ],
)
def test_document_of_another_form_is_refused(world, signer, change):
    with pytest.raises(FormatError):
        read_tcb_info(change(world.tcb_info()), signer, "tdx")


def changed(level, path, value):
    document = level
    for part in path[:-1]:
        document = document[part]
    document[path[-1]] = value
    return level


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({"id": "SGX"}, "expected 'TDX', got 'SGX'"),
        ({"version": 2}, "expected 3, got '2'"),
        ({"version": 3.0}, "expected a whole number"),
        ({"version": True}, "expected a whole number"),
        ({"tcbType": 1}, "expected 0, got '1'"),
        ({"issueDate": "2026-11-28"}, "expected a time such as"),
        ({"issueDate": "2026-13-28T00:00:00Z"}, "expected a time such as"),
        ({"nextUpdate": "2026-11-28T00:00:00+01:00"}, "expected a time such as"),
        ({"nextUpdate": None}, "expected a string"),
        ({"fmspc": "00a06d0800"}, "expected 6 bytes in hex"),
        ({"fmspc": "00a06d08000x"}, "expected 6 bytes in hex"),
        ({"pceId": "00 0"}, "expected 2 bytes in hex"),
        ({"tcbEvaluationDataNumber": -1}, "expected a number from 0"),
        ({"tcbEvaluationDataNumber": "1"}, "expected a whole number"),
        ({"tcbLevels": []}, "expected a list that is not empty"),
        ({"tcbLevels": {}}, "expected a list"),
        ({"tdxModule": None}, "expected an object"),
    ],
)
def test_tcb_info_that_is_not_in_order_is_refused_although_it_is_signed(
    world, signer, changes, piece
):
    with pytest.raises(FormatError) as caught:
        read_tcb_info(world.tcb_info(**changes), signer, "tdx")
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "piece"),
    [
        (("tcbStatus",), "Fine", "expected one of UpToDate"),
        (("tcbStatus",), None, "expected a string"),
        (("tcbDate",), "yesterday", "expected a time such as"),
        (("tcb",), [], "expected an object"),
        (("tcb", "pcesvn"), 65536, "expected a number from 0 to 65535"),
        (("tcb", "pcesvn"), 1.0, "expected a whole number"),
        (("tcb", "sgxtcbcomponents"), [{"svn": 0}] * 15, "expected 16 components, got 15"),
        (("tcb", "sgxtcbcomponents"), [{"svn": 0}] * 17, "expected at most 16"),
        (("tcb", "tdxtcbcomponents"), None, "expected a list"),
        (("tcb", "tdxtcbcomponents", 3), {"svn": -1}, "expected a number from 0"),
        (("tcb", "tdxtcbcomponents", 3), 5, "expected an object"),
        (("advisoryIDs",), [1], "expected a string"),
    ],
)
def test_level_that_is_not_in_order_is_refused_although_it_is_signed(
    world, signer, path, value, piece
):
    level = changed(world.level(), path, value)
    with pytest.raises(FormatError) as caught:
        read_tcb_info(world.tcb_info(levels=[level]), signer, "tdx")
    assert piece in str(caught.value)


def test_module_that_is_there_twice_is_refused(world, signer):
    module = world.module(1, world.enclave_level(1))
    lower = {**module, "id": "tdx_01"}
    with pytest.raises(FormatError, match="expected one module 'TDX_01', got two"):
        read_tcb_info(world.tcb_info(modules=[module, lower]), signer, "tdx")


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({"id": "QE"}, "expected 'TD_QE', got 'QE'"),
        ({"version": 1}, "expected 2, got '1'"),
        ({"mrsigner": "00"}, "expected 32 bytes in hex"),
        ({"attributesMask": "00"}, "expected 16 bytes in hex"),
        ({"isvprodid": 65536}, "expected a number from 0 to 65535"),
        ({"tcbLevels": []}, "expected a list that is not empty"),
    ],
)
def test_identity_that_is_not_in_order_is_refused_although_it_is_signed(
    world, signer, changes, piece
):
    with pytest.raises(FormatError) as caught:
        read_identity(world.identity(**changes), signer, "tdx")
    assert piece in str(caught.value)


def test_name_that_is_there_twice_is_refused_although_it_is_signed(world, signer):
    inner = json.dumps(json.loads(world.tcb_info())["tcbInfo"], separators=(",", ":"))
    text = inner.replace('"version":3', '"version":2,"version":3').encode()
    signature = raw_signature(world.keys["signer"], text).hex().encode()
    data = b'{"tcbInfo":' + text + b',"signature":"' + signature + b'"}'
    with pytest.raises(FormatError, match="has the name 'version' twice"):
        read_tcb_info(data, signer, "tdx")


@given(st.binary(max_size=300))
def test_any_bytes_are_no_document(data):
    certificate = REAL["tdx up to date"].collateral["intel/tdx-qe-identity.pem"]
    signer = read_signer(certificate, built_in_root(), "x")
    for read in (read_tcb_info, read_identity):
        with pytest.raises(FormatError):
            read(data, signer, "tdx")


def test_each_changed_byte_of_a_document_is_refused(intel):
    data = import_documents(REAL["tdx up to date"].theirs)["intel/tdx-qe-identity.json"]
    for at in range(len(data)):
        changed_data = bytearray(data)
        changed_data[at] ^= 1
        with pytest.raises((FormatError, EvidenceRejected)):
            read_identity(bytes(changed_data), intel, "tdx")


def test_document_counts_to_the_second(world, signer):
    period = read_tcb_info(world.tcb_info(), signer, "tdx").period
    for when in (period.begin, period.end):
        period.check(when)
    for when in (period.begin - timedelta(seconds=1), period.end + timedelta(seconds=1)):
        with pytest.raises(CouldNotVerify, match="TCB info of TDX is not valid at"):
            period.check(when)
