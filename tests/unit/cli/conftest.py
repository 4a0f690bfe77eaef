"""The command inside the test's process: its own home, its own working directory."""

import gzip
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagers.cli.main import run as run_program
from imagers.model.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST

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

    def write(name, *, layers=(b"",), manifest=None, config=None, layer=None, entry=None):
        blobs = Path(name) / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def put(data, media_type):
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

        def dump(usual, other):
            members = {**usual, **(other or {})}
            return json.dumps({k: v for k, v in members.items() if v is not ...}).encode()

        tars = [one + bytes(-len(one) % 512 + 1024) for one in layers]
        diff_ids = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in tars]
        packed = [put(gzip.compress(one, mtime=0), f"{OCI_LAYER}+gzip") for one in tars]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        usual = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs}
        usual = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": put(dump(usual, config), OCI_CONFIG),
            "layers": [one | (layer or {}) for one in packed],
        }
        raw = dump(usual, manifest)
        named = {"annotations": {"org.opencontainers.image.ref.name": "v1"}}
        top = put(raw, OCI_MANIFEST) | named | (entry or {})
        index = {"schemaVersion": 2, "manifests": [top]}
        (Path(name) / "index.json").write_text(json.dumps(index))
        (Path(name) / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return f"oci:{name}:v1"

    return write
