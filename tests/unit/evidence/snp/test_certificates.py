# SPDX-License-Identifier: Apache-2.0
"""Certificates of chips, as AMD makes them and not."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.snp.certificates import built_in, parse_authority, parse_leaf
from imagers.evidence.snp.report import PRODUCTS
from imagers.pki.der import encode, split
from tests.unit.evidence.snp.conftest import NOW, leaf_of


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("is_vlek", [False, True])
def test_certificates_of_amd_that_come_along_are_in_their_roles(product, is_vlek):
    authority = built_in(product)
    authority.check(is_vlek=is_vlek, now=NOW)
    issuer = authority.issuer(is_vlek=is_vlek)
    (name,) = issuer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert name.value == f"SEV-{'VLEK-' if is_vlek else ''}{product}"
    with pytest.raises(EvidenceRejected, match="is not valid at 2099"):
        authority.check(is_vlek=is_vlek, now=NOW.replace(year=2099))


def test_certificate_of_a_chip_says_what_it_is_for(world, as_pem):
    der = world.leaf()
    leaf = parse_leaf(der, what="x")
    assert (leaf.kind, leaf.chip_id) == ("VCEK", world.chip_id)
    assert leaf.tcb == world.tcb
    assert leaf.product.partition("-")[0] == world.product.name
    leaf.check(world.authority, NOW)
    assert parse_leaf(as_pem(der), what="x").tbs == leaf.tbs
    vlek = leaf_of(world, vlek=True)
    assert (vlek.kind, vlek.chip_id) == ("VLEK", None)
    with pytest.raises(EvidenceRejected):
        leaf_of(world, vlek=True, signer="ASK").check(world.authority, NOW)


def test_chip_id_may_stand_in_an_octet_string(genoa):
    wrapped = b"\x04\x40" + genoa.chip_id
    assert leaf_of(genoa, extensions={"4": wrapped}).chip_id == genoa.chip_id


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({"3.1": None}, "that can be read"),
        ({"4": None}, "that can be read"),
        ({"4": b"\x04\x00"}, "expected a chip id of 64 or 8 bytes, got 2"),
        ({"2": None}, "that can be read"),
        ({"3.3": b"\x02\x02\x01\x00"}, "expected a version of a byte"),
        ({"3.3": b"\x02\x01\xff"}, "expected a version of a byte"),
        ({"3.3": b"\x02\x81\x80" + b"\x7f" * 128}, "expected a version of a byte"),
        ({"3.3": b"\x04\x01\x08"}, "that can be read"),
        ({"2.5.29.36": b"\x30\x00"}, "critical extension 2.5.29.36"),
    ],
)
def test_certificate_that_lacks_what_it_has_to_say_is_refused(genoa, changes, piece):
    with pytest.raises(FormatError) as caught:
        leaf_of(genoa, extensions=changes)
    assert piece in str(caught.value)
    assert len(str(caught.value)) < 100


def test_certificate_with_a_name_of_an_unknown_type_is_refused(genoa):
    common = b"\x06\x03\x55\x04\x03\x0c\x08SEV-VCEK"
    der = genoa.leaf()
    assert der.count(common) == 1
    described = b"\x06\x03\x55\x04\x7f\x07\x08SEV-VCEK"  # an ObjectDescriptor
    with pytest.raises(FormatError, match="that can be read"):
        parse_leaf(der.replace(common, described), what="x")


@pytest.mark.parametrize("part", ["certificate", "body"])
def test_certificate_of_indefinite_length_is_refused(genoa, part):
    """Step 2: what is verified are the bytes that were read."""
    whole = split(genoa.leaf(), what="x")[0].content
    body, *rest = (one.raw for one in split(whole, what="x"))
    if part == "body":
        body = b"\x30\x80" + split(body, what="x")[0].content + b"\0\0"
        changed = encode(0x30, body, *rest)
    else:
        changed = b"\x30\x80" + whole + b"\0\0"
    with pytest.raises(FormatError, match="is not DER"):
        parse_leaf(changed, what="x")


def test_certificate_with_a_key_on_another_curve_is_refused(genoa):
    with pytest.raises(FormatError, match="P-384"):
        leaf_of(genoa, key=ec.generate_private_key(ec.SECP256R1()))


def test_certificate_of_an_authority_is_none_of_a_chip(genoa):
    from cryptography.hazmat.primitives.serialization import Encoding

    with pytest.raises(FormatError, match="expected CN SEV-VCEK or SEV-VLEK"):
        parse_leaf(genoa.authority.ask.public_bytes(Encoding.DER), what="x")
    pem = b"".join(
        one.public_bytes(Encoding.PEM) for one in (genoa.authority.ask, genoa.authority.ark)
    )
    with pytest.raises(FormatError, match="expected one certificate"):
        parse_leaf(pem, what="x")
    with pytest.raises(FormatError, match="expected ASK, ARK and ASVK"):
        parse_authority(pem, genoa.product, what="x")


@pytest.mark.parametrize("seed", range(40))
def test_certificate_with_a_changed_byte_is_refused_or_not_signed(genoa, seed):
    der = bytearray(genoa.leaf())
    der[seed * len(der) // 40] ^= 1
    with pytest.raises((FormatError, EvidenceRejected)):
        parse_leaf(bytes(der), what="x").check(genoa.authority, NOW)


@given(st.binary(max_size=2000))
def test_any_bytes_are_no_certificate(data):
    with pytest.raises(FormatError):
        parse_leaf(data, what="x")
