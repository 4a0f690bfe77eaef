# SPDX-License-Identifier: Apache-2.0
"""The speed of imagers as ratios to floors and peers of the same run: `make bench`.

    benchmarks/run.py [--mib N] [--samples N] [--only ROW]... [--json FILE] [--work FOLDER]

What misses its target says NO. A floor is what one stage costs when nothing but its library runs
(floors/*.c), and is itself held against `openssl speed`, `igzip -d` and `zstd -b`: the run fails
if a floor is slow. The limit of a layer on n cores is min(n / sum of its stages, 1 / longest
stage); "both busy" is the same with the costs that floors have while both cores work. Contestants
and floors take turns; medians count.

Everything lies on tmpfs, in files that are new each time; it takes 11 times MIB there. On a busy
machine wall-clock rows say little: the text tells the load before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import command_rows
import core_rows
from images import MIB, Bench
from measure import Report

from imagers.core import BACKEND

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS: dict[str, Callable[[Bench], None]] = {**core_rows.ROWS, **command_rows.ROWS}
ROOM = 11  # times the size of the gzip layer, for all that is there at once


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="of the gzip layer; the table: 1024")
    parser.add_argument("--samples", type=int, default=5, help="of each contestant")
    parser.add_argument("--only", action="append", choices=ROWS, help="this row; may be repeated")
    parser.add_argument("--json", type=Path, help="the rows in a file, too")
    parser.add_argument("--work", type=Path, help="a folder on tmpfs that is kept, data and all")
    return parser.parse_args()


def main() -> int:
    options = parse_options()
    if BACKEND != "c":
        raise SystemExit("expected imagers with its compiled core: make dev")
    # The table is about two cores; child processes and the budget of threads heed this.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    report = Report(options.mib, options.samples)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-"))
        )
        work.mkdir(exist_ok=True)
        if shutil.disk_usage(work).free < options.mib * MIB * ROOM:
            raise SystemExit(f"expected {options.mib * ROOM} MiB free in {work}: --work, --mib")
        bench = Bench(work, options.mib, options.samples, report)
        for name, measure in ROWS.items():
            if not options.only or name in options.only:
                measure(bench)
    print(f"load after: {os.getloadavg()[0]}")
    missed = sum(row["reached"] is False for row in report.rows)
    print(f"{missed} of {len(report.rows)} rows missed their target")
    if options.json is not None:
        report.write(options.json)
    for what in report.slow:
        print(f"the floor is slow: {what}", file=sys.stderr)
    return 1 if report.slow else 0


if __name__ == "__main__":
    sys.exit(main())
