# SPDX-License-Identifier: Apache-2.0
import asyncio
import sqlite3
import threading

import pytest

from imagers.broker.keeping.database import StoreFailed, Taken
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import AUDIT_TEXTS
from imagers.broker.keeping.transaction import chain_hash
from tests.unit.broker.keeping.conftest import unsealed

ROW = dict.fromkeys(AUDIT_TEXTS, "x")


class Counting:
    """A database that counts transactions that write, and can be told to wait with them."""

    def __init__(self, database):
        self._database = database
        self.writes = []
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name):
        return getattr(self._database, name)

    @property
    def waits(self):  # for the gate, not in the event loop
        return not self.gate.is_set() or self._database.waits

    def begin_writing(self, *, alone, patient):
        assert self.gate.wait(10)
        self.writes.append(alone)
        return self._database.begin_writing(alone=alone, patient=patient)


@pytest.fixture
def database(new_database):
    return Counting(new_database())


@pytest.fixture
def store(database):
    with unsealed(Store(database)) as opened:
        database.writes.clear()
        yield opened


def setting(name, value=b"1"):
    return lambda transaction: transaction.set_setting(name, value)


def get(store, name):
    with store.reading() as transaction:
        return transaction.get_setting(name)


def broken(transaction):
    transaction.set_setting("broken", b"1")
    raise ZeroDivisionError


def test_what_waits_is_written_together(store, database):
    async def run():
        database.gate.clear()
        first = asyncio.ensure_future(store.write(setting("first")))
        await asyncio.sleep(0)
        rest = [asyncio.ensure_future(store.write(setting(str(n)))) for n in range(40)]
        await asyncio.sleep(0)
        database.gate.set()
        await asyncio.gather(first, *rest)

    asyncio.run(run())
    assert len(database.writes) <= 3  # the first alone, or with some of the others
    assert get(store, "39") == b"1"


def test_part_that_fails_is_undone_alone(store):
    async def run():
        return await asyncio.gather(
            store.write(setting("a")),
            store.write(broken),
            store.write(setting("b")),
            return_exceptions=True,
        )

    results = asyncio.run(run())
    assert [type(one) for one in results] == [type(None), ZeroDivisionError, type(None)]
    assert (get(store, "a"), get(store, "broken"), get(store, "b")) == (b"1", None, b"1")


def test_row_that_must_be_the_only_one_fails_alone(store):
    def insert(transaction):
        transaction._run("INSERT INTO brokers (name, seen_ms) VALUES ('broker', 1)")

    async def run():
        return await asyncio.gather(
            store.write(setting("a")), store.write(insert), return_exceptions=True
        )

    _, taken = asyncio.run(run())
    assert isinstance(taken, Taken)
    assert get(store, "a") == b"1"


def test_statement_that_fails_fails_alone(store, database):
    def bad(transaction):
        transaction.set_setting("bad", b"1")
        transaction._run("SELECT 1 FROM nowhere")

    async def run():
        database.gate.clear()
        waiting = [
            asyncio.ensure_future(store.write(work)) for work in (bad, setting("a"), setting("b"))
        ]
        await asyncio.sleep(0)
        database.gate.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    results = asyncio.run(run())
    assert isinstance(results[0], StoreFailed)
    assert "nowhere" in str(results[0])
    assert results[1:] == [None, None]
    assert [get(store, name) for name in ("bad", "a", "b")] == [None, b"1", b"1"]


def test_database_that_fails_fails_all_of_the_transaction_and_is_over_with_it(store, database):
    def lose(transaction):
        transaction._run("ROLLBACK")  # as a database does that can go on with nothing

    async def run():
        database.gate.clear()
        waiting = [
            asyncio.ensure_future(store.write(work)) for work in (setting("a"), lose, setting("b"))
        ]
        await asyncio.sleep(0)
        database.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await store.write(setting("c"))
        return results

    assert {type(one) for one in asyncio.run(run())} == {StoreFailed}
    assert [get(store, name) for name in "abc"] == [None, None, b"1"]


def test_store_that_was_closed_takes_nothing_and_closes_again(new_database):
    store = Store(new_database())
    store.close()
    store.close()
    with pytest.raises(StoreFailed, match="closed"):
        asyncio.run(store.write(setting("a")))


def test_change_is_alone_and_counted(store, database):
    def changes():
        with store.reading() as transaction:
            return transaction.store_row().changes

    async def run():
        await asyncio.gather(
            store.write(setting("a")), store.change(setting("b")), store.write(setting("c"))
        )

    before = changes()
    asyncio.run(run())
    assert database.writes.count(True) == 1
    assert changes() == before + 1
    with store.transaction():
        pass
    assert changes() == before + 2


def test_who_gave_up_waiting_disturbs_nobody(store, database):
    async def run():
        database.gate.clear()
        gone = asyncio.ensure_future(store.write(setting("gone")))
        stays = asyncio.ensure_future(store.write(setting("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        database.gate.set()
        await stays

    asyncio.run(run())
    assert (get(store, "gone"), get(store, "stays")) == (b"1", b"1")


def test_closing_writes_what_waits(new_database):
    database = Counting(new_database())
    store = Store(database)

    async def run():
        database.gate.clear()
        waiting = [asyncio.ensure_future(store.write(setting(str(n)))) for n in range(3)]
        await asyncio.sleep(0)
        database.gate.set()
        await asyncio.to_thread(store.close)
        await asyncio.gather(*waiting)

    asyncio.run(run())
    with Store(new_database()) as again:
        assert get(again, "2") == b"1"


def test_audit_rows_are_a_chain_from_whichever_thread_they_come(store):
    async def run():
        rows = [store.write(lambda t: t.append_audit(ROW)) for _ in range(20)]
        await asyncio.gather(*rows, store.change(lambda t: t.append_audit(ROW)))

    threads = [threading.Thread(target=lambda: asyncio.run(run())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as transaction:
        found = list(transaction.audit_chains())
    assert [row["number"] for row, _ in found] == list(range(1, 64))
    before = bytes(32)
    for row, hashed in found:
        assert hashed == chain_hash(before, row)
        before = hashed


def test_row_that_was_undone_leaves_no_gap_in_the_chain(store):
    def row_then_fail(transaction):
        transaction.append_audit(ROW)
        raise ZeroDivisionError

    async def run():
        await asyncio.gather(
            store.write(lambda t: t.append_audit(ROW)),
            store.write(row_then_fail),
            store.write(lambda t: t.append_audit(ROW)),
            return_exceptions=True,
        )

    asyncio.run(run())
    with store.reading() as transaction:
        assert [row["number"] for row, _ in transaction.audit_chains()] == [1, 2]


def test_chain_hash_is_what_its_definition_says():
    row = {"broker": "b", "number": 1} | dict.fromkeys(AUDIT_TEXTS, "\u00e9")
    import hashlib
    import json

    text = json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()
    assert chain_hash(b"\1" * 32, row) == hashlib.sha256(b"\1" * 32 + text).digest()
    assert chain_hash(b"\2" * 32, row) != chain_hash(b"\1" * 32, row)


def test_other_process_that_writes_is_waited_for_and_not_in_the_event_loop(tmp_path):
    path = tmp_path / "broker.sqlite"
    with Store(SQLiteDatabase(path)) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def run():
            writing = asyncio.ensure_future(store.write(setting("a")))
            for _ in range(20):  # the loop goes on
                await asyncio.sleep(0.01)
            assert not writing.done()
            other.execute("COMMIT")
            await writing

        asyncio.run(run())
        assert get(store, "a") == b"1"
        other.close()


def test_looks_that_take_their_time_leave_threads_to_others(store):
    go_on = threading.Event()

    async def run():
        looks = [
            asyncio.ensure_future(store.read_aside(lambda _: go_on.wait(20))) for _ in range(64)
        ]
        await asyncio.sleep(0)  # all of them have begun
        try:
            assert await asyncio.wait_for(asyncio.to_thread(int), 10) == 0
        finally:
            go_on.set()
        assert await asyncio.gather(*looks) == [True] * 64

    asyncio.run(run())
