# SPDX-License-Identifier: Apache-2.0
"""The examples run as they stand, and the pytest plugin works in a project of somebody else."""

import base64
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

OUTSIDE_TEST = '''
"""A project that knows imagers as a package only."""

import json
import urllib.request


def test_registry_is_empty_and_answers(imagers_registry):
    with urllib.request.urlopen(f"{imagers_registry.url}/v2/", timeout=10) as answer:
        assert answer.status == 200
    assert imagers_registry.asked() == [("GET", "/v2/")]


def test_registry_is_another_one_for_each_test(imagers_registry):
    assert imagers_registry.asked() == []


def test_broker_releases_to_the_bound_image_only(imagers_broker):
    from imagers.errors import KeyRefused
    from imagers.model.digest import digest_of

    mine, other = digest_of(b"mine"), digest_of(b"other")
    imagers_broker.put("kbs:///default/key/1", b"k" * 32, image=mine)
    with imagers_broker.client() as client:
        with client.get("kbs:///default/key/1", manifest_digest=mine) as key:
            assert len(key) == 32
        try:
            client.get("kbs:///default/key/1", manifest_digest=other)
        except KeyRefused:
            pass
        else:
            raise AssertionError
    assert imagers_broker.handshakes == 1
    assert (imagers_broker.releases, imagers_broker.refusals) == (1, 1)
'''


@pytest.fixture
def path_with_imagers(imagers, tmp_path):
    """A PATH that has this very imagers first, installed or not."""
    folder = tmp_path / "bin"
    folder.mkdir()
    wrapper = folder / "imagers"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m imagers "$@"\n')
    wrapper.chmod(0o755)
    return {**imagers.environment, "PATH": f"{folder}:{imagers.environment['PATH']}"}


@pytest.mark.skipif(not shutil.which("bash"), reason="the pipeline is a bash script")
@pytest.mark.parametrize("tag", [":v1", ""], ids=["tag", "none"])
def test_pipeline_and_guest_pull_make_a_bundle(
    imagers, images, imagers_registry, path_with_imagers, tag
):
    layout = images.build(images.tar(("etc/motd", b"hello\n")), images.tar(("b", b"2")))
    repository = f"{imagers_registry.address}/team/app"
    destination = f"docker://{repository}{tag}"
    keys = imagers.here / "keys"
    pipeline = [str(EXAMPLES / "pipeline.sh"), f"oci:{layout}:v1", destination, "keys"]

    def run(words, code=0):
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            env=path_with_imagers,
            cwd=imagers.here,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    shown = run(pipeline).stdout
    assert "encrypted 2 of 2 layers" in shown
    assert "signatures:  1" in shown
    policy = json.loads((keys / "policy.json").read_text())
    assert policy["default"] == [{"type": "reject"}]
    assert list(policy["transports"]["docker"]) == [repository]
    for secret in ("recipient.key", "signer.key", "passphrase.txt"):
        assert (keys / secret).stat().st_mode & 0o077 == 0

    pull = [sys.executable, str(EXAMPLES / "guest_pull.py"), destination]
    guest = [*pull, "bundle", str(keys / "policy.json"), str(keys / "recipient.key")]
    digest, _, signer = run(guest).stdout.strip().partition(" by ")
    assert digest == str(imagers_registry.tags("team/app")[tag[1:] or "latest"])
    assert len(signer) == 64
    assert (imagers.here / "bundle/rootfs/etc/motd").read_text() == "hello\n"

    # A digest in the name is enough where the policy asks for no signature: nobody has signed then.
    accept = imagers.here / "accept.json"
    accept.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    pinned = [*guest[:2], f"docker://{repository}@{digest}", "pinned", str(accept), guest[-1]]
    assert run(pinned).stdout == f"{digest} by pinned_digest\n"

    # A signature that is a bundle is found too, as "imagers verify" finds it.
    bundles = imagers.here / "bundles.json"
    pem = base64.b64encode((keys / "signer.pub").read_bytes()).decode()
    bundles.write_text(json.dumps({"default": [{"type": "sigstoreBundle", "keyData": pem}]}))
    with_bundle = [*guest[:3], "second", str(bundles), guest[-1]]
    assert "is not signed" in run(with_bundle, code=21).stderr
    words = ["--sign-by-sigstore-private-key", str(keys / "signer.key"), "--new-bundle-format"]
    imagers.succeed("sign", destination, *words, "--passphrase-file", str(keys / "passphrase.txt"))
    assert run(with_bundle).stdout.startswith(f"{digest} by ")

    # A second run takes the keys that are there; a guest refuses what nobody signed.
    before = (keys / "signer.key").read_bytes()
    run(pipeline)
    assert (keys / "signer.key").read_bytes() == before
    unsigned = f"docker://{imagers_registry.address}/team/unsigned:v1"
    imagers.succeed("copy", f"oci:{layout}:v1", unsigned)
    guest[2:4] = [unsigned, "other"]
    refused = run(guest, code=21)
    assert refused.stderr.startswith("guest: error: ")
    assert not (imagers.here / "other").exists()


def test_plugin_works_in_a_project_of_somebody_else(imagers, tmp_path):
    project = tmp_path / "project"
    (project / "tests").mkdir(parents=True)
    (project / "tests" / "test_outside.py").write_text(OUTSIDE_TEST)
    (project / "pyproject.toml").write_text("[tool.pytest.ini_options]\nfilterwarnings='error'\n")
    installed = any(
        point.value == "imagers.testing.plugin"
        for point in importlib.metadata.entry_points(group="pytest11")
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if not installed:
        words += ["-p", "imagers.testing.plugin"]
    done = subprocess.run(
        words,
        check=False,
        capture_output=True,
        text=True,
        cwd=project,
        env={**imagers.environment, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
    assert not list(imagers.tmp.iterdir()), "a server left files"
    assert sorted(os.listdir(project)) == ["pyproject.toml", "tests"]


def test_plugin_that_is_not_used_loads_nothing_heavy(imagers):
    script = (
        "import sys, imagers.testing.plugin\n"
        "print(*[n for n in ('cryptography', 'urllib3', 'starlette') "
        "if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env=imagers.environment,
    )
    assert done.stdout == "\n"


def test_guest_is_short_and_imports_little_of_ours():
    lines = (EXAMPLES / "guest_pull.py").read_text().splitlines()
    assert len(lines) <= 25
    assert sum(line.startswith(("import imagers", "from imagers")) for line in lines) <= 3


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_unit_of_the_broker_is_one(tmp_path):
    program = Path(sys.executable).parent / "imagers"
    text = (EXAMPLES / "imagers-broker.service").read_text()
    assert text.count("/usr/local/bin/imagers ") == 2
    unit = tmp_path / "imagers-broker.service"
    unit.write_text(text.replace("/usr/local/bin/imagers ", f"{program} "))
    words = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    told = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, told) == (0, [])
