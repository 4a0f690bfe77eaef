# SPDX-License-Identifier: Apache-2.0
"""Quotes of SGX have their fields where Intel has them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound
from imagers.testing.evidence import SGXWorld

SEED = b"imagers.testing.evidence.sgx is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="module")
def world():
    return SGXWorld(SEED, now=NOW)


def test_quote_has_its_fields_in_their_places(world):
    quote = world.quote(report_data=b"n" * 64, config_id=b"i" * 64, isv_svn=7)
    assert quote[:8] == b"\3\0\2\0\0\0\0\0"
    assert quote[48 + 64 : 48 + 96] == world.measurement
    assert quote[48 + 128 : 48 + 160] == world.signer
    assert quote[48 + 192 : 48 + 256] == b"i" * 64
    assert quote[48 + 258 : 48 + 260] == b"\7\0"
    assert quote[48 + 320 : 48 + 384] == b"n" * 64
    data = quote[48 + 384 :]
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    body = world.evidence(report_data=b"n" * 64, init_data=b"i" * 64, isv_svn=7)
    assert world.raw_files(body) == {"quote.bin": quote}


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=64),
    st.binary(max_size=64),
)
def test_any_measurement_and_what_is_bound_come_out_as_they_went_in(world, measurement, data, init):
    body = world.evidence(measurement=measurement, report_data=data, init_data=init)
    verifier = load_verifier("sgx", roots=world.roots)
    read = world.collateral().get
    claims = judge_evidence(verifier, body, bound=Bound(data, init), read=read, now=NOW)
    assert claims.test_root
    assert claims.tcb_status == "UpToDate"
    assert claims.measured[0]["sgx_mr_enclave"] == measurement.hex()
    assert claims.report_data == data.ljust(64, b"\0").hex()
    assert claims.init_data == init.ljust(64, b"\0").hex()
