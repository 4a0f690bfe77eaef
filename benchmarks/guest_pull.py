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
import shutil
import statistics
import sys
from pathlib import Path

from guests import MIB, Guest, Runs, guest

_MOST_S = 0.5  # of CPU time for a GB of stored bytes, above --stream


def _compare(place: Guest, image: str, size: int, runs: int, what: str) -> float:
    """Prints a row; CPU seconds of a GB that the default takes more."""
    streamed, checked = Runs(), Runs()
    pull = place.pull(image, "--no-store")
    for _ in range(runs):
        for one, more in ((streamed, ["--stream"]), (checked, [])):
            one.add(place.peak, [*pull, *more])
            shutil.rmtree(place.bundle)
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
    worst = 0.0
    with guest(arguments.place, layout=arguments.layout) as place:
        for layers in arguments.layers:
            image = place.image(f"image-{layers}")
            size = place.encrypted(layers, arguments.mebibytes, image)
            what = f"{layers} layer{'s' if layers > 1 else ''}, {size / MIB:.0f} MiB"
            worst = max(worst, _compare(place, image, size, arguments.runs, what))
    sys.exit(worst > _MOST_S)


if __name__ == "__main__":
    main()
