# SPDX-License-Identifier: Apache-2.0
"""Evidence of GPUs of the factory is true to the format: NVIDIA's own verifier takes it.

It looks at chain, firmware, nonce and signature offline; reference manifests and revocation are
online, and not asked.
"""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagers.evidence.nvidia.report import FIELDS, parse_report
from imagers.testing.evidence import NVIDIAWorld
from tests.interop.conftest import PEERS

PYTHON = PEERS / "nvidia" / "bin" / "python"
SCRIPT = Path(__file__).parent / "nvidia" / "verify.py"
NONCE = b"n" * 32
WORLD = NVIDIAWorld(b"imagers: verifiers of others also"[:32], now=datetime.now(UTC))

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="build/peers/nvidia is not there: 'make peers' installs it"
)


def ask(folder, report, chain):
    """What NVIDIA's verifier finds; "" where it refuses."""
    (folder / "report").write_bytes(report)
    (folder / "chain").write_bytes(chain)
    done = subprocess.run(
        [PYTHON, SCRIPT, folder / "report", folder / "chain", NONCE.hex()],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return ""
    answer = json.loads(lines[-1])
    return answer if answer["chain"] and answer["report"] else ""


def test_report_is_taken_and_means_the_same(tmp_path):
    report = WORLD.report(nonce=NONCE)
    answer = ask(tmp_path, report, WORLD.chain())
    ours = parse_report(report)
    assert answer["driver"] == ours.text("driver_version")
    assert answer["vbios"] == ours.vbios_version
    # Its list begins with block 1.
    assert answer["measurements"] == [ours.measurements[number].hex() for number in range(1, 65)]


def test_what_ours_refuses_is_refused(tmp_path):
    """Not all: the line of the device, and who is an authority, it learns from elsewhere."""
    good = WORLD.report(nonce=NONCE)
    flipped = bytearray(good)
    flipped[60] ^= 1
    nobody = WORLD.issue("firmware", signer="nobody")
    for report, chain in (
        (bytes(flipped), WORLD.chain()),
        (WORLD.report(nonce=b"x" * 32), WORLD.chain()),
        (WORLD.report(nonce=NONCE, key="nobody"), WORLD.chain()),
        (WORLD.report(nonce=NONCE, opaque={FIELDS["fwid"]: b"x" * 48}), WORLD.chain()),
        (good, WORLD.chain(firmware=nobody)),
    ):
        assert ask(tmp_path, report, chain) == ""
