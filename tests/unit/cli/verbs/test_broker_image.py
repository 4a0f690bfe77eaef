# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from imagers.kbs.admin import BrokerAdmin
from imagers.kbs.tenants import TenantAdmin
from imagers.model.digest import digest_of

IMAGE = ("broker", "image")
URI = "kbs:///default/key/1"
A, B = digest_of(b"a"), digest_of(b"b")


@pytest.fixture
def bound(imagers_broker):
    imagers_broker.put(URI, b"the key", image=A)
    imagers_broker.admin.bind_manifest(URI, B)


@pytest.fixture
def bob(imagers_broker, home):
    """Words as of `admin`, of another admin."""
    key = Ed25519PrivateKey.generate()
    path = home / "bob.key"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with BrokerAdmin(imagers_broker.url, key_file=imagers_broker.admin_key_file) as admin:
        TenantAdmin(admin).add_key("bob", ["writer"], key.public_key())
    return ("--broker", imagers_broker.url, "--broker-admin-key", str(path))


def listed(run, admin, repository="default"):
    return run(*IMAGE, "list", repository, *admin, "--json").json()


def test_list_shows_what_is_known_of_each(run, admin, bound):  # noqa: ARG001
    outcome = run(*IMAGE, "list", "default", *admin)
    rows = outcome.out.splitlines()
    assert rows[0].split("  ")[0] == "digest"
    assert rows[1].split()[:2] == [str(A), "active"]
    facts = listed(run, admin)
    assert [one["digest"] for one in facts["images"]] == [str(A), str(B)]
    assert (facts["repository"], facts["floor"]) == ("default", None)
    assert facts["images"][0]["successor"] is None
    assert facts["images"][0]["approvals"] == []
    assert listed(run, admin, "other")["images"] == []


def test_supersede_revoke_and_floor(run, admin, bound):  # noqa: ARG001
    outcome = run(*IMAGE, "supersede", "default", str(A), "--by", str(B), *admin)
    assert outcome.out == f"{B} follows {A}, which is served still\n"
    outcome = run(*IMAGE, "revoke", "default", str(A), "--reason", "CVE-2026-1", *admin)
    assert outcome.out == f"revoked {A}: no guest gets a key of it any more\n"
    outcome = run(*IMAGE, "floor", "default", str(B), *admin)
    assert outcome.out == f"no image of default older than {B} is served\n"
    facts = listed(run, admin)
    first = facts["images"][0]
    assert (first["state"], first["successor"], first["reason"]) == (
        "revoked",
        str(B),
        "CVE-2026-1",
    )
    assert facts["floor"] == str(B)
    assert run(*IMAGE, "floor", "default", "--none", *admin).out == (
        "no image of default is too old\n"
    )
    assert listed(run, admin)["floor"] is None


def test_approve_by_another_admin_until_a_time(run, admin, bob, bound):  # noqa: ARG001
    outcome = run(*IMAGE, "approve", "default", str(A), "--until", "2999-01-01T00:00:00Z", *bob)
    assert outcome.out == f"approved {A} until 2999-01-01T00:00:00+00:00\n"
    assert listed(run, admin)["images"][0]["approvals"] == [
        {"admin": "bob", "until": "2999-01-01T00:00:00+00:00"}
    ]
    until = run(*IMAGE, "approve", "default", str(B), *bob, "--json").json()["until"]
    ahead = datetime.fromisoformat(until) - datetime.now(UTC)
    assert timedelta(days=364) < ahead <= timedelta(days=365)
    assert "bob" in run(*IMAGE, "list", "default", *admin).out


def test_approve_by_who_bound_it_refused(run, admin, bound):  # noqa: ARG001
    outcome = run(*IMAGE, "approve", "default", str(A), *admin)
    assert outcome.code == 10
    assert "expected another admin than who bound a secret to the image first" in outcome.err


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        (("revoke", "default", "x", "--reason", "y"), 11, "DIGEST: "),
        (("revoke", "default", str(A)), 2, "--reason"),
        (("revoke", "default", str(A), "--reason", "a\nb"), 10, "printable"),
        (("revoke", "a/b", str(A), "--reason", "y"), 11, "repository: expected a name"),
        (("supersede", "default", str(A), "--by", "x"), 11, "--by: "),
        (("supersede", "default", str(A), "--by", str(A)), 10, "leads to"),
        (("approve", "default", str(A), "--until", "soon"), 2, "--until: expected a time"),
        (("approve", "default", str(A), "--until", "2020-01-01T00:00:00Z"), 10, "is over"),
        (("floor", "default"), 2, "or --none"),
        (("floor", "default", str(A), "--none"), 2, "or --none"),
    ],
)
def test_words_that_say_nothing_refused(run, bob, bound, words, code, piece):  # noqa: ARG001
    outcome = run(*IMAGE, *words, *bob)
    assert outcome.code == code
    assert piece in outcome.err


def test_image_that_is_not_known_says_where_to_look(run, admin, bound):  # noqa: ARG001
    outcome = run(*IMAGE, "revoke", "default", str(digest_of(b"c")), "--reason", "x", *admin)
    assert outcome.code == 10
    assert "the repository 'default' has no such image" in outcome.err
    assert "imagers broker image list default" in outcome.err
