# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
from pathlib import Path

import pytest

from imagers.errors import LocalError


def test_place_has_the_whole_tree_and_nothing_else(plain, make):
    plain.add(make.file("f"))
    plain.add(make.file("g"))
    [_, second] = [layer.place for layer in plain.layers]
    assert os.listdir(second) == ["tree"]
    assert sorted(os.listdir(second / "tree")) == ["f", "g"]


def test_layers_share_files_and_roots_share_none(plain, make):
    plain.add(make.file("f", "f"), make.symlink("s", "f"))
    plain.add(make.file("g"))
    first, second = (layer.place / "tree" for layer in plain.layers)
    root = plain.compose()
    for name in ("f", "s"):
        assert (first / name).lstat().st_ino == (second / name).lstat().st_ino
        assert (root / name).lstat().st_ino != (first / name).lstat().st_ino
        assert (root / name).lstat().st_nlink == 1


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "link", "whiteout", "opaque"])
def test_a_layer_never_writes_to_a_file_of_the_one_below(plain, make, kind):
    """What sharing rests on. Each kind of entry over each kind of file, which has two names."""
    names = ["d/f", "d/g", "d/s", "d/t"]
    plain.add(
        make.file("d/f", "first", mode=0o4755, uid=1, pax_headers={"SCHILY.xattr.user.a": "1"}),
        make.link("d/g", "d/f"),
        make.symlink("d/s", "f"),
        make.link("d/t", "d/s"),
        make.file("other", "o"),
    )
    before = plain.committed()
    changed = {"mode": 0o600, "uid": 2, "mtime": 1, "pax_headers": {"SCHILY.xattr.user.b": "2"}}
    entries = {
        "file": [make.file(name, "second", **changed) for name in names],
        "directory": [make.directory(name, **changed) for name in names],
        "symlink": [make.symlink(name, "elsewhere", **changed) for name in names],
        "link": [
            make.link(name, target, **changed) for name in names for target in ("other", "more")
        ],
        "whiteout": [make.file(name.replace("/", "/.wh."), **changed) for name in names],
        "opaque": [make.file("d/.wh..wh..opq", **changed)],
    }[kind]
    plain.add(make.link("more", "d/f", **changed), *entries)
    assert plain.committed()[0] == before[0]


def test_check_takes_any_directory(plain, folder):
    plain.snapshotter.check(folder / "missing")


def test_parent_that_is_gone_is_a_local_error(plain, make):
    plain.add(make.file("f"))
    (plain.layers[0].place / "tree").rename(plain.folder / "elsewhere")
    with pytest.raises(LocalError, match="no such file or directory"):
        plain.compose()


@pytest.mark.parametrize("folder", ["/var/tmp"], indirect=True)
@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_root_takes_no_room_where_there_are_reflinks(plain, make, folder, kind):
    if subprocess.run(["which", f"mkfs.{kind}"], check=False, capture_output=True).returncode:
        pytest.skip(f"mkfs.{kind} is not there")
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    try:
        plain = type(plain)(disk, "plain")
        content = os.urandom(1 << 20).decode("latin-1") * 20
        plain.add(make.file("big", content), make.file("small", "s"), make.link("same", "big"))
        os.sync()
        before = os.statvfs(disk)
        root = plain.compose()
        os.sync()
        after = os.statvfs(disk)
        assert (before.f_bfree - after.f_bfree) * after.f_frsize < 10 << 20
        plain.assert_same()
        with (root / "big").open("r+b") as file:
            file.write(b"other")
        assert Path(plain.layers[0].place / "tree" / "big").read_bytes()[:5] != b"other"
    finally:
        subprocess.run(["umount", disk], check=True)
