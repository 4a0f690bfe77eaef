# SPDX-License-Identifier: Apache-2.0
"""Floors: what one stage costs when nothing but its library runs, and the limit that follows.

The programs are floors/*.c, compiled here. Each is held against a tool that everybody has
(`openssl speed`, `igzip -d`, `zstd -b`); the run fails if a floor is slow, because a slow floor
would flatter us. Alone, a floor's cost is its thread CPU time; with both cores busy it is wall
time, which also sees what two cores take from each other.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from measure import in_turns, medians, out, user_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from measure import Report

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "imagers" / "core" / "src"

MAY_BE_SLOWER = 1.05  # than the tool
SAMPLE_BYTES = 200_000_000  # that `zstd -b` compresses and decompresses
WRITE_MIB = 512

_LIBRARIES = {"crypto": ["-lcrypto"], "sha": ["-lcrypto"], "inflate": ["-lisal"],
              "zstd": ["-lzstd"], "io": []}  # fmt: skip


class Floors:
    """Seconds per GB of stages, by name: `read`, `write`, `sha`, `gzip`, `zstd`, `K2`, `K3`.

    K2 and K3 are the kernels of imagers where the CPU has the instructions for them, and the
    passes of libcrypto that do the same where it has not.
    """

    def __init__(self, work: Path, data: dict[str, Path], report: Report) -> None:
        self._work = work
        for name, libraries in _LIBRARIES.items():
            out("cc", "-O2", HERE / "floors" / f"floor_{name}.c", "-o", work / name, *libraries)
        out("cc", "-O2", "-std=gnu17", f"-I{SOURCES}", HERE / "bench_kernel.c",
            SOURCES / "layer_shani.c", "-o", work / "kernel", "-lcrypto")  # fmt: skip
        self.has_kernels = subprocess.run(
            [work / "kernel", "--rate", "K2 open", "1"], check=False, capture_output=True
        ).returncode == 0  # fmt: skip
        self._words: dict[str, list[object]] = {
            "read": ["io", "read", data["plain"]],
            "write": ["io", "write", work / "written", WRITE_MIB],
            "sha": ["sha"],
            "gzip": ["inflate", data["gzip"]],
            "zstd": ["zstd", data["zstd"]],
            "K2": ["kernel", "--rate", "K2 open"] if self.has_kernels else ["crypto", 3],
            "K3": ["kernel", "--rate", "K3 open"] if self.has_kernels else ["crypto", 4],
        }
        self._check(data, report)
        report.note(self._two_cores())

    def _start(self, name: str, core: int | None = None) -> subprocess.Popen[str]:
        program, *arguments = self._words[name]
        if core is not None and name == "write":
            arguments[1] = f"{arguments[1]}-{core}"
        pin = [] if core is None else ["taskset", "-c", core]
        words = [*pin, self._work / str(program), *arguments]
        return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)

    @staticmethod
    def _result(child: subprocess.Popen[str]) -> dict[str, float]:
        said, _ = child.communicate()
        if child.returncode != 0:
            raise SystemExit(f"failed: {child.args!r}")
        return dict(json.loads(said))

    def cost(self, name: str) -> float:
        """Of a stage alone."""
        found = self._result(self._start(name))
        return found["seconds"] / found["bytes"] * 1e9

    def busy_cost(self, name: str) -> float:
        """Of a stage on each of two cores while the other does the same."""
        children = [self._start(name, core) for core in sorted(os.sched_getaffinity(0))[:2]]
        found = [self._result(child) for child in children]
        return len(found) / sum(one["bytes"] / one["wall"] for one in found) * 1e9

    def beside(
        self, samples: int, names: list[str], *calls: Callable[[], float]
    ) -> tuple[dict[str, float], dict[str, float], list[float]]:
        """Costs alone, costs with both cores busy, and medians of `calls`, all in turns."""
        alone = [partial(self.cost, name) for name in names]
        busy = [partial(self.busy_cost, name) for name in names]
        found = medians(samples, *alone, *busy, *calls)
        count = len(names)
        return (
            dict(zip(names, found[:count], strict=True)),
            dict(zip(names, found[count : 2 * count], strict=True)),
            found[2 * count :],
        )

    def _two_cores(self) -> str:
        def rate() -> float:
            found = self._result(self._start("sha"))
            return found["bytes"] / found["wall"] / 1e9

        one, two = medians(5, rate, lambda: 2 / self.busy_cost("sha"))
        return f"two cores give {two / one:.2f} times what one gives (SHA-256, wall time)"

    def _check(self, data: dict[str, Path], report: Report) -> None:
        """The best of each side: whatever else runs can only make one slower."""
        sample = self._work / "sample"
        with data["plain"].open("rb") as file:
            sample.write_bytes(file.read(SAMPLE_BYTES))
        out("zstd", "-q", "-f", "-3", sample)
        self._words["sample"] = ["zstd", sample.with_suffix(".zst")]
        size = data["plain"].stat().st_size / 1e9
        pairs: list[tuple[str, str, Callable[[], float]]] = [
            ("SHA-256 by openssl speed", "sha", partial(_openssl_speed, "sha256")),
            ("inflate by igzip -d", "gzip",
             lambda: user_seconds("igzip", "-d", "-c", data["gzip"]) / size),
            ("zstd by zstd -b", "sample", lambda: _zstd_speed(sample)),
        ]  # fmt: skip
        if not self.has_kernels:  # they check their own floor: bench_kernel.c
            pairs.append(("three passes by openssl speed", "K2", lambda: (
                2 * _openssl_speed("sha256") + _openssl_speed("aes-256-ctr"))))  # fmt: skip
        for what, name, tool in pairs:
            floors, tools = in_turns(5, partial(self.cost, name), tool)
            report.check(what, min(floors), min(tools), allowed=MAY_BE_SLOWER)
        sample.unlink()


def limit(cores: int, layers: int, stages: list[float]) -> float:
    """GB/s that no arrangement of these stages can exceed (one stage is serial in a layer)."""
    return min(cores / sum(stages), layers / max(stages))


def _openssl_speed(algorithm: str) -> float:
    """It divides by user CPU time."""
    said = out("openssl", "speed", "-seconds", 1, "-bytes", 262144, "-evp", algorithm)
    return 1e6 / float(said.split()[-1].rstrip("k"))


def _zstd_speed(sample: Path) -> float:
    """It takes the best of its rounds, by wall time; of compression first, then of this."""
    said = out("zstd", "-b3", "-i1", sample)
    return 1e3 / float(re.findall(r"[\d.]+ MB/s, +([\d.]+) MB/s", said)[-1])
