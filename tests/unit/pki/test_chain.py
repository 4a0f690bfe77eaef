# SPDX-License-Identifier: Apache-2.0
"""Chains; each attack names the step of chain.py that it is aimed at."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from imagers.errors import FormatError, SignatureInvalid
from imagers.pki.chain import (
    Purpose,
    check_chain,
    check_leaf,
    check_validity,
    describe,
    load_certificate,
    parse_certificates,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CODE = [ExtendedKeyUsageOID.CODE_SIGNING]


def check(leaf, others, roots, at=NOW, **options):
    return check_chain(leaf, others, roots, at=at, purpose=Purpose.CODE_SIGNING, **options)


def test_chain_through_an_intermediate_leads_to_the_root(pki):
    leaf = pki.leaf()
    assert check(leaf, [pki.middle], [pki.root]) == (leaf, pki.middle, pki.root)
    assert check(leaf, [], [pki.middle]) == (leaf, pki.middle)
    noise = [pki.leaf("x"), pki.root, leaf, pki.middle]
    assert check(leaf, noise, [pki.root])[-1] == pki.root


def refused(piece, leaf, others, roots, **options):
    with pytest.raises(SignatureInvalid) as caught:
        check(leaf, others, roots, **options)
    assert piece in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chain_without_its_intermediate_or_to_another_root_is_refused(pki):
    """Step 1."""
    leaf = pki.leaf()
    refused("no given root", leaf, [], [pki.root])
    stranger = type(pki)()
    refused("no given root", leaf, [pki.middle], [stranger.root])
    refused("no given root", leaf, [stranger.middle, stranger.root], [stranger.root])
    refused("no given root", leaf, [pki.middle], [])


def test_chain_with_an_issuer_of_the_same_name_and_another_key_is_refused(pki):
    """Step 1."""
    other = pki.make("root", None, ca=True)
    refused("no given root", pki.leaf(issuer="middle"), [pki.middle], [other])


def test_leaf_that_is_itself_given_as_root_is_refused(pki):
    leaf = pki.leaf()
    refused("no given root", leaf, [leaf], [leaf])


@pytest.mark.parametrize("days", [-200, 4000])
def test_chain_at_another_time_is_refused(pki, days):
    """Step 2."""
    refused("not valid at", pki.leaf(), [pki.middle], [pki.root], at=NOW + timedelta(days=days))


def test_chain_with_an_expired_issuer_is_refused(pki):
    """Step 2."""
    old = {"end": NOW - timedelta(days=1)}
    middle = pki.make("old", "root", ca=True, **old)
    refused("not valid at", pki.leaf(issuer="old"), [middle], [pki.root])
    root = pki.make("ended", None, ca=True, **old)
    refused("not valid at", pki.leaf("second", "ended"), [], [root])


def test_chain_of_no_purpose_has_none_named(pki):
    """Step 4."""
    authority = pki.make("vendor", "root", ca=True)
    machine = pki.make("machine", "vendor", usages=None)
    path = check_chain(machine, [authority], [pki.root], at=NOW, purpose=None)
    assert path == (machine, authority, pki.root)
    signer = pki.make("signer", "vendor", usages=CODE)
    other = pki.make("other", "root", ca=True, usages=CODE)
    below = pki.make("below", "other", usages=None)
    for leaf, between in ((signer, authority), (below, other)):
        with pytest.raises(SignatureInvalid, match="extended key usage, where none is expected"):
            check_chain(leaf, [between], [pki.root], at=NOW, purpose=None)


def test_chain_without_a_time_leaves_times_to_its_caller(pki):
    leaf = pki.leaf(end=NOW - timedelta(days=1))
    path = check(leaf, [pki.middle], [pki.root], at=None)
    with pytest.raises(SignatureInvalid, match="not valid at"):
        check_validity(path, NOW, what="x")
    check_validity(path, NOW - timedelta(days=2), what="x")


@pytest.mark.parametrize(
    ("piece", "options"),
    [
        ("no authority", {"ca": False, "usages": CODE}),
        ("may not sign certificates", {"ca": True, "key_usage": {"key_cert_sign": False}}),
        ("may not be used for code signing", {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}),
        ("at least 256 bits", {"key": ec.generate_private_key(ec.SECP192R1())}),
        ("at least 2048 bits", {"key": rsa.generate_private_key(65537, 1024)}),  # noqa: S505
        (
            "name constraints",
            {"extra": [(x509.NameConstraints([x509.DNSName("x.example")], None), False)]},
        ),
        (
            "critical extension 1.2.3",
            {"extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True)]},
        ),
    ],
)
def test_chain_through_an_issuer_that_may_not_is_refused(pki, piece, options):
    """Steps 1, 3, 4 and 5."""
    middle = pki.make("bad", "root", **{"ca": True, **options})
    refused(piece, pki.leaf(issuer="bad"), [middle], [pki.root])


def test_chain_longer_than_an_issuer_allows_is_refused(pki):
    """Step 3."""
    root = pki.make("short", None, ca=True, path_length=0)
    middle = pki.make("between", "short", ca=True)
    refused("at most 0 authorities", pki.leaf(issuer="between"), [middle], [root])
    assert check(pki.leaf("direct", "short"), [], [root])


@pytest.mark.parametrize(
    ("piece", "options"),
    [
        ("code signing, got none", {"usages": []}),
        ("may not be used for code signing", {"usages": [ExtendedKeyUsageOID.TIME_STAMPING]}),
        (
            "may not be used for code signing",
            {"usages": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
        ),
        ("may not be used for signatures", {"key_usage": {"digital_signature": False}}),
        ("certificate of an authority", {"ca": True, "key_usage": {"digital_signature": True}}),
    ],
)
def test_leaf_that_may_not_sign_is_refused(pki, piece, options):
    """Steps 3 and 4."""
    leaf = pki.leaf(**options)
    refused(piece, leaf, [pki.middle], [pki.root])
    with pytest.raises(SignatureInvalid, match=piece):
        check_leaf(leaf, at=NOW, purpose=Purpose.CODE_SIGNING)


def test_leaf_without_usages_will_do_where_that_is_allowed(pki):
    leaf = pki.leaf(usages=[])
    assert check(leaf, [pki.middle], [pki.root], purpose_is_optional=True)


def test_chain_of_many_certificates_ends(pki):
    """An attacker's certificates, all of one name, cost a bounded search."""
    many = [pki.make("loop", "loop", ca=True) for _ in range(32)]
    refused("no given root", pki.leaf(issuer="loop"), many, [pki.root])
    refused("at most 32", pki.leaf("z"), [*many, pki.middle], [pki.root])


def test_certificate_without_alternative_names_is_described_by_its_subject(pki):
    assert describe(pki.leaf("builder@example.org", sans=[])) == "CN=builder@example.org"


def test_certificates_of_a_file_are_read_in_order(pki, pem):
    assert parse_certificates(pem(pki.root, pki.middle), what="x") == (pki.root, pki.middle)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no pem",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        bytes(300_000),
    ],
)
def test_certificates_of_other_files_are_refused(raw):
    with pytest.raises(FormatError) as caught:
        parse_certificates(raw, what="roots")
    assert caught.value.what == "roots"


def test_certificates_beside_something_else_or_too_many_are_refused(pki, pem):
    key = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    for raw in (pem(pki.root) + key, pem(*[pki.root] * 33)):
        with pytest.raises(FormatError, match="1 to 32"):
            parse_certificates(raw, what="x")


@pytest.mark.parametrize("der", [b"", b"0\x00", bytes(70_000)])
def test_certificate_of_bad_bytes_is_refused(der):
    with pytest.raises(FormatError):
        load_certificate(der, what="x")


def spoilt(certificate, part):
    """The certificate with a name that is no name, or of a version that does not exist."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    if part == "version":
        return der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x3d", 1)
    name = getattr(certificate, part).public_bytes()
    assert der.count(name) == 1
    # The type of the first text of the name: a context-specific tag.
    at = name.index(b"\x0c")
    return der.replace(name, name[:at] + b"\xac" + name[at + 1 :])


@pytest.mark.parametrize("part", ["issuer", "subject", "version"])
def test_certificates_whose_names_or_version_cannot_be_read_are_refused_when_loaded(pki, part):
    """`cryptography` says so late, with a ValueError, or by an exception that is none."""
    der = spoilt(pki.leaf(), part)
    with pytest.raises(FormatError, match="not a certificate that can be read"):
        load_certificate(der, what="x")
    text = base64.encodebytes(der)
    block = b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"
    with pytest.raises(FormatError, match="not a certificate that can be read"):
        parse_certificates(block, what="x")
