# SPDX-License-Identifier: Apache-2.0
import base64
import json
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagers.broker.adminkeys import AdminKeys
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.refusals import Refusal
from imagers.errors import FormatError
from imagers.kbs.wire import admin_key_id
from tests.unit.broker.conftest import Now


@pytest.fixture
def keys(state, tenants):  # noqa: ARG001 - they are made
    return Now(AdminKeys(state))


def new_key():
    return Ed25519PrivateKey.generate().public_key()


def body(key=None, name="carol", roles=("writer",), **more):
    raw = (key or new_key()).public_bytes_raw()
    told = {"name": name, "roles": roles, "public_key": base64.b64encode(raw).decode()}
    return json.dumps(told | more).encode()


def listed(keys, by, tenant=None):
    found = json.loads(keys.list(by, tenant))["admin_keys"]
    return [(one["name"], one["roles"]) for one in found]


def refused(call, *arguments):
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value


def test_owner_adds_lists_and_removes_keys_of_his_tenant(keys, new_admin, state):
    owner, key = new_admin("a", "owner"), new_key()
    keys.add(owner, body(key, roles=["writer", "auditor"]))
    found = json.loads(keys.list(owner, None))["admin_keys"]
    assert found[0] == {
        "id": admin_key_id(key),
        "tenant": "a",
        "name": "carol",
        "roles": ["auditor", "writer"],
        "public_key": base64.b64encode(key.public_bytes_raw()).decode(),
    }
    keys.remove(owner, admin_key_id(key))
    assert listed(keys, owner, "a") == [(owner.name, ["owner"])]
    with state.store.reading() as transaction:
        rows = [row for row in transaction.list_audit(100) if row["event"] == "admin-key"]
    shown = f"carol {admin_key_id(key)[:12]}: auditor, writer"
    assert [(row["tenant"], row["detail"]) for row in rows] == [
        ("a", f"add {shown}"),
        ("a", f"remove {shown}"),
    ]


def test_owner_sees_and_changes_no_key_of_another_tenant(keys, new_admin):
    """Nor does he learn whether there is such a tenant, or such a key."""
    owner, other = new_admin("a", "owner"), new_admin("b", "owner")
    wanted = ("RoleDenied", "the admin keys of other tenants are for the role operator")
    for tenant in ("b", DEFAULT_TENANT, "unknown"):
        for refusal in (
            refused(keys.list, owner, tenant),
            refused(keys.add, owner, body(tenant=tenant)),
        ):
            assert (refusal.name, refusal.detail) == wanted
    for key_id in (other.id, "0" * 64, "x"):
        refusal = refused(keys.remove, owner, key_id)
        assert (refusal.name, refusal.detail) == (
            "ResourceNotFound",
            f"there is no admin key '{key_id}'",
        )
    assert listed(keys, other) == [(other.name, ["owner"])]


def test_key_in_use_and_name_in_use_are_refused_in_the_same_words(keys, new_admin):
    """A key is of one tenant, or a token would be of two."""
    owner, other, key = new_admin("a", "owner"), new_admin("b", "owner"), new_key()
    keys.add(other, body(key))
    keys.add(owner, body())
    for taken in (body(key, name="dave"), body()):
        refusal = refused(keys.add, owner, taken)
        assert (refusal.name, refusal.status) == ("Conflict", 409)
        assert refusal.detail.endswith("is taken in the tenant, or the key in use")


def test_operator_adds_keys_to_any_tenant_and_its_owner_is_told(keys, new_admin, state):
    operator = new_admin(DEFAULT_TENANT, "operator")
    keys.add(operator, body(tenant="a", roles=["owner"]))
    assert listed(keys, operator, "a") == [("carol", ["owner"])]
    assert refused(keys.add, operator, body(tenant="c")).detail == "there is no tenant 'c'"
    assert refused(keys.list, operator, "c").status == 404
    with state.store.reading() as transaction:
        for tenant, beginning in (("a", "add carol"), ("", "tenant a: add carol")):
            row = transaction.list_audit(1, tenants=[tenant])[0]
            assert row["detail"].startswith(beginning)
            assert row["admin"] == f"{operator.name} {operator.id[:12]}"
        assert transaction.list_audit(9, tenants=[DEFAULT_TENANT]) == []


def test_operators_are_made_and_removed_by_operators_alone(keys, admin, new_admin):
    owner = new_admin(DEFAULT_TENANT, "owner")
    for refusal in (
        refused(keys.add, owner, body(roles=["operator"])),
        refused(keys.add, owner, body(roles=["owner", "operator"])),
        refused(keys.remove, owner, admin.id),
    ):
        assert (refusal.name, "by operators alone" in refusal.detail) == ("RoleDenied", True)
    keys.add(admin, body(roles=["operator"]))
    with pytest.raises(FormatError, match="of the tenant 'default' alone"):
        keys.add(admin, body(roles=["operator"], tenant="a"))


def test_last_owner_and_last_operator_stay(keys, admin, new_admin):
    owner = new_admin("a", "owner", "writer")
    for by, one, role in ((owner, owner, "owner"), (admin, owner, "owner"), (admin, admin, "o")):
        refusal = refused(keys.remove, by, one.id)
        assert (refusal.name, refusal.status) == ("Conflict", 409)
        assert f"is the last one with the role {role}" in refusal.detail
    second = new_admin("a", "owner")
    keys.remove(owner, owner.id)
    assert listed(keys, second) == [(second.name, ["owner"])]
    for roles in (("owner",), ("operator",)):
        assert refused(keys.remove, admin, admin.id).name == "Conflict"
        new_admin(DEFAULT_TENANT, *roles)
    keys.remove(admin, admin.id)


def test_keys_of_a_tenant_are_bounded(keys, admin, new_admin):
    for _ in range(64):
        new_admin("a", "auditor")
    refusal = refused(keys.add, admin, body(tenant="a"))
    assert (refusal.name, "at most 64" in refusal.detail) == ("Conflict", True)
    keys.add(admin, body(tenant="b"))


@pytest.mark.parametrize("message", [b"", b"[]", b"{}"])
def test_message_that_is_none_refused(keys, admin, message):
    with pytest.raises(FormatError):
        keys.add(admin, message)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a" * 65},
        {"roles": []},
        {"roles": ["admin"]},
        {"roles": "owner"},
        {"public_key": "AAAA"},
        {"public_key": "%"},
        {"more": 1},
        {"tenant": 7},
    ],
    ids=str,
)
def test_message_with_a_member_that_is_none_refused(keys, admin, changes):
    with pytest.raises(FormatError):
        keys.add(admin, body(**changes))


def test_key_id_of_any_text_is_nobodys(keys, admin):
    for key_id in (secrets.token_hex(32), admin.id[:12], admin.id.upper(), "' OR 1=1 --"):
        assert refused(keys.remove, admin, key_id).status == 404
