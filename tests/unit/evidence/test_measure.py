# SPDX-License-Identifier: Apache-2.0
"""Events in a register and in the log beside it: once each, and never in one of the two alone."""

import json
import os
import threading
from hashlib import sha256, sha384

import pytest

from imagers.errors import EvidenceRejected, FormatError, LocalError
from imagers.evidence.ccel import (
    MAX_LOG,
    NO_ACTION,
    agent_event,
    digest_by,
    is_of_agent,
    join_logs,
    make_header,
    make_record,
    parse_event_log,
    parse_records,
)
from imagers.evidence.measure import MeasuredLog, reading_log
from imagers.testing.evidence.eventlog import EV_IPL, Event
from imagers.testing.evidence.tpm import pcr_log

BANKS = ("SHA-1", "SHA-256", "SHA-384")
CONTENT = {"image": "sha256:00", "keys": ["kbs:///a/b/c"]}
# As `extend` of a dying machine leaves it.
POWER_CUT = LocalError("power cut", path="the register")


class Register:
    """A register in memory, of three banks, that can be told to fail."""

    name, index, algorithm, counts_no_action = "PCR 14", 14, "SHA-256", False

    def __init__(self, banks=BANKS):
        self._banks = banks
        self.values = {name: bytes(len(digest_by(name, b""))) for name in banks}
        self.extended = 0
        self.fails_before = self.fails_after = None

    def read(self):
        return self.values[self.algorithm]

    def banks(self):
        return self._banks

    def extend(self, digests):
        if self.fails_before is not None:
            raise self.fails_before
        assert digests.keys() == set(self._banks)
        for name, digest in digests.items():
            self.values[name] = digest_by(name, self.values[name] + digest)
        self.extended += 1
        if self.fails_after is not None:
            raise self.fails_after


@pytest.fixture
def register():
    return Register()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent" / "eventlog"


def events(path, firmware=None):
    return parse_event_log(join_logs(firmware or make_header(BANKS), path.read_bytes()))


def test_event_is_in_the_log_and_in_each_bank_of_the_register(register, path):
    MeasuredLog(register, path).record("PullImage", CONTENT)
    (event,) = events(path)
    text = b'imagers PullImage {"image":"sha256:00","keys":["kbs:///a/b/c"]}'
    assert event.data == b"LEAA" + len(text).to_bytes(4, "little") + text
    assert (event.register, event.type_name) == (14, "EV_EVENT_TAG")
    assert is_of_agent(event)
    assert event.digests["SHA-256"] == sha256(event.data).digest()
    assert register.values["SHA-256"] == sha256(bytes(32) + event.digests["SHA-256"]).digest()
    assert register.values["SHA-384"] == sha384(bytes(48) + sha384(event.data).digest()).digest()
    assert path.stat().st_mode & 0o777 == 0o600


def test_content_has_one_form(register, path):
    log = MeasuredLog(register, path)
    log.record("PullImage", CONTENT)
    log.record("PullImage", dict(reversed(CONTENT.items())))
    assert len(events(path)) == register.extended == 1


def test_event_that_the_register_has_is_not_measured_again(register, path):
    for _ in range(3):
        MeasuredLog(register, path).record("PullImage", CONTENT)
    assert len(events(path)) == register.extended == 1
    MeasuredLog(register, path).record("PullImage", {**CONTENT, "image": "sha256:01"})
    MeasuredLog(register, path).record("PullImage", CONTENT)
    assert len(events(path)) == register.extended == 2


def test_event_in_the_log_alone_does_not_count(register, path):
    """Somebody wrote it there, so that it is not measured."""
    path.parent.mkdir()
    data = agent_event("imagers", "PullImage", json.dumps(CONTENT, separators=(",", ":")))
    path.write_bytes(make_record(14, {name: digest_by(name, data) for name in BANKS}, data))
    MeasuredLog(register, path).record("PullImage", CONTENT)
    assert register.extended == 1
    (event,) = events(path)
    assert event.data == data


def test_event_whose_data_is_another_ones_does_not_count(register, path):
    """The register binds digests: the data beside one is whatever somebody wrote there."""
    log = MeasuredLog(register, path)
    log.record("PullImage", {"image": "sha256:ff"})
    (event,) = events(path)
    data = agent_event("imagers", "PullImage", json.dumps(CONTENT, separators=(",", ":")))
    path.write_bytes(make_record(14, event.digests, data))
    log.record("PullImage", CONTENT)
    assert register.extended == 2


def test_event_that_extends_nothing_does_not_count(register, path):
    """Log and register agree with it and without it: whoever wrote it would end the measuring."""
    path.parent.mkdir()
    data = agent_event("imagers", "PullImage", json.dumps(CONTENT, separators=(",", ":")))
    record = make_record(14, {name: digest_by(name, data) for name in BANKS}, data)
    path.write_bytes(record[:4] + NO_ACTION.to_bytes(4, "little") + record[8:])
    MeasuredLog(register, path).record("PullImage", CONTENT)
    assert register.extended == 1


def test_event_of_another_register_does_not_count(register, path):
    class Other(Register):
        index = 15

    MeasuredLog(Other(), path).record("PullImage", CONTENT)
    MeasuredLog(register, path).record("PullImage", CONTENT)
    assert [one.register for one in events(path)] == [15, 14]
    assert register.extended == 1


@pytest.mark.parametrize("change", ["cut", "other", "twice", "gone"])
def test_log_that_does_not_give_the_register_is_refused(register, path, change):
    log = MeasuredLog(register, path)
    for image in ("sha256:01", "sha256:02", "sha256:03"):
        log.record("PullImage", {"image": image})
    data, (_, ends) = path.read_bytes(), parse_records(path.read_bytes())
    changed = {
        "cut": data[: ends[0]],
        "other": data[ends[0] :],
        "twice": data + data[: ends[0]] * 2,
        "gone": b"",
    }[change]
    path.write_bytes(changed)
    with pytest.raises(EvidenceRejected, match="PCR 14 by the event log") as caught:
        log.record("PullImage", CONTENT)
    assert caught.value.expected == register.values["SHA-256"].hex()
    assert "remove it" in caught.value.hint
    assert register.extended == 3
    assert path.read_bytes() == changed


def test_register_that_somebody_else_extended_is_refused(register, path):
    log = MeasuredLog(register, path)
    log.record("PullImage", CONTENT)
    register.extend({name: digest_by(name, b"x") for name in BANKS})
    with pytest.raises(EvidenceRejected, match="PCR 14 by the event log"):
        log.record("PullImage", {"image": "sha256:01"})


def test_register_that_somebody_extends_meanwhile_is_told(path):
    class Raced(Register):
        def extend(self, digests):
            super().extend(digests)
            super().extend(digests)

    with pytest.raises(EvidenceRejected, match="PCR 14 by the event log"):
        MeasuredLog(Raced(), path).record("PullImage", CONTENT)


def test_register_that_does_not_change_is_told(path):
    class Deaf(Register):
        def extend(self, digests):
            pass

    with pytest.raises(EvidenceRejected, match="PCR 14 by the event log"):
        MeasuredLog(Deaf(), path).record("PullImage", CONTENT)


def test_machine_that_dies_before_it_extends_leaves_what_the_next_run_repairs(register, path):
    log = MeasuredLog(register, path)
    log.record("PullImage", {"image": "sha256:01"})
    register.fails_before = POWER_CUT
    with pytest.raises(LocalError, match="power cut"):
        log.record("PullImage", CONTENT)
    assert len(events(path)) == 2
    register.fails_before = None
    log.record("PullImage", CONTENT)
    assert len(events(path)) == register.extended == 2


def test_machine_that_dies_after_it_extended_has_measured(register, path):
    log = MeasuredLog(register, path)
    register.fails_after = POWER_CUT
    with pytest.raises(LocalError, match="power cut"):
        log.record("PullImage", CONTENT)
    register.fails_after = None
    log.record("PullImage", CONTENT)
    assert len(events(path)) == register.extended == 1


def test_record_cut_off_anywhere_is_taken_away(path):
    """A power cut while it was written: the register was not extended yet."""
    register = Register()
    log = MeasuredLog(register, path)
    log.record("PullImage", {"image": "sha256:01"})
    first = path.read_bytes()
    other = Register()
    log = MeasuredLog(other, path.with_name("other"))
    log.record("PullImage", {"image": "sha256:01"})
    log.record("PullImage", CONTENT)
    whole = path.with_name("other").read_bytes()
    before = dict(register.values)
    for end in range(len(first), len(whole)):
        path.write_bytes(whole[:end])
        register.values = dict(before)
        MeasuredLog(register, path).record("PullImage", CONTENT)
        assert path.read_bytes() == whole
        assert register.values == other.values


def test_record_that_cannot_be_written_leaves_the_log_as_it_was(register, path, monkeypatch):
    log = MeasuredLog(register, path)
    log.record("PullImage", {"image": "sha256:01"})
    before = path.read_bytes()
    whole = os.fsync

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalError, match="no space left"):
        log.record("PullImage", CONTENT)
    monkeypatch.setattr(os, "fsync", whole)
    assert path.read_bytes() == before
    assert register.extended == 1


def test_events_of_the_firmware_count_for_the_register(path):
    firmware = pcr_log([Event(14, EV_IPL, b"keys of the owner"), Event(4, EV_IPL, b"a kernel")])
    register = Register(("SHA-1", "SHA-256"))
    register.extend({name: digest_by(name, b"keys of the owner") for name in register.banks()})
    log = MeasuredLog(register, path, firmware)
    log.record("PullImage", CONTENT)
    log.record("PullImage", CONTENT)
    assert register.extended == 2
    assert len(events(path, firmware)) == 3
    with pytest.raises(EvidenceRejected):
        MeasuredLog(register, path).record("PullImage", CONTENT)


def test_record_has_the_digests_that_the_firmwares_log_has(path):
    """A reader refuses others: the first record of a log says which there are."""
    firmware = pcr_log([Event(4, EV_IPL, b"a kernel")])
    MeasuredLog(Register(), path, firmware).record("PullImage", CONTENT)
    assert events(path, firmware)[-1].digests.keys() == {"SHA-1", "SHA-256"}


def test_log_that_is_none_or_full_is_refused(register, path):
    log = MeasuredLog(register, path)
    path.parent.mkdir()
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError, match="event log"):
        log.record("PullImage", CONTENT)
    path.write_bytes(bytes(MAX_LOG + 1))
    with pytest.raises(LocalError, match=f"at most {MAX_LOG} bytes"):
        log.record("PullImage", CONTENT)
    path.unlink()
    with pytest.raises(LocalError, match=f"longer than {MAX_LOG} bytes"):
        log.record("PullImage", "x" * MAX_LOG)
    path.unlink()
    path.symlink_to(path.with_name("other"))
    with pytest.raises(LocalError, match="too many levels of symbolic links"):
        log.record("PullImage", CONTENT)
    assert register.extended == 0


def test_two_at_once_measure_each_once(path):
    register = Register()
    barrier = threading.Barrier(4)

    def measure(number):
        barrier.wait()
        for image in range(4):
            MeasuredLog(register, path).record("PullImage", {"image": image, "of": number % 2})

    threads = [threading.Thread(target=measure, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events(path)) == register.extended == 8


def test_nothing_is_measured_while_evidence_is_made(register, path):
    MeasuredLog(register, path).record("PullImage", {"image": "sha256:01"})
    done = threading.Event()

    def measure():
        MeasuredLog(register, path).record("PullImage", CONTENT)
        done.set()

    thread = threading.Thread(target=measure)
    with reading_log(path) as records:
        thread.start()
        assert not done.wait(0.2)
        assert register.extended == 1
        assert records == path.read_bytes()
    thread.join()
    assert register.extended == 2


def test_agent_without_a_log_has_no_records(tmp_path):
    with reading_log(tmp_path / "none") as records:
        assert records == b""
    with pytest.raises(LocalError, match="is a directory"), reading_log(tmp_path):
        pass
