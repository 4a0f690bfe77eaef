# SPDX-License-Identifier: Apache-2.0
"""Evidence of Azure's machines on Intel TDX: real as far as its documents are there, and made."""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime

import pytest

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.azure.tdx import AzureTDXVerifier, parse, parse_file
from imagers.evidence.intel.quote import TDX, parse_quote
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.evidence.tdx.verify import Allowed, TDXVerifier
from imagers.evidence.tpm.quote import BOOT_CHAIN
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.testing.evidence import AzureTDXWorld
from tests.real_evidence import real_file

NOW = datetime(2026, 11, 29, tzinfo=UTC)
NONCE, INIT = b"n" * 48, b"i" * 32
WORLD = AzureTDXWorld(b"imagers.evidence.azure.tdx is ..."[:32], now=NOW)


def judged(world=WORLD, *, verifier=None, told=None, **fields):
    body = world.evidence(**{"report_data": NONCE, "init_data": INIT, **fields})
    return judge_evidence(
        verifier or load_verifier("az-tdx-vtpm", roots=world.roots), body,
        bound=Bound(NONCE, INIT), read=world.collateral().get, now=NOW,
        note=(told if told is not None else []).append,
    )  # fmt: skip


def test_real_evidence_is_good_as_far_as_one_can_look():
    """Intel's documents for this kind of machine (FMSPC 00806F050000) are not among the files."""
    told = []
    body = json.loads(real_file("az-tdx-vtpm/trustee/evidence-v1.json").read_bytes())
    with pytest.raises(CouldNotVerify) as caught:
        judge_evidence(
            AzureTDXVerifier(), body, bound=Bound(b"challenge"), read={}.get, now=NOW,
            note=told.append,
        )  # fmt: skip
    assert caught.value.step == "5.2, revocation"
    assert [one.partition(",")[0] for one in told] == [
        "step 1", "step 2", "step 3", "step 4", "step 5.1",
    ]  # fmt: skip
    evidence = parse(body)
    alone = real_file("az-tdx-vtpm/trustee/td-quote.bin").read_bytes()
    assert evidence.quote == parse_quote(alone, tee=TDX)
    evidence.vtpm.check_bound(Bound(b"challenge"), told.append)


def test_good_evidence_is_genuine_step_by_step():
    told = []
    claims = judged(told=told)
    assert [one.partition(",")[0] for one in told] == [
        *(f"step {at}" for at in range(1, 5)),
        *(f"step 5.{at}" for at in range(1, 13)),
        "step 6",
    ]
    (way,) = claims.measured
    assert way["mr_td"] == WORLD.paravisor.hex()
    assert set(way) == {"mr_td", *(f"tdx_pcr{at:02}" for at in BOOT_CHAIN)}
    assert {"rtmr_0", "rtmr_1", "xfam", "tdx_pcr01", "secure_boot"} <= claims.configured.keys()
    assert claims.maker.endswith("with Azure's paravisor")
    assert claims.values["quote"]["body"]["mr_td"] == way["mr_td"]
    assert claims.values["tpm"]["pcr11"] == WORLD.measurement.hex()
    assert (claims.tee, claims.tcb_status) == ("az-tdx-vtpm", "UpToDate")


def test_paravisor_says_nothing_in_the_name_of_the_hardware():
    names = ["rtmr_0", "tdx_pcr01"]
    told = {name.replace("_", "-"): True for name in names} | {"secure-boot": False}
    data = WORLD.variable_data(members={"vm-configuration": told})
    good, odd = judged().configured, judged(data=data).configured
    assert [odd[name] for name in names] == [good[name] for name in names]
    assert odd["secure_boot"] is False


def test_machine_is_known_by_paravisor_and_registers_together():
    (way,) = judged().measured
    known = {name: ReferenceValue(name, (value,)) for name, value in way.items()}
    assert appraise_claims(judged(), known, now=NOW).is_affirming
    for fields, claim in (
        ({"measurement": b"x" * 32}, "tdx_pcr11"),
        ({"mr_td": b"x" * 48}, "mr_td"),
    ):
        found = appraise_claims(judged(**fields), known, now=NOW)
        assert [one.claim for one in found.misses] == [claim]


def test_quote_of_another_machine_does_not_go_with_the_report():
    other = AzureTDXWorld(b"\1" * 32, now=NOW)
    body, theirs = (one.evidence(report_data=NONCE) for one in (WORLD, other))
    mixed = {**body, "td_quote": theirs["td_quote"]}
    with pytest.raises(EvidenceRejected, match="step 4, variable data: hash"):
        judge_evidence(
            load_verifier("az-tdx-vtpm", roots=WORLD.roots), mixed, bound=Bound(), read={}.get,
            now=NOW,
        )  # fmt: skip


def test_settings_of_registers_and_of_the_hardware_have_one_place_each():
    view = View({"pcrs": [11], "tdx": {"debug": True}}, what="settings")
    verifier = load_verifier("az-tdx-vtpm", settings=view, roots=WORLD.roots)
    assert verifier == AzureTDXVerifier(TDXVerifier(Allowed(debug=True), WORLD.roots), (11,))
    assert verifier.references == (("mr_td", "tdx_pcr11"),)
    assert judged(verifier=verifier, td_attributes=1 << 28 | 1).debug
    for wrong in ({"crl": "optional"}, {"pcrs": []}, {"tdx": 1}, {"snp": {}}):
        with pytest.raises(FormatError):
            load_verifier("az-tdx-vtpm", settings=View(wrong, what="settings"))


def test_file_is_the_json_of_the_protocol():
    body = WORLD.evidence()
    evidence = parse_file(json.dumps(body).encode())
    assert evidence.quote == evidence.hardware.quote
    assert AzureTDXVerifier().wanted(evidence) == TDXVerifier().wanted(evidence.hardware)
    report = WORLD.hcl_report(b"h" * 1025, WORLD.variable_data())
    for changed in (
        {"td_quote": "AAAA"},
        {"hcl_report": urlsafe_b64encode(report).decode()},
    ):
        with pytest.raises(FormatError):
            parse(body | changed)
    for data in (b"", b"{}", b"[]"):
        with pytest.raises(FormatError):
            parse_file(data)
