# SPDX-License-Identifier: Apache-2.0
"""Each step of the verification says yes to what is right, and no to one thing that is wrong."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.snp.report import REPORT_BYTES, TCB, parse_report
from imagers.evidence.snp.verify import Allowed, Bound, SNPEvidence, crl_name, verify, wanted
from tests.unit.evidence.snp.conftest import NOW

NONCE = b"n" * 48
INIT = b"i" * 32
BOUND = Bound(NONCE, INIT)
GOOD = {0x050: NONCE, 0x0C0: INIT}


def judge(world, report, leaf, *, crl="good", bound=BOUND, now=NOW, **allowed):
    told = []
    collateral = {}
    if crl is not None:
        collateral = {crl_name(world.product): world.crl() if crl == "good" else crl}
    values = verify(
        SNPEvidence(report, leaf),
        bound=bound,
        collateral=collateral,
        now=now,
        allowed=Allowed(**allowed),
        authority=world.authority,
        note=told.append,
    )
    return values, told


@pytest.mark.parametrize("vlek", [False, True])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_genuine_report_gives_its_claims(world, version, vlek):
    kind = {0x048: 0b100} if vlek else {}
    report = world.report(version=version, bytes_at=GOOD, numbers=kind)
    values, told = judge(world, report, world.leaf(vlek=vlek))
    assert (values["measurement"], values["report_data"]) == (
        (b"m" * 48).hex(),
        NONCE.hex() + "00" * 16,
    )
    assert (values["reported_tcb_snp"], values["policy_debug_allowed"]) == (8, False)
    assert values["reported_tcb_fmc"] == (1 if world.product.name == "Turin" else None)
    assert [one.partition(",")[0] for one in told] == [f"step {number}" for number in range(1, 9)]
    assert wanted(SNPEvidence(report, world.leaf(vlek=vlek))) == (crl_name(world.product),)


def test_report_is_good_whatever_else_is_bound_if_nobody_asks(genoa):
    _, told = judge(genoa, genoa.report(bytes_at=GOOD), genoa.leaf(), bound=Bound(NONCE))
    assert told[-1].endswith("report data as expected, init data in host_data not compared")
    _, told = judge(genoa, genoa.report(bytes_at=GOOD), genoa.leaf(), bound=Bound())
    assert told[-1].count("not compared") == 2


def refused(step, world, report, leaf, error=EvidenceRejected, **options):
    with pytest.raises(error) as caught:
        judge(world, report, leaf, **options)
    assert type(caught.value) is error
    assert f"step {step}" in str(caught.value)
    return str(caught.value)


def test_step_1_certificate_of_another_product_is_refused(world):
    other = "Genoa" if world.product.name != "Genoa" else "Milan"
    leaf = world.leaf(changes={"2": b"\x16" + bytes((len(other),)) + other.encode()})
    refused("1, product", world, world.report(bytes_at=GOOD), leaf)


def test_step_1_product_that_is_not_known_is_refused(genoa):
    with pytest.raises(FormatError, match=r"family 0x1a model 0x12"):
        judge(genoa, genoa.report(bytes_at={**GOOD, 0x188: b"\x1a\x12"}), genoa.leaf())
    leaf = genoa.leaf(changes={"2": b"\x16\x04Rome"})
    with pytest.raises(FormatError, match="'Rome'"):
        judge(genoa, genoa.report(version=2, bytes_at=GOOD), leaf)


def test_step_2_report_without_a_certificate_is_could_not_look(genoa):
    refused("2, chain", genoa, genoa.report(bytes_at=GOOD), None, CouldNotVerify)


@pytest.mark.parametrize("signer", ["ARK", "ASVK", "other"])
def test_step_2_certificate_that_amd_did_not_issue_is_refused(genoa, signer):
    leaf = genoa.leaf(signer=signer)
    assert "not signed by AMD" in refused("2, chain", genoa, genoa.report(bytes_at=GOOD), leaf)


@pytest.mark.parametrize("days", [-2, 2556])
def test_step_2_certificate_out_of_its_time_is_refused(genoa, days):
    now = NOW + timedelta(days=days)
    crl = genoa.crl(begin=now)
    text = refused("2, chain", genoa, genoa.report(bytes_at=GOOD), genoa.leaf(), now=now, crl=crl)
    assert "is not valid at" in text


@pytest.mark.parametrize("role", ["ark", "ask"])
def test_step_2_authority_of_somebody_else_is_refused(genoa, role, monkeypatch):
    forged = genoa.issue("other", "x", "other")
    authority = type(genoa.authority)(
        genoa.product,
        forged if role == "ark" else genoa.authority.ark,
        forged if role == "ask" else genoa.authority.ask,
        genoa.authority.asvk,
    )
    monkeypatch.setattr(genoa, "authority", authority)
    refused("2, chain", genoa, genoa.report(bytes_at=GOOD), genoa.leaf())


def test_step_3_missing_list_is_could_not_look_unless_allowed(genoa):
    report, leaf = genoa.report(bytes_at=GOOD), genoa.leaf()
    refused("3, revocation", genoa, report, leaf, CouldNotVerify, crl=None)
    values, told = judge(genoa, report, leaf, crl=None, without_crl=True)
    assert values["crl"] == "not checked"
    assert "step 3, revocation: not checked" in told


@pytest.mark.parametrize("days", [-40, 10])
def test_step_3_list_out_of_its_time_is_could_not_look(genoa, days):
    crl = genoa.crl(begin=NOW + timedelta(days=days))
    for allowed in (False, True):
        refused(
            "3, revocation", genoa, genoa.report(bytes_at=GOOD), genoa.leaf(), CouldNotVerify,
            crl=crl, without_crl=allowed,
        )  # fmt: skip


def test_step_3_list_of_somebody_else_is_refused(genoa):
    refused(
        "3, revocation",
        genoa,
        genoa.report(bytes_at=GOOD),
        genoa.leaf(),
        crl=genoa.crl(signer="ASK"),
    )
    with pytest.raises(FormatError, match="no list"):
        judge(genoa, genoa.report(bytes_at=GOOD), genoa.leaf(), crl=b"\x30\x00")


@pytest.mark.parametrize(("serial", "vlek"), [(65537, False), (65538, True)])
def test_step_3_revoked_authority_is_refused_for_its_own_leaves(genoa, serial, vlek):
    crl = genoa.crl(revoked=[serial])
    numbers = {0x048: 0b100} if vlek else {}
    report = genoa.report(bytes_at=GOOD, numbers=numbers)
    refused("3, revocation", genoa, report, genoa.leaf(vlek=vlek), crl=crl)
    numbers = {} if vlek else {0x048: 0b100}
    judge(genoa, genoa.report(bytes_at=GOOD, numbers=numbers), genoa.leaf(vlek=not vlek), crl=crl)


@pytest.mark.parametrize(
    ("changes", "vlek"),
    [
        ({"numbers": {0x048: 0b100}}, False),
        ({"numbers": {0x048: 0b11100}}, False),
        ({"numbers": {0x048: 0b10}}, False),
        ({}, True),
        ({"chip_id": b"\x09" * 64}, False),
    ],
)
def test_step_4_key_of_another_kind_or_chip_is_refused(genoa, changes, vlek):
    refused("4, key", genoa, genoa.report(bytes_at=GOOD, **changes), genoa.leaf(vlek=vlek))


def test_step_4_chip_whose_id_the_host_hides_is_taken_by_its_key(world):
    judge(world, world.report(bytes_at=GOOD, chip_id=bytes(64)), world.leaf())


@pytest.mark.parametrize("part", ["bootloader", "tee", "snp", "microcode"])
def test_step_5_certificate_for_another_version_is_refused(world, part):
    tcb = {0x180: {part: world.tcb[part] - 1}}
    refused("5, version", world, world.report(bytes_at=GOOD, tcb=tcb), world.leaf())


@pytest.mark.parametrize(
    ("offset", "change"),
    [(0x1E0, -1), (0x038, -1), (0x1F0, 1)],
    ids=["committed", "current", "launch"],
)
def test_step_5_versions_that_could_be_left_again_are_refused(world, offset, change):
    tcb = {offset: {"snp": world.tcb["snp"] + change}}
    refused("5, version", world, world.report(bytes_at=GOOD, tcb=tcb), world.leaf())


def test_step_5_firmware_that_is_older_than_the_committed_one_is_refused(genoa):
    refused(
        "5, version", genoa, genoa.report(bytes_at={**GOOD, 0x1EC: bytes((3, 55, 1))}), genoa.leaf()
    )


def test_step_6_signature_by_another_key_is_refused(world):
    other = ec.generate_private_key(ec.SECP384R1())
    refused("6, signature", world, world.report(bytes_at=GOOD, key=other), world.leaf())


def test_step_6_other_algorithm_is_refused(genoa):
    refused("6, signature", genoa, genoa.report(bytes_at=GOOD, numbers={0x034: 2}), genoa.leaf())


@pytest.mark.parametrize(
    ("numbers", "allowed"),
    [
        ({0x030: 1}, {}),
        ({0x008: 0x10000}, {}),
        ({0x008: 0xB0000}, {}),
        ({0x008: 0x70000}, {}),
        ({}, {"minimum": TCB(None, 3, 2, 9, 115)}),
    ],
    ids=["VMPL", "reserved bit", "debugging", "migration", "too old"],
)
def test_step_7_guest_that_is_open_is_refused(genoa, numbers, allowed):
    report = genoa.report(bytes_at=GOOD, numbers=numbers)
    refused("7, guest", genoa, report, genoa.leaf(), **allowed)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [(0xB0000, {"debug": True}), (0x70000, {"migration_agent": True})],
)
def test_step_7_what_is_allowed_is_in_the_claims(genoa, policy, allowed):
    report = genoa.report(bytes_at=GOOD, numbers={0x008: policy})
    values, _ = judge(genoa, report, genoa.leaf(), **allowed)
    assert values["policy_debug_allowed"] is ("debug" in allowed)
    assert values["policy_migrate_ma"] is ("migration_agent" in allowed)


@pytest.mark.parametrize(
    "bound",
    [Bound(b"x" * 48, INIT), Bound(NONCE, b"x" * 32), Bound(NONCE[:-1], INIT), Bound(b"", INIT)],
)
def test_step_8_evidence_for_another_handshake_or_other_init_data_is_refused(genoa, bound):
    refused("8, bound", genoa, genoa.report(bytes_at=GOOD), genoa.leaf(), bound=bound)


def test_any_changed_byte_is_refused(genoa):
    raw, leaf = genoa.raw_report(bytes_at=GOOD), genoa.leaf()
    accepted = []
    for at in range(REPORT_BYTES):
        changed = bytearray(raw)
        changed[at] ^= 1
        try:
            judge(genoa, parse_report(bytes(changed)), leaf, bound=Bound())
        except (EvidenceRejected, FormatError):
            continue
        accepted.append(at)
    assert accepted == []
