# SPDX-License-Identifier: Apache-2.0
"""The command as a user starts it, and builders of images, good and damaged.

Nothing of imagers is called here but `imagers.testing`: the command is a process of its own, with
a home and a temporary directory inside the test's, and images are made of bytes by hand.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imagers.testing import EmbeddedBroker, EmbeddedRegistry, TarEntry, make_tar

VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "ocicrypt"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
SOMEBODY_ELSE = """
import ctypes, importlib, os, pkgutil, sys
import imagers
for module in pkgutil.walk_packages(imagers.__path__, "imagers."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
del sys.argv[0]
sys.modules["imagers.cli.main"].main()
"""
ACCEPT = {"default": [{"type": "insecureAcceptAnything"}]}


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    words: tuple
    code: int
    stdout: str
    stderr: str

    def __repr__(self):
        return f"<exit {self.code}, stderr {self.stderr!r}, stdout {self.stdout!r}>"

    def json(self):
        return json.loads(self.stdout)

    @property
    def error(self):
        """The one line that says what is wrong; fails where there is not exactly one."""
        lines = self.stderr.splitlines()
        errors = [line for line in lines if line.startswith("imagers: error: ")]
        hints = [line for line in lines if line.startswith("imagers: hint: ")]
        assert len(errors) == 1, self
        assert len(hints) <= 1, self
        assert all(line.startswith("imagers: ") for line in lines), self
        assert "Traceback" not in self.stderr, self
        assert "\ufffd" not in self.stderr, self
        text = errors[0].removeprefix("imagers: error: ")
        assert text[:1].strip(), self
        assert not text.endswith("."), self
        return text


class Program:
    """`imagers`, started in an environment that has nothing of this machine's user."""

    def __init__(self, base):
        self.home = base / "home"
        self.tmp = base / "tmp"
        self.here = base / "here"
        self.store = base / "store"
        self.runtime = base / "run"
        for directory in (self.home, self.tmp, self.here, self.runtime):
            directory.mkdir()
        self.environment = {
            name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ
        } | {
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "IMAGERS_STORE": str(self.store),
            "XDG_RUNTIME_DIR": str(self.runtime),
            # Files that are left open, and other sins of a library, become lines on stderr.
            "PYTHONWARNINGS": "always::ResourceWarning",
        }
        for kind in ("CONFIG", "STATE", "CACHE", "DATA"):
            self.environment[f"XDG_{kind}_HOME"] = str(self.home / kind.lower())

    def words(self, *words):
        return [sys.executable, "-m", "imagers", *map(str, words)]

    def start(self, *words, **options):
        return self.spawn(self.words(*words), **options)

    def spawn(self, words, **options):
        options = {
            "cwd": self.here,
            "env": self.environment,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **options,
        }
        return subprocess.Popen(words, **options)

    def __call__(self, *words, **options):
        return self.run(self.words(*words), **options)

    def run(self, words, *, within=30, **options):
        """Run a command that has the words of one of ours in it."""
        with self.spawn(words, **options) as process:
            try:
                stdout, stderr = process.communicate(timeout=within)
            except BaseException:
                process.kill()
                raise
        own = words[words.index("imagers") + 1 :]
        return Result(tuple(own), process.returncode, stdout or "", stderr or "")

    def as_somebody_else(self, *words, **options):
        """Run it as user 65534; only for root. What it needs of Python is loaded before, as
        the interpreter may be where that user cannot go.
        """
        return self.run([sys.executable, "-c", SOMEBODY_ELSE, "imagers", *words], **options)

    def succeed(self, *words, **options):
        """Run it; it must succeed, and say nothing that looks like a fault."""
        result = self(*words, **options)
        assert result.code == 0, result
        assert "imagers: error" not in result.stderr, result
        assert all(line.startswith("imagers: ") for line in result.stderr.splitlines()), result
        return result

    def leftovers(self):
        """What is in the working directory and the temporary directory, hidden or not."""
        return sorted(
            [str(path.relative_to(self.here)) for path in self.here.iterdir()]
            + [f"TMPDIR/{path.relative_to(self.tmp)}" for path in self.tmp.iterdir()]
        )


@pytest.fixture
def imagers(tmp_path):
    """The program, with a working directory of its own at `imagers.here`."""
    return Program(tmp_path)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Images:
    """Images as OCI layouts below a directory; `here` is a fresh one for each."""

    def __init__(self, base):
        self._base = base
        self._count = 0

    tar = staticmethod(make_tar)
    file = staticmethod(TarEntry.file)
    link = staticmethod(TarEntry.symlink)
    hard_link = staticmethod(TarEntry.link)
    directory = staticmethod(TarEntry.directory)

    def volume_label(self, name):
        return TarEntry.other(name, b"V")

    def build(self, *tars, change_config=None, change_manifest=None, change_layer=None):
        """A layout with gzip layers; the functions change what they are given before it is
        written, so that all digests above stay right. Returns its directory.
        """
        self._count += 1
        layout = self._base / f"image{self._count}"
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def put(data):
            (blobs / digest(data).removeprefix("sha256:")).write_bytes(data)
            return digest(data)

        tars = tars or (self.tar(("etc/hostname", b"guest\n")),)
        layers = []
        for index, tar in enumerate(tars):
            data = gzip.compress(tar, mtime=0)
            layer = {"mediaType": f"{LAYER}+gzip", "digest": put(data), "size": len(data)}
            if change_layer is not None:
                change_layer(index, layer, put)
            layers.append(layer)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]},
        }
        if change_config is not None:
            changed = change_config(config)
            config = config if changed is None else changed
        raw = config if isinstance(config, bytes) else json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": put(raw), "size": len(raw)},
            "layers": layers,
        }
        if change_manifest is not None:
            changed = change_manifest(manifest)
            manifest = manifest if changed is None else changed
        raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        self.write_index(layout, put(raw), len(raw))
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return layout

    def write_index(self, layout, manifest_digest, size, media_type=MANIFEST):
        index = {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": media_type,
                    "digest": manifest_digest,
                    "size": size,
                    "annotations": {"org.opencontainers.image.ref.name": "v1"},
                }
            ],
        }
        (layout / "index.json").write_text(json.dumps(index))

    def manifest_digest(self, layout):
        return json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]

    def blob(self, layout, name):
        return layout / "blobs" / "sha256" / name.removeprefix("sha256:")

    def manifest(self, layout):
        return json.loads(self.blob(layout, self.manifest_digest(layout)).read_text())


@pytest.fixture
def images(tmp_path):
    """Builds images."""
    (tmp_path / "images").mkdir()
    return Images(tmp_path / "images")


@pytest.fixture(scope="session")
def vectors():
    """The folder of the ocicrypt vectors."""
    return VECTORS


@pytest.fixture(scope="session")
def keys():
    """The folder of the vectors' throw-away keys: r2048.key opens what r2048.pub sealed."""
    return VECTORS / "keys"


@pytest.fixture
def accept(tmp_path):
    """A policy that accepts every image."""
    path = tmp_path / "accept.json"
    path.write_text(json.dumps(ACCEPT))
    return path


@dataclass(frozen=True)
class Published:
    """An image in a registry, encrypted with a key in a broker, signed, and its policy."""

    registry: EmbeddedRegistry
    broker: EmbeddedBroker
    reference: str
    digest: str
    layers: list
    policy: Path
    admin: tuple
    guest: tuple

    def pull(self, *more):
        """The words of a pull that succeeds."""
        return ("pull", self.reference, "bundle", "--policy", self.policy, *self.guest, *more)


@pytest.fixture
def servers(imagers_registry, imagers_broker):
    """A registry and a broker."""
    return imagers_registry, imagers_broker


@pytest.fixture
def publish(imagers, images, servers, keys, tmp_path):
    """A function: encrypt an image into the registry, sign it if wanted, write a policy."""
    imagers_registry, imagers_broker = servers

    def publish(layout=None, *, sign=True):
        layout = layout or images.build()
        reference = f"docker://{imagers_registry.address}/team/app:v1"
        admin = (
            "--broker",
            imagers_broker.url,
            "--broker-admin-key",
            imagers_broker.admin_key_file,
        )
        recipient = ("--encryption-key", "broker:kbs:///default/app/")
        words = ("encrypt", f"oci:{layout}:v1", reference, *recipient, *admin, "--json")
        encrypted = imagers.succeed(*words).json()
        policy = tmp_path / "policy.json"
        key = {"type": "sigstoreSigned", "keyPath": str(keys / "cosign1.pub")}
        policy.write_text(json.dumps({"default": [key]}))
        if sign:
            passphrase = tmp_path / "passphrase"
            passphrase.write_text(COSIGN_PASSPHRASE)
            words = ("--sign-by-sigstore-private-key", keys / "cosign1.key")
            imagers.succeed("sign", reference, *words, "--passphrase-file", passphrase)
        return Published(
            imagers_registry,
            imagers_broker,
            reference,
            encrypted["digest"],
            [
                layer["digest"]
                for layer in json.loads(imagers_registry.read(encrypted["digest"]))["layers"]
            ],
            policy,
            admin,
            ("--broker", imagers_broker.url, "--tee", "sample"),
        )

    return publish


COSIGN_PASSPHRASE = json.loads((VECTORS / "manifest.json").read_text())["keys"]["cosign1"][
    "password"
]


class StallingRegistry:
    """Serves one layout as `team/app:v1`; of the last layer it gives half, and then waits.

    `reached` is set when it waits; `go_on` lets it continue.
    """

    def __init__(self, layout, manifest_digest):
        self.layout = layout
        self.manifest_digest = manifest_digest
        self.reached = threading.Event()
        self.go_on = threading.Event()
        manifest = json.loads(self.read(manifest_digest))
        self.stalled = manifest["layers"][-1]["digest"]
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                registry.answer(self)

            do_HEAD = do_GET  # noqa: N815  # as http.server names methods

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.address = f"127.0.0.1:{self.server.server_port}"

    def read(self, name):
        return (self.layout / "blobs" / "sha256" / name.removeprefix("sha256:")).read_bytes()

    def answer(self, request):
        name = request.path.rpartition("/")[2]
        if request.path.endswith("/v2/"):
            data = b"{}"
        elif "/manifests/" in request.path:
            data = self.read(self.manifest_digest)
        else:
            data = self.read(name)
        request.send_response(200)
        request.send_header("Content-Type", MANIFEST)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command == "HEAD":
            return
        half = len(data) // 2 if name == self.stalled else len(data)
        request.wfile.write(data[:half])
        request.wfile.flush()
        if half < len(data):
            self.reached.set()
            if self.go_on.wait(60):
                request.wfile.write(data[half:])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def stalling(images):
    """A function: a registry that stalls in the middle of the last layer of a layout."""
    opened = []

    def start(layout):
        registry = StallingRegistry(layout, images.manifest_digest(layout))
        opened.append(registry.__enter__())
        return registry

    yield start
    for registry in opened:
        registry.__exit__()
