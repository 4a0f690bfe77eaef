# SPDX-License-Identifier: Apache-2.0
from hashlib import sha256

import pytest

from imagers.errors import EvidenceRejected
from imagers.evidence.ccel import parse_event_log
from imagers.evidence.tpm.log import check_log
from imagers.testing.evidence.eventlog import EV_EVENT_TAG, EV_IPL, Event
from imagers.testing.evidence.tpm import PCR_BOOT, pcr_log, registers

LOCALITY = b"StartupLocality\0"


def check(events, values):
    return check_log(parse_event_log(pcr_log(events)), values)


def test_events_that_registers_bind_are_given_with_the_digest_that_does_it():
    events = check(PCR_BOOT, registers(PCR_BOOT, {}))
    assert len(events) == len(PCR_BOOT)
    assert {name for one in events for name in one.digests} == {"SHA-256"}


def test_register_that_went_on_after_the_log_gives_no_events():
    """The system extends it too: nothing says which of the events it has."""
    events = (*PCR_BOOT, Event(11, EV_IPL, b"section"))
    assert 11 in {one.register for one in check(events, registers(events, {}))}
    after = registers((*events, Event(11, EV_IPL, b"phase")), {})
    assert 11 not in {one.register for one in check(events, after)}


@pytest.mark.parametrize("register", range(8))
def test_register_of_the_firmware_has_no_other_events(register):
    values = registers(PCR_BOOT, {register: b"v" * 32})
    with pytest.raises(EvidenceRejected, match=f"PCR {register} by the event log: expected 7676"):
        check(PCR_BOOT, values)


def test_event_that_extends_nothing_is_left_out():
    events = (Event(0, 3, b"says something"), *PCR_BOOT)
    assert len(check(events, registers(PCR_BOOT, {}))) == len(PCR_BOOT)


def test_register_0_begins_at_the_locality_of_the_start():
    value = bytes(31) + b"\3"
    for event in PCR_BOOT:
        if event.register == 0:
            value = sha256(value + sha256(event.data).digest()).digest()
    events = (Event(0, 3, LOCALITY + b"\3"), *PCR_BOOT)
    check(events, registers(PCR_BOOT, {0: value}))
    for other in ((Event(0, 3, LOCALITY + b"\4"), *PCR_BOOT), PCR_BOOT):
        with pytest.raises(EvidenceRejected, match="PCR 0 by the event log"):
            check(other, registers(PCR_BOOT, {0: value}))
    odd = (Event(0, 3, LOCALITY), *PCR_BOOT)
    check(odd, registers(PCR_BOOT, {}))


def test_log_without_the_bank_that_is_quoted_is_refused():
    events = [
        type(one)(one.register, one.kind, {"SHA-1": one.digests["SHA-1"]}, one.data)
        for one in parse_event_log(pcr_log(PCR_BOOT))
    ]
    with pytest.raises(EvidenceRejected, match="expected a digest SHA-256 in each event"):
        check_log(events, registers(PCR_BOOT, {}))


def agents(register, text=b"PullImage {}"):
    data = b"LEAA" + (len(text) + 8).to_bytes(4, "little") + b"imagers " + text
    return Event(register, EV_EVENT_TAG, data)


def test_events_of_an_agent_are_claims_where_they_give_their_register():
    events = (*PCR_BOOT, agents(14), agents(14, b"PullImage []"))
    found = check(events, registers(events, {}))
    assert [one.data for one in found[-2:]] == [one.data for one in events[-2:]]


@pytest.mark.parametrize("change", ["changed", "missing", "added", "swapped", "not extended"])
def test_log_that_is_not_what_an_agent_measured_is_refused(change):
    first, second = agents(14), agents(14, b"PullImage []")
    values = registers((*PCR_BOOT, first, second), {})
    events = {
        "changed": (agents(14, b"PullImage 1"), second),
        "missing": (second,),
        "added": (first, second, agents(14, b"PullImage 2")),
        "swapped": (second, first),
        "not extended": (first, second),
    }[change]
    if change == "not extended":
        values[14] = bytes(32)
    with pytest.raises(EvidenceRejected, match="PCR 14 by the event log"):
        check((*PCR_BOOT, *events), values)
