# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

TENANT = ("broker", "tenant")


def test_tenant_is_added_given_repositories_listed_and_removed(run, admin):
    outcome = run(*TENANT, "add", "team-a", *admin)
    assert outcome.out == (
        "made the tenant team-a; give it an owner:\n"
        "  imagers broker admin-key add NAME FILE --role owner --tenant team-a\n"
    )
    outcome = run(*TENANT, "assign", "team-a", "app-a", "app-b", *admin)
    assert outcome.out == "app-a is of the tenant team-a\napp-b is of the tenant team-a\n"
    head, *lines = run(*TENANT, "list", *admin).out.splitlines()
    assert head.split() == ["name", "admin", "keys", "repositories"]
    assert [line.split() for line in lines] == [
        ["default", "1", "all", "others"],
        ["team-a", "0", "app-a,", "app-b"],
    ]
    assert run(*TENANT, "remove", "team-a", *admin).out == "removed the tenant team-a\n"
    assert len(run(*TENANT, "list", *admin).out.splitlines()) == 2


def test_tenant_without_repositories_has_none(run, admin):
    run(*TENANT, "add", "team-a", *admin)
    assert run(*TENANT, "list", *admin).out.splitlines()[2].split() == ["team-a", "0", "-"]


@pytest.mark.parametrize(
    ("words", "code", "piece", "hint"),
    [
        (("add", "Team"), 10, "lower-case letters", ""),
        (("add", "default"), 10, "names are not given again", ""),
        (("add", "a/b"), 2, "expected a name of letters", ""),
        (("remove", "x"), 10, "no tenant 'x'", "imagers broker tenant list"),
        (("remove", "default"), 10, "always there", ""),
        (("assign", "x", "r"), 10, "no tenant 'x'", "imagers broker tenant list"),
        (("assign", "default"), 2, "", ""),
    ],
)
def test_what_cannot_be_is_said_in_a_line(run, admin, words, code, piece, hint):
    outcome = run(*TENANT, *words, *admin)
    assert outcome.code == code
    assert piece in outcome.err
    assert hint in outcome.err


def test_repository_with_secrets_stays(run, admin):
    Path("secret").write_bytes(b"secret")
    run("broker", "put", "kbs:///app-a/key/1", "secret", *admin)
    run(*TENANT, "add", "team-a", *admin)
    outcome = run(*TENANT, "assign", "team-a", "app-a", *admin)
    assert outcome.code == 10
    assert (
        "'app-a' has secrets, or former ones: its owner deletes them permanently first"
        in outcome.err
    )
