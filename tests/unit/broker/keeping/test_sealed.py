# SPDX-License-Identifier: Apache-2.0
"""What somebody who writes the database, and has no key, can make a broker believe: nothing."""

import ast
import asyncio
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import imagers.broker
from imagers.broker.keeping.database import StoreFailed, Taken
from imagers.broker.keeping.head import Seen, shown
from imagers.broker.keeping.rows import Admin, Approval, FormerResource, StoredResource
from imagers.broker.keeping.sealed import Altered
from imagers.broker.keeping.store import Older, Store
from imagers.broker.keeping.tables import DEFAULT_TENANT, LASTING, SEALED
from imagers.broker.sealing import Sealer
from imagers.kbs.resources import ResourcePath
from imagers.model.digest import digest_of
from imagers.model.references import ReferenceValue
from tests.unit.broker.keeping.conftest import unsealed

PATH = ResourcePath("default", "key", "1")
OTHER = ResourcePath("default", "key", "2")
IMAGE = digest_of(b"image")
VALUE = ReferenceValue("code", ("v1",))
ADMIN = Admin(
    id="id", tenant="other", name="alice", roles=frozenset({"auditor"}), public_key=b"key"
)
NAMES = ("store", "seals", "buckets", *SEALED)


def fill(store):
    with store.transaction() as transaction:
        for path in (PATH, OTHER):
            version = transaction.next_version(path)
            row = StoredResource(path, b"sealed", 6, version, "2026-11-01T00:00:00+00:00")
            transaction.insert_resource(row)
        transaction.set_former(FormerResource(row, frozenset()))
        transaction.add_binding(PATH, IMAGE, by="", at="")
        transaction.set_approval("default", IMAGE, Approval("ann", 5, b"signature"))
        transaction.set_floor("default", 1)
        transaction.set_reference_value(DEFAULT_TENANT, VALUE)
        transaction.insert_tenant("other")
        transaction.set_owner("theirs", "other")
        transaction.insert_admin(ADMIN)
        transaction.set_policy("other", "policy", b"{}")


def look(transaction):
    """All that `fill` wrote."""
    return (
        transaction.list_resources(DEFAULT_TENANT),
        transaction.find_resource(PATH),
        transaction.bindings(PATH),
        transaction.find_resource(OTHER),
        transaction.bindings(OTHER),
        transaction.former_resources(OTHER),
        transaction.list_images("default"),
        transaction.approvals("default"),
        transaction.floors(),
        transaction.reference_values(DEFAULT_TENANT),
        transaction.tenants(),
        transaction.owner_of("default"),
        transaction.owner_of("theirs"),
        transaction.find_admin(ADMIN.id),
        transaction.admins("other"),
        transaction.get_policy("other", "policy"),
    )


@pytest.fixture
def filled(store):
    fill(store)
    return store


@pytest.fixture
def outside(new_database):
    """The database, for somebody who has no key."""

    class Outside:
        def run(self, *statements, **given):
            database = new_database("outside")
            with closing(database.connect(writes=True)) as connection:
                found = [connection.execute(database.words(one), given) for one in statements]
                return found[-1].fetchall() if statements[-1].startswith("SELECT") else None

        def copy(self):
            return {name: self.run(f"SELECT * FROM {name}") for name in NAMES}  # noqa: S608 - ours

        def put_back(self, copy, *names):
            for name in names or NAMES:
                self.run(f"DELETE FROM {name}")  # noqa: S608 - ours
                for row in copy[name]:
                    given = {f"c{number}": value for number, value in enumerate(row)}
                    values = ", ".join(f":{one}" for one in given)
                    self.run(f"INSERT INTO {name} VALUES ({values})", **given)  # noqa: S608 - ours

    return Outside()


ALTERATIONS = {
    "a binding is added": (
        "INSERT INTO bindings SELECT 'default/key/2', manifest_digest FROM bindings",
        "no broker made the row",
    ),
    "a binding is removed": ("DELETE FROM bindings", "is missing"),
    "a resource is removed": ("DELETE FROM resources WHERE path = 'default/key/1'", "is missing"),
    "a resource is another's": (
        "UPDATE resources SET created_at = '2000' WHERE path = 'default/key/2'",
        "not what a broker made",
    ),
    "a version is another": ("UPDATE resources SET version = 7", "not what a broker made"),
    "a reference value is another": ("UPDATE reference_values SET value = ''", "not what a broker"),
    "a reference value is removed": ("DELETE FROM reference_values", "is missing"),
    "a name is another": (
        "UPDATE resources SET path = 'default/key/3' WHERE path = 'default/key/2'",
        "is missing",
    ),
    "a policy is another": ("UPDATE policies SET value = ''", "not what a broker made"),
    "a policy is another tenant's": (
        "UPDATE policies SET tenant = 'default' WHERE tenant = 'other'",
        "is missing",
    ),
    "an admin has another role": ("UPDATE admins SET roles = 'owner'", "not what a broker made"),
    "an admin is added": (
        "INSERT INTO admins SELECT 'x', tenant, 'x', roles, public_key FROM admins",
        "no broker made the row",
    ),
    "a repository is another's": ("UPDATE repositories SET tenant = 'mine'", "not what a broker"),
    "a repository is nobody's": ("DELETE FROM repositories", "is missing"),
    "a repository is somebody's": (
        "INSERT INTO repositories VALUES ('default', 'other')",
        "no broker made the row",
    ),
    "a tenant is there again": (
        "INSERT INTO tenants VALUES ('gone', 0)",
        "no broker made the row",
    ),
    "the number is lower": ("UPDATE store SET changes = 1", "old copy"),
    "the number is higher": ("UPDATE store SET changes = changes + 1", "none of the brokers'"),
    "the head is another": ("UPDATE store SET head = id", "has another head"),
    "there is no head": ("UPDATE store SET head = NULL", "has no head"),
}


@pytest.mark.parametrize(("statement", "told"), ALTERATIONS.values(), ids=ALTERATIONS)
def test_what_is_changed_from_outside_is_seen_and_said(filled, outside, statement, told):
    with filled.reading() as transaction:
        before = look(transaction)
    outside.run(statement)
    with pytest.raises(Altered, match=told) as caught, filled.reading() as transaction:
        look(transaction)
    assert "docs/broker.md" in caught.value.hint
    assert "docs/broker.md" in filled.fault.hint
    assert caught.value.path
    assert before[1] is not None


@pytest.mark.parametrize(("statement", "told"), ALTERATIONS.values(), ids=ALTERATIONS)
def test_what_is_changed_from_outside_is_not_believed_after_another_change(
    filled, outside, statement, told
):
    """A change blesses what it wrote, and nothing else."""
    outside.run(statement)

    def change(transaction):
        transaction.next_version(ResourcePath("a", "b", "c"))

    try:
        asyncio.run(filled.change(change))
    except Altered:
        pass
    else:
        assert told not in ("old copy", "has another head", "has no head")
    with pytest.raises(Altered), filled.reading() as transaction:
        look(transaction)


ROLLED_BACK = [*SEALED, ("resources", "versions"), ("seals", "buckets"), tuple(NAMES[1:])]


@pytest.mark.parametrize("names", ROLLED_BACK, ids=str)
def test_old_rows_that_are_put_back_are_not_believed(store, outside, names):
    names = (names,) if isinstance(names, str) else names
    fill(store)
    copy = outside.copy()
    with store.transaction() as transaction:
        for path in (PATH, OTHER):
            transaction.delete_resource(path)
            version = transaction.next_version(path)
            row = StoredResource(path, b"new", 3, version, "2026-11-02T00:00:00+00:00")
            transaction.insert_resource(row)
        image = transaction.find_image("default", IMAGE)
        transaction.set_image(replace(image, state="revoked", reason="why"))
        transaction.set_approval("default", IMAGE, Approval("ann", 4, b"another"))
        transaction.set_floor("default", 2)
        transaction.set_reference_value(DEFAULT_TENANT, ReferenceValue("code", ("v2",)))
        transaction.delete_tenant("other")
    with store.reading() as transaction:
        wanted = look(transaction)
    outside.put_back(copy, *names)
    if names == ("seals", "buckets"):  # they are not looked at again while it runs
        with store.reading() as transaction:
            assert look(transaction) == wanted
        return

    def look_at_all(transaction):
        look(transaction)
        for path in (PATH, OTHER):
            transaction.next_version(path)

    with pytest.raises(Altered):
        asyncio.run(store.change(look_at_all))


def test_whole_old_database_is_not_believed_while_a_broker_runs(store, outside):
    fill(store)
    copy = outside.copy()
    with store.transaction() as transaction:
        transaction.delete_reference_value(DEFAULT_TENANT, "code")
    outside.put_back(copy)
    for block in (store.reading, store.transaction):
        with pytest.raises(Altered, match="old copy"), block() as transaction:
            transaction.store_row()
    with pytest.raises(Altered, match="old copy"):
        asyncio.run(store.write(lambda transaction: transaction.store_row()))
    with pytest.raises(Altered, match="old copy"):
        asyncio.run(store.change(lambda _: None))


@pytest.fixture
def again(store, new_database):  # noqa: ARG001 - it is made
    """Another broker of the same store, or the same one after another start."""

    def start(name="again", **more):
        opened = Store(new_database(name), name)
        try:
            return unsealed(opened, **more)
        except BaseException:
            opened.close()
            raise

    return start


def test_other_change_of_the_same_number_is_not_believed(filled, outside, again):
    """Two brokers that were led to two histories do not follow each other."""
    copy = outside.copy()
    with filled.transaction() as transaction:
        transaction.delete_reference_value(DEFAULT_TENANT, "code")
    outside.put_back(copy)
    again().close()  # its start is a change
    with pytest.raises(Altered, match="has another head"), filled.reading() as transaction:
        look(transaction)


def test_start_believes_what_is_as_the_brokers_made_it(filled, again):
    with filled.reading() as transaction:
        wanted = look(transaction)
        number = transaction.store_row().changes
    with again(seen=Seen(number)) as other, other.reading() as transaction:
        assert look(transaction) == wanted
        assert transaction.store_row().changes == number + 1


AT_THE_START = {
    "a seal is added": (
        """INSERT INTO seals SELECT bucket, '["bindings","x","y"]', digest FROM seals LIMIT 1""",
        "not those of its head",
    ),
    "a seal is removed": ("DELETE FROM seals", "not those of its head"),
    "a seal is none": ("UPDATE seals SET name = '{'", "a seal that is none"),
    "a bucket is removed": ("DELETE FROM buckets", "none of the brokers'"),
    "a bucket is too many": ("INSERT INTO buckets VALUES (256, '')", "none of the brokers'"),
    "the number is higher": ("UPDATE store SET changes = changes + 1", "none of the brokers'"),
    "the head is another": ("UPDATE store SET head = id", "none of the brokers'"),
}


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(("statement", "told"), AT_THE_START.values(), ids=AT_THE_START)
def test_start_with_a_head_that_no_broker_made_refused(again, outside, statement, told):
    outside.run(statement)
    with pytest.raises(Altered, match=told):
        again()


@pytest.mark.usefixtures("filled")
def test_start_with_rows_that_no_broker_made_does_not_bless_them(again, outside):
    outside.run("DELETE FROM bindings")
    with again() as other, pytest.raises(Altered), other.reading() as transaction:
        look(transaction)


@pytest.mark.usefixtures("filled")
def test_start_with_a_head_of_another_master_key_refused(new_database):
    with (
        Store(new_database("again"), "again") as other,
        pytest.raises(StoreFailed, match="sealed with the master key") as caught,
    ):
        other.unseal(Sealer([bytearray(b"x" * 32)]))
    assert "bring back the master key" in caught.value.hint


def test_start_with_an_older_state_refused_unless_it_is_accepted(filled, again):
    with filled.reading() as transaction:
        number = transaction.store_row().changes
    with pytest.raises(Older, match=f"expected change {number + 5} or later, got {number}"):
        again(seen=Seen(number + 5))
    kept = []
    keep = lambda seen: kept.append(seen.number)  # noqa: E731
    with again(seen=Seen(number + 5), accept_older=True, keep=keep) as other:
        with other.reading() as transaction:
            assert transaction.store_row().changes == number + 6
        assert kept == [number + 6]
    # No number is ever given to two states.
    again(seen=Seen(number + 6)).close()


def test_rows_that_stay_for_ever_are_seen_and_put_into_an_older_state(
    store, again, outside, monkeypatch
):
    monkeypatch.setitem(LASTING, "tenants", ("gone", 1))
    fill(store)
    copy, kept = outside.copy(), []
    with again(keep=kept.append) as other:
        with other.transaction() as transaction:
            transaction.delete_tenant("other")
        assert kept[-1].lasting == (("tenants", "other", 1),)
        with other.transaction():
            pass
        assert kept[-1].lasting == ()  # nothing more than before
    outside.put_back(copy)
    seen = Seen(kept[-1].number, (("tenants", "other", 1), ("tenants", "never", 1)))
    with again(seen=seen, accept_older=True) as other:
        with other.reading() as transaction:
            assert transaction.tenants() == (DEFAULT_TENANT,)
        with pytest.raises(Taken), other.transaction() as transaction:
            transaction.insert_tenant("never")
    no_older = Seen(1, (("tenants", DEFAULT_TENANT, 1),))
    with again(seen=no_older) as other, other.reading() as transaction:
        assert transaction.tenants() == (DEFAULT_TENANT,)


def test_start_without_a_head_refused_where_one_was_seen(again, outside):
    outside.run("UPDATE store SET head = NULL, head_key = NULL", "DELETE FROM seals")
    with pytest.raises(Altered, match="it has no head"):
        again(seen=Seen(1))


@pytest.mark.usefixtures("filled")
def test_rows_without_a_head_are_believed_where_older_stores_are_taken_over_only(
    again, outside, new_database
):
    outside.run("UPDATE store SET head = NULL, head_key = NULL", "DELETE FROM buckets")
    outside.run("DELETE FROM seals")
    if new_database("x").takes_over:
        with again() as other, other.reading() as transaction:
            assert len(look(transaction)[0]) == 2
    else:
        with pytest.raises(Altered, match="it has rows, and no head"):
            again()


def test_change_of_another_broker_is_seen_at_once_and_believed(filled, again):
    with again() as other:
        with other.transaction() as transaction:
            transaction.delete_resource(PATH)
            transaction.set_reference_value(DEFAULT_TENANT, ReferenceValue("code", ("v2",)))
        with filled.reading() as transaction:
            found = look(transaction)
        assert found[0] == (OTHER,)
        assert (found[1], found[2]) == (None, frozenset())
        assert found[9]["code"].values == ("v2",)
        with filled.transaction() as transaction:
            transaction.add_binding(OTHER, IMAGE, by="", at="")
        with other.reading() as transaction:
            assert transaction.bindings(OTHER) == {IMAGE}


def test_numbers_that_are_seen_are_kept_before_the_answer_of_a_change(again):
    kept = []
    with again(keep=lambda seen: kept.append(seen.number)) as one:
        asyncio.run(one.change(lambda _: None))
        with one.reading() as transaction:
            number = transaction.store_row().changes
        assert kept[-1] == number
        with again("other") as other, other.transaction():
            pass
        with one.reading() as transaction:
            look(transaction)
    assert kept[-1] == number + 2
    assert kept == sorted(set(kept))


def test_reader_of_a_state_before_other_changes_sees_it_whole(filled):
    with filled.reading() as transaction:
        wanted = transaction.reference_values(DEFAULT_TENANT), transaction.find_resource(PATH)
        with filled.transaction() as writer:
            writer.delete_reference_value(DEFAULT_TENANT, "code")
            writer.delete_resource(PATH)
        assert (
            transaction.reference_values(DEFAULT_TENANT),
            transaction.find_resource(PATH),
        ) == wanted
        assert transaction.bindings(PATH) == {IMAGE}


def test_reader_of_a_state_that_is_not_held_any_more_verifies_it_again(filled):
    with filled.reading() as transaction:
        transaction.store_row()
        for _ in range(20):
            with filled.transaction() as writer:
                writer.next_version(PATH)
        assert transaction.bindings(PATH) == {IMAGE}


def test_change_that_is_undone_leaves_the_head_as_it_was(filled):
    def delete_and_fail(transaction):
        transaction.delete_resource(PATH)
        assert transaction.find_resource(PATH) is None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(filled.change(delete_and_fail))
    with filled.reading() as transaction:
        assert transaction.find_resource(PATH) is not None


def test_row_that_is_inserted_where_there_is_one_is_refused_by_the_database(filled):
    with pytest.raises(Taken), filled.transaction() as transaction:
        transaction.add_binding(PATH, IMAGE, by="", at="")
    with filled.reading() as transaction:
        assert transaction.bindings(PATH) == {IMAGE}


def test_sealed_table_is_written_by_a_change_alone(filled):
    with pytest.raises(RuntimeError, match="only a change may write"):
        asyncio.run(filled.write(lambda t: t.delete_resource(PATH)))


def test_store_that_was_not_unsealed_gives_nothing(new_database):
    with Store(new_database()) as store:
        with store.reading() as transaction, pytest.raises(RuntimeError, match="not unsealed"):
            transaction.find_resource(PATH)
        with pytest.raises(RuntimeError, match="not unsealed"), store.transaction():
            pass


def test_no_statement_but_those_of_the_sealed_rows_names_a_sealed_table():
    """A row that were read past `SealedRows` would be believed."""
    names = re.compile(rf"(?i)\b(?:FROM|INTO|UPDATE|JOIN)\s+({'|'.join(SEALED)})\b")
    found = []
    makes = {"sqlite.py", "postgresql.py"}  # the schema, before there is a head
    for path in Path(imagers.broker.__file__).parent.rglob("*.py"):
        if path.name in makes:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += [(path.name, node.value) for _ in names.findall(node.value)]
    assert found == []


def test_seal_that_swallows_the_next_one_does_not_hide_its_row(filled, again, outside):
    """Two seals in one text: the bucket's digest would be the same, and a row less be there."""
    repository = "images-of-two"
    first, second = sorted((digest_of(b"1"), digest_of(b"2")))
    with filled.transaction() as transaction:
        for image in (first, second):
            transaction.propose_image(repository, image, by="", at="")
        revoked = replace(transaction.find_image(repository, second), state="revoked")
        transaction.set_image(revoked)
    names = [shown(("images", repository, str(image))) for image in (first, second)]
    digests = [
        outside.run("SELECT digest FROM seals WHERE name = :name", name=name)[0][0]
        for name in names
    ]
    name = names[1].encode()
    swallowed = b"%bs%b%b%b" % (digests[0], len(name).to_bytes(4, "big"), name, digests[1])
    outside.run(
        "UPDATE seals SET digest = :digest WHERE name = :name", name=names[0], digest=swallowed
    )
    outside.run("DELETE FROM seals WHERE name = :name", name=names[1])
    outside.run("DELETE FROM images WHERE manifest_digest = :of", of=str(second))
    with pytest.raises(Altered, match="a seal that is none"):
        again()


def test_revoked_image_that_is_changed_at_once_is_kept_and_seen(again, outside, monkeypatch):
    """Else it would be served again where an older state is put back, after this one is damaged."""
    kept = []
    with again(keep=kept.append) as other:
        with other.transaction() as transaction:
            transaction.propose_image("default", IMAGE, by="", at="")
            image = transaction.find_image("default", IMAGE)
        hold = other._heads.hold

        def change(head):
            outside.run("UPDATE images SET state = 'current'")
            hold(head)

        monkeypatch.setattr(other._heads, "hold", change)
        with other.transaction() as transaction:
            transaction.set_image(replace(image, state="revoked", reason="CVE"))
        assert isinstance(other.fault, Altered)
    assert [row[4] for row in kept[-1].lasting] == ["revoked"]


def test_revoked_images_fit_into_any_older_state(store):
    """Numbers were given anew there, and what followed them is not known, or followed by them."""
    old, new, later, gone = (digest_of(bytes([number])) for number in range(4))
    with store.transaction() as transaction:
        for image in (old, new):
            transaction.propose_image("default", image, by="", at="")
        first = transaction.find_image("default", old)
        transaction.set_image(replace(first, successor=new))

    def revoked(digest, number, successor=None):
        follows = "" if successor is None else str(successor)
        return ("images", "default", str(digest), number, "revoked", follows, "CVE", "ann", "now")

    rows = (revoked(new, 3, old), revoked(later, 2, gone), revoked(old, 1, new))
    with store.transaction() as transaction:
        transaction.put_lasting(rows)
        images = transaction.list_images("default")
    assert [(one.digest, one.number, one.successor) for one in images] == [
        (old, 1, new),
        (new, 2, None),
        (later, 3, None),
    ]
    assert {one.state for one in images} == {"revoked"}


def test_new_head_of_a_key_that_was_rotated_away_is_not_believed(new_database, outside):
    """Who has the former key, and writes the database, makes no more changes of his own."""
    former = bytes(32)
    sealer = Sealer([bytearray(former), bytearray(b"n" * 32)])
    with Store(new_database()) as store:
        store.unseal(sealer)
        copy = outside.copy()
        sealer.current = sealer.ids[1]
        with store.transaction():
            pass
        with store.transaction() as transaction:
            assert transaction.store_row().head_key == sealer.ids[1]
        outside.put_back(copy)
        with Store(new_database("theirs"), "theirs") as theirs:
            theirs.unseal(Sealer([bytearray(former)]))
            for _ in range(3):
                with theirs.transaction() as transaction:
                    transaction.set_policy(DEFAULT_TENANT, "policy", b"any")
        with pytest.raises(Altered, match="former master key"), store.reading() as transaction:
            transaction.get_policy(DEFAULT_TENANT, "policy")


OTHER_TYPES = {
    "the number": "UPDATE store SET changes = 'x'",
    "a number with a fraction": "UPDATE store SET changes = changes + 0.5",
    "the head": "UPDATE store SET head = 'x'",
    "its key": "UPDATE store SET head_key = x'00'",
    "the time": "UPDATE brokers SET seen_ms = 'x'",
}
OTHER_TYPES_OF_SEALS = {
    "a list in a name": "UPDATE seals SET name = '[\"images\",[1]]'",
    "a name": "UPDATE seals SET name = 1",
    "a digest": "UPDATE seals SET digest = 'x'",
    "a bucket": "UPDATE buckets SET digest = 'x'",
}


@pytest.mark.parametrize("statement", OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_row_of_the_store_with_other_types_is_refused_and_stops_no_writer(
    new_database, outside, statement
):
    """SQLite keeps any type in any column."""
    with unsealed(Store(new_database()), keep=lambda _: None) as store:
        if not store._database.takes_over:
            pytest.skip("the columns of PostgreSQL have types")
        copy, times = outside.copy(), outside.run("SELECT seen_ms FROM brokers")
        outside.run(statement)
        with pytest.raises(Altered, match="other types"), store.reading() as transaction:
            transaction.tenants()
        store._work.put(store._keep_number)
        with pytest.raises(Altered):
            asyncio.run(store.change(lambda transaction: transaction.next_version(PATH)))
        outside.put_back(copy, "store")
        outside.run("UPDATE brokers SET seen_ms = :time", time=times[0][0])
        assert asyncio.run(store.change(lambda transaction: transaction.next_version(PATH))) == 1


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("statement", OTHER_TYPES_OF_SEALS.values(), ids=OTHER_TYPES_OF_SEALS)
def test_start_with_seals_of_other_types_refused(new_database, again, outside, statement):
    if not new_database("types").takes_over:
        pytest.skip("the columns of PostgreSQL have types")
    outside.run(
        "CREATE TABLE loose AS SELECT * FROM seals",
        "DROP TABLE seals",
        "ALTER TABLE loose RENAME TO seals",
        statement,
    )
    with pytest.raises(Altered):
        again()
