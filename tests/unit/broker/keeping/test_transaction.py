# SPDX-License-Identifier: Apache-2.0
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from imagers.broker.keeping.database import Taken
from imagers.broker.keeping.rows import Admin, Approval, Session, StoredResource
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import AUDIT_TEXTS, DEFAULT_TENANT
from imagers.errors import LocalError
from imagers.kbs.resources import ResourcePath
from imagers.model.digest import digest_of
from imagers.model.references import ReferenceValue
from tests.unit.broker.keeping.conftest import unsealed

PATH = ResourcePath("default", "key", "1")
ROW = dict.fromkeys(AUDIT_TEXTS, "") | {
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
        assert transaction.list_resources(DEFAULT_TENANT) == (PATH,)
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
        assert transaction.list_resources(DEFAULT_TENANT) == ()


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
        transaction.add_binding(PATH, digest, by="", at="")
        transaction.add_binding(other, digest, by="", at="")
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
        (row,) = transaction.list_audit(10, {"id": rows[0]["id"]})
        hashed = [one for _, one in transaction.audit_chains()]
    assert [row["detail"] for row in rows] == ["3", "4"]
    assert row == rows[0]
    assert [row["id"] for row in rows] == [one.hex()[:16] for one in hashed[3:]]


def test_reference_values_are_replaced_found_by_name_and_deleted(store):
    one, other = ReferenceValue("b", ("x", 1, True)), ReferenceValue("a", ("y",), source="s")
    with store.transaction() as transaction:
        transaction.set_reference_value("t", ReferenceValue("b", ("old",)))
        transaction.set_reference_value("t", one)
        transaction.set_reference_value("t", other)
        assert list(transaction.reference_values("t").items()) == [("a", other), ("b", one)]
        assert transaction.reference_values("u") == {}
        assert not transaction.delete_reference_value("u", "b")
        assert transaction.delete_reference_value("t", "b")
        assert not transaction.delete_reference_value("t", "b")


def test_numbers_of_collateral_only_grow(store):
    with store.transaction() as transaction:
        transaction.keep_collateral({"a": 5, "b": 2**159})
        transaction.keep_collateral({"a": 4, "c": 0})
        assert transaction.seen_collateral() == {"a": 5, "b": 2**159, "c": 0}
        transaction.keep_collateral({"a": 6})
        assert transaction.seen_collateral()["a"] == 6


def test_audit_of_some_tenants_has_their_rows_alone(store):
    with store.transaction() as transaction:
        for number, tenant in enumerate(("", "a", "b", "a"), 1):
            transaction.append_audit(ROW | {"tenant": tenant, "detail": str(number)})
        for wanted, found in ((["a"], [2, 4]), (["", "b"], [1, 3]), (["c"], []), ([], [])):
            rows = transaction.list_audit(10, tenants=wanted)
            assert [int(row["detail"]) for row in rows] == found
        assert len(transaction.list_audit(10)) == 4
        assert len(transaction.list_audit(10, {"event": "put"}, tenants=["a"])) == 2
        assert [row["detail"] for row in transaction.list_audit(1, tenants=["b"])] == ["3"]


def test_resources_are_listed_of_the_tenant_that_owns_the_repository(store):
    paths = [ResourcePath(name, "key", "1") for name in ("a", "ab", "a_", "default")]
    with store.transaction() as transaction:
        transaction.insert_tenant("t")
        transaction.set_owner("a", "t")
        for path in paths:
            transaction.insert_resource(resource(path))
        assert transaction.list_resources("t") == (paths[0],)
        assert set(transaction.list_resources(DEFAULT_TENANT)) == set(paths[1:])
        assert transaction.count_resources() == 4


def test_repository_is_the_default_tenants_until_another_owns_it(store):
    with store.transaction() as transaction:
        assert transaction.tenants() == (DEFAULT_TENANT,)
        transaction.insert_tenant("t")
        assert transaction.owner_of("a") == DEFAULT_TENANT
        transaction.set_owner("a", "t")
        assert (transaction.owner_of("a"), transaction.owners()) == ("t", {"a": "t"})
        assert transaction.owner_of("A") == DEFAULT_TENANT
        transaction.set_owner("a", DEFAULT_TENANT)
        assert (transaction.owner_of("a"), transaction.owners()) == (DEFAULT_TENANT, {})


def test_repository_has_secrets_until_the_last_former_one_is_gone_and_knows_images_for_ever(store):
    path = ResourcePath("a", "key", "1")
    with store.transaction() as transaction:
        transaction.insert_resource(resource(path))
        assert [transaction.has_secrets(one) for one in ("a", "b", "a/key")] == [True, False, True]
        assert not transaction.knows_images("a")
        transaction.add_binding(path, digest_of(b"image"), by="", at="")
        transaction.retire_resource(path)
        assert transaction.has_secrets("a")
        transaction.delete_resource(path)
        assert not transaction.has_secrets("a")
        assert [transaction.knows_images(name) for name in ("a", "b")] == [True, False]


def test_tenant_that_is_gone_keeps_the_repositories_that_know_images(store):
    with store.transaction() as transaction:
        transaction.insert_tenant("t")
        for name in ("a", "b"):
            transaction.set_owner(name, "t")
        transaction.propose_image("a", digest_of(b"image"), by="", at="")
        transaction.delete_tenant("t")
        assert transaction.owners() == {"a": "t"}


def admin(digit="0", **more):
    named = {"tenant": "t", "name": "alice", "roles": frozenset({"owner", "writer"})}
    return Admin(id=digit * 64, public_key=bytes(32), **named | more)


def test_admins_are_found_by_key_and_tenant(store):
    other = admin("1", tenant="u", roles=frozenset())
    with store.transaction() as transaction:
        transaction.insert_admin(admin())
        transaction.insert_admin(other)
        assert transaction.find_admin("0" * 64) == admin()
        assert transaction.find_admin("2" * 64) is None
        assert transaction.admins() == (admin(), other)
        assert transaction.admins("u") == (other,)
        assert transaction.delete_admin("0" * 64)
        assert not transaction.delete_admin("0" * 64)


@pytest.mark.parametrize("again", [admin(tenant="u"), admin("1")])
def test_admin_with_a_key_that_is_anothers_or_a_taken_name_is_an_error(store, again):
    with store.transaction() as transaction:
        transaction.insert_admin(admin())
    with pytest.raises(Taken), store.transaction() as transaction:
        transaction.insert_admin(again)


def test_tenant_that_is_gone_leaves_nothing_but_its_name(store):
    with store.transaction() as transaction:
        for name in ("t", "u"):
            transaction.insert_tenant(name)
            transaction.set_owner(f"of-{name}", name)
            transaction.set_policy(name, "policy", b"{}")
            transaction.set_reference_value(name, ReferenceValue("b", ("x",)))
        transaction.insert_admin(admin())
        transaction.delete_tenant("t")
        assert transaction.tenants() == (DEFAULT_TENANT, "u")
        assert (transaction.owners(), transaction.admins()) == ({"of-u": "u"}, ())
        assert transaction.get_policy("t", "policy") is None
        assert transaction.get_policy("u", "policy") == b"{}"
        assert transaction.reference_values("t") == {} != transaction.reference_values("u")
    with pytest.raises(Taken), store.transaction() as transaction:
        transaction.insert_tenant("t")


def test_policies_are_kept_by_tenant_and_name(store):
    with store.transaction() as transaction:
        transaction.set_policy("t", "a", b"1")
        transaction.set_policy("t", "a", b"2")
        transaction.set_policy("u", "a", b"3")
        assert transaction.get_policy("t", "a") == b"2"
        transaction.set_policy("t", "a", None)
        assert transaction.get_policy("t", "a") is None
        assert transaction.get_policy("u", "a") == b"3"


IMAGES = tuple(digest_of(b"%d" % number) for number in range(3))


def test_images_are_known_in_their_order_and_stay_known(store):
    other = ResourcePath("default", "key", "2")
    with store.transaction() as transaction:
        for path, digest in ((PATH, IMAGES[0]), (other, IMAGES[0]), (PATH, IMAGES[1])):
            transaction.add_binding(path, digest, by=f"of {path}", at="now")
        transaction.delete_resource(PATH)
        transaction.add_binding(PATH, IMAGES[2], by="", at="")
        known = transaction.list_images("default")
        assert [(one.digest, one.number) for one in known] == list(
            zip(IMAGES, (1, 2, 3), strict=True)
        )
        assert (known[0].proposed_by, known[0].proposed_at) == (f"of {PATH}", "now")
        assert transaction.find_image("default", IMAGES[1]) == known[1]
        assert transaction.find_image("other", IMAGES[1]) is None
        assert transaction.bound_images(PATH) == {IMAGES[2]: known[2]}
        assert transaction.bound_images(other) == {IMAGES[0]: known[0]}


def test_image_keeps_state_successor_and_reason_and_no_other_does(store):
    path = ResourcePath("other", "key", "1")
    with store.transaction() as transaction:
        for one in (PATH, path):
            transaction.add_binding(one, IMAGES[0], by="", at="")
        image = transaction.find_image("default", IMAGES[0])
        changed = replace(image, state="revoked", successor=IMAGES[1], reason="why")
        transaction.set_image(changed)
        assert transaction.find_image("default", IMAGES[0]) == changed
        assert transaction.find_image("other", IMAGES[0]).state == "current"


def test_floors_are_set_and_taken_away(store):
    with store.transaction() as transaction:
        for name, number in (("a", 3), ("b", 1), ("a", 2), ("b", 0)):
            transaction.set_floor(name, number)
        assert transaction.floors() == {"a": 2}


def test_approvals_are_one_an_admin_and_image(store):
    first, second = Approval("ann", 5, b"1"), Approval("bob", 6, b"2")
    with store.transaction() as transaction:
        transaction.add_binding(PATH, IMAGES[0], by="", at="")
        for digest in IMAGES[:2]:
            transaction.set_approval("default", digest, first)
        transaction.set_approval("default", IMAGES[0], second)
        transaction.set_approval("other", IMAGES[0], first)
        transaction.set_approval("default", IMAGES[0], replace(first, until=7))
        found = transaction.approvals("default", IMAGES[0])
        assert list(found) == [IMAGES[0]]
        assert set(found[IMAGES[0]]) == {replace(first, until=7), second}
        assert transaction.approvals("default")[IMAGES[1]] == [first]


def test_what_is_over_stays_over_when_time_begins_again(store):
    with store.transaction() as transaction:
        transaction.keep_time(9_999)
        for admin, until in (("ann", 9), ("bob", 10)):
            transaction.set_approval("default", IMAGES[0], Approval(admin, until, b""))
        transaction.begin_again(1_000)
        (left,) = transaction.approvals("default")[IMAGES[0]]
        assert (left.admin, transaction.store_row().seen_ms) == ("bob", 1_000)


def test_reference_values_that_are_over_stay_over_when_time_begins_again(store):
    ends = {"over": 9, "not-over": 10}
    values = [
        ReferenceValue(name, ("v",), expires=datetime.fromtimestamp(end, UTC))
        for name, end in ends.items()
    ]
    with store.transaction() as transaction:
        transaction.keep_time(9_999)
        transaction.insert_tenant("other")
        for tenant in (DEFAULT_TENANT, "other"):
            for value in (*values, ReferenceValue("lasts", ("v",))):
                transaction.set_reference_value(tenant, value)
        transaction.begin_again(1_000)
        for tenant in (DEFAULT_TENANT, "other"):
            found = transaction.reference_values(tenant)
            assert found["over"].expires == datetime(1970, 1, 1, tzinfo=UTC)
            assert found["not-over"] == values[1]
            assert found["lasts"].expires is None


def versions(transaction):
    served = transaction.find_resource(PATH)
    former = [one.resource.version for one in transaction.former_resources(PATH)]
    return served and served.version, former


def test_former_resources_keep_their_bindings_and_come_back_with_them(store):
    with store.transaction() as transaction:
        for version in (1, 2):
            transaction.retire_resource(PATH)
            transaction.insert_resource(resource(version=version, sealed=b"%d" % version))
            transaction.add_binding(PATH, IMAGES[version], by="ann", at="now")
        assert versions(transaction) == (2, [1])
        assert transaction.bindings(PATH) == {IMAGES[2]}
        assert transaction.retire_resource(PATH)
        assert not transaction.retire_resource(PATH)
        assert versions(transaction) == (None, [2, 1])
        assert transaction.bindings(PATH) == frozenset()
        transaction.revive_resource(transaction.former_resources(PATH)[1])
        assert versions(transaction) == (1, [2])
        assert transaction.find_resource(PATH).sealed == b"1"
        assert transaction.bindings(PATH) == {IMAGES[1]}
        assert [one.proposed_by for one in transaction.list_images("default")] == ["ann"] * 2
        assert transaction.has_secrets("default")


def test_no_more_than_some_former_resources_are_kept(store):
    with store.transaction() as transaction:
        for version in range(1, 20):
            transaction.insert_resource(resource(version=version))
            transaction.retire_resource(PATH)
        assert versions(transaction) == (None, list(range(19, 3, -1)))


def test_delete_resource_leaves_no_former_one(store):
    other = ResourcePath("default", "key", "2")
    with store.transaction() as transaction:
        for path in (PATH, other):
            transaction.insert_resource(resource(path))
            transaction.retire_resource(path)
        assert transaction.delete_resource(PATH)
        assert not transaction.delete_resource(PATH)
        assert transaction.former_resources(PATH) == []
        assert len(transaction.former_resources(other)) == 1


def test_uses_are_counted_and_stay_when_it_is_deleted_and_comes_back(store):
    limited = replace(resource(), max_uses=2)
    with store.transaction() as transaction:
        transaction.insert_resource(limited)
        transaction.use_resource(limited)
        transaction.retire_resource(PATH)
        transaction.revive_resource(transaction.former_resources(PATH)[0])
        assert transaction.find_resource(PATH) == replace(limited, uses=1)


def test_resource_that_is_over_stays_over_when_time_begins_again(store):
    paths = [ResourcePath("default", "key", str(number)) for number in range(3)]
    with store.transaction() as transaction:
        transaction.keep_time(9_000)
        for path, expires in zip(paths, (0, 9, 10), strict=True):
            transaction.insert_resource(replace(resource(path), expires=expires))
        transaction.begin_again(1_000)
        assert [transaction.find_resource(path).expires for path in paths] == [0, 1, 10]
