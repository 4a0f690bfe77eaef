# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import os
import secrets
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from imagers.broker.config import BrokerConfig
from imagers.broker.keeping import postgresql
from imagers.broker.keeping.database import StoreFailed
from imagers.broker.keeping.postgresql import PostgreSQLDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import AUDIT_TEXTS
from imagers.broker.start import open_state
from imagers.errors import FormatError, LocalError, UsageError
from imagers.kbs.admin import load_admin_key
from imagers.pki.jose import sign_token
from tests.postgresql import Server
from tests.unit.broker.keeping.conftest import unsealed

ROW = dict.fromkeys(AUDIT_TEXTS, "x")


@pytest.fixture
def url(server):
    return server.new_database(f"t{secrets.token_hex(8)}")


@pytest.fixture
def own_server():
    """One that the test may make fall."""
    running = Server()
    yield running
    running.stop()


def row_of(store):
    with store.reading() as transaction:
        return transaction.store_row()


def rows(store):
    with store.reading() as transaction:
        return [(row["broker"], row["number"]) for row, _ in transaction.audit_chains()]


def test_two_brokers_share_what_they_keep_and_each_has_a_chain(url):
    with (
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a")) as one,
        unsealed(Store(PostgreSQLDatabase(url, "b"), "b")) as other,
    ):
        with one.transaction() as transaction:
            transaction.set_setting("x", b"1")
        with other.reading() as transaction:
            assert transaction.get_setting("x") == b"1"

        async def run():
            await asyncio.gather(
                *(store.write(lambda t: t.append_audit(ROW)) for store in (one, other) * 20)
            )

        asyncio.run(run())
        kept = rows(one)
    for name in ("a", "b"):
        assert [number for broker, number in kept if broker == name] == list(range(1, 21))


def test_time_is_the_highest_of_all_brokers(url):
    with (
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a")) as one,
        unsealed(Store(PostgreSQLDatabase(url, "b"), "b")) as other,
    ):
        for store, now_ms in ((one, 5), (other, 9), (one, 7)):
            with store.transaction() as transaction:
                transaction.keep_time(now_ms)
        assert (row_of(one).seen_ms, row_of(other).seen_ms) == (9, 9)


def test_change_of_one_broker_waits_for_the_writes_of_the_other_and_is_seen_by_it(url):
    with (
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a")) as one,
        unsealed(Store(PostgreSQLDatabase(url, "b"), "b")) as other,
    ):
        order = []

        async def run():
            def write(transaction):
                order.append(("write", transaction.store_row().changes))
                asyncio.run_coroutine_threadsafe(change_begins(), loop).result(10)
                order.append(("written", transaction.store_row().changes))

            async def change_begins():
                nonlocal changing
                changing = asyncio.ensure_future(
                    other.change(lambda _: order.append(("change", None)))
                )
                await asyncio.sleep(0.2)  # enough for it to come before, if it could

            loop, changing = asyncio.get_running_loop(), None
            await one.write(write)
            await changing

        before = row_of(one).changes
        asyncio.run(run())
        assert order == [("write", before), ("written", before), ("change", None)]
        assert row_of(one).changes == before + 1


def test_name_of_a_broker_that_runs_is_taken(url):
    with (
        Store(PostgreSQLDatabase(url, "a"), "a"),
        pytest.raises(LocalError, match="another broker named 'a'") as caught,
    ):
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a"))
    assert "--name" in caught.value.hint
    unsealed(Store(PostgreSQLDatabase(url, "a"), "a")).close()


def test_audit_rows_cannot_be_changed_deleted_or_emptied_even_past_us(url):
    with (
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a")) as store,
        store.transaction() as transaction,
    ):
        transaction.append_audit(ROW)
    for statement in ("DELETE FROM audit", "UPDATE audit SET outcome = 'x'", "TRUNCATE audit"):
        with (
            psycopg.connect(url, options="-c search_path=imagers") as connection,
            pytest.raises(psycopg.errors.RaiseException, match="only grows"),
        ):
            connection.execute(statement)


def test_url_with_a_password_refused_and_not_repeated():
    with pytest.raises(UsageError, match="without a password") as caught:
        PostgreSQLDatabase("postgresql://imagers:geheim@127.0.0.1/x", "a")
    assert "geheim" not in f"{caught.value}{caught.value.hint}"
    assert "pgpass" in caught.value.hint


@pytest.mark.parametrize("url", ["what is this", "mysql://me:hunter2@db/x"])
def test_text_that_is_no_url_refused_without_its_password(url):
    with pytest.raises(FormatError, match="expected postgresql://") as caught:
        PostgreSQLDatabase(url, "a")
    assert "hunter2" not in str(caught.value)


def test_server_that_is_not_there_is_told():
    with pytest.raises(StoreFailed, match="onnection"):
        Store(PostgreSQLDatabase("postgresql://imagers@127.0.0.1:1/x", "a"), "a")


def test_server_that_would_lose_what_it_kept_refused(url):
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(LocalError, match="synchronous_commit = off"):
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a"))


def test_store_of_another_version_refused(url):
    unsealed(Store(PostgreSQLDatabase(url, "a"), "a")).close()
    with psycopg.connect(url, options="-c search_path=imagers") as connection:
        connection.execute("UPDATE settings SET value = '9' WHERE name = 'schema'")
    with pytest.raises(LocalError, match="expected a store of version 4, got 9"):
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a"))


def test_brokers_of_one_store_have_its_admins_and_the_second_makes_no_key(url, tmp_path):
    configs = [
        BrokerConfig(state_directory=tmp_path / name, database=url, name=name) for name in "ab"
    ]
    with open_state(configs[0]) as one:
        assert one.admin_key_made is not None
        (tmp_path / "b").mkdir(mode=0o700)
        copied = tmp_path / "b" / "master.key"
        copied.write_bytes(configs[0].master_key_file.read_bytes())
        copied.chmod(0o600)
        with open_state(configs[1]) as other:
            assert (other.admin_key_made, other.master_key_made) == (None, None)
            assert not list((tmp_path / "b").glob("admin.*"))
            key = load_admin_key(configs[0].admin_key_file)
            now = int(datetime.now(UTC).timestamp())
            token = sign_token({"iat": now, "exp": now + 60, "role": "admin"}, key=key)
            assert asyncio.run(other.admin_of(token)).name == "admin"


def test_server_that_falls_loses_no_accepted_write_and_is_used_again_when_it_is_back(own_server):
    url = own_server.new_database("x")
    with unsealed(Store(PostgreSQLDatabase(url, "a"), "a")) as store:
        with store.reading():  # two connections are held
            row_of(store)

        async def write(value):
            await store.write(lambda t: t.set_setting("x", value))

        asyncio.run(write(b"1"))
        own_server.fall()
        with pytest.raises(StoreFailed):
            asyncio.run(write(b"2"))
        with pytest.raises(StoreFailed):
            row_of(store)
        own_server.start()
        with store.reading() as transaction:
            assert transaction.get_setting("x") == b"1"
        asyncio.run(write(b"3"))
        # It has lost which nonces are taken, and the store knows.
        assert not row_of(store).has_sessions


def test_write_sees_the_change_that_it_waited_for_whatever_the_database_isolates_by(url):
    """Else a release would be confirmed by rules that are in force no more."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = url.rpartition("/")[2]
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
        )
    with (
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a")) as one,
        unsealed(Store(PostgreSQLDatabase(url, "b"), "b")) as other,
        psycopg.connect(url, autocommit=True) as looks,
    ):
        before = row_of(one).changes

        def wait_until_it_waits():
            while looks.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ).fetchone() != (1,):
                pass

        async def run():
            loop = asyncio.get_running_loop()
            with other.transaction():
                written = loop.create_task(_changes(one))
                await asyncio.sleep(0)
                await asyncio.to_thread(wait_until_it_waits)
            return await written

        assert asyncio.run(run()) == before + 1


async def _changes(store):
    return await store.write(lambda t: t.store_row().changes)


def test_writes_of_two_brokers_that_cross_are_both_kept(url):
    with (
        unsealed(Store(PostgreSQLDatabase(url, "a"), "a")) as one,
        unsealed(Store(PostgreSQLDatabase(url, "b"), "b")) as other,
    ):
        both = threading.Barrier(2)

        async def write(store, first, second):
            def begin(transaction):
                transaction.keep_collateral({first: 1})
                with contextlib.suppress(threading.BrokenBarrierError):  # when it is tried again
                    both.wait(5)
                both.abort()

            def end(transaction):
                transaction.keep_collateral({second: 2})

            await asyncio.gather(store.write(begin), store.write(end))

        async def run():
            await asyncio.gather(write(one, "x", "y"), write(other, "y", "x"))

        asyncio.run(run())
        with one.reading() as transaction:
            assert transaction.seen_collateral() == {"x": 2, "y": 2}


def test_server_that_does_not_answer_is_given_up_and_used_again(own_server, monkeypatch):
    monkeypatch.setattr(postgresql, "_GIVE_UP_S", 0.5)
    monkeypatch.setitem(postgresql._CONNECTION, "connect_timeout", "2")
    main = own_server.process.pid
    with unsealed(Store(PostgreSQLDatabase(own_server.new_database("x"), "a"), "a")) as store:
        before = row_of(store)  # a connection is held
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        stopped = [main, *map(int, children)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreFailed):
                row_of(store)
            with pytest.raises(StoreFailed):
                asyncio.run(_changes(store))
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert row_of(store) == before
        assert asyncio.run(_changes(store)) == before.changes


def test_server_ends_what_a_broker_had_whose_machine_is_gone(url):
    with PostgreSQLDatabase(url, "a").connect(writes=True) as connection:
        for name, value in (("idle", "5"), ("interval", "2"), ("count", "3")):
            assert connection.execute(f"SHOW tcp_keepalives_{name}").fetchone() == (value,)
