# SPDX-License-Identifier: Apache-2.0
import json
import os
import secrets
import shutil
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from hashlib import sha256

import pytest

from imagers.broker import backup
from imagers.broker.backup import make_backup, restore
from imagers.broker.config import BrokerConfig
from imagers.broker.keeping.database import StoreFailed
from imagers.broker.keeping.rows import Approval
from imagers.broker.keeping.sealed import Altered
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.rotation import rotate
from imagers.broker.start import open_state
from imagers.errors import FormatError, LocalError
from imagers.kbs.resources import parse_resource_path
from imagers.model.digest import digest_of
from imagers.model.references import ReferenceValue
from tests.unit.broker.keeping.conftest import server  # noqa: F401 - a fixture
from tests.unit.broker.test_rotation import PATHS, filled, put, rotated, secret_of

IMAGE = digest_of(b"image")


@pytest.fixture(params=["sqlite", "postgresql"])
def kinds(request, tmp_path):
    """Configurations of two brokers, each of a store of its own, in two kinds of database."""

    def config(name, kind):
        url = None
        if kind == "postgresql":
            url = request.getfixturevalue("server").new_database(f"t{secrets.token_hex(8)}")
        return BrokerConfig(state_directory=tmp_path / name, database=url)

    other = {"sqlite": "postgresql", "postgresql": "sqlite"}[request.param]
    return config("one", request.param), config("other", other)


@pytest.fixture
def config(tmp_path):
    return BrokerConfig(state_directory=tmp_path / "one")


@pytest.fixture
def other(tmp_path):
    return BrokerConfig(state_directory=tmp_path / "other")


def bring_key(config, other):
    other.state_directory.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(config.master_key_file, other.master_key_file)


def fill(config):
    with filled(config) as state, state.store.transaction() as transaction:
        transaction.add_binding(parse_resource_path(PATHS[0]), IMAGE, by="", at="")
        revoked = transaction.find_image("default", IMAGE)
        transaction.set_image(replace(revoked, state="revoked", reason="why"))
        transaction.set_floor("default", 1)
        transaction.set_approval("default", IMAGE, Approval("ann", 5, b"x"))
        transaction.set_reference_value(DEFAULT_TENANT, ReferenceValue("code", ("v1", 2, True)))
        transaction.insert_tenant("theirs")
        transaction.set_owner("of-theirs", "theirs")
        transaction.keep_collateral({"crl": 2**159})


def look(state):
    with state.store.reading() as transaction:
        rows = [
            (dict(row), hashed)
            for row, hashed in transaction.audit_chains()
            if row["event"] not in ("start", "restore")
        ]
        return (
            transaction.all_resources(),
            [transaction.find_resource(path) for path in transaction.all_resources()],
            transaction.bindings(parse_resource_path(PATHS[0])),
            [transaction.former_resources(path) for path in transaction.all_former_resources()],
            transaction.list_images("default"),
            transaction.approvals("default"),
            transaction.floors(),
            transaction.reference_values(DEFAULT_TENANT),
            transaction.tenants(),
            transaction.owners(),
            transaction.get_policy(DEFAULT_TENANT, "policy"),
            transaction.seen_collateral(),
            rows,
        )


def test_backup_is_in_force_again_in_the_other_kind_of_database(kinds, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "_PAGE", 3)
    monkeypatch.setattr(backup, "_LARGE_PAGE", 2)
    one, other = kinds
    fill(one)
    made = make_backup(one, tmp_path / "backup")
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
    bring_key(one, other)
    done = restore(other, tmp_path / "backup")
    assert (done.number, done.rows, done.is_older) == (made.number, made.rows, False)
    with open_state(one) as state:
        wanted = look(state)
    with open_state(other) as state:
        assert look(state) == wanted
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS
        put(state, "default/new/1")


def test_backup_is_made_while_a_broker_serves_and_is_of_one_moment(config, other, tmp_path):
    fill(config)
    with open_state(config) as state:
        real = backup._rows

        def rows(run, name):
            if name == "bindings":
                put(state, "default/late/1")
            yield from real(run, name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backup, "_rows", rows)
            make_backup(config, tmp_path / "backup")
    bring_key(config, other)
    restore(other, tmp_path / "backup")
    with open_state(other) as state, state.store.reading() as transaction:
        assert [str(path) for path in transaction.all_resources()] == PATHS


def test_backup_has_no_secret_and_no_master_key(config, tmp_path):
    with filled(config) as state:
        put(state, "default/x/1", b"a very secret secret")
    make_backup(config, tmp_path / "backup")
    data = (tmp_path / "backup").read_bytes()
    assert b"a very secret" not in data
    assert config.master_key_file.read_bytes() not in data


def rewritten(path, change):
    """The file with other lines, and the digest of those."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()][:-1]
    change(lines)
    data = b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in lines)
    end = {"rows": len(lines) - 1, "sha256": sha256(data).hexdigest()}
    path.write_bytes(data + json.dumps(end).encode() + b"\n")


def drop(table):
    def change(lines):
        lines.remove(next(one for one in lines[1:] if one[0] == table))

    return change


def without_rows(table):
    def change(lines):
        lines[1:] = [one for one in lines[1:] if one[0] != table]

    return change


def lower(lines):
    lines[0]["changes"] -= 1


def higher(lines):
    lines[0]["changes"] += 1


def other_binding(lines):
    row = next(one for one in lines[1:] if one[0] == "bindings")
    lines.append([*row[:2], f"{row[2][:-1]}x"])


def other_policy(lines):
    row = next(one for one in lines[1:] if one[0] == "policies")
    row[3] = {"b": ""}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop("bindings"), "is missing"),
        (drop("resources"), "is missing"),
        (without_rows("seals"), "not those of its head"),
        (without_rows("buckets"), "none of the brokers'"),
        (lower, "none of the brokers'"),
        (higher, "none of the brokers'"),
        (other_binding, "no broker made the row"),
        (other_policy, "not what a broker made it"),
    ],
)
def test_backup_that_was_changed_is_not_put_in_force(config, other, tmp_path, change, told):
    fill(config)
    make_backup(config, tmp_path / "backup")
    rewritten(tmp_path / "backup", change)
    bring_key(config, other)
    with pytest.raises(Altered, match=told):
        restore(other, tmp_path / "backup")
    with open_state(other) as state, state.store.reading() as transaction:
        assert transaction.all_resources() == ()


def other_value(table, at, value):
    def change(lines):
        next(one for one in lines[1:] if one[0] == table)[at] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        other_value("bindings", 1, 10**30),
        other_value("bindings", 1, None),
        other_value("bindings", 1, "\ud800"),
        other_value("bindings", 1, "a\0"),
        other_value("resources", 3, 10**30),
        other_value("resources", 3, True),
        other_value("resources", 2, "x"),
        other_value("audit", 2, "x"),
        other_value("audit", -1, "x"),
        other_value("settings", 2, "x"),
        other_value("seals", 1, -(2**63)),
        other_value("audit_heads", 3, 5),
    ],
)
def test_value_of_another_kind_is_refused_before_anything_is_made(config, other, tmp_path, change):
    fill(config)
    with open_state(config) as state, state.store.transaction() as transaction:
        state.audit_heads.sign(transaction)
    make_backup(config, tmp_path / "backup")
    rewritten(tmp_path / "backup", change)
    bring_key(config, other)
    with pytest.raises(FormatError, match="has a value that is none"):
        restore(other, tmp_path / "backup")
    assert not other.store_file.exists()


@pytest.mark.parametrize("name", ["[[1,[2]],3]", '[{"a":1}]', "[null]", "[" * 9000, "5"])
def test_seal_that_is_none_is_told(config, other, tmp_path, name):
    fill(config)
    make_backup(config, tmp_path / "backup")
    rewritten(tmp_path / "backup", other_value("seals", 2, name))
    bring_key(config, other)
    with pytest.raises(Altered, match="it has a seal that is none"):
        restore(other, tmp_path / "backup")


def cut(data):
    return data[:-40]


def flipped(data):
    at = data.index(b'"reference_values","default"') + 30
    return data[:at] + b"x" + data[at + 1 :]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (cut, "cut off"),
        (flipped, "not what was written"),
        (lambda data: data + b"{}\n", "not what was written"),
        (lambda _: b'{"x": 1}\n', "is no backup"),
        (lambda _: b"\0" * 100 + b"\n", "JSON"),
        (lambda _: b"", "cut off"),
        (lambda data: data.replace(b'"created_at"', b'"made_at"', 1), "another version"),
        (lambda data: data.replace(b'["bindings",', b'["store",', 1), "has no row in line"),
        (lambda data: data.replace(b'["bindings",', b'["bindings",1,', 1), "has no row in line"),
    ],
)
def test_file_that_is_no_backup_is_refused_before_anything_is_made(
    config, other, tmp_path, change, told
):
    fill(config)
    path = tmp_path / "backup"
    make_backup(config, path)
    path.write_bytes(change(path.read_bytes()))
    bring_key(config, other)
    with pytest.raises(FormatError, match=told):
        restore(other, path)
    assert not other.store_file.exists()


def test_restore_without_the_master_key_or_with_another_one_refused(config, other, tmp_path):
    fill(config)
    make_backup(config, tmp_path / "backup")
    with pytest.raises(LocalError, match="the master key is missing") as caught:
        restore(other, tmp_path / "backup")
    assert "bring the file back" in caught.value.hint
    assert not other.master_key_file.exists()
    bring_key(config, other)
    other.master_key_file.write_bytes(bytes(32))
    with pytest.raises(StoreFailed, match="sealed with the master key"):
        restore(other, tmp_path / "backup")


def test_descriptor_that_nobody_gave_is_refused_before_a_file_of_ours_gets_it(
    config, other, tmp_path
):
    fill(config)
    make_backup(config, tmp_path / "backup")
    unused = os.dup(0)
    os.close(unused)
    for use in (
        lambda: restore(replace(other, master_key_fd=unused), tmp_path / "backup"),
        lambda: open_state(replace(other, master_key_fd=unused)),
        lambda: rotate(replace(config, master_key_fd=unused)),
    ):
        with pytest.raises(LocalError, match=f"descriptor {unused}: cannot be read: bad file"):
            use()
    assert not other.state_directory.exists()


def test_restore_over_a_store_refused(config, tmp_path):
    fill(config)
    make_backup(config, tmp_path / "backup")
    with pytest.raises(LocalError, match="expected an empty store") as caught:
        restore(config, tmp_path / "backup")
    assert "move what is there away" in caught.value.hint


def test_restore_over_a_store_that_has_keys_and_no_head_refused(config, other, tmp_path):
    fill(config)
    make_backup(config, tmp_path / "backup")
    bring_key(config, other)
    open_state(other).close()
    with closing(sqlite3.connect(other.store_file)) as connection:
        connection.execute("UPDATE store SET head = NULL")
        connection.commit()
    with pytest.raises(LocalError, match="expected an empty store"):
        restore(other, tmp_path / "backup")


def test_restore_where_a_broker_begins_meanwhile_refused(config, other, tmp_path, monkeypatch):
    fill(config)
    make_backup(config, tmp_path / "backup")
    bring_key(config, other)
    real = backup.open_sealer

    def begun(config, store):
        open_state(other).close()
        return real(config, store)

    monkeypatch.setattr(backup, "open_sealer", begun)
    with pytest.raises(LocalError, match="expected an empty store"):
        restore(other, tmp_path / "backup")


def test_restore_beside_a_broker_that_runs_refused(config, other, tmp_path):
    from imagers.broker.server import running

    fill(config)
    make_backup(config, tmp_path / "backup")
    with (
        running(replace(other, port=0)),
        pytest.raises(LocalError, match="another broker runs on this state directory"),
    ):
        restore(other, tmp_path / "backup")


def test_restore_of_an_older_state_brings_no_revoked_image_back(config, tmp_path):
    with open_state(config) as state:
        put(state, PATHS[0])
        with state.store.transaction() as transaction:
            transaction.add_binding(parse_resource_path(PATHS[0]), IMAGE, by="", at="")
        make_backup(config, tmp_path / "backup")
        with state.store.transaction() as transaction:
            image = transaction.find_image("default", IMAGE)
            transaction.set_image(replace(image, state="revoked", reason="why"))
    for one in config.state_directory.glob("broker.sqlite*"):
        one.unlink()
    older = replace(config, accept_older_state=True)
    restore(older, tmp_path / "backup")
    with open_state(older) as state, state.store.transaction() as transaction:
        found = transaction.find_image("default", IMAGE)
        assert (found.state, found.reason) == ("revoked", "why")
        assert transaction.bound_images(parse_resource_path(PATHS[0])) == {IMAGE: found}
        transaction.propose_image("default", digest_of(b"next"), by="", at="")
        assert transaction.list_images("default")[-1].number == 2


def test_restore_of_an_older_state_than_was_seen_refused_unless_it_is_accepted(config, tmp_path):
    fill(config)
    make_backup(config, tmp_path / "backup")
    open_state(config).close()
    config.store_file.unlink()
    with pytest.raises(LocalError, match="it is an old copy") as caught:
        restore(config, tmp_path / "backup")
    assert "--accept-older-state" in caught.value.hint
    done = restore(replace(config, accept_older_state=True), tmp_path / "backup")
    assert done.is_older
    with open_state(config) as state:
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS
        with state.store.reading() as transaction:
            (row,) = transaction.list_audit(100, {"event": "restore"})
    assert row["detail"].endswith("rows, older than what was seen here")


def test_image_that_was_revoked_since_stays_so_after_an_older_backup(config, tmp_path):
    fill(config)
    make_backup(config, tmp_path / "backup")
    new = digest_of(b"new")
    with open_state(config) as state, state.store.transaction() as transaction:
        transaction.propose_image("default", new, by="", at="")
        for digest in (IMAGE, new):
            found = transaction.find_image("default", digest)
            transaction.set_image(replace(found, state="revoked", reason="it leaks"))
    config.store_file.unlink()
    restore(replace(config, accept_older_state=True), tmp_path / "backup")
    with open_state(config) as state, state.store.transaction() as transaction:
        for digest in (IMAGE, new):
            found = transaction.find_image("default", digest)
            assert (found.state, found.reason) == ("revoked", "it leaks")
        transaction.propose_image("default", digest_of(b"newer"), by="", at="")
        numbers = [one.number for one in transaction.list_images("default")]
    assert numbers == sorted(set(numbers))


def test_image_that_was_revoked_since_stays_so_after_a_backup_from_before_a_rotation(
    config, tmp_path
):
    fill(config)
    make_backup(config, tmp_path / "backup")
    new = digest_of(b"new")
    with open_state(config) as state, state.store.transaction() as transaction:
        transaction.propose_image("default", new, by="", at="")
        found = transaction.find_image("default", new)
        transaction.set_image(replace(found, state="revoked", reason="it leaks"))
    done = rotated(config)
    config.store_file.unlink()
    config.master_key_file.rename(tmp_path / "later.key")
    done.old_file.rename(config.master_key_file)
    accepting = replace(config, accept_older_state=True)
    for one in (config, accepting):
        with pytest.raises(LocalError, match="is sealed with the master key") as caught:
            restore(one, tmp_path / "backup")
        assert "as master.next" in caught.value.hint
    (tmp_path / "later.key").rename(config.next_key_file)
    assert restore(accepting, tmp_path / "backup").is_older
    with open_state(config) as state, state.store.reading() as transaction:
        assert transaction.find_image("default", new).state == "revoked"


def test_restore_that_was_killed_puts_nothing_in_force_and_can_be_said_again(
    config, other, tmp_path, monkeypatch
):
    fill(config)
    make_backup(config, tmp_path / "backup")
    bring_key(config, other)

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(
            "imagers.broker.keeping.sealed.SealedRows.verify",
            lambda *_, **__: (_ for _ in ()).throw(Killed),
        )
        with pytest.raises(Killed):
            restore(other, tmp_path / "backup")
    restore(other, tmp_path / "backup")
    with open_state(other) as state:
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS


def test_backup_from_before_a_rotation_opens_with_the_former_key(config, other, tmp_path):
    fill(config)
    make_backup(config, tmp_path / "backup")
    done = rotated(config)
    other.state_directory.mkdir(mode=0o700)
    shutil.copy(done.old_file, other.master_key_file)
    restore(other, tmp_path / "backup")
    with open_state(other) as state:
        assert [secret_of(state, path).decode() for path in PATHS] == PATHS


def test_backup_over_a_file_or_of_no_store_refused_and_makes_nothing(config, tmp_path):
    with pytest.raises(LocalError, match="there is no store"):
        make_backup(config, tmp_path / "backup")
    assert os.listdir(tmp_path) == []
    fill(config)
    (tmp_path / "backup").write_bytes(b"mine")
    with pytest.raises(LocalError):
        make_backup(config, tmp_path / "backup")
    assert (tmp_path / "backup").read_bytes() == b"mine"
    assert sorted(os.listdir(tmp_path)) == ["backup", "one"]
