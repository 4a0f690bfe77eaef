# SPDX-License-Identifier: Apache-2.0
"""Each step says yes to what is right; what says no is in the tests of `wrongs` too."""

from dataclasses import replace

import pytest

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.csv.certificates import parse_certificate
from imagers.evidence.csv.verify import CSVVerifier, issuers_name, parse, parse_file
from imagers.evidence.judge import judge_evidence, judge_parsed
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View, dump_json
from imagers.testing.evidence import CSVWorld
from imagers.testing.evidence.csv import CLOSED, remask
from tests.real_evidence import real_file
from tests.unit.evidence.csv.conftest import NONCE, NOW

BOUND = Bound(NONCE)
NAME = {1: "csv_v1_measure", 2: "csv_measure"}


def judge(world, evidence, *, bound=BOUND, told=None, **settings):
    verifier = load_verifier("csv", settings=View(settings, what="settings"), roots=world.roots)
    return judge_parsed(
        verifier,
        evidence,
        bound=bound,
        read=world.collateral().get,
        now=NOW,
        note=(told if told is not None else []).append,
    )


TOLD = {
    "step 1, chain: HRK, HSK, CEK",
    "step 2, PEK: of this chip",
    "step 4, MAC: for the guest to look at, before it took off what hides the chip",
    "step 5, guest: closed",
    "step 7, bound: report data as expected",
}


def test_all_that_is_said_of_a_guest(world):
    told = []
    claims = judge(world, parse(world.evidence(report_data=NONCE, vm_id=b"v" * 16)), told=told)
    assert set(told) >= TOLD
    assert "step 6, event log: 5 events" in told
    assert (claims.tee, claims.tee_class) == ("csv", "cpu")
    assert claims.maker == "Hygon, PEK of a chip, report of version 2"
    assert claims.firmware == {
        "csv_firmware_major": 1,
        "csv_firmware_minor": 4,
        "csv_build": 2337,
    }
    bits = ("noks", "nodbg", "nosend", "es")
    assert {name: claims.configured[f"csv_policy_{name}"] for name in bits} == dict.fromkeys(
        bits, True
    )
    others = ("domain", "csv", "csv3", "asid_reuse")
    assert not any(claims.configured[f"csv_policy_{name}"] for name in others)
    assert claims.configured["csv_vm_id"] == (b"v" * 16).hex()
    assert claims.configured["csv_user_pubkey_digest"] == "00" * 32
    assert claims.configured["csv_vm_version"] == "00" * 16
    assert claims.configured["csv_rtmr3"] == claims.values["rtmr3"]
    assert claims.configured["csv_rtmr4"] == claims.values["rtmr4"]
    assert claims.established_at == NOW
    assert claims.values["policy"]["api_minor"] == 0
    old = judge(world, parse(world.evidence(report_data=NONCE, version=1)))
    assert old.firmware == {"csv_firmware_major": 1, "csv_firmware_minor": 4}
    assert "csv_rtmr3" not in old.configured
    assert len(old.configured) == 11


def test_values_are_those_of_trustee(world):
    values = judge(world, parse(world.evidence(report_data=NONCE, policy=0x4321_87FF))).values
    assert set(values) == {
        *("version", "policy", "user_pubkey_digest", "vm_id", "vm_version", "report_data"),
        *("mnonce", "measure", "sig_usage", "sig_algo", "build", "rtmr_version", "reserved0"),
        *("rtmr0", "rtmr1", "rtmr2", "rtmr3", "rtmr4", "reserved1", "uefi_event_logs"),
    }
    versions = ("hsk_version", "cek_version", "api_major", "api_minor")
    assert [values["policy"][name] for name in versions] == [7, 8, 0x21, 0x43]
    assert (values["sig_usage"], values["sig_algo"]) == ("02100000", "04000000")
    plain = judge(world, parse(world.evidence(report_data=NONCE))).values["policy"]
    bits = ("nodbg", "noks", "es", "nosend", "domain", "csv", "csv3", "asid_reuse")
    assert [plain[name] for name in bits] == [1, 1, 1, 1, 0, 0, 0, 0]
    old = judge(world, parse(world.evidence(report_data=NONCE, version=1))).values
    assert old["anonce"] == "9b429112"
    assert "rtmr0" not in old


def test_pek_of_a_report_is_the_one_that_is_judged(world):
    """Also for who puts the evidence together otherwise than `parse`."""
    evidence = parse(world.evidence(report_data=NONCE))
    other = parse_certificate(world.certificate("PEK", minor=9), "PEK")
    with pytest.raises(EvidenceRejected, match="step 2, PEK: the PEK in the report is another"):
        judge(world, replace(evidence, pek=other))


def test_mac_of_a_file_is_looked_at(world):
    told = []
    raw = world.report(report_data=NONCE)
    judge(world, parse_file(raw), told=told)
    assert "step 4, MAC: good" in told
    with pytest.raises(EvidenceRejected, match="step 4, MAC: MAC: expected ") as caught:
        judge(world, parse_file(raw[:-1] + bytes((raw[-1] ^ 1,))))
    assert caught.value.claim == "MAC"


def test_guest_under_debugging_is_told_so(world):
    told = []
    evidence = parse(world.evidence(report_data=NONCE, policy=CLOSED & ~1))
    with pytest.raises(EvidenceRejected, match="step 5, guest: debugging") as caught:
        judge(world, evidence)
    assert "(nodbg of the guest's policy)" in caught.value.claim
    assert (caught.value.expected, caught.value.found) == ("forbidden", "allowed")
    judge(world, evidence, told=told, debug=True)
    assert "step 5, guest: under debug" in told


def test_usage_that_no_pek_has_is_told_in_hex(world):
    with pytest.raises(EvidenceRejected, match="sig_usage: expected 0x1002, got 0x1004"):
        judge(world, parse(world.evidence(report_data=NONCE, sig_usage=0x1004)))


def test_name_of_the_issuers_has_a_part_of_a_hash(world):
    """Of directories that are carried: it stays as it is."""
    assert issuers_name("NZA9T14052605") == "csv/feba189280f7289a0df6918fe62730c3.hsk_cek"
    assert len(issuers_name(world.serial)) == len("csv/.hsk_cek") + 32


def test_root_that_is_none_is_told_at_the_start():
    with pytest.raises(FormatError, match="HYGON CERTIFICATE"):
        CSVVerifier.make(View({}, what="settings"), b"x")


def own(claims):
    """Reference values of the guest."""
    (way,) = claims.measured
    return {name: ReferenceValue(name, (value,)) for name, value in way.items()}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("with_issuers", [False, True])
def test_genuine_report_gives_its_claims(world, version, with_issuers):
    told = []
    body = world.evidence(report_data=NONCE, version=version, with_issuers=with_issuers)
    evidence = parse(body)
    assert parse_file(dump_json(body)) == evidence
    wanted = () if with_issuers else (issuers_name(world.serial),)
    assert CSVVerifier().wanted(evidence) == wanted
    claims = judge(world, evidence, told=told)
    assert claims.report_data == NONCE.hex() + "00" * 16
    assert claims.measured[0][NAME[version]] == world.measurement.hex()
    assert tuple(claims.measured[0]) in CSVVerifier.references
    assert (claims.debug, claims.test_root, claims.init_data) == (False, True, "")
    assert claims.counts_if_measured == (version == 1)
    assert [one.partition(",")[0] for one in told] == [f"step {number}" for number in range(1, 8)]
    assert claims.values["version"] == str(version)
    assert world.serial not in str(claims)
    assert world.serial not in str(evidence)
    assert world.serial not in issuers_name(world.serial)


@pytest.mark.parametrize("version", [1, 2])
def test_each_changed_byte_of_a_file_is_refused(world, version):
    """As the device gives it, all of it: what nobody signed has one legal value, or a MAC."""
    raw = world.report(version=version, report_data=NONCE)
    taken = []
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        try:
            judge(world, parse_file(bytes(changed)))
        except (EvidenceRejected, FormatError, CouldNotVerify):
            continue
        taken.append(at)
    assert taken == []


def attack(world, wanted, *, policy, report_data):
    """A guest of the attacker's, changed so that it says what is wanted.

    The four bytes are those that turn its policy into the one that is wanted; he chooses the report
    data so that they come out right.
    """
    pattern = (policy ^ wanted).to_bytes(4, "little")
    mask = pattern * 16
    asked = bytes(a ^ b for a, b in zip(report_data.ljust(64, b"\0"), mask, strict=True))
    raw = world.report(version=1, policy=policy, report_data=asked)
    return remask(raw, pattern)


def test_step_8_values_of_a_report_of_version_1_can_be_changed_together(world):
    """The attack: a guest under debug says that it is closed, and binds what is asked for."""
    raw = attack(world, CLOSED, policy=CLOSED & ~1, report_data=NONCE)
    claims = judge(world, parse_file(raw))  # no step can see it, and so nothing of it counts:
    assert not claims.debug
    assert claims.report_data == NONCE.hex() + "00" * 16
    assert claims.counts_if_measured
    honest = judge(world, parse(world.evidence(report_data=NONCE, version=1)))
    appraisal = appraise_claims(claims, own(honest), now=NOW)
    assert not appraisal.is_affirming
    assert not appraisal.counts
    assert {
        name: appraisal.vector[name] for name in ("executables", "hardware", "configuration")
    } == {
        "executables": 33,
        "hardware": 97,
        "configuration": 36,
    }
    with pytest.raises(
        EvidenceRejected, match="counts only where its measurement equals"
    ) as caught:
        appraisal.check_counts()
    assert caught.value.step == "measure"
    assert caught.value.claim == "csv_v1_measure"
    # Not "set what it says": he chose that.
    assert "set csv_v1_measure" not in (caught.value.hint or "")
    assert appraise_claims(honest, own(honest), now=NOW).is_affirming


@pytest.mark.parametrize("bit", range(32))
def test_step_8_every_other_anonce_gives_another_measure(world, bit):
    honest = judge(world, parse(world.evidence(report_data=NONCE, version=1)))
    raw = remask(world.report(version=1, report_data=NONCE), (1 << bit).to_bytes(4, "little"))
    claims = judge(
        world, parse_file(raw), bound=Bound(), debug=True, key_sharing=True, migration=True
    )
    assert claims.measured != honest.measured
    assert not appraise_claims(claims, own(honest), now=NOW).counts


def test_step_8_report_of_version_1_does_not_stand_for_one_of_version_2(world):
    """Who runs another kernel under the same firmware asks it for a report without registers."""
    two = judge(world, parse(world.evidence(report_data=NONCE)))
    one = judge(world, parse(world.evidence(report_data=NONCE, version=1)))
    assert not appraise_claims(one, own(two), now=NOW).is_affirming
    assert appraise_claims(two, own(two), now=NOW).is_affirming


def test_report_of_version_2_stands_alone(world):
    claims = judge(world, parse(world.evidence(report_data=NONCE)))
    appraisal = appraise_claims(claims, {}, now=NOW)
    appraisal.check_counts()
    assert (appraisal.counts, appraisal.is_affirming) == (True, False)


@pytest.mark.parametrize(
    ("setting", "policy"),
    [("debug", CLOSED & ~1), ("key_sharing", CLOSED & ~2), ("migration", CLOSED & ~8)],
)
@pytest.mark.parametrize("version", [1, 2])
def test_setting_lets_a_weaker_guest_pass(world, setting, policy, version):
    evidence = parse(world.evidence(report_data=NONCE, policy=policy, version=version))
    with pytest.raises(EvidenceRejected, match="step 5, guest"):
        judge(world, evidence)
    claims = judge(world, evidence, **{setting: True})
    assert claims.debug == (setting == "debug")
    if claims.debug:
        assert not appraise_claims(claims, own(claims), now=NOW).is_affirming


def test_settings_that_are_none_are_refused():
    with pytest.raises(FormatError, match="crl"):
        load_verifier("csv", settings=View({"crl": "optional"}, what="settings"))


def test_log_beside_a_report_of_version_1_is_not_believed(world):
    body = world.evidence(report_data=NONCE, version=1)
    body["cc_eventlog"] = world.evidence()["cc_eventlog"]
    told = []
    claims = judge(world, parse(body), told=told)
    assert "uefi_event_logs" not in claims.values
    assert "not used: a report of version 1 has no registers" in " ".join(told)


def test_instance_is_the_chip_whatever_it_says(world):
    one = judge(world, parse(world.evidence(report_data=NONCE, version=1)))
    two = judge(world, parse(world.evidence(report_data=NONCE, version=2)))
    assert one.instance == two.instance != ""
    assert one.instance not in repr(one)


def test_serial_number_beside_a_report_is_the_one_in_it(world):
    other = CSVWorld(b"x" * 32, now=NOW)
    other.serial = "TXX"  # with letters at its end that no zero is taken for
    assert parse(other.evidence()).report.serial == "TXX"
    body = world.evidence()
    body["serial_number"] = [*b"ANOTHER"]
    with pytest.raises(FormatError, match="expected a list of 64 bytes"):
        parse(body)
    body["serial_number"] = [*b"ANOTHER".ljust(64, b"\0")]
    with pytest.raises(FormatError, match=r"at \$\.serial_number: expected the one in the report"):
        parse(body)


def test_old_serde_form_with_a_null_is_read(world):
    body = world.evidence(report_data=NONCE)
    body["cert_chain"]["hsk_cek"] = None
    assert parse(body).issuers is None


def real(**settings):
    evidence = parse_file(real_file("csv/csv-rs/report.cert").read_bytes())
    documents = {
        issuers_name(evidence.report.serial): real_file("csv/csv-rs/hsk_cek.cert").read_bytes()
    }
    return lambda bound: judge_parsed(
        load_verifier("csv", settings=View(settings, what="settings")),
        evidence,
        bound=bound,
        read=documents.get,
        now=NOW,
    )


def test_real_report_is_good_and_nobodys():
    claims = real(key_sharing=True, migration=True)(Bound(b"user data"))
    assert claims.values["policy"]["nodbg"] == 1
    assert not claims.test_root
    assert not appraise_claims(claims, {}, now=NOW).counts
    assert appraise_claims(claims, own(claims), now=NOW).is_affirming
    with pytest.raises(EvidenceRejected, match="step 5, guest: sharing of its key"):
        real(migration=True)(Bound())
    with pytest.raises(EvidenceRejected, match="step 7, bound"):
        real(key_sharing=True, migration=True)(Bound(b"user date"))


def test_real_report_changed_as_the_attack_has_it_does_not_count():
    """anonce, PEK, serial number and MAC anew: `tser!dat`, and nodbg is another bit."""
    raw = remask(real_file("csv/csv-rs/report.cert").read_bytes(), b"\x01\0\0\0")
    evidence = parse_file(raw)
    documents = {
        issuers_name(evidence.report.serial): real_file("csv/csv-rs/hsk_cek.cert").read_bytes()
    }
    verifier = load_verifier(
        "csv",
        settings=View({"debug": True, "key_sharing": True, "migration": True}, what="settings"),
    )
    claims = judge_parsed(verifier, evidence, bound=Bound(), read=documents.get, now=NOW)
    assert bytes.fromhex(claims.report_data).startswith(b"tser!dat`")
    assert claims.debug
    honest = real(key_sharing=True, migration=True)(Bound())
    assert not appraise_claims(claims, own(honest), now=NOW).counts


def test_judging_by_the_name_on_the_wire(world):
    verifier = load_verifier("csv", roots=world.roots)
    body = world.evidence(report_data=NONCE)
    claims = judge_evidence(verifier, body, bound=BOUND, read=world.collateral().get, now=NOW)
    assert claims.tee == "csv"
