# SPDX-License-Identifier: Apache-2.0
"""Tokens of Arm CCA have their claims where Arm has them."""

from datetime import UTC, datetime
from hashlib import sha256

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound
from imagers.model.strict_json import View
from imagers.testing.evidence import CCAWorld

SEED = b"imagers.testing.evidence.cca is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="module", params=[False, True], ids=["2023", "legacy"])
def world(request):
    return CCAWorld(SEED, is_legacy=request.param, now=NOW)


def test_token_has_its_parts_in_their_places(world):
    body = world.evidence(report_data=b"n" * 48, init_data=b"i" * 32)
    raw = world.raw_files(body)["token.cbor"]
    assert bytes(body["token"]) == raw
    tagged = cbor2.loads(raw)
    assert tagged.tag == 399
    platform, realm = (cbor2.loads(tagged.value[label]) for label in (44234, 44241))
    assert (platform.tag, realm.tag) == (18, 18)
    claims, told = cbor2.loads(platform.value[2]), cbor2.loads(realm.value[2])
    assert claims[10] == sha256(told[44237]).digest()
    assert (told[10], told[44235]) == (b"n" * 48 + bytes(16), b"i" * 32 + bytes(32))
    assert told[44238] == world.measurement
    assert (265 in told) is not world.is_legacy
    assert len(told[44237]) == (97 if world.is_legacy else 107)


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=64),
    st.binary(max_size=64),
    st.booleans(),
)
def test_any_measurement_and_what_is_bound_come_out_as_they_went_in(
    world, measurement, data, init, has_anchors
):
    body = world.evidence(measurement=measurement, report_data=data, init_data=init)
    settings = View({"trust_anchors": world.trust_anchors()}, what="settings")
    roots = None if has_anchors else world.roots
    verifier = load_verifier("cca", settings=settings, roots=roots)
    claims = judge_evidence(verifier, body, bound=Bound(data, init), read={}.get, now=NOW)
    assert claims.test_root is not has_anchors
    assert claims.measured[0]["cca_realm_initial_measurement"] == measurement.hex()
    assert claims.report_data == data.ljust(64, b"\0").hex()
    assert claims.init_data == init.ljust(64, b"\0").hex()
