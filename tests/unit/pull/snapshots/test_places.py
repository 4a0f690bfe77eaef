# SPDX-License-Identifier: Apache-2.0
import os
import stat
from contextlib import ExitStack

import pytest

from imagers.pull.snapshots.places import make_root, open_directory


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
