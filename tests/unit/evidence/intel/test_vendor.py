# SPDX-License-Identifier: Apache-2.0
"""Intel's documents as collateral: real ones, and those of a world made here."""

from urllib.parse import quote

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.collateral.directory import CollateralDirectory
from imagers.evidence.collateral.fetch import Keeper, fetch
from imagers.evidence.intel.collateral import ROOT_CRL, chain_name, crl_name
from imagers.evidence.intel.engine import wanted
from imagers.evidence.intel.vendor import Intel
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.testing.evidence import CollateralServer, Fault
from tests.unit.evidence.intel.conftest import NOW, REAL, World

PATHS = {
    ROOT_CRL: "/rootcacrl",
    crl_name("platform"): "/pckcrl?ca=platform&encoding=der",
    "info": "/tdx/certification/v4/tcb?fmspc=",
    "identity": "/tdx/certification/v4/qe/identity",
}
HEADERS = {"info": "TCB-Info-Issuer-Chain", "identity": "SGX-Enclave-Identity-Issuer-Chain"}


@pytest.mark.parametrize("case", REAL.values(), ids=REAL)
def test_real_documents_say_what_they_are_and_until_when(case):
    vendor = Intel()
    found = case.collateral
    for name in found:
        if name.endswith(".pem"):
            continue
        document = vendor.describe(name, found)
        assert document.kind
        assert document.issued < document.valid_until
        assert case.now < document.valid_until
        assert document.number is not None


def test_documents_of_a_tool_and_lists_tell_their_names():
    case = REAL["tdx up to date"]
    found = Intel().find(case.theirs)
    assert found == case.collateral
    for name, data in found.items():
        if name.endswith(".crl"):
            assert Intel().find(data) == {name: data}


@pytest.mark.parametrize("data", [b"", b"{}", b"\x30\x00", b"-----BEGIN CERTIFICATE-----"])
def test_file_that_is_none_of_intels_is_refused(data):
    with pytest.raises(FormatError):
        Intel().find(data)


def test_list_whose_issuer_cannot_be_read_is_refused():
    name = b"\x06\x03U\x04\x03\x0c\x11Intel SGX Root CA"
    data = World().crl()
    assert name in data
    with pytest.raises(FormatError):
        Intel().find(data.replace(name, name.replace(b"\x0c", b"\x03")))


def describe_all(vendor, found):
    for name in found:
        if not name.endswith(".pem"):
            vendor.describe(name, found)


@pytest.mark.parametrize(
    ("part", "change", "error", "piece"),
    [
        ("info", lambda w: w.tcb_info(key="ca"), EvidenceRejected, "signature of the TCB info"),
        ("info", lambda w: w.tcb_info("sgx"), FormatError, "expected 'TDX', got 'SGX'"),
        ("info", lambda w: w.tcb_info(fmspc="00906EA10000"), FormatError, "another kind"),
        ("identity", lambda w: w.identity(key="ca"), EvidenceRejected, "signature of the QE"),
        ("root_crl", lambda w: w.crl(signer="ca"), EvidenceRejected, "is not signed by"),
        ("crl", lambda w: w.crl(), EvidenceRejected, "is not of Intel SGX PCK Platform CA"),
        ("crl", lambda _: b"\x30\x00", FormatError, "no list"),
    ],
)
def test_document_that_is_another_is_refused(world, part, change, error, piece):
    found = world.collateral(**{part: change(world)})
    with pytest.raises(error, match=piece):
        describe_all(Intel(world.root_pem), found)


@pytest.mark.parametrize("name", ["intel/x.crl", "intel/tdx-1.json", "intel/tdx-qe-identity.pem"])
def test_name_that_nobody_knows_is_refused(name):
    with pytest.raises(FormatError, match="there is no document"):
        Intel().describe(name, {name: b""})


@pytest.fixture
def documents(world):
    return world.collateral()


@pytest.fixture
def server(documents):
    """A cache of Intel's service."""
    found = documents
    with CollateralServer() as server:
        for name, data in found.items():
            if name.endswith(".pem"):
                continue
            kind = name
            headers = {}
            if name.endswith(".json"):
                kind = "identity" if "identity" in name else "info"
                headers = {HEADERS[kind]: quote(found[chain_name(name)])}
            server.faults.append(Fault(PATHS[kind], 99, status=200, headers=headers, body=data))
        yield server


@pytest.fixture
def get(world, tmp_path):
    def get(*urls):
        evidence = world.quote()
        keeper = Keeper(CollateralDirectory(tmp_path / "c"), NOW, world.root_pem)
        settings = HTTPSettings(retry=RetryPolicy(attempts=1))
        with HTTPClient(settings) as client:
            names = wanted(evidence, "tdx")
            found = fetch(names, evidence, sources=urls, keeper=keeper, client=client)
            return {one.name: one for one in found}

    return get


def test_fetch_gets_all_that_a_quote_needs_with_their_signers(get, server, documents, tmp_path):
    found = get(server.url)
    assert {one.state for one in found.values()} == {"new"}
    directory = CollateralDirectory(tmp_path / "c")
    assert {name: directory.read(name) for name in directory.names()} == documents
    assert {one.state for one in get(server.url).values()} == {"unchanged"}
    assert len(server.asked()) == 8  # who signed comes with what was signed


def test_fetch_of_signers_that_do_not_come_along_goes_on_to_the_next_source(get, server, world):
    with CollateralServer() as other:
        other.faults.append(Fault(PATHS["identity"], 99, status=200, body=world.identity()))
        found = get(other.url, server.url)
    assert {one.state for one in found.values()} == {"new"}
    (identity,) = (one for name, one in found.items() if "identity" in name)
    assert "expected a header with the chain of its issuer" in identity.passed_over[0]


def test_fetch_passes_over_a_list_that_the_issuer_of_the_machine_did_not_sign(get, server):
    """It has the right name in it: without the quote nobody could tell."""
    other = World()
    crl = Fault(PATHS[crl_name("platform")], 99, status=200, body=other.crl(signer="ca"))
    with CollateralServer() as liar:
        liar.faults.append(crl)
        found = get(liar.url, server.url)[crl_name("platform")]
    assert found.state == "new"
    assert "is not signed by Intel SGX PCK Platform CA" in found.passed_over[0]
