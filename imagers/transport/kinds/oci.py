# SPDX-License-Identifier: Apache-2.0
"""`oci:PATH[:REF|:@INDEX]`: an image of an OCI layout; PATH has no colon.

Spec: containers-transports(5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.transport.kinds.transport import PathTransport, parse_position
from imagers.transport.names import ImageName

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource
    from imagers.transport.open import TransportOptions

__all__ = ["TRANSPORT", "LayoutTransport"]

# image-spec v1.1, annotations.md, org.opencontainers.image.ref.name
_REF = re.compile(
    r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*\Z"
)


class LayoutTransport(PathTransport):
    """A layout, in a directory or in a tar: the names are alike."""

    def parse(self, rest: str, text: str) -> ImageName:
        """See `Transport`."""
        path, ref = self.split(rest, text)
        if ref is None:
            return ImageName(self.name, path=path)
        if (position := parse_position(ref)) is not None:
            return ImageName(self.name, path=path, position=position)
        if not _REF.match(ref):
            raise FormatError(
                f"expected a name or @N after the path, got {ref[:160]!r}",
                what="image name",
                hint=f"{self.name}:PATH:REF, where PATH has no colon",
            )
        return ImageName(self.name, path=path, ref=ref)

    def list_tags(self, name: ImageName, options: TransportOptions) -> tuple[str, ...]:
        """The names of all entries; `@N` for one without a name."""
        from imagers.layout.oci_layout import OCILayoutSource

        with self.open_source(name, options) as source:
            assert isinstance(source, OCILayoutSource)  # in a directory and in a tar
            return source.list_names()


class _OCI(LayoutTransport):
    name = "oci"

    def open_source(self, name: ImageName, options: TransportOptions) -> ImageSource:
        from imagers.layout.oci_layout import OCILayoutSource

        del options
        return OCILayoutSource(name.path, name.ref, name=str(name), position=name.position)

    def open_sink(self, name: ImageName, options: TransportOptions) -> ImageSink:
        from imagers.layout.oci_layout import OCILayoutSink

        del options
        return OCILayoutSink(name.path, name.ref, name=str(name))


TRANSPORT = _OCI()
