"""Names to directories: what both implementations do with them is in test_plain_unpack.py too."""

import os

import pytest

from imagers.core import DirectorySink, Ownership
from imagers.core.plain_resolve import Resolver, is_locked, lstat
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


@pytest.mark.parametrize(("mode", "locked"), [(0o700, False), (0o300, False), (0o555, True)])
def test_locked_directories_are_those_that_their_owner_cannot_change(monkeypatch, mode, locked):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert is_locked(mode) is locked
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert not is_locked(mode)
