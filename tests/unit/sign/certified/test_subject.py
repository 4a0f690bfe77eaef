# SPDX-License-Identifier: Apache-2.0
"""Whom a certificate is for."""

import pytest
from cryptography import x509

from imagers.errors import UntrustedSigner
from imagers.sign.certified.subject import check_issuer, check_subject
from imagers.sign.requirements import CertificateSubject

V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
ISSUER = "https://login.example.org"


@pytest.mark.parametrize(
    "wanted",
    [
        CertificateSubject(email="builder@example.org"),
        CertificateSubject(hostname="build.example.org"),
        CertificateSubject(hostname="BUILD.example.org."),
        CertificateSubject(hostname="any.wild.example.org"),
        CertificateSubject(uri="https://ci.example.org/job"),
        CertificateSubject(email="builder@example.org", hostname="build.example.org"),
        CertificateSubject(pattern=r".*@example\.org"),
        CertificateSubject(pattern=r"https://ci\.example\.org/(job|work)"),
        CertificateSubject(pattern=r"^builder@example\.org$"),
        CertificateSubject(pattern=r"(?i)BUILDER@example\.org"),
    ],
)
def test_subject_that_is_named_is_accepted(pki, wanted):
    check_subject(_leaf(pki), wanted, what="x")


def _leaf(pki):
    return pki.leaf(
        sans=[
            x509.RFC822Name("builder@example.org"),
            x509.DNSName("build.example.org"),
            x509.DNSName("*.wild.example.org"),
            x509.UniformResourceIdentifier("https://ci.example.org/job"),
        ]
    )


@pytest.mark.parametrize(
    "wanted",
    [
        CertificateSubject(email="other@example.org"),
        CertificateSubject(email="BUILDER@example.org"),
        CertificateSubject(email="build.example.org"),
        CertificateSubject(hostname="example.org"),
        CertificateSubject(hostname="a.b.wild.example.org"),
        CertificateSubject(hostname="wild.example.org"),
        CertificateSubject(hostname="builder@example.org"),
        CertificateSubject(uri="https://ci.example.org/job2"),
        CertificateSubject(email="builder@example.org", hostname="x.example.org"),
        CertificateSubject(pattern=r"example\.org"),
        CertificateSubject(pattern=r"builder@"),
        CertificateSubject(pattern=r"https://ci\.example\.org/"),
        CertificateSubject(pattern=r"build\.example\.org"),
        CertificateSubject(pattern=r""),
    ],
)
def test_subject_that_is_not_named_is_refused(pki, wanted):
    with pytest.raises(UntrustedSigner, match=r"the certificate is for (another|somebody else)"):
        check_subject(_leaf(pki), wanted, what="x")


def test_subject_in_the_common_name_does_not_count(pki):
    leaf = pki.leaf("builder@example.org", sans=[])
    with pytest.raises(UntrustedSigner, match="got none"):
        check_subject(leaf, CertificateSubject(email="builder@example.org"), what="x")


def with_issuers(pki, *pairs):
    extra = [(x509.UnrecognizedExtension(oid, raw), False) for oid, raw in pairs]
    return pki.leaf(extra=extra)


UTF8 = b"\x0c" + bytes([len(ISSUER)]) + ISSUER.encode()


def test_issuer_of_either_form_and_of_both_is_accepted(pki):
    for pairs in ([(V1, ISSUER.encode())], [(V2, UTF8)], [(V1, ISSUER.encode()), (V2, UTF8)]):
        check_issuer(with_issuers(pki, *pairs), ISSUER, what="x")


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(V1, b"https://evil.example.org")],
        [(V2, ISSUER.encode())],
        [(V2, UTF8 + b"x")],
        [(V1, ISSUER.encode()), (V2, b"\x0c\x01x")],
        [(V1, b"https://evil.example.org"), (V2, UTF8)],
    ],
)
def test_issuer_that_is_another_or_in_doubt_is_refused(pki, pairs):
    with pytest.raises(UntrustedSigner, match="another issuer"):
        check_issuer(with_issuers(pki, *pairs), ISSUER, what="x")


def test_subject_of_any_length_is_compared_at_once(pki):
    """The certificate is the signer's: what is in it must not hold up who looks at it."""
    leaf = pki.leaf(sans=[x509.RFC822Name("a" * 20_000 + "@example.org")])
    with pytest.raises(UntrustedSigner, match="from end to end"):
        check_subject(leaf, CertificateSubject(pattern=r"(a*)*(a|a)*b@example\.org"), what="x")
