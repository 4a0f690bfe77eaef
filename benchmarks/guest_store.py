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
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from guest_pull import Runs, encrypted_image
from measure import IMAGERS, out
from registry_pull import Registry

_LAYERS = 4
_STORES = {
    "shared": [],
    "overlay": ["--store-place", "private", "--snapshotter", "overlay"],
    "plain": ["--store-place", "private", "--snapshotter", "plain"],
    "erofs": ["--store-place", "private", "--snapshotter", "erofs"],
}


def _forget(folder: Path, *, store: bool) -> None:
    bundle = folder / "bundle"
    if os.path.ismount(bundle / "rootfs"):
        out(*IMAGERS, "store", "remove", str(bundle), "--store", str(folder / "store"))
    shutil.rmtree(bundle)
    if store:
        shutil.rmtree(folder / "store")


def _measure(folder: Path, pull: list[str], runs: int) -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for _ in range(runs):
        found.setdefault("imagers --help", Runs()).add(folder / "peak", [*IMAGERS, "--help"])
        found.setdefault("no store", Runs()).add(folder / "peak", [*pull, "--no-store"])
        _forget(folder, store=False)
        for name, words in _STORES.items():
            if shutil.which("mkfs.erofs") is None and name == "erofs":
                continue
            for which in ("first", "second"):
                row = found.setdefault(f"{name}, {which}", Runs())
                row.add(folder / "peak", [*pull, "--store", str(folder / "store"), *words])
                _forget(folder, store=which == "second")
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--place", type=Path, help="where the bundle and the store go")
    arguments = parser.parse_args()
    program = shutil.which("docker-registry")
    if program is None:
        raise SystemExit("there is no docker-registry")
    with tempfile.TemporaryDirectory(dir=arguments.place) as name:
        folder = Path(name)
        for command in (
            ["genrsa", "-out", "private.pem", "2048"],
            ["rsa", "-in", "private.pem", "-pubout", "-out", "public.pem"],
        ):
            subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
        out("cc", "-O2", Path(__file__).with_name("peak.c"), "-o", folder / "peak")
        accept = {"default": [{"type": "insecureAcceptAnything"}]}
        (folder / "policy.json").write_text(json.dumps(accept))
        registry = Registry(folder, program)
        try:
            image = f"docker://{registry.address}/image:v1"
            size = encrypted_image(
                folder, _LAYERS, arguments.mebibytes, image, files=arguments.files
            )
            print(
                f"load {os.getloadavg()[0]:.1f}; {_LAYERS} layers, {size / 2**20:.0f} MiB stored, "
                f"{arguments.files} small files"
            )
            pull = [*IMAGERS, "pull", "-q", image, str(folder / "bundle"), "--policy",
                    f"{folder}/policy.json", "--tls-verify=false", "--decryption-key",
                    f"{folder}/private.pem"]  # fmt: skip
            for what, row in _measure(folder, pull, arguments.runs).items():
                print(
                    f"  {what:<16} CPU {statistics.median(row.cpu):6.2f} s (least "
                    f"{min(row.cpu):6.2f})  clock {statistics.median(row.wall):6.2f} s (least "
                    f"{min(row.wall):6.2f})  memory {max(row.memory):4.0f} MiB",
                    flush=True,
                )
        finally:
            registry.stop()


if __name__ == "__main__":
    main()
