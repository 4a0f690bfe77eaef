# SPDX-License-Identifier: Apache-2.0
"""Whom a signer's certificate is for: alternative names, and the login that fulcio saw.

    check_subject(leaf, CertificateSubject(email="builder@example.org"), what="certificate")
    check_issuer(leaf, "https://accounts.example.org", what="certificate")

Spec: fulcio docs/oid-info.md; RFC 5280 section 4.2.1.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from imagers.errors import FormatError, UntrustedSigner
from imagers.pki import der
from imagers.pki.chain import alternative_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.sign.requirements import CertificateSubject

__all__ = ["check_issuer", "check_subject"]

_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_UTF8_STRING = 0x0C  # its tag in DER


def check_subject(leaf: x509.Certificate, wanted: CertificateSubject, *, what: str) -> None:
    """Raise unless the certificate is for everything that `wanted` names.

    The name in the subject itself is not looked at, only the alternative names: the first is
    free text.

    Raises:
        UntrustedSigner: it is for somebody else.
    """
    pairs = (
        (wanted.email, x509.RFC822Name, "e-mail address"),
        (wanted.uri, x509.UniformResourceIdentifier, "URI"),
    )
    for text, kind, noun in pairs:
        if text is not None and text not in (names := alternative_names(leaf, kind)):
            raise UntrustedSigner(
                f"{what}: the certificate is for another {noun}: expected '{text}', "
                f"got {_quoted(names)}"
            )
    if wanted.pattern is not None:
        names = [name for _, kind, _ in pairs for name in alternative_names(leaf, kind)]
        if not any(_matches(wanted.pattern, name) for name in names):
            raise UntrustedSigner(
                f"{what}: the certificate is for somebody else: expected an e-mail address or a "
                f"URI that matches '{wanted.pattern}' from end to end, got {_quoted(names)}"
            )
    if wanted.hostname is not None:
        names = alternative_names(leaf, x509.DNSName)
        if not any(_is_host(name, wanted.hostname) for name in names):
            raise UntrustedSigner(
                f"{what}: the certificate is for another host: expected '{wanted.hostname}', "
                f"got {_quoted(names)}"
            )


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names[:4]) or "none"


def _matches(pattern: str, name: str) -> bool:
    """Whether the whole name matches: a part of it may be chosen by whoever has the account."""
    import re2  # as slow as the name is long, whatever the expression

    return re2.fullmatch(pattern, name) is not None


def _is_host(pattern: str, host: str) -> bool:
    """Whether a name of a certificate is for a host; `*` stands for its first label only."""
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if pattern == host:
        return True
    first, _, rest = host.partition(".")
    return bool(first) and "." in rest and pattern == f"*.{rest}"


def check_issuer(leaf: x509.Certificate, wanted: str, *, what: str) -> None:
    """Raise unless fulcio made the certificate for a login at the issuer `wanted`.

    Raises:
        UntrustedSigner: for a login somewhere else, or it does not say where.
    """
    found: set[str] = set()
    for extension in leaf.extensions:
        if extension.oid not in (_ISSUER_V1, _ISSUER_V2):
            continue
        assert isinstance(extension.value, x509.UnrecognizedExtension)
        raw = extension.value.value
        if extension.oid == _ISSUER_V2:
            raw = _utf8_string(raw)
        found.add(raw.decode("utf-8", "backslashreplace"))
    # Both are there in newer certificates, and have to agree.
    if found != {wanted}:
        raise UntrustedSigner(
            f"{what}: the certificate is for a login at another issuer: expected '{wanted}', "
            f"got {_quoted(sorted(found))}"
        )


def _utf8_string(raw: bytes) -> bytes:
    """The content of a DER UTF8String; what is none compares with nothing."""
    try:
        content = der.only(raw, _UTF8_STRING, what="issuer")
    except FormatError:
        content = b""
    return content if der.encode(_UTF8_STRING, content) == raw else b"\xff" + raw
