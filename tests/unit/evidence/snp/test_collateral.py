# SPDX-License-Identifier: Apache-2.0
"""How AMD's documents are known; that sources are asked rightly is in test_fetch.py."""

import json

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.snp.collateral import AMD, kds_path
from imagers.evidence.snp.verify import SNPEvidence, SNPVerifier, leaf_name, parse_file
from tests.real_evidence import real_file
from tests.unit.evidence.snp.conftest import report_of


def name_of(world):
    return SNPVerifier().wanted(SNPEvidence(report_of(world), None))[1]


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_list_says_its_kind_and_its_times(world, kind):
    name = f"snp/{world.product.name}/{kind}.crl"
    document = AMD(world.roots).describe(name, {name: world.crl()})
    assert document.kind.endswith(f"of {world.product.name} for a {kind.upper()}")
    assert (document.valid_until - document.issued).days == 31
    assert document.number == 1


def test_certificate_of_the_chip_says_its_kind_and_its_times(world):
    name = name_of(world)
    document = AMD(world.roots).describe(name, {name: world.leaf()})
    assert document.kind == f"VCEK of a {world.product.name}"
    assert (document.valid_until - document.issued).days == 2556


@pytest.mark.parametrize(
    ("name", "make", "error", "piece"),
    [
        ("snp/Genoa/vcek.crl", lambda w: w.crl(signer="other"), EvidenceRejected, "by the ARK"),
        ("snp/Genoa/vcek.crl", lambda w: w.leaf(), FormatError, "no list"),
        ("own", lambda w: w.leaf(signer="other"), EvidenceRejected, "not signed by AMD"),
        ("own", lambda w: w.leaf(vlek=True), FormatError, "another chip"),
        ("own", lambda w: w.leaf(extensions={"3.8": b"\x02\x01\x01"}), FormatError, "version"),
        ("snp/Rome/vcek.crl", lambda w: w.crl(), FormatError, "there is no document"),
        ("snp/Genoa/x.crl", lambda w: w.crl(), FormatError, "there is no document"),
    ],
)
def test_document_that_is_another_is_refused(genoa, name, make, error, piece):
    name = name_of(genoa) if name == "own" else name
    with pytest.raises(error, match=piece):
        AMD(genoa.roots).describe(name, {name: make(genoa)})


def test_amds_own_list_of_test_roots_is_not_believed(genoa):
    with pytest.raises(EvidenceRejected, match="not signed by the ARK"):
        AMD().describe("snp/Genoa/vcek.crl", {"snp/Genoa/vcek.crl": genoa.crl()})


def test_certificate_tells_its_own_name_as_the_report_does(world, as_pem):
    der = world.leaf()
    text = as_pem(der)
    assert AMD().find(der) == {name_of(world): der}
    assert AMD().find(text) == {name_of(world): text}
    azure = json.dumps({"vcekCert": text.decode()}).encode()
    assert AMD().find(azure) == {name_of(world): text}


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        (lambda w: w.crl(), "does not say for which keys"),
        (lambda w: w.leaf(vlek=True), "got a VLEK"),
        (lambda _: b"{}", "vcekCert"),
        (lambda _: b"", "is not a certificate"),
    ],
)
def test_file_that_does_not_tell_its_name_is_refused(genoa, make, piece):
    with pytest.raises(FormatError, match=piece):
        AMD().find(make(genoa))


@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_list_has_a_path_of_its_own_for_each_kind(genoa, kind):
    evidence = SNPEvidence(report_of(genoa), None)
    assert kds_path(f"snp/Genoa/{kind}.crl", evidence) == f"/{kind}/v1/Genoa/crl"


@pytest.mark.parametrize(
    ("report", "certificate"),
    [
        ("openanolis/turin-report.bin", "openanolis/turin-vcek.der"),
        ("trustee/test-report.bin", "trustee/test-vcek.der"),
    ],
)
def test_certificate_of_a_real_chip_has_the_name_that_its_report_wants(report, certificate):
    der = real_file(f"snp/{certificate}").read_bytes()
    (name,) = AMD().find(der)
    evidence = parse_file(real_file(f"snp/{report}").read_bytes(), der)
    assert leaf_name(evidence.report, evidence.product) == name
    assert AMD().describe(name, {name: der}).kind.startswith("VCEK of a ")


def test_forged_certificate_of_a_chip_is_not_taken():
    der = real_file("snp/trustee/test-vcek-invalid-legacy.der").read_bytes()
    (name,) = AMD().find(der)
    with pytest.raises(EvidenceRejected, match="not signed by AMD"):
        AMD().describe(name, {name: der})
