# SPDX-License-Identifier: Apache-2.0
"""Unpacking: what lands where, and that nothing ever lands outside of the root.

Each test runs with openat2, with the C code's own walk, and in plain Python; and layer by layer
through each way to keep layers.
"""

import dataclasses
import gc
import os
import stat
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagers.core import DirectorySink, Ownership
from imagers.core.left_out import Left
from imagers.core.plain_unpack import make_directories
from imagers.errors import FormatError, LocalError, Unsupported

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
WAYS = ["c", "c-split", "c-walk", "plain", "through overlay", "through plain", "through erofs"]
pytestmark = pytest.mark.parametrize("unpacking", WAYS, indirect=True)


def assert_contained(root):
    """Beside the root there is what was there before."""
    assert sorted(path.name for path in root.parent.iterdir()) == ["canary", "root"]
    assert (root.parent / "canary").read_text() == "alive"
    assert [path.name for path in root.parent.parent.iterdir()] == ["b"]


def refused(unpacking, kind, message, *tars):
    """The root, after a refusal whose text has `message` in it."""
    root = unpacking.path() / "a" / "b" / "root"
    root.mkdir(parents=True)
    (root.parent / "canary").write_text("alive")
    with pytest.raises(kind, match=message) as caught:
        unpacking.unpack(*tars, root=root)
    assert type(caught.value) is kind
    assert_contained(root)
    return root


def test_unpack_makes_each_kind(unpacking, tar, make, tree):
    root = unpacking.unpack(
        tar(
            make.directory("d", mode=0o750),
            make.file("d/f", "content", mode=0o640),
            make.symlink("d/s", "../nowhere"),
            make.link("h", "d/f"),
            make.file("empty"),
        )
    )
    assert tree(root) == {
        "d": "/",
        "d/f": "content",
        "d/s": "-> ../nowhere",
        "h": "content",
        "empty": "",
    }
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "d/f").stat().st_mode) == 0o640
    assert (root / "h").stat().st_ino == (root / "d/f").stat().st_ino


def test_unpack_sets_times_of_directories_that_get_content_later(unpacking, tar, make):
    data = tar(
        make.directory("d", mtime=1000),
        make.directory("d/e", mtime=2000),
        make.file("d/e/f", mtime=3000),
        make.file("d/g", mtime=4000),
        make.file("d/e/h"),
        make.symlink("s", "x", mtime=5000),
        make.directory(".", mtime=6000),
        make.file("last"),
    )
    root = unpacking.unpack(data)
    expected = {"d": 1000, "d/e": 2000, "d/e/f": 3000, "d/g": 4000, "s": 5000, ".": 6000}
    assert {name: (root / name).lstat().st_mtime for name in expected} == expected
    # A lower directory keeps its time when this layer only puts something into it.
    unpacking.unpack(tar(make.file("d/new"), make.file("d/e/.wh.f")), root=root)
    assert (root / "d").stat().st_mtime == 1000
    assert (root / "d/e").stat().st_mtime == 2000
    assert not (root / "d/e/f").exists()


def test_unpack_does_not_heed_the_umask(unpacking, tar, make):
    before = os.umask(0o077)
    try:
        root = unpacking.unpack(tar(make.file("a/f", mode=0o666), make.directory("d", mode=0o777)))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("a", "a/f", "d")}
    assert modes == {"a": 0o755, "a/f": 0o666, "d": 0o777}


@pytest.mark.root
@needs_root
def test_unpack_keeps_owner_then_mode(unpacking, tar, make):
    """chown clears set-user-id: the mode has to come after it."""
    root = unpacking.unpack(
        tar(
            make.file("su", mode=0o4755, uid=1234, gid=4294967294),
            make.directory("sg", mode=0o2775, uid=5, gid=6),
            make.symlink("s", "su", uid=7, gid=8),
        ),
        ownership=Ownership.KEEP,
    )
    status = {name: (root / name).lstat() for name in ("su", "sg", "s")}
    assert {name: (one.st_uid, one.st_gid) for name, one in status.items()} == {
        "su": (1234, 4294967294),
        "sg": (5, 6),
        "s": (7, 8),
    }
    assert stat.S_IMODE(status["su"].st_mode) == 0o4755
    assert stat.S_IMODE(status["sg"].st_mode) == 0o2775


def test_unpack_mine_ignores_owners(unpacking, tar, make):
    root = unpacking.unpack(tar(make.file("f", uid=1234, gid=5678)))
    assert (root / "f").stat().st_uid == os.geteuid()


def test_unpack_result_counts(unpacking, tar, make):
    fd = os.open(unpacking._folder, os.O_RDONLY)
    try:
        data = tar(make.file("a", "123"), make.file("x/y/z"), make.file(".wh.q"))
        result, _ = unpacking.open(data, sink=DirectorySink(fd, Ownership.MINE))
    finally:
        os.close(fd)
    assert result.entries == 5  # three, and two directories that they imply
    assert result.tar_size == len(data)


# Replacing what is there


@pytest.mark.parametrize("first", ["file", "directory", "symlink", "link", "full directory"])
@pytest.mark.parametrize("second", ["file", "directory", "symlink", "link"])
@pytest.mark.parametrize("layers", [1, 2])
def test_unpack_replaces_what_is_there(unpacking, tar, make, tree, first, second, layers):
    def entries(kind, content):
        return {
            "file": [make.file("p", content)],
            "directory": [make.directory("p")],
            "full directory": [make.directory("p"), make.file("p/q/r", "deep")],
            "symlink": [make.symlink("p", "t")],
            "link": [make.link("p", "t")],
        }[kind]

    base = [make.file("t", "target"), make.directory("u")]
    lower, upper = entries(first, "old"), entries(second, "new")
    if layers == 1:
        root = unpacking.unpack(tar(*base, *lower, *upper))
    else:
        root = unpacking.unpack(tar(*base, *lower), tar(*upper))
    expected = {"t": "target", "u": "/"}
    expected["p"] = {"file": "new", "directory": "/", "symlink": "-> t", "link": "target"}[second]
    if second == "directory" and first == "full directory":
        expected |= {"p/q": "/", "p/q/r": "deep"}
    assert tree(root) == expected
    assert_contained(root)


def test_unpack_file_over_symlink_does_not_write_through_it(unpacking, tar, make, tree):
    root = unpacking.unpack(
        tar(
            make.file("t", "target"),
            make.symlink("inside", "t"),
            make.symlink("outside", "../canary"),
            make.file("inside", "new"),
            make.file("outside", "new"),
        )
    )
    assert tree(root) == {"t": "target", "inside": "new", "outside": "new"}
    assert_contained(root)


def test_unpack_directory_over_symlink_replaces_it(unpacking, tar, make, tree):
    root = unpacking.unpack(
        tar(make.directory("real"), make.symlink("d", "real")),
        tar(make.directory("d", mode=0o700), make.file("d/f")),
    )
    assert tree(root) == {"real": "/", "d": "/", "d/f": ""}


def test_unpack_duplicate_entries_the_last_one_wins(unpacking, tar, make, tree):
    root = unpacking.unpack(tar(make.file("f", "a"), make.file("f", "bc"), make.file("./f", "d")))
    assert tree(root) == {"f": "d"}


def test_unpack_new_file_does_not_change_a_hard_link_of_the_old(unpacking, tar, make, tree):
    root = unpacking.unpack(
        tar(make.file("one", "old"), make.link("two", "one")), tar(make.file("one", "new"))
    )
    assert tree(root) == {"one": "new", "two": "old"}


def test_unpack_replaces_a_deep_tree(unpacking, tar, make, tree):
    """Deeper than a process may have files open, and than Python may recurse."""
    part = "/".join(["d"] * 1300)
    data = tar(make.file(f"p/{part}/f"), make.file("p/x/y"), make.symlink("p/s", "/"))
    root = unpacking.unpack(data)
    unpacking.unpack(tar(make.file("p", "gone")), root=root)
    assert tree(root) == {"p": "gone"}
    assert_contained(root)


def test_unpack_replaces_a_wide_tree(unpacking, tar, make, tree):
    entries = [make.file(f"p/{number}/f") for number in range(300)]
    entries += [make.file(f"p/file{number}") for number in range(300)]
    root = unpacking.unpack(tar(*entries), tar(make.file("p", "gone")))
    assert tree(root) == {"p": "gone"}


# Names that try to get out


@pytest.mark.parametrize(
    "name", ["../escaped", "a/../../escaped", "..", "a/..", "./../x", "x/../fine", "/../x"]
)
def test_unpack_dotdot_in_a_name_is_refused(unpacking, tar, make, name):
    root = refused(
        unpacking,
        FormatError,
        "has '..' in its name and would leave the image root",
        tar(make.file("ok", "x"), make.file(name, "bad")),
    )
    assert (root / "ok").exists()


def test_unpack_absolute_name_is_below_the_root(unpacking, tar, make, tree):
    root = unpacking.unpack(tar(make.file("/etc/passwd", "x"), make.file("//twice//f", "y")))
    assert tree(root) == {"etc": "/", "etc/passwd": "x", "twice": "/", "twice/f": "y"}


@pytest.mark.parametrize(
    ("target", "lands"),
    [
        ("usr/lib", "usr/lib/f"),
        ("/usr/lib", "usr/lib/f"),
        ("../../../usr/lib", "usr/lib/f"),
        ("../..", "f"),
        ("/", "f"),
        ("usr/../usr/./lib/", "usr/lib/f"),
        ("other", "usr/lib/f"),
        ("missing/place", "missing/place/f"),
        ("/missing", "missing/f"),
        ("../missing", "missing/f"),
    ],
)
def test_unpack_through_a_symlink_stays_inside(unpacking, tar, make, tree, target, lands):
    """Real images do this: /lib leads to usr/lib, and later layers name files in /lib."""
    root = unpacking.unpack(
        tar(
            make.directory("usr"),
            make.directory("usr/lib"),
            make.symlink("other", "/usr/lib"),
            make.symlink("lib", target),
        ),
        tar(make.file("lib/f", "x"), make.file("lib/.wh.gone")),
    )
    assert tree(root)[lands] == "x"
    assert_contained(root)


def test_unpack_through_a_chain_of_symlinks_stays_inside(unpacking, tar, make, tree):
    root = unpacking.unpack(
        tar(
            make.symlink("l1", "l2"),
            make.symlink("l2", "l3/.."),
            make.symlink("l3", "../../a"),
            make.file("l1/escaped", "x"),
        )
    )
    assert tree(root)["escaped"] == "x"
    assert_contained(root)


def test_unpack_through_a_loop_is_refused(unpacking, tar, make):
    refused(
        unpacking,
        FormatError,
        "below a symbolic link that leads in circles",
        tar(make.symlink("p", "q"), make.symlink("q", "p"), make.file("p/f")),
    )


def test_unpack_below_a_file_is_refused(unpacking, tar, make):
    refused(
        unpacking,
        FormatError,
        "entry 'p/q/r': is below something that is not a directory",
        tar(make.file("p"), make.file("p/q/r")),
    )


def test_unpack_root_itself_can_only_be_a_directory(unpacking, tar, make):
    for entry in (make.symlink(".", "../.."), make.file("/"), make.link("./", "x")):
        refused(unpacking, FormatError, "would replace the image root", tar(entry))
    root = unpacking.unpack(tar(make.directory(".", mode=0o711), make.file("f")))
    assert stat.S_IMODE(root.stat().st_mode) == 0o711


def test_unpack_long_component_is_refused(unpacking, tar, make):
    unpacking.unpack(tar(make.file("n" * 255)))
    refused(unpacking, FormatError, "longer than 255 bytes", tar(make.file("d/" + "n" * 256)))
    refused(
        unpacking,
        FormatError,
        "longer than 255 bytes",
        tar(make.symlink("s", "n" * 300), make.file("s/f")),
    )


def test_unpack_symlink_to_nothing_is_refused(unpacking, tar, make):
    refused(unpacking, FormatError, "is a symbolic link to nothing", tar(make.symlink("s", "")))


def test_unpack_names_that_are_no_utf8_are_kept(unpacking, make, tar):
    root = unpacking.unpack(tar(make.file("bad\udcff"), make.file("line\nbreak")))
    assert sorted(os.listdir(os.fsencode(root))) == [b"bad\xff", b"line\nbreak"]
    with pytest.raises(FormatError) as caught:
        unpacking.unpack(tar(make.file("../\udcff\n\x1b[31m")))
    assert (
        caught.value.where
        == "entry '../\\xff\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[31m'"
    )


# Hard links


@pytest.mark.parametrize("target", ["../canary", "a/../../canary", "/../canary"])
def test_unpack_hard_link_with_dotdot_is_refused(unpacking, tar, make, target):
    refused(
        unpacking,
        FormatError,
        f"is a hard link to '{target}', which would leave the image root",
        tar(make.link("h", target)),
    )


@pytest.mark.parametrize("target", ["later", "up/canary", "no/such", "file/below"])
def test_unpack_hard_link_to_nothing_is_refused(unpacking, tar, make, target):
    message = "which is not there|is below something"
    root = refused(
        unpacking,
        FormatError,
        message,
        tar(
            make.symlink("up", ".."),
            make.file("file"),
            make.link("h", target),
            make.file("later", "x"),
        ),
    )
    assert not (root / "h").exists()


@pytest.mark.parametrize("target", ["d", "/", "."])
def test_unpack_hard_link_to_a_directory_is_refused(unpacking, tar, make, target):
    refused(
        unpacking,
        FormatError,
        "which is a directory",
        tar(make.directory("d"), make.link("h", target)),
    )


def test_unpack_hard_link_does_not_follow_the_last_symlink(unpacking, tar, make, tree):
    root = unpacking.unpack(
        tar(make.symlink("s", "../canary"), make.link("h", "s"), make.link("abs", "/s"))
    )
    assert tree(root) == {"s": "-> ../canary", "h": "-> ../canary", "abs": "-> ../canary"}
    assert_contained(root)


def test_unpack_hard_link_to_itself_keeps_the_file(unpacking, tar, make, tree):
    root = unpacking.unpack(
        tar(make.file("f", "x"), make.link("f", "f"), make.link("g", "f"), make.link("f", "g"))
    )
    assert tree(root) == {"f": "x", "g": "x"}


def test_unpack_hard_link_that_replaces_its_own_target_is_refused(unpacking, tar, make):
    refused(
        unpacking,
        FormatError,
        "'d/x', which is not there",
        tar(make.directory("d"), make.file("d/x"), make.link("d", "d/x")),
    )


# Whiteouts


def lower(tar, make):
    return tar(
        make.directory("d"),
        make.file("d/x", "x"),
        make.directory("d/e"),
        make.file("d/e/y", "y"),
        make.file("f", "f"),
        make.symlink("s", "d"),
    )


def test_whiteout_removes_lower_content(unpacking, tar, make, tree):
    root = unpacking.unpack(
        lower(tar, make), tar(make.file(".wh.f"), make.file("d/.wh.e"), make.file(".wh.s"))
    )
    assert tree(root) == {"d": "/", "d/x": "x"}


def test_whiteout_of_a_directory_removes_all_of_it(unpacking, tar, make, tree):
    root = unpacking.unpack(lower(tar, make), tar(make.file(".wh.d")))
    assert tree(root) == {"f": "f", "s": "-> d"}


@pytest.mark.parametrize("order", [1, -1], ids=["whiteout last", "whiteout first"])
@pytest.mark.parametrize("whiteout", ["d/.wh..wh..opq", ".wh.d"])
def test_whiteout_spares_what_its_own_layer_made(unpacking, tar, make, tree, order, whiteout):
    entries = [
        make.directory("d"),
        make.file("d/new", "n"),
        make.file("d/e/deep", "n"),
        make.file(whiteout),
    ]
    if order == -1:
        entries = [entries[-1], *entries[:-1]]
    root = unpacking.unpack(lower(tar, make), tar(*entries))
    got = tree(root)
    assert got == {"d": "/", "d/new": "n", "d/e": "/", "d/e/deep": "n", "f": "f", "s": "-> d"}


def test_whiteout_spares_what_its_own_layer_made_through_a_link(unpacking, tar, make, tree):
    """The same directory under two names."""
    root = unpacking.unpack(
        lower(tar, make), tar(make.file("s/new", "n"), make.file("d/.wh..wh..opq"))
    )
    assert tree(root) == {"d": "/", "d/new": "n", "f": "f", "s": "-> d"}


@pytest.mark.parametrize("whiteout", ["d/.wh..wh..opq", ".wh.d"])
def test_whiteouts_of_one_directory_again_and_again_list_it_once(
    unpacking, tar, make, tree, whiteout
):
    """A layer of 8,000 entries took a minute, and one of 80,000 would have taken two hours.

    The kernel lists a directory that overlayfs merges each time that somebody tries to remove it.
    """
    count = 4000 if unpacking.lists_once else 400
    entries = [make.file(f"d/{number}") for number in range(count)]
    root = unpacking.unpack(lower(tar, make), tar(*entries, *[make.file(whiteout)] * count))
    got = tree(root)
    assert len(got) == count + 3
    assert "d/x" not in got
    assert "d/0" in got


def test_whiteout_of_a_directory_after_that_of_another_goes_as_deep_as_before(
    unpacking, tar, make, tree
):
    deep = "/".join("d" * 150)
    root = unpacking.unpack(
        tar(make.file("a/x"), make.file(f"deep/{deep}/x")),
        tar(make.file("a/.wh..wh..opq"), make.file(".wh.deep")),
    )
    assert tree(root) == {"a": "/"}


def test_whiteout_of_a_directory_with_many_directories(unpacking, tar, make, tree):
    lower_layer = tar(*[make.file(f"d/{number}/x") for number in range(800)])
    assert tree(unpacking.unpack(lower_layer, tar(make.file(".wh.d")))) == {}


def test_whiteout_spares_a_replaced_file(unpacking, tar, make, tree):
    root = unpacking.unpack(lower(tar, make), tar(make.file("f", "new"), make.file(".wh.f")))
    assert tree(root)["f"] == "new"


def test_whiteout_of_nothing_does_nothing(unpacking, tar, make, tree):
    before = tree(unpacking.unpack(lower(tar, make)))
    root = unpacking.unpack(
        lower(tar, make),
        tar(
            make.file(".wh.none"),
            make.file("no/such/.wh.x"),
            make.file("no/.wh..wh..opq"),
            make.file("s/.wh.none"),
        ),
    )
    assert tree(root) == before


def test_whiteout_with_content_is_skipped(unpacking, tar, make, tree):
    root = unpacking.unpack(lower(tar, make), tar(make.file(".wh.d", "x" * 600), make.file("g")))
    assert tree(root) == {"f": "f", "s": "-> d", "g": ""}


@pytest.mark.parametrize("name", ["up/.wh.canary", "up/b/.wh.canary", "up/b/.wh..wh..opq"])
def test_whiteout_through_a_symlink_stays_inside(unpacking, tar, make, name):
    root = unpacking.unpack(tar(make.symlink("up", "../.."), make.file("x")))
    unpacking.unpack(tar(make.file(name)), root=root)
    assert_contained(root)


@pytest.mark.parametrize("name", [".wh.", "d/.wh..", "d/.wh...", ".wh.d/x", ".wh..wh..opq/x"])
def test_whiteout_of_a_bad_name_is_refused(unpacking, tar, make, name):
    refused(unpacking, FormatError, "is a whiteout of no file", tar(make.file(name)))


def test_whiteout_that_is_no_file_is_refused(unpacking, tar, make):
    for entry in (make.directory(".wh.x"), make.symlink(".wh.x", "y")):
        refused(unpacking, FormatError, "is no plain file itself", tar(entry))


def test_whiteout_that_is_a_link_to_another_hides(unpacking, tar, make, tree):
    """On aufs all whiteouts are one file."""
    data = tar(make.file(".wh.f"), make.link("d/.wh.x", ".wh.f"))
    assert "f" not in tree(unpacking.unpack(lower(tar, make), data))


@pytest.mark.parametrize(
    "name",
    [
        ".wh..wh.plnk/1/x",
        ".wh..wh.plnk/.wh.x",
        ".wh..wh.aufs",
        "d/.wh..wh.orph",
        ".wh..wh.orph/d/.wh.x",
        "/.wh..wh.",
    ],
)
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_leftovers_of_aufs_are_left_out(unpacking, tar, make, tree, name, kind):
    entry = make.symlink(name, "/") if kind == "symlink" else getattr(make, kind)(name)
    root = unpacking.unpack(tar(entry, make.file("f")))
    assert tree(root) == {"f": ""}
    ((count, where),) = unpacking.left_out.values()
    assert count == 1
    assert where.strip("'/") == name.strip("/")


def test_links_of_aufs_are_there_for_hard_links_and_gone_at_the_end(unpacking, tar, make, tree):
    """aufs has the content of a file with several names in a place of its own."""
    root = unpacking.unpack(
        tar(
            make.directory(".", mtime=1000),
            make.directory(".wh..wh.plnk"),
            make.file(".wh..wh.plnk/12.34", "content", mode=0o600),
            make.link(".wh..wh.plnk/evil", "etc/f"),
            make.symlink(".wh..wh.plnk/s", "/"),
            make.file(".wh..wh.plnk/.wh.x"),
            make.file(".wh..wh.plnk/.wh..wh..opq"),
            make.link("a", ".wh..wh.plnk/12.34"),
            make.link("d/b", "/.wh..wh.plnk/12.34"),
        )
    )
    assert tree(root) == {"a": "content", "d": "/", "d/b": "content"}
    assert (root / "a").stat().st_nlink == 2
    assert root.stat().st_mtime == 1000
    assert unpacking.left_out == {Left.AUFS: (6, "'.wh..wh.plnk/'")}


def test_whiteout_nested_too_deep_is_unsupported(unpacking, tar, make, tree):
    deep = make.file("d/" + "/".join(["x"] * 120) + "/f")
    refused(
        unpacking,
        Unsupported,
        "hides directories nested deeper than 100",
        tar(deep),
        tar(make.file("new"), make.file(".wh.d")),
    )
    root = unpacking.unpack(tar(deep), tar(make.file(".wh.d")))
    assert tree(root) == {}


# Devices, FIFOs, extended attributes


def attributes(path):
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if name != "security.selinux"  # a kernel with a policy gives each file one
    }


def with_attributes(entry, **values):
    """An entry with SCHILY.xattr records; `__` in a name is a dot."""
    records = {f"SCHILY.xattr.{key.replace('__', '.')}": value for key, value in values.items()}
    return with_records(entry, records)


def with_records(entry, records):
    return dataclasses.replace(entry, attributes=entry.attributes | {"pax_headers": records})


@pytest.fixture
def nodes(make):
    """A device with two names, a block device, a whiteout of overlayfs, a FIFO."""
    return [
        make.other("dev/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3, gid=6),
        make.link("dev/zero", "dev/null"),
        make.other("dev/sda", tarfile.BLKTYPE, mode=0o660, devmajor=8, devminor=0),
        make.other("hidden", tarfile.CHRTYPE, devmajor=0, devminor=0),
        make.link("hidden2", "hidden"),
        make.other("fifo", tarfile.FIFOTYPE, mode=0o1622, mtime=5),
    ]


@pytest.mark.root
@needs_root
def test_unpack_as_root_makes_devices(unpacking, tar, tree, nodes):
    root = unpacking.unpack(tar(*nodes), ownership=Ownership.KEEP)
    assert tree(root) == {
        "dev": "/",
        "dev/null": "c 1:3",
        "dev/zero": "c 1:3",
        "dev/sda": "b 8:0",
        "fifo": "|",
    }
    status = (root / "dev/null").lstat()
    assert (status.st_mode, status.st_gid, status.st_nlink) == (stat.S_IFCHR | 0o666, 6, 2)
    assert status.st_mtime == 1_700_000_000
    assert (root / "fifo").lstat().st_mode == stat.S_IFIFO | 0o1622
    assert (root / "fifo").lstat().st_mtime == 5
    assert unpacking.left_out == {Left.WHITEOUT_DEVICE: (2, "'hidden'")}


def test_unpack_as_ordinary_user_leaves_devices_out_and_what_had_their_names(
    unpacking, tar, make, tree, nodes
):
    lower = tar(
        make.file("dev/null", "not empty"),
        make.file("dev/zero"),
        make.file("dev/sda/x/y"),
        make.symlink("hidden", "/"),
        make.file("hidden2/x"),
        make.directory("fifo"),
        make.file("fifo/x"),
        make.directory("dev", mtime=1000),
    )
    root = unpacking.unpack(lower, tar(*nodes))
    assert tree(root) == {"dev": "/", "fifo": "|"}
    assert (root / "dev").stat().st_mtime == 1000
    assert unpacking.left_out == {
        Left.DEVICE: (3, "'dev/null'"),
        Left.WHITEOUT_DEVICE: (2, "'hidden'"),
    }


def test_unpack_of_a_file_after_a_device_that_was_left_out(unpacking, tar, make, tree, nodes):
    data = tar(*nodes[:1], make.file("dev/null", "now a file"), make.link("l", "dev/null"))
    assert tree(unpacking.unpack(data)) == {
        "dev": "/",
        "dev/null": "now a file",
        "l": "now a file",
    }


def test_unpack_hard_link_to_a_device_that_is_not_there_is_refused(unpacking, tar, make, nodes):
    refused(unpacking, FormatError, "which is not there", tar(*nodes[:1], make.link("l", "dev/x")))


@pytest.mark.parametrize("second", ["file", "directory", "symlink"])
def test_unpack_replaces_a_fifo_without_opening_it(unpacking, tar, make, tree, second):
    fifo = make.other("p", tarfile.FIFOTYPE)
    entry = make.symlink("p", "t") if second == "symlink" else getattr(make, second)("p")
    root = unpacking.unpack(tar(fifo), tar(entry))
    assert tree(root)["p"] == {"file": "", "directory": "/", "symlink": "-> t"}[second]
    assert tree(unpacking.unpack(tar(make.file(".wh.p")), root=root)) == {}


CAPABILITY = "\1\0\0\2\0\x20\0\0" + "\0" * 12  # cap_net_raw=ep


@pytest.mark.root
@needs_root
def test_unpack_as_root_sets_capabilities_after_the_owner(unpacking, tar, make):
    """chown clears them: image-rs loses them so."""
    root = unpacking.unpack(
        tar(
            with_attributes(
                make.file("ping", "x", mode=0o4755, uid=1000, gid=1000),
                security__capability=CAPABILITY,
                user__a="1",
                trusted__b="2",
            ),
            with_attributes(make.directory("d", mode=0o555), user__c="3", trusted__d="4"),
            with_attributes(make.symlink("s", "t"), trusted__e="5"),
            with_attributes(make.other("p", tarfile.FIFOTYPE), trusted__f="6"),
            make.link("l", "ping"),
        ),
        ownership=Ownership.KEEP,
    )
    assert attributes(root / "ping") == {
        "security.capability": CAPABILITY.encode(),
        "user.a": b"1",
        "trusted.b": b"2",
    }
    status = (root / "ping").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (1000, 0o4755)
    assert status.st_mtime == 1_700_000_000
    assert attributes(root / "d") == {"user.c": b"3", "trusted.d": b"4"}
    assert attributes(root / "s") == {"trusted.e": b"5"}
    assert attributes(root / "p") == {"trusted.f": b"6"}
    assert unpacking.left_out == {}


def test_unpack_as_ordinary_user_sets_those_of_users(unpacking, tar, make):
    root = unpacking.unpack(
        tar(
            with_attributes(
                make.file("f", "x", mode=0o444),
                security__capability=CAPABILITY,
                user__a="1",
                user__empty="",
                trusted__b="2",
            ),
            with_attributes(make.directory("d", mode=0o555), user__c="3"),
        )
    )
    assert attributes(root / "f") == {"user.a": b"1", "user.empty": b""}
    assert attributes(root / "d") == {"user.c": b"3"}
    assert stat.S_IMODE((root / "f").stat().st_mode) == 0o444
    assert unpacking.left_out == {
        Left.CAPABILITY: (1, "'security.capability' of 'f'"),
        Left.ATTRIBUTE: (1, "'trusted.b' of 'f'"),
    }


@pytest.mark.root
@needs_root
def test_unpack_leaves_out_what_means_something_else_in_a_tree(unpacking, tar, make):
    names = {
        "trusted__overlay__opaque": Left.OVERLAY,
        "user__overlay__redirect": Left.OVERLAY,
        "user__fuseoverlayfs__opaque": Left.OVERLAY,
        "user__containers__override_stat": Left.OVERLAY,
        "security__selinux": Left.LABEL,
        "security__evm": Left.LABEL,
        "system__posix_acl_access": Left.ACL,
        "trusted__SGI_ACL_FILE": Left.ACL,
        "other__x": Left.ATTRIBUTE,
    }
    entry = with_attributes(make.directory("d"), **dict.fromkeys(names, "y"))
    root = unpacking.unpack(tar(entry), ownership=Ownership.KEEP)
    assert attributes(root / "d") == {}
    counts = {kind: count for kind, (count, _) in unpacking.left_out.items()}
    assert counts == {kind: list(names.values()).count(kind) for kind in names.values()}


def test_unpack_counts_an_attribute_that_is_written_in_two_ways_once(unpacking, tar, make):
    records = {
        "LIBARCHIVE.xattr.user.a": "MQ",
        "SCHILY.xattr.user.a": "1",
        "LIBARCHIVE.xattr.user.b": "MQ",
        "RHT.security.selinux": "label",
        "SCHILY.xattr.security.selinux": "label",
        "SCHILY.acl.access": "user::rwx",
        "SCHILY.acl.default": "user::rwx",
    }
    root = unpacking.unpack(tar(with_records(make.file("f"), records)))
    assert attributes(root / "f") == {"user.a": b"1"}
    assert {kind: count for kind, (count, _) in unpacking.left_out.items()} == {
        Left.LABEL: 1,
        Left.ATTRIBUTE: 1,
        Left.ACL: 2,
    }


def test_unpack_of_a_directory_again_takes_its_attributes_away(unpacking, tar, make):
    lower = tar(
        with_attributes(make.directory("d", mode=0o555), user__a="1"),
        with_attributes(make.directory("kept"), user__a="1"),
        with_attributes(make.directory("."), user__a="1"),
    )
    upper = tar(
        with_attributes(make.directory("d", mode=0o500), user__b="2"),
        make.file("kept/x"),
        make.directory("."),
    )
    root = unpacking.unpack(lower, upper)
    assert attributes(root / "d") == {"user.b": b"2"}
    assert attributes(root / "kept") == {"user.a": b"1"}
    assert attributes(root) == {}


def test_unpack_attributes_of_a_symlink_that_only_files_can_have_are_left_out(unpacking, tar, make):
    root = unpacking.unpack(
        tar(make.file("t"), with_attributes(make.symlink("s", "t"), user__a="1"))
    )
    assert attributes(root / "t") == {}  # it was not followed
    assert unpacking.left_out == {Left.ATTRIBUTE: (1, "'user.a' of 's'")}


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("value", ["", "x", "\1\0\0\7" + "\0" * 16])
def test_unpack_capability_that_is_none_is_refused(unpacking, tar, make, value):
    entry = with_attributes(make.file("f"), security__capability=value)
    with pytest.raises(FormatError, match="capability', whose name or value no file"):
        unpacking.unpack(tar(entry), ownership=Ownership.KEEP)


@pytest.mark.root
@needs_root
def test_unpack_where_files_have_no_attributes_leaves_them_out(unpacking, tar, make):
    root = unpacking.path()
    root.mkdir()
    mount = ["mount", "-t", "ramfs", "ramfs", str(root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        entry = with_attributes(
            make.file("f"), user__a="1", trusted__b="2", security__capability=CAPABILITY
        )
        lower = tar(with_attributes(make.directory("d"), user__a="1"))
        unpacking.unpack(lower, lower, tar(entry), root=root, ownership=Ownership.KEEP)
        assert (root / "f").exists()
        assert unpacking.left_out == {
            Left.CAPABILITY: (1, "'security.capability' of 'f'"),
            Left.ATTRIBUTE: (2, "'user.a' of 'f'"),
        }
    finally:
        subprocess.run(["umount", str(root)], check=True)


# Directories in a tree that is complete


def test_make_directories_follows_links_inside_the_tree(unpacking, tar, make, tree):
    root = unpacking.unpack(tar(make.symlink("s", "../../d"), make.directory("d", mode=0o555)))
    fd = os.open(root, os.O_RDONLY)
    try:
        sink = DirectorySink(fd, Ownership.MINE)
        make_directories(sink, b"/s/../s/x//./y", what="rootfs")
        make_directories(sink, b"/", what="rootfs")
        with pytest.raises(FormatError, match="longer than 255 bytes"):
            make_directories(sink, b"/" + b"n" * 256, what="rootfs")
    finally:
        os.close(fd)
    assert tree(root) == {"s": "-> ../../d", "d": "/", "d/x": "/", "d/x/y": "/"}
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o555
    assert (root / "d").stat().st_mtime == 1_700_000_000
    assert_contained(root)


# The machine


@pytest.mark.root
@needs_root
def test_unpack_into_a_full_disk_is_a_local_error(unpacking, tar, make):
    root = unpacking.path()
    root.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip("cannot mount here")
    try:
        with pytest.raises(LocalError, match="no space left on device") as caught:
            unpacking.unpack(tar(make.file("big", "x" * 200_000)), root=root)
        assert caught.value.path == "big"
    finally:
        subprocess.run(["umount", str(root)], check=True)


@contextmanager
def ordinary_user(folder):
    """This process as `nobody`, to whom the folder belongs."""
    os.chown(folder, 65534, 65534)
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.root
@needs_root
def test_unpack_as_ordinary_user_into_directories_without_write(unpacking, tar, make, tree):
    """Images have /usr as 0555, and an ordinary user may not write there."""
    first = tar(
        make.directory("usr", mode=0o555),
        make.directory("usr/secret", mode=0o311),
        make.file("usr/secret/f", "x", mode=0o400),
        make.directory("usr/lib", mode=0o555),
        make.file("usr/lib/a", mode=0o444),
        make.file("usr/b"),
        make.directory("gone", mode=0o555),
        make.file("gone/in/f"),
        make.directory("gone/in", mode=0),
        make.directory("opaque", mode=0o555),
        make.file("opaque/in/f"),
        make.directory("opaque/in", mode=0o555),
    )
    second = tar(
        make.file("usr/lib/.wh.a"),
        make.file("usr/lib/c"),
        make.file(".wh.gone"),
        make.file("opaque/.wh..wh..opq"),
        make.file("usr/secret/g"),
    )
    third = tar(make.file(".wh.usr"), make.file("opaque"))
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # others may enter it
        driver = type(unpacking)(Path(name))
        with ordinary_user(name):
            root = driver.unpack(first, second)
            got = tree(root)
            modes = {
                path: stat.S_IMODE((root / path).stat().st_mode)
                for path in ("usr", "usr/lib", "usr/secret", "opaque")
            }
            driver.unpack(third, root=root)
            left = tree(root)
    assert got == {
        "usr": "/",
        "usr/secret": "/",
        "usr/lib": "/",
        "usr/lib/c": "",
        "usr/b": "",
        "opaque": "/",
    }
    assert modes == {"usr": 0o555, "usr/lib": 0o555, "usr/secret": 0o311, "opaque": 0o555}
    assert left == {"opaque": ""}


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("mode", [0, 0o644, 0o300, 0o500])
def test_unpack_as_ordinary_user_below_directories_that_cannot_be_searched(
    unpacking, tar, make, tree, mode
):
    """Scripts write tars whose directories have the mode of files."""
    names = (".", "d", "d/e", "d/e/f")
    layer = tar(
        *(make.directory(name, mode=mode) for name in names),
        make.file("d/e/f/g", "x"),
        make.link("d/h", "d/e/f/g"),
        make.link("d/e/f/i", "d/h"),
        make.file("d/e/f/j", "y"),
        make.symlink("d/e/up", "../../d/e/./f"),
        make.file("d/e/up/k/l", "z"),
        make.file("d/e/f/.wh.none"),
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # others may enter it
        driver = type(unpacking)(Path(name))
        with ordinary_user(name):
            root = driver.unpack(layer, tar(make.file("d/e/.wh.f")), layer)
        got = tree(root)
        assert {stat.S_IMODE((root / name).stat().st_mode) for name in names} == {mode}
    assert got == {
        "d": "/",
        "d/e": "/",
        "d/e/f": "/",
        "d/e/f/g": "x",
        "d/e/f/i": "x",
        "d/e/f/j": "y",
        "d/e/f/k": "/",
        "d/e/f/k/l": "z",
        "d/e/up": "-> ../../d/e/./f",
        "d/h": "x",
    }


@pytest.mark.root
@needs_root
def test_unpack_keeping_owners_as_ordinary_user_is_a_local_error(unpacking, tar, make):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # as above
        driver = type(unpacking)(Path(name))
        with (
            ordinary_user(name),
            pytest.raises(LocalError, match="cannot unpack layer: operation not") as caught,
        ):
            driver.unpack(tar(make.file("f", uid=0)), ownership=Ownership.KEEP)
    assert caught.value.path == "f"


def test_unpack_leaves_no_descriptor_open(unpacking, tar, make):
    def count():
        gc.collect()  # what other tests have left closes now, and not meanwhile
        return len(os.listdir("/proc/self/fd"))

    good = tar(make.directory("d"), make.file("d/f", "x"), make.link("h", "d/f"))
    bad = tar(make.file("d/f", "x"), make.link("h", "none"))
    cut = tar(make.file("d/f", "x" * 2000))[:1500]
    unpacking.unpack(good)
    before = count()
    for _ in range(3):
        unpacking.unpack(good, good)
        for data in (bad, cut, tar(make.other("x", b"Z"))):
            with pytest.raises(Exception, match="layer"):
                unpacking.unpack(data)
    assert count() == before
