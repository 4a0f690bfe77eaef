# SPDX-License-Identifier: Apache-2.0
"""Seals: what one key has written is read with it, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, IntegrityError
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.store.seal import Checks, Seal, StoredAs, entry_name, parse_seal, write_seal

NAME = entry_name("overlay", digest_of(b"chain"))
SEAL = Seal(
    name=NAME,
    size=12,
    checks=Checks(digest_of(b"m"), "pinned_digest", "cd" * 32, ("A", "B"), 1_800_000_000),
    needs=(entry_name("overlay", digest_of(b"below")),),
    diff_id=digest_of(b"tar", "sha512"),
    stored_as=(StoredAs(digest_of(b"stored"), "ef" * 32), StoredAs(digest_of(b"other"), "")),
    tar_size=10240,
    entries=3,
    hole_bytes=7,
    left_out=({"kind": "1", "count": "2", "first": "62ff", "attribute": ""},),
    facts={"root": "00"},
    content="11" * 32,
)


def test_seal_is_read_as_it_was_written(key):
    assert parse_seal(write_seal(SEAL, key), key, NAME) == SEAL


def test_seal_of_what_is_no_layer_has_no_diff_id(key):
    seal = Seal(name=NAME, size=0, checks=SEAL.checks)
    assert parse_seal(write_seal(seal, key), key, NAME) == seal


def test_seal_under_another_key_is_refused(key):
    with SecretKey(b"x" * 32) as other, pytest.raises(IntegrityError, match="under this store's"):
        parse_seal(write_seal(SEAL, key), other, NAME)


def test_seal_of_another_entry_is_refused(key):
    name = entry_name("overlay", digest_of(b"another"))
    with pytest.raises(IntegrityError, match="it is that of overlay-sha256"):
        parse_seal(write_seal(SEAL, key), key, name)


def test_seal_with_any_changed_byte_is_refused(key):
    data = write_seal(SEAL, key)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises((IntegrityError, FormatError)):
            parse_seal(bytes(changed), key, NAME)


def test_seal_cut_anywhere_is_refused(key):
    data = write_seal(SEAL, key)
    for length in range(len(data)):
        with pytest.raises((IntegrityError, FormatError)):
            parse_seal(data[:length], key, NAME)


@given(st.binary(max_size=300))
def test_any_bytes_are_no_seal(data):
    with SecretKey(b"k" * 32) as key, pytest.raises((IntegrityError, FormatError)):
        parse_seal(data, key, NAME)


def test_stored_as_tells_keys_apart_and_not_what_they_are(key):
    digest = digest_of(b"stored")
    with SecretKey(b"1" * 32) as one, SecretKey(b"2" * 32) as two, SecretKey(b"s" * 32) as other:
        codes = {
            StoredAs.of(digest, one, key=key).key_code,
            StoredAs.of(digest, two, key=key).key_code,
            StoredAs.of(digest, one, key=other).key_code,
            StoredAs.of(digest, None, key=key).key_code,
        }
        assert StoredAs.of(digest, one, key=key) == StoredAs.of(digest, one, key=key)
    assert len(codes) == 4
    assert not any(b"1".hex() * 32 in code for code in codes)
