"""The tar images of tests/vectors/ocicrypt: odd and hostile layers, and umoci's results."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from imagers.core import DirectorySink, Ownership, open_layer
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
# Kinds of entries that are refused by name for now.
UNSUPPORTED = {
    "device-nodes": "character device",
    "xattrs": "extended attribute 'user.comment'",
    "xattrs-removed-by-upper-layer": "extended attribute",
    "sparse-pax-1.0": "sparse file",
    "sparse-gnu-old": "sparse file",
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


def unpack(case, root):
    fd = os.open(root, os.O_RDONLY)
    try:
        for number, layer in enumerate(case["layers"]):
            blob = VECTORS / case["path"] / "blobs" / layer["digest"].replace(":", "/")
            with blob.open("rb", buffering=0) as file:
                open_layer(
                    file.fileno(),
                    DirectorySink(fd, Ownership.KEEP),
                    expected=Descriptor(
                        layer["media_type"], parse_digest(layer["digest"]), layer["size"]
                    ),
                    cipher=None,
                    hmac=None,
                    compression=compression_of(layer["media_type"]),
                    diff_id=parse_digest(layer["diff_id"]),
                    what=f"layer {number + 1}",
                )
    finally:
        os.close(fd)


def described(path):
    """An entry as the manifest describes it."""
    status = path.lstat()
    found = {"uid": status.st_uid, "gid": status.st_gid, "mtime": status.st_mtime_ns // 10**9}
    if stat.S_ISLNK(status.st_mode):
        return found | {"type": "symlink", "target": str(path.readlink())}
    found["mode"] = f"{stat.S_IMODE(status.st_mode):04o}"
    if stat.S_ISDIR(status.st_mode):
        return found | {"type": "dir"}
    data = path.read_bytes()
    return found | {
        "type": "file",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "inode": status.st_ino,
    }


def assert_tree(root, expected):
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
        for field, value in wanted.items():
            if field == "hardlink_group":
                assert groups.setdefault(value, got["inode"]) == got["inode"], name
            elif field == "mtime":
                assert got["mtime"] == value // 1, name
            else:
                assert got[field] == value, (name, field)


@pytest.mark.parametrize("name", CASES)
def test_unpack_vector(unpacking, name):
    case = CASES[name]
    root = unpacking.path() / "a" / "b" / "root"
    root.mkdir(parents=True)
    root.chmod(0o755)
    canary = root.parent / "canary"
    canary.write_text("alive")
    refusal = None
    try:
        unpack(case, root)
    except ImagersError as error:
        refusal = error
    assert sorted(path.name for path in root.parent.iterdir()) == ["canary", "root"]
    assert sorted(path.name for path in root.parent.parent.iterdir()) == ["b"]
    assert canary.read_text() == "alive"
    if name in UNSUPPORTED:
        assert isinstance(refusal, Unsupported)
        assert UNSUPPORTED[name] in str(refusal)
    elif case["expect"] == "fail":
        assert isinstance(refusal, KINDS[case["kind"]])
    elif case["expect"] == "ok":
        assert refusal is None
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


def test_every_vector_that_is_refused_for_now_is_in_the_manifest():
    assert set(UNSUPPORTED) <= set(CASES)
