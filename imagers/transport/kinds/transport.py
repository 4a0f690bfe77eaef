# SPDX-License-Identifier: Apache-2.0
"""What a transport is, and the table of them.

    find_transport("oci").parse("build/app:v1", "oci:build/app:v1")

A transport is a module with a `TRANSPORT`, and one line in `TRANSPORTS`, which imports it when it
is used.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import FormatError, Unsupported, UsageError
from imagers.model.identity import ImageIdentity, parse_path_scope, path_identity

if TYPE_CHECKING:
    from imagers.model.image import ImageSink, ImageSource
    from imagers.registry.deletion import Deletion
    from imagers.transport.names import ImageName
    from imagers.transport.open import TransportOptions

__all__ = [
    "TRANSPORTS",
    "PathTransport",
    "Row",
    "Transport",
    "find_transport",
    "known_transports",
    "parse_position",
]

_POSITION = re.compile(r"@[0-9]{1,6}\Z")


class Transport(ABC):
    """One transport.

    Attributes:
        name: in the table; of the scopes in a policy too.
    """

    name: ClassVar[str]

    @abstractmethod
    def parse(self, rest: str, text: str) -> ImageName:
        """The name whose text after the colon is `rest`.

        Args:
            text: all of it, for messages.

        Raises:
            FormatError: it is no name.
        """

    @abstractmethod
    def open_source(self, name: ImageName, options: TransportOptions) -> ImageSource:
        """The place that `name` means, to read from; see `imagers.transport.open.open_source`."""

    @abstractmethod
    def open_sink(self, name: ImageName, options: TransportOptions) -> ImageSink:
        """The same to write to; see `imagers.transport.open.open_sink`."""

    def list_tags(self, name: ImageName, options: TransportOptions) -> tuple[str, ...]:
        """What may stand behind the name, see `imagers.transport.repository.list_tags`."""
        del options
        raise Unsupported(
            f"{name}: has no tags to list",
            hint="repositories of registries, layouts and archives have them: docker://HOST/NAME, "
            "oci:PATH, oci-archive:PATH, docker-archive:PATH",
        )

    def delete_image(self, name: ImageName, options: TransportOptions) -> Deletion:
        """See `imagers.transport.repository.delete_image`."""
        del options
        raise Unsupported(
            f"{name}: only images of registries are deleted",
            hint="a layout, an archive or a directory goes with its files; what an engine has, "
            "with 'docker image rm'",
        )

    @abstractmethod
    def identity(self, name: ImageName) -> ImageIdentity:
        """What a policy looks up; see `imagers.pull.named.identity_of`."""

    def parse_scope(self, written: str, *, what: str, where: str) -> str:
        """A scope of a policy, spelled as `identity` spells it.

        Args:
            written: not empty: the empty scope is for all that a transport has.
            what, where: the policy and the place in it, for messages.

        Raises:
            FormatError: it can never match.
        """
        del what, where
        return written


class PathTransport(Transport):
    """A transport whose names have a path that `locate` looks up."""

    def identity(self, name: ImageName) -> ImageIdentity:
        """The path and its parents, whatever name stands there."""
        if not name.written:
            raise ValueError("expected a name from imagers.transport.names.locate")
        if name.path == "/":
            raise UsageError(f"expected a path below '/', got {name.written!r}")
        return path_identity(self.name, name.path)

    def parse_scope(self, written: str, *, what: str, where: str) -> str:
        """See `Transport`."""
        return parse_path_scope(written, what=what, where=where)

    def split(self, rest: str, text: str) -> tuple[str, str | None]:
        """Path, and what is after its colon; None: there is no colon.

        Raises:
            FormatError: there is no path.
        """
        path, colon, ref = rest.partition(":")
        if not path:
            raise self.no_path(text)
        return path, ref if colon else None

    def no_path(self, text: str) -> FormatError:
        """The error for a name without a path."""
        return FormatError(
            f"expected a path after '{self.name}:', got {text[:160]!r}",
            what="image name",
            hint=known_transports(),
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One transport in the table.

    Attributes:
        module: that has the `TRANSPORT`.
        prefix: what a name begins with.
        is_remote: whether it is reached as registries are, with logins and certificates.
        has_path: whether the path of a name is one of this machine, which `locate` looks up.
        holds_encrypted: whether an encrypted image can be there at all.
        has_signature_files: whether it is a directory that may have files of signatures.
    """

    module: str
    prefix: str
    is_remote: bool = False
    has_path: bool = True
    holds_encrypted: bool = True
    has_signature_files: bool = False


_HERE = "imagers.transport.kinds"
TRANSPORTS: dict[str, Row] = {
    "docker": Row(f"{_HERE}.docker", "docker://", is_remote=True, has_path=False),
    "oci": Row(f"{_HERE}.oci", "oci:"),
    "oci-archive": Row(f"{_HERE}.oci_archive", "oci-archive:"),
    "docker-archive": Row(f"{_HERE}.docker_archive", "docker-archive:", holds_encrypted=False),
    "docker-daemon": Row(
        f"{_HERE}.docker_daemon", "docker-daemon:", has_path=False, holds_encrypted=False
    ),
    "dir": Row(f"{_HERE}.directory", "dir:", has_signature_files=True),
}


def find_transport(name: str) -> Transport:
    """The transport of that name in the table."""
    found: Transport = import_module(TRANSPORTS[name].module).TRANSPORT
    return found


def known_transports() -> str:
    """The hint for what is no name of any of them."""
    known = ", ".join(row.prefix for row in TRANSPORTS.values())
    return f"known: {known} as in docker://HOST/NAME:TAG and oci:PATH:REF"


def parse_position(ref: str) -> int | None:
    """The number in `@N`; None for anything else."""
    return int(ref[1:]) if _POSITION.match(ref) else None
