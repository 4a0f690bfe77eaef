# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
from dataclasses import replace

import pytest

from imagers.broker.config import BrokerConfig
from imagers.broker.start import open_state
from imagers.errors import LocalError


@pytest.fixture
def config(tmp_path):
    return BrokerConfig(state_directory=tmp_path / "state")


def starts(state):
    with state.store.reading() as transaction:
        return [row for row in transaction.list_audit(100) if row["event"] == "start"]


def reopened(config):
    open_state(config).close()


def test_start_with_an_old_copy_of_the_database_refused_unless_it_is_accepted(config):
    reopened(config)
    copy = (config.state_directory / "broker.sqlite").read_bytes()
    reopened(config)
    (config.state_directory / "broker.sqlite").write_bytes(copy)
    with pytest.raises(LocalError, match="it is an old copy") as caught:
        open_state(config)
    assert "--accept-older-state" in caught.value.hint
    with open_state(replace(config, accept_older_state=True)) as state:
        assert "older state accepted: change" in starts(state)[-1]["detail"]
    # That was for one start; and the copy is an old one from now on.
    with open_state(config) as state:
        assert "accepted" not in starts(state)[-1]["detail"]
    (config.state_directory / "broker.sqlite").write_bytes(copy)
    with pytest.raises(LocalError, match="it is an old copy"):
        open_state(config)


def test_number_outside_is_that_of_the_database_after_each_change(config):
    def numbers(state):
        with state.store.reading() as transaction:
            inside = transaction.store_row().changes
        return inside, json.loads((config.state_directory / "head").read_bytes())["number"]

    with open_state(config) as state:
        inside, outside = numbers(state)
        assert inside == outside
        with state.store.transaction():
            pass
        assert numbers(state) == (inside + 1, inside + 1)


def test_number_that_cannot_be_written_is_said_and_the_change_stays(config, caplog):
    with open_state(config) as state:
        (config.state_directory / "head").unlink()
        (config.state_directory / "head").mkdir()
        with state.store.transaction() as transaction:
            transaction.set_setting("x", b"1")
        assert "an old copy of the store might be believed" in caplog.text
        with state.store.reading() as transaction:
            assert transaction.get_setting("x") == b"1"


def test_master_key_by_a_descriptor_makes_no_file_and_is_read_once(config):
    def start(data):
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        pipe = os.fstat(read).st_ino
        state = open_state(replace(config, master_key_fd=read))
        with contextlib.suppress(OSError):  # another file may have the number
            assert os.fstat(read).st_ino != pipe
        state.close()
        return state

    assert start(b"k" * 32).master_key_made is None
    start(b"k" * 32)
    assert not config.master_key_file.exists()
    for data, told in (
        (b"k" * 31, "got 31 bytes"),
        (b"k" * 65, "or more"),
        (b"x" * 32, "does not open the store"),
    ):
        with pytest.raises(LocalError, match=told) as caught:
            start(data)
        assert caught.value.path.startswith("descriptor ")


def test_challenges_are_those_of_the_store_and_not_of_the_master_key(config):
    one = open_state(config)
    cookie, _ = one.challenges.issue("sample", algorithm="sha256", expires_ms=1)
    one.close()
    with open_state(config) as state:
        assert state.challenges.open_cookie(cookie) is not None
        with state.store.transaction() as transaction:
            transaction._run("DELETE FROM settings WHERE name = 'challenge-key'")
    with open_state(config) as state:
        assert state.challenges.open_cookie(cookie) is None


def test_file_of_the_number_that_no_broker_wrote_refused_unless_an_older_state_is_accepted(config):
    reopened(config)
    head = config.state_directory / "head"
    head.write_bytes(head.read_bytes().replace(b'"mac":"', b'"mac":"0'))
    with pytest.raises(LocalError, match="was not written by a broker of this store"):
        open_state(config)
    open_state(replace(config, accept_older_state=True)).close()
    reopened(config)


def test_start_where_the_file_of_the_number_is_gone_makes_it_again(config):
    """Who can remove it can have the master key."""
    reopened(config)
    (config.state_directory / "head").unlink()
    reopened(config)
    assert (config.state_directory / "head").is_file()
