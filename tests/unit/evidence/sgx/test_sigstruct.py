# SPDX-License-Identifier: Apache-2.0
"""SIGSTRUCTs of real builders, and those made here."""

import io
import zipfile
from contextlib import suppress
from functools import cache
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from imagers.errors import FormatError, SignatureInvalid
from imagers.evidence.sgx.sigstruct import find_sigstructs, parse_sigstruct
from tests.real_evidence import real_file


@cache
def key():
    return rsa.generate_private_key(public_exponent=3, key_size=3072)


def make_sigstruct(*, attributes=0, mask=2, product=7, svn=3, enclave=b"e" * 32, date="20261129"):
    raw = bytearray(1808)

    def put(at, data):
        raw[at : at + len(data)] = data

    put(0, bytes.fromhex("06000000e10000000000010000000000"))
    put(20, bytes.fromhex(date)[::-1])
    put(24, bytes.fromhex("01010000600000006000000001000000"))
    put(128, key().public_key().public_numbers().n.to_bytes(384, "little"))
    put(512, (3).to_bytes(4, "little"))
    put(928, bytes((attributes,)))
    put(944, bytes((mask,)))
    put(960, enclave)
    put(1024, product.to_bytes(2, "little"))
    put(1026, svn.to_bytes(2, "little"))
    signed = bytes(raw[:128] + raw[900:1028])
    put(516, key().sign(signed, padding.PKCS1v15(), hashes.SHA256())[::-1])
    return bytes(raw)


def test_made_one_says_what_was_signed():
    one = parse_sigstruct(make_sigstruct())
    modulus = key().public_key().public_numbers().n.to_bytes(384, "little")
    assert one.mr_enclave == b"e" * 32
    assert one.mr_signer == sha256(modulus).digest()
    assert (one.product, one.svn, one.date, one.debug) == (7, 3, "2026-11-29", "forbidden")


@pytest.mark.parametrize(
    ("attributes", "mask", "word"),
    [(0, 2, "forbidden"), (2, 2, "required"), (0, 0, "allowed"), (2, 0, "allowed")],
)
def test_debugging_is_what_attributes_and_mask_say(attributes, mask, word):
    assert parse_sigstruct(make_sigstruct(attributes=attributes, mask=mask)).debug == word


def test_date_that_is_none_is_left_out():
    assert parse_sigstruct(make_sigstruct(date="070a07e3")).date == ""


@pytest.mark.parametrize("at", [16, 40, 128, 511, 516, 899, 928, 960, 1024, 1027])
def test_changed_byte_is_a_signature_that_is_not_good(at):
    raw = bytearray(make_sigstruct())
    raw[at] ^= 1
    with pytest.raises((SignatureInvalid, FormatError)):
        parse_sigstruct(bytes(raw))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: b"\0" + raw[1:],
        lambda raw: raw[:24] + b"\0" + raw[25:],
        lambda raw: raw[:512] + b"\x01\0\x01\0" + raw[516:],
        lambda raw: raw[:511] + b"\0" + raw[512:],
    ],
)
def test_what_is_none_is_a_format_error(change):
    with pytest.raises(FormatError, match="SIGSTRUCT"):
        parse_sigstruct(change(make_sigstruct()))


def jar(*members, packing=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as file:
        for number, data in enumerate(members):
            file.writestr(f"{number}.signed.so", data)
    return buffer.getvalue()


def test_it_is_found_in_a_library_and_in_a_jar():
    raw = make_sigstruct()
    library = b"\x7fELF" + bytes(999) + raw[:16] + bytes(3000) + raw + b"more"
    (one,) = find_sigstructs(library)
    assert one.mr_enclave == b"e" * 32
    assert find_sigstructs(jar(b"class", library, library)) == (one,)
    both = find_sigstructs(jar(library, make_sigstruct(enclave=b"f" * 32)))
    assert [found.mr_enclave[:1] for found in both] == [b"e", b"f"]


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"PK\x03\x04broken", jar(b"none"), jar()])
def test_file_without_one_is_refused(data):
    with pytest.raises(FormatError):
        find_sigstructs(data)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_jar_that_is_damaged_in_any_packing_is_read_or_refused(packing):
    whole = jar(make_sigstruct(), packing=packing)
    assert find_sigstructs(whole)
    for at in range(30, 120):
        broken = bytearray(whole)
        broken[at] ^= 0x55
        with suppress(FormatError, SignatureInvalid):
            find_sigstructs(bytes(broken))


def test_too_many_are_refused():
    many = b"".join(make_sigstruct(svn=number) for number in range(17))
    with pytest.raises(FormatError, match="at most 16"):
        find_sigstructs(many)


@pytest.mark.parametrize(
    ("name", "signer", "debug"),
    [
        ("fortanix/sig1.sigstruct.bin", "83d719e7", "allowed"),
        ("inclavare/hello-world.sig", "5bde1ae9", "required"),
        ("intel-pce/libsgx_pce.signed.so.1.25.100.1", "c54a62f2", "forbidden"),
    ],
)
def test_those_of_real_builders_are_good(name, signer, debug):
    (one,) = find_sigstructs(real_file(f"sigstruct/{name}").read_bytes())
    assert one.mr_signer.hex()[:8] == signer
    assert one.debug == debug
    if name.startswith("intel"):
        assert (one.product, one.svn, one.date) == (1, 16, "2024-08-11")
