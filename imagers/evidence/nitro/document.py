# SPDX-License-Identifier: Apache-2.0
"""The attestation document of AWS Nitro Enclaves, a COSE_Sign1 without a tag.

    document = parse_document(raw)
    document.pcrs[0]                    # nothing is verified

    [protected, {}, payload, signature]    payload: a map by names

The module writes the map of the payload without its length, so that is taken here.

Spec: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from imagers.model.strict_cbor import CBORView
from imagers.pki.chain import load_certificate
from imagers.pki.cose import ALG, parse_sign1

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.pki.cose import Sign1

__all__ = ["MAX_DOCUMENT", "Document", "parse_document"]

MAX_DOCUMENT = 16 * 1024
"""In bytes; the module answers with at most 12288."""
_DIGEST, _PCR_BYTES = "SHA384", 48
_PCRS = range(32)
_IDENTITY = (0, 1, 2)  # of the image: they are always there
_MAX_CERTIFICATE = 1024
_MAX_AUTHORITIES = 8
_MAX_PUBLIC_KEY, _MAX_DATA = 1024, 512
_MAX_TIME = 253402300799999  # the year 9999
_MAX_ID = 256
_CACHED = 256


@dataclass(frozen=True, slots=True)
class Document:
    """What a module signed. Nothing of it is verified.

    Attributes:
        module_id: of the machine and the enclave on it; it does not print.
        timestamp: milliseconds since 1970, by the module's clock.
        pcrs: registers by number, those that are there.
        certificate: of the key that signed, in DER.
        authorities: certificates from the root on, in DER.
        public_key, user_data, nonce: what the enclave gave; b"" where it gave nothing.
    """

    message: Sign1 = field(repr=False)
    module_id: str = field(repr=False)
    timestamp: int
    pcrs: Mapping[int, bytes]
    certificate: bytes = field(repr=False)
    authorities: tuple[bytes, ...] = field(repr=False)
    public_key: bytes
    user_data: bytes
    nonce: bytes


def parse_document(raw: bytes) -> Document:
    """The document in `raw`.

    Raises:
        FormatError: it is none, or says something outside of the signature.
    """
    what = "Nitro document"
    message = parse_sign1(
        raw, what=what, max_bytes=MAX_DOCUMENT, tagged=False, empty_unprotected=True
    )
    CBORView(message.protected, what=f"{what}, protected headers").only(ALG)
    claims = CBORView.parse(message.payload, what=what, max_bytes=MAX_DOCUMENT, open_ended=True)
    module = claims.text("module_id")
    if not 1 <= len(module) <= _MAX_ID:
        raise claims.error(f"expected 1 to {_MAX_ID} characters", "module_id")
    if (digest := claims.text("digest")) != _DIGEST:
        raise claims.error(f"expected {_DIGEST!r}, got {digest[:40]!r}", "digest")
    authorities = claims.byte_strings("cabundle", least=1, most=_MAX_AUTHORITIES)
    if any(not 1 <= len(one) <= _MAX_CERTIFICATE for one in authorities):
        raise claims.error(f"expected certificates of 1 to {_MAX_CERTIFICATE} bytes", "cabundle")
    certificate = claims.byte_string("certificate", max_size=_MAX_CERTIFICATE)
    for one in (*authorities, certificate):
        _check_readable(one)
    return Document(
        message=message,
        module_id=module,
        timestamp=claims.integer("timestamp", minimum=1, maximum=_MAX_TIME),
        pcrs=_parse_pcrs(claims.map("pcrs")),
        certificate=certificate,
        authorities=authorities,
        public_key=_optional(claims, "public_key", _MAX_PUBLIC_KEY),
        user_data=_optional(claims, "user_data", _MAX_DATA),
        nonce=_optional(claims, "nonce", _MAX_DATA),
    )


@lru_cache(_CACHED)
def _check_readable(certificate: bytes) -> None:
    """Raise unless it is a certificate; what raises is not cached."""
    load_certificate(certificate, what="certificate")


def _parse_pcrs(registers: CBORView) -> dict[int, bytes]:
    pcrs: dict[int, bytes] = {}
    for number in registers.value:
        if not isinstance(number, int) or number not in _PCRS:
            raise registers.error("expected registers from 0 to 31")
        pcrs[number] = registers.byte_string(number, sizes=(_PCR_BYTES,))
    for number in _IDENTITY:
        if number not in pcrs:
            raise registers.error("is missing", number)
    return pcrs


def _optional(claims: CBORView, name: str, most: int) -> bytes:
    """Bytes; b"" where they are absent, null, or of no length: all three say the same."""
    return claims.byte_string(name, max_size=most) if name in claims else b""
