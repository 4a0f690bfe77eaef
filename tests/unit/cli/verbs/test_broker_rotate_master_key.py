# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from imagers.broker.config import BrokerConfig
from imagers.broker.start import open_state
from imagers.broker.unsealing import OWN_KEYS


@pytest.fixture
def state(run):  # noqa: ARG001 - which goes to a directory of its own
    open_state(BrokerConfig(state_directory=Path("state"))).close()
    return Path("state")


def test_rotation_says_what_is_in_force_and_where_the_former_key_is(run, state):
    before = (state / "master.key").read_bytes()
    outcome = run("broker", "rotate-master-key", "--state", state)
    assert outcome.code == 0
    (old,) = state.glob("master.key.*")
    assert old.read_bytes() == before
    name = old.suffix.removeprefix(".")
    assert f"sealed {len(OWN_KEYS)} values anew; nothing needs the master key {name}" in outcome.out
    assert f"the former one, which opens older backups, is {old}" in outcome.out
    open_state(BrokerConfig(state_directory=state)).close()


def test_rotation_as_json(run, state):
    facts = json.loads(run("broker", "rotate-master-key", "--state", state, "--json").out)
    assert (facts["sealed"], facts["next_key_file"]) == (len(OWN_KEYS), None)
    assert facts["old_file"] == str(state / f"master.key.{facts['before']}")


def test_rotation_where_there_is_no_store_makes_nothing(run, tmp_path):
    outcome = run("broker", "rotate-master-key", "--state", tmp_path / "none")
    assert outcome.code == 13
    assert "there is no store" in outcome.err
    assert "--state DIR names the broker's directory" in outcome.err
    assert not (tmp_path / "none").exists()


def test_rotation_of_a_shared_store_makes_the_key_first_and_says_what_to_do(run, state):
    words = ("broker", "rotate-master-key", "--state", state, "--database", "postgresql://x/y")
    outcome = run(*words)
    assert outcome.code == 0
    assert "copy it to the state directory of each other broker, then say this" in outcome.out
    assert (state / "master.next").is_file()
    assert run(*words, "--json").code == 13  # the next time it asks the database
