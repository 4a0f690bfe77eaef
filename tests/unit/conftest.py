# SPDX-License-Identifier: Apache-2.0
"""What the tests of several packages share."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "ocicrypt"


@pytest.fixture(scope="session")
def vectors():
    return VECTORS


class Pki:
    """A root, an intermediate and leaves, made at will."""

    START = datetime(2026, 1, 1, tzinfo=UTC)
    END = datetime(2030, 1, 1, tzinfo=UTC)

    def __init__(self):
        self.keys = {}
        self.root = self.make("root", None, ca=True)
        self.middle = self.make("middle", "root", ca=True)

    def make(  # every member that a test may want to be wrong
        self,
        name,
        issuer,
        *,
        ca=False,
        start=START,
        end=END,
        usages=(),
        critical_usages=False,
        sans=(),
        key=None,
        key_usage=None,
        path_length=None,
        extra=(),
        hash_algorithm=None,
        subject=None,
    ):
        key = key or ec.generate_private_key(ec.SECP256R1())
        issuer = issuer or name
        self.keys[name] = key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        )
        flags = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        flags |= {"key_cert_sign": True} if ca else {"digital_signature": True}
        builder = builder.add_extension(x509.KeyUsage(**(flags | (key_usage or {}))), critical=True)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=critical_usages)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.keys[issuer], hash_algorithm or hashes.SHA256())

    def leaf(self, name="leaf", issuer="middle", **options):
        options.setdefault("usages", [ExtendedKeyUsageOID.CODE_SIGNING])
        options.setdefault("sans", [x509.RFC822Name("builder@example.org")])
        return self.make(name, issuer, **options)


def to_pem(*certificates):
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


@pytest.fixture
def pki():
    return Pki()


@pytest.fixture
def pem():
    return to_pem
