# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of a test run: on loopback, in a directory of its own.

Debian's package `postgresql` has it; where it is not installed, tests that ask for it are skipped.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import psycopg
import pytest

from tests.ports import free_port

WAIT = 60
NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def programs():
    """The directory of the newest server that is installed, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: p.parts[4])
    return found[-1].parent if found else None


class Server:
    """A server whose data and socket are in a directory; root runs it as nobody.

    Attributes:
        process: so that a test can end it as a fall of the machine would.
    """

    def __init__(self):
        self._bin = programs()
        if self._bin is None:
            pytest.skip("no PostgreSQL is installed: apt-get install postgresql")
        # Not below pytest's directories, which only their owner may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="imagers-postgresql-"))
        self._as = []
        if os.geteuid() == 0:
            self._as = NOBODY
            shutil.chown(self._folder, "nobody", "nogroup")
        self._data = self._folder / "data"
        self._run("initdb", "-D", self._data, "-U", "imagers", "--auth=trust", "--no-sync")
        self.port = free_port()
        self.process = None
        self.start()

    def _run(self, program, *arguments):
        subprocess.run(
            [*self._as, self._bin / program, *arguments],
            cwd=self._folder,
            check=True,
            capture_output=True,
        )

    def start(self):
        self.process = subprocess.Popen(
            [
                *self._as, self._bin / "postgres", "-D", self._data, "-h", "127.0.0.1",
                "-p", str(self.port), "-k", self._folder,
            ],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        waiting = threading.Event()
        for _ in range(WAIT * 20):
            with contextlib.suppress(psycopg.Error):
                psycopg.connect(self.url("postgres")).close()
                return
            waiting.wait(0.05)
        raise AssertionError("PostgreSQL does not start")

    def url(self, database):
        return f"postgresql://imagers@127.0.0.1:{self.port}/{database}"

    def new_database(self, name):
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def fall(self):
        """All of its processes are gone at once, with nothing written any more."""
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for pid in (main, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(WAIT)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)  # at once: what it has, nobody needs
            self.process.wait(WAIT)
        shutil.rmtree(self._folder, ignore_errors=True)
