# SPDX-License-Identifier: Apache-2.0
"""Evidence of Azure's machines for tests has its fields where that of real ones has them."""

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from imagers.testing.evidence import AzureSNPWorld, AzureTDXWorld
from tests.real_evidence import real_file

SEED = b"imagers.testing.evidence.azure..."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="module", params=[AzureSNPWorld, AzureTDXWorld])
def world(request):
    return request.param(SEED, now=NOW)


def shape(value):
    """Names and kinds, and lengths of lists."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [len(value), shape(value[0])] if len(value) == 24 else "list"
    return type(value)


@pytest.mark.parametrize("version", [0, 1])
def test_evidence_has_the_form_of_real_evidence(world, version):
    name = f"{world.tee}/trustee/evidence-v{version}.json"
    if (world.tee, version) == ("az-tdx-vtpm", 0):
        pytest.skip("there is no real one of this form")
    theirs = json.loads(real_file(name).read_bytes())
    assert shape(world.evidence(version=version)) == shape(theirs)


def test_report_has_the_hash_of_its_variable_data(world):
    body = world.evidence(report_data=b"n" * 48, version=2)
    raw = urlsafe_b64decode(body["hcl_report"])
    assert (raw[:4], len(raw)) == (b"HCLA", 2600)
    size = int.from_bytes(raw[1232:1236], "little")
    data = raw[1236 : 1236 + size]
    at = 32 + (0x50 if world.kind == 2 else 128)
    assert raw[at : at + 64] == sha256(data).digest() + bytes(32)
    assert json.loads(data)["user-data"] == (b"n" * 48).hex().upper() + "00" * 16


def test_same_seed_has_the_same_key_and_paravisor(world):
    again = type(world)(SEED, now=NOW)
    assert again.variable_data() == world.variable_data()
    assert (again.paravisor, again.measurement) == (world.paravisor, world.measurement)
    assert type(world)(bytes(32), now=NOW).variable_data() != world.variable_data()
    assert world.raw_files({}) == {}
