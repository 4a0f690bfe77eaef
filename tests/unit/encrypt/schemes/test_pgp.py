# SPDX-License-Identifier: Apache-2.0
"""OpenPGP keys by the real gpg; the user's keyring is a home of the test."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from imagers.encrypt.keyfiles import Password, load_decryption_file
from imagers.encrypt.schemes.pgp import PGPUnwrapper, PGPWrapper, _is_named
from imagers.errors import FormatError, KeyUnavailable, LocalError, UsageError
from imagers.model.keys import NotMine, SecretKey, UnwrapContext, WrapContext, WrappedKey

KEYS = Path(__file__).resolve().parents[3] / "vectors" / "ocicrypt" / "keys"
OPTIONS = b'{"symkey":"' + b"A" * 170 + b'"}'
CONTEXT = UnwrapContext("layer 1 of 1", None)

pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")


class Keyring:
    """A user's home of gpg; its path is short, as its agent's socket must be."""

    def __init__(self, path):
        self.path = path

    def gpg(self, *words, data=None):
        words = ["gpg", "--batch", "--quiet", "--homedir", self.path, *map(str, words)]
        return subprocess.run(words, input=data, capture_output=True, check=True, timeout=60).stdout

    def make(self, user_id, *words):
        words = words or ("default", "default", "never")
        self.gpg("--passphrase", "", "--quick-generate-key", user_id, *words)


@pytest.fixture(scope="module")
def keyring():
    path = tempfile.mkdtemp(prefix="gpg-")
    keyring = Keyring(path)
    for name in ("alice", "bob", "dave"):
        keyring.gpg("--import", KEYS / f"{name}.pub.gpg")
    keyring.make("Eve Curve (with a comment) <eve@example.com>", "future-default")
    keyring.make("Signs Only <signs@example.com>", "ed25519", "sign")
    keyring.make("Twice <twice@example.com>")
    keyring.make("Twice <other@example.com>")
    yield keyring
    subprocess.run(["gpgconf", "--homedir", path, "--kill", "all"], check=True, timeout=30)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def wrap(keyring):
    def wrap(*recipients):
        with PGPWrapper(recipients, user_home=keyring.path) as wrapper:
            return wrapper.wrap(SecretKey(OPTIONS), WrapContext("layer 1 of 1"))

    return wrap


def unwrap(path, packet, password=None):
    secret = None if password is None else Password("argument", SecretKey(password.encode()))
    keyring = load_decryption_file(str(path), secret)
    try:
        with PGPUnwrapper(keyring) as unwrapper:
            return unwrapper.unwrap(WrappedKey("pgp", packet), CONTEXT)
    finally:
        keyring.close()


def test_wrap_for_several_opens_for_each(wrap):
    packet = wrap("alice@example.com", "Bob Example")
    assert unwrap(KEYS / "alice.sec.gpg", packet) == SecretKey(OPTIONS)
    assert unwrap(KEYS / "bob.sec.gpg", packet) == SecretKey(OPTIONS)
    with pytest.raises(NotMine, match="no secret key"):
        unwrap(KEYS / "mallory.sec.gpg", packet)


def test_wrap_for_curve_keys_and_by_each_way_to_name_one(wrap, keyring, tmp_path):
    secret = tmp_path / "eve.asc"
    secret.write_bytes(keyring.gpg("--armor", "--export-secret-keys", "eve@example.com"))
    listed = keyring.gpg("--with-colons", "--list-keys", "eve@example.com").decode()
    fingerprint = listed.partition("fpr:")[2].split(":")[8]
    for name in (
        "eve@example.com",
        "Eve Curve",
        "Eve Curve (with a comment) <eve@example.com>",
        fingerprint,
        fingerprint.lower(),
    ):
        assert unwrap(secret, wrap(name)) == SecretKey(OPTIONS)


@pytest.mark.parametrize(
    ("uid", "names"),
    [
        ("Alice Example (work) <alice@example.org>", ["Alice Example", "alice@example.org"]),
        ("Alice <alice@example.org>", ["Alice", "alice@example.org"]),
        ("<alice@example.org>", ["alice@example.org"]),
        ("alice@example.org", ["alice@example.org"]),
        ("  Alice  (a) (b) ", ["Alice"]),
        ("Alice (a <b>) <c>", ["Alice", "c"]),
        ("Alice) <c>", ["Alice)", "c"]),
        ("Alice <c> more", []),
        ("Alice (a) more <c>", []),
        ("Alice (a", []),
        ("Alice <a> <c>", []),
    ],
)
def test_user_id_has_a_name_and_an_email(uid, names):
    for name in [
        "Alice",
        "Alice Example",
        "alice@example.org",
        "work",
        "a",
        "b",
        "c",
        "",
        "Alice)",
    ]:
        assert _is_named(uid, name) is (name in names)
    assert _is_named(uid, uid)


@pytest.mark.parametrize("start", ["", "a", "a ("])
@pytest.mark.parametrize("unit", [" ", ") ", " (", "<", "> "])
def test_user_id_of_any_text_is_read_in_proportion(start, unit):
    """400 blanks took 16 seconds, and any key in the keyring can have them."""
    for end in ("", "<", "<x", ">"):
        assert not _is_named(start + unit * 100_000 + end, "alice")


def test_packet_is_one_that_ocicrypt_reads(wrap, keyring):
    """Tag 1 version 3 for each recipient, then SEIPD version 1 (tag 18), nothing else."""
    packet = wrap("alice@example.com", "bob@example.com")
    words = ["gpg", "--batch", "--homedir", keyring.path, "--list-packets"]
    listed = subprocess.run(words, input=packet, capture_output=True, check=False, timeout=30)
    lines = [line for line in listed.stdout.decode().splitlines() if line.startswith(":")]
    assert [line.split(":")[1] for line in lines] == ["pubkey enc packet"] * 2 + [
        "encrypted data packet"
    ]
    assert b"mdc_method: 2" in listed.stdout


@pytest.mark.parametrize(
    ("password", "message"),
    [("wrong", "the passphrase does not open the key"), (None, "has a passphrase, and none was")],
)
def test_unwrap_with_a_wrong_or_no_passphrase_says_so(wrap, password, message):
    packet = wrap("dave@example.com")
    with pytest.raises(KeyUnavailable, match=message):
        unwrap(KEYS / "dave.sec.gpg", packet, password)
    assert unwrap(KEYS / "dave.sec.gpg", packet, "pgp secret") == SecretKey(OPTIONS)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nobody@example.com", KeyUnavailable, "no key of 'nobody@example.com'"),
        ("alice", KeyUnavailable, "no key of 'alice'"),
        ("example.com", KeyUnavailable, "no key of 'example.com'"),
        ("signs@example.com", KeyUnavailable, "without a subkey for encryption"),
        ("Twice", UsageError, "'Twice' could be 2 keys"),
    ],
)
def test_wrap_for_somebody_who_is_no_recipient_raises(wrap, name, error, message):
    with pytest.raises(error, match=message):
        wrap("bob@example.com", name)


@pytest.mark.parametrize("kind", ["plain", "changed", "cut", "none", "armored noise", "bomb"])
def test_unwrap_of_a_message_that_is_not_good_is_not_mine(wrap, keyring, kind):
    packet = wrap("alice@example.com")
    if kind == "plain":  # gpg prints what such a message holds, and it is no answer
        packet = keyring.gpg("--store", "--compress-algo", "none", data=OPTIONS)
    elif kind == "changed":
        packet = packet[:-30] + bytes(byte ^ 1 for byte in packet[-30:])
    elif kind == "cut":
        packet = packet[:-10]
    elif kind == "bomb":
        words = ("--encrypt", "--trust-model", "always", "--compress-algo", "zlib")
        packet = keyring.gpg(*words, "-r", "alice@example.com", data=bytes(10_000_000))
    else:
        packet = b"" if kind == "none" else b"-----BEGIN PGP MESSAGE-----\n\nxx\n"
    with pytest.raises(NotMine):
        unwrap(KEYS / "alice.sec.gpg", packet)


def test_unwrapper_of_a_file_without_secret_keys_raises():
    keyring = load_decryption_file(str(KEYS / "alice.pub.gpg"))
    with pytest.raises(FormatError, match="holds no OpenPGP secret key"):
        PGPUnwrapper(keyring)


def test_homes_are_private_short_and_gone_afterwards(wrap):
    """Its agent is ended too, and nothing of the keys stays."""
    keyring = load_decryption_file(str(KEYS / "alice.sec.gpg"))
    with PGPUnwrapper(keyring) as unwrapper:
        unwrapper.unwrap(WrappedKey("pgp", wrap("alice@example.com")), CONTEXT)
        home = unwrapper._home.path
        assert os.stat(home).st_mode & 0o777 == 0o700
        assert len(home + "/S.gpg-agent.browser") < 108
        asked = subprocess.run(
            ["gpg-connect-agent", "--homedir", home, "--no-autostart", "getinfo pid", "/bye"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        pid = int(asked.stdout.split()[1])
    assert not os.path.exists(home)
    # It was told to end; that it does takes the kernel a moment.
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_without_gpg_the_message_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LocalError, match="gpg does not start"):
        PGPWrapper(["alice@example.com"])
