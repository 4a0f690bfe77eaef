# SPDX-License-Identifier: Apache-2.0
"""What an image is, without a key and without a verdict.

with open_image("registry.example.org/app:v1", transport) as image:
facts = inspect_image(image.source, image.find)
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from imagers.model.descriptor import Platform
from imagers.model.digest import Digest
from imagers.model.image import ImageSource
from imagers.model.manifest import Index, parse_manifest_or_index
from imagers.model.media import is_encrypted
from imagers.sign.formats.format import FORMATS
from imagers.sign.found import Found
from imagers.transport.resolve import resolve_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.model.image import Layer
    from imagers.model.keys import WrappedKey

__all__ = ["inspect_image"]

# What people look for in a config, by the names of image-spec v1.1, config.md; as it stands there.
_CONFIG_FACTS = {
    "user": "User",
    "working_dir": "WorkingDir",
    "entrypoint": "Entrypoint",
    "cmd": "Cmd",
    "env": "Env",
    "labels": "Labels",
    "exposed_ports": "ExposedPorts",
    "volumes": "Volumes",
}


def _referrers(source: ImageSource, subject: str) -> list[dict[str, object]]:
    from imagers.model.digest import parse_digest
    from imagers.transport.referrers import read_referrers_of

    return [
        {
            "digest": str(entry.digest),
            "size": entry.size,
            "media_type": entry.media_type,
            "artifact_type": entry.artifact_type,
            "subject": subject,
            "annotations": dict(entry.annotations),
        }
        for entry in read_referrers_of(source, parse_digest(subject))
    ]


def inspect_image(
    source: ImageSource,
    find: Callable[[Digest, Collection[str]], Found],
    platform: Platform | None = None,
    *,
    referrers: bool = False,
) -> dict[str, object]:
    """What an image is, as facts that JSON can have. Nothing of it is verified.

    Args:
        find: looks for signatures, as `NamedImage.find`.
        platform: which image of an index, as somebody asked for it; None: this machine's.
        referrers: also what refers to the image, and to the index that it was chosen from.

    Raises:
        NotFound: an index without that platform.
        FormatError, Unsupported, IntegrityError, VerificationError: the image is malformed.
        RemoteError, LocalError: it could not be read.
    """
    top = source.read_manifest()
    document = parse_manifest_or_index(top.raw, media_type=top.media_type)
    facts: dict[str, object] = {"reference": source.name, "digest": str(document.descriptor.digest)}
    if isinstance(document, Index):
        facts["platforms"] = [str(platform) for platform in document.platforms()]
        facts["attestations"] = sum(one.is_attestation for one in document.manifests)
    image = resolve_image(source, top, platform)
    manifest = image.manifest
    found = find(manifest.descriptor.digest, frozenset(FORMATS))
    facts |= {
        "manifest": str(manifest.descriptor.digest),
        "media_type": manifest.descriptor.media_type,
        "platform": str(image.config.platform),
        "config": {
            "digest": str(manifest.config.digest),
            "size": manifest.config.size,
            "created": image.config.document.get("created"),
            **{name: image.config.config.get(member) for name, member in _CONFIG_FACTS.items()},
        },
        "layers": [_layer_facts(layer) for layer in image.layers()],
        "signatures": _signatures(found),
        "signature_forms": {one.format: one.count for one in found.looked},
    }
    if referrers:
        # To the image that was chosen, and to the index that it was chosen from.
        subjects = dict.fromkeys((str(facts["digest"]), str(facts["manifest"])))
        facts["referrers"] = [one for name in subjects for one in _referrers(source, name)]
    return facts


def _signatures(found: Found) -> int | str:
    """How many there are, or why nobody could look."""
    return str(found.failures[0].error) if found.failures else len(found.signatures)


def _layer_facts(layer: Layer) -> dict[str, object]:
    descriptor = layer.descriptor
    facts: dict[str, object] = {
        "index": layer.index,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "media_type": descriptor.media_type,
        "diff_id": str(layer.diff_id),
        "encrypted": is_encrypted(descriptor.media_type),
    }
    if is_encrypted(descriptor.media_type):
        from imagers.encrypt.annotations import read_annotations
        from imagers.encrypt.describe import describe_wrapped_key

        info = read_annotations(descriptor, what=layer.what)
        facts["cipher"] = info.public.cipher
        facts["recipients"] = [describe_wrapped_key(wrapped) for wrapped in info.wrapped]
        facts["packets"] = _packet_facts(info.wrapped)
    return facts


def _packet_facts(packets: Sequence[WrappedKey]) -> list[dict[str, object]]:
    """Each packet by the name that --remove-recipient takes, and who can open it."""
    from imagers.encrypt.describe import describe_recipients

    counts: dict[str, int] = {}
    facts: list[dict[str, object]] = []
    for wrapped in packets:
        number = counts[wrapped.scheme] = counts.get(wrapped.scheme, 0) + 1
        facts.append(
            {
                "name": f"{wrapped.scheme}#{number}",
                "scheme": wrapped.scheme,
                "size": len(wrapped.packet),
                "recipients": describe_recipients(wrapped),
            }
        )
    return facts
