# SPDX-License-Identifier: Apache-2.0
"""Evidence of a TPM in software, by our own commands."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import pack

import pytest

from imagers.errors import LocalError, NoTEE
from imagers.evidence.ccel import MAX_LOG, digest_by, make_record, parse_event_log
from imagers.evidence.judge import judge_evidence
from imagers.evidence.measure import MeasuredLog
from imagers.evidence.tpm.collect import (
    AK_HANDLE,
    MEASURED,
    PCR,
    TPMAttester,
    answer_challenge,
    make_request,
    open_device,
    read_log,
)
from imagers.evidence.tpm.commands import AK_TEMPLATE, ENDORSEMENT, TPM
from imagers.evidence.tpm.enrol import accept, answer_to_json, make_challenge, parse_request
from imagers.evidence.tpm.verify import TPMVerifier
from imagers.model.base64 import decode_base64
from imagers.model.evidence import Bound, ReportData
from imagers.pki.chain import parse_certificates
from imagers.testing.evidence.tpm import PCR_BOOT, pcr_log
from tests.swtpm import Device

NOW = datetime.now(UTC) + timedelta(hours=1)  # the certificate of the TPM is made later
NONCE = ReportData(b"n" * 48)
_EXTEND, _QUOTE = 0x182, 0x158


def extend(register, event):
    """TPM2_PCR_Extend."""
    body = pack(">IIIHBH", register, 9, 0x40000009, 0, 0, 0) + pack(">IH", 1, 0x0B) + event
    return pack(">HII", 0x8002, 10 + len(body), _EXTEND) + body


@pytest.fixture
def tpm(line):
    """With an attestation key."""
    make_request(TPM(line))
    return TPM(line)


def judged(body, bound=NONCE.digest):
    return judge_evidence(TPMVerifier(), body, bound=Bound(bound), read={}.get, now=NOW)


def test_key_is_made_certified_and_quotes(line, tpm, swtpm):
    request = make_request(tpm)
    assert make_request(tpm).ak == request.ak  # the one that is there
    assert request.certificate[:2] == b"\x30\x82"
    roots = parse_certificates(swtpm.authorities, what="authorities")
    challenge, kept = make_challenge(parse_request(request.to_json()), roots, now=NOW)
    key = accept(answer_to_json(answer_challenge(tpm, challenge)), kept)
    attester = TPMAttester(transmit=line)
    assert attester.missing() == ""
    evidence = attester.collect(NONCE)
    (way,) = judged(evidence.body).measured
    assert way["trusted_aks"] == key
    assert evidence.body["event_log"] is None or read_log() is not None


def test_credential_for_another_key_is_not_opened(tpm, swtpm):
    other = make_request(tpm, AK_HANDLE + 1)
    roots = parse_certificates(swtpm.authorities, what="authorities")
    challenge, _ = make_challenge(make_request(tpm), roots, now=NOW)
    template = AK_TEMPLATE[:-2] + pack(">H", 1) + b"u"
    with tpm.primary(ENDORSEMENT, template) as key:
        tpm.persist(key, AK_HANDLE + 2)
    assert other.ak == make_request(tpm).ak  # a template gives the same key each time
    with pytest.raises(LocalError, match="for another TPM, or for another key"):
        answer_challenge(tpm, challenge, AK_HANDLE + 2)


def test_handle_that_is_taken_is_told(tpm):
    with (
        tpm.primary(ENDORSEMENT, AK_TEMPLATE) as key,
        pytest.raises(LocalError, match="something is there already"),
    ):
        tpm.persist(key, AK_HANDLE)


def test_registers_that_are_extended_in_between_are_read_again(line, tpm):
    times = [3]

    def disturbed(command):
        if int.from_bytes(command[6:10]) == _QUOTE and times[0]:
            times[0] -= 1
            line(extend(16, b"e" * 32))
        return line(command)

    before = tpm.read_pcrs()[16]
    evidence = TPMAttester(transmit=disturbed).collect(NONCE)
    value = before
    for _ in range(3):
        value = sha256(value + b"e" * 32).digest()
    assert judged(evidence.body).values["pcr16"] == value.hex()
    times[0] = 99
    with pytest.raises(LocalError, match="registers were extended in between, in each of 8"):
        TPMAttester(transmit=disturbed).collect(NONCE)


def test_tpm_without_a_key_says_how_to_make_one(line):
    attester = TPMAttester(handle=0x81010099, transmit=line)
    assert attester.missing() == "the TPM has no key at 0x81010099"
    with pytest.raises(NoTEE) as caught:
        attester.collect(NONCE)
    assert "imagers attest ak request" in caught.value.hint


def test_device_is_used_and_told_where_it_is_not_there(swtpm, tpm, line, tmp_path):
    assert tpm.has(AK_HANDLE)
    line.__exit__()
    device = Device(swtpm)
    try:
        evidence = TPMAttester(device.path).collect(NONCE)
        assert judged(evidence.body).tee == "tpm"
    finally:
        device.close()
    gone = tmp_path / "tpmrm0"
    assert TPMAttester(gone).missing() == f"there is no {gone}"
    with pytest.raises(NoTEE, match="there is no"), open_device(gone):
        pass
    with pytest.raises(LocalError), open_device(tmp_path):
        pass


def test_device_that_says_nothing_is_told(tmp_path):
    """A file: what was written is not read again."""
    (tmp_path / "file").write_bytes(b"")
    with open_device(tmp_path / "file") as transmit:
        assert transmit(b"command") == b""


def test_log_is_left_out_where_nothing_binds_it(tmp_path):
    path = tmp_path / "log"
    assert read_log(path) is None
    path.write_bytes(pcr_log(PCR_BOOT))
    assert read_log(path) == pcr_log(PCR_BOOT)
    path.write_bytes(b"\0" * 60)
    assert read_log(path) is None
    path.write_bytes(bytes(MAX_LOG + 1))
    assert read_log(path) is None
    with pytest.raises(LocalError):
        read_log(tmp_path)


def test_certificate_can_be_told_where_the_tpm_has_none(tpm):
    assert make_request(tpm, certificate=b"der").certificate == b"der"

    class Empty:
        def has(self, _):
            return False

    with pytest.raises(NoTEE) as caught:
        make_request(Empty())
    assert "--ek-certificate FILE" in caught.value.hint


def test_register_is_extended_in_each_bank(line, tpm):
    register = PCR(MEASURED[0], transmit=line)
    before = register.read()
    names = register.banks()
    assert "SHA-256" in names
    register.extend({name: digest_by(name, b"event") for name in names})
    assert register.read() == sha256(before + sha256(b"event").digest()).digest()
    assert register.read() == tpm.read_pcrs()[14]


def test_register_with_a_bank_that_is_not_known_is_not_extended(monkeypatch, line):
    monkeypatch.setattr(TPM, "banks", lambda *_: (0x0B, 0x27))
    with pytest.raises(
        LocalError, match=r"PCR 14 has a bank that is not known here: 0x000b, 0x0027"
    ):
        PCR(14, transmit=line).banks()


def test_what_was_measured_is_in_the_claims_of_the_next_evidence(line, tpm, tmp_path):
    assert tpm.has(AK_HANDLE)
    path = tmp_path / "agent"
    log = MeasuredLog(PCR(15, transmit=line), path)
    log.record("PullImage", {"image": "sha256:01"})
    log.record("PullImage", {"image": "sha256:02"})
    attester = TPMAttester(log=tmp_path / "none", agent_log=path, transmit=line)
    body = attester.collect(NONCE).body
    told = judged(body).values["uefi_event_logs"]
    assert [one["details"]["data"]["content"] for one in told] == [
        {"image": "sha256:01"},
        {"image": "sha256:02"},
    ]
    assert all(one["digest_matches_event"] and one["index"] == 15 for one in told)


def test_log_of_the_firmware_stands_before_what_was_measured(line, tpm, tmp_path):
    assert tpm.has(AK_HANDLE)
    (tmp_path / "firmware").write_bytes(pcr_log(PCR_BOOT))
    (tmp_path / "agent").write_bytes(b"")
    attester = TPMAttester(log=tmp_path / "firmware", agent_log=tmp_path / "agent", transmit=line)
    alone = decode_base64(attester.collect(NONCE).body["event_log"], what="log", where="$")
    assert alone == pcr_log(PCR_BOOT)
    data = b"LEAA\0\0\0\0"
    record = make_record(14, {"SHA-256": sha256(data).digest()}, data)
    (tmp_path / "agent").write_bytes(record)
    both = decode_base64(attester.collect(NONCE).body["event_log"], what="log", where="$")
    *first, last = parse_event_log(both)
    assert tuple(first) == parse_event_log(alone)
    assert (last.register, last.data) == (14, data)
