# SPDX-License-Identifier: Apache-2.0
"""NVIDIA for tests has the same keys each time, and other ones for each GPU."""

import pytest

from imagers.evidence.nvidia.report import parse_report
from imagers.testing.evidence import NVIDIAWorld
from imagers.testing.evidence.nvidia import CHAIN, several

SEED = bytes(range(32))


def test_same_seed_gives_the_same_keys():
    one, other = NVIDIAWorld(SEED), NVIDIAWorld(SEED)
    for role in CHAIN:
        assert one.key(role).private_numbers() == other.key(role).private_numbers()
    assert one.measurement == other.measurement
    assert one.fwid == other.fwid


def test_gpus_of_a_machine_have_keys_of_their_own():
    one, other = NVIDIAWorld(SEED), NVIDIAWorld(SEED, number=1)
    differ = [role for role in CHAIN if one.key(role) is not other.key(role)]
    assert differ == ["firmware", "device"]
    assert len(several([one, other], b"")["device_evidence_list"]) == 2


def test_measurement_is_that_of_block_2():
    world = NVIDIAWorld(SEED)
    assert parse_report(world.report()).measurements[2] == world.measurement
    body = world.evidence(measurement=b"m" * 48)
    assert world.raw_files(body) == {}
    assert world.collateral() == {}


def test_init_data_is_bound_by_nothing():
    with pytest.raises(ValueError, match="binds no init data"):
        NVIDIAWorld(SEED).evidence(init_data=b"x")
