# SPDX-License-Identifier: Apache-2.0
"""Each step of the verification says yes to what is right, and no to one thing that is wrong."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.snp.report import REPORT_BYTES, TCB, parse_report
from imagers.evidence.snp.revocation import crl_name
from imagers.evidence.snp.verify import Allowed, SNPEvidence, SNPVerifier, leaf_name, parse
from imagers.model.evidence import Bound
from tests.unit.evidence.snp.conftest import NOW, leaf_of, report_of

NONCE = b"n" * 48
INIT = b"i" * 32
BOUND = Bound(NONCE, INIT)
GOOD = {"report_data": NONCE, "host_data": INIT}


def judge(world, report, leaf, *, crl="good", bound=BOUND, now=NOW, **allowed):
    told = []
    collateral = {}
    if crl is not None:
        is_vlek = leaf is not None and leaf.is_vlek
        name = crl_name(world.product, is_vlek=is_vlek)
        collateral = {name: world.crl() if crl == "good" else crl}
    claims = SNPVerifier(Allowed(**allowed), world.roots).verify(
        SNPEvidence(report, leaf),
        bound=bound,
        collateral=collateral,
        now=now,
        note=told.append,
    )
    return claims.values, told


@pytest.mark.parametrize("vlek", [False, True])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_genuine_report_gives_its_claims(world, version, vlek):
    report = report_of(world, version=version, vlek=vlek, **GOOD)
    values, told = judge(world, report, leaf_of(world, vlek=vlek))
    assert (values["measurement"], values["report_data"]) == (
        world.measurement.hex(),
        NONCE.hex() + "00" * 16,
    )
    assert (values["reported_tcb_snp"], values["policy_debug_allowed"]) == (8, False)
    assert values["reported_tcb_fmc"] == (1 if world.product.name == "Turin" else None)
    assert [one.partition(",")[0] for one in told] == [f"step {number}" for number in range(1, 9)]
    name = f"snp/{world.product.name}/{'vlek' if vlek else 'vcek'}.crl"
    wanted = SNPVerifier().wanted
    assert wanted(SNPEvidence(report, leaf_of(world, vlek=vlek))) == (name,)
    if version > 2:
        more = () if vlek else (leaf_name(report, world.product),)
        assert wanted(SNPEvidence(report, None)) == (name, *more)


def test_certificate_that_was_not_sent_is_collateral(world):
    report = report_of(world, **GOOD)
    name = leaf_name(report, world.product)
    collateral = {crl_name(world.product, is_vlek=False): world.crl(), name: world.leaf()}
    evidence = SNPEvidence(report, None)
    verifier = SNPVerifier(roots=world.roots)

    def verify():
        return verifier.verify(
            evidence, bound=BOUND, collateral=collateral, now=NOW, note=lambda _: None
        )

    claims = verify()
    assert claims.test_root
    assert claims.maker == f"AMD, VCEK of a {world.product.name}"
    assert world.chip_id.hex()[:16] not in name
    collateral[name] = world.leaf(vlek=True)
    with pytest.raises(FormatError, match="expected a VCEK, got a VLEK"):
        verify()


def test_chip_that_the_host_hides_has_no_certificate_to_ask_for(genoa):
    report = report_of(genoa, chip_id=bytes(64))
    assert leaf_name(report, genoa.product) is None
    assert len(SNPVerifier().wanted(SNPEvidence(report, None))) == 1
    refused("2, chain", genoa, report, None, CouldNotVerify)


def test_report_is_good_whatever_else_is_bound_if_nobody_asks(genoa):
    _, told = judge(genoa, report_of(genoa, **GOOD), leaf_of(genoa), bound=Bound(NONCE))
    assert told[-1].endswith("report data as expected, init data in host_data not compared")
    _, told = judge(genoa, report_of(genoa, **GOOD), leaf_of(genoa), bound=Bound())
    assert told[-1].count("not compared") == 2


def test_certificates_that_a_host_adds_under_an_id_of_its_own_are_passed_over(genoa):
    added = {"cert_type": {"OTHER": "00000000-0000-4000-8000-000000000000"}, "data": [1]}
    der = genoa.leaf()
    own = {"cert_type": "VCEK", "data": list(der)}
    report = genoa.report_json(genoa.report())
    evidence = parse({"attestation_report": report, "cert_chain": [added, own]})
    assert evidence.leaf is not None
    assert evidence.leaf.tbs in der
    with pytest.raises(FormatError, match="got several"):
        parse({"attestation_report": report, "cert_chain": [own, own]})


@pytest.mark.parametrize("vlek", [False, True])
def test_certificate_of_the_key_that_signed_is_taken_of_two(genoa, vlek):
    chain = [
        {"cert_type": "VCEK", "data": list(genoa.leaf())},
        {"cert_type": "VLEK", "data": list(genoa.leaf(vlek=True))},
    ]
    raw = genoa.report(**GOOD, vlek=vlek)
    evidence = parse({"attestation_report": genoa.report_json(raw), "cert_chain": chain})
    judge(genoa, evidence.report, evidence.leaf)
    alone = {"attestation_report": genoa.report_json(raw), "cert_chain": [chain[not vlek]]}
    refused("4, key", genoa, evidence.report, parse(alone).leaf)
    chain[vlek]["cert_type"] = chain[not vlek]["cert_type"]
    with pytest.raises(FormatError, match="got several"):
        parse({"attestation_report": genoa.report_json(raw), "cert_chain": chain})


def test_certificate_that_is_not_of_its_kind_is_refused(genoa):
    chain = [{"cert_type": "VLEK", "data": list(genoa.leaf())}]
    with pytest.raises(FormatError, match="expected a VLEK, got a VCEK"):
        parse({"attestation_report": genoa.report_json(genoa.report()), "cert_chain": chain})


def test_evidence_prints_without_what_identifies_the_machine(genoa):
    evidence = SNPEvidence(report_of(genoa, **GOOD), leaf_of(genoa))
    assert repr(genoa.chip_id)[2:20] not in repr(evidence)
    assert len(repr(evidence)) < 600


def refused(step, world, report, leaf, error=EvidenceRejected, **options):
    with pytest.raises(error) as caught:
        judge(world, report, leaf, **options)
    assert type(caught.value) is error
    assert f"step {step}" in str(caught.value)
    return str(caught.value)


def test_step_1_certificate_of_another_product_is_refused(world):
    other = "Genoa" if world.product.name != "Genoa" else "Milan"
    leaf = leaf_of(world, extensions={"2": b"\x16" + bytes((len(other),)) + other.encode()})
    refused("1, product", world, report_of(world, **GOOD), leaf)


def test_step_1_siena_is_a_genoa(genoa):
    leaf = leaf_of(genoa, extensions={"2": b"\x16\x05Siena"})
    for version in (2, 3):
        judge(genoa, report_of(genoa, version=version, **GOOD), leaf)


def test_step_1_product_that_is_not_known_is_refused(genoa):
    with pytest.raises(FormatError, match=r"family 0x1a model 0x12"):
        judge(genoa, report_of(genoa, **GOOD, cpuid_fam_id=0x1A, cpuid_mod_id=0x12), leaf_of(genoa))
    leaf = leaf_of(genoa, extensions={"2": b"\x16\x04Rome"})
    with pytest.raises(FormatError, match="'Rome'"):
        judge(genoa, report_of(genoa, version=2, **GOOD), leaf)


def test_step_2_report_without_a_certificate_is_could_not_look(genoa):
    refused("2, chain", genoa, report_of(genoa, **GOOD), None, CouldNotVerify)


@pytest.mark.parametrize("signer", ["ARK", "ASVK", "other"])
def test_step_2_certificate_that_amd_did_not_issue_is_refused(genoa, signer):
    leaf = leaf_of(genoa, signer=signer)
    assert "not signed by AMD" in refused("2, chain", genoa, report_of(genoa, **GOOD), leaf)


@pytest.mark.parametrize("days", [-2, 2556])
def test_step_2_certificate_out_of_its_time_is_refused(genoa, days):
    now = NOW + timedelta(days=days)
    crl = genoa.crl(begin=now)
    text = refused("2, chain", genoa, report_of(genoa, **GOOD), leaf_of(genoa), now=now, crl=crl)
    assert "is not valid at" in text


@pytest.mark.parametrize("role", ["ark", "ask"])
def test_step_2_authority_of_somebody_else_is_refused(genoa, role, monkeypatch):
    forged = genoa.issue(role.upper(), key="other", signer="other")
    authority = type(genoa.authority)(
        genoa.product,
        forged if role == "ark" else genoa.authority.ark,
        forged if role == "ask" else genoa.authority.ask,
        genoa.authority.asvk,
    )
    monkeypatch.setattr(genoa, "authority", authority)
    refused("2, chain", genoa, report_of(genoa, **GOOD), leaf_of(genoa))


def test_step_3_missing_list_is_could_not_look_unless_allowed(genoa):
    report, leaf = report_of(genoa, **GOOD), leaf_of(genoa)
    refused("3, revocation", genoa, report, leaf, CouldNotVerify, crl=None)
    values, told = judge(genoa, report, leaf, crl=None, without_crl=True)
    assert values["crl"] == "not checked"
    assert "step 3, revocation: not checked" in told


@pytest.mark.parametrize("days", [-40, 10])
def test_step_3_list_out_of_its_time_is_could_not_look(genoa, days):
    crl = genoa.crl(begin=NOW + timedelta(days=days))
    for allowed in (False, True):
        refused(
            "3, revocation", genoa, report_of(genoa, **GOOD), leaf_of(genoa), CouldNotVerify,
            crl=crl, without_crl=allowed,
        )  # fmt: skip


def test_step_3_list_of_somebody_else_is_refused(genoa):
    refused(
        "3, revocation",
        genoa,
        report_of(genoa, **GOOD),
        leaf_of(genoa),
        crl=genoa.crl(signer="ASK"),
    )
    with pytest.raises(FormatError, match="no list"):
        judge(genoa, report_of(genoa, **GOOD), leaf_of(genoa), crl=b"\x30\x00")


@pytest.mark.parametrize("vlek", [False, True])
def test_step_3_list_for_the_other_kind_of_key_is_not_looked_at(genoa, vlek):
    report = report_of(genoa, **GOOD, vlek=vlek)
    collateral = {crl_name(genoa.product, is_vlek=not vlek): genoa.crl()}
    kind = "VLEK" if vlek else "VCEK"
    with pytest.raises(CouldNotVerify, match=f"certificates of Genoa for a {kind}"):
        SNPVerifier(roots=genoa.roots).verify(
            SNPEvidence(report, leaf_of(genoa, vlek=vlek)),
            bound=BOUND,
            collateral=collateral,
            now=NOW,
            note=lambda _: None,
        )


def test_step_3_list_of_another_version_is_no_list(genoa):
    der = genoa.crl()
    at = der.index(b"\x02\x01\x01")
    crl = der[:at] + b"\x02\x01\x00" + der[at + 3 :]
    with pytest.raises(FormatError, match="no list"):
        judge(genoa, report_of(genoa, **GOOD), leaf_of(genoa), crl=crl)


def part(**limits):
    """Where a list says what of an issuer's certificates it is about."""
    names = ("only_contains_user_certs", "only_contains_ca_certs", "indirect_crl")
    rest = {"only_some_reasons": None, "only_contains_attribute_certs": False}
    flags = dict.fromkeys(names, False) | rest | limits
    where = [x509.UniformResourceIdentifier("https://example.org/crl")]
    return x509.IssuingDistributionPoint(full_name=where, relative_name=None, **flags)


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@pytest.mark.parametrize(
    ("extension", "critical", "piece"),
    [
        (x509.DeltaCRLIndicator(5), True, "got changes alone"),
        (part(only_contains_user_certs=True), True, "got a part"),
        (part(indirect_crl=True), True, "got a part"),
        (part(only_contains_attribute_certs=True), True, "got a part"),
        (
            part(only_some_reasons=frozenset([x509.ReasonFlags.key_compromise])),
            True,
            "got a part",
        ),
        (UNKNOWN, True, "got the critical extension 1.2.3.4"),
    ],
)
def test_step_3_list_that_is_not_complete_is_could_not_look(genoa, extension, critical, piece):
    crl = genoa.crl(extensions=[(extension, critical)])
    report = report_of(genoa, **GOOD)
    assert piece in refused("3, revocation", genoa, report, leaf_of(genoa), CouldNotVerify, crl=crl)


@pytest.mark.parametrize(
    ("extension", "critical"),
    [(part(), True), (part(only_contains_ca_certs=True), True), (UNKNOWN, False)],
)
def test_step_3_list_of_authorities_is_complete(genoa, extension, critical):
    crl = genoa.crl(extensions=[(extension, critical)])
    judge(genoa, report_of(genoa, **GOOD), leaf_of(genoa), crl=crl)


def test_step_3_revoked_root_is_refused(genoa):
    report = report_of(genoa, **GOOD)
    text = refused("3, revocation", genoa, report, leaf_of(genoa), crl=genoa.crl(revoked=[65536]))
    assert "the ARK is revoked" in text


@pytest.mark.parametrize(("serial", "vlek"), [(65537, False), (65538, True)])
def test_step_3_revoked_authority_is_refused_for_its_own_leaves(genoa, serial, vlek):
    crl = genoa.crl(revoked=[serial])
    report = report_of(genoa, vlek=vlek, **GOOD)
    refused("3, revocation", genoa, report, leaf_of(genoa, vlek=vlek), crl=crl)
    report = report_of(genoa, vlek=not vlek, **GOOD)
    judge(genoa, report, leaf_of(genoa, vlek=not vlek), crl=crl)


@pytest.mark.parametrize(
    ("changes", "vlek"),
    [
        ({"key_info": 0b100}, False),
        ({"key_info": 0b11100}, False),
        ({"key_info": 0b10}, False),
        ({}, True),
        ({"chip_id": b"\x09" * 64}, False),
    ],
)
def test_step_4_key_of_another_kind_or_chip_is_refused(genoa, changes, vlek):
    refused("4, key", genoa, report_of(genoa, **GOOD, **changes), leaf_of(genoa, vlek=vlek))


def test_step_4_chip_whose_id_the_host_hides_is_taken_by_its_key(world):
    judge(world, report_of(world, **GOOD, chip_id=bytes(64)), leaf_of(world))


@pytest.mark.parametrize("part", ["bootloader", "tee", "snp", "microcode"])
def test_step_5_certificate_for_another_version_is_refused(world, part):
    tcb = replace(world.tcb, **{part: getattr(world.tcb, part) - 1})
    refused("5, version", world, report_of(world, **GOOD, reported_tcb=tcb), leaf_of(world))


@pytest.mark.parametrize(
    ("name", "change"),
    [("committed_tcb", -1), ("current_tcb", -1), ("launch_tcb", 1)],
)
def test_step_5_versions_that_could_be_left_again_are_refused(world, name, change):
    tcb = replace(world.tcb, snp=world.tcb.snp + change)
    refused("5, version", world, report_of(world, **GOOD, **{name: tcb}), leaf_of(world))


def test_step_5_firmware_that_is_older_than_the_committed_one_is_refused(genoa):
    refused("5, version", genoa, report_of(genoa, **GOOD, committed=(1, 55, 3)), leaf_of(genoa))


def test_step_6_signature_by_another_key_is_refused(world):
    other = ec.generate_private_key(ec.SECP384R1())
    refused("6, signature", world, report_of(world, **GOOD, key=other), leaf_of(world))


def test_step_6_other_algorithm_is_refused(genoa):
    refused("6, signature", genoa, report_of(genoa, **GOOD, sig_algo=2), leaf_of(genoa))


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"vmpl": 1}, {}),
        ({"policy": 0x10000}, {}),
        ({"policy": 0xB0000}, {}),
        ({"policy": 0x70000}, {}),
        ({}, {"minimum": TCB(None, 3, 2, 9, 115)}),
    ],
    ids=["VMPL", "reserved bit", "debugging", "migration", "too old"],
)
def test_step_7_guest_that_is_open_is_refused(genoa, fields, allowed):
    report = report_of(genoa, **GOOD, **fields)
    refused("7, guest", genoa, report, leaf_of(genoa), **allowed)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [(0xB0000, {"debug": True}), (0x70000, {"migration_agent": True})],
)
def test_step_7_what_is_allowed_is_in_the_claims(genoa, policy, allowed):
    report = report_of(genoa, **GOOD, policy=policy)
    values, _ = judge(genoa, report, leaf_of(genoa), **allowed)
    assert values["policy_debug_allowed"] is ("debug" in allowed)
    assert values["policy_migrate_ma"] is ("migration_agent" in allowed)


@pytest.mark.parametrize(
    "bound",
    [Bound(b"x" * 48, INIT), Bound(NONCE, b"x" * 32), Bound(NONCE[:-1], INIT), Bound(b"", INIT)],
)
def test_step_8_evidence_for_another_handshake_or_other_init_data_is_refused(genoa, bound):
    refused("8, bound", genoa, report_of(genoa, **GOOD), leaf_of(genoa), bound=bound)


def test_any_changed_byte_is_refused(genoa):
    raw, leaf = genoa.report(**GOOD), leaf_of(genoa)
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
