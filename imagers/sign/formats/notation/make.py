# SPDX-License-Identifier: Apache-2.0
"""Sign as notation does, with a local key: an envelope that refers to the manifest.

    signed = attach_notation(source, sink, referrers, reference, key, created=now)

Of an index, every image in it and the index itself get a signature. Each envelope is read back
and verified before it is published.

Spec: notaryproject specifications v1.1, signature-specification.md, signature-envelope-jws.md,
signature-envelope-cose.md; oras and notation store it as an OCI 1.1 referrer.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

from imagers import __version__
from imagers.model.base64 import encode_base64
from imagers.model.descriptor import Descriptor
from imagers.model.digest import check_digest, digest_of
from imagers.model.manifest import parse_manifest_or_index
from imagers.model.media import OCI_MANIFEST
from imagers.model.strict_json import JSONObject, dump_json
from imagers.pki.algorithms import algorithm_of
from imagers.pki.cose import ALG, CONTENT_TYPE, CRIT, X5CHAIN, build_sign1
from imagers.pki.jose import build_jws
from imagers.sign.find import read_attached
from imagers.sign.formats.notation.check import thumbprints
from imagers.sign.formats.notation.envelope import (
    COSE_TYPE,
    JWS_TYPE,
    PAYLOAD_TYPE,
    PREFIX,
    SCHEME_X509,
    attributes_json,
    parse_envelope,
)
from imagers.sign.found import NOTATION_TYPE, NotationSignature
from imagers.sign.image import SignedManifest, digests_to_sign, referrers_of

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.model.digest import Digest
    from imagers.model.reference import Reference
    from imagers.sign.formats.notation.key import NotationKey
    from imagers.sign.repository import ManifestSource, ReferrersSink, SignatureSink

__all__ = ["attach_notation", "build_envelope"]

_AGENT = f"imagers/{__version__}"
_EMPTY = b"{}"
_CBOR_TIME = 1  # the tag of seconds since 1970


def build_envelope(
    key: NotationKey,
    subject: Descriptor,
    *,
    media_type: str,
    created: datetime,
    expiry: datetime | None = None,
) -> bytes:
    """The envelope that signs the manifest `subject`.

    Args:
        media_type: `envelope.JWS_TYPE` or `envelope.COSE_TYPE`.
        created: aware; when it is signed.
        expiry: aware; None: never.
    """
    payload = dump_json(
        {
            "targetArtifact": {
                "mediaType": subject.media_type,
                "digest": str(subject.digest),
                "size": subject.size,
            }
        }
    )
    build = _build_cose if media_type == COSE_TYPE else _build_jws
    raw = build(key, payload, created.replace(microsecond=0), expiry)
    # What is published was read as those who verify will read it.
    parse_envelope(raw, media_type).check_integrity()
    return raw


def _build_jws(
    key: NotationKey, payload: bytes, created: datetime, expiry: datetime | None
) -> bytes:
    crit, attributes = attributes_json(SCHEME_X509, created, expiry)
    protected: JSONObject = {
        "alg": algorithm_of(key.chain[0].public_key()).jws,
        "crit": list(crit),
        "cty": PAYLOAD_TYPE,
        **attributes,
    }
    der = serialization.Encoding.DER
    header: JSONObject = {
        "x5c": [encode_base64(one.public_bytes(der)) for one in key.chain],
        f"{PREFIX}signingAgent": _AGENT,
    }
    return dump_json({**build_jws(protected, payload, key.sign), "header": header})


def _build_cose(
    key: NotationKey, payload: bytes, created: datetime, expiry: datetime | None
) -> bytes:
    import cbor2

    crit = [f"{PREFIX}signingScheme"]
    headers: dict[int | str, object] = {
        ALG: algorithm_of(key.chain[0].public_key()).cose,
        CRIT: crit,
        CONTENT_TYPE: PAYLOAD_TYPE,
        f"{PREFIX}signingScheme": SCHEME_X509,
        f"{PREFIX}signingTime": cbor2.CBORTag(_CBOR_TIME, int(created.timestamp())),
    }
    if expiry is not None:
        crit.append(f"{PREFIX}expiry")
        headers[f"{PREFIX}expiry"] = cbor2.CBORTag(_CBOR_TIME, int(expiry.timestamp()))
    der = serialization.Encoding.DER
    unprotected: dict[int | str, object] = {
        X5CHAIN: [one.public_bytes(der) for one in key.chain],
        f"{PREFIX}signingAgent": _AGENT,
    }
    return build_sign1(headers, unprotected, payload, key.sign)


def attach_notation(
    source: ManifestSource,
    sink: SignatureSink,
    referrers: ReferrersSink,
    reference: Reference,
    key: NotationKey,
    *,
    created: datetime,
    expiry: datetime | None = None,
    expected_digest: Digest | None = None,
    media_type: str = JWS_TYPE,
) -> tuple[SignedManifest, ...]:
    """Sign the image that `source` names, and attach the signatures to it.

    An envelope names no image, so there is no identity. Signing again adds a signature: each
    has a time, and may have an expiry.

    Args:
        created, expiry, media_type: see `build_envelope`.

    Raises:
        As `imagers.sign.image.sign_image`.
    """
    signed = []
    for digest in digests_to_sign(source, reference, expected_digest=expected_digest):
        answer = source.read_manifest(digest)
        check_digest(answer.raw, digest, what="manifest to sign")
        subject = parse_manifest_or_index(answer.raw, media_type=answer.media_type).descriptor
        found = read_attached(source, referrers, digest, {NotationSignature.format})
        envelope = build_envelope(
            key, subject, media_type=media_type, created=created, expiry=expiry
        )
        _attach(sink, referrers, subject, key, envelope, media_type=media_type, created=created)
        signed.append(
            SignedManifest(
                digest,
                referrers_of(digest),
                "",
                added=True,
                count=len(found.signatures) + 1,
            )
        )
    return tuple(signed)


def _attach(
    sink: SignatureSink,
    referrers: ReferrersSink,
    subject: Descriptor,
    key: NotationKey,
    envelope: bytes,
    *,
    media_type: str,
    created: datetime,
) -> None:
    annotations = {
        "io.cncf.notary.x509chain.thumbprint#S256": dump_json(
            list(thumbprints(key.chain))
        ).decode(),
        "org.opencontainers.image.created": f"{created.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    layer = Descriptor(media_type, digest_of(envelope), len(envelope))
    config = Descriptor(NOTATION_TYPE, digest_of(_EMPTY), len(_EMPTY))
    raw = dump_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json()],
            "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
            "annotations": dict(annotations),
        }
    )
    sink.put_blob(layer, envelope, what="notation envelope")
    sink.put_blob(config, _EMPTY, what="config of the signature")
    entry = Descriptor(
        OCI_MANIFEST,
        digest_of(raw),
        len(raw),
        annotations=annotations,
        artifact_type=NOTATION_TYPE,
    )
    referrers.put_referrer(raw, entry, subject.digest)
