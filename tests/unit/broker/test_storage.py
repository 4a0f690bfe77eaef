# SPDX-License-Identifier: Apache-2.0
import logging
import sqlite3
import stat
import threading

import pytest

from imagers.broker.storage import Session, Store, StoredResource
from imagers.errors import LocalError
from imagers.kbs.resources import ResourcePath
from imagers.model.digest import digest_of
from imagers.model.references import ReferenceValue

PATH = ResourcePath("default", "key", "1")
ROW = dict.fromkeys(("tee", "path", "image", "rule", "session", "detail"), "") | {
    "at": "2026-11-01T00:00:00+00:00",
    "event": "put",
    "outcome": "ok",
}


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "broker.sqlite")
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
        Store(tmp_path / "broker.sqlite")


def test_store_that_is_no_database_refused(tmp_path):
    path = tmp_path / "broker.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    path.chmod(0o600)
    with pytest.raises(LocalError, match="not a database") as caught:
        Store(path)
    assert caught.value.path == str(path)


def test_store_of_another_version_refused(tmp_path, store):
    store.close()
    with sqlite3.connect(tmp_path / "broker.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(LocalError, match="expected a store of version 3, got 7"):
        Store(tmp_path / "broker.sqlite")


def test_resource_is_there_after_opening_again(tmp_path, store):
    with store.transaction() as transaction:
        transaction.insert_resource(resource())
    store.close()
    again = Store(tmp_path / "broker.sqlite")
    with again.transaction() as transaction:
        assert transaction.find_resource(PATH) == resource()
        assert transaction.find_resource(ResourcePath("a", "b", "c")) is None
        assert transaction.list_resources() == (PATH,)
    again.close()


def test_insert_of_a_taken_name_is_an_error_even_without_looking(store):
    with store.transaction() as transaction:
        transaction.insert_resource(resource())
    with pytest.raises(LocalError, match="UNIQUE") as caught, store.transaction() as transaction:
        transaction.insert_resource(resource(sealed=b"another value"))
    assert "another value" not in str(caught.value)


def test_exception_in_a_transaction_undoes_it(store):
    def fail():
        with store.transaction() as transaction:
            transaction.insert_resource(resource())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.transaction() as transaction:
        assert transaction.list_resources() == ()


def test_versions_go_on_after_a_delete(store):
    with store.transaction() as transaction:
        assert transaction.next_version(PATH) == 1
        transaction.insert_resource(resource())
        assert transaction.delete_resource(PATH)
        assert not transaction.delete_resource(PATH)
        assert transaction.next_version(PATH) == 2


def test_delete_takes_the_bindings_of_that_path_only(store):
    other = ResourcePath("default", "key", "2")
    digest = digest_of(b"image")
    with store.transaction() as transaction:
        transaction.add_binding(PATH, digest)
        transaction.add_binding(other, digest)
        transaction.delete_resource(PATH)
        assert transaction.bindings(PATH) == frozenset()
        assert transaction.bindings(other) == {digest}


def test_transactions_of_many_threads_do_not_mix(store):
    barrier = threading.Barrier(8)
    versions = []

    def run():
        barrier.wait()
        for _ in range(5):
            with store.transaction() as transaction:
                versions.append(transaction.next_version(PATH))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(1, 41))


def session(name="name", nonce="nonce", **more):
    return Session(
        name=name,
        nonce=nonce,
        tee="sample",
        expires_ms=1000,
        attested_with="hash",
        token="a.b.c",
        **({"keep_until_ms": 1300} | more),
    )


def test_session_is_found_by_its_name_until_it_need_not_be_kept(store):
    with store.transaction() as transaction:
        transaction.insert_session(session())
        assert transaction.find_session("name") == session()
        assert transaction.find_session("Name") is None
        transaction.drop_sessions(1299)
        assert transaction.store_row().sessions == 1
        transaction.drop_sessions(1300)
        assert transaction.find_session("name") is None
        assert transaction.store_row().sessions == 0


@pytest.mark.parametrize("again", [session("other"), session(nonce="other")])
def test_session_with_a_taken_nonce_or_name_is_an_error(store, again):
    with store.transaction() as transaction:
        transaction.insert_session(session())
    with pytest.raises(LocalError, match="UNIQUE"), store.transaction() as transaction:
        transaction.insert_session(again)
    with store.reading() as transaction:
        assert transaction.store_row().sessions == 1


def test_sessions_are_counted_by_tee_and_instance(store):
    with store.transaction() as transaction:
        for number, instance in enumerate(("a", "a", "b", "")):
            transaction.insert_session(session(str(number), str(number), instance=instance))
        assert [transaction.sessions_of("sample", name) for name in ("a", "b", "c")] == [2, 1, 0]
        assert transaction.sessions_of("snp", "a") == 0


def test_time_that_is_kept_never_goes_back(store):
    with store.transaction() as transaction:
        for now_ms, kept in ((5, 5), (4, 5), (6, 6)):
            transaction.keep_time(now_ms)
            assert transaction.store_row().seen_ms == kept


def test_store_that_begins_again_has_another_id_and_no_sessions(store):
    with store.transaction() as transaction:
        before = transaction.store_row()
        transaction.keep_time(9)
        transaction.insert_session(session())
        transaction.begin_again(7)
        after = transaction.store_row()
        assert (after.seen_ms, after.sessions, len(after.id)) == (7, 0, 16)
        assert after.id != before.id
        assert transaction.find_session("name") is None


def test_each_store_has_an_id_of_its_own_and_keeps_it(tmp_path, store):
    def id_of(opened):
        with opened.reading() as transaction:
            return transaction.store_row().id

    other = Store(tmp_path / "other.sqlite")
    again = Store(tmp_path / "broker.sqlite")
    assert id_of(store) == id_of(again) != id_of(other)
    again.close()
    other.close()


def test_reading_sees_no_half_of_a_write_and_waits_for_none(store):
    with store.transaction() as transaction:
        transaction.insert_session(session())
        with store.reading() as reader:
            assert reader.find_session("name") is None
    with store.reading() as reader:
        assert reader.find_session("name") == session()


def test_reading_cannot_write(store):
    with pytest.raises(LocalError, match="readonly"), store.reading() as reader:
        reader.set_setting("a", b"1")
    with store.transaction() as transaction:  # the same connection of the pool
        transaction.set_setting("a", b"2")


def test_store_of_the_version_with_open_sessions_is_taken_over(tmp_path, store):
    with store.transaction() as transaction:
        transaction.insert_resource(resource())
        transaction.append_audit(ROW)
    store.close()
    connection = sqlite3.connect(tmp_path / "broker.sqlite")
    connection.executescript(
        """
        DROP TABLE sessions; DROP TABLE store;
        CREATE TABLE sessions (name TEXT PRIMARY KEY, tee TEXT NOT NULL, nonce TEXT NOT NULL,
            expires_ms INTEGER NOT NULL, attested_with TEXT, token TEXT);
        CREATE INDEX ix_sessions_expires_ms ON sessions (expires_ms);
        INSERT INTO sessions VALUES ('a', 'sample', 'n', 1, NULL, NULL);
        PRAGMA user_version = 1;
        """
    )
    connection.close()
    again = Store(tmp_path / "broker.sqlite")
    with again.transaction() as transaction:
        assert transaction.list_resources() == (PATH,)
        assert len(transaction.list_audit(10)) == 1
        assert transaction.find_session("a") is None
        transaction.insert_session(session())
        assert transaction.store_row().sessions == 1
    again.close()


def test_setting_is_replaced(store):
    with store.transaction() as transaction:
        assert transaction.get_setting("a") is None
        transaction.set_setting("a", b"1")
        transaction.set_setting("a", b"2")
        assert transaction.get_setting("a") == b"2"


def test_audit_rows_cannot_be_changed_or_deleted_even_past_us(tmp_path, store):
    with store.transaction() as transaction:
        transaction.append_audit(ROW)
    store.close()
    connection = sqlite3.connect(tmp_path / "broker.sqlite")
    for statement in ("DELETE FROM audit", "UPDATE audit SET outcome = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            connection.execute(statement)
    connection.close()


def test_audit_limit_takes_the_last_oldest_first(store):
    with store.transaction() as transaction:
        for number in range(5):
            transaction.append_audit(ROW | {"detail": str(number)})
        rows = transaction.list_audit(2)
    assert [(row["number"], row["detail"]) for row in rows] == [(4, "3"), (5, "4")]


def test_statements_in_a_log_at_debug_have_no_values(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="sqlalchemy.engine"):
        store = Store(tmp_path / "other.sqlite")
        with store.transaction() as transaction:
            transaction.insert_resource(resource(sealed=b"the sealed value"))
            transaction.insert_session(session(nonce="the nonce"))
        store.close()
    assert "INSERT INTO resources" in caplog.text
    assert "the sealed value" not in caplog.text
    assert "the nonce" not in caplog.text


def test_path_with_characters_of_urls_is_a_path(tmp_path):
    folder = tmp_path / "a?b#c%20 d"
    folder.mkdir()
    Store(folder / "broker.sqlite").close()
    assert (folder / "broker.sqlite").stat().st_size > 0


def test_store_of_the_version_without_claims_is_taken_over(tmp_path, store):
    """Tokens of then have nothing to appraise."""
    with store.transaction() as transaction:
        transaction.insert_resource(resource())
        transaction.insert_session(session())
        transaction.keep_time(5)
        identity = transaction.store_row().id
    store.close()
    with sqlite3.connect(tmp_path / "broker.sqlite") as connection:
        connection.executescript(
            "DROP TABLE reference_values; DROP TABLE collateral; PRAGMA user_version = 2;"
        )
    connection.close()
    again = Store(tmp_path / "broker.sqlite")
    with again.transaction() as transaction:
        row = transaction.store_row()
        assert (row.id, row.seen_ms, row.sessions) == (identity, 5, 0)
        assert transaction.find_session("name") is None
        assert transaction.find_resource(resource().path) is not None
        assert transaction.reference_values() == {}
        transaction.insert_session(session())
        assert transaction.store_row().sessions == 1
    again.close()


def test_reference_values_are_replaced_found_by_name_and_deleted(store):
    one, other = ReferenceValue("b", ("x", 1, True)), ReferenceValue("a", ("y",), source="s")
    with store.transaction() as transaction:
        transaction.set_reference_value(ReferenceValue("b", ("old",)))
        transaction.set_reference_value(one)
        transaction.set_reference_value(other)
        assert list(transaction.reference_values().items()) == [("a", other), ("b", one)]
        assert transaction.reference_values(["b", "none"]) == {"b": one}
        assert transaction.reference_values([]) == {}
        assert transaction.delete_reference_value("b")
        assert not transaction.delete_reference_value("b")


def test_numbers_of_collateral_only_grow(store):
    with store.transaction() as transaction:
        transaction.keep_collateral({"a": 5, "b": 2**159})
        transaction.keep_collateral({"a": 4, "c": 0})
        assert transaction.seen_collateral() == {"a": 5, "b": 2**159, "c": 0}
        transaction.keep_collateral({"a": 6})
        assert transaction.seen_collateral()["a"] == 6
