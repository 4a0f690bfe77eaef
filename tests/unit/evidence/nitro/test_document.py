# SPDX-License-Identifier: Apache-2.0
"""Documents of AWS Nitro, read. What may not be read is in the factory's wrongs."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.nitro.document import MAX_DOCUMENT, parse_document
from imagers.testing.evidence import NitroWorld
from tests.real_evidence import real_file

WORLD = NitroWorld(bytes(32))
GOOD = WORLD.document()


def test_document_gives_its_members():
    document = parse_document(GOOD)
    assert document.pcrs[0] == WORLD.measurement
    assert (document.nonce, document.public_key) == (b"", b"")
    assert document.authorities[0] == WORLD.issue("root")


def test_document_does_not_print_which_machine_it_is_of():
    assert WORLD.module_id not in repr(parse_document(GOOD))
    assert WORLD.module_id[:10] not in repr(parse_document(GOOD))


@pytest.mark.parametrize("absent", [None, b"", ...], ids=["null", "empty", "absent"])
def test_what_the_enclave_did_not_give_is_empty(absent):
    members = dict.fromkeys(("user_data", "nonce", "public_key"), absent)
    document = parse_document(WORLD.document(**members))
    assert (document.user_data, document.nonce, document.public_key) == (b"", b"", b"")


@given(st.binary(max_size=300), st.integers(0, len(GOOD)))
def test_any_bytes_are_a_document_or_none(raw, at):
    for one in (raw, GOOD[:at] + raw[:3] + GOOD[at + 3 :]):
        with contextlib.suppress(FormatError):
            parse_document(one)


def test_every_bit_of_a_document_counts_or_makes_it_unreadable():
    message = parse_document(GOOD).message
    for at in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[at] ^= 1
        with contextlib.suppress(FormatError):
            other = parse_document(bytes(changed)).message
            assert (other.to_be_signed, other.signature) != (
                message.to_be_signed,
                message.signature,
            )


def test_bound_is_inclusive():
    with pytest.raises(FormatError, match=f"expected at most {MAX_DOCUMENT} bytes"):
        parse_document(bytes(MAX_DOCUMENT + 1))


def test_real_document_is_read():
    raw = real_file("nitro/dstack/nitro_attestation.bin").read_bytes()[4:4531]  # in a frame
    document = parse_document(raw)
    assert (len(document.pcrs), document.nonce) == (16, b"")
    assert len(document.authorities) == 4
