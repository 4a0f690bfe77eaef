# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

from imagers.broker.keeping.database import Taken
from imagers.broker.keeping.rows import Session, StoredResource
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.errors import LocalError
from imagers.kbs.resources import ResourcePath
from imagers.model.digest import digest_of
from imagers.model.references import ReferenceValue
from tests.unit.broker.keeping.conftest import unsealed

PATH = ResourcePath("default", "key", "1")
ROW = dict.fromkeys(("tee", "path", "image", "rule", "session", "detail"), "") | {
    "at": "2026-11-01T00:00:00+00:00",
    "event": "put",
    "outcome": "ok",
}


def resource(path=PATH, sealed=b"sealed", version=1):
    return StoredResource(path, sealed, len(sealed), version, "2026-11-01T00:00:00+00:00")


def test_resource_is_there_after_opening_again(new_database, store):
    with store.transaction() as transaction:
        transaction.insert_resource(resource())
    store.close()
    again = unsealed(Store(new_database()))
    with again.transaction() as transaction:
        assert transaction.find_resource(PATH) == resource()
        assert transaction.find_resource(ResourcePath("a", "b", "c")) is None
        assert transaction.list_resources() == (PATH,)
    again.close()


def test_insert_of_a_taken_name_is_an_error_even_without_looking(store):
    with store.transaction() as transaction:
        transaction.insert_resource(resource())
    with (
        pytest.raises(LocalError, match=r"UNIQUE|unique") as caught,
        store.transaction() as transaction,
    ):
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
        assert transaction.count_sessions() == 1
        transaction.drop_sessions(1300)
        assert transaction.find_session("name") is None
        assert transaction.count_sessions() == 0


@pytest.mark.parametrize("again", [session("other"), session(nonce="other")])
def test_session_with_a_taken_nonce_or_name_is_an_error(store, again):
    with store.transaction() as transaction:
        transaction.insert_session(session())
    with pytest.raises(LocalError, match=r"UNIQUE|unique"), store.transaction() as transaction:
        transaction.insert_session(again)
    with store.reading() as transaction:
        assert transaction.count_sessions() == 1


def test_machine_has_so_many_places_and_no_more(store):
    with store.transaction() as transaction:
        for number in range(3):
            slot = transaction.find_slot("sample", "a", most=3)
            assert slot == number
            transaction.insert_session(session(str(number), str(number), instance="a", slot=slot))
        assert transaction.find_slot("sample", "a", most=3) is None
        assert transaction.find_slot("sample", "b", most=3) == 0
        assert transaction.find_slot("snp", "a", most=3) == 0


def test_place_of_a_machine_is_taken_once_even_without_looking(store):
    with store.transaction() as transaction:
        transaction.insert_session(session("1", "1", instance="a", slot=0))
        transaction.insert_session(session("2", "2"))  # of a TEE that tells no machines apart
        transaction.insert_session(session("3", "3"))
    with pytest.raises(Taken), store.transaction() as transaction:
        transaction.insert_session(session("4", "4", instance="a", slot=0))


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
        assert (after.seen_ms, transaction.count_sessions(), len(after.id)) == (7, 0, 16)
        assert after.id != before.id
        assert transaction.find_session("name") is None


def test_each_store_has_an_id_of_its_own_and_keeps_it(tmp_path, new_database, store):
    def id_of(opened):
        with opened.reading() as transaction:
            return transaction.store_row().id

    other = Store(SQLiteDatabase(tmp_path / "other.sqlite"))
    again = Store(new_database("again"), "again")
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
    with pytest.raises(LocalError, match=r"readonly|read-only"), store.reading() as reader:
        reader.set_setting("a", b"1")
    with store.transaction() as transaction:  # the same connection of the pool
        transaction.set_setting("a", b"2")


def test_setting_is_replaced(store):
    with store.transaction() as transaction:
        assert transaction.get_setting("a") is None
        transaction.set_setting("a", b"1")
        transaction.set_setting("a", b"2")
        assert transaction.get_setting("a") == b"2"


def test_audit_limit_takes_the_last_oldest_first(store):
    with store.transaction() as transaction:
        for number in range(5):
            transaction.append_audit(ROW | {"detail": str(number)})
        rows = transaction.list_audit(2)
    assert [(row["number"], row["detail"]) for row in rows] == [(4, "3"), (5, "4")]


def test_reference_values_are_replaced_found_by_name_and_deleted(store):
    one, other = ReferenceValue("b", ("x", 1, True)), ReferenceValue("a", ("y",), source="s")
    with store.transaction() as transaction:
        transaction.set_reference_value(ReferenceValue("b", ("old",)))
        transaction.set_reference_value(one)
        transaction.set_reference_value(other)
        assert list(transaction.reference_values().items()) == [("a", other), ("b", one)]
        assert transaction.delete_reference_value("b")
        assert not transaction.delete_reference_value("b")


def test_numbers_of_collateral_only_grow(store):
    with store.transaction() as transaction:
        transaction.keep_collateral({"a": 5, "b": 2**159})
        transaction.keep_collateral({"a": 4, "c": 0})
        assert transaction.seen_collateral() == {"a": 5, "b": 2**159, "c": 0}
        transaction.keep_collateral({"a": 6})
        assert transaction.seen_collateral()["a"] == 6
