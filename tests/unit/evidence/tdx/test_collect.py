# SPDX-License-Identifier: Apache-2.0
"""Evidence as the kernel gives it, by a double of the kernel: the parser reads it again."""

import os
from base64 import b64decode

import pytest

from imagers.errors import FormatError, LocalError, NoTEE
from imagers.evidence.ccel import MAX_LOG, parse_event_log
from imagers.evidence.tdx.collect import TDXAttester
from imagers.evidence.tdx.verify import parse
from imagers.model.evidence import ReportData
from imagers.testing.evidence.eventlog import BOOT, event_log
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
