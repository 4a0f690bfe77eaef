# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.broker.config import BrokerConfig
from imagers.broker.start import open_state


@pytest.fixture
def state(run):  # noqa: ARG001 - which goes to a directory of its own
    open_state(BrokerConfig(state_directory=Path("state"))).close()
    return Path("state")


def test_backup_says_what_it_wrote(run, state):
    outcome = run("broker", "backup", "--state", state, "today.backup")
    assert outcome.code == 0
    assert outcome.out.startswith("wrote today.backup: ")
    assert "rows, as of change " in outcome.out


def test_backup_over_a_file_is_refused(run, state):
    assert run("broker", "backup", "--state", state, "today.backup").code == 0
    outcome = run("broker", "backup", "--state", state, "today.backup")
    assert outcome.code == 13
    assert "today.backup: is there already" in outcome.err
