# SPDX-License-Identifier: Apache-2.0

import pytest

from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.table import DEFAULT_POLICY, DENY_ALL_POLICY, ResourcePolicy
from imagers.broker.rules import ATTESTATION, POLICY, LastRules, RegoPolicy, Rules, parse_either
from imagers.errors import FormatError
from imagers.model.references import ReferenceValue
from tests.unit.broker.keeping.conftest import unsealed

REGO = "package policy\n\ndefault allow := false\n"


@pytest.fixture
def store(tmp_path):
    with unsealed(Store(SQLiteDatabase(tmp_path / "broker.sqlite"))) as opened:
        yield opened


def set_policy(store, text):
    with store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, POLICY, text.encode())


def read(store):
    with store.reading() as transaction:
        return Rules.read(transaction, DEFAULT_TENANT)


def test_policy_is_a_table_or_rego():
    assert isinstance(parse_either(DEFAULT_POLICY), ResourcePolicy)
    assert parse_either(REGO) == RegoPolicy(REGO)
    for neither in ("", "x", '{"rules": 7}'):
        with pytest.raises(FormatError):
            parse_either(neither)


@pytest.mark.parametrize("stored", [b"", b"\xff", b'{"rules": 7}'])
def test_stored_policy_that_is_damaged_is_none(store, stored):
    with store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, POLICY, stored)
    rules = read(store)
    assert rules.policy is None
    assert rules.fault != ""


def test_attestation_policies_are_by_class(store):
    set_policy(store, REGO)
    assert read(store).attestation == {}
    with store.transaction() as transaction:
        transaction.set_policy(DEFAULT_TENANT, ATTESTATION + "gpu", REGO.encode())
    assert read(store).attestation == {"gpu": REGO}


def test_last_rules_are_read_again_after_each_change_and_not_before(store):
    last = LastRules()

    def current():
        with store.reading() as transaction:
            return last.of(transaction, DEFAULT_TENANT)

    set_policy(store, DEFAULT_POLICY)
    first = current()
    assert current() is first
    set_policy(store, DENY_ALL_POLICY)
    assert current().policy.rules[0].name == "deny-all"


def test_rules_of_a_change_that_was_undone_are_never_those_in_force(store):
    """Its number of changes is that of the next one."""
    last = LastRules()
    set_policy(store, DENY_ALL_POLICY)

    def change_and_fail():
        with store.transaction() as transaction:
            transaction.set_policy(DEFAULT_TENANT, POLICY, DEFAULT_POLICY.encode())
            assert last.of(transaction, DEFAULT_TENANT).policy.rules[0].name == "bound-image"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    with store.transaction() as transaction:
        transaction.set_setting("x", b"")
    with store.reading() as transaction:
        assert last.of(transaction, DEFAULT_TENANT).policy.rules[0].name == "deny-all"


def test_owner_of_a_repository_is_seen_after_each_change(store):
    last = LastRules()

    def owner():
        with store.reading() as transaction:
            return last.owner_of(transaction, "app")

    assert owner() == owner() == DEFAULT_TENANT
    with store.transaction() as transaction:
        transaction.set_owner("app", "a")
        assert last.owner_of(transaction, "app") == "a"
    assert owner() == "a"


def test_names_that_anybody_asks_for_are_not_all_remembered(store):
    last = LastRules()
    with store.reading() as transaction:
        for number in range(1100):
            assert last.owner_of(transaction, f"r{number}") == DEFAULT_TENANT
    assert len(last._last.owners) == 1000


def test_rules_are_each_tenants_own(store):
    last = LastRules()
    with store.transaction() as transaction:
        transaction.set_policy("a", POLICY, DENY_ALL_POLICY.encode())
        transaction.set_policy("a", ATTESTATION + "cpu", REGO.encode())
        transaction.set_policy("b", POLICY, DEFAULT_POLICY.encode())
        transaction.set_reference_value("b", ReferenceValue("x", (1,)))
    with store.reading() as transaction:
        for _ in range(2):  # read, and remembered
            a, b, c = (last.of(transaction, name) for name in "abc")
            assert (a.policy.rules[0].name, b.policy.rules[0].name) == ("deny-all", "bound-image")
            assert (list(a.attestation), list(b.attestation)) == (["cpu"], [])
            assert (list(a.references), list(b.references)) == ([], ["x"])
            assert c.policy is None
