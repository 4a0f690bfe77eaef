# SPDX-License-Identifier: Apache-2.0
"""The simple-signing payload: which manifest is signed, and under which name.

    {"critical":{"identity":{"docker-reference":"registry.example.org/team/app:v1"},
                 "image":{"docker-manifest-digest":"sha256:..."},
                 "type":"cosign container image signature"},
     "optional":{"creator":"imagers 0.1.0"}}

Two signature formats have this payload; `type` tells them apart, so that none can be taken
for the other: sigstore (above) and OpenPGP (`atomic container signature`).

Only a payload whose signature has been verified over its exact bytes is parsed for a
decision; parsing verifies nothing. It is strict, as containers/image is: a member more or
less in `critical`, another letter case, a name twice, another type are refused.

Spec: containers-signature.5.md; cosign SIGNATURE_SPEC.md; containers/image df7e80d2,
signature/internal/sigstore_payload.go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from imagers import __version__
from imagers.model.digest import Digest, parse_digest
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from imagers.model.strict_json import JSONObject

__all__ = ["MAX_PAYLOAD_BYTES", "Payload", "PayloadType", "build_payload", "parse_payload"]

MAX_PAYLOAD_BYTES = 64 * 1024  # a real one has 300 bytes; annotations of cosign add some
_WHAT = "signature payload"


class PayloadType(Enum):
    """Which signature format a payload is for."""

    SIGSTORE = "cosign container image signature"
    SIMPLE = "atomic container signature"


@dataclass(frozen=True, slots=True)
class Payload:
    """What a signer said. Nothing of it is verified by being in this type.

    Attributes:
        reference: the name as written; `identity.parse_signed_name` reads it.
        manifest_digest: of the exact bytes of the manifest or index.
        optional: what else the signer said; empty where it is null.
    """

    reference: str
    manifest_digest: Digest
    optional: JSONObject


def build_payload(
    reference: str,
    manifest_digest: Digest,
    *,
    timestamp: int | None = None,
    kind: PayloadType = PayloadType.SIGSTORE,
) -> bytes:
    """The bytes to sign, as containers/image writes them: sorted members, compact.

    Args:
        reference: the name that the signature is to speak for, with tag or digest.
        timestamp: seconds since 1970, for people; nothing verifies it. Without one, signing
            the same image again gives the same bytes.
    """
    optional: JSONObject = {"creator": f"imagers {__version__}"}
    if timestamp is not None:
        optional["timestamp"] = timestamp
    document = {
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": str(manifest_digest)},
            "type": kind.value,
        },
        "optional": optional,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode("ascii")


def parse_payload(raw: bytes, kind: PayloadType = PayloadType.SIGSTORE) -> Payload:
    """The payload in `raw`, which is *not* verified by this.

    Args:
        kind: the one that it must be.

    Raises:
        FormatError: not exactly a payload of this type.
    """
    document = View.parse(raw, what=_WHAT, max_bytes=MAX_PAYLOAD_BYTES)
    document.exactly("critical", "optional")
    critical = document.object("critical")
    critical.exactly("identity", "image", "type")
    told = critical.text("type")
    if told != kind.value:
        raise critical.error(f"expected {kind.value!r}, got {told[:160]!r}", "type")
    image = critical.object("image")
    image.exactly("docker-manifest-digest")
    identity = critical.object("identity")
    identity.exactly("docker-reference")
    return Payload(
        reference=identity.text("docker-reference"),
        manifest_digest=parse_digest(
            image.text("docker-manifest-digest"),
            what=_WHAT,
            where=image.at("docker-manifest-digest"),
        ),
        optional=_parse_optional(document, kind),
    )


def _parse_optional(document: View, kind: PayloadType) -> JSONObject:
    # cosign writes null where it has no annotations
    if document.value["optional"] is None and kind is PayloadType.SIGSTORE:
        return {}
    optional = document.object("optional")
    if "creator" in optional:
        optional.text("creator")
    timestamp = optional.value.get("timestamp", 0)
    # Go reads any number whose value is whole: 1.0 is one, true and "1" are not.
    is_whole = isinstance(timestamp, int) or (
        isinstance(timestamp, float) and timestamp.is_integer()
    )
    if isinstance(timestamp, bool) or not is_whole:
        raise optional.error("expected a whole number", "timestamp")
    return optional.value
