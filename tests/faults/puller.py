# SPDX-License-Identifier: Apache-2.0
"""One pull of a fixed image into a store, to be killed at any of its file operations.

python -m tests.faults.puller STORE BUNDLE shared|overlay|plain|erofs
"""

import json
import random
import sys
from pathlib import Path

from imagers.model.descriptor import Platform
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.keys import SecretKey
from imagers.model.reference import parse_reference
from imagers.pull.named import NamedImage
from imagers.pull.run import PullOptions, PullReport, pull_image
from imagers.pull.snapshots.table import load_snapshotter
from imagers.sign.found import Found
from imagers.sign.policy_json import parse_policy
from imagers.store import Store
from imagers.testing import MemoryRepository, TarEntry, make_image, make_tar

KEY = b"k" * 32
# Of a layer that is worth a part, in a few pieces; the same in each process, and incompressible.
DATA = random.Random(7).randbytes(1_500_000)
TARS = (
    make_tar(
        TarEntry.directory("etc"),
        ("etc/hostname", b"guest\n"),
        ("old", b"gone soon"),
        TarEntry.symlink("link", "etc/hostname"),
    ),
    make_tar((".wh.old", b""), ("data", DATA)),
)
TREE = {
    "data": DATA,
    "etc": None,
    "etc/hostname": b"guest\n",
    "link": "etc/hostname",
}


def pull(store: Path, bundle: Path, kind: str) -> PullReport:
    """Pull the image; `kind` is "shared", or a snapshotter of a private store."""
    source = MemoryRepository(make_image(*TARS, config={"config": {"Cmd": ["/bin/true"]}}))
    name = f"registry.example.org/app@{digest_of(source.top.raw)}"
    image = NamedImage(
        docker_identity(parse_reference(name)), source, lambda *_: Found.everywhere([])
    )
    policy = parse_policy(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}).encode())
    with SecretKey(KEY) as key, Store(store, key) as opened:
        options = PullOptions(
            policy,
            Platform("linux", "amd64"),
            store=opened,
            snapshotter=None if kind == "shared" else load_snapshotter(kind),
        )
        return pull_image(image, bundle, options)


def tree_of(root: Path) -> dict[str, bytes | str | None]:
    """What is below a directory: bytes of files, targets of links."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found


if __name__ == "__main__":
    pull(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
