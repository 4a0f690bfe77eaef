"""Names of images with their transports, as skopeo writes them.

    >>> str(parse_image_name("127.0.0.1:5000/app"))
    'docker://127.0.0.1:5000/app:latest'
    >>> parse_image_name("oci:build/app:v1").ref
    'v1'

| form                                  | what it names                              |
|---------------------------------------|--------------------------------------------|
| `docker://HOST[:PORT]/NAME[:TAG|@DIGEST]` | an image in a registry                 |
| `[HOST[:PORT]/]NAME[:TAG|@DIGEST]`    | the same; without HOST it is a short name  |
| `oci:PATH[:REF|:@INDEX]`              | an image of an OCI layout; PATH has no colon |
| `oci-archive:PATH[:REF|:@INDEX]`      | the same in a tar                          |
| `docker-archive:PATH[:NAME[:TAG]|:@INDEX]` | an image in a tar of `docker save`    |
| `docker-daemon:NAME[:TAG]`, `docker-daemon:ID` | an image of an engine; ID is `sha256:…` |
| `dir:PATH`                            | a directory of plain files; PATH may have colons |

Spec: containers-transports(5).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from imagers.errors import FormatError, Unsupported
from imagers.model.digest import Digest, parse_digest
from imagers.model.reference import DEFAULT_REGISTRY, Reference, parse_reference

__all__ = ["KNOWN_TRANSPORTS", "ImageName", "locate", "parse_image_name"]

KNOWN_TRANSPORTS = (
    "docker://",
    "oci:",
    "oci-archive:",
    "docker-archive:",
    "docker-daemon:",
    "dir:",
)
_OTHERS = frozenset(
    {
        "atomic",
        "containers-storage",
        "ostree",
        "sif",
        "tarball",
    }
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# image-spec v1.1, annotations.md, org.opencontainers.image.ref.name
_REF = re.compile(
    r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*(?:/[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*)*\Z"
)
_HUB_NAMES = (DEFAULT_REGISTRY, "index.docker.io")
_POSITION = re.compile(r"@[0-9]{1,6}\Z")
_MAX_NAME = 4096


@dataclass(frozen=True, slots=True)
class ImageName:
    """Where an image is or goes.

    Attributes:
        transport: `docker` and `docker-daemon` have a `reference`, all others a `path`.
        ref: name of the entry in an OCI layout.
        position: of the entry in a layout or archive, from 0; never together with a name.
        image_id: of an image of an engine, in place of a `reference`.
        short_name: what was written without transport and registry, without tag and digest;
            "": there was one of them, which says where the image is.
        written: the path as the user wrote it, where `path` is what `locate` made of it; "":
            nobody has looked yet which directory or file the path leads to.
    """

    transport: Literal["docker", "oci", "oci-archive", "docker-archive", "docker-daemon", "dir"]
    reference: Reference | None = None
    path: str = ""
    ref: str | None = None
    position: int | None = None
    image_id: Digest | None = None
    short_name: str = field(default="", compare=False)
    written: str = field(default="", compare=False)

    @property
    def holds_encrypted(self) -> bool:
        """Whether an encrypted image can be there at all."""
        return self.transport not in ("docker-archive", "docker-daemon")

    def __str__(self) -> str:
        if self.transport == "docker":
            return f"docker://{self.reference}"
        if self.transport == "docker-daemon":
            return f"docker-daemon:{self.image_id or self.reference}"
        path = self.written or self.path
        if self.position is not None:
            return f"{self.transport}:{path}:@{self.position}"
        ref = self.ref if self.reference is None else str(self.reference)
        return f"{self.transport}:{path}" + (f":{ref}" if ref is not None else "")


def parse_image_name(text: str) -> ImageName:
    """The name in `text`; without a transport it is one of a registry.

    Raises:
        FormatError: it is no name.
        Unsupported: the transport is not done here.
    """
    if not text or len(text) > _MAX_NAME or not text.isprintable():
        raise FormatError(
            f"expected an image name, got {text[:80]!r}", what="image name", hint=_hint()
        )
    transport, colon, rest = text.partition(":")
    if text.startswith("docker://"):
        return ImageName("docker", reference=parse_reference(text.removeprefix("docker://")))
    if colon and transport == "docker":
        raise FormatError(
            f"expected 'docker://' and a name, got {text[:160]!r}",
            what="image name",
            hint=f"for the image docker of Docker Hub: docker://docker.io/library/{text[:80]}",
        )
    if colon and transport in ("oci", "oci-archive"):
        return _parse_layout_name(transport, rest, text)
    if colon and transport == "docker-archive":
        return _parse_docker_archive_name(rest, text)
    if colon and transport == "docker-daemon":
        return _parse_daemon_name(rest)
    if colon and transport == "dir":
        if not rest:
            raise _no_path(text)
        return ImageName("dir", path=rest)
    if transport in ("http", "https") and rest.startswith("//"):
        raise Unsupported(
            f"transport {transport!r} is not supported",
            hint=f"an image of a registry is docker:{rest[:200]}; https is tried first, and "
            "--tls-verify=false allows plain http",
        )
    if (colon and transport in _OTHERS) or _SCHEME.match(text):
        raise Unsupported(f"transport {transport[:40]!r} is not supported", hint=_hint())
    reference = parse_reference(text)
    return ImageName("docker", reference=reference, short_name=_short_name(text, reference))


def locate(name: ImageName) -> ImageName:
    """The same name with its path absolute and free of symbolic links; others as they are.

    Done once, before a policy is asked and before anything is opened: whoever owns a symbolic
    link on the way could have one image judged and another one read.
    """
    if not name.path or name.written:
        return name
    return replace(name, path=os.path.realpath(name.path), written=name.path)


def _short_name(text: str, reference: Reference) -> str:
    """The name in `text` if there is no registry in it, else ""."""
    if reference.registry != DEFAULT_REGISTRY:
        return ""
    first, slash, _ = text.partition("/")
    if slash and first in _HUB_NAMES:
        return ""
    # It was parsed: a colon is before a tag.
    return text.partition("@")[0].partition(":")[0]


def _parse_layout_name(transport: str, rest: str, text: str) -> ImageName:
    assert transport in ("oci", "oci-archive")
    kind: Literal["oci", "oci-archive"] = "oci" if transport == "oci" else "oci-archive"
    path, colon, ref = rest.partition(":")
    if not path:
        raise _no_path(text)
    if not colon:
        return ImageName(kind, path=path)
    if _POSITION.match(ref):
        return ImageName(kind, path=path, position=int(ref[1:]))
    if not _REF.match(ref):
        raise FormatError(
            f"expected a name or @N after the path, got {ref[:160]!r}",
            what="image name",
            hint=f"{kind}:PATH:REF, where PATH has no colon",
        )
    return ImageName(kind, path=path, ref=ref)


def _parse_docker_archive_name(rest: str, text: str) -> ImageName:
    path, colon, ref = rest.partition(":")
    if not path:
        raise _no_path(text)
    if not colon:
        return ImageName("docker-archive", path=path)
    if _POSITION.match(ref):
        return ImageName("docker-archive", path=path, position=int(ref[1:]))
    reference = parse_reference(ref)
    if reference.digest is not None:
        raise FormatError(
            f"expected a name with a tag, got {ref[:160]!r}",
            what="image name",
            hint="archives for Docker know no digests",
        )
    return ImageName("docker-archive", path=path, reference=reference)


def _parse_daemon_name(rest: str) -> ImageName:
    if rest.startswith(("sha256:", "sha512:")):
        return ImageName("docker-daemon", image_id=parse_digest(rest, what="image name"))
    return ImageName("docker-daemon", reference=parse_reference(rest))


def _no_path(text: str) -> FormatError:
    transport = text.partition(":")[0]
    return FormatError(
        f"expected a path after '{transport}:', got {text[:160]!r}", what="image name", hint=_hint()
    )


def _hint() -> str:
    return f"known: {', '.join(KNOWN_TRANSPORTS)} as in docker://HOST/NAME:TAG and oci:PATH:REF"
