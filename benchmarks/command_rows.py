# SPDX-License-Identifier: Apache-2.0
"""Rows of the commands, as a user starts them, from oci: to oci: and beside skopeo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from floor import limit
from measure import IMAGERS, medians, out, wall

if TYPE_CHECKING:
    from collections.abc import Callable

    from images import Bench

WITHOUT_DIFF_ID = "--insecure-skip-diff-id"


def timed(bench: Bench, *words: object, cores: list[int] | None = None) -> float:
    """Wall time of a command that writes an image into the fresh target, and of its sync."""
    pin = [] if cores is None else ["taskset", "-c", ",".join(map(str, cores))]
    folder = bench.fresh(bench.target.name)

    def call() -> None:
        out(*pin, *words)
        out("sync", "-f", folder)

    return wall(call)


def sealing(bench: Bench) -> list[object]:
    return [*IMAGERS, "encrypt", bench.gzip_image, f"oci:{bench.target}:v1",
            "--encryption-key", f"jwe:{bench.keys[1]}"]  # fmt: skip


def opening(bench: Bench, image: str, *more: str) -> list[object]:
    return [*IMAGERS, "decrypt", image, f"oci:{bench.target}:v1",
            "--decryption-key", bench.keys[0], *more]  # fmt: skip


def peer(bench: Bench) -> Callable[..., list[object]] | None:
    """The words for a copy by skopeo."""
    if shutil.which("skopeo") is None:
        bench.report.note("no skopeo here: no rows of the peer")
        return None
    return lambda *options: ["skopeo", "copy", *options, f"oci:{bench.target}:v1"]


def encrypt_row(bench: Bench) -> None:
    """`imagers encrypt` of a gzip layer."""
    copy = peer(bench)
    if copy is None:
        return
    theirs = copy("--encryption-key", f"jwe:{bench.keys[1]}", bench.gzip_image)
    ours, skopeo = medians(
        bench.samples,
        partial(timed, bench, *sealing(bench)),
        partial(timed, bench, *theirs),
    )
    bench.report.row(f"encrypt: {ours:.2f} s, skopeo {skopeo:.2f} s", skopeo / ours, 5)


def decrypt_rows(bench: Bench) -> None:
    """`imagers decrypt` of it: to skopeo, which checks no diff_id, and to the limit."""
    sealed = bench.sealed_image
    calls = [partial(timed, bench, *opening(bench, sealed)),
             partial(timed, bench, *opening(bench, sealed, WITHOUT_DIFF_ID))]  # fmt: skip
    copy = peer(bench)
    if copy is not None:
        calls.append(partial(timed, bench, *copy("--decryption-key", bench.keys[0], sealed)))
    alone, busy, (ours, loose, *skopeo) = bench.floors.beside(
        bench.samples, ["read", "K3", "write", "gzip", "sha"], *calls
    )
    for seconds in skopeo:
        bench.report.row(f"decrypt: {ours:.2f} s, skopeo {seconds:.2f} s", seconds / ours, 1.9)
        bench.report.row(f"decrypt {WITHOUT_DIFF_ID}: {loose:.2f} s", seconds / loose, 6)
    size = bench.tar.size / 1e9
    ratio = bench.tar.size / bench.data["gzip"].stat().st_size
    cores = len(os.sched_getaffinity(0))

    def bound(cost: dict[str, float]) -> float:
        # K3 also gives the digest of what is written, which the new manifest has.
        stages = [(cost["read"] + cost["K3"]) / ratio, cost["write"] / ratio]
        return limit(cores, 1, [*stages, cost["gzip"], cost["sha"]])

    rate = size / ours
    bench.report.row(f"decrypt: {rate:.2f} of {bound(alone):.2f} GB/s of tar", rate / bound(alone),
                     0.85, busy=rate / bound(busy))  # fmt: skip


def four_row(bench: Bench) -> None:
    """Four zstd layers, on two cores and on one, with as many jobs as there are cores."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        bench.report.note("one core here: no row of four layers on two")
        return
    words = opening(bench, bench.sealed_four)
    one, two = medians(
        bench.samples,
        partial(timed, bench, *words, cores=cores[:1]),
        partial(timed, bench, *words, cores=cores[:2]),
    )
    bench.report.row(f"four zstd layers: {one:.2f} s on one core, {two:.2f} s on two", one / two,
                     1.8)  # fmt: skip


def memory_row(bench: Bench) -> None:
    """The most that any of the commands has resident, above an interpreter that does nothing."""
    program = bench.work / "peak"
    out("cc", "-O2", Path(__file__).with_name("peak.c"), "-o", program)

    def peak(*words: object) -> int:
        bench.fresh(bench.target.name)
        return int(out(program, *words))

    floor = peak(sys.executable, "-c", "pass")
    found = {
        "encrypt": peak(*sealing(bench)),
        "decrypt": peak(*opening(bench, bench.sealed_image)),
        f"decrypt {WITHOUT_DIFF_ID}": peak(*opening(bench, bench.sealed_image, WITHOUT_DIFF_ID)),
        "decrypt of four zstd layers": peak(*opening(bench, bench.sealed_four)),
    }
    for what, kib in found.items():
        bench.report.row(f"{what}: MiB resident above python -c pass", (kib - floor) / 1024, 96,
                         most=True)  # fmt: skip


# Runs a command in this interpreter and says which modules it has needed.
_MODULES = """
import sys
from imagers.cli.main import main
try:
    main()
finally:
    print(*(name for name in sys.modules if name != "__main__"), file=sys.stderr)
"""

# Some modules are no files: those that were made at run time are there with their parents.
_IMPORT = """
import importlib
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
"""


def small_row(bench: Bench) -> None:
    """A layer of 4 KiB: the command, to the import of what it needs."""
    words = opening(bench, bench.sealed_small)
    bench.fresh(bench.target.name)
    done = subprocess.run(
        [sys.executable, "-P", "-c", _MODULES, *(str(word) for word in words[len(IMAGERS) :])],
        check=False,
        capture_output=True,
        text=True,
    )
    names = done.stderr.splitlines()[-1].split()
    imports = [sys.executable, "-P", "-W", "ignore", "-c", _IMPORT.format(names=names)]
    floor, ours = medians(
        max(bench.samples, 9),
        lambda: wall(lambda: out(*imports)),
        partial(timed, bench, *words),
    )
    bench.report.row(f"4 KiB: {ours:.3f} s, its imports {floor:.3f} s", ours / floor, 2, most=True)


ROWS: dict[str, Callable[[Bench], None]] = {
    "encrypt": encrypt_row,
    "decrypt": decrypt_rows,
    "four": four_row,
    "memory": memory_row,
    "small": small_row,
}
