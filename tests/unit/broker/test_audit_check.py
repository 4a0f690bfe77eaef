# SPDX-License-Identifier: Apache-2.0
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.broker.audit_check import check_chains, check_store
from imagers.broker.audit_heads import AuditHeads, Head, parse_heads
from imagers.broker.keeping.database import StoreFailed
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import AUDIT_TEXTS
from imagers.broker.keeping.transaction import FIRST_HASH, Link, chain_hash
from imagers.broker.tokens import make_signing_key
from tests.unit.broker.keeping.conftest import unsealed


def chain(count, broker="broker", texts=None):
    """Rows and their hashes, as a broker writes them."""
    found, before = [], FIRST_HASH
    for number in range(1, count + 1):
        told = (
            dict.fromkeys(AUDIT_TEXTS, "") | {"detail": f"{number}"} | (texts or {}).get(number, {})
        )
        row = {"broker": broker, "number": number, "place": number, **told}
        before = chain_hash(before, row)
        found.append((row, before))
    return found


def made_anew(rows):
    """The hashes of somebody who changes rows and knows how chains are made."""
    found, before = [], FIRST_HASH
    for number, (row, _) in enumerate(rows, 1):
        anew = row | {"number": number}
        before = chain_hash(before, anew)
        found.append((anew, before))
    return found


def heads(rows, *numbers):
    return [
        Head(Link(row["broker"], row["number"], hashed), "2026-11-01T12:00:00+00:00")
        for row, hashed in rows
        if row["number"] in numbers
    ]


def problems(rows, given=()):
    return list(check_chains(rows, given).problems)


def test_rows_as_they_were_written_are_whole():
    rows = chain(9) + chain(3, "other")
    report = check_chains(rows, heads(rows, 2, 7))
    assert (report.rows, report.signed, list(report.problems)) == (
        12,
        9,
        [],
    )  # 7 of one, 2 of other
    assert check_chains([], []).problems == []


def test_row_that_was_changed_is_told():
    rows = chain(5)
    rows[2] = (rows[2][0] | {"path": "a/b/c"}, rows[2][1])
    (told,) = problems(rows)
    assert told.startswith("broker: row 3 does not follow from the one before")


def test_rows_that_were_dropped_are_told():
    rows = chain(6)
    assert problems(rows[:1] + rows[3:]) == ["broker: rows 2 to 3 are missing"]
    assert problems(rows[:4] + rows[5:]) == ["broker: row 5 is missing"]
    assert problems(rows[1:]) == ["broker: row 1 is missing"]


def test_row_that_was_put_in_is_told():
    rows = chain(4)
    twice = [*rows[:2], (rows[1][0] | {"detail": "x"}, rows[1][1]), *rows[2:]]
    assert problems(twice) == ["broker: row 2 is there twice: one was put in"]


def test_head_of_a_row_that_is_missing_between_others_is_no_end():
    rows = chain(6)
    told = problems(rows[:2] + rows[3:], heads(rows, 3))
    assert told == ["broker: row 3 is missing"]


def test_rows_that_were_dropped_at_the_end_are_told_by_a_head_alone():
    rows = chain(6)
    assert problems(rows[:4]) == []
    (told,) = problems(rows[:4], heads(rows, 6))
    assert told.startswith(
        "broker: rows 5 to 6 are missing at the end; the head of row 6 was signed"
    )


def test_chain_that_was_dropped_is_told_by_a_head_alone():
    rows, other = chain(3), chain(2, "other")
    assert problems(rows) == []
    (told,) = problems(rows, heads(other, 2))
    assert told.startswith("other: rows 1 to 2 are missing at the end")


def test_chain_that_was_made_anew_is_told_by_a_head_alone_and_between_which_rows():
    rows = chain(9)
    changed = list(rows)
    changed[4] = (rows[4][0] | {"outcome": "ok"}, b"")
    changed = made_anew(changed)
    assert problems(changed) == []
    assert problems(changed, heads(rows, 4)) == []  # what is after a head, nobody has signed
    (told,) = problems(changed, heads(rows, 3, 7))
    assert told.startswith("broker: rows 4 to 7 are not all what they were when the head of row 7")


@given(
    st.integers(1, 12),
    st.data(),
)
def test_no_change_before_a_head_is_left_untold(count, data):
    """However rows are changed, dropped, put in or moved, and the chain made anew."""
    rows = chain(count)
    at = data.draw(st.integers(1, count))
    changed = list(rows)
    kind = data.draw(st.sampled_from(["change", "drop", "put in", "swap", "other broker"]))
    index = data.draw(st.integers(0, at - 1))
    if kind == "change":
        name = data.draw(st.sampled_from(AUDIT_TEXTS))
        changed[index] = (rows[index][0] | {name: rows[index][0][name] + "x"}, b"")
    elif kind == "drop":
        del changed[index]
    elif kind == "put in":
        changed.insert(index, (rows[index][0] | {"detail": "new"}, b""))
    elif kind == "swap":
        if at < 2:
            return
        index = max(index, 1)
        changed[index - 1], changed[index] = changed[index], changed[index - 1]
    else:
        changed = [(row | {"broker": "b2"}, hashed) for row, hashed in rows]
    assert problems(made_anew(changed), heads(rows, at))


@pytest.mark.parametrize(
    "damage",
    [{"number": "x"}, {"number": 1.5}, {"path": None}, {"detail": b"x"}],
    ids=["text for a number", "no whole number", "nothing for text", "bytes for text"],
)
def test_row_with_values_of_another_kind_is_told(damage):
    rows = chain(3)
    rows[1] = (rows[1][0] | damage, rows[1][1])
    assert "broker: a row after row 1 is damaged" in problems(rows)
    rows = chain(3)
    rows[1] = (rows[1][0], "no bytes")
    assert "broker: a row after row 1 is damaged" in problems(rows)


def test_row_that_is_shown_elsewhere_than_it_was_written_is_told():
    rows = chain(4)
    rows[1] = (rows[1][0] | {"place": 9}, rows[1][1])
    assert problems(rows) == [
        "broker: row 3 is shown before row 2: moved",
        "broker: row 4 is shown before row 3: moved",
    ]
    rows[1] = (rows[1][0] | {"place": 1}, rows[1][1])
    assert problems(rows) == ["broker: row 2 is shown before row 1: moved"]
    rows[1] = (rows[1][0] | {"place": None}, rows[1][1])
    assert problems(rows) == ["broker: row 2 is shown before row 1: moved"]


def test_no_more_problems_are_told_than_one_reads():
    rows = [(row, bytes(32)) for row, _ in chain(300)]
    told = problems(rows)
    assert len(told) == 101
    assert told[-1] == "and 200 more"
    assert len(problems([(row, bytes(32)) for row, _ in chain(100)])) == 100


@pytest.fixture
def path(tmp_path):
    """A store of ten rows, and one head of the fifth."""
    path = tmp_path / "broker.sqlite"
    with unsealed(Store(SQLiteDatabase(path))) as store:
        for number in range(1, 11):
            with store.transaction() as transaction:
                transaction.append_audit(ROW | {"detail": str(number)})
                if number == 5:
                    SIGNER.sign(transaction)
    return path


ROW = dict.fromkeys(AUDIT_TEXTS, "")
SIGNER = AuditHeads(make_signing_key(), clock=lambda: datetime(2026, 11, 1, tzinfo=UTC))


def export(path):
    with unsealed(Store(SQLiteDatabase(path))) as store, store.reading() as transaction:
        return parse_heads(SIGNER.to_bytes(transaction.audit_heads()), what="head")


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for trigger in ("audit_no_update", "audit_no_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def check(path, *exported):
    with closing(SQLiteDatabase(path)) as database:
        return check_store(database, exported)


def test_store_is_compared_with_heads_that_were_kept(path):
    kept = export(path)
    assert (check(path).rows, check(path).signed, check(path).problems) == (10, 0, [])
    assert (check(path, kept).signed, check(path, kept).problems) == (5, [])
    change(path, "DELETE FROM audit WHERE number > 3", "DELETE FROM audit_heads")
    assert check(path).problems == []
    (told,) = check(path, kept).problems
    assert told.startswith("broker: rows 4 to 5 are missing at the end")


def test_heads_in_the_store_say_more_nearly_where(path):
    with unsealed(Store(SQLiteDatabase(path))) as store, store.transaction() as transaction:
        SIGNER.sign(transaction)
    kept = export(path)
    change(path, "UPDATE audit SET detail = 'x' WHERE number = 8")
    assert "row 8 does not follow" in check(path, kept).problems[0]
    with unsealed(Store(SQLiteDatabase(path))) as store, store.reading() as transaction:
        rows = list(transaction.audit_chains())
    anew = made_anew(rows)
    change_hashes = [
        f"UPDATE audit SET hash = x'{hashed.hex()}' WHERE number = {row['number']}"  # noqa: S608
        for row, hashed in anew
    ]
    with closing(sqlite3.connect(path)) as connection:
        for statement in change_hashes:
            connection.execute(statement)
        connection.commit()
    assert check(path).problems == []
    (told,) = check(path, kept).problems
    assert told.startswith("broker: rows 6 to 10 are not all what they were")


def test_head_in_the_store_that_nobody_signed_is_told(path):
    kept = export(path)
    other = AuditHeads(make_signing_key(), clock=lambda: datetime(2026, 11, 1, tzinfo=UTC))
    with unsealed(Store(SQLiteDatabase(path))) as store, store.transaction() as transaction:
        other.sign(transaction)
    (told,) = check(path, kept).problems
    assert "is not signed by a key for heads that is known" in told
    with unsealed(Store(SQLiteDatabase(path))) as store, store.reading() as transaction:
        signed = transaction.all_audit_heads()
    assert len(signed) == 2
    with pytest.raises(Exception, match="is not signed by a key"):
        parse_heads(other.to_bytes(signed), what="head")


def test_rows_that_were_put_in_past_the_constraints_are_told(path):
    columns = ", ".join(("broker", "number", *AUDIT_TEXTS, "hash"))
    change(
        path,
        "CREATE TABLE other AS SELECT * FROM audit",
        "DROP TABLE audit",
        "ALTER TABLE other RENAME TO audit",
        f"INSERT INTO audit (place, {columns}) SELECT 99, {columns} FROM audit WHERE number = 4",  # noqa: S608
    )
    assert check(path).problems == ["broker: row 4 is there twice: one was put in"]


@pytest.mark.parametrize(
    ("broker", "number"), [("'broker'", "-3"), ("'broker'", "NULL"), ("NULL", "3")]
)
def test_row_of_no_chain_that_the_log_shows_is_told(path, broker, number):
    kept = export(path)
    columns = ", ".join((*AUDIT_TEXTS, "hash"))
    change(
        path,
        "CREATE TABLE other AS SELECT * FROM audit",
        "DROP TABLE audit",
        "ALTER TABLE other RENAME TO audit",
        f"INSERT INTO audit (place, broker, number, {columns}) "  # noqa: S608
        f"SELECT -1, {broker}, {number}, {columns} FROM audit WHERE number = 4",
    )
    assert check(path, kept).problems == ["1 row is of no chain, and shown: put in, or changed"]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE audit SET broker = NULL WHERE number = 10")
        connection.commit()
    told = "2 rows are of no chain, and shown: put in, or changed"
    assert check(path, kept).problems[0] == told


class Busy(SQLiteDatabase):
    """A store that another broker writes to while it is read."""

    def words(self, statement):
        if "count(*)" not in statement:  # at first there is no state of it that is read
            return statement
        with closing(sqlite3.connect(self.name)) as connection:
            names = ", ".join(("broker", *AUDIT_TEXTS, "hash"))
            connection.execute(
                f"INSERT INTO audit (number, {names}) "  # noqa: S608
                f"SELECT (SELECT max(number) + 1 FROM audit), {names} FROM audit WHERE number = 1"
            )
            connection.commit()
        return statement


def test_row_that_is_written_meanwhile_is_none_of_those_that_are_checked(path):
    report = check_store(Busy(path), [])
    assert (report.rows, report.problems) == (10, [])
    assert check(path).rows > 10


@pytest.mark.parametrize(
    ("signed", "told"),
    [
        ("NULL", "is no text"),
        ("5", "is no text"),
        ("x'ff'", "is no text"),
        ("'a.b'", "head of an audit log: expected a JWT"),
    ],
)
def test_what_is_no_head_in_the_store_is_told(path, signed, told):
    kept = export(path)
    with_heads(path, f"SELECT 'broker', 1, {signed}")
    (problem,) = check(path, kept).problems
    assert problem.startswith(f"a head in the store: {told}")


def with_heads(path, rows):
    """Put other rows in the place of the heads of a store."""
    change(
        path,
        "DROP TABLE audit_heads",
        "CREATE TABLE audit_heads (broker, number, signed)",
        f"INSERT INTO audit_heads {rows}",
    )


def test_no_more_problems_of_a_store_are_told_than_one_reads(path):
    kept = export(path)
    with_heads(path, "SELECT 'broker', one.number, 5 FROM audit AS one, audit, audit AS more")
    assert len(check(path, kept).problems) == 101


def test_heads_of_two_brokers_are_each_of_the_key_that_signed_them(path):
    other = AuditHeads(make_signing_key(), clock=lambda: datetime(2026, 11, 1, tzinfo=UTC))
    one = export(path)
    with unsealed(Store(SQLiteDatabase(path))) as store, store.transaction() as transaction:
        other.sign(transaction)
        (*_, signed) = transaction.audit_heads()
    two = parse_heads(other.to_bytes([signed]), what="head")
    for kept in ([one, two], [two, one]):
        report = check(path, *kept)
        assert (report.signed, report.problems) == (10, [])


def test_file_that_is_no_store_is_told(tmp_path):
    path = tmp_path / "broker.sqlite"
    path.write_bytes(b"x" * 5000)
    path.chmod(0o600)
    with pytest.raises(
        StoreFailed, match=r"broker\.sqlite: the store cannot be read: file is not a database"
    ):
        check(path)
