# SPDX-License-Identifier: Apache-2.0
"""Which image a source means: of an index, the one for a platform."""

from __future__ import annotations

import platform as machine

from imagers.errors import Unsupported
from imagers.model.descriptor import Platform
from imagers.model.image import Image, ImageSource, load_image, read_entry
from imagers.model.manifest import Index, RawManifest, check_platform, parse_manifest_or_index

__all__ = ["resolve_image", "this_platform"]

_GOARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}


def this_platform() -> Platform:
    """The platform of this machine, in GOOS and GOARCH words."""
    return Platform("linux", _GOARCH.get(machine.machine(), machine.machine()))


def resolve_image(source: ImageSource, top: RawManifest, platform: Platform | None) -> Image:
    """The image of a source for a platform; config and manifest agree, no origin is verified.

    Args:
        top: what the source's name means.
        platform: as somebody asked for it; None: of an index, the one of this machine, and an
            image that is in no index whatever it is for.

    Raises:
        NotFound: an index without that platform.
        Unsupported: the index has another index for it.
        VerificationError: the config is for another platform.
        FormatError, IntegrityError: manifest or config are not what they should be.
    """
    wanted = platform or this_platform()
    document = parse_manifest_or_index(top.raw, media_type=top.media_type)
    entry = None
    if isinstance(document, Index):
        entry = document.require_platform(wanted, what=source.name)
        document = read_entry(source, entry)
        if isinstance(document, Index):
            raise Unsupported(
                f"{source.name}: the entry for '{wanted}' is an index: expected an image"
            )
    image = load_image(document, source)
    if entry is not None or platform is not None:
        check_platform(image.config, wanted, entry=None if entry is None else entry.platform)
    return image
