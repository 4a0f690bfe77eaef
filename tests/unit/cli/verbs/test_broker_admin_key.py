# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.broker.admins import ROLES
from imagers.cli.verbs.broker_admin_key import _ROLES

KEYS = ("broker", "admin-key")


def as_key(admin, name):
    """The options of another admin of the same broker."""
    return (*admin[:-1], f"{name}.key")


@pytest.fixture
def alice(run, admin):
    """The owner of the tenant `team-a`, which has the repository `app-a`."""
    run("key", "generate", "admin", "--output", "alice")
    run("broker", "tenant", "add", "team-a", *admin)
    run("broker", "tenant", "assign", "team-a", "app-a", *admin)
    words = ("alice", "alice.pub", "--role", "owner", "--tenant", "team-a")
    outcome = run(*KEYS, "add", *words, *admin)
    assert outcome.out == "added alice, owner of the tenant team-a\n"
    return as_key(admin, "alice")


def test_roles_are_those_of_the_broker():
    assert list(ROLES) == _ROLES


def test_owner_of_a_tenant_administrates_it_and_nothing_else(run, admin, alice):
    Path("secret").write_bytes(b"secret")
    assert run("broker", "put", "kbs:///app-a/key/1", "secret", *alice).code == 0
    outcome = run("broker", "put", "kbs:///default/key/1", "secret", *alice)
    assert outcome.code == 10
    assert "the repository 'default' is not one of the admin's tenant" in outcome.err
    assert "imagers broker tenant assign" in outcome.err
    assert run("broker", "list", *alice).out == "kbs:///app-a/key/1\n"
    assert run("broker", "list", *admin).out == ""
    outcome = run("broker", "tenant", "list", *alice)
    assert outcome.code == 10
    assert "is for the role operator: the key 'alice' has owner" in outcome.err


def test_key_of_a_writer_is_added_listed_used_and_removed(run, admin, alice):
    run("key", "generate", "admin", "--output", "bob")
    outcome = run(*KEYS, "add", "bob", "bob.pub", "--role", "writer", "--role", "auditor", *alice)
    assert outcome.out == "added bob, auditor, writer of the tenant team-a\n"
    head, *lines = run(*KEYS, "list", *alice).out.splitlines()
    assert head.split() == ["name", "tenant", "roles", "id"]
    assert [line.split()[:2] for line in lines] == [["alice", "team-a"], ["bob", "team-a"]]
    assert run(*KEYS, "list", "--tenant", "team-a", *admin).out.splitlines()[1:] == lines
    bob = as_key(admin, "bob")
    assert run("broker", "list", *bob).code == 0
    outcome = run("broker", "policy", "reset", *bob)
    assert "is for the role owner: the key 'bob' has auditor, writer" in outcome.err
    shown = run("broker", "audit", "--event", "admin-key", *alice).out.splitlines()[-1]
    assert "alice " in shown
    assert "add bob" in shown
    assert run(*KEYS, "remove", "bob", *alice).out == "removed bob: its key opens nothing more\n"
    outcome = run("broker", "list", *bob)
    assert outcome.code == 10
    assert "its key is none of an admin here" in outcome.err


def test_key_is_removed_by_its_id_too(run, admin, alice):
    run("key", "generate", "admin", "--output", "bob")
    made = run(*KEYS, "add", "bob", "bob.pub", "--role", "writer", "--json", *alice).json()
    assert run(*KEYS, "remove", made["admin_key"]["id"], "--tenant", "team-a", *admin).code == 0


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        (("add", "bob", "bob.pub", "--role", "writer"), 13, "bob.pub"),
        (("add", "bob", "alice.key", "--role", "writer"), 11, "-pubout"),
        (("add", "bob", "alice.pub"), 2, "--role"),
        (("add", "bob", "alice.pub", "--role", "king"), 2, "king"),
        (("add", "bob", "alice.pub", "--role", "writer"), 10, "or the key in use"),
        (("add", "a b", "alice.pub", "--role", "writer"), 10, "expected letters"),
        (("remove", "bob"), 10, "no admin key 'bob'"),
        (("remove", "alice"), 10, "is the last one with the role owner"),
        (("list", "--tenant", "default"), 10, "of other tenants are for the role operator"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(run, alice, words, code, piece):
    outcome = run(*KEYS, *words, *alice)
    assert outcome.code == code
    assert piece in outcome.err
