# SPDX-License-Identifier: Apache-2.0
import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from imagers.errors import (
    FormatError,
    LocalError,
    NotFound,
    RemoteError,
    Unauthorized,
    Unsupported,
)
from imagers.kbs.admin import BrokerAdmin, load_admin_key
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey

URI = "kbs:///default/key/1"
IMAGE = digest_of(b"manifest")
LATER = datetime(2999, 1, 1, tzinfo=UTC)
SECRET = SecretKey(b"a very secret key-encryption key")


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.fixture
def stranger(embedded, tmp_path):
    path = tmp_path / "stranger.key"
    path.write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    with BrokerAdmin(embedded.url, key_file=path) as admin:
        yield admin


@pytest.fixture
def foreign(scripted, tmp_path):
    """An admin of a broker that is not ours."""
    path = tmp_path / "admin.key"
    path.write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))
    with BrokerAdmin(scripted.url, key_file=path) as admin:
        yield admin


def test_put_then_list_and_metadata_show_it_without_its_bytes(embedded):
    embedded.admin.put_resource(URI, SECRET)
    embedded.admin.bind_manifest(URI, IMAGE)
    found = embedded.admin.metadata(URI)
    assert embedded.admin.list_resources() == (URI,)
    assert (found.uri, found.size, found.version) == (URI, len(SECRET), 1)
    assert found.manifest_digests == (IMAGE,)
    assert found.created_at.endswith("+00:00")


def test_put_existing_refused_and_nothing_changed(embedded):
    embedded.admin.put_resource(URI, SECRET)
    with pytest.raises(RemoteError) as caught:
        embedded.admin.put_resource(URI, SecretKey(b"other"))
    assert caught.value.code == "ResourceExists"
    assert caught.value.status == 409
    assert "--replace" in (caught.value.hint or "")
    assert embedded.admin.metadata(URI).size == len(SECRET)


def test_put_replace_counts_the_version_and_drops_the_bindings(embedded):
    embedded.put(URI, b"one", image=IMAGE)
    embedded.admin.put_resource(URI, SecretKey(b"other"), replace=True)
    found = embedded.admin.metadata(URI)
    assert (found.size, found.version, found.manifest_digests) == (5, 2, ())


def test_put_replace_of_a_free_name_is_a_put(embedded):
    embedded.admin.put_resource(URI, SECRET, replace=True)
    assert embedded.admin.metadata(URI).version == 1


@pytest.mark.parametrize("size", [0, 2 * 1024 * 1024 + 1])
def test_put_secret_out_of_bounds_refused_here(embedded, size):
    with pytest.raises(FormatError, match="expected 1 to 2097152 bytes"):
        embedded.admin.put_resource(URI, SecretKey(bytes(size)))


def test_put_largest_secret_is_kept_and_released(embedded):
    secret = bytes(range(256)) * 8192
    embedded.put(URI, secret, image=IMAGE)
    with (
        embedded.client() as client,
        client.get(URI, manifest_digest=IMAGE) as got,
        got.view() as data,
    ):
        assert bytes(data) == secret


def test_put_from_many_threads_exactly_one_wins(embedded):
    barrier = threading.Barrier(8)
    results = []

    def run(number):
        barrier.wait()
        try:
            embedded.admin.put_resource(URI, SecretKey(b"x" * (number + 1)))
            results.append(number)
        except RemoteError as error:
            results.append(error.code)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [one for one in results if isinstance(one, int)]
    assert results.count("ResourceExists") == 7
    assert embedded.admin.metadata(URI).size == winner + 1


def test_delete_removes_it_and_a_second_time_not_found(embedded):
    embedded.put(URI, b"one", image=IMAGE)
    embedded.admin.delete_resource(URI)
    assert embedded.admin.list_resources() == ()
    with pytest.raises(NotFound, match="no such resource"):
        embedded.admin.delete_resource(URI)


def test_delete_and_put_again_does_not_bring_the_bindings_back(embedded):
    embedded.put(URI, b"one", image=IMAGE)
    embedded.admin.delete_resource(URI)
    embedded.admin.put_resource(URI, SECRET)
    found = embedded.admin.metadata(URI)
    assert (found.version, found.manifest_digests) == (2, ())


def test_metadata_and_bind_of_nothing_not_found(embedded):
    with pytest.raises(NotFound):
        embedded.admin.metadata(URI)
    with pytest.raises(NotFound):
        embedded.admin.bind_manifest(URI, IMAGE)


def test_bind_twice_is_once_and_two_images_are_two(embedded):
    embedded.put(URI, b"one", image=IMAGE)
    embedded.admin.bind_manifest(URI, IMAGE)
    other = digest_of(b"other")
    embedded.admin.bind_manifest(URI, other)
    assert set(embedded.admin.metadata(URI).manifest_digests) == {IMAGE, other}


def test_policy_set_and_get_back_the_same_text(embedded):
    text = '{"rules": [\n]}\n'
    embedded.admin.set_policy(text)
    assert embedded.admin.get_policy() == text


def test_policy_with_a_fault_refused_and_the_old_one_stays(embedded):
    before = embedded.admin.get_policy()
    with pytest.raises(FormatError, match=r"^policy: resource policy at .*'deny'"):
        embedded.admin.set_policy(
            '{"rules":[{"name":"a","effect":"perhaps","resource":"*/*/*","image":"any"}]}'
        )
    assert embedded.admin.get_policy() == before


def test_audit_tells_each_change_in_order_and_its_limit_takes_the_last(embedded):
    embedded.put(URI, b"one", image=IMAGE)
    with pytest.raises(RemoteError):
        embedded.put(URI, b"two")
    embedded.admin.put_resource(URI, SECRET, replace=True)
    embedded.deny()
    embedded.admin.delete_resource(URI)
    rows = embedded.admin.audit()
    assert [(row.event, row.outcome) for row in rows] == [
        ("start", "ok"),
        ("put", "ok"),
        ("bind", "ok"),
        ("put", "refused"),
        ("replace", "ok"),
        ("policy", "ok"),
        ("delete", "ok"),
    ]
    assert len({row.id for row in rows}) == 7
    assert rows[2].path == "default/key/1"
    assert rows[2].image == str(IMAGE)
    assert rows[5].detail == "rules: deny-all"
    assert embedded.admin.audit(2) == rows[-2:]


ACTIONS = {
    "put": lambda admin: admin.put_resource(URI, SECRET),
    "replace": lambda admin: admin.put_resource(URI, SECRET, replace=True),
    "delete": lambda admin: admin.delete_resource(URI),
    "list": lambda admin: admin.list_resources(),
    "metadata": lambda admin: admin.metadata(URI),
    "bind": lambda admin: admin.bind_manifest(URI, IMAGE),
    "get policy": lambda admin: admin.get_policy(),
    "set policy": lambda admin: admin.set_policy("{}"),
    "show attestation policy": lambda admin: admin.get_policy("cpu"),
    "set attestation policy": lambda admin: admin.set_policy("{}", attestation="cpu"),
    "reset attestation policy": lambda admin: admin.reset_attestation_policy("cpu"),
    "undelete": lambda admin: admin.undelete_resource(URI),
    "images": lambda admin: admin.images("default"),
    "approve": lambda admin: admin.approve_image("default", IMAGE, until=LATER),
    "revoke": lambda admin: admin.revoke_image("default", IMAGE, reason="x"),
    "supersede": lambda admin: admin.supersede_image("default", IMAGE, successor=IMAGE),
    "floor": lambda admin: admin.set_image_floor("default", None),
    "audit": lambda admin: admin.audit(),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_with_another_key_refused_and_in_the_audit_log(embedded, stranger, action):
    embedded.put(URI, b"one", image=IMAGE)
    with pytest.raises(Unauthorized) as caught:
        ACTIONS[action](stranger)
    assert caught.value.code == "AdminAuthAccess"
    assert "does not accept the admin key" in str(caught.value)
    assert embedded.admin.metadata(URI).size == 3
    assert (embedded.log[-1].event, embedded.log[-1].outcome) == ("admin", "refused")


def test_admin_with_a_clock_that_is_off_refused_with_a_hint(embedded):
    with (
        embedded.clock_moved(timedelta(minutes=2)),
        pytest.raises(Unauthorized, match="expired") as caught,
    ):
        embedded.admin.list_resources()
    assert "clocks" in (caught.value.hint or "")
    with (
        embedded.clock_moved(-timedelta(minutes=2)),
        pytest.raises(Unauthorized, match="future"),
    ):
        embedded.admin.list_resources()


def test_admin_token_is_short_lived_and_signed_with_eddsa(scripted, foreign):
    scripted.say("/kbs/v0/resource", (200, {}, b"[]"))
    before = int(time.time())
    assert foreign.list_resources() == ()
    token = scripted.requests[0][2]["Authorization"].removeprefix("Bearer ")
    header, payload = (
        json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]
    )
    assert header["alg"] == "EdDSA"
    assert payload["role"] == "admin"
    assert before <= payload["iat"] == payload["nbf"] <= time.time()
    assert payload["exp"] - payload["iat"] == 60


@pytest.mark.parametrize("action", ["metadata", "bind", "get policy", "audit"])
def test_action_that_only_our_broker_has_unsupported_elsewhere(scripted, foreign, action):
    for path in ("metadata/default/key/1", "binding/default/key/1", "policy", "audit"):
        scripted.say_error(f"/kbs/v0/imagers/{path}", 404, "PluginNotFound", "no plugin imagers")
    with pytest.raises(Unsupported, match="cannot") as caught:
        ACTIONS[action](foreign)
    assert "imagers' own broker" in (caught.value.hint or "")


def test_put_to_trustee_is_its_request(scripted, foreign):
    scripted.say("/kbs/v0/resource/default/key/1", (200, {}, b""))
    foreign.put_resource(URI, SECRET)
    method, path, headers, body = scripted.requests[0]
    with SECRET.view() as data:
        assert (method, path, body) == ("POST", "/kbs/v0/resource/default/key/1", bytes(data))
    assert headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("body", [b"{}", b"[1]", b'["../../x"]', b"x"])
def test_list_answer_that_is_none_refused(scripted, foreign, body):
    scripted.say("/kbs/v0/resource", (200, {}, body))
    with pytest.raises(FormatError):
        foreign.list_resources()


def test_load_admin_key_absent_is_local_error(tmp_path):
    with pytest.raises(LocalError, match="admin key cannot be read") as caught:
        load_admin_key(tmp_path / "none")
    assert "broker serve" in (caught.value.hint or "")


def test_load_admin_key_of_another_kind_refused(tmp_path):
    for name, data in {
        "ec": pem(ec.generate_private_key(ec.SECP256R1())),
        "public": ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "noise": b"noise",
        "empty": b"",
    }.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(FormatError, match="Ed25519 private key") as caught:
            load_admin_key(path)
        assert caught.value.what == str(path)


def test_put_with_ends_then_metadata_tells_them(embedded):
    embedded.admin.put_resource(URI, SECRET, expires=LATER, max_uses=3)
    found = embedded.admin.metadata(URI)
    assert (found.expires, found.max_uses, found.uses) == (LATER.isoformat(), 3, 0)
    embedded.admin.put_resource(URI, SECRET, replace=True)
    found = embedded.admin.metadata(URI)
    assert (found.expires, found.max_uses) == (None, None)
    assert [one.max_uses for one in found.former] == [3]


@pytest.mark.parametrize("ends", [{"expires": LATER}, {"max_uses": 1}])
def test_put_with_ends_to_a_broker_that_has_none_stores_nothing(scripted, foreign, ends):
    """It would take the secret and keep it for ever."""
    with pytest.raises(Unsupported):
        foreign.put_resource(URI, SECRET, **ends)
    assert [one[0] for one in scripted.requests] == ["GET"]


def test_undelete_gives_back_what_was_deleted(embedded):
    embedded.put(URI, b"one", image=IMAGE)
    embedded.admin.delete_resource(URI)
    embedded.admin.undelete_resource(URI)
    assert embedded.admin.metadata(URI).manifest_digests == (IMAGE,)
    embedded.admin.delete_resource(URI, permanently=True)
    with pytest.raises(NotFound, match="keeps no former secret of"):
        embedded.admin.undelete_resource(URI)
    with pytest.raises(NotFound, match="keeps no former version 1 of"):
        embedded.admin.undelete_resource(URI, version=1)


def test_images_tell_what_admins_said_of_them(embedded):
    other = digest_of(b"other")
    embedded.put(URI, b"one", image=IMAGE)
    embedded.admin.bind_manifest(URI, other)
    embedded.admin.supersede_image("default", IMAGE, successor=other)
    embedded.admin.revoke_image("default", IMAGE, reason="why")
    embedded.admin.set_image_floor("default", other)
    known = embedded.admin.images("default")
    assert (known.repository, known.floor) == ("default", other)
    assert [(one.digest, one.state) for one in known.images] == [
        (IMAGE, "revoked"),
        (other, "active"),
    ]
    assert (known.images[0].successor, known.images[0].reason) == (other, "why")
    embedded.admin.set_image_floor("default", None)
    assert embedded.admin.images("default").floor is None
    with pytest.raises(RemoteError, match="another admin"):
        embedded.admin.approve_image("default", other, until=LATER)
    with pytest.raises(NotFound, match="'default' has no such image"):
        embedded.admin.revoke_image("default", digest_of(b"unknown"), reason="x")
    for name in ("", "a/b", "a?b"):
        with pytest.raises(FormatError, match="repository: expected a name"):
            embedded.admin.images(name)
