# SPDX-License-Identifier: Apache-2.0
import os
import stat
import subprocess
from contextlib import ExitStack

import pytest

from imagers.pull.snapshots.places import make_root, open_directory, remove_directory


def test_make_root_heeds_neither_the_umask_nor_the_time(folder):
    old = os.umask(0o077)
    try:
        with ExitStack() as opened:
            there = os.fstat(make_root(opened, folder / "tree"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(there.st_mode) == 0o755
    assert there.st_mtime_ns == 0


def test_open_directory_does_not_follow(folder):
    (folder / "link").symlink_to("/")
    with ExitStack() as opened, pytest.raises(NotADirectoryError):
        open_directory(opened, folder / "link")


def test_remove_directory_says_so_where_something_is_left(folder):
    (folder / "d" / "mounted").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "none", folder / "d" / "mounted"]
    subprocess.run(mount, check=True)
    try:
        with pytest.raises(OSError, match="not empty"):
            remove_directory(folder / "d")
    finally:
        subprocess.run(["umount", folder / "d" / "mounted"], check=True)
    remove_directory(folder / "d")
    assert list(folder.iterdir()) == []
