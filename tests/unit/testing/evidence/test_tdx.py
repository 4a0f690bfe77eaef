# SPDX-License-Identifier: Apache-2.0
"""Quotes of TDX have their fields where Intel has them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.base64 import decode_base64
from imagers.model.evidence import Bound
from imagers.testing.evidence import TDXWorld
from imagers.testing.evidence.eventlog import BOOT, EV_SEPARATOR, Event, event_log, replay

SEED = b"imagers.testing.evidence.tdx is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="module")
def world():
    return TDXWorld(SEED, now=NOW)


@pytest.mark.parametrize(
    ("form", "body", "size"),
    [({}, 48, 584), ({"version": 5}, 54, 584), ({"version": 5, "kind": 3}, 54, 648)],
)
def test_quote_of_each_form_has_its_fields_in_their_places(world, form, body, size):
    quote = world.quote(report_data=b"n" * 64, mr_config_id=b"i" * 48, **form)
    assert int.from_bytes(quote[:2], "little") == form.get("version", 4)
    assert quote[4:8] == b"\x81\0\0\0"
    assert quote[body + 136 : body + 184] == world.measurement
    assert quote[body + 184 : body + 232] == b"i" * 48
    assert quote[body + 520 : body + 584] == b"n" * 64
    registers = [quote[body + 328 + 48 * at :][:48] for at in range(4)]
    assert tuple(registers) == replay(BOOT)
    data = quote[body + size :]
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    assert data[132:134] == b"\6\0"


def test_log_of_the_evidence_leads_to_the_registers_of_its_quote(world):
    events = [Event(3, EV_SEPARATOR, b"mine")]
    body = world.evidence(events=events)
    assert decode_base64(body["cc_eventlog"], what="log", where="$") == event_log(events)
    assert decode_base64(body["quote"], what="quote", where="$")[520:568] == replay(events)[3]
    assert world.evidence(events=None)["cc_eventlog"] is None
    assert set(world.raw_files(body)) == {"quote.bin", "ccel.bin"}
    assert set(world.raw_files(world.evidence(events=None))) == {"quote.bin"}


@given(
    st.binary(min_size=48, max_size=48),
    st.binary(max_size=64),
    st.binary(max_size=48),
)
def test_any_measurement_and_what_is_bound_come_out_as_they_went_in(world, measurement, data, init):
    body = world.evidence(measurement=measurement, report_data=data, init_data=init)
    verifier = load_verifier("tdx", roots=world.roots)
    read = world.collateral().get
    claims = judge_evidence(verifier, body, bound=Bound(data, init), read=read, now=NOW)
    assert claims.test_root
    assert claims.tcb_status == "UpToDate"
    assert claims.measured[0]["mr_td"] == measurement.hex()
    assert claims.report_data == data.ljust(64, b"\0").hex()
    assert claims.init_data == init.ljust(48, b"\0").hex()
