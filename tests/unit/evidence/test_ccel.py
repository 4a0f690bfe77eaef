# SPDX-License-Identifier: Apache-2.0
"""Logs of real guests: what they say, and what registers they lead to."""

import json
import struct
from hashlib import sha256, sha384

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.ccel import (
    MAX_LOG,
    check_replay,
    events_as_json,
    parse_event_log,
    replay,
)
from tests.real_evidence import real_file

REGISTERS = {
    "CCEL_data": (
        "SHA-384",
        5,
        {1: "2dc71230", 2: "0fa3be56", 3: "00000000", 4: "00000000"},
    ),
    "CCEL_data_ovmf": (
        "SHA-384",
        20,
        {1: "8566f998", 2: "775b9f6b", 3: "94eaf7a7", 4: "00000000"},
    ),
    "CCEL_AAEL_alibabacloud": (
        "SHA-384",
        87,
        {1: "b796e1c1", 2: "3b0b9061", 3: "35f28013", 4: "5e4ecd49"},
    ),
    "CCEL_data_csv": ("SM3", 82, {1: "d76c4b28", 2: "0559c204", 3: "28707893"}),
}


def record(register, kind, data, *digests, algorithm=0x0C):
    head = struct.pack("<III", register, kind, len(digests))
    each = b"".join(struct.pack("<H", algorithm) + one for one in digests)
    return head + each + struct.pack("<I", len(data)) + data


def first(*algorithms, signature=b"Spec ID Event03\0", kind=3):
    inner = signature + bytes(8) + struct.pack("<I", len(algorithms))
    inner += b"".join(struct.pack("<HH", *one) for one in algorithms) + b"\0"
    return struct.pack("<II20sI", 0, kind, bytes(20), len(inner)) + inner


SHA384_LOG = first((0x0C, 48))


def test_event_without_a_digest_has_none_that_matches():
    (event,) = parse_event_log(SHA384_LOG + record(9, 4, b"data"))
    (said,) = events_as_json([event])
    assert said["digest_matches_event"] is False


@pytest.mark.parametrize("name", REGISTERS)
def test_log_of_a_real_guest_gives_its_registers_and_events(name):
    algorithm, count, registers = REGISTERS[name]
    events = parse_event_log(real_file(f"eventlog/trustee/{name}").read_bytes())
    for number, begin in registers.items():
        assert replay(events, number, algorithm).hex().startswith(begin)
    expected = json.loads(real_file(f"eventlog/trustee/{name}_out.json").read_bytes())[
        "uefi_event_logs"
    ]
    assert len(events) == count == len(expected)
    assert events_as_json(events) == expected


def test_register_of_another_value_is_refused_with_both():
    """The log of a guest, and a register one of whose digits is another."""
    events = parse_event_log(real_file("eventlog/trustee/CCEL_data").read_bytes())
    good = replay(events, 2, "SHA-384")
    check_replay(events, {2: ("RTMR1", good)}, algorithm="SHA-384")
    other = bytes.fromhex("2" + good.hex()[1:])
    with pytest.raises(EvidenceRejected, match="RTMR1 by the event log") as caught:
        check_replay(events, {2: ("RTMR1", other)}, algorithm="SHA-384")
    assert (caught.value.expected, caught.value.found) == (other.hex(), good.hex())


def test_event_that_no_digest_of_the_registers_kind_binds_is_refused():
    """A host could add it to a true log, with a digest of the other kind that fits its data."""
    bound = record(2, 13, b"kernel", sha384(b"kernel").digest())
    added = record(2, 13, b"lie", sha256(b"lie").digest(), algorithm=0x0B)
    events = parse_event_log(first((0x0C, 48), (0x0B, 32)) + bound + added)
    value = replay(events[:1], 2, "SHA-384")
    check_replay(events[:1], {2: ("rtmr_1", value)}, algorithm="SHA-384")
    with pytest.raises(EvidenceRejected, match="SHA-384 in each event of register 2, got SHA-256"):
        check_replay(events, {2: ("rtmr_1", value)}, algorithm="SHA-384")
    assert replay(events, 1, "SHA-384") == bytes(48)


def test_event_of_the_agent_has_the_digest_of_its_data():
    text = b"domain operation content"
    data = b"LEAA" + struct.pack("<I", len(text)) + text
    assert sha256(data).hexdigest().startswith("46df8dacf00a07d3")
    digest = sha384(data).digest()
    assert digest.hex().startswith("dad5f0e226318ffa")
    (event,) = parse_event_log(SHA384_LOG + record(4, 6, data, digest) + b"\xff" * 8)
    (said,) = events_as_json([event])
    assert said["digest_matches_event"] is True
    assert said["details"] == {
        "string": "domain operation content",
        "unicode_name": "AAEL",
        "data": {"domain": "domain", "operation": "operation", "content": "content"},
    }


def test_event_without_a_meaning_is_there_with_its_data():
    digest = bytes(48)
    for kind, data in ((0x99, b"x"), (6, b"LEAA\xff"), (6, b"LEAA\3\0\0\0a b"), (0x80000001, b"x")):
        (event,) = parse_event_log(SHA384_LOG + record(1, kind, data, digest))
        (said,) = events_as_json([event])
        assert (said["details"], said["digest_matches_event"]) == ({}, False)
    assert parse_event_log(SHA384_LOG + record(1, 0x99, b""))[0].type_name == "0x00000099"


@pytest.mark.parametrize(
    ("kind", "data", "details"),
    [
        (0x0D, b"\x2e\0l\0i\0n\0u\0x\0\0\0", {"string": "linux"}),
        (0x0D, b"\xff\xfe", {"string": "fffe"}),
        (0x0A, b"\xff", {"string": ""}),
        (0x0A, "a\0\x10b\n\u00a0\u0085c".encode(), {"string": "a b\u00a0c"}),
        (0x80000003, bytes(32), {}),
        (0x80000003, bytes(24) + struct.pack("<Q", 99), {}),
        (
            0x80000003,
            bytes(24)
            + struct.pack("<Q", 4 + 42 + 4)
            + b"\4\1\x2a\0"
            + struct.pack("<IQQ16sBB", 1, 0x800, 0x2EE000, b"\x43\x12\x02\xa0", 1, 1)
            + b"\x05\x01\x04\0"
            + b"\x7f\xff\4\0",
            {"device_paths": ["HD(1,MBR,0xa0021243,0x800,0x2ee000)", "Path(5,1,)"]},
        ),
        (0x80000003, bytes(24) + struct.pack("<Q", 8) + b"\4\1\3\0" * 2, {}),
    ],
)
def test_details_of_an_event_are_those_of_its_type(kind, data, details):
    (event,) = parse_event_log(SHA384_LOG + record(1, kind, data))
    assert events_as_json([event])[0]["details"] == details


@pytest.mark.parametrize(
    ("data", "piece"),
    [
        (b"", "expected 4 bytes at 0, got 0"),
        (first((0x0C, 48), kind=4), "expected a first record"),
        (first((0x0C, 48), signature=b"Spec ID Event02\0"), "expected a first record"),
        (first(), "expected 1 to 5 algorithms, got 0"),
        (first((0x0C, 32)), "expected SHA-384 once, of 48 bytes"),
        (first((0x0C, 48), (0x0C, 48)), "expected SHA-384 once, of 48 bytes"),
        (first((0x99, 48)), "expected an algorithm of SHA-1"),
        (SHA384_LOG + b"\1", "it is cut off"),
        (SHA384_LOG + record(1, 4, b"abcd", bytes(48))[:-1], "it is cut off"),
        (SHA384_LOG + record(1, 4, b"", bytes(48), bytes(48)), "at most 1 digests"),
        (SHA384_LOG + record(1, 4, b"", bytes(32), algorithm=0x0B), "one digest SHA-256"),
        (
            first((0x0C, 48), (0x0B, 32)) + record(1, 4, b"", bytes(48), bytes(48)),
            "one digest SHA-384",
        ),
        (SHA384_LOG + record(1, 4, b"") * 10_001, "at most 10000 events"),
        (bytes(MAX_LOG + 1), f"at most {MAX_LOG} bytes"),
    ],
)
def test_bytes_that_are_no_log_are_refused(data, piece):
    with pytest.raises(FormatError) as caught:
        parse_event_log(data)
    assert piece in str(caught.value)


@given(st.binary(max_size=400))
def test_any_bytes_behind_the_first_record_are_events_or_refused(data):
    try:
        events = parse_event_log(SHA384_LOG + data)
    except FormatError:
        return
    json.dumps(events_as_json(events))


@given(kind=st.sampled_from([1, 5, 6, 10, 13, *range(0x80000001, 0x8000000D)]), data=st.binary())
def test_any_data_of_an_event_has_details_or_none(kind, data):
    (event,) = parse_event_log(SHA384_LOG + record(1, kind, data))
    json.dumps(events_as_json([event]))
