# SPDX-License-Identifier: Apache-2.0
from contextlib import suppress
from struct import pack

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.tpm.commands import AK_TEMPLATE
from imagers.evidence.tpm.credential import EK_TEMPLATES
from imagers.evidence.tpm.quote import check_signature
from imagers.evidence.tpm.structures import (
    DECRYPT,
    ECDSA,
    QUOTE,
    RSASSA,
    SHA256,
    Attest,
    Public,
    Reader,
    Selection,
    Signature,
    hashed,
    parse_attest,
    parse_public,
    parse_signature,
    sized,
    spki_of,
)
from imagers.testing.evidence.tpm import attest
from tests.real_evidence import real_file

VALUES = [bytes(32)] * 24


def test_quote_is_read_field_by_field():
    raw = attest(VALUES, extra_data=b"nonce", clock=5, reset_count=6, restart_count=7, safe=0)
    found = parse_attest(raw)
    assert (found.kind, found.extra_data, found.clock) == (QUOTE, b"nonce", 5)
    assert (found.reset_count, found.restart_count, found.safe) == (6, 7, False)
    assert found.selections == (Selection(SHA256, tuple(range(24))),)
    assert found.pcr_digest == hashed(SHA256, bytes(32 * 24))
    assert found.firmware_version == 0x2024012500120000
    assert found.raw == raw


def test_selection_is_told_and_packed():
    assert str(Selection(SHA256, (0, 7))) == "SHA-256 0, 7"
    assert str(Selection(0x9999, ())) == "0x9999 none"
    assert Selection(SHA256, (0, 8, 23)).pack() == bytes.fromhex("000b03010180")


def test_attestation_of_another_kind_has_no_selection():
    found = parse_attest(attest(VALUES, extra_data=b"", kind=0x8017))
    assert (found.kind, found.selections, found.pcr_digest) == (0x8017, (), b"")


@pytest.mark.parametrize(
    ("raw", "piece"),
    [
        (b"", "it is cut off"),
        (attest(VALUES, extra_data=b"") + b"\0", "expected nothing behind it, got 1 bytes"),
        (attest(VALUES, extra_data=b"", safe=2), "expected yes"),
        (attest(VALUES, extra_data=b"n" * 67), "expected at most 66 bytes, got 67"),
        (bytes(2049), "expected at most 2048 bytes"),
        (attest(VALUES, extra_data=b"", selections=[(11, ())] * 17), "at most 16 selections"),
    ],
)
def test_what_is_no_quote_is_refused(raw, piece):
    with pytest.raises(FormatError) as caught:
        parse_attest(raw)
    assert piece in str(caught.value)


def test_signature_is_read_by_its_scheme():
    assert parse_signature(pack(">HHH", RSASSA, SHA256, 3) + b"abc") == Signature(
        RSASSA, SHA256, b"abc"
    )
    raw = pack(">HH", ECDSA, SHA256) + sized(b"\1") + sized(b"\2")
    assert parse_signature(raw) == Signature(ECDSA, SHA256, r=1, s=2)
    for bad in (raw + b"\0", raw[:-1], pack(">HH", 0x16, SHA256), bytes(1025)):
        with pytest.raises(FormatError):
            parse_signature(bad)


def ecc(*, curve=3, kdf=b"\0\x10", x=0, y=0, scheme=b"\0\x10"):
    head = pack(">HHI", 0x23, SHA256, DECRYPT) + sized(b"") + b"\0\x10" + scheme
    return head + pack(">H", curve) + kdf + sized(x.to_bytes(32)) + sized(y.to_bytes(32))


def test_public_part_is_read_with_its_name():
    key = load_pem_public_key(real_file("tpm/veraison-services/basic.pem.pub").read_bytes())
    numbers = key.public_numbers()
    for more in ({}, {"kdf": b"\0\x20\0\x0b"}, {"scheme": b"\0\x19\0\x0b"}, {"scheme": b"\0\x15"}):
        raw = ecc(x=numbers.x, y=numbers.y, **more)
        found = parse_public(raw)
        assert spki_of(found.key) == spki_of(key)
        assert found.name == b"\0\x0b" + hashed(SHA256, raw)
        assert found.attributes == DECRYPT


@pytest.mark.parametrize(
    ("raw", "piece"),
    [
        (bytes(2049), "at most 2048"),
        (pack(">HHI", 8, SHA256, 0) + sized(b""), "expected RSA (0x1) or a curve (0x23), got 0x8"),
        (ecc(curve=5), "P-256 or P-384"),
        (ecc(x=1, y=1), "no point on its curve"),
        (ecc(scheme=b"\0\x99"), "unknown scheme 0x0099"),
        (AK_TEMPLATE, "got 0"),
        (EK_TEMPLATES["rsa"], "got 0"),
        (EK_TEMPLATES["ecc"], "no point on its curve"),
    ],
)
def test_what_is_no_public_part_is_refused(raw, piece):
    with pytest.raises(FormatError) as caught:
        parse_public(raw)
    assert piece in str(caught.value)


def test_rsa_key_without_a_good_exponent_is_none():
    head = pack(">HHI", 1, SHA256, 0) + sized(b"") + b"\0\x10\0\x10"
    raw = head + pack(">HI", 2048, 2) + sized(b"\xff" * 256)
    with pytest.raises(FormatError, match="is no RSA key"):
        parse_public(raw)


def test_unknown_hash_of_a_name_is_told():
    with pytest.raises(FormatError, match="got 0x0099"):
        hashed(0x99, b"")


def test_signature_of_a_real_p256_key_is_good():
    """Node id 16, length, what is signed, the signature."""
    raw = real_file("tpm/veraison-services/basic.token").read_bytes()
    key = load_pem_public_key(real_file("tpm/veraison-services/basic.pem.pub").read_bytes())
    reader = Reader(raw[16:], "token")
    found = parse_attest(reader.sized(200))
    assert check_signature(found, parse_signature(reader.rest()), key) == "ECDSA, secp256r1"
    assert found.selections == (Selection(SHA256, (1, 2, 3, 4)),)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_refused(raw):
    for parse, kind in (
        (parse_attest, Attest),
        (parse_signature, Signature),
        (parse_public, Public),
    ):
        with suppress(FormatError):
            assert isinstance(parse(raw), kind)
