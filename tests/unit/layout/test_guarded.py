# SPDX-License-Identifier: Apache-2.0
"""Directories that only root and the caller can change, with the way to them."""

import errno
import gc
import grp
import os
import pwd
from types import SimpleNamespace

import pytest

from imagers.errors import LocalError
from imagers.layout import guarded
from imagers.layout.guarded import open_guarded

OTHER = 65534
as_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user"),
]


@pytest.fixture
def opens():
    """Whether a directory is taken; the descriptor is that of the very directory."""

    def check(path):
        fd = open_guarded(path)
        try:
            assert os.path.samestat(os.fstat(fd), path.stat())
            os.listdir(fd)
        finally:
            os.close(fd)

    return check


def make(path, mode=0o755):
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1777, 0o1775])
def test_a_directory_of_ours_is_taken(tmp_path, opens, mode):
    opens(make(tmp_path / "a", mode))


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o2777])
def test_every_user_may_write_on_the_way_is_refused(tmp_path, mode):
    parent = make(tmp_path / "open", mode)
    below = make(parent / "below", 0o700)
    for path in (parent, below):
        with pytest.raises(LocalError, match="written by every user") as caught:
            open_guarded(path)
        assert caught.value.path == str(parent)
        assert "mktemp" in caught.value.hint


def accounts(monkeypatch, *, members, primary):
    """A group with these members, and users who have it as their own; all by user ids."""
    users = {f"u{uid}": SimpleNamespace(pw_name=f"u{uid}", pw_uid=uid, pw_gid=1) for uid in members}
    own = [SimpleNamespace(pw_name="x", pw_uid=uid, pw_gid=77) for uid in primary]
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=list(users)))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: users[name])
    monkeypatch.setattr(pwd, "getpwall", lambda: [*users.values(), *own])


@pytest.mark.parametrize(
    ("members", "primary", "has_others"),
    [([], [], False), ([0], [], False), ([12345], [], True), ([], [12345], True)],
)
def test_a_group_with_others_is_told_from_one_without(monkeypatch, members, primary, has_others):
    accounts(monkeypatch, members=members, primary=[os.geteuid(), *primary])
    assert guarded._has_others(77) is has_others


def test_a_group_of_which_nothing_is_known_has_others(monkeypatch):
    def unknown(_):
        raise KeyError

    monkeypatch.setattr(grp, "getgrgid", unknown)
    assert guarded._has_others(77)


def test_the_group_may_write_is_refused_unless_it_has_no_other_member(tmp_path, opens, monkeypatch):
    path = make(tmp_path / "a", 0o775)
    accounts(monkeypatch, members=[12345], primary=[])
    with pytest.raises(LocalError, match="written by the group"):
        open_guarded(path)
    accounts(monkeypatch, members=[], primary=[os.geteuid()])
    opens(path)


class TestOfOthers:
    pytestmark = as_root

    @pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777])
    def test_a_directory_of_another_user_is_refused_on_the_way(self, tmp_path, mode):
        parent = make(tmp_path / "theirs", mode)
        below = make(parent / "ours", 0o700)
        os.chown(parent, OTHER, OTHER)
        for path in (parent, below):
            with pytest.raises(LocalError, match="belongs to another user, 65534"):
                open_guarded(path)

    def test_a_link_of_another_user_among_links_of_all_is_refused(self, tmp_path, opens):
        shared = make(tmp_path / "shared", 0o1777)
        target = make(tmp_path / "target", 0o700)
        (shared / "link").symlink_to(target)
        opens(shared / "link")
        os.chown(shared / "link", OTHER, OTHER, follow_symlinks=False)
        with pytest.raises(LocalError, match="is a link of another user"):
            open_guarded(shared / "link")


@pytest.mark.parametrize("target", ["{0}/target", "target", "../{1}/target", "x/../target"])
def test_links_are_followed_and_what_they_lead_through_is_looked_at(tmp_path, opens, target):
    make(tmp_path / "target" / "inner")
    make(tmp_path / "x")
    (tmp_path / "link").symlink_to(target.format(tmp_path, tmp_path.name))
    opens(tmp_path / "link" / "inner")
    (tmp_path / "target").chmod(0o777)
    with pytest.raises(LocalError, match="written by every user"):
        open_guarded(tmp_path / "link" / "inner")


def test_links_in_a_circle_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        open_guarded(tmp_path / "a")
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize(("name", "number"), [("none", errno.ENOENT), ("file", errno.ENOTDIR)])
def test_what_is_no_directory_is_an_error_of_the_system(tmp_path, name, number):
    (tmp_path / "file").touch()
    for path in (tmp_path / name, tmp_path / name / "below"):
        with pytest.raises(OSError, match=r"directory") as caught:
            open_guarded(path)
        assert caught.value.errno == number


def test_descriptors_are_given_back(tmp_path):
    def count():
        gc.collect()  # what other tests have left closes now, and not meanwhile
        return len(os.listdir("/proc/self/fd"))

    before = count()
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "none", tmp_path / "loop", make(tmp_path / "open", 0o777)):
        with pytest.raises((OSError, LocalError)):
            open_guarded(path)
    os.close(open_guarded(tmp_path))
    assert count() == before


def test_ids_from_outside_of_a_user_namespace_are_told(monkeypatch):
    assert not guarded._is_unmapped(os.geteuid())
    monkeypatch.setattr(
        "builtins.open",
        lambda path, _mode: __import__("io").BytesIO(
            b"65534\n" if "overflow" in path else b"0 1000 1\n1 100000 65533\n"
        ),
    )
    assert guarded._is_unmapped(65534)
    assert not guarded._is_unmapped(1000)
