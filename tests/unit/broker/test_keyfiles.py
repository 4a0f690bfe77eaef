# SPDX-License-Identifier: Apache-2.0
import errno
import os
import stat
import threading

import pytest

from imagers.broker.keyfiles import (
    check_owner_only,
    load_admin_public_key,
    load_master_key,
    lock_state_directory,
    make_admin_key,
    make_owner_only,
    make_state_directory,
    write_owner_only,
)
from imagers.errors import FormatError, LocalError
from imagers.kbs.admin import load_admin_key


def yes():
    return True


def no():
    return False


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_state_directory_is_made_with_its_parents_and_kept(tmp_path):
    path = tmp_path / "a" / "b"
    make_state_directory(path)
    make_state_directory(path)
    assert mode_of(path) == 0o700


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o755, 0o770])
def test_state_directory_open_to_others_refused(tmp_path, mode):
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(LocalError, match=f"expected mode 0700, got {mode:04o}") as caught:
        make_state_directory(path)
    assert caught.value.path == str(path)
    assert caught.value.hint == f"if nobody has: chmod 700 {path}"


def test_state_directory_that_is_a_file_refused(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"")
    with pytest.raises(LocalError, match="expected a state directory, got a file"):
        make_state_directory(path)


def test_state_directory_that_is_a_link_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "real")
    with pytest.raises(LocalError, match="symbolic link"):
        make_state_directory(tmp_path / "state")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_file_of_another_user_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    with pytest.raises(LocalError, match="belongs to user 12345"):
        check_owner_only(path)


def test_make_owner_only_writes_once_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "key"
    old = os.umask(0)
    try:
        assert make_owner_only(path, b"one")
    finally:
        os.umask(old)
    assert not make_owner_only(path, b"two")
    assert path.read_bytes() == b"one"
    assert mode_of(path) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_make_owner_only_does_not_follow_a_link(tmp_path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    assert not make_owner_only(tmp_path / "key", b"one")
    assert not (tmp_path / "elsewhere").exists()


def test_make_owner_only_in_no_folder_is_local_error(tmp_path):
    with pytest.raises(LocalError, match="cannot be written"):
        make_owner_only(tmp_path / "none" / "key", b"")


def test_master_key_is_made_once_and_read_again(tmp_path):
    path = tmp_path / "master.key"
    first, made = load_master_key(path, may_make=yes)
    again, made_again = load_master_key(path, may_make=no)
    assert (made, made_again) == (True, False)
    assert first == again
    assert len(first) == 32
    assert mode_of(path) == 0o600


def test_master_key_made_by_many_at_once_is_one(tmp_path):
    path = tmp_path / "master.key"
    barrier = threading.Barrier(8)
    keys = []

    def run():
        barrier.wait()
        keys.append(load_master_key(path, may_make=yes))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({bytes(key) for key, _ in keys}) == 1
    assert [made for _, made in keys].count(True) == 1


def test_master_key_missing_beside_a_sealed_store_refused(tmp_path):
    path = tmp_path / "master.key"
    with pytest.raises(LocalError, match="master key is missing") as caught:
        load_master_key(path, may_make=no)
    assert "without it the secrets are lost" in (caught.value.hint or "")
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_master_key_open_to_others_refused(tmp_path, mode):
    path = tmp_path / "master.key"
    load_master_key(path, may_make=yes)
    path.chmod(mode)
    with pytest.raises(LocalError, match=f"expected mode 0600, got {mode:04o}"):
        load_master_key(path, may_make=no)


@pytest.mark.parametrize(("size", "shown"), [(0, "got 0"), (31, "got 31"), (64, "got 33 or more")])
def test_master_key_of_another_length_refused(tmp_path, size, shown):
    path = tmp_path / "master.key"
    make_owner_only(path, bytes(size))
    with pytest.raises(LocalError, match=f"32 bytes, {shown}"):
        load_master_key(path, may_make=no)


def test_master_key_that_is_a_link_refused(tmp_path):
    load_master_key(tmp_path / "real", may_make=yes)
    (tmp_path / "master.key").symlink_to(tmp_path / "real")
    with pytest.raises(LocalError, match="symbolic link"):
        load_master_key(tmp_path / "master.key", may_make=yes)


def test_admin_key_is_made_once_and_its_halves_fit(tmp_path):
    private, public = tmp_path / "admin.key", tmp_path / "admin.pub"
    assert make_admin_key(private, public)
    assert not make_admin_key(private, public)
    assert (mode_of(private), mode_of(public)) == (0o600, 0o600)
    key = load_admin_key(private)
    numbers = load_admin_public_key(public).public_bytes_raw()
    assert key.public_key().public_bytes_raw() == numbers


def test_admin_key_moved_away_is_not_made_again(tmp_path):
    private, public = tmp_path / "admin.key", tmp_path / "admin.pub"
    make_admin_key(private, public)
    private.unlink()
    assert not make_admin_key(private, public)
    assert not private.exists()


def test_admin_key_half_made_start_is_finished_with_the_same_key(tmp_path):
    private, public = tmp_path / "admin.key", tmp_path / "admin.pub"
    make_admin_key(private, public)
    before = public.read_bytes()
    public.unlink()
    assert not make_admin_key(private, public)
    assert public.read_bytes() == before


def test_admin_public_key_readable_by_others_is_fine_and_writable_is_not(tmp_path):
    private, public = tmp_path / "admin.key", tmp_path / "admin.pub"
    make_admin_key(private, public)
    public.chmod(0o644)
    load_admin_public_key(public)
    public.chmod(0o664)
    with pytest.raises(LocalError, match="got 0664"):
        load_admin_public_key(public)


@pytest.mark.parametrize("data", [b"", b"noise", b"-----BEGIN PUBLIC KEY-----\n"])
def test_admin_public_key_that_is_none_refused(tmp_path, data):
    path = tmp_path / "admin.pub"
    make_owner_only(path, data)
    with pytest.raises(FormatError, match="Ed25519 public key"):
        load_admin_public_key(path)
    with pytest.raises(LocalError):
        load_admin_public_key(tmp_path / "none")


def test_admin_private_key_that_is_none_refused(tmp_path):
    make_owner_only(tmp_path / "admin.key", b"noise")
    with pytest.raises(FormatError, match="Ed25519 private key"):
        make_admin_key(tmp_path / "admin.key", tmp_path / "admin.pub")


def test_state_directory_is_locked_once(tmp_path):
    first = lock_state_directory(tmp_path)
    with pytest.raises(LocalError, match="another broker runs"):
        lock_state_directory(tmp_path)
    os.close(first)
    os.close(lock_state_directory(tmp_path))
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_lock_that_is_a_link_or_open_to_others_is_refused(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalError, match="cannot be opened"):
        lock_state_directory(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").touch()
    (tmp_path / "lock").chmod(0o666)
    with pytest.raises(LocalError, match="expected mode 0600"):
        lock_state_directory(tmp_path)


@pytest.fixture(params=[None, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def links(request, monkeypatch):
    """A file system with links, and such as have none."""

    def refuse(*_, **__):
        raise OSError(request.param, "no links")

    if request.param is not None:
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
def test_file_has_its_name_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "backup"
    with write_owner_only(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and whole")
    assert (path.read_bytes(), mode_of(path)) == (b"half and whole", 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("links")
def test_file_that_is_there_is_not_written_over(tmp_path):
    path = tmp_path / "backup"

    def write():
        with write_owner_only(path) as file:
            file.write(b"mine")
            path.write_bytes(b"of another, meanwhile")

    with pytest.raises(LocalError, match="exists"):
        write()
    assert path.read_bytes() == b"of another, meanwhile"
    with pytest.raises(LocalError, match="is there already"), write_owner_only(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("links")
def test_file_that_is_not_whole_leaves_nothing(tmp_path):
    def write():
        with write_owner_only(tmp_path / "backup") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_named_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    wanted = pytest.raises(LocalError, match="cannot be written")
    with wanted, write_owner_only(tmp_path / "backup"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC])
def test_file_is_named_in_no_other_way_where_links_fail(tmp_path, monkeypatch, fault):
    def refuse(*_, **__):
        raise OSError(fault, "broken")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(LocalError), write_owner_only(tmp_path / "backup"):
        pass
    assert list(tmp_path.iterdir()) == []
