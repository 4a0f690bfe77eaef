# SPDX-License-Identifier: Apache-2.0
"""The tar images of tests/vectors/ocicrypt: odd and hostile layers, and umoci's results."""

import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path

import pytest

from imagers.core import DirectorySink, Ownership, open_layer
from imagers.core.left_out import Left
from imagers.errors import DigestMismatch, FormatError, ImagersError, Truncated, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import parse_digest
from imagers.model.media import compression_of

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
CASES = {
    case["id"].removeprefix("tar/"): case
    for case in json.loads((VECTORS / "manifest.json").read_text())["cases"]
    if case["category"] == "tar"
}
KINDS = {
    "unsafe-path": (FormatError, Unsupported),
    "missing-link-target": FormatError,
    "name-too-long": FormatError,
    "malformed-tar": (FormatError, Truncated),
    "corrupt-compression": (FormatError, Truncated),
    "diffid-mismatch": DigestMismatch,
    "resource-limit": Unsupported,
}
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners are part of the trees"),
]


def unpack(case, root, ownership=Ownership.KEEP):
    """What was left out of all layers: the kinds."""
    kinds = set()
    fd = os.open(root, os.O_RDONLY)
    try:
        for number, layer in enumerate(case["layers"]):
            blob = VECTORS / case["path"] / "blobs" / layer["digest"].replace(":", "/")
            with blob.open("rb", buffering=0) as file:
                opened = open_layer(
                    file.fileno(),
                    DirectorySink(fd, ownership),
                    expected=Descriptor(
                        layer["media_type"], parse_digest(layer["digest"]), layer["size"]
                    ),
                    cipher=None,
                    hmac=None,
                    compression=compression_of(layer["media_type"]),
                    diff_id=parse_digest(layer["diff_id"]),
                    what=f"layer {number + 1}",
                )
                kinds |= {left.kind for left in opened.left_out}
    finally:
        os.close(fd)
    return kinds


def described(path):
    """An entry as the manifest describes it."""
    status = path.lstat()
    found = {"uid": status.st_uid, "gid": status.st_gid, "mtime": status.st_mtime_ns // 10**9}
    if stat.S_ISLNK(status.st_mode):
        return found | {"type": "symlink", "target": str(path.readlink())}
    found["mode"] = f"{stat.S_IMODE(status.st_mode):04o}"
    # A kernel with a policy gives each file a label.
    names = [name for name in os.listxattr(path) if name != "security.selinux"]
    found["xattrs_hex"] = {name: os.getxattr(path, name).hex() for name in names}
    if stat.S_ISDIR(status.st_mode):
        return found | {"type": "dir"}
    if stat.S_ISFIFO(status.st_mode):
        return found | {"type": "fifo"}
    if not stat.S_ISREG(status.st_mode):
        kind = "char" if stat.S_ISCHR(status.st_mode) else "block"
        device = [os.major(status.st_rdev), os.minor(status.st_rdev)]
        return found | {"type": kind, "device": device}
    data = path.read_bytes()
    return found | {
        "type": "file",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "inode": status.st_ino,
    }


def assert_tree(root, expected, unlike=()):
    # Not `rglob`: before Python 3.11.4 it gives up at a link whose target is too long.
    names = {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, folders, files in os.walk(root)
        for name in (*folders, *files)
    } | {"."}
    assert names == set(expected)
    groups = {}
    for name, wanted in expected.items():
        got = described(root / name)
        attributes = {} if wanted["type"] == "symlink" else {"xattrs_hex": {}}  # and no others
        for field, value in (attributes | wanted).items():
            if field in unlike:
                continue
            if field == "hardlink_group":
                assert groups.setdefault(value, got["inode"]) == got["inode"], name
            elif field == "mtime":
                assert got["mtime"] == value // 1, name
            else:
                assert got[field] == value, (name, field)


def unpacked(case, root, ownership):
    """(refusal or None, what was left out), and nothing beside the root has changed."""
    root.mkdir(parents=True)
    root.chmod(0o755)
    canary = root.parent / "canary"
    canary.write_text("alive")
    refusal, kinds = None, set()
    try:
        kinds = unpack(case, root, ownership)
    except ImagersError as error:
        refusal = error
    assert sorted(path.name for path in root.parent.iterdir()) == ["canary", "root"]
    assert sorted(path.name for path in root.parent.parent.iterdir()) == ["b"]
    assert canary.read_text() == "alive"
    return refusal, kinds


@pytest.mark.parametrize("name", CASES)
def test_unpack_vector(unpacking, name):
    case = CASES[name]
    root = unpacking.path() / "a" / "b" / "root"
    refusal, kinds = unpacked(case, root, Ownership.KEEP)
    if case["expect"] == "fail":
        assert isinstance(refusal, KINDS[case["kind"]])
    elif case["expect"] == "ok":
        assert refusal is None
        assert kinds == set()
        if "tree" in case:
            assert_tree(root, case["tree"])
        else:
            assert sum(1 for _ in root.rglob("*")) + 1 == case["tree_entries"]
    elif refusal is None:  # contained
        for path, fields in case.get("must_have", {}).items():
            got = described(root / path)
            assert {key: got[key] for key in fields} == fields
        for path in case.get("must_not_have", []):
            assert not os.path.lexists(root / path)
    elif "kind" in case:
        assert isinstance(refusal, KINDS[case["kind"]])


LEFT_OUT_OF_CONTAINED = {
    "device-overlay-whiteout": {Left.WHITEOUT_DEVICE},
    "xattr-overlay": {Left.OVERLAY},
    "whiteout-aufs-metadata": {Left.AUFS},
}


@pytest.mark.parametrize("name", LEFT_OUT_OF_CONTAINED)
def test_unpack_vector_without_what_means_something_else_in_a_tree(unpacking, name):
    case = CASES[name]
    root = unpacking.path() / "a" / "b" / "root"
    refusal, kinds = unpacked(case, root, Ownership.KEEP)
    assert refusal is None
    assert kinds == LEFT_OUT_OF_CONTAINED[name]
    expected = dict(case["reference_tree"])
    if name == "device-overlay-whiteout":
        del expected["a"]
    if name == "whiteout-aufs-metadata":
        del expected[".wh..wh.plnk"], expected[".wh..wh.plnk/1.2"]
    if name == "xattr-overlay":
        expected["d"] = {key: expected["d"][key] for key in ("type", "mode")}
    assert_tree(root, expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("unpacking")
def test_unpack_vector_as_ordinary_user_with_what_such_a_user_can_make(name):
    case = CASES[name]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # others may enter it
        root = Path(folder) / "a" / "b" / "root"
        os.chown(folder, 65534, 65534)
        os.setegid(65534)
        os.seteuid(65534)
        try:
            refusal, kinds = unpacked(case, root, Ownership.MINE)
        finally:
            os.seteuid(0)
            os.setegid(0)
        if case["expect"] == "fail":
            assert isinstance(refusal, KINDS[case["kind"]])
        if case["expect"] != "ok" or "tree" not in case:
            return
        assert refusal is None
        expected, left_out = {}, set()
        for path, entry in case["tree"].items():
            if entry["type"] in ("char", "block"):
                left_out.add(Left.DEVICE)
                continue
            attributes = dict(entry.get("xattrs_hex", {}))
            if attributes.pop("security.capability", None):
                left_out.add(Left.CAPABILITY)
            expected[path] = {key: entry[key] for key in entry if key != "xattrs_hex"}
            if attributes:
                expected[path]["xattrs_hex"] = attributes
        assert_tree(root, expected, unlike={"uid", "gid"})
        assert kinds == left_out
