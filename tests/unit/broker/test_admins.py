# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from imagers.broker.admins import (
    ROLES,
    Right,
    approving_keys,
    by_admin,
    check_admin_token,
    find_admins,
    has_right,
    require_right,
    shown_admin,
)
from imagers.broker.audit import AuditEvent
from imagers.broker.keeping.rows import Admin
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.refusals import Refusal
from imagers.broker.rules import LastRules
from imagers.broker.tokens import GuestTokens, make_signing_key
from imagers.kbs.wire import admin_key_id
from imagers.pki.jose import sign_token

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LAST = 253_402_300_799  # 9999-12-31T23:59:59Z
KEY, OTHER = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
GOOD = {
    "iat": int(NOW.timestamp()),
    "nbf": int(NOW.timestamp()),
    "exp": int(NOW.timestamp()) + 60,
    "role": "admin",
}


def admin_of(key, tenant=DEFAULT_TENANT, name="alice", roles=("owner",)):
    public = key.public_key()
    return Admin(
        id=admin_key_id(public),
        tenant=tenant,
        name=name,
        roles=frozenset(roles),
        public_key=public.public_bytes_raw(),
    )


ALICE, BOB = admin_of(KEY), admin_of(OTHER, "team", "bob")


def admin_token(key=KEY, header=None, **changes):
    payload = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return sign_token(payload, key=key, header=header)


def refused(call, *arguments, **named):
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nbf": None},
        {"iss": "someone"},
        {"iat": GOOD["iat"] + 30, "nbf": GOOD["iat"] + 30},
        {"exp": GOOD["iat"] + 600},
        {"exp": GOOD["iat"] - 25, "iat": GOOD["iat"] - 60, "nbf": None},
    ],
    ids=str,
)
def test_good_token_is_of_the_admin_whose_key_signed_it(changes):
    assert check_admin_token(admin_token(**changes), [BOB, ALICE], now=NOW) == ALICE


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({"role": None}, "role 'admin'"),
        ({"role": "Admin"}, "role 'admin'"),
        ({"role": ["admin"]}, "expected a string"),
        ({"exp": None}, "is missing"),
        ({"iat": None}, "is missing"),
        ({"exp": GOOD["iat"] + 601}, "at most 600 s"),
        ({"iat": GOOD["iat"] + 31}, "from the future"),
        ({"nbf": GOOD["iat"] + 31}, "from the future"),
        ({"iat": GOOD["iat"] - 90, "exp": GOOD["iat"] - 30}, "has expired"),
        ({"exp": LAST}, "at most 600 s"),
        ({"exp": LAST + 1}, "from 0 to"),
        ({"iat": -1}, "from 0 to"),
        ({"exp": True}, "whole number"),
        ({"exp": 1e9}, "whole number"),
    ],
    ids=str,
)
def test_bad_token_refused(changes, piece):
    refusal = refused(check_admin_token, admin_token(**changes), [ALICE], now=NOW)
    assert refusal.name == "AdminAuthAccess"
    assert piece in refusal.detail


def test_token_of_another_key_refused():
    for admins in ([], [BOB]):
        assert refused(check_admin_token, admin_token(), admins, now=NOW).status == 401


def test_token_of_a_guest_is_none_of_an_admin_and_the_other_way_round():
    with make_signing_key() as private:
        guests, key = GuestTokens(private), _loaded(private)
        token = sign_token(GOOD, key=key)
        assert refused(check_admin_token, token, [ALICE], now=NOW).name == "AdminAuthAccess"
        assert refused(guests.check, admin_token(), now=NOW).name == "TokenVerifierError"


def _loaded(private):
    with private.view() as data:
        return load_pem_private_key(bytes(data), None)


def test_token_that_names_its_key_is_of_an_admin_of_any_tenant(state):
    with state.store.transaction() as transaction:
        transaction.insert_admin(BOB)
        named = admin_token(OTHER, {"kid": BOB.id})
        assert find_admins(transaction, named, LastRules()) == (BOB,)
        for kid in (BOB.id.upper(), BOB.id[:12], "0" * 64, "", "\0"):
            assert find_admins(transaction, admin_token(OTHER, {"kid": kid}), LastRules()) == ()


@pytest.mark.parametrize(
    "kid",
    [BOB.id + "0", BOB.id + "\n", "0" * 63, "\0", "é"],
    ids=["longer", "with a line feed", "shorter", "nothing", "no digit"],
)
def test_text_that_is_no_id_of_a_key_is_not_looked_up(kid):
    """A database may fail at it, and anybody may send it."""
    assert find_admins(None, admin_token(OTHER, {"kid": kid}), LastRules()) == ()


def test_token_that_names_no_key_is_of_an_admin_of_the_default_tenant(state, admin):
    """So that who proves nothing makes a broker try a bounded number of keys."""
    with state.store.transaction() as transaction:
        transaction.insert_admin(BOB)
        assert find_admins(transaction, admin_token(OTHER), LastRules()) == (admin,)


@pytest.mark.parametrize("token", ["", "a.b.c", "é", "x" * 200_000])
def test_text_that_is_no_token_refused(state, token):
    with state.store.reading() as transaction:
        assert refused(find_admins, transaction, token, LastRules()).name == "AdminAuthAccess"


def test_roles_have_the_rights_that_are_written_down():
    wanted = {
        "owner": {Right.SEE, Right.WRITE, Right.READ, Right.RULE, Right.APPOINT},
        "writer": {Right.SEE, Right.WRITE},
        "auditor": {Right.SEE, Right.READ},
        "operator": {Right.OPERATE},
    }
    assert wanted == ROLES
    for role, rights in wanted.items():
        admin = replace(ALICE, roles=frozenset({role}))
        assert {one for one in Right if has_right(admin, one)} == rights


def test_admin_without_the_right_is_told_which_role_has_it():
    admin = replace(ALICE, roles=frozenset({"auditor", "operator"}))
    require_right(admin, Right.READ)
    require_right(admin, Right.WRITE, Right.OPERATE)
    refusal = refused(require_right, admin, Right.WRITE)
    assert (refusal.name, refusal.status) == ("RoleDenied", 403)
    assert refusal.detail == (
        "to change secrets is for the role owner or writer: the key 'alice' has auditor, operator"
    )
    assert refused(require_right, replace(ALICE, roles=frozenset()), *Right).status == 403


def test_keys_of_who_may_change_secrets_approve_and_no_others():
    keys = {role: ed25519.Ed25519PrivateKey.generate() for role in ROLES}
    admins = {role: admin_of(key, roles=[role]) for role, key in keys.items()}
    assert approving_keys(admins.values()) == {
        admins[role].id: admins[role].public_key for role in ("owner", "writer")
    }


def test_row_of_what_an_admin_did_is_his_tenants_and_names_him():
    told = by_admin(BOB, event="put", path="a/b/c", image="sha256:00", detail="why")
    assert told == AuditEvent(
        event="put",
        outcome="ok",
        tenant="team",
        path="a/b/c",
        image="sha256:00",
        admin=shown_admin(BOB),
        detail="why",
    )
    told = by_admin(BOB, event="policy", outcome="refused")
    assert (told.event, told.outcome) == ("policy", "refused")
    assert told.path == told.image == told.detail == ""


def test_shown_admin_is_told_apart_where_a_name_is_given_again():
    assert shown_admin(ALICE) == f"alice {ALICE.id[:12]}"
    assert json.dumps(shown_admin(ALICE)) != json.dumps(shown_admin(admin_of(OTHER)))
