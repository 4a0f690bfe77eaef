# SPDX-License-Identifier: Apache-2.0
"""The plugin as another project meets it: a run of pytest of its own."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[3])
# As an entry point would load it, whether or not this environment has the package installed.
ENVIRONMENT = os.environ | {"PYTHONPATH": ROOT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

TESTS = """
import urllib.request

import pytest

from imagers.errors import KeyRefused
from imagers.model.digest import digest_of

URI, IMAGE = "kbs:///default/key/1", digest_of(b"image")

def test_first(imagers_broker):
    imagers_broker.put(URI, b"secret", image=IMAGE)
    with imagers_broker.client() as client:
        with client.get(URI, manifest_digest=IMAGE) as secret:
            assert len(secret) == 6
    assert imagers_broker.handshakes == 1

def test_second_has_a_broker_of_its_own(imagers_broker):
    assert imagers_broker.admin.list_resources() == ()

def test_guest_of_a_tee_is_known_by_its_measurement(imagers_tee, imagers_broker):
    imagers_broker.put(URI, b"secret", image=IMAGE)
    imagers_broker.expect("snp_launch_measurement", imagers_tee.measurement.hex())
    with imagers_broker.client(imagers_tee.attester()) as client:
        with client.get(URI, manifest_digest=IMAGE) as secret:
            assert len(secret) == 6
    with imagers_broker.client(imagers_tee.attester(measurement=bytes(48))) as other:
        with pytest.raises(KeyRefused):
            other.get(URI, manifest_digest=IMAGE)

def test_registry_answers(imagers_registry):
    with urllib.request.urlopen(f"http://{imagers_registry.address}/v2/", timeout=10) as answer:
        assert answer.status == 200
"""

LIGHT = """
import sys
import imagers.testing.plugin
heavy = {"cryptography", "urllib3", "starlette", "uvicorn", "jwcrypto"}
heavy |= {"imagers.model", "tarfile", "zstandard"}
print(sorted(heavy & set(sys.modules)))
"""


def run_pytest(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "imagers.testing.plugin", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_fixtures_work_in_a_project_of_its_own(tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    done = run_pytest(tmp_path, "-W", "error", f"--basetemp={tmp_path / 'temp'}")
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def environment_without(folder, package):
    """A virtual environment that lends all packages but one from this one."""
    lent = Path(sysconfig.get_path("purelib"))
    lib = folder / "packages"
    lib.mkdir()
    for one in lent.iterdir():
        if not one.name.lower().replace("-", "_").startswith(package):
            (lib / one.name).symlink_to(one)
    return {**os.environ, "PYTHONPATH": f"{lib}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.mark.parametrize(
    ("package", "install"),
    [("starlette", "'.[broker]'"), ("imagers_sample_tee", "./plugins/sample_tee")],
)
def test_broker_that_cannot_be_had_skips_its_tests_with_one_line(tmp_path, package, install):
    (tmp_path / "test_it.py").write_text(TESTS)
    plugin = ["-p", "imagers.testing.plugin"]
    # The Python below this environment has none of the packages of it.
    done = subprocess.run(
        [sys._base_executable, "-m", "pytest", "-q", "-rs", *plugin, "test_it.py"],
        cwd=tmp_path,
        env=environment_without(tmp_path, package),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed, 3 skipped" in done.stdout, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all(install in line for line in told), told


def test_fixtures_are_listed_with_their_sentence(tmp_path):
    (tmp_path / "test_it.py").write_text("")
    out = run_pytest(tmp_path, "--fixtures").stdout
    assert "An empty registry on a free loopback port" in out
    assert "AMD for tests" in out
    assert "An empty broker on a free loopback port" in out


def test_importing_the_plugin_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"
