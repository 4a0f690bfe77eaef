# SPDX-License-Identifier: Apache-2.0
"""What every snapshotter promises: the tree is the one that is unpacked straight, and no more."""

import json
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from imagers.errors import Unsupported
from imagers.model.media import compression_of

VECTORS = Path(__file__).resolve().parents[3] / "vectors" / "ocicrypt"
CASES = {
    case["id"].removeprefix("tar/"): case
    for case in json.loads((VECTORS / "manifest.json").read_text())["cases"]
    if case["category"] == "tar"
}


# What mkfs.erofs would make something else of.
NOT_BY_EROFS = {
    "names-pax-long": "expected names of at most 254 bytes",
    "numbers-base256": "expected files of 1970 to 3058",
}


@pytest.mark.parametrize("folder", ["/var/tmp"], indirect=True)
@pytest.mark.parametrize("name", CASES)
def test_tree_of_a_vector_is_the_same(store, name):
    case = CASES[name]
    for layer in case["layers"]:
        blob = VECTORS / case["path"] / "blobs" / layer["digest"].replace(":", "/")
        compression = compression_of(layer["media_type"])
        if store.snapshotter.name == "erofs" and name in NOT_BY_EROFS:
            with pytest.raises(Unsupported, match=NOT_BY_EROFS[name]):
                store.prepare(blob.read_bytes(), compression)
            return
        refused = store.add(data=blob.read_bytes(), compression=compression)
        if refused:
            return
    store.assert_same()


def test_tree_of_several_layers_is_the_same_after_each(store, make):
    """What layers do to each other, in an image that does all of it."""
    layers = [
        [
            make.directory("./", mode=0o751, uid=7),
            make.directory("usr/lib", mode=0o2755, gid=3),
            make.symlink("lib", "usr/lib"),
            make.symlink("up", "../../etc"),
            make.file("usr/lib/one", "1", mode=0o4755, uid=1),
            make.link("usr/lib/same", "usr/lib/one"),
            make.link("usr/lib/third", "usr/lib/one"),
            make.file("etc/a/b/c/deep", "d"),
            make.file("etc/a/x", "x", mtime=1_234_567_890.123456789),
            make.file("dir/in/it", "i"),
            make.file("file", "f"),
            make.symlink("link", "file"),
            make.other("dev", tarfile.CHRTYPE, devmajor=5, devminor=300),
            make.other("pipe", tarfile.FIFOTYPE, mode=0o600),
        ],
        [
            make.file("lib/x", "through the link"),
            make.file("up/new", "etc"),
            make.link("lib/fourth", "usr/lib/one"),
            make.file("etc/a/.wh..wh..opq"),
            make.file("etc/a/y", "y"),
            make.file("dir", "a file now"),
            make.directory("file"),
            make.file("file/below", "b"),
            make.file(".wh.link"),
        ],
        [
            make.file("usr/lib/.wh.one"),
            make.directory("dir", mode=0o700),
            make.file("dir/again", "a"),
            make.directory("link"),
            make.other("pipe", tarfile.BLKTYPE, devmajor=7, devminor=1),
            make.file(".wh.dev"),
            make.directory("etc", mode=0o711),
        ],
        [],
        [
            make.file(".wh.etc"),
            make.file("etc/a/z", "z"),
            make.file("dev/null", "n"),
            make.link("same", "lib/same"),
            make.file("usr/lib/third", "replaced"),
        ],
    ]
    for layer in layers:
        assert store.add(*layer) is None
        store.assert_same()


def test_attributes_of_lower_layers_are_the_same_where_something_is_made_in_them(store, make):
    """Directories that overlayfs copies up, and a file that it does."""
    attributes = {"SCHILY.xattr.user.a": "1", "SCHILY.xattr.trusted.b": "2"}
    capability = {"SCHILY.xattr.security.capability": "\1\0\0\2\0\4" + "\0" * 14}
    store.add(
        make.directory("./", pax_headers=attributes),
        make.directory("d", mode=0o1777, uid=5, pax_headers=attributes),
        make.file("d/ping", "p", uid=6, pax_headers=capability),
    )
    store.add(make.file("d/new"), make.link("d/pong", "d/ping"), make.file("top"))
    store.assert_same()


NAMES = ["a", "b", "d", "e", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "a/b", "a/d", "b/e/c", "e/b/c"]
TARGETS = ["a", "b", "d", "/d", "../d", "d/e", "..", "/", "nowhere"]


def entry(make, chance):
    name, owner = chance.choice(NAMES), {"uid": chance.randint(0, 3), "gid": chance.randint(0, 3)}
    owner["mtime"] = 1_600_000_000 + chance.randint(0, 10**8)
    folder, _, last = name.rpartition("/")
    return chance.choice(
        [
            make.file(name, str(chance.random()), mode=chance.choice([0o644, 0o4755, 0]), **owner),
            make.file(name, "x" * chance.randint(0, 9000), **owner),
            make.directory(name, mode=chance.choice([0o755, 0o2711, 0]), **owner),
            make.directory(chance.choice([name, "./"]), mode=0o755, **owner),
            make.symlink(name, chance.choice(TARGETS), **owner),
            make.link(name, chance.choice(NAMES), **owner),
            make.link(name, chance.choice(NAMES), **owner),
            make.other(name, tarfile.FIFOTYPE, **owner),
            make.file(f"{folder}/.wh.{last}", **owner),
            make.file(f"{folder}/.wh.{last}", **owner),
            make.file(f"{name}/.wh..wh..opq", **owner),
        ]
    )


@pytest.mark.parametrize("seed", range(12))
def test_tree_of_layers_of_chance_is_the_same(store, make, seed):
    """A layer that is refused is refused by each, with the same words; the next one is tried."""
    chance = random.Random(seed)  # noqa: S311  # of tests
    for _ in range(12):
        store.add(*(entry(make, chance) for _ in range(chance.randint(1, 6))))
    assert store.layers
    store.assert_same()


def test_what_is_committed_stays_as_it_is(store, make):
    """While further layers are made and a container writes to all that it sees."""
    store.add(
        make.file("d/f", "f", mode=0o644), make.link("d/g", "d/f"), make.file("big", "x" * 9000)
    )
    before = store.committed()
    store.add(
        make.directory("d", mode=0o700, uid=1),
        make.link("new", "d/f"),
        make.file("d/f", "other"),
        make.file(".wh.big"),
    )
    assert store.committed()[:1] == before
    store.add(make.file("h"))
    before = store.committed()
    root = store.compose()
    for path in (root / "d" / "f", root / "d" / "g", root / "new", root / "h"):
        with path.open("r+b") as file:
            file.write(b"written")
        path.chmod(0o777)
        os.setxattr(path, "user.by", b"container")
    (root / "d").rename(root / "moved") if store.snapshotter.name == "plain" else None
    (root / "h").unlink()
    store.release()
    assert store.committed() == before
    store.assert_same()


def test_what_a_container_writes_is_there(store, make):
    store.add(make.file("d/f", "f"))
    root = store.compose()
    (root / "d" / "f").write_text("changed")
    (root / "d" / "new").write_text("new")
    assert (root / "d" / "f").read_text() == "changed"
    assert sorted(path.name for path in (root / "d").iterdir()) == ["f", "new"]


def test_compose_of_no_layers_leaves_an_empty_root(store):
    assert list(store.compose().iterdir()) == []


def test_same_layers_compose_two_roots_that_know_nothing_of_each_other(store, make, folder):
    store.add(make.file("f", "f"))
    root = store.compose()
    for name in ("root2", "scratch2"):
        (folder / name).mkdir()
    store.snapshotter.compose(store.layers, folder / "root2", folder / "scratch2")
    try:
        (root / "f").write_text("one")
        assert (folder / "root2" / "f").read_text() == "f"
    finally:
        store.snapshotter.release(folder / "root2")


def test_composed_root_moves_with_the_directory_above_it(store, make, folder, mounts):
    """A bundle appears by a rename."""
    store.add(make.file("f", "f"))
    store.add(make.file("g", "g"))
    bundle = store.compose().parent
    bundle.rename(folder / "published")
    root = folder / "published" / "rootfs"
    (root / "f").write_text("changed")
    assert sorted(path.name for path in root.iterdir()) == ["f", "g"]
    store.snapshotter.release(root)
    assert mounts(folder) == []
    (folder / "published").rename(bundle)


def test_release_while_somebody_is_in_it_takes_it_away(store, make, mounts, folder):
    store.add(make.file("f", "f"))
    with (store.compose() / "f").open("rb") as file:
        store.release()
        assert mounts(folder) == []
        assert file.read() == b"f"


def test_release_twice_and_of_nothing_is_nothing(store, folder):
    store.compose()
    store.release()
    store.release()
    store.snapshotter.release(folder / "missing")


def test_error_in_the_block_reaches_the_caller_and_leaves_nothing_mounted(store, make):
    """The fixture looks for mounts and descriptors."""
    store.add(make.file("f", "f"))
    with (
        pytest.raises(NotADirectoryError),
        store.snapshotter.prepare(store.layers, store.place()) as prepared,
    ):
        os.mkdir("f/below", dir_fd=prepared.root_fd)


KILLED = """
import sys
from pathlib import Path
from imagers.pull.snapshots.snapshotter import Committed
from imagers.pull.snapshots.table import load_snapshotter
name, facts, parent, place = sys.argv[1:]
with load_snapshotter(name).prepare([Committed(Path(parent), eval(facts))], Path(place)):
    print("in it", flush=True)
    sys.stdin.read()
"""


def test_kill_while_a_layer_is_made_leaves_nothing_mounted(store, make, folder, mounts):
    store.add(make.file("f", "f"))
    layer = store.layers[0]
    words = (store.snapshotter.name, str(dict(layer.facts)), layer.place, store.place())
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"in it\n"
        # Of others nobody sees a mount even now.
        assert mounts(folder) == []
        process.kill()
    assert mounts(folder) == []  # of loop devices the fixture knows


@pytest.mark.parametrize(
    "name", ["a:b", "a,b", "a\\b", "a b", "a\nb", "ä", "a=b", "x" * 255, "%41"]
)
def test_names_of_places_mean_nothing(store, make, folder, name):
    store.folder = folder / name
    store.folder.mkdir()
    store.add(make.file("f", "f"))
    store.add(make.file("g", "g"))
    store.folder = folder
    store.assert_same()


def test_places_may_be_as_deep_as_a_path_is_long(store, make, folder):
    store.folder = folder.joinpath(*["x" * 250] * 15)
    store.folder.mkdir(parents=True)
    store.add(make.file("f", "f"))
    store.add(make.file("g", "g"))
    store.folder = folder
    store.assert_same()
