# SPDX-License-Identifier: Apache-2.0
"""The commands of the pages run as they stand there, and print what the pages say.

A block of `console` has commands after `$ ` and lines of what they print, each of which must come
in this order; `...` stands for any text. A command whose lines have an error in them must fail,
all others succeed. `registry.example.org` is an empty registry on this machine,
`broker.example.org` a name of it; `oci:app:v1` is an image. A program that runs until the end of
the page is started with `&`. Programs that the page needs stand after `console`.
"""

import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme

from imagers.testing import make_image, make_tar
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 60  # of one command
PEERS = ROOT / "build" / "peers" / "sid" / "usr" / "bin"  # what `make peers` brings
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:{PEERS}"
PORT = "8443"  # of the broker on the pages


def pages():
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(one.relative_to(ROOT)): one for one in found if "```console" in one.read_text()}


def steps(text):
    """The commands of a page with the lines that each of them prints."""
    found = []
    for block in re.findall(r"^```console.*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        is_open, until = False, None
        for line in block.splitlines():
            if is_open or until:
                found[-1][0] += f"\n{line}"
            elif line.startswith("$ "):
                found.append([line.removeprefix("$ "), []])
            else:
                found[-1][1].append(line)
                continue
            is_open = line.endswith("\\")
            if until == line:
                until = None
            elif here := re.search(r"<<(\w+)$", line):
                until = here[1]
    return found


def programs(text):
    """What a page runs besides imagers and the shell's own."""
    return {
        word
        for line in re.findall(r"^```console (.*)$", text, re.MULTILINE)
        for word in line.split()
    }


class Shell:
    """A bash that runs the commands of a page one after the other, and what they print."""

    def __init__(self, here, environment, port):
        self.here, self.port = here, port
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-m"],
            cwd=here,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command, expected=()):
        """What it printed, and its exit code.

        Args:
            expected: what a server says, which can come a moment after it listens.
        """
        is_server = command.endswith("&")
        if is_server:
            command = f"{command.removesuffix('&')} >server.log 2>&1 &"
        self.process.stdin.write(f"{command}\nprintf '\\n=%s=\\n' \"$?\"\n".encode())
        self.process.stdin.flush()
        lines = []
        for line in self.lines(command):
            if re.fullmatch(r"=\d+=\n", line):
                if is_server:
                    lines = [self.wait(expected)]
                return "".join(lines), int(line.strip("=\n"))
            lines.append(line)
        raise AssertionError(f"the shell ended in: {command}\n{''.join(lines)}")

    def lines(self, command):
        """What comes, until nothing has for too long."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            left = b""
            while selector.select(WITHIN_S):
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    return
                *whole, left = (left + data).split(b"\n")
                yield from (f"{line.decode()}\n" for line in whole)
        raise AssertionError(f"nothing came for {WITHIN_S} s after: {command}\n{left.decode()}")

    def wait(self, expected):
        """What a server has said, once it listens and has said what is expected."""
        log = self.here / "server.log"
        for _ in range(WITHIN_S * 10):
            with socket.socket() as probe:
                listens = probe.connect_ex(("127.0.0.1", self.port)) == 0
            if listens and missing_of(expected, said := log.read_text()) is None:
                return said
            time.sleep(0.1)
        return log.read_text()

    def close(self):
        # What it started is in its jobs, and ends with it.
        self.process.communicate(b"kill $(jobs -p) 2>/dev/null; wait; exit\n", timeout=WITHIN_S)


@pytest.fixture
def shell(tmp_path, imagers_registry):
    """A shell of a user without settings, with an image and the certificates of a server."""
    here, home = tmp_path / "here", tmp_path / "home"
    for one in (here, home / "config" / "containers"):
        one.mkdir(parents=True)
    make_image(make_tar(("etc/hostname", b"guest\n")), make_tar(("opt/app", b"app\n"))).save(
        here / "app"
    )
    authority = trustme.CA()
    authority.cert_pem.write_to_path(here / "ca.pem")
    for name in ("server", "renewed"):
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(here / f"{name}.key")
        for one in issued.cert_chain_pems:
            one.write_to_path(here / f"{name}.pem", append=True)
    (home / "registries.conf").write_text(
        f"[[registry]]\nlocation='{imagers_registry.address}'\ninsecure=true\n"
    )
    (home / "storage.conf").write_text(
        f'[storage]\ndriver="vfs"\nrunroot="{home}/run"\ngraphroot="{home}/graph"\n'
    )
    (home / "config" / "containers" / "policy.json").write_text(
        '{"default":[{"type":"insecureAcceptAnything"}]}'
    )
    environment = {
        "PATH": PATH,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_RUNTIME_DIR": str(home),
        "IMAGERS_STORE": str(home / "store"),
        "CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf"),
        "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        "PYTHONUNBUFFERED": "1",  # lines in the order of a terminal
        "LANG": "C.UTF-8",
    }
    one = Shell(here, environment, free_port())
    yield one
    one.close()


def spelt(text, shell, registry):
    """A text of a page, for this machine."""
    for name, value in (
        (f"broker.example.org:{PORT}", f"localhost:{shell.port}"),
        (f"0.0.0.0:{PORT}", f"127.0.0.1:{shell.port}"),
        ("registry.example.org", registry.address),
    ):
        text = text.replace(name, value)
    return text


def missing_of(expected, printed):
    """The first expected line that is not among those printed, in this order; or None."""
    rest = iter(printed.splitlines())
    for line in expected:
        pattern = re.escape(line).replace(r"\.\.\.", ".*")
        if not any(re.fullmatch(pattern, one.rstrip()) for one in rest):
            return line
    return None


def assert_printed(expected, printed, command):
    line = missing_of(expected, printed)
    assert line is None, f"$ {command}\nprinted:\n{printed}\nand not, in this order:\n{line}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", pages())
def test_commands_of_the_page_do_what_it_says(page, shell, imagers_registry):
    text = pages()[page].read_text()
    missing = sorted(one for one in programs(text) if not shutil.which(one, path=PATH))
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    for command, expected in steps(text):
        wanted = [spelt(line, shell, imagers_registry) for line in expected]
        printed, code = shell.run(spelt(command, shell, imagers_registry), wanted)
        assert_printed(wanted, printed, command)
        fails = any("error: " in line for line in expected)
        assert (code != 0) is fails, f"$ {command}\nexit code {code}:\n{printed}"


def test_commands_of_a_page_are_told_from_what_they_print():
    text = "x\n```console skopeo\n$ a \\\n  b\nout\n$ c <<E\nd\nE\n```\n\n```sh\nno\n```\n"
    assert steps(text) == [["a \\\n  b", ["out"]], ["c <<E\nd\nE", []]]
    assert programs(text) == {"skopeo"}
    with pytest.raises(AssertionError, match=r"in this order:\n *b"):
        assert_printed(["a ... c", "b"], "b\na x c\n", "x")
