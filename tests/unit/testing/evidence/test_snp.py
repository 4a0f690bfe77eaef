# SPDX-License-Identifier: Apache-2.0
"""Evidence of the factory is genuine for a verifier with its root, and for no other."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Attester, Bound, ReportData
from imagers.testing.evidence import SNPWorld

SEED = b"imagers.testing.evidence.snp is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@cache
def collateral_of(world):
    return world.collateral()


def claims_of(world, body, bound=Bound(), *, roots=None):  # noqa: B008  # it is frozen
    verifier = load_verifier("snp", roots=roots or world.roots)
    read = collateral_of(world).get
    return judge_evidence(verifier, body, bound=bound, read=read, now=world.now)


@pytest.fixture(scope="session")
def genoa():
    return SNPWorld(SEED, now=NOW)


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("changes", [{}, {"vlek": True}, {"is_certificate_sent": False}])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_evidence_is_genuine(product, changes, version):
    world = SNPWorld(SEED, product, now=NOW)
    claims = claims_of(world, world.evidence(version=version, **changes))
    assert claims.test_root
    assert claims.maker == f"AMD, {'VLEK' if 'vlek' in changes else 'VCEK'} of a {product}"
    assert claims.measured == ({"snp_launch_measurement": world.measurement.hex()},)


@given(st.binary(min_size=48, max_size=48), st.binary(max_size=64), st.binary(max_size=32))
def test_any_measurement_and_what_is_bound_come_out_as_they_went_in(genoa, measurement, data, init):
    body = genoa.evidence(measurement=measurement, report_data=data, init_data=init)
    claims = claims_of(genoa, body, Bound(data, init))
    assert claims.measured[0]["snp_launch_measurement"] == measurement.hex()
    assert claims.report_data == data.ljust(64, b"\0").hex()
    assert claims.init_data == init.ljust(32, b"\0").hex()


def test_attester_binds_what_it_is_handed(genoa):
    attester = genoa.attester(measurement=b"m" * 48, init_data=b"i" * 32, guest_svn=7)
    assert isinstance(attester, Attester)
    evidence = attester.collect(ReportData(b"n" * 48))
    assert evidence.tee == attester.tee == "snp"
    claims = claims_of(genoa, evidence.body, Bound(b"n" * 48, b"i" * 32))
    assert claims.values["measurement"] == (b"m" * 48).hex()
    with pytest.raises(EvidenceRejected, match="step 8, bound: report data"):
        claims_of(genoa, evidence.body, Bound(b"x" * 48))


def test_evidence_is_not_genuine_for_amds_own_root_nor_another_seeds(genoa):
    other = SNPWorld(bytes(32), now=NOW)
    with pytest.raises(EvidenceRejected, match="step 2, chain"):
        claims_of(genoa, genoa.evidence(), roots=other.roots)
    verifier = load_verifier("snp")
    with pytest.raises(EvidenceRejected, match="step 2, chain"):
        judge_evidence(
            verifier, genoa.evidence(), bound=Bound(), read=genoa.collateral().get, now=NOW
        )


def test_two_worlds_of_a_seed_have_the_same_keys_and_believe_each_other():
    """A guest and a broker each make their own."""
    one, other = SNPWorld(SEED, now=NOW), SNPWorld(SEED, now=NOW + timedelta(days=3))
    assert (one.chip_id, one.measurement) == (other.chip_id, other.measurement)
    for role in ("ark", "ask", "asvk"):
        keys = [
            getattr(world.authority, role)
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            for world in (one, other)
        ]
        assert keys[0] == keys[1]
    claims_of(other, one.evidence(), roots=one.roots)


def test_world_is_of_now_unless_told():
    world = SNPWorld(SEED)
    assert abs(datetime.now(UTC) - world.now) < timedelta(minutes=1)
    claims_of(world, world.evidence())


def test_chip_is_nowhere_in_the_names_of_the_collateral(genoa):
    names = " ".join(genoa.collateral())
    assert names.count("snp/Genoa/") == 3
    assert genoa.chip_id.hex()[:16] not in names


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"gest_svn": 1}, TypeError),
        ({"guest_svn": b"1"}, TypeError),
        ({"measurement": 1}, TypeError),
        ({"report_data": bytes(65)}, ValueError),
        ({"vmpl": 2**32}, OverflowError),
    ],
)
def test_field_that_no_report_has_is_an_error(genoa, fields, error):
    with pytest.raises(error):
        genoa.report(**fields)


def test_world_of_another_product_is_an_error():
    with pytest.raises(KeyError, match="Rome"):
        SNPWorld(SEED, "Rome")


def test_tcb_is_of_the_chip_unless_the_report_says_another(genoa):
    older = replace(genoa.tcb, microcode=1)
    claims_of(genoa, genoa.evidence(launch_tcb=older))
    with pytest.raises(EvidenceRejected, match="step 5, version"):
        claims_of(genoa, genoa.evidence(reported_tcb=older))
