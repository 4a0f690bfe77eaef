# SPDX-License-Identifier: Apache-2.0
"""What it costs to check a layer before it is opened: `imagers pull` beside `--stream`.

    python benchmarks/guest_pull.py [--mebibytes 256] [--layers 1 4] [--runs 5] [--layout]

An image of gzip layers, encrypted for a key file, from a docker-registry on loopback or, with
`--layout`, from an OCI layout; whole processes that take turns. What is printed is CPU time of a
GB of stored bytes above `--stream` (docs/adr/0081), clock and memory beside it. Clock times mean
nothing while others work on the same cores, CPU times less than they should: compare runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from measure import IMAGERS, out
from registry_pull import Registry

from imagers.testing import MemoryRepository, TarEntry, make_image, make_tar
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIB = 1024 * 1024
_MOST_S = 0.5  # of CPU time for a GB of stored bytes, above --stream


@dataclass
class Runs:
    """What each run took: CPU and clock in seconds, and its most memory in MiB."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def add(self, peak: Path, words: Sequence[str]) -> None:
        """Run a program once more; `peak` is that of `peak.c`."""
        before = os.times()
        start = time.perf_counter()
        kibibytes = int(out(peak, *words))
        self.wall.append(time.perf_counter() - start)
        after = os.times()
        self.cpu.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
        self.memory.append(kibibytes / 1024)


def encrypted_image(
    folder: Path, layers: int, mebibytes: int, target: str, *, files: int = 0
) -> int:
    """An encrypted image at `target`, of layers that half compress; its stored bytes.

    Args:
        files: small ones, in the last layer.
    """
    size = mebibytes * _MIB // layers
    tars = []
    for number in range(layers):
        # A part that gzip shrinks to nothing beside one that it leaves.
        data = (os.urandom(48 * 1024) + bytes(48 * 1024)) * (2 * size // (96 * 1024))
        small = files if number == layers - 1 else 0
        more = [
            TarEntry.file(f"small/{one % 100}/{one}", os.urandom(one % 8192))
            for one in range(small)
        ]
        tars.append(make_tar(TarEntry.file(f"data-{number}", data), *more))
    plain = f"oci:{folder}/plain-{layers}"
    with open_sink(parse_image_name(plain)) as sink:
        copy_image(MemoryRepository(make_image(*tars)), sink)
    out(*IMAGERS, "encrypt", "--encryption-key", f"jwe:{folder}/public.pem", plain, target,
        "--dest-tls-verify=false")  # fmt: skip
    shutil.rmtree(folder / f"plain-{layers}")
    facts = json.loads(out(*IMAGERS, "inspect", "--raw", "--tls-verify=false", target))
    return sum(layer["size"] for layer in facts["layers"])


def _compare(folder: Path, place: Path, image: str, size: int, runs: int, what: str) -> float:
    """Prints a row; CPU seconds of a GB that the default takes more."""
    streamed, checked = Runs(), Runs()
    bundle = place / "bundle"
    pull = [*IMAGERS, "pull", "-q", "--no-store", image, str(bundle),
            "--policy", f"{folder}/policy.json",
            "--tls-verify=false", "--decryption-key", f"{folder}/private.pem"]  # fmt: skip
    for _ in range(runs):
        for one, more in ((streamed, ["--stream"]), (checked, [])):
            one.add(folder / "peak", [*pull, *more])
            shutil.rmtree(bundle)
    gb = size / 1e9
    pairs = [(b - a) / gb for a, b in zip(streamed.cpu, checked.cpu, strict=True)]
    more = statistics.median(pairs)
    for name, one in (("--stream", streamed), ("default", checked)):
        print(
            f"  {what}, {name:<8}  CPU {statistics.median(one.cpu) / gb:5.2f} s/GB "
            f"(least {min(one.cpu) / gb:5.2f})  clock {statistics.median(one.wall) / gb:5.2f} s/GB "
            f" memory {max(one.memory):.0f} MiB"
        )
    least = (min(checked.cpu) - min(streamed.cpu)) / gb
    print(f"{what}: {more:.2f} s/GB more, least of both {least:.2f}; at most {_MOST_S}", flush=True)
    return more


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 4], metavar="N")
    parser.add_argument("--place", type=Path, help="where bundles and kept layers go")
    parser.add_argument("--layout", action="store_true", help="from an OCI layout")
    arguments = parser.parse_args()
    program = shutil.which("docker-registry")
    if program is None and not arguments.layout:
        raise SystemExit("there is no docker-registry; --layout does without")
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
        registry = None if arguments.layout else Registry(folder, program or "")
        try:
            cores = len(os.sched_getaffinity(0))
            print(f"load {os.getloadavg()[0]:.1f}, {cores} cores, {out('openssl', 'version')}")
            worst = 0.0
            for layers in arguments.layers:
                image = f"oci:{folder}/image-{layers}"
                if registry is not None:
                    image = f"docker://{registry.address}/image-{layers}:v1"
                size = encrypted_image(folder, layers, arguments.mebibytes, image)
                what = f"{layers} layer{'s' if layers > 1 else ''}, {size / _MIB:.0f} MiB"
                worst = max(worst, _compare(folder, folder, image, size, arguments.runs, what))
        finally:
            if registry is not None:
                registry.stop()
    sys.exit(worst > _MOST_S)


if __name__ == "__main__":
    main()
