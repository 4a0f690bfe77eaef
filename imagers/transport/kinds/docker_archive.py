# SPDX-License-Identifier: Apache-2.0
"""`docker-archive:PATH[:NAME[:TAG]|:@INDEX]`: an image in a tar of `docker save`.

Spec: containers-transports(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.reference import parse_reference
from imagers.transport.kinds.transport import PathTransport, parse_position
from imagers.transport.names import ImageName

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource
    from imagers.transport.open import TransportOptions

__all__ = ["TRANSPORT"]


class _DockerArchive(PathTransport):
    name = "docker-archive"

    def parse(self, rest: str, text: str) -> ImageName:
        path, ref = self.split(rest, text)
        if ref is None:
            return ImageName(self.name, path=path)
        if (position := parse_position(ref)) is not None:
            return ImageName(self.name, path=path, position=position)
        reference = parse_reference(ref)
        if reference.digest is not None:
            raise FormatError(
                f"expected a name with a tag, got {ref[:160]!r}",
                what="image name",
                hint="archives for Docker know no digests",
            )
        return ImageName(self.name, path=path, reference=reference)

    def parse_scope(self, written: str, *, what: str, where: str) -> str:
        del written
        raise FormatError(
            f"expected only the empty scope for transport {self.name!r}", what=what, where=where
        )

    def open_source(self, name: ImageName, options: TransportOptions) -> ImageSource:
        from imagers.layout.archive.docker import DockerArchiveSource

        del options
        return DockerArchiveSource(
            name.path, name.reference, name=str(name), position=name.position
        )

    def list_tags(self, name: ImageName, options: TransportOptions) -> tuple[str, ...]:
        from imagers.layout.archive.docker import DockerArchiveSource

        with self.open_source(name, options) as source:
            assert isinstance(source, DockerArchiveSource)  # as this class opens it
            return source.list_names()

    def open_sink(self, name: ImageName, options: TransportOptions) -> ImageSink:
        from imagers.layout.archive.docker import DockerArchiveSink

        del options
        return DockerArchiveSink(name.path, name.reference, name=str(name))


TRANSPORT = _DockerArchive()
