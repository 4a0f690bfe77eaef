# SPDX-License-Identifier: Apache-2.0
import json
import os
import resource
from pathlib import Path

import pytest

from imagers.errors import FormatError, KeyUnavailable, LocalError, Unsupported
from imagers.model.keys import SecretKey
from imagers.sign.keyfiles import (
    load_policy,
    load_private_key,
    locate_policy,
    read_key_file,
    save_key_pair,
)
from imagers.sign.public_key import parse_public_key


@pytest.fixture
def names(tmp_path):
    return str(tmp_path / "a.key"), str(tmp_path / "a.pub")


def test_save_key_pair_loads_again_and_only_the_owner_reads_it(key, names, passphrase):
    old = os.umask(0)
    try:
        save_key_pair(key, *names, passphrase)
    finally:
        os.umask(old)
    assert os.stat(names[0]).st_mode & 0o777 == 0o600
    assert load_private_key(names[0], passphrase).public_key == key.public_key
    assert parse_public_key(Path(names[1]).read_bytes(), what="key") == key.public_key
    with SecretKey(b"wrong") as wrong, pytest.raises(KeyUnavailable) as caught:
        load_private_key(names[0], wrong)
    assert f"key file '{names[0]}'" in str(caught.value)


@pytest.mark.parametrize("existing", [0, 1], ids=["private", "public"])
def test_save_key_pair_over_a_file_changes_nothing(key, names, passphrase, existing, tmp_path):
    (tmp_path / os.path.basename(names[existing])).write_text("mine")
    with pytest.raises(LocalError) as caught:
        save_key_pair(key, *names, passphrase)
    assert caught.value.path == names[existing]
    assert "exists" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [os.path.basename(names[existing])]
    assert (tmp_path / os.path.basename(names[existing])).read_text() == "mine"


@pytest.mark.parametrize("room", [100, 400], ids=["private half", "public half"])
def test_save_key_pair_on_a_full_disk_leaves_nothing(key, tmp_path, passphrase, room, monkeypatch):
    """A limit on file sizes stands for the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    public = key.public_key
    if room == 400:  # room for a private half of 1 byte, none for the public one
        monkeypatch.setattr("imagers.sign.keyfiles.seal_private_key", lambda *_: b"x")
        room = len(public.to_pem()) - 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(LocalError) as caught:
            save_key_pair(key, str(tmp_path / "a.key"), str(tmp_path / "a.pub"), passphrase)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "file too large" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_save_key_pair_through_a_dangling_link_is_refused(key, names, passphrase, tmp_path):
    os.symlink(tmp_path / "elsewhere", names[0])
    with pytest.raises(LocalError):
        save_key_pair(key, *names, passphrase)
    assert not (tmp_path / "elsewhere").exists()


def test_save_key_pair_in_a_missing_directory_says_the_path(key, tmp_path, passphrase):
    path = str(tmp_path / "none" / "a.key")
    with pytest.raises(LocalError) as caught:
        save_key_pair(key, path, str(tmp_path / "a.pub"), passphrase)
    assert str(caught.value) == f"{path}: no such file or directory"


def test_read_key_file_takes_paths_and_file_uris(tmp_path):
    (tmp_path / "a.pub").write_bytes(b"pem")
    assert read_key_file(str(tmp_path / "a.pub")) == b"pem"
    assert read_key_file(f"file://{tmp_path}/a.pub") == b"pem"


@pytest.mark.parametrize("path", ["/nonexistent/a.pub", "a\0b", "a\ud800b", "/"])
def test_read_key_file_that_cannot_be_read_is_a_local_error(path):
    with pytest.raises(LocalError) as caught:
        read_key_file(path)
    assert caught.value.path == path
    assert caught.value.exit_code == 13


def test_read_key_file_of_a_broker_is_unsupported_here():
    with pytest.raises(Unsupported) as caught:
        read_key_file("kbs:///default/cosign/pub")
    assert "'kbs:///default/cosign/pub'" in str(caught.value)


def test_read_key_file_too_long_is_refused_after_the_bound(tmp_path):
    (tmp_path / "a.pub").write_bytes(b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(LocalError) as caught:
        read_key_file(str(tmp_path / "a.pub"))
    assert "at most 4194304 bytes" in str(caught.value)


def test_locate_policy_takes_the_first_there_is(tmp_path):
    user, system = tmp_path / "user.json", tmp_path / "system.json"
    both = [str(user), str(system)]
    system.write_text("{}")
    assert locate_policy(explicit=None, candidates=both) == str(system)
    user.write_text("{}")
    assert locate_policy(explicit=None, candidates=both) == str(user)
    assert locate_policy(explicit="/given", candidates=both) == "/given"


def test_locate_policy_does_not_pass_over_a_broken_link(tmp_path):
    """A user's policy that is gone must not put the system's, weaker one in force."""
    user, system = tmp_path / "user.json", tmp_path / "system.json"
    system.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    user.symlink_to(tmp_path / "gone.json")
    path = locate_policy(explicit=None, candidates=[str(user), str(system)])
    assert path == str(user)
    with pytest.raises(LocalError):
        load_policy(path)


def test_locate_policy_passes_over_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "config").write_text("")
    (tmp_path / "system.json").write_text("{}")
    candidates = [str(tmp_path / "config" / "policy.json"), str(tmp_path / "system.json")]
    assert locate_policy(explicit=None, candidates=candidates) == candidates[1]


def test_locate_policy_none_anywhere_says_where_and_what_to_write(tmp_path):
    candidates = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    with pytest.raises(LocalError) as caught:
        locate_policy(explicit=None, candidates=candidates)
    for path in candidates:
        assert path in str(caught.value)
    document = caught.value.hint[caught.value.hint.index("{") :]
    assert json.loads(document)["default"] == [{"type": "reject"}]


def test_load_policy_names_the_file_and_the_place(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text('{"default":[{"type":"reject","x":1}]}')
    with pytest.raises(FormatError) as caught:
        load_policy(str(path))
    assert caught.value.where == "$.default[0]"
    assert f"policy '{path}'" in str(caught.value)
