# SPDX-License-Identifier: Apache-2.0
"""Tenants are made and divided by operators, and one sees and changes nothing of another's."""

import json
from dataclasses import replace

import pytest

from imagers.broker.audit import AuditEvent
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.rego.engine import Appraised, Decision
from imagers.broker.policy.table import DEFAULT_POLICY
from imagers.broker.references import References
from imagers.broker.refusals import Refusal, error_body
from imagers.broker.releases import Asked, Credentials, Releases
from imagers.broker.resources import Resources
from imagers.broker.tenants import Tenants
from imagers.errors import FormatError
from imagers.kbs.jwe import open_answer
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from tests.unit.broker.conftest import Now, Release

IMAGE = digest_of(b"manifest")
OF_A, OF_B, OF_DEFAULT = (f"{name}/key/1" for name in ("of-a", "of-b", "default"))
ALLOW = b'{"rules": [{"name": "all", "effect": "allow", "resource": "*/*/*", "image": "any"}]}'
DENY = b'{"rules": [{"name": "none", "effect": "deny", "resource": "*/*/*", "image": "any"}]}'
REGO = b"package policy\n\ndefault allow := false\n"


def owner(tenant):
    return json.dumps({"tenant": tenant}).encode()


def binding(digest=IMAGE):
    return json.dumps({"manifest_digest": str(digest)}).encode()


def values(name, *wanted):
    one = {"name": name, "values": wanted}
    return json.dumps({"reference_values": [one]}).encode()


def refused(call, *arguments, **named):
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value


def listed(tenants):
    return json.loads(tenants.list())["tenants"]


def secret(text=b"a secret"):
    return SecretKey(text)


@pytest.fixture
def of(state, tenants, new_admin):  # noqa: ARG001 - they are made
    """What the owner of a tenant does with secrets, and with reference values."""

    class Owner:
        def __init__(self, name):
            self.admin = new_admin(name, "owner")
            self.resources = Now(Resources(state), self.admin)
            self.references = Now(References(state), self.admin)

        def audit(self, **filters):
            return json.loads(self.resources.audit("1000", filters))["entries"]

    made = {}

    def get(name):
        return made.setdefault(name, None) or made.update({name: Owner(name)}) or made[name]

    return get


# --- who there is


def test_new_tenant_has_the_default_policy_and_nothing_else(tenants, of):
    assert listed(tenants) == [
        {"name": "a", "repositories": ["of-a"], "admin_keys": 0},
        {"name": "b", "repositories": ["of-b"], "admin_keys": 0},
        {"name": DEFAULT_TENANT, "repositories": [], "admin_keys": 1},
    ]
    assert of("a").resources.policy_text() == DEFAULT_POLICY.encode()
    assert of("a").resources.names() == b"[]"
    assert json.loads(of("a").references.list()) == {"reference_values": []}


@pytest.mark.parametrize("name", ["", "A", "-a", "a_b", "a/b", "a" * 65, "a\n"])
def test_name_that_is_none_refused(tenants, admin, name):
    refusal = refused(tenants.add, admin, name)
    assert (refusal.name, "lower-case letters" in refusal.detail) == ("SerdeError", True)


def test_name_is_given_once_and_never_again(tenants, admin):
    for _ in range(2):
        refusal = refused(tenants.add, admin, "a")
        assert (refusal.name, refusal.status) == ("Conflict", 409)
        assert "names are not given again" in refusal.detail
        if "a" in [one["name"] for one in listed(tenants)]:
            tenants.remove(admin, "a")
    assert refused(tenants.add, admin, DEFAULT_TENANT).name == "Conflict"


def test_tenants_are_bounded(state, tenants, admin):
    with state.store.transaction() as transaction:
        for number in range(253):
            transaction.insert_tenant(f"t{number}")
    assert "at most 256" in refused(tenants.add, admin, "one-more").detail


def test_tenant_with_secrets_stays(tenants, admin, of):
    of("a").resources.put(OF_A, secret(), replace=False)
    refusal = refused(tenants.remove, admin, "a")
    assert (refusal.name, refusal.status) == ("Conflict", 409)
    of("a").resources.delete(OF_A)
    assert refused(tenants.remove, admin, "a").name == "Conflict"
    of("a").resources.delete(OF_A, permanently=True)
    tenants.remove(admin, "a")
    assert [one["name"] for one in listed(tenants)] == ["b", DEFAULT_TENANT]


def test_admin_of_a_tenant_that_is_gone_is_none(tenants, admin, of):
    resources = of("a").resources
    tenants.remove(admin, "a")
    assert refused(resources.put, OF_A, secret(), replace=False).name == "AdminAuthAccess"
    assert refused(resources.set_policy, ALLOW).name == "AdminAuthAccess"


def test_default_tenant_and_one_that_is_not_there_are_not_removed(tenants, admin):
    assert "always there" in refused(tenants.remove, admin, DEFAULT_TENANT).detail
    for name in ("c", "", "A"):
        refusal = refused(tenants.remove, admin, name)
        assert (refusal.name, refusal.detail) == (
            "ResourceNotFound",
            f"there is no tenant {name!r}",
        )


# --- who owns what


def test_repository_is_handed_over_while_nothing_is_in_it(tenants, admin, of):
    of("a").resources.put(OF_A, secret(), replace=False)
    for tenant in ("b", DEFAULT_TENANT):
        refusal = refused(tenants.assign, admin, "of-a", owner(tenant))
        assert (refusal.name, refusal.status) == ("Conflict", 409)
    tenants.assign(admin, "of-a", owner("a"))  # it is already
    of("a").resources.delete(OF_A, permanently=True)
    tenants.assign(admin, "of-a", owner("b"))
    assert listed(tenants)[1]["repositories"] == ["of-a", "of-b"]
    tenants.assign(admin, "of-a", owner(DEFAULT_TENANT))
    assert listed(tenants)[2]["repositories"] == []
    of(DEFAULT_TENANT).resources.put(OF_A, secret(), replace=False)


def test_repository_that_knows_images_changes_hands_no_more(tenants, admin, of):
    of("a").resources.put(OF_A, secret(), replace=False)
    of("a").resources.bind(OF_A, binding())
    of("a").resources.delete(OF_A, permanently=True)
    assert "knows images" in refused(tenants.assign, admin, "of-a", owner("b")).detail
    tenants.remove(admin, "a")
    for tenant in ("b", DEFAULT_TENANT):
        assert "knows images" in refused(tenants.assign, admin, "of-a", owner(tenant)).detail
    refusal = refused(of(DEFAULT_TENANT).resources.put, OF_A, secret(), replace=False)
    assert refusal.name == "RepositoryDenied"


def test_repository_of_the_default_tenant_with_secrets_is_not_given_away(tenants, admin, of):
    of(DEFAULT_TENANT).resources.put(OF_DEFAULT, secret(), replace=False)
    assert refused(tenants.assign, admin, "default", owner("a")).name == "Conflict"


@pytest.mark.parametrize("name", ["", "a/b", ".a", "a" * 256, "a b"])
def test_repository_whose_name_is_none_refused(tenants, admin, name):
    assert refused(tenants.assign, admin, name, owner("a")).name == "SerdeError"


def test_repository_for_a_tenant_that_is_not_there_refused(tenants, admin):
    assert "no tenant 'c'" in refused(tenants.assign, admin, "x", owner("c")).detail
    for body in (b"", b"{}", b'{"tenant": 1}'):
        with pytest.raises(FormatError):
            tenants.assign(admin, "x", body)


def test_what_an_operator_does_is_told_to_the_tenant_too(tenants, admin, of):
    tenants.assign(admin, "of-a", owner("b"))
    by = f"admin {admin.id[:12]}"
    told = [(row["event"], row["detail"]) for row in of("a").audit() if row["admin"] == by]
    assert told == [
        ("tenant", "tenant a: add"),
        ("tenant", "tenant a: give repository of-a"),
        ("tenant", "tenant a: take repository of-a"),
    ]
    told = [row["detail"] for row in of("b").audit()]
    assert told == [
        "tenant b: add",
        "tenant b: give repository of-b",
        "tenant b: give repository of-a",
    ]


# --- what one has of another


def test_admin_puts_binds_and_deletes_in_repositories_of_his_tenant_alone(of):
    """In the same words whether it is another's, nobody's, and whether there is something."""
    of("b").resources.put(OF_B, secret(), replace=False)
    of(DEFAULT_TENANT).resources.put(OF_DEFAULT, secret(), replace=False)
    a = of("a").resources
    for path in (OF_B, "of-b/key/2", OF_DEFAULT, "default/key/2", "unknown/key/1"):
        repository = path.partition("/")[0]
        wanted = f"the repository '{repository}' is not one of the admin's tenant"
        for call in (
            lambda path=path: a.put(path, secret(), replace=False),
            lambda path=path: a.put(path, secret(), replace=True),
            lambda path=path: a.bind(path, binding()),
            lambda path=path: a.delete(path),
        ):
            refusal = refused(call)
            assert (refusal.name, refusal.status, refusal.detail) == (
                "RepositoryDenied",
                403,
                wanted,
            )
    assert json.loads(of("b").resources.metadata(OF_B))["version"] == 1
    assert json.loads(of("b").resources.metadata(OF_B))["manifest_digests"] == []


def test_secret_of_another_is_as_if_it_were_not_there(of):
    of("b").resources.put(OF_B, secret(), replace=False)
    for tenant in ("a", DEFAULT_TENANT):
        resources = of(tenant).resources
        assert resources.names() == b"[]"
        there, missing = (
            error_body(refused(resources.metadata, path)).replace(path.encode(), b"PATH")
            for path in (OF_B, "of-b/key/2")
        )
        assert there == missing
    assert of("b").resources.names() == b'["of-b/key/1"]'


def test_policies_and_values_are_each_tenants_own(of):
    a, b = of("a"), of("b")
    a.resources.set_policy(ALLOW)
    a.resources.set_attestation_policy("cpu", REGO)
    a.references.set(values("x", 1), add=False)
    assert b.resources.policy_text() == DEFAULT_POLICY.encode()
    assert refused(b.resources.attestation_policy, "cpu").name == "ResourceNotFound"
    for missing in ("x", "y"):
        refusal = refused(b.references.delete, missing)
        assert refusal.detail == f"there is no reference value '{missing}'"
        assert refused(b.references.value, missing).status == 404
    b.references.set(values("x", 2), add=True)  # nothing is joined
    b.resources.set_attestation_policy("cpu", None)
    assert (a.references.value("x"), b.references.value("x")) == ([1], [2])
    assert a.resources.attestation_policy("cpu") == REGO
    assert a.resources.policy_text() == ALLOW


def test_audit_log_of_a_tenant_has_its_rows_without_numbers(of, guest):
    guest.attest()
    of("a").resources.put(OF_A, secret(), replace=False)
    of("b").resources.put(OF_B, secret(), replace=False)
    for name, path in (("a", OF_A), ("b", OF_B)):
        rows = of(name).audit()
        assert {row["tenant"] for row in rows} == {name}
        assert [row["path"] for row in rows if row["event"] == "put"] == [path]
        assert not {"number", "broker", "place"} & set().union(*rows)
        assert of(name).audit(path=OF_B) == ([] if name == "a" else rows[-1:])
        assert of(name).audit(event="start") == of(name).audit(event="attest") == []


def test_audit_log_of_an_operator_has_the_brokers_own_rows_alone(of, new_admin, state, guest):
    guest.attest()
    of("a").resources.put(OF_A, secret(), replace=False)
    of(DEFAULT_TENANT).resources.put(OF_DEFAULT, secret(), replace=False)
    operator = Now(Resources(state), new_admin(DEFAULT_TENANT, "operator"))
    rows = json.loads(operator.audit("1000"))["entries"]
    assert {row["tenant"] for row in rows} == {""}
    assert [row["event"] for row in rows] == ["start", *["tenant"] * 6, "attest"]
    both = Now(Resources(state), new_admin(DEFAULT_TENANT, "operator", "auditor"))
    rows = json.loads(both.audit("1000"))["entries"]
    assert {row["tenant"] for row in rows} == {"", DEFAULT_TENANT}


def test_audit_log_of_the_default_tenant_tells_its_auditor_nothing_of_tenants(of):
    assert of(DEFAULT_TENANT).audit() == []


def test_refusals_of_one_tenant_hide_none_of_another(state, tenants):  # noqa: ARG001 - made
    def refuse(tenant, caller):
        event = AuditEvent(event="release", outcome="refused", tenant=tenant)
        Now(state).log_refusal(event, caller=caller, attested=True)

    for caller in range(300):
        refuse("a", str(caller))
    for tenant in ("b", "", DEFAULT_TENANT):
        refuse(tenant, "0")
    with state.store.reading() as transaction:
        for tenant in ("b", "", DEFAULT_TENANT):
            row = transaction.list_audit(1, tenants=[tenant])[0]
            assert (row["event"], row["detail"]) == ("release", "")


def test_what_was_left_out_is_told_to_the_tenant_whose_it_was(state, tenants):  # noqa: ARG001
    for tenant, count in (("a", 33), ("b", 31)):
        event = AuditEvent(event="release", outcome="refused", tenant=tenant)
        for _ in range(count):
            Now(state).log_refusal(event, caller="x")
    assert state.refusals.take_left_out() == {"a": 3, "b": 1}


def test_denied_admin_is_in_his_tenants_audit_log(of):
    refused(of("a").resources.delete, OF_B)
    row = of("a").audit()[-1]
    assert (row["event"], row["outcome"], row["path"]) == ("admin", "refused", OF_B)
    assert row["admin"].startswith("owner-")
    assert of("b").audit(outcome="refused") == []


def test_change_by_an_admin_who_was_removed_meanwhile_refused(state, of):
    a = of("a")
    with state.store.transaction() as transaction:
        transaction.delete_admin(a.admin.id)
        transaction.insert_admin(replace(a.admin, roles=frozenset({"auditor"})))
    for call in (
        lambda: a.resources.put(OF_A, secret(), replace=False),
        lambda: a.resources.delete(OF_A),
        lambda: a.resources.bind(OF_A, binding()),
        lambda: a.resources.set_policy(ALLOW),
        lambda: a.resources.set_attestation_policy("cpu", None),
        lambda: a.references.set(values("x", 1), add=False),
        lambda: a.references.delete("x"),
        lambda: Now(Tenants(state), a.admin).add("c"),
    ):
        refusal = refused(call)
        assert (refusal.name, "removed or changed" in refusal.detail) == ("AdminAuthAccess", True)


# --- what guests get


@pytest.fixture
def stored(of):
    for name, path in (("a", OF_A), ("b", OF_B), (DEFAULT_TENANT, OF_DEFAULT)):
        of(name).resources.put(path, secret(name.encode()), replace=False)
        of(name).resources.bind(path, binding())
    return of


def released(state, guest, paths):
    cookie, _ = guest.attest()
    asked = Asked(paths, [str(IMAGE)])
    answers = Now(Releases(state)).release(Credentials(cookie=cookie), asked).bodies
    found = []
    for answer in answers:
        with open_answer(answer, guest.key) as opened, opened.view() as data:
            found.append(bytes(data))
    return found


def test_release_is_judged_by_the_policy_of_who_owns_the_repository(state, stored, guest):
    stored("a").resources.set_policy(ALLOW)
    stored("b").resources.set_policy(DENY)
    assert released(state, guest, [OF_A]) == [b"a"]
    assert released(state, guest, [OF_DEFAULT]) == [DEFAULT_TENANT.encode()]
    refusal = refused(released, state, guest, [OF_B])
    assert (refusal.name, refusal.rule) == ("PolicyDeny", "none")
    for name, outcome in (("a", "ok"), ("b", "refused"), (DEFAULT_TENANT, "ok")):
        rows = stored(name).audit(event="release")
        assert [row["outcome"] for row in rows] == [outcome]


def test_release_of_several_tenants_is_judged_by_each_or_not_at_all(state, stored, guest):
    assert released(state, guest, [OF_A, OF_B]) == [b"a", b"b"]
    for name in ("a", "b"):
        assert [row["path"] for row in stored(name).audit(event="release")] == [f"of-{name}/key/1"]
    stored("b").resources.set_policy(DENY)
    assert refused(released, state, guest, [OF_A, OF_B]).name == "PolicyDeny"
    assert [row["outcome"] for row in stored("a").audit(event="release")] == ["ok"]
    assert [row["outcome"] for row in stored("b").audit(event="release")] == ["ok", "refused"]


def test_policy_in_rego_is_asked_in_its_tenants_process(state, stored, guest):
    class Engine:
        def __init__(self):
            self.asked = []

        async def decide(self, tenant, text, **_):
            self.asked.append((tenant, text))
            return Decision(allow=False)

        async def appraise(self, tenant, text, **_):
            self.asked.append((tenant, text))
            return Appraised({"executables": 33})

    stored("a").resources.set_policy(REGO)
    stored("b").resources.set_attestation_policy("cpu", REGO)
    engine = Engine()
    watched = replace(state, engine=engine)
    assert refused(released, watched, guest, [OF_A]).name == "PolicyDeny"
    assert released(watched, guest, [OF_B]) == [b"b"]  # the sample TEE is believed
    assert released(watched, guest, [OF_DEFAULT]) == [DEFAULT_TENANT.encode()]
    assert engine.asked == [("a", REGO.decode()), ("b", REGO.decode())]


def test_release_in_no_repository_is_the_default_tenants_and_of_no_path_nobodys(
    state, stored, guest
):
    cookie, _ = guest.attest()
    release = Release(state)
    for path, status in (("unknown/key/1", 404), ("of-a", 404)):
        assert refused(release, Credentials(cookie=cookie), path, [str(IMAGE)]).status == status
    rows = stored(DEFAULT_TENANT).audit(event="release")
    assert [row["path"] for row in rows] == ["unknown/key/1"]
    with state.store.reading() as transaction:
        row = transaction.list_audit(1, tenants=[""])[0]
    assert (row["event"], row["path"]) == ("release", "of-a")


def test_guest_without_a_session_is_in_the_audit_log_of_whose_secret_it_wanted(state, stored):
    refusal = refused(Release(state), Credentials(bearer="a.b.c"), OF_A)
    assert refusal.name == "TokenVerifierError"
    assert [row["outcome"] for row in stored("a").audit(event="release")] == ["refused"]
    assert stored("b").audit(event="release") == []


def test_release_sees_a_new_owner_at_once(state, tenants, admin, stored, guest):
    path = "free/key/1"
    stored("b").resources.set_policy(ALLOW)
    stored("a").resources.set_policy(DENY)
    tenants.assign(admin, "free", owner("b"))
    stored("b").resources.put(path, secret(), replace=False)
    released(state, guest, [path])
    stored("b").resources.delete(path, permanently=True)
    assert refused(released, state, guest, [path]).name == "ResourceNotFound"
    tenants.assign(admin, "free", owner("a"))
    stored("a").resources.put(path, secret(), replace=False)
    assert refused(released, state, guest, [path]).name == "PolicyDeny"
