# SPDX-License-Identifier: Apache-2.0
"""Commands on a terminal: what is asked for, and what is not shown."""

import os
import pty
import select
import subprocess
import time

import pytest

SECRET = "correct horse"
WITHIN = 60  # seconds


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

    def types(self, text, *, after):
        end = time.monotonic() + WITHIN
        while after not in self.shown:
            assert self._read(), self.shown
            assert time.monotonic() < end, self.shown
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
