# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from imagers.broker import readiness
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.table import DEFAULT_POLICY
from imagers.broker.readiness import Readiness
from imagers.broker.rules import POLICY
from tests.unit.broker.conftest import change_as_a_broker


@pytest.fixture(autouse=True)
def always_looks(monkeypatch):
    monkeypatch.setattr(readiness, "_GOOD_S", -1.0)


def damage_policy(transaction):
    transaction.set_policy(DEFAULT_TENANT, POLICY, b"{")


def test_broker_that_can_serve_guests_is_ready(http):
    status, _, body = http("GET", "/readyz")
    assert (status, body) == (200, b"ok\n")


def test_broker_with_a_damaged_policy_is_not_ready_and_lives(embedded, http):
    change_as_a_broker(embedded.state_directory, damage_policy)
    status, headers, body = http("GET", "/readyz")
    assert (status, headers["Retry-After"]) == (503, "5")
    assert json.loads(body)["detail"] == "the stored policy is damaged"
    assert http("GET", "/healthz")[0] == 200
    embedded.admin.set_policy(DEFAULT_POLICY)
    assert http("GET", "/readyz")[0] == 200


def test_broker_whose_store_was_changed_from_outside_is_not_ready_until_it_is_started_anew(
    embedded, http, admin_headers
):
    embedded.put("kbs:///default/key/1", b"secret")
    with closing(sqlite3.connect(embedded.state_directory / "broker.sqlite")) as store:
        store.execute("UPDATE resources SET version = version + 1")
        store.commit()
        path = "/kbs/v0/imagers/metadata/default/key/1"
        assert http("GET", path, **admin_headers(embedded))[0] == 503
        store.execute("UPDATE resources SET version = version - 1")
        store.commit()
        assert http("GET", path, **admin_headers(embedded))[0] == 200
    status, _, body = http("GET", "/readyz")
    assert status == 503
    assert json.loads(body)["detail"] == "the store was changed from outside"


def test_broker_whose_store_is_an_old_copy_is_not_ready(embedded, http):
    with closing(sqlite3.connect(embedded.state_directory / "broker.sqlite")) as store:
        store.execute("UPDATE store SET changes = 0")
        store.commit()
    status, _, body = http("GET", "/readyz")
    assert status == 503
    assert json.loads(body)["detail"] == "the store was changed from outside"


def test_broker_whose_store_takes_no_writes_is_not_ready(embedded, http):
    with closing(sqlite3.connect(embedded.state_directory / "broker.sqlite")) as store:
        store.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON brokers BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
        status, _, body = http("GET", "/readyz")
        assert status == 503
        assert json.loads(body)["detail"] == "the store cannot be written"
        assert str(embedded.state_directory).encode() not in body
        store.execute("DROP TRIGGER full")
    assert http("GET", "/readyz")[0] == 200


def test_answer_is_known_for_a_while(embedded, http, monkeypatch):
    """Anybody may ask, and each look writes to the disk."""
    monkeypatch.setattr(readiness, "_GOOD_S", 3600.0)
    assert http("GET", "/readyz")[0] == 200
    change_as_a_broker(embedded.state_directory, damage_policy)
    assert http("GET", "/readyz")[0] == 200


def test_nobody_is_told_that_a_broker_is_ready_while_its_store_does_not_answer(state, monkeypatch):
    monkeypatch.setattr(readiness, "_GOOD_S", 3600.0)

    async def run():
        probes = [asyncio.ensure_future(asked.check()) for _ in range(3)]
        for _ in range(9):  # turns of the loop
            await asyncio.sleep(0)
        assert not any(probe.done() for probe in probes)
        other.execute("COMMIT")
        await asyncio.gather(*probes)

    asked = Readiness(state)
    path = state.config.state_directory / "broker.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.run(run())
