# SPDX-License-Identifier: Apache-2.0
"""Evidence as the kernel gives it, by a double of the kernel: the parser reads it again."""

import errno
import os
from base64 import b64decode
from hashlib import sha384

import pytest

from imagers.errors import EvidenceRejected, FormatError, LocalError, NoTEE
from imagers.evidence.ccel import MAX_LOG, check_replay, parse_event_log
from imagers.evidence.measure import MeasuredLog
from imagers.evidence.tdx.collect import RTMR, TDXAttester, read_firmware_log
from imagers.evidence.tdx.verify import parse
from imagers.model.evidence import ReportData
from imagers.testing.evidence.eventlog import BOOT, event_log, replay
from tests.unit.evidence.intel.conftest import World
from tests.unit.evidence.test_tsm import ROOT, FakeKernel

FIRMWARE = event_log(BOOT) + b"\xff" * 4096  # the table is longer than its log
DIGEST = ReportData(b"d" * 48)
# A record of the agent: register 4, EV_EVENT_TAG, one digest of SHA-384.
DATA = b"LEAA\x06\0\0\0a b cd"
RECORD = (4).to_bytes(4, "little") + (6).to_bytes(4, "little") + (1).to_bytes(4, "little")
RECORD += b"\x0c\0" + bytes(48) + len(DATA).to_bytes(4, "little") + DATA


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture
def make(world, tmp_path):
    def make(**logs):
        for name, data in logs.items():
            (tmp_path / name).write_bytes(data)
        kernel = FakeKernel(
            "tdx_guest",
            lambda inblob: world.raw_quote("tdx", report_data=inblob),
            has_privlevel=False,
            aux=None,
        )
        return TDXAttester(ROOT, tmp_path / "firmware", tmp_path / "agent", kernel=kernel)

    return make


def test_quote_binds_the_report_data(make):
    attester = make()
    evidence = attester.collect(DIGEST)
    assert parse(evidence.body).quote.octets("report_data") == b"d" * 48 + bytes(16)
    assert evidence.body["cc_eventlog"] is None
    assert attester.missing() == ""


def test_log_is_the_firmwares_with_the_agents_behind_it(make):
    firmware = FIRMWARE
    alone = b64decode(make(firmware=firmware).collect(DIGEST).body["cc_eventlog"])
    assert parse_event_log(alone) == parse_event_log(firmware)
    assert len(alone) < len(firmware)
    both = b64decode(make(firmware=firmware, agent=RECORD).collect(DIGEST).body["cc_eventlog"])
    *first, last = parse_event_log(both)
    assert tuple(first) == parse_event_log(firmware)
    assert (last.register, last.kind) == (4, 6)


def test_log_of_the_agent_alone_is_left_out(make):
    assert make(agent=RECORD).collect(DIGEST).body["cc_eventlog"] is None


def test_log_that_is_none_or_too_long_is_refused(make, tmp_path):
    with pytest.raises(FormatError, match="event log"):
        make(firmware=b"none").collect(DIGEST)
    os.truncate(tmp_path / "firmware", MAX_LOG + 1)
    with pytest.raises(LocalError, match="expected at most"):
        make().collect(DIGEST)
    (tmp_path / "firmware").unlink()
    (tmp_path / "firmware").mkdir()
    with pytest.raises(LocalError, match="is a directory"):
        make().collect(DIGEST)


def test_host_without_quotes_is_said(tmp_path):
    kernel = FakeKernel("tdx_guest", lambda _: b"", has_privlevel=False, aux=None)
    with pytest.raises(NoTEE, match="quote generation service"):
        TDXAttester(tmp_path, kernel=kernel).collect(DIGEST)


class Registers:
    """The files of the kernel: a write of 48 bytes extends, all else is EINVAL."""

    def __init__(self):
        self.values = {f"rtmr{number}:sha384": bytes(48) for number in range(4)}

    def read(self, path):
        try:
            return self.values[path.name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path)) from None

    def write(self, path, data):
        if len(data) != 48:
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        self.values[path.name] = sha384(self.values[path.name] + data).digest()


def test_measured_events_give_the_register_that_a_quote_has(make, tmp_path):
    (tmp_path / "firmware").write_bytes(FIRMWARE)
    kernel = Registers()
    kernel.values["rtmr3:sha384"] = replay(BOOT)[3]
    log = MeasuredLog(
        RTMR(kernel=kernel), tmp_path / "agent", read_firmware_log(tmp_path / "firmware")
    )
    for _ in range(2):
        log.record("PullImage", {"image": "sha256:01"})
    body = make().collect(DIGEST).body
    events = parse_event_log(b64decode(body["cc_eventlog"]))
    rtmr = {4: ("rtmr_3", kernel.values["rtmr3:sha384"])}
    check_replay(events, rtmr, algorithm="SHA-384")
    assert len(events) == len(BOOT) + 1
    with pytest.raises(EvidenceRejected, match="rtmr_3 by the event log"):
        check_replay(events[:-1], rtmr, algorithm="SHA-384")


def test_kernel_without_registers_is_told(tmp_path):
    log = MeasuredLog(RTMR(tmp_path / "none"), tmp_path / "agent")
    with pytest.raises(NoTEE, match=r"there is no .*rtmr3:sha384") as caught:
        log.record("PullImage", {})
    assert "6.16" in caught.value.hint


def test_register_that_is_none_or_that_the_kernel_keeps_is_told(tmp_path):
    (tmp_path / "rtmr3:sha384").write_bytes(bytes(32))
    with pytest.raises(LocalError, match="expected 48 bytes, got 32"):
        RTMR(tmp_path).read()
    (tmp_path / "other" / "rtmr3:sha384").mkdir(parents=True)
    with pytest.raises(LocalError, match="is a directory"):
        RTMR(tmp_path / "other").read()

    class Refuses(Registers):
        def write(self, path, _):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with pytest.raises(LocalError, match="permission denied") as caught:
        RTMR(kernel=Refuses()).extend({"SHA-384": bytes(48)})
    assert "root" in caught.value.hint
