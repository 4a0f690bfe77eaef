# SPDX-License-Identifier: Apache-2.0
"""`dir:PATH`: a directory of plain files; PATH may have colons.

Spec: containers-transports(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.transport.kinds.transport import PathTransport
from imagers.transport.names import ImageName

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource
    from imagers.transport.open import TransportOptions

__all__ = ["TRANSPORT"]


class _Directory(PathTransport):
    name = "dir"

    def parse(self, rest: str, text: str) -> ImageName:
        if not rest:
            raise self.no_path(text)
        return ImageName(self.name, path=rest)

    def open_source(self, name: ImageName, options: TransportOptions) -> ImageSource:
        from imagers.layout.directory import DirectorySource

        del options
        return DirectorySource(name.path, name=str(name))

    def open_sink(self, name: ImageName, options: TransportOptions) -> ImageSink:
        from imagers.layout.directory import DirectorySink

        del options
        return DirectorySink(name.path, name=str(name))


TRANSPORT = _Directory()
