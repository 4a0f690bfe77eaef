# SPDX-License-Identifier: Apache-2.0
"""The annotations of an encrypted layer, written and read.

    org.opencontainers.image.enc.pubopts          base64 of the public options
    org.opencontainers.image.enc.keys.SCHEME      base64 of one packet, or several with commas

SCHEME is `jwe`, `pkcs7`, `pgp`, `pkcs11` or `provider.NAME`. Each packet alone opens the
layer for the recipients that it was made for. Nothing here needs a key.

Annotations that speak of the layer in the clear do not survive encryption: where a table of
contents is, what its digest is. They say what the cipher hides, and lead whoever pulls in
parts to bytes that are cipher text now.

Spec: containers/ocicrypt v1.3.2, encryption.go; containers/image, copy/encryption.go (what
happens to annotations at decryption).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.encrypt.options import PublicOptions, build_public_options, parse_public_options
from imagers.errors import FormatError
from imagers.model.base64 import decode_base64, encode_base64
from imagers.model.keys import WrappedKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imagers.model.descriptor import Descriptor

__all__ = [
    "COCO_SCHEME",
    "EncryptedLayerInfo",
    "annotation_of",
    "annotations_of_the_clear",
    "append_packets",
    "clear_annotations",
    "filter_packets",
    "read_annotations",
    "read_wrapped_keys",
    "write_annotations",
]

# Without the dot at its end: what containers/image removes at decryption.
_PREFIX = "org.opencontainers.image.enc"
_PUBLIC = f"{_PREFIX}.pubopts"
_KEYS = f"{_PREFIX}.keys."

# Who writes them: containers/storage for zstd:chunked; containerd's snapshotters stargz, nydus,
# overlaybd and what else has its names there; stargz for skopeo; BuildKit, as it is the diff_id.
_OF_THE_CLEAR = (
    "io.github.containers.zstd-chunked.",
    "containerd.io/snapshot/",
    "io.containers.estargz.",
    "containerd.io/uncompressed",
)

COCO_SCHEME = "provider.attestation-agent"
"""Where the Confidential Containers key provider puts its packets."""

_MAX_SCHEMES = 32
_MAX_PACKETS = 128  # of one scheme; a packet is for many recipients, a second one is rare
_MAX_PACKET_BYTES = 256 * 1024  # a JWE for 300 RSA-4096 recipients
_MAX_PUBLIC_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class EncryptedLayerInfo:
    """What the annotations of one encrypted layer say; unauthenticated.

    Attributes:
        wrapped: in the order in which unwrappers are asked: schemes of local keys first,
            then the Confidential Containers packet, then other providers.
    """

    public: PublicOptions
    wrapped: tuple[WrappedKey, ...]


def read_annotations(descriptor: Descriptor, *, what: str) -> EncryptedLayerInfo:
    """What the annotations of `descriptor` say.

    Args:
        what: name of the layer in messages.

    Raises:
        FormatError: the public options are missing or not right; a packet is not base64; too
            many or too long.
        Unsupported: a cipher that does not exist here.
    """
    text = descriptor.annotations.get(_PUBLIC)
    if not text:
        raise FormatError(
            "is missing or empty, so that no cipher is named",
            what=what,
            where=_where(_PUBLIC),
        )
    public = _decode(text, _PUBLIC, _MAX_PUBLIC_BYTES, what)
    return EncryptedLayerInfo(
        public=parse_public_options(public, what=what),
        wrapped=read_wrapped_keys(descriptor, what=what),
    )


def read_wrapped_keys(descriptor: Descriptor, *, what: str) -> tuple[WrappedKey, ...]:
    """The packets of all schemes; none for a layer that has none.

    An empty element counts as absent, as an empty annotation does for ocicrypt. One that is
    not base64 refuses the layer, whatever the other elements are.

    Raises:
        FormatError: a packet is not base64; too many or too long.
    """
    found = {
        name.removeprefix(_KEYS): value
        for name, value in descriptor.annotations.items()
        if name.startswith(_KEYS) and value
    }
    if len(found) > _MAX_SCHEMES:
        raise FormatError(
            f"expected at most {_MAX_SCHEMES} schemes of keys, got {len(found)}", what=what
        )
    wrapped: list[WrappedKey] = []
    for scheme in sorted(found, key=_turn):
        name = _KEYS + scheme
        count = found[scheme].count(",") + 1
        if count > _MAX_PACKETS:
            raise FormatError(
                f"expected at most {_MAX_PACKETS} packets, got {count}",
                what=what,
                where=_where(name),
            )
        wrapped += (
            WrappedKey(scheme, _decode(element, name, _MAX_PACKET_BYTES, what))
            for element in found[scheme].split(",")
            if element
        )
    return tuple(wrapped)


def _turn(scheme: str) -> tuple[bool, bool, str]:
    """When a scheme has its turn: what needs no network first."""
    return scheme.startswith("provider."), scheme != COCO_SCHEME, scheme


def _decode(text: str, name: str, max_bytes: int, what: str) -> bytes:
    return decode_base64(text, what=what, where=_where(name), max_size=max_bytes)


def annotation_of(scheme: str) -> str:
    """The annotation that has the packets of a scheme, quoted and bounded for messages."""
    return repr((_KEYS + scheme)[:160])


def _where(name: str) -> str:
    """The annotation in messages; its name comes from outside, control characters and all."""
    return f"annotation {name[:160]!r}"


def write_annotations(
    annotations: Mapping[str, str], public: PublicOptions, wrapped: Sequence[WrappedKey]
) -> dict[str, str]:
    """`annotations` of a layer after encryption: its own, and those of encryption.

    Those of `annotations_of_the_clear` are left out.

    Several packets of one scheme are joined with commas, in their order.
    """
    result = _without_the_clear(clear_annotations(annotations))
    result[_PUBLIC] = encode_base64(build_public_options(public))
    for one in wrapped:
        name = _KEYS + one.scheme
        text = encode_base64(one.packet)
        result[name] = f"{result[name]},{text}" if name in result else text
    return result


def append_packets(annotations: Mapping[str, str], wrapped: Sequence[WrappedKey]) -> dict[str, str]:
    """`annotations` of an encrypted layer with more packets.

    All else as it stands, but for `annotations_of_the_clear`, which others leave there.
    """
    result = _without_the_clear(annotations)
    for one in wrapped:
        name = _KEYS + one.scheme
        text = encode_base64(one.packet)
        result[name] = f"{result[name]},{text}" if result.get(name) else text
    return result


def filter_packets(
    annotations: Mapping[str, str],
    change: Callable[[WrappedKey, int], bytes | None],
    *,
    what: str,
) -> dict[str, str]:
    """`annotations` of an encrypted layer with other packets; all else as `append_packets`.

    Args:
        change: gives what becomes of a packet, None for nothing; told its number, from 1,
            among those of its scheme.

    Raises:
        FormatError: a packet is not base64, or too long.
    """
    result = _without_the_clear(annotations)
    for name, value in annotations.items():
        if not name.startswith(_KEYS):
            continue
        elements: list[str] = []
        number = 0
        for element in value.split(","):
            if not element:
                elements.append(element)
                continue
            number += 1
            packet = _decode(element, name, _MAX_PACKET_BYTES, what)
            changed = change(WrappedKey(name.removeprefix(_KEYS), packet), number)
            if changed is not None:
                elements.append(encode_base64(changed))
        if any(elements):
            result[name] = ",".join(elements)
        else:
            del result[name]
    return result


def clear_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """`annotations` of a layer without those of encryption; the others are kept."""
    return {name: value for name, value in annotations.items() if not name.startswith(_PREFIX)}


def annotations_of_the_clear(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """The names of those that speak of the bytes in the clear, in their order."""
    return tuple(name for name in annotations if name.startswith(_OF_THE_CLEAR))


def _without_the_clear(annotations: Mapping[str, str]) -> dict[str, str]:
    left_out = annotations_of_the_clear(annotations)
    return {name: value for name, value in annotations.items() if name not in left_out}
