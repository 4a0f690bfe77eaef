# SPDX-License-Identifier: Apache-2.0
"""How many pieces of evidence are verified in a second of processor time, on one core.

    python benchmarks/evidence.py [--runs 5] [--seconds 1]

Collateral is warm: documents that were verified once are known by their bytes, dates are looked at
each time. SNP is a guest of the factory of tests, with its certificate and a list; TDX and SGX are
real quotes with the documents of their time, and dcap-qvl (Rust) verifies the same ones. The median
of runs in which all take turns; on a busy machine processor time says less than it seems to.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dcap_qvl

from imagers.evidence.intel.collateral import import_documents
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import find_parser, load_verifier
from imagers.model.evidence import Bound
from imagers.testing.evidence.snp import SNPWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VECTORS = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "attestation"
QUOTES = {
    "tdx": ("tdx/dcap-qvl/tdx_quote", "tdx/dcap-qvl/tdx_quote_collateral.json"),
    "sgx": ("sgx/dcap-qvl/sgx_quote", "sgx/dcap-qvl/sgx_quote_collateral.json"),
}
AT = datetime(2025, 6, 20, tzinfo=UTC)
SEED = bytes(32)

# What is asked of it, a second.
TARGETS = {"snp": 600, "tdx": 500}


def ours(
    tee: str, data: bytes, documents: Mapping[str, bytes], now: datetime, roots: bytes | None = None
) -> Callable[[], object]:
    """One verification, from the bytes of the evidence to claims."""
    verifier, parse = load_verifier(tee, roots=roots), find_parser(tee)
    return lambda: judge_parsed(verifier, parse(data), bound=Bound(), read=documents.get, now=now)


def contestants() -> dict[str, Callable[[], object]]:
    world = SNPWorld(SEED)
    evidence = json.dumps(world.evidence()).encode()
    found = {"snp": ours("snp", evidence, world.collateral(), world.now, world.roots)}
    for tee, (quote_path, collateral_path) in QUOTES.items():
        quote = (VECTORS / quote_path).read_bytes()
        text = (VECTORS / collateral_path).read_bytes()
        found[tee] = ours(tee, quote, import_documents(text), AT)
        theirs = dcap_qvl.QuoteCollateralV3.from_json(text.decode())
        found[f"{tee} by dcap-qvl"] = lambda quote=quote, theirs=theirs: dcap_qvl.verify(
            quote, theirs, int(AT.timestamp())
        )
    return found


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls in a second of processor time."""
    count, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        call()
        count += 1
    return count / spent


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="of each contestant in a run")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    calls = contestants()
    for call in calls.values():
        call()
    print(f"load before: {os.getloadavg()[0]}")
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.runs):
        for name, call in calls.items():
            rates[name].append(rate(call, options.seconds))
    missed = 0
    for name, each in rates.items():
        median, target = statistics.median(each), TARGETS.get(name)
        verdict = (
            "" if target is None else f", target {target}: {'yes' if median >= target else 'NO'}"
        )
        missed += target is not None and median < target
        print(f"{name}: {median:.0f} a second ({min(each):.0f} to {max(each):.0f}){verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
