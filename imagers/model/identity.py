# SPDX-License-Identifier: Apache-2.0
"""What an image is called where a policy looks it up.

    identity = docker_identity(parse_reference("registry.example.org/team/app:v1"))
    identity.scopes[1]          # 'registry.example.org/team/app'

Spec: containers-policy.json(5); containers/image df7e80d2, docker/policyconfiguration/naming.go,
oci/internal/oci_util.go.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError

if TYPE_CHECKING:
    from imagers.model.reference import Reference

__all__ = ["ImageIdentity", "docker_identity", "parse_path_scope", "path_identity"]


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """What an image is called where a policy looks it up.

    Make one with `docker_identity` or `path_identity`.

    Attributes:
        transport: as a policy names it, such as `docker` or `oci`.
        reference: as the user named the image, never a mirror's name; None in a directory.
        scopes: from the most specific one on; `""` is not among them.
    """

    transport: str
    reference: Reference | None
    scopes: tuple[str, ...]

    def __str__(self) -> str:
        name = self.reference.written if self.reference is not None else self.scopes[0]
        return f"{self.transport}:{'//' if self.transport == 'docker' else ''}{name}"


def docker_identity(reference: Reference) -> ImageIdentity:
    """The identity of an image in a registry.

    Scopes: the whole reference, the repository, its parents down to the host with its port,
    then `*.` and what follows each dot of the host.
    """
    scopes = [str(reference)]
    name = reference.name
    while True:
        scopes.append(name)
        if "/" not in name:
            break
        name = name.rpartition("/")[0]
    host = name.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        scopes.append(f"*.{host}")
    return ImageIdentity("docker", reference, tuple(scopes))


def path_identity(transport: str, path: str) -> ImageIdentity:
    """The identity of an image in a directory or an archive.

    Scopes: the path and its parents, without `/`.

    Args:
        path: absolute and normal, with all symbolic links resolved by the caller: a policy
            for `/trusted` must not hold for what a link below it points to.

    Raises:
        ValueError: it is not absolute and normal.
    """
    if not _is_normal(path):
        raise ValueError("expected an absolute, normal path other than '/'")
    scopes = []
    rest = path
    while rest:
        scopes.append(rest)
        rest = rest.rpartition("/")[0]
    return ImageIdentity(transport, None, tuple(scopes))


def parse_path_scope(written: str, *, what: str, where: str) -> str:
    """A scope of a policy for paths.

    Raises:
        FormatError: it can never match.
    """
    if not _is_normal(written):
        raise FormatError(
            "expected a scope that is an absolute path without '..', '.', double or closing "
            "slashes, or the empty scope",
            what=what,
            where=where,
        )
    return written


def _is_normal(path: str) -> bool:
    return (
        path.startswith("/")
        and not path.startswith("//")
        and path != "/"
        and posixpath.normpath(path) == path
    )
