# SPDX-License-Identifier: Apache-2.0
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
import sys
import time
import urllib.request
from contextlib import closing

import pytest

from imagers.cli.main import run
from imagers.errors import SignatureInvalid, UntrustedSigner
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.keys import SecretKey
from imagers.model.media import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.net.http import HTTPClient
from imagers.registry.client import RegistryClient
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
from imagers.sign.formats.sigstore_signed import find_signatures
from imagers.sign.found import Found
from imagers.sign.image import sign_image
from imagers.sign.keyfiles import (
    load_private_key,
    read_key_file,
    save_key_pair,
)
from imagers.sign.policy_json import parse_policy
from imagers.sign.public_key import parse_public_key
from imagers.sign.sigstore_key import generate_private_key
from imagers.sign.verify import load_trust, verify_image

COSIGN = os.environ.get("IMAGERS_COSIGN") or shutil.which("cosign")
REGISTRY = shutil.which("docker-registry")
PASSWORD = "interop"

pytestmark = [
    pytest.mark.skipif(COSIGN is None, reason="no cosign: make peers"),
    pytest.mark.skipif(REGISTRY is None, reason="docker-registry is not installed"),
]


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
    """A repository with an image at v1, to read and to write, its name and its manifest."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    reference = parse_reference(f"{registry}/interop/{name}:v1")
    source, sink = (
        kind(
            reference,
            RegistryClient(reference, http=HTTPClient(), actions="pull,push"),
            name=f"docker://{reference}",
        )
        for kind in (RegistrySource, RegistrySink)
    )
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    descriptor = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    sink.put_blob(descriptor, config, what="config")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor.to_json(),
        "layers": [],
    }
    raw = json.dumps(document).encode()
    sink.put_manifest(raw, OCI_MANIFEST, by_name=True)
    with closing(source), closing(sink):
        yield source, sink, reference, raw


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
    source, sink, reference, raw = image
    with SecretKey(PASSWORD.encode()) as passphrase:
        key = load_private_key(str(tmp_path / "a.key"), passphrase)
    sign_image(source, sink, reference, key, timestamp=1)
    done = cosign_verify(reference, "a.pub", cwd=tmp_path)
    (payload,) = json.loads(done.stdout)
    assert payload["critical"]["identity"]["docker-reference"] == str(reference)
    assert payload["critical"]["image"]["docker-manifest-digest"] == str(digest_of(raw))


@pytest.mark.usefixtures("keys")
def test_cosign_refuses_another_key_than_the_one_that_signed_here(image, tmp_path):
    source, sink, reference, _ = image
    sign_image(source, sink, reference, generate_private_key())
    done = cosign_verify(reference, "a.pub", cwd=tmp_path, check=False)
    assert done.returncode != 0


def test_what_cosign_signs_verifies_here(image, tmp_path):
    source, _, reference, raw = image
    cosign("generate-key-pair", cwd=tmp_path)
    pinned = str(reference.with_digest(digest_of(raw)))
    cosign_sign("--key", "cosign.key", "-a", "build=7", pinned, cwd=tmp_path)
    found = find_signatures(source, digest_of(raw))
    trust = trust_in(tmp_path / "cosign.pub", reference, "matchRepository")
    decision = verify_image(trust, raw, Found.everywhere(found))
    public = parse_public_key((tmp_path / "cosign.pub").read_bytes(), what="key")
    assert decision.signers[0].fingerprint == public.fingerprint
    with pytest.raises(SignatureInvalid):
        verify_image(trust, raw + b" ", Found.everywhere(found))
    by_default = trust_in(tmp_path / "cosign.pub", reference, "matchRepoDigestOrExact")
    with pytest.raises(UntrustedSigner):
        verify_image(by_default, raw, Found.everywhere(found))


def test_cosign_and_we_sign_with_each_others_keys_side_by_side(image, keys, tmp_path):
    source, sink, reference, raw = image
    pinned = str(reference.with_digest(digest_of(raw)))
    cosign("generate-key-pair", cwd=tmp_path)
    with SecretKey(PASSWORD.encode()) as passphrase:
        theirs = load_private_key(str(tmp_path / "cosign.key"), passphrase)
    sign_image(source, sink, reference, theirs)
    cosign_sign("--key", "a.key", pinned, cwd=tmp_path)
    sign_image(source, sink, reference, keys)
    found = find_signatures(source, digest_of(raw))
    assert len(found) == 3
    for name in ("a.pub", "cosign.pub"):
        cosign_verify(reference, name, cwd=tmp_path)
        trust = trust_in(tmp_path / name, reference, "matchRepoDigestOrExact")
        assert verify_image(trust, raw, Found.everywhere(found))


def verify_with_key(reference, key, capsys):
    """What the command says, with a key in place of a policy."""
    code = run(["verify", str(reference), "--key", str(key), "--explain"])
    return code, capsys.readouterr()


@pytest.mark.parametrize("flags", [(), ("--new-bundle-format=true",)], ids=["own form", "bundle"])
@pytest.mark.parametrize("signed", ["image", "index"])
@pytest.mark.parametrize("program", ["IMAGERS_COSIGN", "IMAGERS_COSIGN3"])
def test_key_is_enough_to_verify_what_cosign_signs(
    image, tmp_path, capsys, monkeypatch, program, signed, flags
):
    """An index that was signed without `--recursive` speaks for the image in it."""
    source, sink, reference, raw = image
    if program not in os.environ:
        pytest.skip(f"no {program}: make peers")
    monkeypatch.setattr(sys.modules[__name__], "COSIGN", os.environ[program])
    if known("sign", *flags, cwd=tmp_path) != list(flags):
        pytest.skip("this cosign writes no bundles")
    entry = {"platform": {"os": "linux", "architecture": "amd64"}}
    child = {"mediaType": OCI_MANIFEST, "digest": str(digest_of(raw)), "size": len(raw)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child | entry]}
    if signed == "index":
        sink.put_manifest(json.dumps(index).encode(), OCI_INDEX, by_name=True)
    top = source.read_manifest().raw
    cosign("generate-key-pair", cwd=tmp_path)
    (tmp_path / "other").mkdir()
    cosign("generate-key-pair", cwd=tmp_path / "other")
    assert verify_with_key(reference, tmp_path / "cosign.pub", capsys)[0] == 21
    pinned = str(reference.with_digest(digest_of(top)))
    old = known("sign", "--use-signing-config=false", cwd=tmp_path)
    common = ("sign", "--yes", "--tlog-upload=false", "--allow-http-registry", *old)
    cosign(*common, *flags, "--key", "cosign.key", pinned, cwd=tmp_path)
    code, printed = verify_with_key(reference, tmp_path / "cosign.pub", capsys)
    assert code == 0, printed
    assert "basis: signature" in printed.out
    assert verify_with_key(reference, tmp_path / "other" / "cosign.pub", capsys)[0] == 21
