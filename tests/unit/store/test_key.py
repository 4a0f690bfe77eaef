# SPDX-License-Identifier: Apache-2.0
"""The key of a store: one for each boot, for its owner's eyes only."""

import os
import threading

import pytest

from imagers.errors import LocalError
from imagers.store import key as store_key
from imagers.store.key import load_store_key


def test_key_is_the_same_until_the_next_boot(tmp_path, monkeypatch):
    first = load_store_key(tmp_path)
    assert len(first) == 32
    assert load_store_key(tmp_path) == first
    boot = tmp_path / "boot_id"
    boot.write_text("00000000-1111-2222-3333-444444444444\n")
    monkeypatch.setattr(store_key, "_BOOT_ID", boot)
    second = load_store_key(tmp_path)
    assert second != first
    assert load_store_key(tmp_path) == second


def test_key_is_for_its_owner_only_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        load_store_key(tmp_path / "run" / "imagers")
    finally:
        os.umask(old)
    assert (tmp_path / "run/imagers/store.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run/imagers").stat().st_mode & 0o777 == 0o700


def test_key_that_others_can_read_is_refused(tmp_path):
    load_store_key(tmp_path)
    (tmp_path / "store.key").chmod(0o644)
    with pytest.raises(LocalError, match="only you can read, got mode 644"):
        load_store_key(tmp_path)


def test_key_behind_a_link_is_refused(tmp_path):
    load_store_key(tmp_path / "elsewhere")
    (tmp_path / "store.key").symlink_to(tmp_path / "elsewhere" / "store.key")
    with pytest.raises(LocalError, match="the key of the store cannot be had"):
        load_store_key(tmp_path)


def test_key_in_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "store.key", 0o600)
    with pytest.raises(LocalError, match="a file of your own"):
        load_store_key(tmp_path)


@pytest.mark.parametrize("length", [0, 36, 67, 69])
def test_key_of_another_length_is_made_anew(tmp_path, length):
    load_store_key(tmp_path)
    path = tmp_path / "store.key"
    path.write_bytes((path.read_bytes() + b"x")[:length])
    assert load_store_key(tmp_path) == load_store_key(tmp_path)


def test_two_that_begin_at_the_same_time_have_one_key(tmp_path):
    barrier = threading.Barrier(8)
    keys = []

    def load():
        barrier.wait()
        keys.append(load_store_key(tmp_path))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(key == keys[0] for key in keys)
