# SPDX-License-Identifier: Apache-2.0
"""Some runs of tests/faults/brokers.py; IMAGERS_LONG=1: two hundred."""

import os

import pytest

from tests.faults.brokers import run
from tests.postgresql import Server

IS_LONG = os.environ.get("IMAGERS_LONG") == "1"


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(160 if IS_LONG else 4))
def test_brokers_that_share_a_postgresql_lose_and_give_away_nothing_when_killed(server, seed):
    run(seed, server)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(40 if IS_LONG else 3))
def test_broker_over_sqlite_loses_and_gives_away_nothing_when_killed(seed):
    run(seed)
