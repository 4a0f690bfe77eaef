# SPDX-License-Identifier: Apache-2.0
"""Logs lead to the registers of the quote, as those of real machines do."""

from hashlib import sha384
from struct import unpack_from

from imagers.testing.evidence.eventlog import BOOT, EV_SEPARATOR, Event, event_log, replay


def read(log):
    """Register, kind, digest and data of each record, by the layout of TCG."""
    at = 32 + unpack_from("<I", log, 28)[0]
    while log[at : at + 8] != b"\xff" * 8:
        index, kind, count, algorithm = unpack_from("<IIIH", log, at)
        assert (count, algorithm) == (1, 0x000C)
        (size,) = unpack_from("<I", log, at + 62)
        yield index, kind, log[at + 14 : at + 62], log[at + 66 : at + 66 + size]
        at += 66 + size
    assert at + 8 == len(log)


def test_log_begins_as_a_log_of_the_specification():
    log = event_log(BOOT)
    assert unpack_from("<II", log) == (1, 3)
    assert log[8:28] == bytes(20)
    assert log[32:48] == b"Spec ID Event03\0"
    assert unpack_from("<IHH", log, 56) == (1, 0x000C, 48)


def test_records_replay_to_the_registers():
    registers = [bytes(48)] * 4
    for index, _, digest, _ in read(event_log(BOOT)):
        registers[index - 1] = sha384(registers[index - 1] + digest).digest()
    assert tuple(registers) == replay(BOOT)
    assert all(any(one) for one in registers)


def test_digest_is_of_the_data_unless_told():
    plain, other = Event(0, EV_SEPARATOR, bytes(4)), Event(0, EV_SEPARATOR, bytes(4), b"d" * 48)
    assert plain.measured() == sha384(bytes(4)).digest()
    assert [record[2:] for record in read(event_log([plain, other]))] == [
        (plain.measured(), bytes(4)),
        (b"d" * 48, bytes(4)),
    ]
    assert replay([]) == (bytes(48),) * 4
