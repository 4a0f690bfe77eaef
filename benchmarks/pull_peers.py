# SPDX-License-Identifier: Apache-2.0
"""A guest's pull to a root file system, beside skopeo with umoci, image-rs and GNU tar.

    python benchmarks/pull_peers.py [--mib 1024] [--samples 5] [--only ROW]... [--skopeo PROGRAM]
                                    [--umoci PROGRAM] [--image-rs PROGRAM] [--json FILE]

Whole processes that take turns, from a docker-registry on loopback, all files on tmpfs; medians.
Images are of system files, four gzip layers, MIB of tar in all, encrypted for a key file; layers
are all there and right before they are opened, as is the default. The peers compare after they
have decompressed, and ask for no signature and no policy. What misses its target says NO.

`--image-rs` takes a program that is called with IMAGE, BUNDLE and KEY-FILE, pulls by the crate
from a registry of plain http, and keeps its layers in BUNDLE.work (docs/pull-speed.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from guests import MIB, Guest, Runs, guest
from images import GZIP_TYPE, describe, make_layout
from measure import IMAGERS, Report, out
from system_tar import RATIO, system_files, write_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LAYERS = 4
_SMALL = 50_000  # files
_SMALL_BYTES = 7_000  # the largest
_STEPS = (1, 2, 4)  # times MIB


class Bench:
    """A guest, its peers and its images, which are made when a row first wants them."""

    def __init__(self, place: Guest, report: Report, options: argparse.Namespace) -> None:
        self.guest = place
        self.report = report
        self.mib: int = options.mib
        self.samples: int = options.samples
        self.skopeo = shutil.which(options.skopeo)
        self.umoci = shutil.which(options.umoci)
        self.image_rs: str | None = options.image_rs
        self._made: dict[str, str] = {}

    def image(self, times: int = 1, *, encrypted: bool = True) -> str:
        """Of `_LAYERS` layers and `times` MIB of tar in all."""
        name = f"sealed-{times}" if encrypted else f"plain-{times}"
        if name not in self._made:
            layers = [self._layer(times, number) for number in range(_LAYERS)]
            self._made[name] = self._publish(name, layers, encrypted=encrypted)
        return self._made[name]

    def small(self) -> tuple[str, Path]:
        """An image of one plain gzip layer of many small files, and the layer."""
        packed = self.guest.folder / "small.tar.gz"
        if "small" not in self._made:
            tree = self.guest.folder / "small"
            for number, (_, data) in zip(range(_SMALL), system_files(1), strict=False):
                path = tree / f"{number % 500}" / f"{number}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data[:_SMALL_BYTES])
            tar = self.guest.folder / "small.tar"
            out("tar", "-C", tree, "-cf", tar, ".")
            shutil.rmtree(tree)
            diff_id = str(describe(tar).digest)
            out("gzip", "-6", "-n", tar)
            self._made["small"] = self._publish(
                "small", [(packed, GZIP_TYPE, diff_id)], encrypted=False
            )
        return self._made["small"], packed

    def measure(self, **contestants: Sequence[Sequence[object]]) -> dict[str, Runs]:
        """What each took, in turns; its result is removed after each run."""
        found = {name: Runs() for name in contestants}
        for _ in range(self.samples):
            for name, commands in contestants.items():
                found[name].add(self.guest.peak, *commands)
                if os.path.ismount(self.guest.bundle / "rootfs"):
                    out("umount", self.guest.bundle / "rootfs")  # image-rs mounts its layers
                for folder in ("bundle", "bundle.work", "copied"):
                    shutil.rmtree(self.guest.folder / folder, ignore_errors=True)
        for name, runs in found.items():
            self.report.note(f"  {name.replace('_', ' '):<18} {runs}")
        return found

    def ours(self, image: str, *more: object) -> list[list[object]]:
        """Our pull, with nothing kept."""
        return [self.guest.pull(image, "--no-store", *more)]

    def theirs(self, image: str) -> list[list[object]] | None:
        """The same by skopeo and umoci."""
        if self.skopeo is None or self.umoci is None:
            self.report.note("no skopeo or no umoci here: no rows of them")
            return None
        copied = f"{self.guest.folder}/copied"
        return [
            [self.skopeo, "copy", "--src-tls-verify=false", "--decryption-key",
             self.guest.private_key, image, f"oci:{copied}:v1"],
            [self.umoci, "unpack", "--image", f"{copied}:v1", self.guest.bundle],
        ]  # fmt: skip

    def _layer(self, times: int, number: int) -> tuple[Path, str, str]:
        folder = self.guest.folder
        packed, told = folder / f"{times}-{number}.tar.gz", folder / f"{times}-{number}.diff_id"
        if not packed.exists():
            tar = folder / "layer.tar"
            size = int(times * self.mib * MIB / _LAYERS / RATIO)
            write_tar(tar, packed, size, seed=number)
            told.write_text(str(describe(tar).digest))
            self.report.note(f"layer of {tar.stat().st_size / MIB:.0f} MiB of tar")
            tar.unlink()
        return packed, GZIP_TYPE, told.read_text()

    def _publish(self, name: str, layers: list[tuple[Path, str, str]], *, encrypted: bool) -> str:
        layout = self.guest.folder / "layout"
        image, target = make_layout(layout, layers), self.guest.image(name)
        if encrypted:
            self.guest.encrypt(image, target)
        else:
            out(*IMAGERS, "copy", image, target, "--dest-tls-verify=false")
        shutil.rmtree(layout)
        return target


def _cpu(runs: Runs) -> float:
    return statistics.median(runs.cpu)


def _wall(runs: Runs) -> float:
    return statistics.median(runs.wall)


def peers_row(bench: Bench) -> None:
    """An encrypted image to a root file system: skopeo and umoci, and image-rs."""
    image = bench.image()
    contestants: dict[str, Sequence[Sequence[object]]] = {"imagers": bench.ours(image)}
    if (theirs := bench.theirs(image)) is not None:
        contestants["skopeo_and_umoci"] = theirs
    if bench.image_rs is not None:
        name = image.removeprefix("docker://")
        contestants["image_rs"] = [
            [bench.image_rs, name, bench.guest.bundle, bench.guest.private_key]
        ]
    found = bench.measure(**contestants)
    ours, row = found["imagers"], bench.report.row
    if (peer := found.get("skopeo_and_umoci")) is not None:
        row("pull, encrypted: times faster than skopeo and umoci", _wall(peer) / _wall(ours), 5)
        row("pull, encrypted: times less CPU than those", _cpu(peer) / _cpu(ours), 3.5)
    if (peer := found.get("image_rs")) is not None:
        row("pull, encrypted: times faster than image-rs", _wall(peer) / _wall(ours))
        row("pull, encrypted: times less CPU than image-rs", _cpu(peer) / _cpu(ours), 3)


def encryption_row(bench: Bench) -> None:
    """What encryption costs a pull."""
    found = bench.measure(
        plain=bench.ours(bench.image(encrypted=False)), encrypted=bench.ours(bench.image())
    )
    plain, sealed = found["plain"], found["encrypted"]
    bench.report.row("pull: CPU of encrypted to plain", _cpu(sealed) / _cpu(plain), 1.1, most=True)
    bench.report.row("pull: clock of encrypted to plain", _wall(sealed) / _wall(plain), 1.1,
                     most=True)  # fmt: skip


def small_row(bench: Bench) -> None:
    """Many small files, beside GNU tar, which checks nothing."""
    image, packed = bench.small()
    bench.guest.bundle.mkdir()
    unpack = f"mkdir -p {bench.guest.bundle} && tar -C {bench.guest.bundle} -xzf {packed}"
    found = bench.measure(imagers=bench.ours(image), tar=[["sh", "-c", unpack]])
    bench.report.row(f"pull, {_SMALL} small files: times faster than GNU tar",
                     _wall(found["tar"]) / _wall(found["imagers"]), 1.3)  # fmt: skip


def second_row(bench: Bench) -> None:
    """A pull of what is all kept: policy, signatures and keys are asked."""
    place, image = bench.guest, bench.image()
    words = place.pull(image, "--store", place.folder / "store", "--store-place", "private")
    forget = partial(_forget, place)
    out(*words)
    forget()
    bare, again = Runs(), Runs()
    for _ in range(2 * bench.samples):
        bare.add(place.peak, [*IMAGERS, "--help"])
        again.add(place.peak, words)
        forget()
    for name, runs in (("--help", bare), ("second pull", again)):
        bench.report.note(f"  {name:<18} {runs}")
    bench.report.row("pull, all kept: clock above --help, s", _wall(again) - _wall(bare), 0.36,
                     most=True)  # fmt: skip
    shutil.rmtree(place.folder / "store")


def _forget(place: Guest) -> None:
    if os.path.ismount(place.bundle / "rootfs"):
        out(*IMAGERS, "store", "remove", place.bundle, "--store", place.folder / "store")
    shutil.rmtree(place.bundle)


def linear_row(bench: Bench) -> None:
    """Twice and four times as much: as much longer, and no more memory."""
    found = bench.measure(**{f"{times} times": bench.ours(bench.image(times)) for times in _STEPS})
    one = found["1 times"]
    for times in _STEPS[1:]:
        runs = found[f"{times} times"]
        bench.report.row(f"pull, {times} times as much: clock to {times} times one",
                         _wall(runs) / times / _wall(one), 1.1, most=True)  # fmt: skip
        bench.report.row(f"pull, {times} times as much: MiB of memory more",
                         max(runs.memory) - max(one.memory), 8, most=True)  # fmt: skip
    idle = Runs()
    idle.add(bench.guest.peak, [*IMAGERS, "pull", "--help"])
    bench.report.row("pull: MiB of memory above that of its help",
                     max(max(runs.memory) for runs in found.values()) - idle.memory[0], 96,
                     most=True)  # fmt: skip


ROWS: dict[str, Callable[[Bench], None]] = {
    "peers": peers_row,
    "encryption": encryption_row,
    "small": small_row,
    "second": second_row,
    "linear": linear_row,
}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024, help="of tar")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--only", action="append", choices=ROWS, help="this row; may be repeated")
    parser.add_argument("--skopeo", default="skopeo", metavar="PROGRAM")
    parser.add_argument("--umoci", default="umoci", metavar="PROGRAM")
    parser.add_argument("--image-rs", metavar="PROGRAM")
    parser.add_argument("--json", type=Path, help="the rows in a file, too")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    report = Report(options.mib, options.samples)
    with guest(Path("/dev/shm")) as place:
        bench = Bench(place, report, options)
        for name, row in ROWS.items():
            if not options.only or name in options.only:
                row(bench)
    if options.json is not None:
        report.write(options.json)


if __name__ == "__main__":
    main()
