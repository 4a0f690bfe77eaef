# SPDX-License-Identifier: Apache-2.0
import os
import secrets
import stat
from dataclasses import replace

import pytest

from imagers.broker import rotation
from imagers.broker.config import BrokerConfig
from imagers.broker.headfile import HeadFile
from imagers.broker.keeping.database import StoreFailed
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.resources import Resources
from imagers.broker.rotation import make_next_key, rotate
from imagers.broker.sealing import RESOURCE_KIND
from imagers.broker.start import open_state
from imagers.errors import LocalError
from imagers.kbs.resources import parse_resource_path
from imagers.model.keys import SecretKey
from tests.unit.broker.conftest import Now, first_admin
from tests.unit.broker.keeping.conftest import server  # noqa: F401 - a fixture

PATHS = [f"default/key/{number}" for number in range(7)]


@pytest.fixture
def config(tmp_path):
    return BrokerConfig(state_directory=tmp_path / "state")


def put(state, path, secret=None):
    Now(Resources(state), first_admin(state)).put(
        path, SecretKey(secret or path.encode()), replace=False
    )


def secret_of(state, path):
    with state.store.reading() as transaction:
        found = transaction.find_resource(parse_resource_path(path))
    named = {"kind": RESOURCE_KIND, "name": path, "version": found.version}
    with state.sealer.open(found.sealed, **named) as secret, secret.view() as data:
        return bytes(data)


def keys_in(state):
    """The ids of the master keys that values of a store name."""
    with state.store.reading() as transaction:
        paths = transaction.all_resources()
        sealed = [transaction.find_resource(path).sealed for path in paths]
        sealed += [transaction.get_setting(name) for name in rotation.OWN_KEYS]
        return {state.sealer.key_of(one) for one in sealed}, transaction.store_row().head_key


def filled(config):
    state = open_state(config)
    for path in PATHS:
        put(state, path)
    return state


def rotated(config):
    make_next_key(config)
    return rotate(config)


def test_all_is_sealed_with_another_key_which_takes_the_place_of_the_first(config):
    filled(config).close()
    before = config.master_key_file.read_bytes()
    done = rotated(config)
    assert done.sealed == len(PATHS) + len(rotation.OWN_KEYS)
    assert done.before != done.key
    assert config.master_key_file.read_bytes() != before
    assert done.old_file.read_bytes() == before
    assert stat.S_IMODE(config.master_key_file.stat().st_mode) == 0o600
    assert not config.next_key_file.exists()
    with open_state(config) as state:
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS
        assert keys_in(state) == ({done.key}, done.key)
        assert state.sealer.ids == (done.key,)


def test_former_key_opens_nothing_any_more(config):
    filled(config).close()
    done = rotated(config)
    done.old_file.replace(config.master_key_file)
    with pytest.raises(LocalError, match="does not open the store"):
        open_state(config)


def test_former_versions_are_sealed_anew_too_and_come_back(config):
    path = PATHS[0]
    with filled(config) as state:
        resources = Now(Resources(state), first_admin(state))
        resources.put(path, SecretKey(b"another"), replace=True)
        resources.delete(PATHS[1])
    done = rotated(config)
    assert done.sealed == len(PATHS) + 1 + len(rotation.OWN_KEYS)
    done.old_file.unlink()
    with open_state(config) as state:
        resources = Now(Resources(state), first_admin(state))
        for one, version in ((path, 1), (PATHS[1], None)):
            resources.undelete(one, version)
            assert secret_of(state, one) == one.encode()


def test_broker_that_serves_goes_on_and_seals_with_the_next_key(config):
    with filled(config) as state:
        cookie, _ = state.challenges.issue("sample", algorithm="sha256", expires_ms=1)
        done = rotated(config)
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS
        put(state, "default/new/1")
        assert secret_of(state, "default/new/1") == b"default/new/1"
        assert keys_in(state) == ({done.key}, done.key)
        assert state.challenges.open_cookie(cookie) is not None
    with open_state(config) as state:
        assert secret_of(state, "default/new/1") == b"default/new/1"
        with state.store.reading() as transaction:
            rows = transaction.list_audit(100, {"event": "rotate"})
    assert [row["detail"] for row in rows] == [
        f"master key {done.key} is in force",
        f"{done.sealed} values were sealed anew; master key {done.before} is in use no more",
    ]


class Killed(BaseException):
    pass


STEPS = [
    (rotation.Store, "unseal", 0),
    (rotation, "_seal_own_keys", 0),
    (rotation, "_seal_some", 0),
    (rotation, "_seal_some", 1),
    (rotation, "_seal_some", 2),
    (HeadFile, "write", 0),
    (rotation, "_exchange_files", 0),
    (rotation, "sync_directory", 0),
]


@pytest.mark.parametrize(("where", "name", "calls"), STEPS, ids=lambda one: str(one)[-30:])
def test_rotation_that_was_cut_off_is_continued_and_brokers_start_meanwhile(
    config, monkeypatch, where, name, calls
):
    monkeypatch.setattr(rotation, "_ROWS", 2)
    filled(config).close()
    make_next_key(config)
    left = [calls]
    real = getattr(where, name)

    def kill(*arguments, **named):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, kill)
        with pytest.raises(Killed):
            rotate(config)
    with open_state(config) as state:
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS
        put(state, "default/new/1")
    done = rotated(config)
    with open_state(config) as state:
        assert keys_in(state) == ({done.key}, done.key)
        assert secret_of(state, "default/new/1") == b"default/new/1"
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS


def test_next_key_is_made_once_and_only_for_a_store_that_is_there(config):
    with pytest.raises(LocalError, match="there is no store") as caught:
        make_next_key(config)
    assert "--state" in caught.value.hint
    assert not config.state_directory.exists()
    open_state(config).close()
    assert make_next_key(config)
    assert not make_next_key(config)


def by_descriptor(config, *keys):
    read, write = os.pipe()
    os.write(write, b"".join(keys))
    os.close(write)
    return replace(config, master_key_fd=read)


def test_keys_by_a_descriptor_are_rotated_without_a_file(config):
    one, other = b"1" * 32, b"2" * 32
    filled(by_descriptor(config, one)).close()
    with pytest.raises(LocalError, match="expected the master key in force and the next one"):
        rotate(by_descriptor(config, one))
    with open_state(by_descriptor(config, one, other)) as state:
        done = rotate(by_descriptor(config, one, other))
        assert done.old_file is None
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS
    with open_state(by_descriptor(config, other)) as state:
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS
    with pytest.raises(LocalError, match="does not open the store"):
        open_state(by_descriptor(config, one))


def test_values_from_before_there_were_ids_are_sealed_anew(config):
    with filled(config) as state, state.store.transaction() as transaction:
        found = transaction.find_resource(parse_resource_path(PATHS[0]))
        key = config.master_key_file.read_bytes()
        transaction.sealed.remove("resources", PATHS[0])
        without_id = _sealed_without_id(key, PATHS[0], found.version)
        transaction.insert_resource(replace(found, sealed=without_id))
    with open_state(config) as state:
        assert secret_of(state, PATHS[0]).decode() == PATHS[0]
    done = rotated(config)
    with open_state(config) as state:
        assert keys_in(state) == ({done.key}, done.key)
        assert secret_of(state, PATHS[0]).decode() == PATHS[0]


def _sealed_without_id(key, name, version):
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(12)
    place = f"imagers-broker seal v1\0{RESOURCE_KIND}\0{name}\0{version}".encode()
    return nonce + AESGCM(key).encrypt(nonce, name.encode(), place)


def test_other_broker_of_the_store_waits_for_the_key_and_then_goes_on(tmp_path, server):  # noqa: F811
    url = server.new_database(f"t{secrets.token_hex(8)}")
    one = BrokerConfig(state_directory=tmp_path / "one", database=url, name="one")
    two = BrokerConfig(state_directory=tmp_path / "two", database=url, name="two")
    with filled(one) as first:
        two.state_directory.mkdir(mode=0o700)
        for name in ("master.key", "admin.pub"):
            (two.state_directory / name).write_bytes((one.state_directory / name).read_bytes())
            (two.state_directory / name).chmod(0o600)
        with open_state(two) as second:
            make_next_key(one)
            next_key = one.next_key_file.read_bytes()
            done = rotate(one)
            assert secret_of(first, PATHS[0]).decode() == PATHS[0]
            with pytest.raises(StoreFailed, match=f"sealed with the master key {done.key}") as no:
                secret_of(second, PATHS[0])
            assert "master.next" in no.value.hint
            two.next_key_file.write_bytes(next_key)
            two.next_key_file.chmod(0o600)
            assert secret_of(second, PATHS[0]).decode() == PATHS[0]
            put(second, "default/new/2")
            assert secret_of(first, "default/new/2") == b"default/new/2"
    two.next_key_file.replace(two.master_key_file)
    with open_state(two) as second:
        assert keys_in(second) == ({done.key}, done.key)


def test_rotation_changes_nothing_else(config):
    with filled(config) as state, state.store.reading() as transaction:
        policy = transaction.get_policy(DEFAULT_TENANT, "policy")
        found = transaction.find_resource(parse_resource_path(PATHS[0]))
    rotated(config)
    with open_state(config) as state, state.store.reading() as transaction:
        assert transaction.get_policy(DEFAULT_TENANT, "policy") == policy
        again = transaction.find_resource(parse_resource_path(PATHS[0]))
    assert again.sealed != found.sealed
    assert replace(again, sealed=b"") == replace(found, sealed=b"")
