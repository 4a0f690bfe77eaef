# SPDX-License-Identifier: Apache-2.0
"""Media types: which exist, what they hold, and what encryption makes of them.

    >>> encrypted_media_type(OCI_LAYER_GZIP)
    'application/vnd.oci.image.layer.v1.tar+gzip+encrypted'

Spec: OCI image-spec v1.1, media-types.md; containers/ocicrypt v1.3.2, spec/spec.go.
"""

from __future__ import annotations

from enum import Enum

from imagers.errors import Unsupported

__all__ = [
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_MANIFEST",
    "ENCRYPTED_SUFFIX",
    "IMAGE_CONFIG_TYPES",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "Compression",
    "compressed_media_type",
    "compression_of",
    "compression_of_bytes",
    "encrypted_media_type",
    "is_encrypted",
    "is_foreign",
    "plaintext_media_type",
]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
OCI_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD = DOCKER_LAYER + ".zstd"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

IMAGE_CONFIG_TYPES = frozenset(
    # Docker reads configs of all these types as those of an image (moby, distribution/pull_v2.go):
    # registries and old clients wrote the last three, see distribution issue 1621.
    {OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "application/json", "text/html"}
)
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})

ENCRYPTED_SUFFIX = "+encrypted"


class Compression(Enum):
    """How the tar of a layer is compressed. The value is the word of media types."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"


_TAR_BLOCK = 512
_OCI_BASES = (OCI_LAYER, OCI_NONDISTRIBUTABLE)
_COMPRESSION = {
    **{
        base + (f"+{kind.value}" if kind.value else ""): kind
        for base in _OCI_BASES
        for kind in Compression
    },
    DOCKER_LAYER: Compression.NONE,
    DOCKER_LAYER_GZIP: Compression.GZIP,
    DOCKER_LAYER_ZSTD: Compression.ZSTD,
    DOCKER_FOREIGN: Compression.NONE,
    DOCKER_FOREIGN + ".gzip": Compression.GZIP,
}
_DOCKER_TO_OCI = {
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    DOCKER_LAYER_ZSTD: OCI_LAYER_ZSTD,
    DOCKER_FOREIGN: OCI_NONDISTRIBUTABLE,
    DOCKER_FOREIGN + ".gzip": OCI_NONDISTRIBUTABLE + "+gzip",
}


def is_encrypted(media_type: str) -> bool:
    """Whether a layer of this type is encrypted: its type ends in `+encrypted`."""
    return media_type.endswith(ENCRYPTED_SUFFIX)


def is_foreign(media_type: str) -> bool:
    """Whether a layer of this type need not be where its image is: its maker forbids it."""
    return media_type in _COMPRESSION and _DOCKER_TO_OCI.get(media_type, media_type).startswith(
        OCI_NONDISTRIBUTABLE
    )


def compression_of(media_type: str, *, what: str = "a layer") -> Compression:
    """The compression of a plaintext layer type.

    Args:
        what: name of the layer in messages.

    Raises:
        Unsupported: not a layer type that is known here, or an encrypted one.
    """
    try:
        return _COMPRESSION[media_type]
    except KeyError:
        raise Unsupported(
            f"media type {media_type[:160]!r} of {what} is not supported: expected a tar, "
            "plain or with gzip or zstd"
        ) from None


_MAGIC = {b"\x1f\x8b": Compression.GZIP, b"\x28\xb5\x2f\xfd": Compression.ZSTD}
_SKIPPABLE = b"\x2a\x4d\x18"  # RFC 8878 section 3.1.2, after a first byte of 0x50 to 0x5f
_NOT_OPENED = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}


def compression_of_bytes(beginning: bytes, *, what: str) -> Compression:
    """The compression of a layer that begins like this, whatever its media type says.

    A header of a tar comes first: a file's name may look like gzip, but hardly any gzip has the
    checksum of a tar.

    Args:
        beginning: 512 bytes of it, or all there is. An empty layer is an empty tar.
        what: name in messages.

    Raises:
        Unsupported: another compression.
    """
    if _begins_tar(beginning):
        return Compression.NONE
    if beginning[1:4] == _SKIPPABLE and beginning[0] >> 4 == 5:
        return Compression.ZSTD
    for magic, kind in _MAGIC.items():
        if beginning.startswith(magic):
            return kind
    for magic, name in _NOT_OPENED.items():
        if beginning.startswith(magic):
            raise Unsupported(
                f"{what}: is compressed with {name}, which is not supported: expected a tar, "
                "plain or with gzip or zstd"
            )
    return Compression.NONE


def _begins_tar(block: bytes) -> bool:
    """Whether the first block is the header of a tar, by its checksum."""
    field = block[148:156].strip(b" \0")
    if len(block) < _TAR_BLOCK or not field.isdigit() or field.strip(b"01234567"):
        return False
    return int(field, 8) == sum(block[:148]) + 8 * ord(" ") + sum(block[156:_TAR_BLOCK])


def encrypted_media_type(media_type: str) -> str:
    """The type of the layer after encryption; a Docker type becomes the OCI one first.

    Raises:
        Unsupported: not a known layer type, or one that is encrypted already.
    """
    compression_of(media_type)
    return _DOCKER_TO_OCI.get(media_type, media_type) + ENCRYPTED_SUFFIX


def plaintext_media_type(media_type: str) -> str:
    """The type of the layer after decryption.

    Raises:
        Unsupported: not the encrypted form of a known layer type.
    """
    plain = media_type.removesuffix(ENCRYPTED_SUFFIX)
    if plain == media_type or plain not in _COMPRESSION or plain in _DOCKER_TO_OCI:
        raise Unsupported(f"media type {media_type[:160]!r} is not one of an encrypted OCI layer")
    return plain


def compressed_media_type(media_type: str, compression: Compression) -> str:
    """The OCI type of the same layer with another compression.

    Raises:
        Unsupported: not a known plaintext layer type.
    """
    compression_of(media_type)
    oci = _DOCKER_TO_OCI.get(media_type, media_type)
    base = oci.removesuffix("+gzip").removesuffix("+zstd")
    return base + (f"+{compression.value}" if compression.value else "")
