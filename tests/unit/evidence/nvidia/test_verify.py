# SPDX-License-Identifier: Apache-2.0
"""Each step says yes to what is right; what says no is in the tests of `wrongs` too."""

import hashlib
import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.judge import judge_evidence
from imagers.evidence.nvidia.verify import MAX_DEVICES, NVIDIAVerifier, parse, parse_file
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound, DeviceVerifier
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.testing.evidence import NVIDIAWorld
from imagers.testing.evidence.nvidia import several
from tests.real_evidence import real_file

NOW = datetime(2026, 11, 30, tzinfo=UTC)
WORLD = NVIDIAWorld(b"imagers.evidence.nvidia is tested"[:32], now=NOW)
NONCE = b"n" * 48
DAY = timedelta(days=1)
PREFIX = "NVIDIA_Corporation.GPU.measurement_"


def judge(body, *, bound=Bound(NONCE), roots=WORLD.roots, now=NOW, told=None):  # noqa: B008
    verifier = load_verifier("nvidia", roots=roots)
    note = (told if told is not None else []).append
    return judge_evidence(verifier, body, bound=bound, read=lambda _: None, now=now, note=note)


def values(claims, way, **changes):
    found = {**claims.measured[way], **changes}
    return {name: ReferenceValue(name, (value,)) for name, value in found.items()}


def appraise(claims, references):
    return appraise_claims(claims, references, now=NOW)


def test_genuine_report_gives_its_claims():
    told = []
    claims = judge(WORLD.evidence(report_data=NONCE), told=told)
    assert (claims.tee, claims.tee_class) == ("nvidia", "gpu")
    assert claims.report_data == NONCE[:32].hex()
    assert claims.test_root
    assert [one.partition(",")[0] for one in told] == [f"step {number}" for number in range(1, 5)]
    assert claims.firmware["allowed_driver_versions"] == "550.90.07"
    assert "GPU-" not in str(claims)
    assert claims.instance not in repr(claims)
    assert isinstance(NVIDIAVerifier(), DeviceVerifier)
    assert NVIDIAVerifier().wanted(parse(WORLD.evidence())) == ()


def test_all_that_is_said_of_a_gpu():
    told = []
    claims = judge(WORLD.evidence(report_data=NONCE, blocks={10: b"x" * 48}), told=told)
    assert told == [
        "step 1, chain: 5 certificates, of the line GH100",
        "step 2, firmware: the certificate is for it",
        "step 3, signature: good",
        "step 4, bound: report data as expected",
    ]
    assert claims.maker == "NVIDIA, a GPU of the line GH100"
    assert claims.configured == {
        "nvidia_nvdec0_status": "U",
        "nvidia_protected_pcie_status": "U",
    }
    zeros = {name: value for name, value in claims.firmware.items() if name.startswith(PREFIX)}
    assert set(zeros.values()) == {"00" * 48}
    assert len(zeros) + len(claims.measured[1]) == 64
    assert claims.firmware["allowed_vbios_versions"] == "96.00.9f.00.01"
    every = b"".join(bytes.fromhex(claims.values["measurements"][str(n)]) for n in range(1, 65))
    assert claims.measured[0] == {"nvidia_measurements": hashlib.sha384(every).hexdigest()}
    assert (claims.debug, claims.init_data, claims.counts_if_measured) == (False, "", False)
    assert claims.established_at == NOW
    key = WORLD.key("device").public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert claims.instance == hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize("way", [0, 1])
def test_gpu_is_known_by_all_measurements_or_by_each(way):
    claims = judge(WORLD.evidence(report_data=NONCE))
    assert appraise(claims, values(claims, way)).is_affirming
    assert set(NVIDIAVerifier.references[way]) <= set(claims.measured[way])
    assert not appraise(claims, {}).is_affirming
    other = judge(WORLD.evidence(report_data=NONCE, blocks={10: b"x" * 48}))
    assert not appraise(other, values(claims, way)).is_affirming


def test_number_of_a_value_is_one_less_than_that_of_the_block():
    """As NVIDIA's manifests and Trustee count."""
    claims = judge(WORLD.evidence(report_data=NONCE, blocks={10: b"x" * 48}))
    assert claims.measured[1][f"{PREFIX}9"] == (b"x" * 48).hex()


def test_measurement_that_is_missing_is_no_match():
    """Zeros in the report where the operator has a value: nothing is passed over by that."""
    good = judge(WORLD.evidence(report_data=NONCE))
    without = judge(WORLD.evidence(report_data=NONCE, blocks={10: bytes(48)}))
    assert f"{PREFIX}9" not in without.measured[1]
    appraisal = appraise(without, values(good, 1))
    assert not appraisal.is_affirming
    assert appraisal.vector["hardware"] == 97


def test_versions_are_compared_where_they_have_values():
    claims = judge(WORLD.evidence(report_data=NONCE))
    wanted = values(claims, 0) | {
        "allowed_driver_versions": ReferenceValue("allowed_driver_versions", ("550.54.15",))
    }
    assert not appraise(claims, wanted).is_affirming


def test_several_devices_are_split_and_one_is_not_there_twice():
    worlds = [NVIDIAWorld(bytes(32), now=NOW, number=number) for number in range(3)]
    body = several(worlds, NONCE)
    verifier = load_verifier("nvidia", roots=worlds[0].roots)
    bodies = verifier.split(body)
    assert len(bodies) == 3
    found = [judge(one, roots=worlds[0].roots) for one in bodies]
    assert len({one.instance for one in found}) == 3
    with pytest.raises(FormatError, match="device 1 is there twice"):
        verifier.split(several([worlds[0], worlds[0]], NONCE))
    # With a certificate made anew for the same key it is no other GPU.
    body = several([worlds[0]], NONCE)
    again = worlds[0].evidence(chain=worlds[0].chain(firmware=worlds[0].issue("firmware", days=9)))
    body["device_evidence_list"] += again["device_evidence_list"]
    with pytest.raises(FormatError, match="device 1 is there twice"):
        verifier.split(body)


def test_devices_are_bounded():
    one = WORLD.evidence()["device_evidence_list"][0]
    with pytest.raises(FormatError, match=str(MAX_DEVICES)):
        NVIDIAVerifier().split({"device_evidence_list": [one] * (MAX_DEVICES + 1)})
    with pytest.raises(FormatError, match="got none"):
        NVIDIAVerifier().split({"device_evidence_list": []})


def test_hex_of_older_guests_is_read():
    body = WORLD.evidence(report_data=NONCE)
    (device,) = body["device_evidence_list"]
    device |= {"evidence": WORLD.report(nonce=NONCE).hex(), "certificate": WORLD.chain().hex()}
    judge(body)
    device["evidence"] = "00" * 0x2001
    with pytest.raises(FormatError, match="expected at most 8192 bytes"):
        judge(body)


def test_changed_bytes_of_a_report_are_refused():
    """Each eleventh, and all of the signature."""
    raw = WORLD.report(nonce=NONCE)
    for at in [*range(0, len(raw) - 96, 11), *range(len(raw) - 96, len(raw))]:
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises((EvidenceRejected, FormatError)):
            judge(WORLD.evidence(report=bytes(changed)), bound=Bound())


def test_what_stands_beside_is_not_believed():
    body = WORLD.evidence(report_data=NONCE)
    body["device_evidence_list"][0]["uuid"] = "another"
    assert "another" not in str(judge(body).values)


@pytest.mark.parametrize("data", [b"", b"x", b"[]", b"{}"])
def test_file_that_is_no_evidence_is_told_so(data):
    with pytest.raises(FormatError):
        parse_file(data)


def test_file_is_the_json_of_the_protocol():
    data = json.dumps(WORLD.evidence(report_data=NONCE)).encode()
    assert parse_file(data).report.nonce == NONCE[:32]


def test_settings_and_roots_that_are_none_are_refused():
    with pytest.raises(FormatError, match="debug"):
        load_verifier("nvidia", settings=View({"debug": True}, what="settings"))
    with pytest.raises(FormatError, match="expected one certificate, got 5"):
        load_verifier("nvidia", roots=WORLD.chain())


def real(name="hopper_cert_chain_case1.txt"):
    report = bytes.fromhex(
        real_file("nvidia/trustee/hopperAttestationReport.txt").read_text().strip()
    )
    chain = real_file(f"nvidia/trustee/{name}").read_bytes()
    return {
        "device_evidence_list": [
            {
                "arch": "HOPPER",
                "uuid": "1111-2222-33333-444444-555555",
                "evidence": b64encode(report).decode(),
                "certificate": b64encode(chain).decode(),
            }
        ]
    }


def test_real_report_is_good_and_says_what_trustee_says():
    nonce = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
    claims = judge(real(), bound=Bound(bytes.fromhex(nonce)), roots=None)
    told = real_file("nvidia/trustee/hopperAttestationReport-claims.txt").read_text()
    assert claims.values == {
        name: value for name, value in json.loads(told).items() if name != "uuid"
    }
    assert not claims.test_root
    assert not appraise(claims, {}).is_affirming


def test_real_report_with_another_nonce_is_refused():
    """The mutation `nvidia-nonce`."""
    rows = json.loads(real_file("mutations.json").read_bytes())
    assert [one["id"] for one in rows if one["tee"] == "nvidia"] == ["nvidia-nonce"]
    with pytest.raises(EvidenceRejected, match="step 4, bound"):
        judge(real(), bound=Bound(b"x" * 32), roots=None)


def test_real_chains_that_are_broken_are_refused():
    with pytest.raises(FormatError, match="expected 2 to 8 certificates, got 1"):
        judge(real("hopper_cert_chain_case2.txt"), roots=None)
    body = real()
    chain = real_file("nvidia/trustee/hopper_cert_chain_case1.txt").read_bytes()
    parts = chain.split(b"-----END CERTIFICATE-----\n")
    broken = b"-----END CERTIFICATE-----\n".join((parts[0], *parts[2:]))
    body["device_evidence_list"][0]["certificate"] = b64encode(broken).decode()
    with pytest.raises(EvidenceRejected, match="step 1, chain"):
        judge(body, roots=None)


@pytest.mark.parametrize("role", ["firmware", "device"])
def test_refused_chain_names_no_chip(role):
    """Subjects have serial numbers, and messages reach logs."""
    chip = "GSP 41431D480FE5"
    over = {"name": chip, "begin": NOW - 9 * DAY, "days": 1}
    issued = {role: WORLD.issue(role, **over)}
    if role == "device":
        issued["firmware"] = WORLD.issue("firmware", issuer=chip)
    with pytest.raises(EvidenceRejected, match=r"step 1, chain: .* not valid at") as caught:
        judge(WORLD.evidence(report_data=NONCE, chain=WORLD.chain(**issued)))
    assert "of the chain" in str(caught.value)
    assert "GSP" not in str(caught.value)


def test_genuine_gpu_of_nvidia_is_none_under_another_root():
    with pytest.raises(EvidenceRejected, match="step 1, chain"):
        judge(real())
