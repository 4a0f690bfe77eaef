# SPDX-License-Identifier: Apache-2.0
"""What keeping layers costs the first pull, and saves the next.

    python benchmarks/guest_store.py [--mebibytes 256] [--files 10000] [--runs 5] [--place DIR]

An image of four gzip layers, the last one of many small files, encrypted for a key file, from a
docker-registry on loopback; whole processes that take turns: without a store, first and second
pull with a shared one and with a private one of each snapshotter, and `imagers --help`, which is
what starting costs. The floor of a second pull is that, and what asking the registry takes.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from guests import MIB, Guest, Runs, guest
from measure import IMAGERS, out

_LAYERS = 4
_STORES = {
    "shared": [],
    "overlay": ["--store-place", "private", "--snapshotter", "overlay"],
    "plain": ["--store-place", "private", "--snapshotter", "plain"],
    "erofs": ["--store-place", "private", "--snapshotter", "erofs"],
}


def _forget(place: Guest, *, store: bool) -> None:
    kept = place.folder / "store"
    if os.path.ismount(place.bundle / "rootfs"):
        out(*IMAGERS, "store", "remove", place.bundle, "--store", kept)
    shutil.rmtree(place.bundle)
    if store:
        shutil.rmtree(kept)


def _measure(place: Guest, image: str, runs: int) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for _ in range(runs):
        found.setdefault("imagers --help", Runs()).add(place.peak, [*IMAGERS, "--help"])
        found.setdefault("no store", Runs()).add(place.peak, place.pull(image, "--no-store"))
        _forget(place, store=False)
        for name, words in _STORES.items():
            if shutil.which("mkfs.erofs") is None and name == "erofs":
                continue
            pull = place.pull(image, "--store", place.folder / "store", *words)
            for which in ("first", "second"):
                found.setdefault(f"{name}, {which}", Runs()).add(place.peak, pull)
                _forget(place, store=which == "second")
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--place", type=Path, help="where the bundle and the store go")
    arguments = parser.parse_args()
    with guest(arguments.place) as place:
        image = place.image("image")
        size = place.encrypted(_LAYERS, arguments.mebibytes, image, files=arguments.files)
        print(f"{_LAYERS} layers, {size / MIB:.0f} MiB stored, {arguments.files} small files")
        for what, row in _measure(place, image, arguments.runs).items():
            print(f"  {what:<16} {row}", flush=True)


if __name__ == "__main__":
    main()
