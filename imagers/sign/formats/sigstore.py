# SPDX-License-Identifier: Apache-2.0
"""Sigstore signatures as registries keep them: one manifest a signed manifest, by tag.

    tag sha256-HEX.sig   OCI manifest
        config           OCI config, rootfs.diff_ids = digests of the payloads
        layers[i]        a payload; annotation dev.cosignproject.cosign/signature = base64

This module builds and reads those bytes; it decides nothing. What it reads is unverified until
`verify.verify_image` has looked at it.

Spec: cosign SIGNATURE_SPEC.md; containers/image df7e80d2, docker/docker_image_dest.go,
putSignaturesToSigstoreAttachments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.base64 import decode_base64_lines, encode_base64
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, digest_of
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_CONFIG, OCI_MANIFEST
from imagers.model.strict_json import JSON, JSONObject, dump_json
from imagers.sign.found import PAYLOAD_TYPE, SigstoreSignature
from imagers.sign.payload import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imagers.model.manifest import Manifest
    from imagers.sign.sigstore_key import SigstorePrivateKey

__all__ = [
    "CERTIFICATE_ANNOTATION",
    "CHAIN_ANNOTATION",
    "MAX_SIGNATURES",
    "SIGNATURE_ANNOTATION",
    "SignatureManifest",
    "build_signature_manifest",
    "decode_signature",
    "parse_signature_manifest",
    "sign_payload",
    "signature_tag",
]

SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
CERTIFICATE_ANNOTATION = "dev.sigstore.cosign/certificate"
CHAIN_ANNOTATION = "dev.sigstore.cosign/chain"
MAX_SIGNATURES = 256  # of one manifest: each costs a request and a few verifications
_MAX_SIGNATURE_TEXT = 4096  # characters; RSA-8192 has 1368
_WHAT = "signature manifest"


@dataclass(frozen=True, slots=True)
class SignatureManifest:
    """A parsed signature manifest.

    Attributes:
        signatures: descriptors of the payloads, with their annotations, at most
            `MAX_SIGNATURES`.
        others: layers of other types, such as attestations.
    """

    manifest: Manifest
    signatures: tuple[Descriptor, ...]
    others: int


def signature_tag(digest: Digest) -> str:
    """The tag that signatures of the manifest with `digest` are found under."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def sign_payload(payload: bytes, key: SigstorePrivateKey) -> SigstoreSignature:
    """A signature over exactly `payload`, with the certificates of the key if it has any."""
    from cryptography.hazmat.primitives import serialization

    text = encode_base64(key.sign(payload))
    annotations = {SIGNATURE_ANNOTATION: text}
    leaf, rest = key.certificates[:1], key.certificates[1:]
    for name, certificates in ((CERTIFICATE_ANNOTATION, leaf), (CHAIN_ANNOTATION, rest)):
        if certificates:
            blocks = [one.public_bytes(serialization.Encoding.PEM) for one in certificates]
            annotations[name] = b"".join(blocks).decode("ascii")
    return SigstoreSignature(payload, annotations)


def decode_signature(annotations: Mapping[str, str]) -> bytes:
    """The signature bytes beside a payload.

    Line ends inside the base64 are ignored, as cosign, containers/image and image-rs do.

    Raises:
        FormatError: there is none, or it is not base64.
    """
    text = annotations.get(SIGNATURE_ANNOTATION)
    if text is None:
        raise FormatError(f"has no annotation {SIGNATURE_ANNOTATION!r}", what="signature")
    if len(text) > _MAX_SIGNATURE_TEXT:
        raise FormatError(
            f"expected at most {_MAX_SIGNATURE_TEXT} characters, got {len(text)}", what="signature"
        )
    return decode_base64_lines(text, what="signature")


def parse_signature_manifest(raw: bytes, *, media_type: str) -> SignatureManifest:
    """The signature manifest in `raw`.

    Raises:
        FormatError: not a manifest, or beyond a bound.
        Unsupported: a manifest of another kind.
    """
    manifest = parse_manifest(raw, media_type=media_type)
    found = tuple(layer for layer in manifest.layers if layer.media_type == PAYLOAD_TYPE)
    if len(found) > MAX_SIGNATURES:
        raise FormatError(
            f"expected at most {MAX_SIGNATURES} signatures, got {len(found)}",
            what=_WHAT,
            where="$.layers",
        )
    for index, layer in enumerate(found):
        if layer.size > MAX_PAYLOAD_BYTES:
            raise FormatError(
                f"expected a payload of at most {MAX_PAYLOAD_BYTES} bytes, got {layer.size}",
                what=_WHAT,
                where=f"signature {index + 1}",
            )
    return SignatureManifest(manifest, found, len(manifest.layers) - len(found))


def build_signature_manifest(
    existing: SignatureManifest | None, added: Sequence[SigstoreSignature]
) -> tuple[bytes, bytes]:
    """The bytes of a manifest with all of `existing` and `added`, and those of its config.

    The layers that are there stay as they were written, members that we do not know and layers
    of other types included. Push the payloads and the config before the manifest.

    Raises:
        FormatError: there would be more than `MAX_SIGNATURES`, or `existing` is a manifest of
            another kind, which is not ours to change.
    """
    document: JSONObject = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    old: list[JSON] = []
    digests: list[Digest] = []
    if existing is not None:
        types = (existing.manifest.descriptor.media_type, existing.manifest.config.media_type)
        if types != (OCI_MANIFEST, OCI_CONFIG):
            raise FormatError(
                f"expected types {OCI_MANIFEST!r} and {OCI_CONFIG!r}, "
                f"got {types[0]!r} and {types[1]!r}",
                what=_WHAT,
                where="$.config.mediaType",
                hint="the tag holds something else than signatures; it was left alone",
            )
        document = dict(existing.manifest.document)
        old_layers = document.get("layers") or []
        assert isinstance(old_layers, list)  # parse_manifest has seen to it
        old = old_layers
        digests = [layer.digest for layer in existing.manifest.layers]
    count = len(added) + (0 if existing is None else len(existing.signatures))
    if count > MAX_SIGNATURES:
        raise FormatError(
            f"expected at most {MAX_SIGNATURES} signatures, this would make {count}",
            what=_WHAT,
            hint="delete the tag of the signatures and sign again with the keys in use",
        )
    descriptors = [
        Descriptor(
            one.media_type, digest_of(one.payload), len(one.payload), annotations=one.annotations
        )
        for one in added
    ]
    digests += [one.digest for one in descriptors]
    config = dump_json(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(one) for one in digests]},
        }
    )
    document["config"] = Descriptor(OCI_CONFIG, digest_of(config), len(config)).to_json()
    document["layers"] = [*old, *(one.to_json() for one in descriptors)]
    return dump_json(document), config
