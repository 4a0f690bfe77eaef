# SPDX-License-Identifier: Apache-2.0
"""The command inside the test's process: its own home, its own working directory."""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagers.cli.main import run as run_program
from imagers.model.references import ReferenceValue, references_to_json
from imagers.model.strict_json import dump_json
from imagers.testing import make_image, make_layer
from imagers.testing.evidence import SNPWorld

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An environment that has nothing of this machine's user; the working directory is new."""
    for name in [*os.environ]:
        if name.startswith(("XDG_", "IMAGERS_", "OCICRYPT_", "REGISTRY_")):
            monkeypatch.delenv(name)
    for name in ("home", "tmp", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("IMAGERS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def run(home, capsys):
    """A function: run the command; its exit code and what it printed."""
    assert home.is_dir()

    def run(*words):
        capsys.readouterr()
        code = run_program([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def keys():
    """Throw-away keys: r2048.key opens what r2048.pub sealed."""
    return VECTORS / "keys"


@pytest.fixture(scope="session")
def plain():
    """The name of a plain image with three layers: gzip, zstd, tar."""
    return f"oci:{VECTORS}/plain/mixed:v1"


@pytest.fixture(scope="session")
def multi():
    """The name of an index with two platforms."""
    return f"oci:{VECTORS}/plain/multi:v1"


@pytest.fixture(scope="session")
def sealed():
    """The name of an encrypted image for r2048."""
    return f"oci:{VECTORS}/encrypted/jwe-rsa2048-gzip-C/image:v1"


@pytest.fixture
def accept(tmp_path):
    """A policy that accepts everything."""
    path = tmp_path / "accept.json"
    path.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    return path


@pytest.fixture
def admin(imagers_broker):
    """Words that name the broker and its administrator's key."""
    key = str(imagers_broker.admin_key_file)
    return ("--broker", imagers_broker.url, "--broker-admin-key", key)


@pytest.fixture
def write_image(home):
    """A function: an image in a layout of the working directory; its name.

    Args:
        layers: the bytes of each, as gzip.
        manifest, config: members that are other than usual; `...` leaves one away.
        layer: members that the descriptor of each layer has beside the usual ones.
    """
    assert home.is_dir()

    def write(name, *, layers=(b"",), manifest=None, config=None, layer=None):
        made = [make_layer(one + bytes(-len(one) % 512 + 1024)) for one in layers]
        listed = [one.descriptor.to_json() | (layer or {}) for one in made]
        members = {"layers": listed, **(manifest or {})}
        return make_image(*made, config=config, manifest=members).save(Path(name))

    return write


@pytest.fixture(scope="session")
def snp_world():
    return SNPWorld(b"w" * 32, now=datetime(2026, 11, 29, tzinfo=UTC))


@pytest.fixture
def snp_words(snp_world, home):
    """The words of a verification that says yes; the files are in the working directory."""
    here = home.parent / "here"
    evidence = snp_world.evidence(report_data=b"n" * 48)
    for name, data in snp_world.raw_files(evidence).items():
        (here / name).write_bytes(data)
    for name, data in snp_world.collateral().items():
        path = here / "collateral" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (here / "roots.pem").write_bytes(snp_world.roots)
    (here / "evidence.json").write_text(json.dumps(evidence))
    value = ReferenceValue("snp_launch_measurement", (snp_world.measurement.hex(),))
    (here / "ours.json").write_bytes(dump_json(references_to_json([value])))
    rest = ("--insecure-test-root", "roots.pem", "--at", "2026-11-29T12:00:00Z")
    return ("attest", "verify", "report.bin", "--collateral", "collateral", *rest)
