# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.broker.backup import make_backup
from imagers.broker.config import BrokerConfig
from imagers.broker.start import open_state


@pytest.fixture
def state(run):  # noqa: ARG001 - which goes to a directory of its own
    config = BrokerConfig(state_directory=Path("state"))
    open_state(config).close()
    make_backup(config, Path("today.backup"))
    return Path("state")


def test_restore_says_what_is_in_force(run, state):
    (state / "broker.sqlite").unlink()
    outcome = run("broker", "restore", "--state", state, "today.backup")
    assert outcome.code == 0
    assert outcome.out.startswith("today.backup is in force: ")


def test_restore_of_an_older_state_says_how_to_have_it_and_what_it_means(run, state):
    open_state(BrokerConfig(state_directory=state)).close()
    (state / "broker.sqlite").unlink()
    outcome = run("broker", "restore", "--state", state, "today.backup")
    assert outcome.code == 13
    assert "it is an old copy" in outcome.err
    outcome = run("broker", "restore", "--state", state, "today.backup", "--accept-older-state")
    assert outcome.code == 0
    assert "take back again what was taken back since" in outcome.out


def test_restore_over_a_store_refused_with_a_hint(run, state):
    outcome = run("broker", "restore", "--state", state, "today.backup")
    assert outcome.code == 13
    assert "move what is there away" in outcome.err
