# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest

from imagers.broker.audit import AuditEvent
from imagers.broker.config import BrokerConfig
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.table import (
    DEFAULT_POLICY,
    DENY_ALL_POLICY,
)
from imagers.broker.start import open_state
from imagers.errors import LocalError
from imagers.model.evidence import Claims
from imagers.model.references import ReferenceValue
from tests.unit.broker.conftest import Now


@pytest.fixture
def config(tmp_path):
    return BrokerConfig(state_directory=tmp_path / "state")


def policy_of(state):
    with state.store.reading() as transaction:
        return state.policy(state.rules(transaction)).text


def details_of(config):
    state = open_state(config)
    with state.store.transaction() as transaction:
        rows = transaction.list_audit(1000)
    state.close()
    return [(row["event"], row["detail"]) for row in rows if row["event"] != "start"]


def test_log_refusal_is_bounded_for_one_caller_and_says_what_it_left_out(config):
    now = datetime(2026, 11, 1, tzinfo=UTC)
    times = [now]
    state = open_state(config)
    object.__setattr__(config, "clock", lambda: times[-1])
    refused = AuditEvent(event="admin", outcome="refused", detail="x")
    for _ in range(40):
        Now(state).log_refusal(refused, caller="192.0.2.1")
    Now(state).log_refusal(refused, caller="192.0.2.2")
    for _ in range(3):
        Now(state).log_refusal(refused, caller="192.0.2.1")
    for attested in (False, True):
        noise = AuditEvent(event="release", outcome="refused", detail="y")
        Now(state).log_refusal(noise, caller="192.0.2.1", attested=attested)
    state.close()
    admin, release = ("admin", "x"), ("release", "y")
    told = ("admin", "x (10 refusals before it left out)")
    assert details_of(config) == [
        *[admin] * 30,
        told,
        release,
        release,
        ("stop", "3 refusals before it left out"),
    ]


def test_log_refusal_is_bounded_for_all_callers_together(config):
    state = open_state(config)
    object.__setattr__(config, "clock", lambda: datetime(2026, 11, 1, tzinfo=UTC))
    for caller in range(300):
        Now(state).log_refusal(AuditEvent(event="auth", outcome="refused"), caller=str(caller))
    state.close()
    rows = details_of(config)
    assert len(rows) == 121
    assert rows[-1] == ("stop", "180 refusals before it left out")


def test_policy_is_parsed_again_only_when_it_changes(config, monkeypatch):
    from imagers.broker import rules as module

    parsed = []
    parse = module.parse_policy
    monkeypatch.setattr(module, "parse_policy", lambda text: parsed.append(text) or parse(text))
    state = open_state(config)
    parsed.clear()
    assert [policy_of(state) for _ in range(3)] == [DEFAULT_POLICY] * 3
    assert parsed == [DEFAULT_POLICY]
    with state.store.transaction() as transaction:
        transaction.set_policy(
            DEFAULT_TENANT, "policy", DENY_ALL_POLICY.encode()
        )  # as another process would
    assert [policy_of(state) for _ in range(2)] == [DENY_ALL_POLICY] * 2
    assert parsed == [DEFAULT_POLICY, DENY_ALL_POLICY]
    state.close()


def test_policy_that_was_good_before_is_not_used_for_one_that_is_damaged(config):
    state = open_state(config)
    policy_of(state)
    with state.store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, "policy", DEFAULT_POLICY.encode() + b"x")
        with pytest.raises(LocalError, match="damaged"):
            state.policy(state.rules(transaction))
    state.close()


def test_damaged_stored_policy_releases_nothing(config):
    state = open_state(config)
    with state.store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, "policy", b"\xff")
        with pytest.raises(LocalError, match="stored policy is damaged") as caught:
            state.policy(state.rules(transaction))
    assert "policy set" in (caught.value.hint or "")
    state.close()


def test_tees_without_reference_values_are_named_with_what_is_missing(tmp_path):
    config = BrokerConfig(state_directory=tmp_path / "state", tees=("snp",), allow_sample_tee=True)
    with open_state(config) as state:
        missing = {"snp": ("snp_launch_measurement",)}
        assert state.tees_without_references() == missing
        with state.store.transaction() as transaction:
            transaction.set_reference_value(
                DEFAULT_TENANT, ReferenceValue("snp_launch_measurement", ("x",))
            )
        assert state.tees_without_references() == {}


def test_reference_value_that_has_expired_stays_so_where_the_clock_goes_back(tmp_path):
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    times = [begin]
    config = BrokerConfig(state_directory=tmp_path / "state", clock=lambda: times[-1])
    claims = Claims(
        tee="toy",
        tee_class="cpu",
        maker="its maker",
        measured=({"code": "v1"},),
        debug=False,
        report_data="",
        values={},
        established_at=begin,
    )
    with open_state(config) as state:

        def is_affirming(minutes):
            times.append(begin + timedelta(minutes=minutes))
            with state.store.reading() as transaction:
                now = state.session_now(transaction.store_row())
                return state.rules(transaction).appraise(claims, now=now).is_affirming

        with state.store.transaction() as transaction:
            value = ReferenceValue("code", ("v1",), begin + timedelta(minutes=3))
            transaction.set_reference_value(DEFAULT_TENANT, value)
        assert is_affirming(2)
        assert not is_affirming(4)
        assert not is_affirming(1)
