# SPDX-License-Identifier: Apache-2.0
"""Rows of the core by itself: memory to memory, and a sealed layer opened with no sink."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from floor import limit
from images import describe
from measure import medians, wall

from imagers.core import CipherParameters, Limits, Resources, open_layer, seal_layer
from imagers.core.budget import Budget, run_layers
from imagers.model.descriptor import Descriptor
from imagers.model.keys import SecretKey
from imagers.model.media import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from images import Bench

    from imagers.core import Cancellation

CODECS = {"gzip": Compression.GZIP, "zstd": Compression.ZSTD, "plain": Compression.NONE}
TARGETS = {"gzip": 0.88, "zstd": 0.80, "plain": 0.85}  # one layer; two: 0.85


def kernel_rows(bench: Bench) -> None:
    """K2 and K3 to the passes of libcrypto, one thread."""
    if not bench.floors.has_kernels:
        bench.report.note("no SHA instructions here: no kernel rows")
        return
    done = subprocess.run(
        [str(bench.work / "kernel"), "--json"], check=False, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    if done.returncode != 0:
        bench.report.slow.append(done.stderr.strip() or "passes of libcrypto by openssl speed")
    intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    for name, values in found.items():
        if name.startswith("K"):
            target = (1.45 if intel else 1.65) if name.startswith("K2") else 1.6
            bench.report.row(f"{name}: times the passes of libcrypto", values["times_floor"],
                             target if name.endswith("open") else None)  # fmt: skip
        elif "bare" in name:
            bench.report.row(f"{name}: the bound of this CPU", values["times_floor"])


class SealedLayer:
    """The layer in one of its forms, sealed, in a file."""

    def __init__(self, bench: Bench, form: str) -> None:
        self._bench = bench
        self._form = form
        self._cipher = CipherParameters("AES_256_CTR_HMAC_SHA256", SecretKey(bytes(32)), bytes(16))

    @cached_property
    def _sealed(self) -> tuple[Path, Descriptor, bytes]:
        source_path = self._bench.data[self._form]
        path = self._bench.work / f"sealed-{self._form}"
        with source_path.open("rb") as source, path.open("wb") as sink:
            done = seal_layer(source.fileno(), sink.fileno(), expected=describe(source_path),
                              cipher=self._cipher, source_compression=CODECS[self._form],
                              what="layer")  # fmt: skip
        assert done.hmac is not None
        return path, Descriptor("application/x", done.digest, done.size), done.hmac

    def open(self, resources: Resources = Resources(), stop: Cancellation | None = None) -> None:  # noqa: B008
        path, expected, hmac = self._sealed
        with path.open("rb") as source:
            open_layer(source.fileno(), None, expected=expected, cipher=self._cipher, hmac=hmac,
                       compression=CODECS[self._form], diff_id=self._bench.tar.digest,
                       limits=Limits(), what="layer", resources=resources,
                       cancellation=stop)  # fmt: skip

    def open_two(self) -> None:
        """Two of them, as the layers of an image are."""
        size = self._sealed[1].size
        run_layers([size, size], Budget(), lambda _, resources, stop: self.open(resources, stop))

    @property
    def ratio(self) -> float:
        return self._bench.tar.size / self._sealed[1].size

    def remove(self) -> None:
        self._sealed[0].unlink()


def layer_rows(bench: Bench, form: str) -> None:
    """One layer and two, on two cores, to the limit by the floors that took turns with them."""
    if len(os.sched_getaffinity(0)) < 2:
        bench.report.note("one core here: no rows of layers on two")
        return
    layer = SealedLayer(bench, form)
    layer.open()
    decoder = [] if form == "plain" else [form]
    alone, busy, (one, two) = bench.floors.beside(
        bench.samples,
        ["read", "K2", *decoder, "sha", *(["K3"] if form == "plain" else [])],
        lambda: wall(layer.open),
        lambda: wall(layer.open_two),
    )
    gb = bench.tar.size / 1e9

    def bound(cost: dict[str, float], layers: int) -> float:
        if form == "plain" and layers == 2:
            return limit(2, 2, [cost["read"] + cost["K3"]])
        first = (cost["read"] + cost["K2"]) / layer.ratio
        return limit(2, layers, [first, *(cost[name] for name in decoder), cost["sha"]])

    for count, seconds, target in ((1, one, TARGETS[form]), (2, two, 0.85)):
        rate = count * gb / seconds
        bench.report.row(
            f"{form}, {count} layer{'s'[: count - 1]}, 2 cores: "
            f"{rate:.2f} of {bound(alone, count):.2f} GB/s",
            rate / bound(alone, count),
            target,
            busy=rate / bound(busy, count),
        )
    layer.remove()


def busy_rows(bench: Bench) -> None:
    """A gzip layer while something else keeps a core busy."""
    layer = SealedLayer(bench, "gzip")
    layer.open()

    def beside_python() -> float:
        stop = threading.Event()

        def spin() -> None:
            while not stop.is_set():
                pass

        thread = threading.Thread(target=spin)
        thread.start()
        try:
            return wall(layer.open)
        finally:
            stop.set()
            thread.join()

    def beside_c() -> float:
        with subprocess.Popen(
            ["openssl", "speed", "-seconds", "60", "sha1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as busy:
            try:
                return wall(layer.open)
            finally:
                busy.kill()

    python, program = medians(bench.samples, beside_python, beside_c)
    bench.report.row("gzip beside a busy Python thread, to beside a C process", program / python,
                     0.95)  # fmt: skip
    layer.remove()


ROWS: dict[str, Callable[[Bench], None]] = {
    "kernel": kernel_rows,
    **{form: partial(layer_rows, form=form) for form in CODECS},
    "busy": busy_rows,
}
