# SPDX-License-Identifier: Apache-2.0
"""`docker-daemon:NAME[:TAG]` and `docker-daemon:ID`: an image of an engine; ID is `sha256:…`.

Spec: containers-transports(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, UsageError
from imagers.model.digest import parse_digest
from imagers.model.identity import ImageIdentity, docker_identity
from imagers.model.reference import normal_name, parse_reference
from imagers.transport.kinds.transport import Transport
from imagers.transport.names import ImageName

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource
    from imagers.transport.open import TransportOptions

__all__ = ["TRANSPORT"]


class _DockerDaemon(Transport):
    name = "docker-daemon"

    def parse(self, rest: str, text: str) -> ImageName:
        del text
        if rest.startswith(("sha256:", "sha512:")):
            return ImageName(self.name, image_id=parse_digest(rest, what="image name"))
        return ImageName(self.name, reference=parse_reference(rest))

    def identity(self, name: ImageName) -> ImageIdentity:
        if name.reference is None:
            # No policy can have it as a scope: what an id names is not known beforehand.
            return ImageIdentity(self.name, None, (str(name.image_id),))
        return ImageIdentity(self.name, name.reference, docker_identity(name.reference).scopes)

    def parse_scope(self, written: str, *, what: str, where: str) -> str:
        try:
            parse_digest(written)
        except FormatError:
            return normal_name(written)
        raise FormatError("expected a scope that is not a digest", what=what, where=where)

    def open_source(self, name: ImageName, options: TransportOptions) -> ImageSource:
        from imagers.transport.daemon import DEFAULT_HOST, DaemonSource

        meant = name.image_id or name.reference
        assert meant is not None  # every name of an engine has one of them
        return DaemonSource(
            meant,
            host=options.daemon_host or DEFAULT_HOST,
            name=str(name),
            spool_directory=options.spool_directory,
        )

    def open_sink(self, name: ImageName, options: TransportOptions) -> ImageSink:
        if name.reference is None or name.reference.tag is None:
            raise UsageError(
                f"expected a name to write to, got the id {name.image_id or name.reference}",
                hint="docker-daemon:NAME:TAG",
            )
        from imagers.transport.daemon import DEFAULT_HOST, DaemonSink

        return DaemonSink(
            name.reference,
            host=options.daemon_host or DEFAULT_HOST,
            name=str(name),
            spool_directory=options.spool_directory,
        )


TRANSPORT = _DockerDaemon()
