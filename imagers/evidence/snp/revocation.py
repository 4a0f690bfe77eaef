# SPDX-License-Identifier: Apache-2.0
"""AMD's lists of revoked certificates: two for each product, one of each kind of key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.snp.certificates import is_signed_by
from imagers.evidence.steps import FETCH_NEWEST

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.evidence.snp.certificates import Authority
    from imagers.evidence.snp.report import Product

__all__ = ["check_crl", "crl_name", "crl_number", "name_of_crl", "parse_crl"]

_MAX_CRL = 1024 * 1024


def crl_name(product: Product, *, is_vlek: bool) -> str:
    """How the list is called among the collateral."""
    return f"snp/{product.name}/{'vlek' if is_vlek else 'vcek'}.crl"


def name_of_crl(product: Product, *, is_vlek: bool) -> str:
    """How a message calls it."""
    kind = "VLEK" if is_vlek else "VCEK"
    return f"list of revoked certificates of {product.name} for a {kind}"


def check_crl(der: bytes, authority: Authority, *, is_vlek: bool, now: datetime) -> dict[str, int]:
    """Raise unless the list is good, and neither the root nor the issuer of leaves is in it.

    Returns:
        Its number, if it has one, and its time, in seconds of Unix: `Claims.collateral`.

    Raises:
        EvidenceRejected: it is another's, or one of them is revoked.
        CouldNotVerify: it is not valid now, or not of all certificates.
        FormatError: it is no list.
    """
    name = name_of_crl(authority.product, is_vlek=is_vlek)
    crl = parse_crl(der, authority, is_vlek=is_vlek)
    end = crl.next_update_utc
    if now < crl.last_update_utc or end is None or now > end:
        raise CouldNotVerify(
            f"the {name} is not valid at {now:%Y-%m-%dT%H:%M:%SZ}: expected "
            f"{crl.last_update_utc:%Y-%m-%dT%H:%M:%SZ} to {end and f'{end:%Y-%m-%dT%H:%M:%SZ}'}",
            hint=FETCH_NEWEST,
        )
    if (limit := _limit(crl, name)) is not None:
        raise CouldNotVerify(f"expected a {name} of every certificate and reason, got {limit}")
    for what, one in (
        ("ASVK" if is_vlek else "ASK", authority.issuer(is_vlek=is_vlek)),
        ("ARK", authority.ark),
    ):
        if crl.get_revoked_certificate_by_serial_number(one.serial_number) is not None:
            raise EvidenceRejected(f"the {what} is revoked by AMD")
    path = crl_name(authority.product, is_vlek=is_vlek)
    told = {f"{path} time": int(crl.last_update_utc.timestamp())}
    if (number := crl_number(crl)) is not None:
        told[f"{path} number"] = number
    return told


def parse_crl(der: bytes, authority: Authority, *, is_vlek: bool) -> x509.CertificateRevocationList:
    """The list, signed by the root; its times and its extensions are not looked at.

    Raises:
        EvidenceRejected: it is another's.
        FormatError: it is no list.
    """
    name = name_of_crl(authority.product, is_vlek=is_vlek)
    if len(der) > _MAX_CRL:
        raise FormatError(f"expected at most {_MAX_CRL} bytes, got {len(der)}", what=name)
    try:
        crl = x509.load_der_x509_crl(der)
        body = crl.tbs_certlist_bytes
        _ = crl.next_update_utc  # which may be none that can be read
    except (ValueError, x509.InvalidVersion):
        raise FormatError("is no list that can be read", what=name) from None
    if not is_signed_by(authority.ark, crl.signature, body):
        raise EvidenceRejected(f"the {name} is not signed by the ARK")
    return crl


def crl_number(crl: x509.CertificateRevocationList) -> int | None:
    """How many lists there were before it; None: it does not say."""
    for extension in crl.extensions:
        if isinstance(extension.value, x509.CRLNumber):
            return extension.value.crl_number
    return None


def _limit(crl: x509.CertificateRevocationList, name: str) -> str | None:
    """Why a revoked authority need not stand in it; None: it does (RFC 5280, section 5.2)."""
    try:
        extensions = list(crl.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise FormatError("has extensions that cannot be read", what=name) from None
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            return "changes alone"
        if isinstance(value, x509.IssuingDistributionPoint):
            if (
                value.only_contains_user_certs
                or value.only_contains_attribute_certs
                or value.only_some_reasons
                or value.indirect_crl
            ):
                return "a part"
        elif extension.critical:
            return f"the critical extension {extension.oid.dotted_string}"
    return None
