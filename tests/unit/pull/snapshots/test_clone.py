# SPDX-License-Identifier: Apache-2.0
import fcntl
import os
import socket
import stat
from contextlib import ExitStack

import pytest

from imagers.errors import Unsupported
from imagers.pull.snapshots import clone
from imagers.pull.snapshots.clone import clone_tree
from imagers.pull.snapshots.places import open_directory

TIME = 1_234_567_890_123_456_789


@pytest.fixture
def trees(folder):
    for name in ("source", "target", "spare"):
        (folder / name).mkdir()
    return folder


def run(trees, *, share=False):
    with ExitStack() as opened:
        fds = [open_directory(opened, trees / name) for name in ("source", "target", "spare")]
        clone_tree(*fds, share=share)
    return trees / "target"


def fill(source):
    """One of each, with all that can be told of it."""
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "f").write_text("content")
    os.link(source / "d" / "f", source / "again")
    (source / "s").symlink_to("d/f")
    os.link(source / "s", source / "t", follow_symlinks=False)
    os.mkfifo(source / "pipe")
    os.mknod(source / "dev", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    os.mknod(source / "char", stat.S_IFCHR | 0o640, os.makedev(0, 0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    for number, path in enumerate(["d/f", "s", "pipe", "dev", "char", "socket", "d/e", "d", "."]):
        os.chown(source / path, number + 1, number + 2, follow_symlinks=False)
        os.setxattr(source / path, "trusted.a", b"%d" % number, follow_symlinks=False)
        if path != "s":
            os.chmod(source / path, 0o4750 + number % 8)
    os.setxattr(source / "d" / "f", "security.capability", bytes([1, 0, 0, 2, 0, 4] + [0] * 14))
    os.setxattr(source / "d" / "f", "user.empty", b"")
    for folder, directories, files in os.walk(source, topdown=False):
        for name in (*directories, *files):
            os.utime(os.path.join(folder, name), ns=(TIME, TIME), follow_symlinks=False)
    os.utime(source, ns=(TIME, TIME + 1))


@pytest.mark.parametrize("share", [False, True])
def test_clone_is_the_same(trees, tree, share):
    fill(trees / "source")
    before = tree(trees / "source")
    assert tree(run(trees, share=share)) == before
    assert tree(trees / "source") == before


def test_clone_shares_files_if_it_may_and_else_none(trees):
    fill(trees / "source")
    inodes = {path.lstat().st_ino for path in (trees / "source").rglob("*")}
    cloned = run(trees)
    assert not inodes & {path.lstat().st_ino for path in cloned.rglob("*")}


def test_clone_of_a_shared_file_knows_its_names_in_one_tree(trees):
    """In a committed tree each file has names in other trees."""
    for name in ("a", "b", "alone"):
        (trees / "source" / name).write_text(name)
    (trees / "source" / "b").unlink()
    os.link(trees / "source" / "a", trees / "source" / "b")
    (trees / "elsewhere").mkdir()
    for name in ("a", "alone"):
        os.link(trees / "source" / name, trees / "elsewhere" / name)
    target = run(trees)
    assert (target / "a").stat().st_ino == (target / "b").stat().st_ino
    assert (target / "a").stat().st_ino != (target / "alone").stat().st_ino


@pytest.mark.parametrize(("elsewhere", "shared"), [(2, True), (20, False)])
def test_clone_of_a_file_with_too_many_names_is_one_file_again(
    trees, tree, monkeypatch, elsewhere, shared
):
    """A file system takes so many names of a file, of all trees together."""
    monkeypatch.setattr(clone, "_MANY", 4)
    (trees / "source" / "0").write_text("content")
    for number in range(1, 5):
        os.link(trees / "source" / "0", trees / "source" / f"{number}")
    (trees / "elsewhere").mkdir()
    for number in range(elsewhere):
        os.link(trees / "source" / "0", trees / "elsewhere" / f"{number}")
    target = run(trees, share=True)
    assert tree(target)[1] == tree(trees / "source")[1]
    same = (target / "0").stat().st_ino == (trees / "source" / "0").stat().st_ino
    assert same is shared


def test_clone_leaves_out_attributes_of_the_machine(trees):
    """Access control lists that are inherited, labels, marks of overlayfs."""
    (trees / "source" / "d").mkdir()
    os.setxattr(trees / "source" / "d", "trusted.overlay.opaque", b"y")
    os.setxattr(trees / "source" / "d", "trusted.kept", b"y")
    assert os.listxattr(run(trees) / "d") == ["trusted.kept"]


def test_clone_keeps_holes(trees):
    hole, data = 64 << 20, b"x" * 4096
    path = trees / "source" / "sparse"
    with path.open("wb") as file:
        file.seek(hole)
        file.write(data)
        file.seek(3 * hole)
        file.write(data)
        file.truncate(4 * hole)
    (trees / "source" / "all hole").touch()
    os.truncate(trees / "source" / "all hole", hole)
    target = run(trees)
    there = (target / "sparse").stat()
    assert there.st_size == 4 * hole
    assert there.st_blocks * 512 < 1 << 20
    with (target / "sparse").open("rb") as file:
        file.seek(hole - 1)
        assert file.read(4098) == b"\0" + data + b"\0"
        file.seek(3 * hole)
        assert file.read(4097) == data + b"\0"
    assert (target / "all hole").stat().st_blocks == 0


def test_clone_of_what_is_deeper_than_a_path_is_long(trees):
    depth = 3000
    fd = os.open(trees / "source", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("dd", dir_fd=fd)
        below = os.open("dd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    fd = os.open(run(trees), os.O_RDONLY)
    for _ in range(depth):
        below = os.open("dd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    for name in ("source", "target"):  # deeper than Python removes
        os.system(f"rm -rf {trees / name}")  # noqa: S605  # a path of this test


def test_clone_of_names_that_are_no_utf8(trees, tree):
    with open(os.fsencode(trees / "source") + b"/\xff\n", "w") as file:
        file.write("f")
    os.symlink(b"\xfe", os.fsencode(trees / "source") + b"/\xfd")
    assert tree(run(trees)) == tree(trees / "source")


def test_clone_fails_with_what_a_reflink_failed_with(trees, monkeypatch):
    """A disk that is full is not one without reflinks."""
    (trees / "source" / "f").write_text("f")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fcntl, "ioctl", full)
    with pytest.raises(OSError, match="No space left"):
        run(trees)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_clone_as_ordinary_user_of_what_he_may_not_read_is_refused(trees, kind):
    path = trees / "source" / "locked"
    path.mkdir() if kind == "directory" else path.touch()
    path.chmod(0)
    for one in (trees, *trees.rglob("*")):
        os.chown(one, 65534, 65534)
    os.seteuid(65534)
    try:
        with pytest.raises(Unsupported, match=r"that their owner may read, got .*'locked'") as e:
            run(trees)
    finally:
        os.seteuid(0)
    assert e.value.hint == "root can unpack this image"


def test_clone_as_ordinary_user_keeps_modes_that_let_nobody_out_again(trees):
    (trees / "source" / "d" / "e").mkdir(parents=True)
    (trees / "source" / "f").touch(0o400)
    (trees / "source" / "d").chmod(0o555)
    for one in (trees, *trees.rglob("*")):
        os.chown(one, 65534, 65534)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        target = run(trees)
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o555
    assert (target / "d" / "e").is_dir()
