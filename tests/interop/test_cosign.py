"""Signatures made here verify with cosign, and those of cosign verify here.

cosign is taken from IMAGERS_COSIGN or PATH; any of its versions 2 and 3 does. The registry is
Debian's docker-registry.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from urllib.parse import urljoin

import pytest

from imagers.errors import NotFound, SignatureInvalid, UntrustedSigner
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.manifest import RawManifest
from imagers.model.media import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.model.stream import CheckedStream
from imagers.sign.image import find_signatures, sign_image
from imagers.sign.keyfiles import (
    load_private_key,
    load_public_key,
    read_key_file,
    save_key_pair,
)
from imagers.sign.policy_json import docker_identity, parse_policy
from imagers.sign.sigstore_key import generate_private_key
from imagers.sign.verify import load_trust, verify_image

COSIGN = os.environ.get("IMAGERS_COSIGN") or shutil.which("cosign")
REGISTRY = shutil.which("docker-registry")
PASSWORD = "interop"

pytestmark = [
    pytest.mark.skipif(COSIGN is None, reason="cosign is neither on PATH nor in IMAGERS_COSIGN"),
    pytest.mark.skipif(REGISTRY is None, reason="docker-registry is not installed"),
]


class HTTPRepository:
    """The few requests of the distribution protocol that a signature needs."""

    def __init__(self, base):
        self.base = base

    def request(self, method, path, body=None, **headers):
        request = urllib.request.Request(
            urljoin(self.base, path), data=body, headers=headers, method=method
        )
        return urllib.request.urlopen(request, timeout=20)

    def read_tag(self, tag):
        accept = f"{OCI_MANIFEST}, {OCI_INDEX}"
        try:
            with self.request("GET", f"manifests/{tag}", Accept=accept) as answer:
                raw = answer.read()
                return RawManifest(raw, answer.headers["Content-Type"], digest_of(raw))
        except urllib.error.HTTPError as error:
            error.close()
            raise NotFound(f"no tag '{tag}'", status=error.code) from error

    def read_manifest(self, digest=None):
        return self.read_tag("v1" if digest is None else str(digest))

    def open_blob(self, descriptor, *, what):
        answer = self.request("GET", f"blobs/{descriptor.digest}")
        return CheckedStream(answer, descriptor, what=what)

    def put_blob(self, descriptor, data, *, what):  # noqa: ARG002  # the Protocol
        with self.request("POST", "blobs/uploads/", b"") as answer:
            place = answer.headers["Location"]
        place += ("&" if "?" in place else "?") + f"digest={descriptor.digest}"
        octets = {"Content-Type": "application/octet-stream"}
        self.request("PUT", place, data, **octets).close()

    def put_manifest_as(self, raw, media_type, tag):
        self.request("PUT", f"manifests/{tag}", raw, **{"Content-Type": media_type}).close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(
            [REGISTRY, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        ) as process,
    ):
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield address
        finally:
            process.kill()


@pytest.fixture
def image(registry, request):
    """A repository with an image at v1, its reference and its manifest's bytes."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    repository = HTTPRepository(f"http://{registry}/v2/interop/{name}/")
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    descriptor = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    repository.put_blob(descriptor, config, what="config")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor.to_json(),
        "layers": [],
    }
    raw = json.dumps(document).encode()
    repository.put_manifest_as(raw, OCI_MANIFEST, "v1")
    return repository, parse_reference(f"{registry}/interop/{name}:v1"), raw


def cosign(*arguments, cwd, check=True):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "COSIGN_PASSWORD": PASSWORD}
    done = subprocess.run(
        [COSIGN, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def known(command, *flags, cwd):
    """Those of `flags` that this version of cosign has: 3 needs them to write the old form."""
    return [
        flag
        for flag in flags
        if cosign(command, flag, "--help", cwd=cwd, check=False).returncode == 0
    ]


def cosign_sign(*arguments, cwd):
    old = known("sign", "--new-bundle-format=false", "--use-signing-config=false", cwd=cwd)
    common = ["sign", "--yes", "--tlog-upload=false", "--allow-http-registry", *old]
    return cosign(*common, *arguments, cwd=cwd)


def cosign_verify(reference, key, *, cwd, check=True):
    old = known("verify", "--new-bundle-format=false", cwd=cwd)
    common = ["verify", "--insecure-ignore-tlog=true", "--allow-http-registry", *old]
    return cosign(*common, "--key", key, str(reference), cwd=cwd, check=check)


@pytest.fixture
def keys(tmp_path):
    """A key of ours, in files of ours."""
    key = generate_private_key()
    with SecretKey(PASSWORD.encode()) as passphrase:
        save_key_pair(key, str(tmp_path / "a.key"), str(tmp_path / "a.pub"), passphrase)
    return key


def trust_in(path, reference, identity):
    requirement = {
        "type": "sigstoreSigned",
        "keyPath": str(path),
        "signedIdentity": {"type": identity},
    }
    policy = parse_policy(json.dumps({"default": [requirement]}).encode())
    return load_trust(policy.select(docker_identity(reference)), read_key_file)


@pytest.mark.usefixtures("keys")
def test_cosign_verifies_what_is_signed_here(image, tmp_path):
    repository, reference, raw = image
    with SecretKey(PASSWORD.encode()) as passphrase:
        key = load_private_key(str(tmp_path / "a.key"), passphrase)
    sign_image(repository, repository, reference, key, timestamp=1)
    done = cosign_verify(reference, "a.pub", cwd=tmp_path)
    (payload,) = json.loads(done.stdout)
    assert payload["critical"]["identity"]["docker-reference"] == str(reference)
    assert payload["critical"]["image"]["docker-manifest-digest"] == str(digest_of(raw))


@pytest.mark.usefixtures("keys")
def test_cosign_refuses_another_key_than_the_one_that_signed_here(image, tmp_path):
    repository, reference, _ = image
    sign_image(repository, repository, reference, generate_private_key())
    done = cosign_verify(reference, "a.pub", cwd=tmp_path, check=False)
    assert done.returncode != 0


def test_what_cosign_signs_verifies_here(image, tmp_path):
    repository, reference, raw = image
    cosign("generate-key-pair", cwd=tmp_path)
    pinned = str(reference.with_digest(digest_of(raw)))
    cosign_sign("--key", "cosign.key", "-a", "build=7", pinned, cwd=tmp_path)
    found = find_signatures(repository, digest_of(raw))
    trust = trust_in(tmp_path / "cosign.pub", reference, "matchRepository")
    decision = verify_image(trust, raw, found)
    public = load_public_key(str(tmp_path / "cosign.pub"))
    assert decision.signers[0].fingerprint == public.fingerprint
    with pytest.raises(SignatureInvalid):
        verify_image(trust, raw + b" ", found)
    by_default = trust_in(tmp_path / "cosign.pub", reference, "matchRepoDigestOrExact")
    with pytest.raises(UntrustedSigner):
        verify_image(by_default, raw, found)


def test_cosign_and_we_sign_with_each_others_keys_side_by_side(image, keys, tmp_path):
    repository, reference, raw = image
    pinned = str(reference.with_digest(digest_of(raw)))
    cosign("generate-key-pair", cwd=tmp_path)
    with SecretKey(PASSWORD.encode()) as passphrase:
        theirs = load_private_key(str(tmp_path / "cosign.key"), passphrase)
    sign_image(repository, repository, reference, theirs)
    cosign_sign("--key", "a.key", pinned, cwd=tmp_path)
    sign_image(repository, repository, reference, keys)
    found = find_signatures(repository, digest_of(raw))
    assert len(found) == 3
    for name in ("a.pub", "cosign.pub"):
        cosign_verify(reference, name, cwd=tmp_path)
        trust = trust_in(tmp_path / name, reference, "matchRepoDigestOrExact")
        assert verify_image(trust, raw, found)
