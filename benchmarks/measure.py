# SPDX-License-Identifier: Apache-2.0
"""Running things in turns, and rows of what came of it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from imagers import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled
# As a user starts it, and not whatever is in the directory that it is started in.
IMAGERS = [sys.executable, "-P", "-m", "imagers"]


def out(*words: object) -> str:
    """What a program says."""
    done = subprocess.run(
        [str(word) for word in words], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def user_seconds(*words: object) -> float:
    """User CPU time of a program whose output goes nowhere."""
    with open(os.devnull, "wb") as null:
        child = subprocess.Popen([str(word) for word in words], stdout=null)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"failed: {' '.join(map(str, words))}")
    return usage.ru_utime


def wall(call: Callable[[], object]) -> float:
    """How long it takes, in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(count: int, *calls: Callable[[], float]) -> list[list[float]]:
    """What each call gives, `count` times; they take turns, so that all see the same machine."""
    rounds = [[call() for call in calls] for _ in range(count)]
    return [list(column) for column in zip(*rounds, strict=True)]


def medians(count: int, *calls: Callable[[], float]) -> list[float]:
    """The median of what each call gives, taken in turns."""
    return [statistics.median(column) for column in in_turns(count, *calls)]


class Report:
    """Rows as they come, and at the end as JSON."""

    def __init__(self, mib: int, samples: int) -> None:
        self.rows: list[dict[str, object]] = []
        self.checks: list[dict[str, object]] = []
        self.notes: list[str] = []
        self.slow: list[str] = []  # floors
        self._head = {
            "imagers": __version__,
            "cpu": _cpu(),
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
            "mib": mib,
            "samples": samples,
            "load_before": os.getloadavg()[0],
            "skopeo": out("skopeo", "--version").strip() if shutil.which("skopeo") else None,
            "openssl": out("openssl", "version").strip(),
        }
        for name, value in self._head.items():
            print(f"{name.replace('_', ' ')}: {value}")

    def row(
        self,
        what: str,
        value: float,
        target: float | None = None,
        *,
        most: bool = False,
        busy: float | None = None,
    ) -> None:
        """One figure.

        Args:
            target: the least that is wanted, or with `most` the most; None: only to know.
            busy: the same figure by what both cores give while both are busy.
        """
        reached = None if target is None else (value <= target if most else value >= target)
        self.rows.append(
            {
                "what": what,
                "value": value,
                "target": target,
                "most": most,
                "reached": reached,
                "both_busy": busy,
            }
        )
        aim = "" if target is None else f"{'at most' if most else 'at least'} {target:g}"
        word = {None: "", True: "yes", False: "NO"}[reached]
        also = "" if busy is None else f"both busy {busy:.3f}"
        print(f"{what:<66} {value:8.3f}  {aim:<13} {word:<4} {also}".rstrip(), flush=True)

    def note(self, text: str) -> None:
        """Something to know that is no row."""
        self.notes.append(text)
        print(text, flush=True)

    def check(self, what: str, floor: float, tool: float, *, allowed: float) -> None:
        """A floor beside the tool that it is held against, both in seconds per GB."""
        slow = floor > tool * allowed
        self.checks.append({"what": what, "floor": floor, "tool": tool, "slow": slow})
        if slow:
            self.slow.append(what)
        print(
            f"floor: {what:<58} {1 / floor:6.3f} GB/s, the tool {1 / tool:6.3f}"
            f"{'  SLOW' if slow else ''}",
            flush=True,
        )

    def write(self, path: Path) -> None:
        """All of it."""
        path.write_text(
            json.dumps(
                {
                    **self._head,
                    "load_after": os.getloadavg()[0],
                    "rows": self.rows,
                    "floors": self.checks,
                    "notes": self.notes,
                },
                indent=2,
            )
        )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
