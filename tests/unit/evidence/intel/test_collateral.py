# SPDX-License-Identifier: Apache-2.0
"""Names of Intel's documents, where they are, and the forms in which tools write them."""

import json
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.intel.collateral import (
    PCS,
    ROOT_CRL,
    documents,
    import_documents,
    names,
    sources,
)
from tests.real_evidence import real_file

TDX = "tdx/dcap-qvl/tdx_quote_collateral.json"
SGX = "sgx/dcap-qvl/sgx_quote_collateral.json"


@pytest.mark.parametrize(
    ("path", "tee", "fmspc", "ca"),
    [(TDX, "tdx", "b0c06f000000", "platform"), (SGX, "sgx", "00A067110000", "processor")],
)
def test_file_of_dcap_qvl_has_all_that_a_quote_needs(path, tee, fmspc, ca):
    found = import_documents(real_file(path).read_bytes())
    assert set(found) == set(names(tee, fmspc, ca))
    theirs = json.loads(real_file(path).read_bytes())
    info = found[f"intel/{tee}-{fmspc.upper()}.json"]
    assert theirs["tcb_info"].encode() in info
    assert json.loads(info)["signature"] == theirs["tcb_info_signature"]
    assert found[ROOT_CRL] == bytes.fromhex(theirs["root_ca_crl"])


def test_file_of_the_tool_of_intel_gives_the_texts_that_were_signed():
    theirs = json.loads(real_file(TDX).read_bytes())
    expected = import_documents(real_file(TDX).read_bytes())
    chain = quote(theirs["tcb_info_issuer_chain"])
    file = {
        "platforms": [],
        "collaterals": {
            "version": 4,
            "tcbinfos": [
                {
                    "fmspc": "b0c06f000000",
                    "tdx_tcbinfo": json.loads(expected["intel/tdx-B0C06F000000.json"]),
                }
            ],
            "pckcacrl": {"processorCrl": "", "platformCrl": theirs["pck_crl"]},
            "tdqeidentity": expected["intel/tdx-qe-identity.json"].decode(),
            "qeidentity": "",
            "certificates": {
                "SGX-PCK-Certificate-Issuer-Chain": {"PLATFORM": "x"},
                "TCB-Info-Issuer-Chain": chain,
                "SGX-Enclave-Identity-Issuer-Chain": chain,
            },
            "rootcacrl": theirs["root_ca_crl"],
        },
    }
    assert import_documents(json.dumps(file, indent=2).encode()) == expected
    del file["collaterals"]["certificates"]["TCB-Info-Issuer-Chain"]
    with pytest.raises(FormatError, match="expected the chain tcb-info-issuer-chain"):
        import_documents(json.dumps(file).encode())


def test_each_name_has_its_place_at_intel_and_at_a_pccs():
    for name in names("tdx", "b0c06f000000", "platform"):
        (first, *_) = sources(name)
        assert first.startswith("https://")
        assert "intel.com/" in first
        (own, *_) = sources(name, "https://pccs.example:8081/")
        assert own.startswith(("https://pccs.example:8081/sgx/", "https://pccs.example:8081/tdx/"))
    assert sources("intel/tdx-B0C06F000000.json") == (
        f"{PCS}/tdx/certification/v4/tcb?fmspc=B0C06F000000",
    )
    assert sources("intel/sgx-qe-identity.pem") == (f"{PCS}/sgx/certification/v4/qe/identity",)


@pytest.mark.parametrize("name", ["intel/other.crl", "snp/Genoa/vcek.crl", "intel/tdx-../.json"])
def test_name_of_no_document_has_no_place(name):
    with pytest.raises(FormatError, match="expected the name of a document"):
        sources(name)


def test_response_gives_the_body_as_it_came_and_who_signed_it():
    body = b'{"tcbInfo": {},  "signature":"00"}\n'
    chain = "-----BEGIN CERTIFICATE-----\nA+/=\n-----END CERTIFICATE-----\n"
    name = "intel/tdx-B0C06F000000.json"
    found = documents(name, body, {"Tcb-Info-Issuer-Chain": quote(chain)})
    assert found == {name: body, "intel/tdx-B0C06F000000.pem": chain.encode()}
    assert documents(name.replace("json", "pem"), body, {"TCB-INFO-issuer-chain": chain}) == found
    with pytest.raises(FormatError, match="expected a header with the chain of its issuer"):
        documents(name, body, {})


def test_list_comes_as_der_pem_or_hex():
    der = import_documents(real_file(TDX).read_bytes())["intel/pck-platform.crl"]
    pem = b"-----BEGIN X509 CRL-----\n" + b64encode(der) + b"\n-----END X509 CRL-----\n"
    for body in (der, pem, der.hex().encode() + b"\n", pem.hex().encode()):
        assert documents(ROOT_CRL, body, {}) == {ROOT_CRL: der}
    with pytest.raises(FormatError, match="expected a list of revoked certificates"):
        documents(ROOT_CRL, b"<html>", {})


@given(st.binary(max_size=300))
def test_any_bytes_are_no_file_of_documents(data):
    with pytest.raises(FormatError):
        import_documents(data)
