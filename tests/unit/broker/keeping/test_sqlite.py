# SPDX-License-Identifier: Apache-2.0
import sqlite3
import stat

import pytest

from imagers.broker.audit_check import check_chains
from imagers.broker.keeping.rows import StoredResource
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import AUDIT_TEXTS, DEFAULT_TENANT
from imagers.errors import LocalError
from imagers.kbs.resources import ResourcePath
from imagers.model.digest import digest_of
from imagers.model.references import ReferenceValue
from tests.unit.broker.keeping.conftest import unsealed

PATH = ResourcePath("default", "key", "1")
IMAGES = (digest_of(b"b"), digest_of(b"a"))
ROW = dict.fromkeys(AUDIT_TEXTS, "") | {
    "at": "2026-11-01T00:00:00+00:00",
    "event": "put",
    "outcome": "ok",
}


@pytest.fixture
def store(tmp_path):
    opened = unsealed(Store(SQLiteDatabase(tmp_path / "broker.sqlite")))
    yield opened
    opened.close()


def resource(path=PATH, sealed=b"sealed", version=1):
    return StoredResource(path, sealed, len(sealed), version, "2026-11-01T00:00:00+00:00")


def test_store_files_are_for_their_owner_only(tmp_path, store):
    with store.transaction() as transaction:
        transaction.insert_resource(resource())
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in tmp_path.iterdir()
            if path.name.startswith("broker.sqlite")
        }
    assert "broker.sqlite-wal" in modes
    assert set(modes.values()) == {0o600}


def test_store_open_to_others_refused(tmp_path, store):
    store.close()
    (tmp_path / "broker.sqlite").chmod(0o640)
    with pytest.raises(LocalError, match="expected mode 0600, got 0640"):
        Store(SQLiteDatabase(tmp_path / "broker.sqlite"))


def test_store_that_is_no_database_refused(tmp_path):
    path = tmp_path / "broker.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    path.chmod(0o600)
    with pytest.raises(LocalError, match="not a database") as caught:
        Store(SQLiteDatabase(path))
    assert caught.value.path == str(path)


def test_store_of_another_version_refused(tmp_path, store):
    store.close()
    with sqlite3.connect(tmp_path / "broker.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(LocalError, match="expected a store of version 4, got 7"):
        Store(SQLiteDatabase(tmp_path / "broker.sqlite"))


def test_path_with_characters_of_urls_is_a_path(tmp_path):
    folder = tmp_path / "a?b#c%20 d"
    folder.mkdir()
    Store(SQLiteDatabase(folder / "broker.sqlite")).close()
    assert (folder / "broker.sqlite").stat().st_size > 0


def test_audit_rows_cannot_be_changed_or_deleted_even_past_us(tmp_path, store):
    with store.transaction() as transaction:
        transaction.append_audit(ROW)
    store.close()
    connection = sqlite3.connect(tmp_path / "broker.sqlite")
    for statement in ("DELETE FROM audit", "UPDATE audit SET outcome = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            connection.execute(statement)
    connection.close()


OLD_TABLES = """
    CREATE TABLE resources (path TEXT PRIMARY KEY, sealed BLOB NOT NULL, size INTEGER NOT NULL,
        version INTEGER NOT NULL, created_at TEXT NOT NULL);
    CREATE TABLE versions (path TEXT PRIMARY KEY, last INTEGER NOT NULL);
    CREATE TABLE bindings (path TEXT, manifest_digest TEXT, PRIMARY KEY (path, manifest_digest));
    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE sessions (nonce TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, token TEXT);
    CREATE TABLE audit (number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL,
        event TEXT NOT NULL, outcome TEXT NOT NULL, tee TEXT NOT NULL, path TEXT NOT NULL,
        image TEXT NOT NULL, rule TEXT NOT NULL, session TEXT NOT NULL, detail TEXT NOT NULL);
    CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
    INSERT INTO resources VALUES ('default/key/1', x'00', 1, 1, '2026-11-01T00:00:00+00:00');
    INSERT INTO settings VALUES ('token-key', x'01');
    INSERT INTO settings VALUES ('policy', x'02');
    INSERT INTO settings VALUES ('attestation-policy/gpu', x'03');
    INSERT INTO sessions VALUES ('n', 'name', 't');
    INSERT INTO audit VALUES (1, 'a', 'put', 'ok', '', 'default/key/1', '', '', '', '');
    INSERT INTO audit VALUES (2, 'b', 'attest', 'ok', '', 'default/key/2', '', '', '', '');
"""
STORE_TABLE = """
    CREATE TABLE store (id BLOB NOT NULL, seen_ms INTEGER NOT NULL, sessions INTEGER NOT NULL);
    INSERT INTO store VALUES (x'000102030405060708090a0b0c0d0e0f', 5, 1);
"""
VALUE_TABLES = """
    CREATE TABLE reference_values (name TEXT PRIMARY KEY, value BLOB NOT NULL);
    CREATE TABLE collateral (name TEXT PRIMARY KEY, number TEXT NOT NULL);
    INSERT INTO reference_values
        VALUES ('r', CAST('{"reference_values": [{"name": "r", "values": [1]}]}' AS BLOB));
    INSERT INTO collateral VALUES ('a', '5');
    INSERT INTO collateral VALUES ('b', '730750818665451459101842416358141509827966271488');
"""


@pytest.mark.parametrize(
    ("version", "more"), [(1, ""), (2, STORE_TABLE), (3, STORE_TABLE + VALUE_TABLES)]
)
def test_store_of_an_older_version_is_taken_over(tmp_path, version, more):
    path = tmp_path / "broker.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(f"{OLD_TABLES}{more} PRAGMA user_version = {version}")
    with connection:
        rows = [(str(PATH), str(one)) for one in IMAGES]
        connection.executemany("INSERT INTO bindings VALUES (?, ?)", rows)
    connection.close()
    path.chmod(0o600)
    with unsealed(Store(SQLiteDatabase(path))) as store, store.transaction() as transaction:
        assert transaction.list_resources(DEFAULT_TENANT) == (PATH,)
        assert tuple(one.digest for one in transaction.list_images("default")) == IMAGES
        assert transaction.bound_images(PATH).keys() == set(IMAGES)
        kept = StoredResource(PATH, b"\0", 1, 1, "2026-11-01T00:00:00+00:00")
        assert transaction.find_resource(PATH) == kept
        assert transaction.count_sessions() == 0
        rows = [row for row, _ in transaction.audit_chains()]
        assert [(row["number"], row["at"], row["client"]) for row in rows] == [
            (1, "a", ""),
            (2, "b", ""),
        ]
        assert [row["tenant"] for row in rows] == [DEFAULT_TENANT, ""]
        assert transaction.tenants() == (DEFAULT_TENANT,)
        assert transaction.get_setting("token-key") == b"\1"
        assert transaction.get_setting("policy") is None
        assert transaction.get_policy(DEFAULT_TENANT, "policy") == b"\2"
        assert transaction.get_policy(DEFAULT_TENANT, "attestation-policy/gpu") == b"\3"
        values = {"r": ReferenceValue("r", (1,))} if version == 3 else {}
        assert transaction.reference_values(DEFAULT_TENANT) == values
        transaction.append_audit(ROW)
        assert transaction.last_link().number == 3
        assert not check_chains(transaction.audit_chains(), ()).problems
        row = transaction.store_row()
        assert (len(row.id), row.seen_ms) == (16, 5 if version > 1 else 0)
        assert (row.id == bytes(range(16))) == (version > 1)
        assert transaction.seen_collateral() == ({"a": 5, "b": 2**159} if version == 3 else {})
        transaction.keep_collateral({"a": 6})
    with Store(SQLiteDatabase(path)) as store, store.reading() as transaction:
        assert transaction.store_row().id == row.id
    with pytest.raises(sqlite3.IntegrityError, match="only grows"):
        sqlite3.connect(path).execute("DELETE FROM audit")
