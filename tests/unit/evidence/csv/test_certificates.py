# SPDX-License-Identifier: Apache-2.0
"""Certificates of Hygon's chips: read strictly, and signed by whom their role says."""

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.csv.certificates import (
    ROLES,
    certificate_of_json,
    certificate_to_json,
    parse_certificate,
    root_of,
)
from imagers.model.strict_json import View
from tests.real_evidence import real_file

ABOVE = {"HRK": "HRK", "HSK": "HRK", "CEK": "HSK", "PEK": "CEK"}


def made(world, role, **changes):
    return parse_certificate(world.certificate(role, **changes), role)


@pytest.mark.parametrize("role", ROLES)
def test_certificate_is_good_by_the_one_above_it(world, role):
    made(world, role).check(made(world, ABOVE[role]))


@pytest.mark.parametrize("role", ROLES)
def test_certificate_comes_back_from_its_json(world, role):
    certificate = made(world, role)
    document = certificate_to_json(certificate)
    assert certificate_of_json(View(document, what="x"), role) == certificate


def test_root_of_hygon_signs_itself():
    root = root_of(None)
    root.check(root)
    assert root.role.name == "HRK"


def test_real_chain_is_good():
    hsk, cek = (
        parse_certificate(real_file(f"csv/csv-rs/{role.lower()}.cert").read_bytes(), role)
        for role in ("HSK", "CEK")
    )
    hsk.check(root_of(None))
    cek.check(hsk)
    with pytest.raises(EvidenceRejected, match="CEK has 0 signatures by a HRK"):
        cek.check(root_of(None))
    assert real_file("csv/trustee/hrk.cert").read_bytes() == root_of(None).raw


@pytest.mark.parametrize("role", ["HSK", "CEK"])
def test_each_byte_that_is_not_another_signature_counts(world, role):
    """In a CEK the second place has no signature; all of its bytes but usage and algorithm too."""
    raw, above = world.certificate(role), made(world, ABOVE[role])
    taken = []
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        try:
            parse_certificate(bytes(changed), role).check(above)
        except (FormatError, EvidenceRejected):
            continue
        taken.append(at)
    # The place of another signature: usage, algorithm, r and s, which are nobody's here.
    other = [*range(1564, 1564 + 8 + 32), *range(1564 + 80, 1564 + 112)] if role == "CEK" else []
    assert taken == other


def test_certificate_with_two_signatures_of_its_signer_is_refused(world):
    raw = bytearray(world.certificate("PEK"))
    raw[1564:1572] = raw[1044:1052]
    with pytest.raises(EvidenceRejected, match="2 signatures by a CEK: expected 1"):
        parse_certificate(bytes(raw), "PEK").check(made(world, "CEK"))


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        (lambda raw: raw[:-1], "expected 2084 bytes, got 2083"),
        (lambda raw: raw[:16] + b"\x02" + raw[17:], "expected a key on the curve 3"),
        (lambda raw: raw[:12] + b"\x05" + raw[13:], "a key for signatures by SM2"),
        (lambda raw: raw[:60] + b"\x01" + raw[61:], "expected a number of 32 bytes"),
        (lambda raw: raw[:-1] + b"\x01", "expected zeros in sigs.1._reserved"),
    ],
)
def test_certificate_that_is_none_is_told_so(world, change, piece):
    with pytest.raises(FormatError, match=piece):
        parse_certificate(change(world.certificate("PEK")), "PEK")


@pytest.mark.parametrize(
    ("edit", "piece"),
    [
        (lambda one: one["sigs"].pop(), "expected 2 signatures, got 1"),
        (lambda one: one["body"].pop("ver"), "ver"),
        (lambda one: one["body"]["data"].update(sid=[0] * 15), "expected a list of 16 bytes"),
        (lambda one: one["body"]["data"]["firmware"].update(major=256), "major"),
    ],
)
def test_json_that_is_no_certificate_is_told_so(world, edit, piece):
    document = certificate_to_json(made(world, "PEK"))
    edit(document)
    with pytest.raises(FormatError, match=piece):
        certificate_of_json(View(document, what="x"), "PEK")


@pytest.mark.parametrize(
    "data", [b"", b"x" * 832, b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
)
def test_root_for_tests_is_armored(data):
    with pytest.raises(FormatError, match="expected '-----BEGIN HYGON CERTIFICATE-----'"):
        root_of(data)


def test_certificate_prints_without_its_bytes(world):
    assert len(repr(made(world, "CEK"))) < 100
