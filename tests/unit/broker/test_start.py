# SPDX-License-Identifier: Apache-2.0
import json
import logging
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from imagers.broker.admins import ROLES
from imagers.broker.config import BrokerConfig
from imagers.broker.keeping.rows import StoreRow
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.keyfiles import load_admin_public_key
from imagers.broker.policy.table import (
    DEFAULT_POLICY,
    DENY_ALL_POLICY,
    FORMER_DEFAULT_POLICY,
)
from imagers.broker.rules import POLICY
from imagers.broker.start import open_state
from imagers.errors import FormatError, LocalError, PluginNotFound, UsageError
from imagers.kbs.wire import admin_key_id


@pytest.fixture
def config(tmp_path):
    return BrokerConfig(state_directory=tmp_path / "state")


def starts(state):
    with state.store.transaction() as transaction:
        return [row for row in transaction.list_audit(100) if row["event"] == "start"]


def policy_of(state):
    with state.store.reading() as transaction:
        return state.policy(state.rules(transaction)).text


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
    names = ("admin.key", "admin.pub", "broker.sqlite", "head", "master.key")
    assert modes == dict.fromkeys(names, 0o600)


def test_second_start_makes_nothing(config):
    open_state(config).close()
    before = {path.name: path.read_bytes() for path in config.state_directory.glob("*.key")}
    state = open_state(config)
    assert (state.master_key_made, state.admin_key_made) == (None, None)
    assert len(starts(state)) == 2
    state.close()
    assert {p.name: p.read_bytes() for p in config.state_directory.glob("*.key")} == before


def admins_of(config):
    with open_state(config) as state, state.store.reading() as transaction:
        return {one.name: one for one in transaction.admins()}


def test_admin_key_of_the_first_start_may_do_all(config):
    (first,) = admins_of(config).values()
    key = load_admin_public_key(config.state_directory / "admin.pub")
    assert (first.id, first.public_key) == (admin_key_id(key), key.public_bytes_raw())
    assert (first.tenant, first.roles) == (DEFAULT_TENANT, frozenset(ROLES))


def test_admin_key_whose_files_are_both_gone_is_replaced(config):
    """Who takes them away wants that it opens nothing more."""
    before = admins_of(config)["admin"]
    (config.state_directory / "admin.key").unlink()
    assert admins_of(config) == {"admin": before}  # kept elsewhere
    (config.state_directory / "admin.pub").unlink()
    after = admins_of(config)
    assert list(after) == ["admin"]
    assert after["admin"].id != before.id
    assert (config.state_directory / "admin.key").exists()


def test_admin_key_that_was_removed_does_not_come_back_with_a_start(config):
    before = admins_of(config)["admin"]
    other = replace(before, id="0" * 64, name="other")
    with open_state(config) as state, state.store.transaction() as transaction:
        transaction.delete_admin(before.id)
        transaction.insert_admin(other)
    assert admins_of(config) == {"other": other}


def test_store_without_an_operator_gets_the_admin_key_that_is_there(config):
    before = admins_of(config)["admin"]
    with open_state(config) as state, state.store.transaction() as transaction:
        transaction.delete_admin(before.id)
    with open_state(config) as state:
        assert state.admin_key_made is None
        assert f"admin key 'admin {before.id[:12]}' has all roles" in starts(state)[-1]["detail"]
    assert admins_of(config) == {"admin": before}


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
    assert set(state.verifiers) == {"sample", "sampledevice"}
    assert "anybody who reaches this broker can attest" in caplog.text
    assert starts(state)[0]["detail"].startswith("TEEs: sample, sampledevice; admin key 'admin ")
    state.close()


def test_start_without_sample_tee_warns_of_nothing(config, caplog):
    open_state(config).close()
    assert caplog.text == ""


def test_tee_without_a_plugin_refused(tmp_path):
    with pytest.raises(PluginNotFound, match="'toy'"):
        open_state(BrokerConfig(state_directory=tmp_path / "state", tees=("toy",)))


def test_policy_file_is_put_in_force_at_each_start(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(DENY_ALL_POLICY)
    state = open_state(BrokerConfig(state_directory=tmp_path / "state", policy_file=path))
    assert policy_of(state) == DENY_ALL_POLICY
    assert str(path) in starts(state)[0]["detail"]
    state.close()


def test_stored_policy_stays_where_no_file_is_given(config):
    state = open_state(config)

    with state.store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, POLICY, DENY_ALL_POLICY.encode())
    state.close()
    again = open_state(config)
    assert policy_of(again) == DENY_ALL_POLICY
    again.close()


def test_start_with_the_clock_set_back_too_far_ends_all_sessions(config):
    now = datetime(2026, 11, 1, tzinfo=UTC)

    def session_now(state):
        return state.session_now(StoreRow(b"", 0, 0, has_sessions=True))

    def start(clock):
        state = open_state(replace(config, clock=lambda: clock))
        with state.store.transaction() as transaction:
            transaction.keep_time(int(clock.timestamp() * 1000))
        state.close()
        return state

    first = start(now)
    near = start(now - timedelta(minutes=5))
    assert near.challenges.store_id == first.challenges.store_id
    assert session_now(near) == now
    far = start(now - timedelta(minutes=5, milliseconds=1))
    assert far.challenges.store_id != first.challenges.store_id
    assert session_now(far) == now - timedelta(minutes=5, milliseconds=1)
    state = open_state(config)
    assert "the clock went back" in " ".join(row["detail"] for row in starts(state))
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


def test_policy_that_is_the_former_default_becomes_the_default(tmp_path):
    config = BrokerConfig(state_directory=tmp_path / "state")
    with open_state(config) as state, state.store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, POLICY, FORMER_DEFAULT_POLICY.encode())
    with open_state(config) as state, state.store.reading() as transaction:
        assert state.policy(state.rules(transaction)).text == DEFAULT_POLICY


def test_policy_of_the_owner_stays_as_it_is(tmp_path):
    own = FORMER_DEFAULT_POLICY.replace("bound-image", "mine")
    config = BrokerConfig(state_directory=tmp_path / "state")
    with open_state(config) as state, state.store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, POLICY, own.encode())
    with open_state(config) as state, state.store.reading() as transaction:
        assert state.policy(state.rules(transaction)).text == own


def test_appraisal_policy_sets_reference_values_and_what_may_pass(tmp_path):
    path = tmp_path / "appraisal.json"
    value = {"name": "snp_launch_measurement", "values": ["ab"], "source": "the file"}
    path.write_text(json.dumps({"tees": {"snp": {"crl": "optional"}}, "reference_values": [value]}))
    config = BrokerConfig(
        state_directory=tmp_path / "state", tees=("snp",), appraisal_policy_file=path
    )
    with open_state(config) as state:
        assert state.verifiers["snp"].allowed.without_crl
        assert state.tees_without_references() == {}
        with state.store.reading() as transaction:
            assert (
                transaction.reference_values(DEFAULT_TENANT)["snp_launch_measurement"].source
                == "the file"
            )
            row = transaction.list_audit(1)[0]
    assert row["detail"].endswith(f"; reference values from {path}: snp_launch_measurement")


@pytest.mark.parametrize(
    ("document", "error", "piece"),
    [
        ({"tees": {"tdx": {}}}, UsageError, "an appraisal policy for the TEE 'tdx'"),
        ({"tees": {"snp": {"x": 1}}}, FormatError, "unknown member 'x'"),
        ({"rules": []}, FormatError, "unknown member 'rules'"),
    ],
)
def test_appraisal_policy_that_does_not_fit_is_refused_before_anything_is_made(
    tmp_path, document, error, piece
):
    path = tmp_path / "appraisal.json"
    path.write_text(json.dumps(document))
    config = BrokerConfig(
        state_directory=tmp_path / "state", tees=("snp",), appraisal_policy_file=path
    )
    with pytest.raises(error, match=piece):
        open_state(config)
    assert not (tmp_path / "state").exists()


def test_directory_of_collateral_that_is_not_there_refused_at_the_start(tmp_path):
    config = BrokerConfig(
        state_directory=tmp_path / "state", tees=("snp",), collateral_directory=tmp_path / "none"
    )
    with pytest.raises(LocalError, match="is no directory of collateral"):
        open_state(config)


def test_test_roots_for_a_tee_that_is_not_taken_refused(tmp_path):
    config = BrokerConfig(state_directory=tmp_path / "state", test_roots={"snp": b""})
    with pytest.raises(UsageError, match="test roots for the TEE 'snp', which is not taken"):
        open_state(config)
