# SPDX-License-Identifier: Apache-2.0
"""docker-registry as the system has it, and the programs that `make peers` brings."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

PEERS = Path(__file__).resolve().parents[2] / "build" / "peers"
for name, program in (
    ("IMAGERS_COSIGN", "trixie/usr/bin/cosign"),
    ("IMAGERS_COSIGN3", "sid/usr/bin/cosign"),
    ("IMAGERS_NOTATION", "sid/usr/bin/notation"),
):
    if (PEERS / program).exists():
        os.environ.setdefault(name, str(PEERS / program))


class DockerRegistry:
    """A docker-registry on a free port, with its storage in a directory.

    Args:
        certificate: of its TLS, key and chain in one file; None: plain http.
        htpasswd: text of such a file.
        sections: of its configuration, as `auth` and `proxy`.
    """

    def __init__(self, directory, *, certificate=None, htpasswd=None, **sections):
        directory.mkdir()
        self.data = directory / "data"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address},
            **sections,
        }
        scheme, context = "http", None
        if certificate is not None:
            config["http"]["tls"] = {name: str(certificate) for name in ("certificate", "key")}
            scheme, context = "https", ssl._create_unverified_context()  # noqa: S323  # a probe
        if htpasswd is not None:
            (directory / "htpasswd").write_text(htpasswd)
            config["auth"] = {"htpasswd": {"realm": "x", "path": str(directory / "htpasswd")}}
        self.url = f"{scheme}://{self.address}"
        # JSON is YAML.
        (directory / "conf.yml").write_text(json.dumps(config))
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "conf.yml")],
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._wait(context, directory / "log")
        except BaseException:
            self.stop()
            raise

    def _wait(self, context, log):
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/v2/", context=context, timeout=10).close()
            except urllib.error.HTTPError as error:
                error.close()
                return
            except OSError:
                assert self._process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def start_docker_registry(tmp_path_factory):
    """A function: start one that runs until the module's last test."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed")
    running = []

    def start(**options):
        directory = tmp_path_factory.mktemp("docker-registry") / "r"
        running.append(DockerRegistry(directory, **options))
        return running[-1]

    yield start
    for one in reversed(running):
        one.stop()


@pytest.fixture(scope="module")
def docker_registry(start_docker_registry):
    """One that everybody may read and write."""
    return start_docker_registry()
