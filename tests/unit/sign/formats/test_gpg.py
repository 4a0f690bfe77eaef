# SPDX-License-Identifier: Apache-2.0
"""What gpg says, and what is made of it; each attack names the step of gpg.py."""

import json
import os
import shutil
from pathlib import Path

import pytest

from imagers.errors import FormatError, KeyUnavailable, LocalError, UsageError
from imagers.model.identity import docker_identity
from imagers.model.keys import SecretKey
from imagers.model.reference import parse_reference
from imagers.sign.formats import gpg as module
from imagers.sign.formats.gpg import (
    MAX_BLOB_BYTES,
    Keyring,
    export_key,
    parse_fingerprint,
    read_simple_signatures,
    sign_simple,
)
from imagers.sign.found import Found, SimpleSignature
from imagers.sign.materials import load_trust
from imagers.sign.policy_json import parse_policy

PAYLOAD = b'{"critical":{}}'
YEAR_AGO = "20251101T000000"
FPR = "0123456789ABCDEF0123456789ABCDEF01234567"
OTHER = "F" * 40
GOOD = [
    ["PLAINTEXT", "62", "1", ""],
    ["NEWSIG"],
    ["GOODSIG", FPR[-16:], "x"],
    ["VALIDSIG", FPR, "d", "1", "0", "4", "0", "1", "10", "00", FPR],
]


def read(home, blob, *fingerprints):
    with Keyring([("key", home.export(*fingerprints))]) as keyring:
        return keyring.read(blob)


def test_keyring_gives_the_payload_and_the_signer(gpg_home):
    blob = gpg_home.sign(gpg_home.alice, PAYLOAD)
    reading = read(gpg_home, blob, gpg_home.alice)
    assert (reading.payload, reading.fingerprint) == (PAYLOAD, gpg_home.alice)
    both = read(gpg_home, blob, gpg_home.bob, gpg_home.alice)
    assert both.fingerprint == gpg_home.alice


def test_keyring_leaves_nothing_behind_and_ends_its_agents(gpg_home):
    with Keyring([("key", gpg_home.export(gpg_home.alice))]) as keyring:
        home = keyring._home.path
        assert os.stat(home).st_mode & 0o777 == 0o700
        assert len(home) + len("/S.gpg-agent.browser") < 108
        assert not [name for name in os.listdir(home) if name.startswith("S.")]
    assert not os.path.exists(home)
    with pytest.raises(RuntimeError):
        keyring.read(b"\xa3")


def test_keyring_knows_only_its_own_keys(gpg_home):
    """Step 4: the user's keyring has the key, the policy does not."""
    reading = read(gpg_home, gpg_home.sign(gpg_home.alice, PAYLOAD), gpg_home.bob)
    assert reading.payload is None
    assert "not among the trusted ones" in reading.refusal


def test_keyring_counts_a_subkey_as_its_primary_key(gpg_home):
    primary = gpg_home.new_key("subkeys", usage="cert")
    gpg_home.gpg(
        "--passphrase", "", "--pinentry-mode", "loopback", "--quick-add-key", primary,
        "ed25519", "sign", "never",
    )  # fmt: skip
    reading = read(gpg_home, gpg_home.sign(primary, PAYLOAD), primary)
    assert reading.fingerprint == primary


def blobs(home):
    """What must not be accepted, by its sentence: the blob, the keys, a piece of the refusal."""
    alice = home.alice
    soon = home.sign(alice, PAYLOAD, "--default-sig-expire", "1d", at=YEAR_AGO)
    good = home.sign(alice, PAYLOAD)
    yield "signature expired", soon, [alice], "signature is expired"
    expired = home.new_key("expired", at=YEAR_AGO, expire="10d")
    yield "key expired", home.sign(expired, PAYLOAD, at=YEAR_AGO), [expired], "key that made"
    revoked = home.new_key("revoked")
    blob = home.sign(revoked, PAYLOAD)
    certificate = home.path / "openpgp-revocs.d" / f"{revoked}.rev"
    home.gpg("--import", data=certificate.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    yield "key revoked", blob, [revoked], "revoked"
    two = home.gpg("--local-user", alice, "--local-user", home.bob, "--sign", data=PAYLOAD)
    yield "two signatures by trusted keys", two, [alice, home.bob], "got 2"
    yield "two signatures, one unknown", two, [alice], "not among the trusted"
    yield "armored", home.sign(alice, PAYLOAD, "--armor"), [alice], "expected a binary"
    clear = home.gpg("--local-user", alice, "--clearsign", data=PAYLOAD)
    yield "cleartext", clear, [alice], "expected a binary"
    detached = home.gpg("--local-user", alice, "--detach-sign", data=PAYLOAD)
    yield "detached", detached, [alice], ""
    yield "literal without a signature", home.gpg("--store", data=PAYLOAD), [alice], "got 0"
    words = ("--passphrase", "x", "--pinentry-mode", "loopback", "--symmetric")
    yield "encrypted", home.gpg(*words, data=PAYLOAD), [alice], "encrypted"
    yield "SHA-1", home.sign(alice, PAYLOAD, "--digest-algo", "SHA1"), [alice], ""
    yield "flipped bit", good[:-3] + bytes([good[-3] ^ 1]) + good[-2:], [alice], ""
    yield "truncated", good[:-9], [alice], ""
    yield "empty", b"", [alice], "expected a binary"
    yield "noise", b"\xff" * 300, [alice], ""
    yield "too long", b"\xa3" + bytes(MAX_BLOB_BYTES), [alice], "expected at most"
    yield "bomb", home.sign(alice, bytes(1 << 20)), [alice], ""


def test_keyring_refuses_every_other_message(gpg_home):
    """Steps 1 to 5, over real messages."""
    seen = 0
    for name, blob, keys, piece in blobs(gpg_home):
        reading = read(gpg_home, blob, *keys)
        assert reading.payload is None, name
        assert reading.failed is None, name
        assert piece in reading.refusal, (name, reading.refusal)
        seen += 1
    assert seen == 17


@pytest.mark.parametrize("tail", [b"", b"tail", "again", "other"])
def test_keyring_of_what_follows_a_message_never_gives_that(gpg_home, tail):
    """gpg ends at the end of a compressed message: its payload is the one that was signed."""
    good = gpg_home.sign(gpg_home.alice, PAYLOAD)
    more = {"again": good, "other": gpg_home.sign(gpg_home.alice, b"other")}
    reading = read(gpg_home, good + more.get(str(tail), tail), gpg_home.alice)
    assert reading.payload in (PAYLOAD, None)


def change(word, position, value):
    lines = [list(line) for line in GOOD]
    for line in lines:
        if line[0] == word:
            line[position] = value
    return lines


@pytest.mark.parametrize(
    ("name", "lines", "code"),
    [
        ("a second VALIDSIG", [*GOOD, GOOD[3]], 0),
        ("a second text", [GOOD[0], *GOOD], 0),
        ("a second NEWSIG", [GOOD[1], *GOOD], 0),
        ("no GOODSIG", [GOOD[0], GOOD[1], GOOD[3]], 0),
        ("no VALIDSIG", GOOD[:3], 0),
        ("expired beside good", [*GOOD, ["EXPSIG", "1"]], 0),
        ("expired key beside good", [*GOOD, ["EXPKEYSIG", "1"]], 0),
        ("revoked beside good", [*GOOD, ["REVKEYSIG", "1"]], 0),
        ("error beside good", [*GOOD, ["ERRSIG", "1"]], 0),
        ("bad beside good", [*GOOD, ["BADSIG", "1"]], 0),
        ("an unknown word", [*GOOD, ["SOMETHING_NEW"]], 0),
        ("a failure", GOOD, 2),
        ("no exit code", GOOD, None),
        ("another primary key", change("VALIDSIG", 10, OTHER), 0),
        ("a short VALIDSIG", [*GOOD[:3], GOOD[3][:9]], 0),
        ("SHA-1", change("VALIDSIG", 8, "2"), 0),
        ("MD5", change("VALIDSIG", 8, "1"), 0),
        ("a text signature", change("VALIDSIG", 9, "01"), 0),
        ("nothing", [], 0),
    ],
)
def test_keyring_judges_status_lines_strictly(name, lines, code):
    keyring = Keyring([])
    keyring.fingerprints = frozenset({FPR})
    assert keyring._judge(GOOD, 0, PAYLOAD).payload == PAYLOAD
    assert keyring._judge(lines, code, PAYLOAD).payload is None, name


def test_keyring_keys_that_share_a_short_id_are_told_apart():
    """Step 4: the whole primary fingerprint counts, not its last 16 digits."""
    keyring = Keyring([])
    keyring.fingerprints = frozenset({"A" * 24 + FPR[24:]})
    reading = keyring._judge(GOOD, 0, PAYLOAD)
    assert reading.payload is None
    assert FPR in reading.refusal


@pytest.mark.parametrize("data", [b"", b"no key", b"\x99\x01\x0d\x04"])
def test_keyring_of_what_is_no_key_is_refused(gpg_home, data):
    assert gpg_home.path.is_dir()
    with pytest.raises(FormatError) as caught, Keyring([("key file 'x'", data)]):
        pass
    assert caught.value.what == "key file 'x'"
    assert "OpenPGP public keys" in str(caught.value)


def test_sign_simple_is_read_back(gpg_home):
    key = export_key(gpg_home.alice, home=gpg_home.path)
    with Keyring([("key", key)]) as keyring:
        blob = sign_simple(PAYLOAD, gpg_home.alice, keyring, home=gpg_home.path)
        assert keyring.read(blob).payload == PAYLOAD


def test_sign_simple_with_a_second_signer_in_the_configuration_is_refused(gpg_home):
    config = gpg_home.path / "gpg.conf"
    config.write_text(f"local-user {gpg_home.bob}\nlocal-user {gpg_home.alice}\n")
    try:
        with (
            Keyring([("key", export_key(gpg_home.alice, home=gpg_home.path))]) as keyring,
            pytest.raises(KeyUnavailable),
        ):
            sign_simple(PAYLOAD, gpg_home.alice, keyring, home=gpg_home.path)
    finally:
        config.unlink()


def test_sign_simple_with_a_passphrase_and_with_a_wrong_one(gpg_home):
    locked = gpg_home.new_key("locked", passphrase="pa s")
    gpg_home.close()  # the agent remembers
    with Keyring([("key", export_key(locked, home=gpg_home.path))]) as keyring:
        with SecretKey(b"wrong") as wrong, pytest.raises(KeyUnavailable) as caught:
            sign_simple(PAYLOAD, locked, keyring, passphrase=wrong, home=gpg_home.path)
        assert "wrong" not in str(caught.value)
        with SecretKey(b"pa s") as right:
            assert sign_simple(PAYLOAD, locked, keyring, passphrase=right, home=gpg_home.path)


def test_export_of_a_key_that_is_not_there_is_refused(gpg_home):
    with pytest.raises(KeyUnavailable, match="has no key"):
        export_key(OTHER, home=gpg_home.path)


def test_fingerprint_is_normalised():
    assert parse_fingerprint(" ".join([FPR[i : i + 4] for i in range(0, 40, 4)])) == FPR
    assert parse_fingerprint("0x" + FPR.lower()) == FPR


@pytest.mark.parametrize("text", ["", "alice", FPR[-16:], FPR[-8:], FPR + "0", "-" * 40, "--x"])
def test_fingerprint_that_several_keys_could_have_is_refused(text):
    with pytest.raises(UsageError, match="40 hex digits"):
        parse_fingerprint(text)


def trust_of(tmp_path, data):
    (tmp_path / "k").write_bytes(data)
    requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(tmp_path / "k")}
    policy = parse_policy(json.dumps({"default": [requirement]}).encode())
    identity = docker_identity(parse_reference("r.example/a:1"))
    return load_trust(policy.select(identity), lambda path: Path(path).read_bytes())


def test_read_simple_signatures_asks_for_each_requirement(gpg_home, tmp_path):
    trust = trust_of(tmp_path, gpg_home.export(gpg_home.alice))
    found = Found((SimpleSignature(gpg_home.sign(gpg_home.alice, PAYLOAD), "here"),))
    (signature,) = read_simple_signatures(trust, found).signatures
    assert signature.readings["$.default[0]"].payload == PAYLOAD
    assert signature.place == "here"


def test_read_simple_signatures_of_none_does_not_start_gpg(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PrivateHome", None)
    assert read_simple_signatures(trust_of(tmp_path, b"x"), Found()) == Found()


def test_read_simple_signatures_without_gpg_is_could_not_look(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("gpg") is None
    found = read_simple_signatures(trust_of(tmp_path, b"x"), Found((SimpleSignature(b"\xa3"),)))
    failed = found.signatures[0].readings["$.default[0]"].failed
    assert isinstance(failed, LocalError)
    assert "gpg does not start" in str(failed)
