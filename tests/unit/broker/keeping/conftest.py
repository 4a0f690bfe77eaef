# SPDX-License-Identifier: Apache-2.0
"""One suite for each kind of database."""

import secrets

import pytest

from imagers.broker.keeping.postgresql import PostgreSQLDatabase
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.sealing import Sealer
from tests.postgresql import Server


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request, tmp_path):
    """Makes the database of a test; brokers that share it give their names."""
    if request.param == "sqlite":
        return lambda name="broker": SQLiteDatabase(tmp_path / "broker.sqlite")  # noqa: ARG005
    url = request.getfixturevalue("server").new_database(f"t{secrets.token_hex(8)}")
    return lambda name="broker": PostgreSQLDatabase(url, name)


def unsealed(store, **more):
    """The store, with the key of all tests."""
    store.unseal(Sealer([bytearray(32)]), **more)
    return store


@pytest.fixture
def store(new_database):
    with unsealed(Store(new_database())) as opened:
        yield opened
