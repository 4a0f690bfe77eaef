# SPDX-License-Identifier: Apache-2.0
"""What a broker needs on its first day: a CA, a certificate of it, and a configuration file.

    made = make_first_day(Path("broker"), ["broker.example.org"], now=now)
    # imagers broker serve --config broker/broker.toml

The key of the CA is not kept: what trusts it trusts these certificates and no others, ever.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagers.errors import LocalError, UsageError
from imagers.files import local_errors, sync_directory, write_new

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["CONFIG", "FirstDay", "make_first_day"]

CONFIG = "broker.toml"
_CA = "ca.pem"
_CERTIFICATE = "server.pem"
_KEY = "server.key"
_DAYS = 365
_CLOCKS = timedelta(hours=1)  # how far another clock may be behind
_PORT = 8443
_HERE = ("localhost", "127.0.0.1", "::1")
_MAX_NAME = 253
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_SETTINGS = """\
# All keys: docs/broker.md. Which TEEs your guests have: tee = ["snp", "tdx"]
listen = "{listen}"
certificate = "{certificate}"
certificate-key = "{key}"
state = "state"
"""


@dataclass(frozen=True, slots=True)
class FirstDay:
    """What was made.

    Attributes:
        names: that the certificate is for.
        ca, certificate, key, config: the files.
        not_after: of both certificates.
    """

    names: tuple[str, ...]
    ca: Path
    certificate: Path
    key: Path
    config: Path
    not_after: datetime


def make_first_day(directory: Path, names: Sequence[str], *, now: datetime) -> FirstDay:
    """Make a directory with all of it, or nothing.

    Args:
        directory: missing or empty.
        names: hosts and addresses by which others reach the broker; those of this machine alone
            (`localhost` and its addresses) are added.

    Raises:
        UsageError: a name is none.
        LocalError: the directory has something in it, or cannot be written.
    """
    wanted = tuple(dict.fromkeys((*names, *_HERE)))
    subjects = [_general_name(name) for name in wanted]
    not_after = (now + timedelta(days=_DAYS)).replace(microsecond=0)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _named("imagers broker, CA of the first day")
    ca = (
        _builder(ca_name, ca_name, key=ca_key, issuer_key=ca_key, now=now, not_after=not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_ca=True), critical=True)
        .sign(ca_key, SHA256())
    )
    certificate = (
        _builder(
            _named("imagers broker"),
            ca_name,
            key=key,
            issuer_key=ca_key,
            now=now,
            not_after=not_after,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
        .sign(ca_key, SHA256())
    )
    listen = f"0.0.0.0:{_PORT}" if names else f"127.0.0.1:{_PORT}"
    settings = _SETTINGS.format(listen=listen, certificate=_CERTIFICATE, key=_KEY)
    _write_all(
        directory,
        {
            _CA: (ca.public_bytes(Encoding.PEM), 0o644),
            _CERTIFICATE: (certificate.public_bytes(Encoding.PEM), 0o644),
            _KEY: (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600),
            CONFIG: (settings.encode(), 0o644),
        },
    )
    return FirstDay(
        wanted,
        directory / _CA,
        directory / _CERTIFICATE,
        directory / _KEY,
        directory / CONFIG,
        not_after,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if len(name) > _MAX_NAME or _HOST.match(name) is None:
        raise UsageError(
            "--name: expected a host such as 'broker.example.org', or an address, "
            f"got {name[:80]!r}"
        )
    return x509.DNSName(name.lower())


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    *,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """What the two certificates have in common.

    Spec: RFC 5280, sections 4.1 and 4.2.1.
    """
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _write_all(directory: Path, files: dict[str, tuple[bytes, int]]) -> None:
    """Let a directory of these files appear at once, for its owner only."""
    parent = directory.absolute().parent
    with local_errors(directory):
        temporary = Path(tempfile.mkdtemp(prefix=".imagers-", dir=parent))
        try:
            for name, (data, mode) in files.items():
                write_new(temporary / name, data, mode=mode)
            sync_directory(temporary)
            _check_free(directory)
            os.rename(temporary, directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    sync_directory(parent)


def _check_free(directory: Path) -> None:
    if directory.is_symlink() or (directory.exists() and any(directory.iterdir())):
        raise LocalError(
            "expected a directory that is not there yet, or is empty",
            path=str(directory),
            hint="certificates are replaced one by one: docs/broker.md says how",
        )
