# SPDX-License-Identifier: Apache-2.0
"""Bytes of quotes: those of real machines, and those that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.intel.quote import MAX_QUOTE, SGX, TDX, parse_quote
from tests.real_evidence import real_file
from tests.unit.evidence.intel.conftest import REAL

# Version, kind of body, and how the body begins, of each quote.
QUOTES = {
    "tdx/trustee/tdx_quote_4.dat": (TDX, 4, 2, "03000500"),
    "tdx/trustee/tdx_quote_5.dat": (TDX, 5, 3, "05010200"),
    "tdx/trustee/tdx_quote_6.dat": (TDX, 4, 2, "05030200"),
    "tdx/dcap-qvl/tdx_quote": (TDX, 4, 2, "06010300"),
    "tdx/openenclave/tdx_quote_v5.bin": (TDX, 5, 3, "02010600"),
    "tdx/intel-qvl/quote.dat": (TDX, 4, 2, "52c1a38c"),
    "sgx/dcap-qvl/sgx_quote": (SGX, 3, 1, "0b0b1a18"),
}


@pytest.mark.parametrize("path", QUOTES)
def test_quote_of_a_real_machine_has_its_parts(path):
    tee, version, kind, begin = QUOTES[path]
    data = real_file(path).read_bytes()
    quote = parse_quote(data, tee=tee)
    assert (quote.version, quote.kind, quote.tee) == (version, kind, tee)
    assert quote.octets("tcb_svn" if tee == TDX else "cpu_svn").hex().startswith(begin)
    assert quote.header("version") == version.to_bytes(2, "little")
    assert data.startswith(quote.signed)
    assert repr(quote) == f"Quote(version={version})"


def test_report_of_a_guest_has_its_registers_where_a_quote_has_them():
    """A TDREPORT has the body of a quote at other places: registers are in order in both."""
    report = real_file("tdx/guest-components/tdx_report_1.bin").read_bytes()
    assert report[512 + 208 : 512 + 212].hex() == "f4ec1a04"
    assert report[512 + 256 : 512 + 260].hex() == "4e5f8826"
    assert report[512 + 304 : 512 + 400] == bytes(96)


@pytest.mark.parametrize("case", [REAL["tdx up to date"], REAL["sgx"]], ids=["tdx", "sgx"])
def test_quote_that_is_cut_off_is_refused(case):
    """At any length up to the end of the signature data; what is behind it is padding."""
    data = case.raw.rstrip(b"\0") + b"\0"  # one zero belongs to the certificates
    tee = TDX if case.tee == "tdx" else SGX
    assert parse_quote(data, tee=tee).signed == case.quote.signed
    for size in range(len(data)):
        with pytest.raises(FormatError):
            parse_quote(data[:size], tee=tee)
    assert parse_quote(data + b"anything", tee=tee) == parse_quote(data, tee=tee)


# Each byte that no signature covers, at its place in a quote of version 4 and in one of version 3.
LENGTHS = {
    "length of the signature data": (632, 432),
    "its second byte": (633, 433),
    "type of the outer certification data": (764, None),
    "its second byte, ": (765, None),
    "length of the outer data": (766, None),
    "length of the authentication data": (770 + 448, 436 + 128 + 448),
    "type of the inner certification data": (770 + 482, 436 + 128 + 482),
    "its second byte, too": (771 + 482, 437 + 128 + 482),
    "length of the inner data": (772 + 482, 438 + 128 + 482),
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("bit", range(8))
def test_no_bit_of_a_length_or_type_may_change(name, bit):
    for case, at in zip((REAL["tdx up to date"], REAL["sgx"]), LENGTHS[name], strict=True):
        if at is None:
            continue
        data = bytearray(case.raw)
        data[at] ^= 1 << bit
        with pytest.raises(FormatError):
            parse_quote(bytes(data), tee=TDX if case.tee == "tdx" else SGX)


def test_no_bit_of_a_length_or_type_may_change_in_version_5(world):
    data = world.raw_quote(version=5, kind=3)
    end = 54 + 648
    for at in (48, 49, *range(50, 54), *range(end, end + 4), *range(end + 132, end + 138)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(FormatError):
                parse_quote(bytes(changed), tee=TDX)


@pytest.mark.parametrize(
    ("at", "value", "piece"),
    [
        (0, 3, "expected a version of 4, 5, got 3"),
        (0, 6, "expected a version of 4, 5, got 6"),
        (2, 3, "expected attestation key type 2"),
        (4, 0, "expected TEE type 0x81, got 0x0"),
        (12, 0, "expected a quoting enclave of Intel"),
    ],
)
def test_header_of_another_kind_is_refused(world, at, value, piece):
    data = bytearray(world.raw_quote())
    data[at] = value
    with pytest.raises(FormatError, match=piece):
        parse_quote(bytes(data), tee=TDX)


def test_body_of_another_kind_is_refused(world):
    data = bytearray(world.raw_quote(version=5, kind=3))
    for kind in (0, 1, 4):
        data[48] = kind
        with pytest.raises(FormatError, match=f"expected a body of kind 2, 3, got {kind}"):
            parse_quote(bytes(data), tee=TDX)
    data[48] = 2
    with pytest.raises(FormatError, match="expected a body of 584 bytes, got 648"):
        parse_quote(bytes(data), tee=TDX)


def test_quote_of_the_other_tee_is_refused(world):
    with pytest.raises(FormatError, match="expected TEE type 0x0, got 0x81"):
        parse_quote(world.raw_quote(), tee=SGX)
    with pytest.raises(FormatError, match="expected a version of 4, 5, got 3"):
        parse_quote(world.raw_quote("sgx"), tee=TDX)
    for version in (4, 5):
        raw = world.raw_quote("sgx", version=version)
        assert parse_quote(raw, tee=SGX).octets("mr_enclave") == b"e" * 32
        with pytest.raises(FormatError, match="expected TEE type 0x81, got 0x0"):
            parse_quote(raw, tee=TDX)


def test_quote_above_the_limit_is_refused():
    with pytest.raises(FormatError, match=f"at most {MAX_QUOTE} bytes"):
        parse_quote(bytes(MAX_QUOTE + 1), tee=TDX)


@given(st.binary(max_size=5000))
def test_any_bytes_are_no_quote(data):
    for tee in (SGX, TDX):
        with pytest.raises(FormatError):
            parse_quote(data, tee=tee)
