# SPDX-License-Identifier: Apache-2.0
"""The digest of a tree: the same for the same tree, another for every change of it."""

import os
import subprocess

import pytest

from imagers.store.content import content_digest


def build(root):
    root.mkdir()
    (root / "a").mkdir()
    (root / "a" / "file").write_bytes(b"data")
    (root / "a" / "file").chmod(0o640)
    (root / "link").symlink_to("a/file")
    os.mkfifo(root / "fifo")
    os.link(root / "a" / "file", root / "z")
    os.setxattr(root / "a" / "file", "user.x", b"1")
    for path in (root / "a" / "file", root / "link", root / "fifo", root / "a"):
        os.utime(path, ns=(1, 10**18 + 1), follow_symlinks=False)
    return root


def digest(root, **more):
    fd = os.open(root, os.O_RDONLY)
    try:
        return content_digest(fd, **more)
    finally:
        os.close(fd)


def test_digest_of_the_same_tree_is_the_same(tmp_path):
    assert digest(build(tmp_path / "one")) == digest(build(tmp_path / "two"))


CHANGES = {
    "a byte": lambda root: (root / "a/file").write_bytes(b"datb"),
    "a mode": lambda root: (root / "a/file").chmod(0o600),
    "a mode of a directory": lambda root: (root / "a").chmod(0o700),
    "a time": lambda root: os.utime(root / "fifo", ns=(1, 2)),
    "a target": lambda root: ((root / "link").unlink(), (root / "link").symlink_to("a/fil")),
    "a kind": lambda root: ((root / "fifo").unlink(), (root / "fifo").write_bytes(b"")),
    "a name": lambda root: (root / "a/file").rename(root / "a/filf"),
    "a place": lambda root: (root / "a/file").rename(root / "file"),
    "one more": lambda root: (root / "more").write_bytes(b""),
    "one less": lambda root: (root / "fifo").unlink(),
    "an attribute": lambda root: os.setxattr(root / "a/file", "user.x", b"2"),
    "one more attribute": lambda root: os.setxattr(root / "a", "user.y", b""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_digest_tells_every_change(tmp_path, change):
    root = build(tmp_path / "one")
    before = digest(root)
    times = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    change(root)
    if change is not CHANGES["a time"]:
        for path, at in times.items():
            if path.is_symlink() or path.exists():
                os.utime(path, ns=(1, at), follow_symlinks=False)
    assert digest(root) != before


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices are root's to make")
def test_digest_tells_owners_and_device_numbers(tmp_path):
    root = build(tmp_path / "one")
    os.mknod(root / "node", 0o20600, os.makedev(1, 3))
    seen = {digest(root)}
    os.chown(root / "link", 5, 0, follow_symlinks=False)
    os.utime(root / "link", ns=(1, 10**18 + 1), follow_symlinks=False)
    seen.add(digest(root))
    os.chown(root / "link", 0, 5, follow_symlinks=False)
    seen.add(digest(root))
    (root / "node").unlink()
    os.mknod(root / "node", 0o20600, os.makedev(1, 5))
    seen.add(digest(root))
    assert len(seen) == 4


def test_digest_leaves_out_what_it_is_told_and_only_at_the_top(tmp_path):
    root = build(tmp_path / "one")
    before = digest(root, leave_out={"seal"})
    (root / "seal").write_bytes(b"x")
    assert digest(root, leave_out={"seal"}) == before
    (root / "a" / "seal").write_bytes(b"x")
    os.utime(root / "a", ns=(1, 10**18 + 1))
    assert digest(root, leave_out={"seal"}) != before


def test_digest_of_a_deep_tree_takes_few_descriptors(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len(digest(tmp_path)) == 64
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # deeper than Python removes


def test_digest_takes_names_that_are_no_text(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\n", "wb"):
        pass
    assert digest(tmp_path) != digest(build(tmp_path / "other"))
