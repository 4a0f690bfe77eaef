# SPDX-License-Identifier: Apache-2.0
"""What is given away and must be known again. Expected MACs are computed here, field by field."""

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from imagers.broker.challenges import Challenges, Ticket
from imagers.model.base64 import decode_base64url, encode_base64url

MASTER = bytearray(range(32))
STORE = b"s" * 16
EXPIRES = 1_793_000_000_123
SESSION = bytes(range(16))


@pytest.fixture(scope="module")
def challenges():
    return Challenges(MASTER, STORE)


@pytest.fixture(scope="module")
def issued(challenges):
    cookie, nonce = challenges.issue("sample", algorithm="sha384", expires_ms=EXPIRES)
    return challenges.open_cookie(cookie), cookie, nonce


def mac(label, *fields):
    key = HKDF(hashes.SHA256(), 32, None, label).derive(bytes(MASTER))
    text = b"".join(len(one).to_bytes(4, "big") + one for one in (label, *fields))
    return hmac.digest(key, text, "sha256")


def test_cookie_is_what_the_module_says():
    """Another broker of this store, of a later version, must know it."""
    challenges = Challenges(MASTER, STORE)
    expires = EXPIRES.to_bytes(8, "big")
    said = SESSION + expires + b"\x03snp\x06sha384"
    tag = mac(b"imagers-broker cookie v1", STORE, b"0.4.0", SESSION, expires, b"snp", b"sha384")
    assert challenges.open_cookie(encode_base64url(said + tag)) == Ticket(
        SESSION, "snp", "sha384", EXPIRES
    )


def test_nonce_is_what_the_module_says():
    challenges = Challenges(MASTER, STORE)
    random = b"r" * 16
    expires = EXPIRES.to_bytes(8, "big")
    tag = mac(
        b"imagers-broker nonce v1",
        STORE,
        b"0.4.0",
        b"snp",
        b"sha384",
        SESSION,
        expires,
        random,
    )
    nonce = base64.b64encode(random + tag[:16]).decode()
    assert challenges.is_nonce_of(Ticket(SESSION, "snp", "sha384", EXPIRES), nonce)


def test_issued_cookie_says_what_it_was_issued_for(issued):
    ticket, cookie, nonce = issued
    assert (ticket.tee, ticket.algorithm, ticket.expires_ms) == ("sample", "sha384", EXPIRES)
    assert len(ticket.session_id) == 16
    assert len(base64.b64decode(nonce)) == 32
    assert set(cookie) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def test_issued_pairs_share_nothing(challenges):
    pairs = [challenges.issue("sample", algorithm="sha384", expires_ms=EXPIRES) for _ in range(50)]
    assert len({cookie for cookie, _ in pairs}) == len({nonce for _, nonce in pairs}) == 50
    assert len({challenges.open_cookie(cookie).session_id for cookie, _ in pairs}) == 50
    assert len({base64.b64decode(nonce)[:16] for _, nonce in pairs}) == 50


def test_cookie_of_the_longest_name_fits_where_clients_look(challenges):
    """Clients of ours, and older ones, take 128 characters."""
    cookie, _ = challenges.issue("a" * 32, algorithm="sha384", expires_ms=EXPIRES)
    assert len(cookie) == 128


def test_ticket_prints_its_name_and_not_its_id(issued):
    ticket = issued[0]
    assert ticket.name == hashlib.sha256(ticket.session_id).hexdigest()
    assert repr(ticket) == f"Ticket({ticket.name[:12]}, tee='sample')"


def test_nonce_is_of_its_ticket_only(challenges, issued):
    ticket, _, nonce = issued
    assert challenges.is_nonce_of(ticket, nonce)
    for other in (
        replace(ticket, session_id=bytes(16)),
        replace(ticket, tee="snp"),
        replace(ticket, algorithm="sha512"),
        replace(ticket, expires_ms=EXPIRES + 1),
    ):
        assert not challenges.is_nonce_of(other, nonce)


def test_fields_cannot_be_moved_into_each_other(challenges, issued):
    """`sample` and `sha384` are not `samples` and `ha384`."""
    ticket, _, nonce = issued
    assert not challenges.is_nonce_of(replace(ticket, tee="samples", algorithm="ha384"), nonce)
    said = ticket.session_id + EXPIRES.to_bytes(8, "big") + b"\x07samples\x05ha384"
    data = decode_base64url(issued[1], what="cookie")
    assert challenges.open_cookie(encode_base64url(said + data[-32:])) is None


@pytest.mark.parametrize(
    "other",
    [
        Challenges(MASTER, b"t" * 16),
        Challenges(bytearray(32), STORE),
    ],
    ids=["another store", "another master key"],
)
def test_of_another_store_or_key_nothing_is_taken(issued, other):
    ticket, cookie, nonce = issued
    assert other.open_cookie(cookie) is None
    assert not other.is_nonce_of(ticket, nonce)


def test_of_another_process_of_the_store_all_is_taken(issued):
    ticket, cookie, nonce = issued
    other = Challenges(bytearray(MASTER), bytes(STORE))
    assert other.open_cookie(cookie) == ticket
    assert other.is_nonce_of(ticket, nonce)


@given(at=st.integers(0, 31), by=st.integers(1, 255))
def test_nonce_with_any_byte_changed_refused(challenges, issued, at, by):
    data = bytearray(base64.b64decode(issued[2]))
    data[at] ^= by
    assert not challenges.is_nonce_of(issued[0], base64.b64encode(data).decode())


@given(at=st.integers(0, 76), by=st.integers(1, 255))
def test_cookie_with_any_byte_changed_refused(challenges, issued, at, by):
    data = bytearray(decode_base64url(issued[1], what="cookie"))
    data[at % len(data)] ^= by
    assert challenges.open_cookie(encode_base64url(bytes(data))) is None


@given(st.integers(0, 102))
def test_cookie_cut_anywhere_refused(challenges, issued, length):
    assert challenges.open_cookie(issued[1][: min(length, len(issued[1]) - 1)]) is None


@given(st.text(max_size=140))
def test_text_of_strangers_is_no_cookie_and_no_nonce(challenges, issued, text):
    assert challenges.open_cookie(text) is None
    assert not challenges.is_nonce_of(issued[0], text)


@given(st.binary(max_size=100))
def test_bytes_of_strangers_are_no_cookie(challenges, data):
    assert challenges.open_cookie(encode_base64url(data)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda nonce: nonce[:-1],
        lambda nonce: nonce + "=",
        lambda nonce: nonce.rstrip("="),
        lambda nonce: nonce + "\n",
        lambda nonce: " " + nonce[:-1],
        lambda nonce: nonce[:-2] + chr(ord(nonce[-2]) + 1) + "=",
        lambda nonce: nonce.replace("=", "\u00e9"),
        lambda nonce: nonce[:0],
        lambda nonce: nonce[:40] + "A===",
    ],
    ids=range(9),
)
def test_nonce_in_another_spelling_refused(challenges, issued, change):
    """Rows are unique by the text: two spellings would be two sessions."""
    ticket, _, nonce = issued
    assert not challenges.is_nonce_of(ticket, change(nonce))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        SESSION,
        SESSION + bytes(8),
        SESSION + bytes(8) + b"\x06sha384",
        SESSION + bytes(8) + b"\x03snp\x07sha384",
        SESSION + bytes(8) + b"\x03snp\x06sha384x",
        SESSION + bytes(8) + b"\x03sn\xe9\x06sha384",
        SESSION + bytes(8) + b"\x03snp\x06sha38\xff",
    ],
    ids=range(8),
)
def test_cookie_of_another_form_refused_whatever_its_mac(challenges, said, monkeypatch):
    monkeypatch.setattr(hmac, "compare_digest", lambda *_: True)
    assert challenges.open_cookie(encode_base64url(said + bytes(32))) is None
