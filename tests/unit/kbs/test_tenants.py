# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from imagers.errors import (
    FormatError,
    LocalError,
    NotFound,
    RemoteError,
    Unauthorized,
    Unsupported,
    UsageError,
)
from imagers.kbs.admin import BrokerAdmin
from imagers.kbs.tenants import AdminKey, Tenant, TenantAdmin, load_admin_public_key
from imagers.kbs.wire import admin_key_id
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.references import ReferenceValue

IMAGE = digest_of(b"manifest")
URI = "kbs:///app-a/key/1"


def write_key(path, key):
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def public_pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


@pytest.fixture
def tenants(embedded):
    return TenantAdmin(embedded.admin)


@pytest.fixture
def as_admin(embedded, tenants, tmp_path):
    """Makes a key with a role of a tenant, and a client that uses it."""
    clients = []

    def make(tenant, role):
        key = Ed25519PrivateKey.generate()
        tenants.add_key(f"{role}-{len(clients)}", [role], key.public_key(), tenant=tenant)
        path = write_key(tmp_path / f"{len(clients)}.key", key)
        clients.append(BrokerAdmin(embedded.url, key_file=path))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_tenant_is_made_divided_and_removed(tenants, as_admin):
    tenants.add("team-a")
    tenants.assign("team-a", "app-a")
    as_admin("team-a", "owner")
    assert tenants.tenants() == (Tenant("default", (), 1), Tenant("team-a", ("app-a",), 1))
    tenants.remove("team-a")
    assert [one.name for one in tenants.tenants()] == ["default"]


def test_two_teams_share_a_broker_and_nothing_else(embedded, tenants, as_admin):
    for team in ("a", "b"):
        tenants.add(team)
        tenants.assign(team, f"app-{team}")
    a, b, auditor = as_admin("a", "owner"), as_admin("b", "owner"), as_admin("a", "auditor")
    with SecretKey(b"of team a") as secret:
        a.put_resource(URI, secret)
        with pytest.raises(Unauthorized, match="repository 'app-a' is not one") as caught:
            b.put_resource(URI, secret)
        assert "imagers broker tenant assign" in (caught.value.hint or "")
        with pytest.raises(Unauthorized) as caught:
            auditor.put_resource("kbs:///app-a/key/2", secret)
        assert "'auditor-2' has auditor" in str(caught.value)
        assert "admin-key add" in (caught.value.hint or "")
    a.bind_manifest(URI, IMAGE)
    a.set_reference_values([ReferenceValue("x", (1,))])
    assert (a.list_resources(), b.list_resources()) == ((URI,), ())
    with pytest.raises(NotFound):
        b.metadata(URI)
    with pytest.raises(NotFound):
        embedded.admin.metadata(URI)
    assert b.reference_values() == embedded.admin.reference_values() == ()
    with embedded.client() as guest, guest.get(URI, manifest_digest=IMAGE) as got:
        assert got == SecretKey(b"of team a")
    rows = auditor.audit()
    assert [row.event for row in rows if row.event in ("put", "bind", "release")] == [
        "put",
        "bind",
        "release",
    ]
    assert {row.tenant for row in rows} == {"a"}
    assert rows[-3].admin.startswith("owner-0 ")
    assert [row.event for row in b.audit() if row.path] == ["admin"]
    assert not [row for row in embedded.admin.audit() if "app-a/" in row.path]


def test_keys_are_added_listed_and_removed(tenants):
    key = Ed25519PrivateKey.generate().public_key()
    tenants.add("team-a")
    alice = AdminKey(admin_key_id(key), "team-a", "alice", ("auditor", "writer"))
    assert tenants.add_key("alice", ["writer", "auditor"], key, tenant="team-a") == alice
    assert tenants.keys("team-a") == (alice,)
    (own,) = tenants.keys()
    assert (own.name, own.tenant) == ("admin", "default")
    with pytest.raises(RemoteError, match="or the key in use") as caught:
        tenants.add_key("bob", ["writer"], key)
    assert caught.value.code == "Conflict"
    tenants.remove_key(alice.id)
    assert tenants.keys("team-a") == ()


@pytest.mark.parametrize(
    ("call", "told", "hint"),
    [
        (lambda t: t.remove("x"), "no tenant 'x'", "tenant list"),
        (lambda t: t.assign("x", "r"), "no tenant 'x'", "tenant list"),
        (lambda t: t.keys("x"), "no tenant 'x'", "tenant list"),
        (lambda t: t.remove_key("0" * 64), "no admin key '000", "admin-key list"),
    ],
)
def test_what_is_not_there_is_named_with_what_shows_the_rest(tenants, call, told, hint):
    with pytest.raises(NotFound, match=told) as caught:
        call(tenants)
    assert hint in (caught.value.hint or "")


def test_name_that_is_no_part_of_a_path_is_not_sent(tenants):
    for name in ("", "a/b", "a?b", "..", "a%2fb", "a\n"):
        for call in (tenants.add, tenants.remove, tenants.remove_key):
            with pytest.raises(UsageError, match="expected a name of letters"):
                call(name)
        with pytest.raises(UsageError, match="expected a name of letters"):
            tenants.assign("default", name)
    assert [one.name for one in tenants.tenants()] == ["default"]


def test_broker_that_is_not_ours_has_no_tenants(scripted, tmp_path):
    answer = {"type": "https://example/PluginNotFound", "detail": "x"}
    scripted.say("/kbs/v0/imagers/tenant", (404, {}, json.dumps(answer).encode()))
    path = write_key(tmp_path / "admin.key", Ed25519PrivateKey.generate())
    with (
        BrokerAdmin(scripted.url, key_file=path) as admin,
        pytest.raises(Unsupported, match="cannot list tenants"),
    ):
        TenantAdmin(admin).tenants()


def test_public_key_is_read_from_pem_and_nothing_else_is_one(tmp_path):
    key, path = Ed25519PrivateKey.generate(), tmp_path / "alice.pub"
    path.write_bytes(public_pem(key))
    assert load_admin_public_key(path) == key.public_key()
    write_key(path, key)
    with pytest.raises(FormatError, match="Ed25519 public key") as caught:
        load_admin_public_key(path)
    assert "-pubout" in (caught.value.hint or "")
    path.write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(FormatError):
        load_admin_public_key(path)
    with pytest.raises(LocalError):
        load_admin_public_key(tmp_path / "none")
