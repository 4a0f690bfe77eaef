# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from imagers.pull.snapshots.mount import apart, attach, detach, mount_overlay
from imagers.pull.snapshots.places import open_directory


def show(place):
    """The directory `lower`, with `upper` on top, at no path."""

    def make():
        with ExitStack() as opened:
            at = open_directory(opened, place)
            lower, upper, work = (
                open_directory(opened, name, at) for name in ("lower", "upper", "work")
            )
            return mount_overlay([lower], upper, work, at, "upper", options=[])

    return apart(make)


@pytest.fixture
def place(folder):
    for name in ("lower", "upper", "work", "root"):
        (folder / name).mkdir()
    (folder / "lower" / "f").write_text("f")
    yield folder
    detach(folder / "root")


def test_apart_is_another_thread_in_other_mounts_and_ours_stay():
    where, mounts = os.getcwd(), os.readlink("/proc/thread-self/ns/mnt")
    thread, theirs, there = apart(
        lambda: (threading.get_ident(), os.readlink("/proc/thread-self/ns/mnt"), os.getcwd())
    )
    assert thread != threading.get_ident()
    assert theirs != mounts
    assert there.endswith("/fd")
    assert os.getcwd() == where
    assert os.readlink("/proc/thread-self/ns/mnt") == mounts


def test_apart_raises_what_is_raised_there():
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)


def test_apart_as_ordinary_user_is_refused():
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            apart(os.getpid)
    finally:
        os.seteuid(0)


def test_mount_is_at_no_path_until_it_is_attached(place, mounts):
    tree = show(place)
    try:
        assert os.listdir(place / "upper") == []
        assert mounts(place) == []
        assert os.listdir(f"/proc/self/fd/{tree}") == ["f"]
        attach(tree, place / "root")
    finally:
        os.close(tree)
    assert os.listdir(place / "root") == ["f"]
    assert len(mounts(place)) == 1


def test_mount_does_not_appear_where_mounts_are_shared(place, mounts):
    """As on most machines; a copy of it would stay there for ever."""
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        os.close(show(place))
        assert len(mounts(place)) == 1
    finally:
        subprocess.run(["umount", "--recursive", place], check=True)


def test_mount_that_is_never_attached_ends_with_its_descriptor(place):
    """What is written to it is there, and the directory of the work can go."""
    tree = show(place)
    Path(f"/proc/self/fd/{tree}/g").write_text("g")
    os.close(tree)
    assert os.listdir(place / "upper") == ["g"]
    os.close(show(place))  # the kernel says "busy" where the upper one is still used


@pytest.mark.parametrize(
    ("name", "value"), [("redirect", b"/other"), ("metacopy", b""), ("opaque", b"y")]
)
def test_marks_that_lead_elsewhere_are_not_followed(place, name, value):
    """They were not written by a mount of ours; `opaque` shows that marks are read at all."""
    for path in ("lower/other/secret", "upper/d", "lower/d/below"):
        (place / path).mkdir(parents=True)
    os.setxattr(place / "upper" / "d", f"trusted.overlay.{name}", value)
    tree = show(place)
    try:
        root = f"/proc/self/fd/{tree}"
        try:
            found = os.listdir(f"{root}/d")
        except PermissionError:  # the kernel refuses it in whole
            found = None
        assert found == {"redirect": None, "metacopy": ["below"], "opaque": []}[name]
    finally:
        os.close(tree)


def test_options_do_not_hang_on_the_machine(place):
    tree = show(place)
    try:
        attach(tree, place / "root")
    finally:
        os.close(tree)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    [line] = [line for line in lines if f"{place}/root" in line]
    assert "redirect_dir=nofollow" in line
    assert not any(word in line for word in ("metacopy=on", "index=on", "userxattr"))


def test_attach_does_not_follow_a_link(place):
    (place / "link").symlink_to("root")
    tree = show(place)
    try:
        with pytest.raises(NotADirectoryError):
            attach(tree, place / "link")
    finally:
        os.close(tree)


def test_detach_does_not_follow_a_link(place, mounts):
    tree = show(place)
    try:
        attach(tree, place / "root")
    finally:
        os.close(tree)
    (place / "link").symlink_to("root")
    detach(place / "link")
    assert len(mounts(place)) == 1


def test_detach_as_ordinary_user_is_refused():
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            detach(Path("/proc"))
    finally:
        os.seteuid(0)
