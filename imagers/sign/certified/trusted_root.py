# SPDX-License-Identifier: Apache-2.0
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

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import Unsupported
from imagers.model.strict_json import View
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
    document = View.parse(raw, what=what, max_bytes=_MAX_BYTES)
    media_type = document.text("mediaType")
    if media_type not in (*_TYPES, _NEW_TYPE):
        raise document.error(f"expected {_TYPES[0]!r}, got {media_type[:120]!r}", "mediaType")
    logs = []
    for log in document.objects("tlogs", most=_MAX_ENTRIES, null_is_empty=True):
        key = log.object("publicKey")
        found = _log_key(key)
        if found is not None and not _ends(key):
            logs.append(found)
    return TrustedRoot(
        tuple(logs),
        _chains(document, "certificateAuthorities"),
        _chains(document, "timestampAuthorities"),
    )


def _ends(view: View) -> bool:
    valid = view.optional_object("validFor")
    return valid is not None and valid.value.get("end") is not None


def _log_key(view: View) -> PublicKey | None:
    """The key of a log; None for kinds that promise nothing that is checked here."""
    try:
        key = serialization.load_der_public_key(view.bytes64("rawBytes"))
    except (ValueError, UnsupportedAlgorithm):
        raise view.error("holds a key that cannot be read", "rawBytes") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    try:
        return public_key_of(key, what=view.what)
    except Unsupported:
        return None


def _chains(document: View, name: str) -> tuple[x509.Certificate, ...]:
    found: list[x509.Certificate] = []
    for item in document.objects(name, most=_MAX_ENTRIES, null_is_empty=True):
        certificates = item.object("certChain").objects("certificates", most=_MAX_ENTRIES)
        loaded = [load_certificate(one.bytes64("rawBytes"), what=one.what) for one in certificates]
        if not _ends(item):
            found += loaded
    return tuple(found)
