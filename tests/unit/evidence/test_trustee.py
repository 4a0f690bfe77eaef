# SPDX-License-Identifier: Apache-2.0
"""Claims by Trustee's names say here what those of our own verifiers say, or nothing."""

from copy import deepcopy
from datetime import UTC, datetime

import pytest

from imagers.errors import EvidenceRejected, FormatError, Unsupported
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.evidence.trustee import claims_from_trustee
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.testing.evidence import SNPWorld, TDXWorld

NOW = datetime(2026, 11, 30, tzinfo=UTC)
REGISTERS = (
    *("mr_td", "rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3"),
    *("mr_seam", "mr_config_id", "mr_owner", "mr_owner_config"),
)
SNP = {
    "snp": {
        "measurement": "ab" * 48,
        "policy_abi_major": 0,
        "policy_abi_minor": 31,
        "policy_smt_allowed": True,
        "policy_migrate_ma": False,
        "policy_debug_allowed": False,
        "policy_single_socket": False,
        "platform_smt_enabled": True,
        "platform_tsme_enabled": False,
        "reported_tcb_bootloader": 3,
        "reported_tcb_tee": 0,
        "reported_tcb_snp": 8,
        "reported_tcb_microcode": 115,
    },
    "report_data": encode_base64(bytes(48)),
    "init_data": "00" * 32,
}
TDX = {
    "tdx": {
        "quote": {
            "body": {
                **dict.fromkeys(REGISTERS, "cd" * 48),
                "xfam": "e742060000000000",
                "td_attributes": "0000001000000000",
                "report_data": "00" * 64,
            }
        },
        "tcb_status": "UpToDate",
        "collateral_expiration_status": "0",
        "advisory_ids": [],
    }
}  # fmt: skip


def read(tee, evidence):
    return claims_from_trustee(tee, View(evidence, what="token"), established_at=NOW)


def changed(base, path, value):
    copy = deepcopy(base)
    *way, last = path.split("/")
    place = copy
    for one in way:
        place = place[one]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return copy


@pytest.mark.parametrize("kind", [SNPWorld, TDXWorld])
def test_claims_are_those_of_our_verifier_of_the_same_evidence(kind):
    """What the verifier here writes into tokens by Trustee's names is read back as it was meant."""
    world = kind(b"the same claims by two names, ok")
    verifier = load_verifier(world.tee, settings=None, roots=world.roots)
    ours = judge_evidence(
        verifier,
        world.evidence(report_data=bytes(48)),
        bound=Bound(bytes(48)),
        read=world.collateral().get,
        now=world.now,
    )
    told = {
        world.tee: {"collateral_expiration_status": "0", **ours.values},
        "report_data": ours.report_data,
        "init_data": ours.init_data,
    }
    found = read(world.tee, told)
    assert (found.tee, found.measured, found.firmware) == (ours.tee, ours.measured, ours.firmware)
    assert (found.tcb_status, found.debug) == (ours.tcb_status, ours.debug)
    missing = {"snp_id_key_digest", "snp_author_key_digest"}  # Trustee does not name them
    for name, value in ours.configured.items():
        assert found.configured[name] == ("" if name in missing else value)


def test_setting_that_trustee_does_not_name_equals_no_reference_value():
    references = {
        "snp_launch_measurement": ReferenceValue("snp_launch_measurement", ("ab" * 48,)),
        "snp_id_key_digest": ReferenceValue("snp_id_key_digest", ("00" * 48,)),
    }
    claims = read("snp", SNP)
    assert not appraise_claims(claims, references, now=NOW).is_affirming
    del references["snp_id_key_digest"]
    assert appraise_claims(claims, references, now=NOW).is_affirming


@pytest.mark.parametrize(
    ("tee", "base", "path", "value"),
    [
        ("snp", SNP, "snp/policy_debug_allowed", True),
        ("snp", SNP, "snp/policy_migrate_ma", True),
        ("tdx", TDX, "tdx/quote/body/td_attributes", "0100001000000000"),
        ("tdx", TDX, "tdx/quote/body/td_attributes", "0000003000000000"),
        ("tdx", TDX, "tdx/quote/body/td_attributes", "0000000000000000"),
        ("tdx", TDX, "tdx/quote/body/td_attributes", "0000001001000000"),
        ("tdx", TDX, "tdx/collateral_expiration_status", "1"),
    ],
)
def test_machine_that_a_verifier_here_refuses_is_refused(tee, base, path, value):
    with pytest.raises(EvidenceRejected):
        read(tee, changed(base, path, value))


@pytest.mark.parametrize(
    ("tee", "base", "path"),
    [
        *(("snp", SNP, f"snp/{name}") for name in SNP["snp"]),
        ("snp", SNP, "init_data"),
        ("snp", SNP, "snp"),
        *(("tdx", TDX, f"tdx/quote/body/{name}") for name in TDX["tdx"]["quote"]["body"]),
        ("tdx", TDX, "tdx/collateral_expiration_status"),
        ("tdx", TDX, "tdx"),
    ],
)
@pytest.mark.parametrize("value", [..., None, 7.5, "", [], "zz"], ids=repr)
def test_claim_that_is_missing_or_no_such_value_refused(tee, base, path, value):
    with pytest.raises((FormatError, EvidenceRejected)):
        read(tee, changed(base, path, value))


@pytest.mark.parametrize("value", [..., None, 7.5, []], ids=repr)
def test_text_that_is_missing_or_none_refused(value):
    for tee, base, path in (("snp", SNP, "report_data"), ("tdx", TDX, "tdx/tcb_status")):
        with pytest.raises(FormatError):
            read(tee, changed(base, path, value))
    with pytest.raises(FormatError, match="expected a status"):
        read("tdx", changed(TDX, "tdx/tcb_status", ""))


def test_status_of_the_firmware_that_is_not_up_to_date_is_not_affirming():
    references = {
        name: ReferenceValue(name, ("cd" * 48,)) for name in ("mr_td", "rtmr_1", "rtmr_2")
    }
    assert appraise_claims(read("tdx", TDX), references, now=NOW).is_affirming
    old = read("tdx", changed(TDX, "tdx/tcb_status", "OutOfDate"))
    assert not appraise_claims(old, references, now=NOW).is_affirming


@pytest.mark.parametrize("tee", ["sgx", "sample", "cca", "", "x" * 100])
def test_tee_whose_claims_are_not_known_is_unsupported(tee):
    with pytest.raises(Unsupported, match="one of snp, tdx"):
        read(tee, {tee: {}})
