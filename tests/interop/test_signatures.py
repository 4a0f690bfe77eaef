# SPDX-License-Identifier: Apache-2.0
"""Signatures against skopeo (GPG), cosign 2 and 3 (tags, bundles) and notation, both ways.

cosign is taken from IMAGERS_COSIGN, IMAGERS_COSIGN3 or PATH, notation from IMAGERS_NOTATION or
PATH; what is missing is skipped. The registry is the one of imagers.testing, which has the
referrers API, and docker-registry, which has none.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from imagers.errors import SignatureInvalid
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.keys import SecretKey
from imagers.model.media import OCI_CONFIG, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.net.http import HTTPClient
from imagers.registry.client import RegistryClient
from imagers.registry.signatures import RegistrySignatures
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
from imagers.sign.find import Finder, Places
from imagers.sign.formats.format import FORMATS
from imagers.sign.formats.gpg import read_simple_signatures
from imagers.sign.formats.notation.make import attach_notation
from imagers.sign.formats.simple import sign_image_simple
from imagers.sign.image import attach_bundles, sign_image
from imagers.sign.keyfiles import (
    load_notation_key,
    load_private_key,
    load_registries_d,
    read_key_file,
    save_key_pair,
)
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import SigstorePrivateKey
from imagers.sign.verify import load_trust, verify_image
from imagers.testing.registry import EmbeddedRegistry

KEYS = Path(__file__).resolve().parent.parent / "vectors" / "ocicrypt" / "keys"
COSIGNS = {
    path
    for path in (
        os.environ.get("IMAGERS_COSIGN"),
        os.environ.get("IMAGERS_COSIGN3"),
        shutil.which("cosign"),
    )
    if path
}
NOTATION = os.environ.get("IMAGERS_NOTATION") or shutil.which("notation")
DOCKER_REGISTRY = shutil.which("docker-registry")
SKOPEO = shutil.which("skopeo")
PASSWORD = "interop"
needs_cosign = pytest.mark.skipif(not COSIGNS, reason="no cosign: make peers")
needs_notation = pytest.mark.skipif(NOTATION is None, reason="no notation: make peers")
needs_skopeo = pytest.mark.skipif(
    SKOPEO is None or shutil.which("gpg") is None, reason="skopeo or gpg is not installed"
)


class Image:
    """An image in a registry of its own, and the way to read, sign and verify it."""

    def __init__(self, registry, folder):
        self.registry, self.folder = registry, folder
        self.reference = parse_reference(f"{registry.address}/interop/app:v1")
        self.source, self.sink = (
            kind(
                self.reference,
                RegistryClient(self.reference, http=HTTPClient(), actions="pull,push"),
                name="x",
            )
            for kind in (RegistrySource, RegistrySink)
        )
        config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
        descriptor = Descriptor(OCI_CONFIG, digest_of(config), len(config))
        self.sink.put_blob(descriptor, config, what="config")
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor.to_json(),
            "layers": [],
        }
        self.raw = json.dumps(document).encode()
        self.sink.put_manifest(self.raw, OCI_MANIFEST, by_name=True)
        self.kept = RegistrySignatures(self.sink)

    @property
    def pinned(self):
        return str(self.reference.with_digest(digest_of(self.raw)))

    def places(self, registries_d=None):
        config = {} if registries_d is None else {"config": load_registries_d(str(registries_d))}
        return Places(
            reference=self.reference,
            repository=self.source,
            referrers=self.kept,
            extension=self.kept,
            **config,
        )

    def verify(self, requirement, *, raw=None, registries_d=None):
        policy = parse_policy(json.dumps({"default": [requirement]}).encode())
        trust = load_trust(policy.select(docker_identity(self.reference)), read_key_file)
        found = Finder(self.places(registries_d)).find(digest_of(self.raw), set(FORMATS))
        found = read_simple_signatures(trust, found)
        return verify_image(trust, raw or self.raw, found, now=datetime.now(UTC))


class DockerRegistry:
    """Debian's docker-registry, which has no referrers API."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": {"addr": self.address},
        }
        (folder / "config.yml").write_text(json.dumps(config))
        self._process = subprocess.Popen(
            [DOCKER_REGISTRY, "serve", str(folder / "config.yml")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        for _ in range(100):
            with suppress(OSError):
                urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5).close()
                return self
            time.sleep(0.1)
        raise AssertionError("docker-registry does not start")

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def image(tmp_path, request):
    if getattr(request, "param", "referrers API") == "tag":
        if DOCKER_REGISTRY is None:
            pytest.skip("docker-registry is not installed")
        server = DockerRegistry(tmp_path)
    else:
        server = EmbeddedRegistry()
    with server as registry:
        one = Image(registry, tmp_path)
        yield one
        one.source.close()
        one.sink.close()


def run(*words, cwd, **environment):
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def is_cosign_3(program):
    """Told by an option that came with it: builds of distributions say no version."""
    words = [program, "sign", "--use-signing-config=false", "--help"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def cosign_key(program, folder, key=None):
    """A key pair of cosign: a new one, or one that we wrote in its format."""
    if key is None:
        run(program, "generate-key-pair", cwd=folder, COSIGN_PASSWORD=PASSWORD)
        return folder / "cosign.key", folder / "cosign.pub"
    with SecretKey(PASSWORD.encode()) as passphrase:
        paths = (str(folder / "cosign.key"), str(folder / "cosign.pub"))
        save_key_pair(SigstorePrivateKey(key), *paths, passphrase)
    return folder / "cosign.key", folder / "cosign.pub"


def load(path):
    with SecretKey(PASSWORD.encode()) as passphrase:
        return load_private_key(str(path), passphrase)


KINDS = {
    "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@needs_cosign
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", sorted(COSIGNS))
def test_cosign_signs_by_tag_and_we_verify_with_each_kind_of_key(image, program, kind):
    folder = image.folder
    private, public = cosign_key(program, folder, KINDS[kind]())
    new = ["--new-bundle-format=false", "--use-signing-config=false"]
    words = ["sign", "--yes", "--tlog-upload=false", "--allow-http-registry", "--key", private]
    words += new if is_cosign_3(program) else []
    run(program, *words, image.pinned, cwd=folder, COSIGN_PASSWORD=PASSWORD)
    requirement = {
        "type": "sigstoreSigned",
        "keyPath": str(public),
        "signedIdentity": {"type": "matchRepository"},
    }
    assert image.verify(requirement).signers
    with pytest.raises(SignatureInvalid):
        image.verify(requirement, raw=image.raw + b" ")


@needs_cosign
@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
@pytest.mark.parametrize("program", sorted(COSIGNS))
def test_we_sign_by_tag_with_cosigns_key_and_cosign_verifies(image, program, kind):
    folder = image.folder
    private, public = cosign_key(program, folder, KINDS[kind]())
    sign_image(image.source, image.sink, image.reference, load(private), timestamp=1)
    words = ["verify", "--insecure-ignore-tlog=true", "--allow-http-registry", "--key", public]
    words += ["--new-bundle-format=false"] if is_cosign_3(program) else []
    told = run(program, *words, image.reference, cwd=folder)
    assert str(digest_of(image.raw)) in told


@needs_cosign
@pytest.mark.parametrize("image", ["referrers API", "tag"], indirect=True)
@pytest.mark.parametrize("program", sorted(COSIGNS))
def test_bundles_of_cosign_3_verify_here_and_ours_there(image, program):
    folder = image.folder
    if not is_cosign_3(program):
        pytest.skip("cosign before 3 writes no bundles of this kind")
    private, public = cosign_key(program, folder)
    requirement = {"type": "sigstoreBundle", "keyPath": str(public)}
    created = datetime.now(UTC)
    signed = attach_bundles(
        image.source, image.sink, image.kept, image.reference, load(private), created=created
    )
    assert [one.added for one in signed] == [True]
    check = ["verify", "--insecure-ignore-tlog=true", "--allow-http-registry", "--key", public]
    assert str(digest_of(image.raw)) in run(program, *check, image.reference, cwd=folder)
    words = ["sign", "--yes", "--tlog-upload=false", "--use-signing-config=false"]
    words += ["--allow-http-registry", "--key", private]
    run(program, *words, image.pinned, cwd=folder, COSIGN_PASSWORD=PASSWORD)
    found = Finder(image.places()).find(digest_of(image.raw), {"sigstore bundle"})
    assert len(found.signatures) == 2  # nobody's was lost
    assert image.verify(requirement).signers[0].reference == ""


@pytest.fixture
def notation(image):
    """notation, trusting the roots of the vectors' keys."""
    config = image.folder / "config" / "notation"
    for kind in ("ec", "rsa"):
        store = config / "truststore" / "x509" / "ca" / kind
        store.mkdir(parents=True)
        shutil.copy(KEYS / f"notary-{kind}-root.pem", store)
    statement = {
        "name": "p",
        "registryScopes": ["*"],
        "signatureVerification": {"level": "strict"},
        "trustStores": ["ca:ec", "ca:rsa"],
        "trustedIdentities": ["*"],
    }
    policy = {"version": "1.0", "trustPolicies": [statement]}
    (config / "trustpolicy.json").write_text(json.dumps(policy))
    keys = [
        {
            "name": kind,
            "keyPath": str(KEYS / f"notary-{kind}-leaf.key"),
            "certPath": str(KEYS / f"notary-{kind}-full.pem"),
        }
        for kind in ("ec", "rsa")
    ]
    (config / "signingkeys.json").write_text(json.dumps({"keys": keys}))

    def call(*words):
        home = {"XDG_CONFIG_HOME": str(image.folder / "config")}
        return run(NOTATION, *words, "--insecure-registry", cwd=image.folder, **home)

    call.requirement = {
        "type": "notation",
        "trustPolicyPath": str(config / "trustpolicy.json"),
        "trustStorePath": str(config / "truststore"),
    }
    return call


@needs_notation
@pytest.mark.parametrize("image", ["referrers API", "tag"], indirect=True)
@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("form", ["jws", "cose"])
def test_notation_verifies_ours_and_we_what_notation_signed(image, notation, kind, form):
    key = load_notation_key(
        str(KEYS / f"notary-{kind}-leaf.key"), str(KEYS / f"notary-{kind}-full.pem"), None
    )
    media_type = "application/cose" if form == "cose" else "application/jose+json"
    attach_notation(
        image.source,
        image.sink,
        image.kept,
        image.reference,
        key,
        created=datetime.now(UTC),
        media_type=media_type,
    )
    assert "Successfully verified" in notation("verify", image.pinned)
    assert image.verify(notation.requirement).signers


@needs_notation
@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("form", ["jws", "cose"])
def test_notation_signs_and_we_verify(image, notation, kind, form):
    notation("sign", "--key", kind, "--signature-format", form, image.pinned)
    assert f"CN=notary-{kind} leaf" in image.verify(notation.requirement).signers[0].subject
    with pytest.raises(SignatureInvalid):
        image.verify(notation.requirement, raw=image.raw + b" ")


@pytest.fixture
def gpg(image):
    """A gpg home with one key, and registries.d that name a lookaside."""
    with tempfile.TemporaryDirectory(prefix="ig", dir="/tmp") as short:  # paths of sockets
        home = Path(short) / "h"
        home.mkdir(mode=0o700)
        words = ("gpg", "--batch", "--quiet", "--homedir", home)
        generate = ("--passphrase", "", "--quick-gen-key", "Signer", "rsa2048", "sign", "never")
        run(*words, *generate, cwd=image.folder)
        listing = run(*words, "--list-keys", "--with-colons", cwd=image.folder)
        home_key = next(line.split(":")[9] for line in listing.splitlines() if line[:4] == "fpr:")
        run(*words, "--output", image.folder / "key.gpg", "--export", home_key, cwd=image.folder)
        config = image.folder / "registries.d"
        config.mkdir()
        (config / "a.yaml").write_text(
            f"docker:\n  {image.registry.address}:\n    lookaside: file://{image.folder}/look\n"
        )
        yield home, home_key, config
        run("gpgconf", "--homedir", home, "--kill", "all", cwd=image.folder)


def gpg_requirement(image):
    return {
        "type": "signedBy",
        "keyType": "GPGKeys",
        "keyPath": str(image.folder / "key.gpg"),
    }


@needs_skopeo
def test_skopeo_verifies_what_gpg_signed_here(image, gpg):
    home, key, config = gpg
    sign_image_simple(
        image.source, image.places(config), None, image.reference, key, home=home, timestamp=1
    )
    assert image.verify(gpg_requirement(image), registries_d=config).signers[0].fingerprint == key
    policy = image.folder / "policy.json"
    for key_file, good in ((image.folder / "key.gpg", True), (KEYS / "bob.pub.gpg", False)):
        rule = {**gpg_requirement(image), "keyPath": str(key_file)}
        policy.write_text(json.dumps({"default": [rule]}))
        words = ["--policy", policy, "--registries.d", config, "copy", "--src-tls-verify=false"]
        target = f"dir:{image.folder}/{good}"
        done = subprocess.run(
            [SKOPEO, *words, f"docker://{image.reference}", target],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) is good, done.stderr


@needs_skopeo
def test_what_skopeo_signs_with_gpg_verifies_here(image, gpg):
    home, key, config = gpg
    target = f"docker://{image.registry.address}/interop/copy:v1"
    words = ["--insecure-policy", "--registries.d", config, "copy", "--src-tls-verify=false"]
    words += ["--dest-tls-verify=false", "--sign-by", key]
    run(
        SKOPEO, *words, f"docker://{image.reference}", target,
        cwd=image.folder, GNUPGHOME=str(home),
    )  # fmt: skip
    rule = {
        **gpg_requirement(image),
        "signedIdentity": {
            "type": "exactReference",
            "dockerReference": f"{image.registry.address}/interop/copy:v1",
        },
    }
    image.reference = parse_reference(f"{image.registry.address}/interop/copy:v1")
    assert image.verify(rule, registries_d=config).signers[0].fingerprint == key
