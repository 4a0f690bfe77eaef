# SPDX-License-Identifier: Apache-2.0
"""`docker://...` and `oci:...`: names parsed, sources and sinks opened, images copied."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagers.transport.copy import CopyReport, copy_image
    from imagers.transport.names import ImageName, locate, parse_image_name
    from imagers.transport.open import TransportOptions, open_sink, open_source
    from imagers.transport.resolve import resolve_image, this_platform
else:
    from imagers.lazy import door

    __getattr__ = door(
        __name__,
        {
            "copy": ("CopyReport", "copy_image"),
            "names": ("ImageName", "locate", "parse_image_name"),
            "open": ("TransportOptions", "open_sink", "open_source"),
            "resolve": ("resolve_image", "this_platform"),
        },
    )

__all__ = [
    "CopyReport",
    "ImageName",
    "TransportOptions",
    "copy_image",
    "locate",
    "open_sink",
    "open_source",
    "parse_image_name",
    "resolve_image",
    "this_platform",
]
