# SPDX-License-Identifier: Apache-2.0
"""What certificates and lists of all vendors' authorities have alike."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["BEFORE", "LIST_DAYS", "list_at", "revocation_list", "usage"]

BEFORE = timedelta(days=1)
"""All is valid from a day before."""
LIST_DAYS = 30


def usage(*, leaf: bool = False, lists: bool = False) -> x509.KeyUsage:
    """What the key of a certificate is for: a leaf's signs data, an authority's certificates.

    Args:
        lists: an authority's signs lists of revoked ones too.
    """
    return x509.KeyUsage(
        digital_signature=leaf,
        content_commitment=leaf,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not leaf,
        crl_sign=lists,
        encipher_only=False,
        decipher_only=False,
    )


def list_at(url: str) -> x509.CRLDistributionPoints:
    """Where the list of an issuer is."""
    where = x509.UniformResourceIdentifier(url)
    return x509.CRLDistributionPoints([x509.DistributionPoint([where], None, None, None)])


def revocation_list(
    issuer: x509.Name,
    begin: datetime,
    *,
    revoked: Iterable[int],
    number: int | None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]],
) -> x509.CertificateRevocationListBuilder:
    """A list that is to be signed.

    Args:
        begin: it is valid from the day before on, for `LIST_DAYS` after.
        revoked: serial numbers.
        number: of the list; None: it has none.
        extensions: more, and whether they are critical.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(begin - BEFORE)
        .next_update(begin + timedelta(days=LIST_DAYS))
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    for serial in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(serial)
            .revocation_date(begin - BEFORE)
            .build()
        )
    return builder
