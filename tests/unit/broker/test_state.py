import logging
import stat
from datetime import UTC, datetime, timedelta

import pytest

from imagers.broker.audit import AuditEvent
from imagers.broker.policy import DEFAULT_POLICY, DENY_ALL_POLICY
from imagers.broker.state import BrokerConfig, open_state
from imagers.errors import FormatError, LocalError, PluginNotFound, UsageError


@pytest.fixture
def config(tmp_path):
    return BrokerConfig(state_directory=tmp_path / "state")


def starts(state):
    with state.store.transaction() as transaction:
        return [row for row in transaction.list_audit(100) if row["event"] == "start"]


def policy_of(state):
    with state.store.transaction() as transaction:
        return state.policy(transaction).text


def reopened(config):
    state = open_state(config)
    state.close()
    return state


def test_first_start_makes_all_of_it_for_its_owner_only(config):
    state = open_state(config)
    assert state.master_key_made == config.master_key_file
    assert state.admin_key_made == config.admin_key_file
    assert policy_of(state) == DEFAULT_POLICY
    assert dict(state.verifiers) == {}
    state.close()
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in config.state_directory.iterdir()
    }
    assert modes == dict.fromkeys(("admin.key", "admin.pub", "broker.sqlite", "master.key"), 0o600)


def test_second_start_makes_nothing(config):
    open_state(config).close()
    before = {path.name: path.read_bytes() for path in config.state_directory.glob("*.key")}
    state = open_state(config)
    assert (state.master_key_made, state.admin_key_made) == (None, None)
    assert len(starts(state)) == 2
    state.close()
    assert {p.name: p.read_bytes() for p in config.state_directory.glob("*.key")} == before


def test_start_with_another_master_key_refused(config):
    open_state(config).close()
    config.master_key_file.write_bytes(bytes(32))
    with pytest.raises(LocalError, match="does not open the store") as caught:
        open_state(config)
    assert caught.value.path == str(config.master_key_file)


def test_start_without_the_master_key_refused_and_makes_none(config):
    open_state(config).close()
    config.master_key_file.unlink()
    with pytest.raises(LocalError, match="master key is missing"):
        open_state(config)
    assert not config.master_key_file.exists()


def test_start_with_a_state_directory_open_to_others_refused(config):
    open_state(config).close()
    config.state_directory.chmod(0o755)
    with pytest.raises(LocalError, match="0700, got 0755"):
        open_state(config)


def test_sample_tee_named_without_being_allowed_refused_before_anything_is_made(config, tmp_path):
    with pytest.raises(UsageError, match="proves nothing") as caught:
        open_state(BrokerConfig(state_directory=tmp_path / "state", tees=("sample",)))
    assert "--allow-sample-tee" in (caught.value.hint or "")
    assert not config.state_directory.exists()


def test_sample_tee_allowed_warns_and_stands_in_the_audit_log(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="imagers.broker"):
        state = open_state(BrokerConfig(state_directory=tmp_path / "state", allow_sample_tee=True))
    assert set(state.verifiers) == {"sample"}
    assert "anybody who reaches this broker can attest" in caplog.text
    assert starts(state)[0]["detail"] == "TEEs: sample"
    state.close()


def test_start_without_sample_tee_warns_of_nothing(config, caplog):
    open_state(config).close()
    assert caplog.text == ""


def test_tee_without_a_plugin_refused(tmp_path):
    with pytest.raises(PluginNotFound, match="'snp'"):
        open_state(BrokerConfig(state_directory=tmp_path / "state", tees=("snp",)))


def test_policy_file_is_put_in_force_at_each_start(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(DENY_ALL_POLICY)
    state = open_state(BrokerConfig(state_directory=tmp_path / "state", policy_file=path))
    assert policy_of(state) == DENY_ALL_POLICY
    assert str(path) in starts(state)[0]["detail"]
    state.close()


def test_stored_policy_stays_where_no_file_is_given(config):
    state = open_state(config)
    from imagers.broker.policy import parse_policy  # noqa: PLC0415

    with state.store.transaction() as transaction:
        state.set_policy(transaction, parse_policy(DENY_ALL_POLICY))
    state.close()
    again = open_state(config)
    assert policy_of(again) == DENY_ALL_POLICY
    again.close()


def test_log_stranger_is_bounded_and_says_what_it_left_out(config):
    now = datetime(2026, 11, 1, tzinfo=UTC)
    times = iter([now] * 130 + [now + timedelta(minutes=1)])
    state = open_state(config)
    object.__setattr__(config, "clock", lambda: next(times))
    for _ in range(131):
        state.log_stranger(AuditEvent(event="admin", outcome="refused", detail="x"))
    with state.store.transaction() as transaction:
        details = [row["detail"] for row in transaction.list_audit(1000)][1:]
    assert details == ["x"] * 120 + ["x (and 10 more before it)"]
    state.close()


@pytest.mark.parametrize(
    ("data", "error"), [(b"{}", FormatError), (b"\xff", FormatError), (None, LocalError)]
)
def test_policy_file_that_is_none_refused_before_anything_is_made(tmp_path, data, error):
    path = tmp_path / "policy.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error):
        open_state(BrokerConfig(state_directory=tmp_path / "state", policy_file=path))
    assert not (tmp_path / "state").exists()


def test_damaged_stored_policy_releases_nothing(config):
    state = open_state(config)
    with state.store.transaction() as transaction:
        transaction.set_setting("policy", b"\xff")
        with pytest.raises(LocalError, match="stored policy is damaged") as caught:
            state.policy(transaction)
    assert "policy set" in (caught.value.hint or "")
    state.close()
