# SPDX-License-Identifier: Apache-2.0
"""A repository in memory that speaks the Protocols of imagers.sign.image, and can misbehave."""

import io
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from imagers.errors import NotFound
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of, parse_digest
from imagers.model.keys import SecretKey
from imagers.model.manifest import RawManifest, parse_index
from imagers.model.media import OCI_INDEX
from imagers.model.stream import CheckedStream
from imagers.sign.sigstore_key import generate_private_key

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"


class BytesStream(io.BytesIO):
    def readinto(self, buffer, /):
        return super().readinto(buffer)


class Repository:
    """Tags, manifests and blobs; `fail` maps a tag or digest to the error to raise."""

    def __init__(self):
        self.tags = {}
        self.manifests = {}
        self.blobs = {}
        self.fail = {}
        self.opened = []

    def put_manifest_as(self, raw, media_type, tag):
        digest = digest_of(raw)
        self.manifests[digest] = (raw, media_type)
        self.tags[tag] = digest

    def add_manifest(self, raw, media_type):
        self.manifests[digest_of(raw)] = (raw, media_type)
        return digest_of(raw)

    def put_blob(self, descriptor, data, *, what):
        assert (descriptor.digest, descriptor.size) == (digest_of(data), len(data)), what
        self.blobs[descriptor.digest] = bytes(data)

    def read_tag(self, tag):
        if tag in self.fail:
            raise self.fail[tag]
        if tag not in self.tags:
            raise NotFound(f"no tag '{tag}'", status=404, code="MANIFEST_UNKNOWN")
        return self.read_manifest(self.tags[tag])

    def read_manifest(self, digest=None):
        digest = self.tags["v1"] if digest is None else digest
        if digest not in self.manifests:
            raise NotFound(f"no manifest '{digest}'", status=404, code="MANIFEST_UNKNOWN")
        raw, media_type = self.manifests[digest]
        return RawManifest(raw, media_type, digest)

    def open_blob(self, descriptor, *, what):
        self.opened.append(descriptor.digest)
        if descriptor.digest in self.fail:
            raise self.fail[descriptor.digest]
        if descriptor.digest not in self.blobs:
            raise NotFound(f"no blob for {what}", status=404, code="BLOB_UNKNOWN")
        return CheckedStream(BytesStream(self.blobs[descriptor.digest]), descriptor, what=what)

    def supports_signatures(self):
        return False

    def read_signatures(self, digest, *, max_bytes):  # noqa: ARG002
        raise AssertionError("it does not support them")

    def read_referrers(self, digest):
        """As a registry without the API: the index under a tag."""
        try:
            answer = self.read_tag(f"{digest.algorithm}-{digest.hex}")
        except NotFound:
            return (), False
        return parse_index(answer.raw).manifests, False

    def put_referrer(self, raw, entry, subject):
        """As a registry without the API that nobody else writes to."""
        self.manifests[digest_of(raw)] = (raw, entry.media_type)
        listed, _ = self.read_referrers(subject)
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [one.to_json() for one in (*listed, entry)],
        }
        tag = f"{subject.algorithm}-{subject.hex}"
        self.put_manifest_as(json.dumps(index).encode(), OCI_INDEX, tag)

    @classmethod
    def from_layout(cls, path):
        """A repository as the vectors keep it: an OCI layout whose ref names are the tags."""
        self = cls()
        for blob in (path / "blobs" / "sha256").iterdir():
            digest = parse_digest(f"sha256:{blob.name}")
            raw = blob.read_bytes()
            self.blobs[digest] = raw
            try:
                document = json.loads(raw)
            except ValueError:
                continue
            if isinstance(document, dict) and "schemaVersion" in document:
                self.manifests[digest] = (raw, document.get("mediaType", ""))
        for entry in json.loads((path / "index.json").read_bytes())["manifests"]:
            name = entry.get("annotations", {}).get("org.opencontainers.image.ref.name")
            self.tags[name] = parse_digest(entry["digest"])
        return self


@pytest.fixture
def repository():
    return Repository()


@pytest.fixture
def repository_of():
    return Repository.from_layout


@pytest.fixture(scope="session")
def key():
    return generate_private_key()


@pytest.fixture(scope="session")
def other_key():
    return generate_private_key()


@pytest.fixture
def passphrase():
    with SecretKey(b"sigpass") as secret:
        yield secret


@pytest.fixture
def manifest():
    """The bytes of an image manifest; what it names does not exist, nobody looks."""
    config = Descriptor("application/vnd.oci.image.config.v1+json", digest_of(b"{}"), 2)
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.to_json(),
            "layers": [],
        }
    ).encode()


class GPGHome:
    """A gpg home with throw-away keys, and what they signed."""

    def __init__(self, path):
        self.path = path
        path.mkdir(mode=0o700)
        # Passphrases cost what a test can pay for, not what this machine could.
        (path / "gpg-agent.conf").write_text("s2k-count 65536\n")

    def gpg(self, *words, data=b"", at=None):
        clock = [] if at is None else [f"--faked-system-time={at}!"]
        done = subprocess.run(
            ["gpg", "--homedir", self.path, "--batch", "--quiet", "--no-tty", *clock, *words],
            input=data,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def new_key(self, name, *, at=None, expire="never", passphrase="", usage="sign"):
        words = ["--passphrase", passphrase, "--pinentry-mode", "loopback"]
        self.gpg(*words, "--quick-gen-key", name, "ed25519", usage, expire, at=at)
        listing = self.gpg("--list-keys", "--with-colons", f"={name}").decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line[:4] == "fpr:")

    def sign(self, fingerprint, payload, *words, at=None):
        return self.gpg("--local-user", fingerprint, *words, "--sign", data=payload, at=at)

    def export(self, *fingerprints):
        return self.gpg("--export", *fingerprints)

    def close(self):
        subprocess.run(["gpgconf", "--homedir", self.path, "--kill", "all"], check=False)


@pytest.fixture(scope="session")
def gpg_home():
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    with tempfile.TemporaryDirectory(prefix="ig", dir="/tmp") as short:  # paths of sockets
        home = GPGHome(Path(short) / "h")
        home.alice = home.new_key("alice", at="20250101T000000")
        home.bob = home.new_key("bob")
        yield home
        home.close()
