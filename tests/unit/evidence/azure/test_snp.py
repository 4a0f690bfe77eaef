# SPDX-License-Identifier: Apache-2.0
"""Evidence of Azure's machines on AMD SEV-SNP: real, and of the factory."""

import json
from datetime import UTC, datetime

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.azure.snp import AzureSNPVerifier, parse, parse_file
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.evidence.snp.verify import Allowed, SNPVerifier
from imagers.evidence.tpm.quote import BOOT_CHAIN
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.testing.evidence import AzureSNPWorld
from imagers.testing.evidence.eventlog import EV_IPL, Event
from imagers.testing.evidence.tpm import PCR_BOOT
from tests.real_evidence import real_file

NOW = datetime(2026, 11, 29, tzinfo=UTC)
NONCE, INIT = b"n" * 48, b"i" * 32
BOUND, CHALLENGE = Bound(NONCE, INIT), Bound(b"challenge")
SEED = b"imagers.evidence.azure.snp is ..."[:32]
WORLD = AzureSNPWorld(SEED, now=NOW)
# No lists of AMD are among the real files.
WITHOUT_LISTS = View({"snp": {"crl": "optional"}}, what="settings")


def judged(world=WORLD, *, bound=BOUND, verifier=None, told=None, **fields):
    body = world.evidence(**{"report_data": NONCE, "init_data": INIT, **fields})
    return judge_evidence(
        verifier or load_verifier("az-snp-vtpm", roots=world.roots), body, bound=bound,
        read=world.collateral().get, now=NOW, note=(told if told is not None else []).append,
    )  # fmt: skip


def real(version, bound=CHALLENGE, told=None):
    body = json.loads(real_file(f"az-snp-vtpm/trustee/evidence-v{version}.json").read_bytes())
    return judge_evidence(
        load_verifier("az-snp-vtpm", settings=WITHOUT_LISTS), body, bound=bound,
        read={}.get, now=NOW, note=(told if told is not None else []).append,
    )  # fmt: skip


@pytest.mark.parametrize("version", [0, 1])
def test_real_evidence_is_genuine_step_by_step(version):
    told = []
    claims = real(version, told=told)
    assert [one.partition(",")[0] for one in told] == [
        *(f"step {at}" for at in range(1, 5)),
        *(f"step 5.{at}" for at in range(1, 9)),
        "step 6",
    ]
    assert claims.tee == "az-snp-vtpm"
    assert claims.maker == "AMD, VCEK of a Milan, with Azure's paravisor"
    (way,) = claims.measured
    assert set(way) == {"measurement", *(f"snp_pcr{at:02}" for at in BOOT_CHAIN)}
    assert claims.values["tpm"]["pcr11"] == way["snp_pcr11"] == "00" * 32
    assert claims.report_data == b"challenge".hex()
    assert claims.firmware.keys() == {"tcb_bootloader", "tcb_microcode", "tcb_snp", "tcb_tee"}
    names = {"smt_enabled", "tsme_enabled", "abi_major", "abi_minor", "single_socket"}
    assert names | {"smt_allowed", "snp_pcr01", "secure_boot"} <= claims.configured.keys()
    assert not claims.test_root
    assert "911B0EF8" not in json.dumps(claims.values)


@pytest.mark.parametrize(
    ("bound", "piece"),
    [
        (Bound(b"challenge"[::-1]), "step 6, bound: report data: expected"),
        (Bound(b"chal"), "step 6, bound: length of the nonce: expected 4, got 9"),
        (Bound(b"challenge", INIT), "step 6, bound: init data in PCR 8: expected"),
    ],
)
def test_real_evidence_of_another_handshake_is_refused(bound, piece):
    with pytest.raises(EvidenceRejected) as caught:
        real(1, bound)
    assert piece in str(caught.value)


def test_real_evidence_is_nobodys_until_all_of_it_is_known():
    claims = real(1)
    (way,) = claims.measured
    known = {name: ReferenceValue(name, (value,)) for name, value in way.items()}
    assert appraise_claims(claims, known, now=NOW).is_affirming
    for name in way:
        part = {one: value for one, value in known.items() if one != name}
        assert not appraise_claims(claims, part, now=NOW).is_affirming
    assert not appraise_claims(claims, {}, now=NOW).has_references


@pytest.mark.parametrize("register", BOOT_CHAIN)
def test_machine_with_the_same_paravisor_that_started_something_else_is_not_ones_own(register):
    """The paravisor is the same for all who rent a machine of Azure."""
    (way,) = judged().measured
    known = {name: ReferenceValue(name, (value,)) for name, value in way.items()}
    fields = {"events": (*PCR_BOOT, Event(register, EV_IPL, b"something else"))}
    bound = Bound(NONCE, INIT)
    if register == 8:
        fields, bound = {"init_data": b"x" * 32}, Bound(NONCE)
    if register == 11:
        fields = {"measurement": b"x" * 32}
    found = appraise_claims(judged(bound=bound, **fields), known, now=NOW)
    assert [one.claim for one in found.misses] == [f"snp_pcr{register:02}"]


def test_paravisor_says_nothing_in_the_name_of_the_hardware():
    names = ["smt_enabled", "snp_pcr01"]
    told = {name.replace("_", "-"): True for name in names} | {"secure-boot": False}
    data = WORLD.variable_data(members={"vm-configuration": told})
    good, odd = judged().configured, judged(data=data).configured
    assert [odd[name] for name in names] == [good[name] for name in names]
    assert odd["secure_boot"] is False


def test_machine_with_a_paravisor_of_somebody_else_is_not_ones_own():
    """Whoever has a machine of his own makes a vTPM of his own, that says what he likes."""
    (way,) = judged().measured
    known = {name: ReferenceValue(name, (value,)) for name, value in way.items()}
    assert appraise_claims(judged(), known, now=NOW).is_affirming
    assert way["measurement"] == encode_base64(WORLD.paravisor)
    stranger = AzureSNPWorld(b"\1" * 32, now=NOW)
    claims = judged(stranger, measurement=WORLD.measurement)
    misses = appraise_claims(claims, known, now=NOW).misses
    assert [one.claim for one in misses] == ["measurement"]


def test_settings_of_registers_and_of_the_hardware_have_one_place_each():
    view = View({"pcrs": [11, 4], "snp": {"crl": "optional", "debug": True}}, what="settings")
    verifier = load_verifier("az-snp-vtpm", settings=view, roots=WORLD.roots)
    hardware = SNPVerifier(Allowed(debug=True, without_crl=True), WORLD.roots)
    assert verifier == AzureSNPVerifier(hardware, (4, 11))
    assert verifier.references == (("measurement", "snp_pcr04", "snp_pcr11"),)
    claims = judged(verifier=verifier, policy=0xB0000)
    assert claims.debug
    for wrong in ({"crl": "optional"}, {"pcrs": []}, {"snp": []}, {"snp": {"x": 1}}, {"tdx": {}}):
        with pytest.raises(FormatError):
            load_verifier("az-snp-vtpm", settings=View(wrong, what="settings"))
    with pytest.raises(FormatError, match="test root"):
        load_verifier("az-snp-vtpm", roots=b"x")


def test_file_is_the_json_of_the_protocol():
    body = WORLD.evidence()
    evidence = parse_file(json.dumps(body).encode())
    assert evidence.report == parse(body).report == evidence.hardware.report
    assert AzureSNPVerifier().wanted(evidence) == ("snp/Milan/vcek.crl",)
    for data in (b"", b"{}", b"[]", json.dumps(body | {"vcek": "AAAA"}).encode()):
        with pytest.raises(FormatError):
            parse_file(data)
