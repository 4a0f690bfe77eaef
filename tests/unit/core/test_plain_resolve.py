# SPDX-License-Identifier: Apache-2.0
"""Names to directories: what both implementations do with them is in test_plain_unpack.py too."""

import os
import stat

import pytest

from imagers.core import DirectorySink, Ownership
from imagers.core.plain_resolve import Lock, Resolver, lstat
from imagers.core.plain_unpack import make_directories
from imagers.errors import FormatError


@pytest.mark.parametrize("unpacking", ["c-walk", "plain"], indirect=True)
def test_links_that_lead_up_from_deep_below_again_and_again_are_refused(unpacking, tar, make):
    """Each `..` costs the depth where it is: 40 such links in one name, half a minute."""
    deep = "d/" * 600
    entries = [make.directory("d/" * depth) for depth in range(1, 601)]
    link = make.symlink(deep + "l", "../d/" * 800)
    with pytest.raises(FormatError, match="link that leads in circles"):
        unpacking.unpack(tar(*entries, link, make.file(deep + "l/f", "x")))
    root = unpacking.unpack(
        tar(*entries, make.symlink(deep + "l", "../d"), make.file(deep + "l/f"))
    )
    assert (root / deep / "f").exists()


@pytest.mark.parametrize("unpacking", ["plain"], indirect=True)
def test_directories_behind_such_links_are_not_looked_for_without_end(unpacking, tar, make):
    deep = "d/" * 600
    entries = [make.directory("d/" * depth) for depth in range(1, 601)]
    root = unpacking.unpack(tar(*entries, make.symlink(deep + "l", "../d/" * 800)))
    fd = os.open(root, os.O_RDONLY)
    try:
        with pytest.raises(FormatError, match="link that leads in circles"):
            make_directories(DirectorySink(fd, Ownership.MINE), (deep + "l/x").encode(), what="r")
    finally:
        os.close(fd)


def test_resolver_opens_inside_the_root_and_makes_nothing_unasked(tmp_path):
    (tmp_path / "root" / "d").mkdir(parents=True)
    (tmp_path / "root" / "up").symlink_to("../../..")
    fd = os.open(tmp_path / "root", os.O_RDONLY)
    try:
        resolver = Resolver(fd, set(), keep=False, count=lambda: None)
        found = resolver.resolve((b"up", b"..", b"d"), None)
        assert found is not None
        assert os.path.sameopenfile(found, resolver.open_directory(fd, b"d"))
        os.close(found)
        assert resolver.resolve((b"none",), None) is None
        assert lstat(fd, b"none") is None
        assert lstat(fd, b"up") is not None
    finally:
        os.close(fd)
    assert sorted(os.listdir(tmp_path / "root")) == ["d", "up"]


@pytest.mark.parametrize(("mode", "during"), [(0o700, 0o700), (0o300, 0o700), (0o155, 0o755)])
def test_lock_is_for_directories_that_their_owner_cannot_change(
    monkeypatch, tmp_path, mode, during
):
    tmp_path.chmod(mode | 0o700)
    fd = os.open(tmp_path, os.O_RDONLY)
    os.fchmod(fd, mode)
    try:
        for user, keep, expected in ((1000, False, during), (1000, True, mode), (0, False, mode)):
            monkeypatch.setattr(os, "geteuid", lambda user=user: user)
            with Lock(fd, keep=keep):
                assert stat.S_IMODE(os.fstat(fd).st_mode) == expected
            assert stat.S_IMODE(os.fstat(fd).st_mode) == mode
    finally:
        os.fchmod(fd, 0o700)
        os.close(fd)
