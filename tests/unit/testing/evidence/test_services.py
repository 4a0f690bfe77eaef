# SPDX-License-Identifier: Apache-2.0
"""Vendors' services answer by path and query."""

import json
from datetime import UTC, datetime

import pytest
from cryptography import x509

from imagers.evidence.snp.certificates import parse_leaf
from imagers.evidence.snp.report import TCB
from imagers.testing.evidence import SNPWorld
from imagers.testing.evidence.services import amd

SEED = b"imagers.testing.evidence services"[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
SPLS = {"blSPL": "10", "teeSPL": "00", "snpSPL": "23", "ucodeSPL": "025"}


@pytest.fixture(scope="module")
def genoa():
    return SNPWorld(SEED, now=NOW)


def test_amd_gives_the_certificate_of_its_chip_for_any_firmware(genoa):
    path = f"/vcek/v1/Genoa/{genoa.chip_id.hex()}"
    answer = amd(genoa, path, SPLS, {})
    leaf = parse_leaf(answer.body, what="x")
    assert (answer.status, leaf.tcb) == (200, TCB(None, 10, 0, 23, 25))
    assert leaf.chip_id == genoa.chip_id
    leaf.check(genoa.authority, NOW)


@pytest.mark.parametrize(
    "query", [{}, SPLS | {"blSPL": "x"}, SPLS | {"snpSPL": "256"}, {"blSPL": "10"}]
)
def test_amd_wants_all_parts_of_the_firmware(genoa, query):
    assert amd(genoa, f"/vcek/v1/Genoa/{genoa.chip_id.hex()}", query, {}).status == 400


def test_amd_wants_one_part_more_of_a_turin_and_an_id_of_eight_bytes():
    turin = SNPWorld(SEED, "Turin", now=NOW)
    assert len(turin.chip_id) == 8
    path = f"/vcek/v1/Turin/{turin.chip_id.hex()}"
    assert amd(turin, path, SPLS, {}).status == 400
    answer = amd(turin, path, SPLS | {"fmcSPL": "1"}, {})
    assert parse_leaf(answer.body, what="x").tcb == TCB(1, 10, 0, 23, 25)


def test_amd_does_not_know_another_chip(genoa):
    assert amd(genoa, f"/vcek/v1/Genoa/{'00' * 64}", SPLS, {}).status == 404


@pytest.mark.parametrize(("kind", "issuer"), [("vcek", "SEV-Genoa"), ("vlek", "SEV-VLEK-Genoa")])
def test_amd_gives_authorities_and_lists_of_each_kind(genoa, kind, issuer):
    chain = x509.load_pem_x509_certificates(amd(genoa, f"/{kind}/v1/Genoa/cert_chain", {}, {}).body)
    names = [one.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value for one in chain]
    assert names == [issuer, "ARK-Genoa"]
    crl = x509.load_der_x509_crl(amd(genoa, f"/{kind}/v1/Genoa/crl", {}, {}).body)
    assert crl.last_update_utc < NOW < crl.next_update_utc


@pytest.mark.parametrize("path", ["/", "/vcek/v1/Milan/crl", "/vcek/v2/Genoa/crl", "/x/vcek/v1"])
def test_amd_has_no_other_paths(genoa, path):
    assert amd(genoa, path, {}, {}) is None


def test_azure_gives_the_certificates_of_its_machine_to_who_says_metadata(genoa):
    path = "/metadata/THIM/amd/certification"
    assert amd(genoa, path, {}, {}).status == 400
    document = json.loads(amd(genoa, path, {}, {"Metadata": "true"}).body)
    assert parse_leaf(document["vcekCert"].encode(), what="x").tcb == genoa.tcb
    assert len(x509.load_pem_x509_certificates(document["certificateChain"].encode())) == 2
    assert document["tcbm"] == "7308000000000203"
