"""Names of images with their transports, as skopeo writes them.

    >>> str(parse_image_name("127.0.0.1:5000/app"))
    'docker://127.0.0.1:5000/app:latest'
    >>> parse_image_name("oci:build/app:v1").ref
    'v1'

| form                                  | what it names                              |
|---------------------------------------|--------------------------------------------|
| `docker://HOST[:PORT]/NAME[:TAG|@DIGEST]` | an image in a registry                 |
| `HOST[:PORT]/NAME[:TAG|@DIGEST]`      | the same                                   |
| `oci:PATH[:REF|:@INDEX]`              | an image of an OCI layout; PATH has no colon |

Spec: containers-transports(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from imagers.errors import FormatError, Unsupported
from imagers.model.reference import parse_reference

if TYPE_CHECKING:
    from imagers.model.reference import Reference

__all__ = ["KNOWN_TRANSPORTS", "ImageName", "parse_image_name"]

KNOWN_TRANSPORTS = ("docker://", "oci:")
_OTHERS = frozenset(
    {
        "atomic",
        "containers-storage",
        "dir",
        "docker-archive",
        "docker-daemon",
        "oci-archive",
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
_POSITION = re.compile(r"@[0-9]{1,6}\Z")
_MAX_NAME = 4096


@dataclass(frozen=True, slots=True)
class ImageName:
    """Where an image is or goes.

    Attributes:
        transport: `docker` has a `reference`; `oci` has a `path`.
        ref: name of the entry in an OCI layout.
        position: of the entry in an OCI layout, from 0; never together with `ref`.
    """

    transport: Literal["docker", "oci"]
    reference: Reference | None = None
    path: str = ""
    ref: str | None = None
    position: int | None = None

    def __str__(self) -> str:
        if self.transport == "docker":
            return f"docker://{self.reference}"
        if self.position is not None:
            return f"oci:{self.path}:@{self.position}"
        return f"oci:{self.path}" + (f":{self.ref}" if self.ref is not None else "")


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
    if colon and transport == "oci":
        return _parse_layout_name(rest, text)
    if (colon and transport in _OTHERS) or _SCHEME.match(text):
        raise Unsupported(f"transport {transport[:40]!r} is not supported", hint=_hint())
    return ImageName("docker", reference=parse_reference(text))


def _parse_layout_name(rest: str, text: str) -> ImageName:
    path, colon, ref = rest.partition(":")
    if not path:
        raise FormatError(
            f"expected a path after 'oci:', got {text[:160]!r}", what="image name", hint=_hint()
        )
    if not colon:
        return ImageName("oci", path=path)
    if _POSITION.match(ref):
        return ImageName("oci", path=path, position=int(ref[1:]))
    if not _REF.match(ref):
        raise FormatError(
            f"expected a name or @N after the path, got {ref[:160]!r}",
            what="image name",
            hint="oci:PATH:REF, where PATH has no colon",
        )
    return ImageName("oci", path=path, ref=ref)


def _hint() -> str:
    return f"known: {', '.join(KNOWN_TRANSPORTS)} as in docker://HOST/NAME:TAG and oci:PATH:REF"
