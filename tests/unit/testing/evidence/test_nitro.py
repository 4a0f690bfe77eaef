# SPDX-License-Identifier: Apache-2.0
"""Documents of AWS Nitro have their members where AWS has them."""

from datetime import UTC, datetime

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound
from imagers.testing.evidence import NitroWorld

WORLD = NitroWorld(
    b"imagers.testing.evidence.nitro is"[:32], now=datetime(2026, 11, 29, tzinfo=UTC)
)


def test_document_has_its_parts_in_their_places():
    (raw,) = WORLD.raw_files(WORLD.evidence(report_data=b"n" * 48)).values()
    assert raw[:1] == b"\x84"
    protected, unprotected, payload, signature = cbor2.loads(raw)
    assert (cbor2.loads(protected), unprotected, len(signature)) == ({1: -35}, {}, 96)
    assert (payload[:1], payload[-1:]) == (b"\xbf", b"\xff")
    members = cbor2.loads(payload)
    assert members["user_data"] == b"n" * 48 + bytes(16)
    assert members["pcrs"][0] == WORLD.measurement
    assert len(members["cabundle"]) == 4


@given(st.binary(min_size=48, max_size=48).filter(any), st.binary(max_size=64))
def test_any_measurement_and_what_is_bound_come_out_as_they_went_in(measurement, data):
    body = WORLD.evidence(measurement=measurement, report_data=data)
    verifier = load_verifier("nitro", roots=WORLD.roots)
    claims = judge_evidence(verifier, body, bound=Bound(data), read={}.get, now=WORLD.now)
    assert claims.test_root
    assert claims.measured[0]["nitro_pcr0"] == measurement.hex()
    assert (claims.report_data, claims.init_data) == (data.ljust(64, b"\0").hex(), "")


def test_root_of_a_test_is_not_awss():
    with pytest.raises(EvidenceRejected, match="does not begin with the root that is trusted"):
        judge_evidence(
            load_verifier("nitro"),
            WORLD.evidence(),
            bound=Bound(),
            read={}.get,
            now=WORLD.now,
        )
