# SPDX-License-Identifier: Apache-2.0
"""Sources that are there, away, slow, wrong and stale; the documents are of a world made here."""

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

import pytest

from imagers.errors import EvidenceRejected, FormatError, NotFound, RateLimited, RemoteError
from imagers.evidence.collateral.directory import CollateralDirectory
from imagers.evidence.collateral.fetch import Keeper, fetch
from imagers.evidence.judge import judge_parsed
from imagers.evidence.snp.verify import SNPEvidence, SNPVerifier
from imagers.model.evidence import Bound
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.testing.evidence import CollateralServer, Fault, SNPWorld
from tests.unit.evidence.snp.conftest import NOW, SEED, report_of

CRL = "snp/Genoa/vcek.crl"
KDS_CRL = "/vcek/v1/Genoa/crl"
THIM = "/metadata/THIM/amd/certification"


class Source:
    """A service that gives each request to a path the next of its answers; the last one repeats."""

    def __init__(self, server):
        self.server = server
        self.url = server.url

    @property
    def seen(self):
        return self.server.asked()

    def give(self, path, *answers):
        for left, one in zip(range(len(answers), 0, -1), answers, strict=True):
            fault = Fault(path, status=200, body=one) if isinstance(one, bytes) else one
            self.server.faults.append(replace(fault, path=path, times=1 if left > 1 else 99))


@pytest.fixture
def make_source():
    """A function: a service of a world that is nobody's, with answers of the test."""
    with ExitStack() as stack:

        def make(path=KDS_CRL, *answers):
            source = Source(stack.enter_context(CollateralServer()))
            source.give(path, *answers)
            return source

        yield make


@pytest.fixture
def directory(tmp_path):
    return CollateralDirectory(tmp_path / "collateral")


@pytest.fixture
def keeper(directory, genoa):
    return Keeper(directory, NOW, genoa.roots)


@pytest.fixture
def get(keeper, genoa):
    """A function: fetch by name from sources; what became of it, and how long was waited."""

    def get(*sources, names=(CRL,), evidence=None):
        waits = []
        settings = HTTPSettings(retry=RetryPolicy(attempts=3), read_timeout_s=0.2)
        with HTTPClient(settings, sleep=waits.append) as client:
            evidence = evidence or SNPEvidence(report_of(genoa), None)
            urls = [one if isinstance(one, str) else one.url for one in sources]
            found = list(fetch(names, evidence, sources=urls, keeper=keeper, client=client))
        return found[0], waits

    return get


def test_fetch_writes_what_the_first_source_gives_byte_for_byte(get, make_source, directory, genoa):
    crl = genoa.crl()
    first, second = make_source(KDS_CRL, crl), make_source(KDS_CRL, genoa.crl())
    found, _ = get(first, second)
    assert (found.state, found.passed_over, found.error) == ("new", (), None)
    assert f"http://{found.source}" == first.url
    assert directory.read(CRL) == crl
    assert second.seen == []
    assert get(first)[0].state == "unchanged"


def test_fetch_of_what_a_verifier_wants_makes_it_say_yes(get, make_source, directory, genoa):
    evidence = SNPEvidence(report_of(genoa), None)
    verifier = SNPVerifier(roots=genoa.roots)
    names = verifier.wanted(evidence)
    source = make_source(KDS_CRL, genoa.crl())
    source.give(f"/vcek/v1/Genoa/{genoa.chip_id.hex()}", genoa.leaf())
    get(source, names=names, evidence=evidence)
    assert [path for path in source.seen if "?" in path] == [
        f"/vcek/v1/Genoa/{genoa.chip_id.hex()}?blSPL=03&teeSPL=02&snpSPL=08&ucodeSPL=115"
    ]
    claims = judge_parsed(verifier, evidence, bound=Bound(), read=directory.read, now=NOW)
    assert claims.maker == "AMD, VCEK of a Genoa"


def test_fetch_of_a_turin_asks_by_eight_bytes_and_the_fmc(make_source, tmp_path):
    turin = SNPWorld(SEED, "Turin", now=NOW)
    evidence = SNPEvidence(report_of(turin), None)
    (_, name) = SNPVerifier(roots=turin.roots).wanted(evidence)
    source = make_source(f"/vcek/v1/Turin/{turin.chip_id.hex()}", turin.leaf())
    keeper = Keeper(CollateralDirectory(tmp_path / "c"), NOW, turin.roots)
    with HTTPClient() as client:
        (found,) = fetch([name], evidence, sources=[source.url], keeper=keeper, client=client)
    assert found.state == "new"
    assert len(turin.chip_id) == 8
    assert source.seen[0].endswith("?fmcSPL=01&blSPL=03&teeSPL=02&snpSPL=08&ucodeSPL=115")


BUSY = Fault(status=429, headers={"Retry-After": "7"})


def test_fetch_waits_as_long_as_a_busy_source_asks_for(get, make_source, genoa):
    found, waits = get(make_source(KDS_CRL, BUSY, Fault(status=503), genoa.crl()))
    assert found.state == "new"
    assert len(waits) == 2
    assert waits[0] >= 7


@pytest.mark.parametrize(
    ("answer", "piece", "error"),
    [
        pytest.param(BUSY, "429 too many requests", RateLimited, id="throttled"),
        pytest.param(Fault(status=503), "503 service unavailable", RemoteError, id="down"),
        pytest.param(Fault(status=404), "404 not found", NotFound, id="has none"),
        pytest.param(Fault(delay_s=30), "no answer", RemoteError, id="silent"),
        pytest.param(b"<html>", "is no list that can be read", FormatError, id="a page"),
    ],
)
def test_fetch_goes_on_to_the_next_source(get, make_source, genoa, answer, piece, error):
    found, _ = get(make_source(KDS_CRL, answer), make_source(KDS_CRL, genoa.crl()))
    assert found.state == "new"
    assert isinstance(found.error, error)
    assert piece in found.passed_over[0]


def test_fetch_passes_over_what_the_vendor_did_not_sign(get, make_source, genoa, directory):
    found, _ = get(make_source(KDS_CRL, genoa.crl(signer="other")))
    assert (found.state, found.document) == ("missing", None)
    assert isinstance(found.error, EvidenceRejected)
    assert "not signed by the ARK" in found.passed_over[0]
    assert not directory.path.exists()


def test_fetch_passes_over_a_certificate_of_another_chip(get, make_source, genoa):
    evidence = SNPEvidence(report_of(genoa), None)
    _, name = SNPVerifier(roots=genoa.roots).wanted(evidence)
    other = genoa.leaf(extensions={"4": bytes(range(64))})
    source = make_source(f"/vcek/v1/Genoa/{genoa.chip_id.hex()}", other)
    found, _ = get(source, names=[name], evidence=evidence)
    assert found.state == "missing"
    assert "is of another chip" in found.passed_over[0]


def test_fetch_does_not_put_an_older_document_in_the_place_of_a_younger(
    get, make_source, genoa, directory
):
    young, old = genoa.crl(), genoa.crl(begin=NOW - timedelta(days=5))
    get(make_source(KDS_CRL, young))
    found, _ = get(make_source(KDS_CRL, old))
    assert (found.state, found.source) == ("kept", "")
    assert found.document.issued == NOW - timedelta(days=1)
    assert "older than what is there" in found.passed_over[0]
    assert directory.read(CRL) == young
    newer = make_source(KDS_CRL, genoa.crl(begin=NOW + timedelta(hours=1)))
    assert get(make_source(KDS_CRL, old), newer)[0].state == "new"


def test_fetch_keeps_what_is_there_where_no_source_answers(get, make_source, genoa):
    get(make_source(KDS_CRL, genoa.crl()))
    found, _ = get(make_source(KDS_CRL, Fault(status=500)))
    assert found.state == "kept"
    assert found.document is not None
    assert "500" in str(found.error)


def test_fetch_takes_an_expired_document_only_where_there_is_no_better_one(
    get, make_source, genoa, keeper
):
    stale = genoa.crl(begin=NOW - timedelta(days=90))
    found, _ = get(make_source(KDS_CRL, stale))
    assert found.state == "new"
    assert found.document.is_expired(keeper.now)
    assert "what it has is expired" in found.passed_over[0]
    found, _ = get(make_source(KDS_CRL, stale), make_source(KDS_CRL, genoa.crl()))
    assert not found.document.is_expired(keeper.now)


def test_fetch_of_a_document_of_the_future_does_not_block_those_of_now(
    get, make_source, genoa, directory
):
    future = genoa.crl(begin=NOW + timedelta(days=400))
    found, _ = get(make_source(KDS_CRL, future))
    assert "is of the future" in found.passed_over[0]
    directory.put(CRL, future)
    assert get(make_source(KDS_CRL, genoa.crl()))[0].state == "new"


def test_fetch_replaces_what_is_damaged(get, make_source, genoa, directory):
    directory.put(CRL, b"half a li")
    assert get(make_source(KDS_CRL, genoa.crl()))[0].state == "new"


def test_azure_gives_certificates_of_its_machines_and_no_lists(get, genoa):
    evidence = SNPEvidence(report_of(genoa), None)
    crl, name = SNPVerifier(roots=genoa.roots).wanted(evidence)
    with CollateralServer(genoa) as server:  # which wants the header that Azure wants
        found, _ = get(f"{server.url}{THIM}", names=[name], evidence=evidence)
        assert found.state == "new"
        found, _ = get(f"{server.url}{THIM}", names=[crl], evidence=evidence)
        assert (found.state, len(server.asked())) == ("missing", 1)
    assert "has none of this kind" in found.passed_over[0]


def test_azure_that_gives_something_else_is_passed_over(get, make_source, genoa):
    evidence = SNPEvidence(report_of(genoa), None)
    _, name = SNPVerifier(roots=genoa.roots).wanted(evidence)
    source = make_source(THIM, b'{"vcekCert": 1}')
    found, _ = get(f"{source.url}{THIM}", names=[name], evidence=evidence)
    assert "expected a string" in found.passed_over[0]


def test_id_of_the_chip_is_in_no_log_and_no_message(get, make_source, genoa, caplog):
    caplog.set_level("DEBUG", logger="imagers")
    evidence = SNPEvidence(report_of(genoa), None)
    names = SNPVerifier(roots=genoa.roots).wanted(evidence)
    source = make_source(f"/vcek/v1/Genoa/{genoa.chip_id.hex()}", Fault(status=500))
    found, _ = get(source, names=names[1:], evidence=evidence)
    chip = genoa.chip_id.hex()
    assert chip in source.seen[0]
    said = caplog.text + repr(found) + str(found.error)
    assert "/vcek/v1/Genoa/…" in caplog.text
    assert chip[:16] not in said
