# SPDX-License-Identifier: Apache-2.0
"""Commands on a terminal: what is asked for, and what is not shown."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest

SECRET = "correct horse"
WITHIN = 60  # seconds


MIB = 1024**2
_CLEARED = re.compile(r"\r *\Z")


class Terminal:
    """A command that has a terminal of its own."""

    def __init__(self, words, *, cwd, env):
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(words[0], words, env)  # noqa: S606  # the words of a test
        self.shown = ""

    def _read(self):
        ready, _, _ = select.select([self._fd], [], [], 1)
        if not ready:
            return True
        try:
            data = os.read(self._fd, 4096)
        except OSError:  # the other end is closed
            return False
        self.shown += data.decode()
        return bool(data)

    def resize(self, columns):
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def waits_for(self, text):
        end = time.monotonic() + WITHIN
        while text not in self.shown:
            assert self._read(), self.shown
            assert time.monotonic() < end, self.shown

    def types(self, text, *, after):
        self.waits_for(after)
        time.sleep(0.05)  # what is typed before echo is off is thrown away
        self.shown = self.shown.partition(after)[2]
        os.write(self._fd, text.encode())

    def end(self):
        end = time.monotonic() + WITHIN
        while self._read():
            assert time.monotonic() < end, self.shown
        os.close(self._fd)
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal(imagers):
    def start(*words):
        return Terminal(imagers.words(*words), cwd=imagers.here, env=imagers.environment)

    return start


@pytest.fixture
def signed_with_a_passphrase(imagers, images, imagers_registry):
    """The words that sign an image with a key whose passphrase is not given."""
    (imagers.here / "pw").write_text(SECRET)
    imagers.succeed("key", "generate", "cosign", "--output", "s", "--passphrase-file", "pw")
    ref = f"{imagers_registry.address}/team/app:v1"
    imagers.succeed("copy", f"oci:{images.build()}", ref)
    return ("sign", ref, "--sign-by-sigstore-private-key", "s.key")


def test_passphrase_of_a_new_key_is_asked_for_twice_and_not_shown(terminal, imagers):
    with_terminal = terminal("key", "generate", "cosign", "--output", "new")
    with_terminal.types(f"{SECRET}\n", after="passphrase of the new key; empty for none: ")
    with_terminal.types(f"{SECRET}\n", after="passphrase of the new key, again: ")
    assert with_terminal.end() == 0, with_terminal.shown
    assert SECRET not in with_terminal.shown
    assert "warning" not in with_terminal.shown
    assert (imagers.here / "new.key").stat().st_mode & 0o777 == 0o600


def test_passphrase_that_was_not_given_is_asked_for(terminal, signed_with_a_passphrase):
    for typed, code, told in ((SECRET, 0, "signed sha256:"), ("wrong", 30, "does not open it")):
        asked = terminal(*signed_with_a_passphrase)
        prompt = "passphrase of --key 's.key': "
        asked.types(f"{typed}\n", after=prompt)
        assert asked.end() == code, asked.shown
        assert told in asked.shown
        assert typed not in asked.shown


def test_ctrl_c_at_the_question_ends_the_program(terminal, signed_with_a_passphrase):
    asked = terminal(*signed_with_a_passphrase)
    asked.types("\x03", after="--key 's.key': ")
    assert asked.end() == 130
    assert "Traceback" not in asked.shown


def test_nobody_is_asked_where_input_is_no_terminal(imagers, signed_with_a_passphrase):
    """Not the terminal behind a pipe either: this one has one, and gets no question."""
    read, write = os.pipe()
    os.write(write, b"correct horse\n")
    os.close(write)
    result = imagers(*signed_with_a_passphrase, stdin=read)
    os.close(read)
    assert result.code == 30
    assert result.error == ("--key 's.key': the key has a passphrase, and none was given")


def test_password_of_cosign_is_read(imagers, signed_with_a_passphrase):
    imagers.environment["COSIGN_PASSWORD"] = SECRET
    imagers.succeed(*signed_with_a_passphrase)
    imagers.environment["COSIGN_PASSWORD"] = "wrong"
    result = imagers(*signed_with_a_passphrase)
    assert (result.code, "COSIGN_PASSWORD does not open it" in result.error) == (30, True)
    assert "wrong" not in result.stderr


@pytest.mark.parametrize("kind", ["pem", "pgp"])
def test_password_of_a_decryption_key_is_asked_for(terminal, imagers, images, kind):
    if kind == "pem":
        imagers.succeed("key", "generate", "rsa", "--output", "r")
        seal = ["openssl", "pkey", "-in", "r.key", "-aes256", "-passout", f"pass:{SECRET}"]
        subprocess.run([*seal, "-out", "k"], cwd=imagers.here, check=True)
        recipient = "jwe:r.pub"
    else:
        imagers.environment["GNUPGHOME"] = str(imagers.home / "gpg")
        (imagers.home / "gpg").mkdir(mode=0o700)
        gpg = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", SECRET]
        make = ["--quick-generate-key", "alice@example.org", "rsa2048", "encrypt"]
        env = imagers.environment
        made = subprocess.run([*gpg, *make], env=env, capture_output=True, check=False)
        if made.returncode:  # some versions want a key that signs first
            make = ["--quick-generate-key", "alice@example.org", "default", "default"]
            subprocess.run([*gpg, *make], env=env, capture_output=True, check=True)
        export = ["--export-secret-keys", "alice@example.org"]
        out = subprocess.run([*gpg, *export], env=env, capture_output=True, check=True).stdout
        (imagers.here / "k").write_bytes(out)
        recipient = "pgp:alice@example.org"
    imagers.succeed("encrypt", f"oci:{images.build()}", "oci:e:v1", "--encryption-key", recipient)
    words = ("decrypt", "oci:e:v1", "oci:d:v1", "--decryption-key", "k")
    asked = terminal(*words)
    asked.types(f"{SECRET}\n", after="passphrase of --decryption-key k: ")
    assert asked.end() == 0, asked.shown
    assert SECRET not in asked.shown
    result = imagers(*words[:2], "oci:d2:v1", *words[3:])
    assert result.code == 30, result
    assert "none was given" in result.error
    assert "--decryption-key" in result.stderr


@pytest.fixture
def stalled_copy(terminal, images, stalling):
    """A copy on a terminal that has half of its last layer; and its registry."""
    tars = [images.tar((f"file{number}", os.urandom(2 * MIB))) for number in range(2)]
    registry = stalling(images.build(*tars))
    copying = terminal("copy", f"{registry.address}/team/app:v1", "oci:there:v1", "--jobs", "1")
    assert registry.reached.wait(WITHIN)
    copying.waits_for("MiB |")
    return copying, registry


def test_progress_bar_is_as_wide_as_the_terminal_and_gone_at_the_end(stalled_copy):
    copying, registry = stalled_copy
    copying.resize(60)
    registry.go_on.set()
    assert copying.end() == 0, copying.shown
    bar, _, result = copying.shown.rpartition("copied sha256:")
    *_, last = (line for line in bar.split("\r") if line.strip())
    assert last.startswith("copy 100% 4.0/4.0 MiB |")
    assert len(last) == 57
    assert _CLEARED.search(bar), copying.shown
    assert "layer" not in bar
    assert "3 blobs, 4.0 MiB" in result


def test_nothing_of_the_progress_bar_is_left_after_ctrl_c(stalled_copy):
    copying, _ = stalled_copy
    copying.types("\x03", after="MiB |")
    assert copying.end() == 130
    bar, _, rest = copying.shown.rpartition("\r\nimagers: error: interrupted")
    assert _CLEARED.search(bar), copying.shown
    assert not rest.strip()


def test_pull_says_what_it_does_before_it_has_layers(terminal, publish):
    pulling = terminal(*publish().pull())
    pulling.resize(70)
    assert pulling.end() == 0, pulling.shown
    for step in ("reads the manifest", "looks for signatures", "attests, asks for keys"):
        assert f"\rpull: {step}" in pulling.shown


def test_log_has_a_line_for_the_beginning_and_the_end_of_a_layer(imagers, images):
    tars = images.tar(("small", b"x")), images.tar(("big", os.urandom(2 * MIB)))
    words = ("--jobs", "1", "--encryption-key", f"jwe:{imagers.here}/r.pub")
    imagers.succeed("key", "generate", "rsa", "--output", "r")
    layout = images.build(*tars)
    for verb in (
        ("copy", f"oci:{layout}", "oci:copied:v1"),
        ("encrypt", f"oci:{layout}", "oci:sealed:v1", *words),
        ("decrypt", "oci:sealed:v1", "oci:clear:v1", "--decryption-key", "r.key"),
    ):
        told = imagers.succeed(*verb).stderr
        lines = [line for line in told.splitlines() if "layer" in line]
        assert lines[0].startswith("imagers: layer 2 of 2: 2.0 MiB"), verb
        assert re.fullmatch(r"imagers: layer 2 of 2: done in [0-9.]+ s", lines[1]), verb
        assert len(lines) == 2
        assert "\r" not in told


def test_quiet_shows_no_progress_and_verbose_shows_it_in_lines(terminal, images):
    layout = images.build(images.tar(("big", os.urandom(2 * MIB))))
    for option, lines in (("-q", 0), ("-v", 2)):
        copying = terminal("copy", option, f"oci:{layout}", f"oci:copied{option}:v1")
        assert copying.end() == 0, copying.shown
        assert "MiB |" not in copying.shown
        assert "\r" not in copying.shown.replace("\r\n", "")
        assert copying.shown.count("imagers: layer 1 of 1: ") == lines
        assert "copied sha256:" in copying.shown
