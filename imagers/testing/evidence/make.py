# SPDX-License-Identifier: Apache-2.0
"""Evidence of a machine for tests as files, for pages and demonstrations.

    python -m imagers.testing.evidence make --tee snp --seed FILE --measurement HEX --out DIR

writes, into a directory that does not exist yet:

    root.pem        what stands in place of the vendor's certificates, where it has some
    collateral/     the documents that a verifier needs, by their names
    tee.json        what IMAGERS_TEST_TEE names for `--tee NAME-test`; the seed is in it
    evidence.json   evidence of the machine, as the protocol carries it
    document.cbor   of AWS, the same as the module gives it
    token.cbor      of Arm, the same as the kernel gives it, with trust-anchors.json, its key
    report.bin      of AMD, the same as the device gives it, with vcek.der, the chip's certificate;
                    of Hygon, alone
    quote.bin       of Intel, the same as the device gives it; of TDX with ccel.bin, its event log
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.errors import ImagersError, LocalError
from imagers.files import local_errors, read_bounded, write_new
from imagers.model.evidence import ReportData
from imagers.model.strict_json import View, dump_json
from imagers.testing.evidence.keys import SEED_BYTES
from imagers.testing.evidence.machine import PRODUCTS, TEES, Machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["main", "make_files", "write_collateral"]

_PUBLIC, _SECRET = 0o644, 0o600


def make_files(machine: Machine, directory: Path, report_data: bytes = b"") -> None:
    """Write the files of a machine into a new directory.

    Args:
        report_data: what its evidence binds.

    Raises:
        LocalError: the directory exists, or cannot be written.
    """
    world = machine.world()
    evidence = machine.attester(world.now).collect(ReportData(report_data)).body
    files = {
        **world.raw_files(evidence),
        "evidence.json": dump_json(evidence),
    }
    if world.roots is not None:
        files["root.pem"] = world.roots
    with local_errors(directory):
        directory.mkdir(parents=True)
    write_collateral(world.collateral(), directory / "collateral")
    for name, data in files.items():
        write_new(directory / name, data, mode=_PUBLIC)
    write_new(directory / "tee.json", dump_json(machine.to_json()), mode=_SECRET)


def write_collateral(documents: Mapping[str, bytes], directory: Path) -> None:
    """Write documents by their names below a directory, which is made if it is missing.

    Raises:
        LocalError: one exists, or cannot be written.
    """
    with local_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    for name, data in documents.items():
        path = directory / name
        with local_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, data, mode=_PUBLIC)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m imagers.testing.evidence",
        description="Evidence of machines for tests. Nothing of it is worth anything but for "
        "those who are told to take its root.",
    )
    make = parser.add_subparsers(required=True, metavar="make").add_parser(
        "make", help="write a machine's root, collateral and evidence into a new directory"
    )
    make.add_argument("--tee", required=True, choices=sorted(TEES))
    make.add_argument(
        "--seed", required=True, type=Path, metavar="FILE", help=f"{SEED_BYTES} bytes: all keys"
    )
    make.add_argument("--out", required=True, type=Path, metavar="DIR")
    make.add_argument("--measurement", metavar="HEX", help="default: one that is the seed's")
    make.add_argument("--init-data", metavar="HEX", help="digest of the init data")
    make.add_argument("--report-data", metavar="HEX", default="", help="what the evidence binds")
    make.add_argument("--product", choices=PRODUCTS, help="of AMD; default: Genoa")
    options = parser.parse_args(arguments)
    try:
        report_data = bytes.fromhex(options.report_data)
    except ValueError:
        make.error("--report-data: expected hex")
    try:
        seed = read_bounded(options.seed, max_bytes=SEED_BYTES)
        if len(seed) != SEED_BYTES:
            raise LocalError(
                f"expected a seed of {SEED_BYTES} bytes, got {len(seed)}", path=str(options.seed)
            )
        given = {
            "tee": options.tee,
            "seed": seed.hex(),
            "product": options.product,
            "measurement": options.measurement,
            "init_data": options.init_data,
        }
        told = {name: value for name, value in given.items() if value is not None}
        make_files(Machine.parse(View(told, what="machine")), options.out, report_data)
    except ImagersError as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        return error.exit_code
    return 0
