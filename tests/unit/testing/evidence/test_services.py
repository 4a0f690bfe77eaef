# SPDX-License-Identifier: Apache-2.0
"""Vendors' services answer by path and query."""

import json
import urllib.parse
from datetime import UTC, datetime

import pytest
from cryptography import x509

from imagers.evidence.snp.certificates import parse_leaf
from imagers.evidence.snp.report import TCB
from imagers.testing.evidence import SGXWorld, SNPWorld, TDXWorld
from imagers.testing.evidence.services import answer

SEED = b"imagers.testing.evidence services"[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
SPLS = {"blSPL": "10", "teeSPL": "00", "snpSPL": "23", "ucodeSPL": "025"}


@pytest.fixture(scope="module")
def genoa():
    return SNPWorld(SEED, now=NOW)


def test_amd_gives_the_certificate_of_its_chip_for_any_firmware(genoa):
    path = f"/vcek/v1/Genoa/{genoa.chip_id.hex()}"
    given = answer(genoa, path, SPLS, {})
    leaf = parse_leaf(given.body, what="x")
    assert (given.status, leaf.tcb) == (200, TCB(None, 10, 0, 23, 25))
    assert leaf.chip_id == genoa.chip_id
    leaf.check(genoa.authority, NOW)


@pytest.mark.parametrize(
    "query", [{}, SPLS | {"blSPL": "x"}, SPLS | {"snpSPL": "256"}, {"blSPL": "10"}]
)
def test_amd_wants_all_parts_of_the_firmware(genoa, query):
    assert answer(genoa, f"/vcek/v1/Genoa/{genoa.chip_id.hex()}", query, {}).status == 400


def test_amd_wants_one_part_more_of_a_turin_and_an_id_of_eight_bytes():
    turin = SNPWorld(SEED, "Turin", now=NOW)
    assert len(turin.chip_id) == 8
    path = f"/vcek/v1/Turin/{turin.chip_id.hex()}"
    assert answer(turin, path, SPLS, {}).status == 400
    given = answer(turin, path, SPLS | {"fmcSPL": "1"}, {})
    assert parse_leaf(given.body, what="x").tcb == TCB(1, 10, 0, 23, 25)


def test_amd_does_not_know_another_chip(genoa):
    assert answer(genoa, f"/vcek/v1/Genoa/{'00' * 64}", SPLS, {}).status == 404


@pytest.mark.parametrize(("kind", "issuer"), [("vcek", "SEV-Genoa"), ("vlek", "SEV-VLEK-Genoa")])
def test_amd_gives_authorities_and_lists_of_each_kind(genoa, kind, issuer):
    chain = x509.load_pem_x509_certificates(
        answer(genoa, f"/{kind}/v1/Genoa/cert_chain", {}, {}).body
    )
    names = [one.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value for one in chain]
    assert names == [issuer, "ARK-Genoa"]
    crl = x509.load_der_x509_crl(answer(genoa, f"/{kind}/v1/Genoa/crl", {}, {}).body)
    assert crl.last_update_utc < NOW < crl.next_update_utc


@pytest.mark.parametrize("path", ["/", "/vcek/v1/Milan/crl", "/vcek/v2/Genoa/crl", "/x/vcek/v1"])
def test_amd_has_no_other_paths(genoa, path):
    assert answer(genoa, path, {}, {}) is None


def test_azure_gives_the_certificates_of_its_machine_to_who_says_metadata(genoa):
    path = "/metadata/THIM/amd/certification"
    assert answer(genoa, path, {}, {}).status == 400
    document = json.loads(answer(genoa, path, {}, {"Metadata": "true"}).body)
    assert parse_leaf(document["vcekCert"].encode(), what="x").tcb == genoa.tcb
    assert len(x509.load_pem_x509_certificates(document["certificateChain"].encode())) == 2
    assert document["tcbm"] == "7308000000000203"


@pytest.mark.parametrize("kind", [TDXWorld, SGXWorld])
def test_intel_gives_its_documents_and_who_signed_them(kind):
    world = kind(SEED, now=NOW)
    base = f"/{world.tee}/certification/v4"
    info = answer(world, f"{base}/tcb", {"fmspc": world.fmspc.hex()}, {})
    identity = answer(world, f"{base}/qe/identity", {"update": "early"}, {})
    assert (info.body, identity.body) == (world.tcb_info(), world.identity())
    for given, header in (
        (info, "TCB-Info-Issuer-Chain"),
        (identity, "SGX-Enclave-Identity-Issuer-Chain"),
    ):
        chain = urllib.parse.unquote_to_bytes(given.headers[header])
        assert chain == world.chain("signing", "root")
    assert answer(world, f"{base}/tcb", {"fmspc": "00" * 6}, {}).status == 404
    other = "sgx" if world.tee == "tdx" else "tdx"
    assert answer(world, f"/{other}/certification/v4/qe/identity", {}, {}) is None


def test_intel_gives_lists_in_each_form():
    world = TDXWorld(SEED, now=NOW)
    path = "/sgx/certification/v4/pckcrl"
    for ca in ("platform", "processor"):
        der = answer(world, path, {"ca": ca, "encoding": "der"}, {}).body
        assert x509.load_der_x509_crl(der).issuer.rfc4514_string().count(ca.capitalize()) == 1
        text = answer(world, path, {"ca": ca}, {}).body
        assert x509.load_pem_x509_crl(text) == x509.load_der_x509_crl(der)
    assert answer(world, path, {"ca": "root"}, {}).status == 400
    root = answer(world, "/IntelSGXRootCA.der", {}, {}).body
    assert (
        bytes.fromhex(answer(world, "/sgx/certification/v4/rootcacrl", {}, {}).body.decode())
        == root
    )
    assert answer(world, "/sgx/certification/v3/rootcacrl", {}, {}) is None
