# SPDX-License-Identifier: Apache-2.0
"""The paravisor's report, real and made here."""

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.azure.vtpm import (
    HCL_SNP,
    HCL_TDX,
    HCLReport,
    VTPMQuote,
    parse_hcl_report,
    parse_parts,
)
from imagers.evidence.tpm.structures import RSASSA, SHA256, Signature, parse_attest, spki_of
from imagers.model.evidence import Bound
from imagers.testing.evidence import AzureSNPWorld
from tests.real_evidence import real_file

WORLD = AzureSNPWorld(
    b"imagers.evidence.azure.vtpm is .."[:32], now=datetime(2026, 11, 29, tzinfo=UTC)
)
NAMES = ("tpm_quote", "hcl_report", "vcek")


@pytest.mark.parametrize(
    ("name", "kind", "at"),
    [
        ("az-snp-vtpm/trustee/hcl-report.bin", HCL_SNP, 0x50),
        ("az-snp-vtpm/azure-cvm-tooling/hcl-report-snp.bin", HCL_SNP, 0x50),
        ("az-tdx-vtpm/trustee/hcl-report.bin", HCL_TDX, 128),
    ],
)
def test_real_report_is_read_and_bound_by_the_hardware(name, kind, at):
    found = parse_hcl_report(real_file(name).read_bytes())
    assert found.kind == kind
    assert found.hardware[at : at + 64] == found.bound
    assert found.ak.key_size == 2048
    assert found.configuration["secure_boot"] is True
    assert "vmUniqueId" not in found.configuration
    assert not any(found.user_data)
    assert "hardware" not in repr(found)


def quote_of(name):
    """Signature, message and registers, with sizes of eight bytes before them."""
    raw = real_file(name).read_bytes()
    parts = []
    for _ in range(2):
        size = int.from_bytes(raw[:8], "little")
        parts.append(raw[8 : 8 + size])
        raw = raw[8 + size :]
    values = raw[8:]
    return *parts, tuple(values[at : at + 32] for at in range(0, len(values), 32))


def vtpm_quote(name, hcl):
    signature, message, values = quote_of(name)
    report = parse_hcl_report(real_file(hcl).read_bytes())
    return VTPMQuote(1, report, parse_attest(message), Signature(RSASSA, SHA256, signature), values)


@pytest.mark.parametrize("tee", ["az-snp-vtpm", "az-tdx-vtpm"])
def test_real_quote_is_by_the_key_in_the_report(tee):
    told = []
    quote = vtpm_quote(f"{tee}/trustee/quote.bin", f"{tee}/trustee/hcl-report.bin")
    quote.check_quote(told.append)
    quote.check_bound(Bound(b"challenge"), told.append)
    assert told[-1].startswith("step 6, bound: report data as expected")
    with pytest.raises(EvidenceRejected, match="step 6, bound: report data: expected"):
        quote.check_bound(Bound(b"challenge"[::-1]), told.append)
    with pytest.raises(EvidenceRejected, match="step 6, bound: length of the nonce"):
        quote.check_bound(Bound(b"challenge\0"), told.append)


def test_real_quote_of_another_machine_is_refused():
    for name, hcl in (
        ("az-snp-vtpm/trustee/quote.bin", "az-tdx-vtpm/trustee/hcl-report.bin"),
        ("az-snp-vtpm/azure-cvm-tooling/quote.bin", "az-snp-vtpm/trustee/hcl-report.bin"),
    ):
        with pytest.raises(EvidenceRejected, match="step 2, signature: it is not by"):
            vtpm_quote(name, hcl).check_quote([].append)


def test_real_quote_that_nobody_here_signed_is_refused_by_every_key():
    message = real_file("az-snp-vtpm/trustee/tpm-quote.msg").read_bytes()
    signature = real_file("az-snp-vtpm/trustee/tpm-quote.sig").read_bytes()
    attest = parse_attest(message)
    assert attest.selections[0].registers == (*range(8), 14)
    for name in ("az-snp-vtpm/trustee", "az-tdx-vtpm/trustee"):
        report = parse_hcl_report(real_file(f"{name}/hcl-report.bin").read_bytes())
        quote = VTPMQuote(1, report, attest, Signature(RSASSA, SHA256, signature), ())
        with pytest.raises(EvidenceRejected, match="step 2, signature"):
            quote.check_quote([].append)


def test_real_quote_of_another_tool_is_by_the_key_beside_it():
    signature, message, values = quote_of("az-snp-vtpm/azure-cvm-tooling/quote.bin")
    key = load_pem_public_key(real_file("az-snp-vtpm/azure-cvm-tooling/akpub.pem").read_bytes())
    hcl = parse_hcl_report(
        real_file("az-snp-vtpm/azure-cvm-tooling/hcl-report-snp.bin").read_bytes()
    )
    assert spki_of(key) != spki_of(hcl.ak)
    report = HCLReport(hcl.kind, hcl.hardware, hcl.bound, key, b"", {})
    quote = VTPMQuote(
        1, report, parse_attest(message), Signature(RSASSA, SHA256, signature), values
    )
    quote.check_quote([].append)


def test_real_variable_data_of_another_machine_has_a_key():
    data = real_file("az-snp-vtpm/azure-cvm-tooling/var-data.bin").read_bytes()
    found = parse_hcl_report(WORLD.hcl_report(b"", data))
    assert found.ak.key_size == 2048


def test_user_data_are_compared_in_version_2_alone():
    for version, taken in ((1, True), (2, False)):
        body = WORLD.evidence(report_data=b"n" * 48, version=version, data=WORLD.variable_data())
        quote, _ = parse_parts(body, NAMES, what="x")
        assert quote.version == version
        if taken:
            quote.check_bound(Bound(b"n" * 48), [].append)
            continue
        with pytest.raises(EvidenceRejected, match="step 6, bound: user data: expected 6e6e"):
            quote.check_bound(Bound(b"n" * 48), [].append)
        quote.check_bound(Bound(), [].append)


def test_report_without_user_data_is_good_but_in_version_2():
    members = json.loads(WORLD.variable_data())
    del members["user-data"]
    data = json.dumps(members).encode()
    assert parse_hcl_report(WORLD.hcl_report(b"", data)).user_data == b""


@pytest.mark.parametrize("size", [0, 1235, 65537])
def test_report_of_another_size_is_refused(size):
    with pytest.raises(FormatError, match=f"expected 1236 to 65536 bytes, got {size}"):
        parse_hcl_report(bytes(size))


def test_key_with_an_exponent_that_is_none_is_refused():
    keys = json.loads(WORLD.variable_data())["keys"]
    data = WORLD.variable_data(members={"keys": [{**keys[0], "e": "Ag"}]})
    with pytest.raises(FormatError, match="expected an RSA key"):
        parse_hcl_report(WORLD.hcl_report(b"", data))


def test_registers_of_the_older_form_are_numbers():
    body = WORLD.evidence(version=0)
    names = ("quote", "report", "vcek")
    assert parse_parts(body, names, what="x")[0].version == 0
    for bad in ([], "x", [1], [["x"] * 32] * 24, [[256] * 32] * 24):
        changed = {**body, "quote": {**body["quote"], "pcrs": bad}}
        with pytest.raises(FormatError, match="expected 24 values of 32 bytes"):
            parse_parts(changed, names, what="x")


@given(st.data())
def test_any_change_of_a_report_is_refused_or_another_hash(data):
    good = WORLD.hcl_report(b"h" * 1184, WORLD.variable_data())
    raw = bytearray(good)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = parse_hcl_report(bytes(raw))
    except FormatError:
        return
    reference = parse_hcl_report(good)
    assert (found.bound, found.hardware) != (reference.bound, reference.hardware)
