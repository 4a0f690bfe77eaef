# SPDX-License-Identifier: Apache-2.0
"""`oci-archive:PATH[:REF|:@INDEX]`: an image of an OCI layout in a tar.

Spec: containers-transports(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.transport.kinds.oci import LayoutTransport

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource
    from imagers.transport.names import ImageName
    from imagers.transport.open import TransportOptions

__all__ = ["TRANSPORT"]


class _OCIArchive(LayoutTransport):
    name = "oci-archive"

    def open_source(self, name: ImageName, options: TransportOptions) -> ImageSource:
        from imagers.layout.archive.oci import OCIArchiveSource

        del options
        return OCIArchiveSource(name.path, name.ref, name=str(name), position=name.position)

    def open_sink(self, name: ImageName, options: TransportOptions) -> ImageSink:
        from imagers.layout.archive.oci import OCIArchiveSink

        del options
        return OCIArchiveSink(name.path, name.ref, name=str(name))


TRANSPORT = _OCIArchive()
