"""The trusted root file of sigstore: keys of logs and certificates of authorities, in one file.

    root = parse_trusted_root(raw, what="trusted_root.json")
    root.logs, root.authorities, root.stampers

The file is given by the user; nothing is fetched and nothing is updated. What has an end of its
validity, past or to come, is left out: a retired key could still sign for times at which nobody
watches it any more. So a file has to be exchanged when its keys are.

Spec: sigstore protobuf-specs v0.4, sigstore_trustroot.proto; media type
application/vnd.dev.sigstore.trustedroot+json;version=0.1 (and 0.2).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import FormatError, Unsupported
from imagers.model.strict_json import (
    JSON,
    JSONObject,
    get_list,
    get_object,
    get_optional_object,
    get_str,
    parse_object,
)
from imagers.pki.chain import load_certificate
from imagers.sign.public_key import PublicKey, public_key_of

if TYPE_CHECKING:
    from cryptography import x509

__all__ = ["TrustedRoot", "parse_trusted_root"]

_MAX_BYTES = 1024 * 1024
_MAX_ENTRIES = 64  # of each list
_TYPES = tuple(
    f"application/vnd.dev.sigstore.trustedroot+json;version={version}" for version in ("0.1", "0.2")
)
_NEW_TYPE = "application/vnd.dev.sigstore.trustedroot.v0.2+json"


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """What of the file is in force.

    Attributes:
        logs: keys of Rekor logs.
        authorities: certificates of Fulcio.
        stampers: certificates of time-stamp authorities.
    """

    logs: tuple[PublicKey, ...]
    authorities: tuple[x509.Certificate, ...]
    stampers: tuple[x509.Certificate, ...]


def parse_trusted_root(raw: bytes, *, what: str) -> TrustedRoot:
    """The trusted root in `raw`.

    Raises:
        FormatError: it is none.
    """
    document = parse_object(raw, what=what, max_bytes=_MAX_BYTES)
    media_type = get_str(document, "mediaType", what=what)
    if media_type not in (*_TYPES, _NEW_TYPE):
        raise FormatError(
            f"expected {_TYPES[0]!r}, got {media_type[:120]!r}", what=what, where="$.mediaType"
        )
    logs = []
    for item, where in _entries(document, "tlogs", what):
        key = get_object(item, "publicKey", what=what, where=where)
        found = _log_key(_bytes(key, what, f"{where}.publicKey"), what)
        if found is not None and not _ends(key, what, where):
            logs.append(found)
    return TrustedRoot(
        tuple(logs),
        _chains(document, "certificateAuthorities", what),
        _chains(document, "timestampAuthorities", what),
    )


def _entries(document: JSONObject, member: str, what: str) -> list[tuple[JSONObject, str]]:
    if document.get(member) is None:
        return []
    found = get_list(document, member, what=what)
    if len(found) > _MAX_ENTRIES:
        raise FormatError(f"expected at most {_MAX_ENTRIES} entries", what=what, where=member)
    return [
        (_object(one, what, f"$.{member}[{index}]"), f"$.{member}[{index}]")
        for index, one in enumerate(found)
    ]


def _object(value: JSON, what: str, where: str) -> JSONObject:
    if not isinstance(value, dict):
        raise FormatError("expected an object", what=what, where=where)
    return value


def _ends(document: JSONObject, what: str, where: str) -> bool:
    valid = get_optional_object(document, "validFor", what=what, where=where)
    return valid is not None and valid.get("end") is not None


def _bytes(document: JSONObject, what: str, where: str) -> bytes:
    try:
        return base64.b64decode(
            get_str(document, "rawBytes", what=what, where=where), validate=True
        )
    except (binascii.Error, ValueError):
        raise FormatError("expected base64", what=what, where=f"{where}.rawBytes") from None


def _log_key(der: bytes, what: str) -> PublicKey | None:
    """The key of a log; None for kinds that promise nothing that is checked here."""
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("holds a key that cannot be read", what=what, where="$.tlogs") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    try:
        return public_key_of(key, what=what)
    except Unsupported:
        return None


def _chains(document: JSONObject, member: str, what: str) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    for item, where in _entries(document, member, what):
        chain = get_object(item, "certChain", what=what, where=where)
        certificates = get_list(chain, "certificates", what=what, where=f"{where}.certChain")
        if len(certificates) > _MAX_ENTRIES:
            raise FormatError(f"expected at most {_MAX_ENTRIES} entries", what=what, where=where)
        loaded = [
            load_certificate(_bytes(_object(one, what, where), what, where), what=what)
            for one in certificates
        ]
        if not _ends(item, what, where):
            found += loaded
    return tuple(found)
