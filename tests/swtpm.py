# SPDX-License-Identifier: Apache-2.0
"""A TPM 2.0 in software: swtpm, with a certificate of its endorsement key and a device of its own.

Debian's packages `swtpm swtpm-tools tpm2-tools` have it; where they are not installed, tests that
ask for it are skipped.
"""

import os
import shutil
import socket
import subprocess
import threading
import tty
from pathlib import Path

import pytest

PROGRAMS = ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2_quote")
WAIT = 60


class SoftwareTPM:
    """A TPM whose state, sockets and authority are in a directory.

    Attributes:
        authorities: PEM, of who signed the certificate of its endorsement key.
        tcti: what programs of tpm2-tools are told with TPM2TOOLS_TCTI.
    """

    def __init__(self, directory):
        absent = [one for one in PROGRAMS if shutil.which(one) is None]
        if absent:
            pytest.skip(
                f"{', '.join(absent)} not installed: apt-get install swtpm swtpm-tools tpm2-tools"
            )
        self.directory = Path(directory)
        self._setup()
        path = self.directory / "s"
        self.tcti = f"swtpm:path={path}"
        self._process = subprocess.Popen(
            [
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.directory / 'state'}",
                "--server", f"type=unixio,path={path}", "--ctrl", f"type=unixio,path={path}.ctrl",
                "--flags", "not-need-init,startup-clear",
                "--pid", f"file={self.directory / 'pid'}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._path = path
        waiting = threading.Event()
        for _ in range(WAIT * 20):
            if path.exists() and (self.directory / "pid").exists():
                return
            waiting.wait(0.05)
        self.stop()
        raise AssertionError("swtpm does not start")

    def _setup(self):
        """The state, with an endorsement key that an authority of our own has certified."""
        here = self.directory
        (here / "state").mkdir(parents=True)
        (here / "ca").mkdir()
        (here / "ca.conf").write_text(
            f"statedir = {here}/ca\n"
            f"signingkey = {here}/ca/key.pem\n"
            f"issuercert = {here}/ca/issuer.pem\n"
            f"certserial = {here}/ca/serial\n"
        )
        (here / "ca.options").write_text(
            "--platform-manufacturer tests\n--platform-version 1\n--platform-model tests\n"
        )
        (here / "setup.conf").write_text(
            "create_certs_tool = /usr/bin/swtpm_localca\n"
            f"create_certs_tool_config = {here}/ca.conf\n"
            f"create_certs_tool_options = {here}/ca.options\n"
        )
        subprocess.run(
            [
                "swtpm_setup", "--tpm2", "--tpmstate", str(here / "state"), "--config",
                str(here / "setup.conf"), "--create-ek-cert", "--lock-nvram", "--overwrite",
                "--logfile", str(here / "setup.log"),
            ],
            check=True, timeout=WAIT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.authorities = (here / "ca" / "issuer.pem").read_bytes()

    def connect(self):
        """A `transmit`, and what closes it."""
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(WAIT)
        line.connect(str(self._path))
        return Line(line)

    def tool(self, name, *words, **given):
        """Run a program of tpm2-tools; its output.

        There is no resource manager: what is left in the TPM's few places is removed.
        """
        try:
            return self._run(name, *words, **given)
        finally:
            self._run("flushcontext", "-t")

    def _run(self, name, *words, **given):
        done = subprocess.run(
            [f"tpm2_{name}", *map(str, words)],
            cwd=self.directory,
            env={**os.environ, "TPM2TOOLS_TCTI": self.tcti},
            capture_output=True,
            timeout=WAIT,
            check=False,
            **given,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def stop(self):
        self._process.terminate()
        self._process.wait(WAIT)


class Line:
    """A connection: called with a command, it gives the answer."""

    def __init__(self, line):
        self._line = line
        self.commands = []

    def __call__(self, command):
        self.commands.append(int.from_bytes(command[6:10]))
        self._line.sendall(command)
        answer = b""
        while len(answer) < 10 or len(answer) < int.from_bytes(answer[2:6]):
            piece = self._line.recv(4096)
            assert piece
            answer += piece
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._line.close()


class Device:
    """A file that is a TPM's device: what is written to it goes to the TPM, which answers in it."""

    def __init__(self, tpm):
        self._outer, self._inner = os.openpty()
        tty.setraw(self._inner)
        self.path = Path(os.ttyname(self._inner))
        self._line = tpm.connect()
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self):
        while True:
            command = b""
            while len(command) < 10 or len(command) < int.from_bytes(command[2:6]):
                try:
                    piece = os.read(self._outer, 4096)
                except OSError:
                    return
                if piece == b"":
                    return
                command += piece
            answer = self._line(command)
            while answer:
                answer = answer[os.write(self._outer, answer) :]

    def close(self):
        os.close(self._inner)
        self._thread.join(WAIT)
        os.close(self._outer)
        self._line.__exit__()


def start(directory):
    """A TPM for the tests of a module; a generator for a fixture."""
    tpm = SoftwareTPM(directory)
    try:
        yield tpm
    finally:
        tpm.stop()
