# SPDX-License-Identifier: Apache-2.0
"""Names of images with their transports, as skopeo writes them.

    >>> str(parse_image_name("127.0.0.1:5000/app"))
    'docker://127.0.0.1:5000/app:latest'
    >>> parse_image_name("oci:build/app:v1").ref
    'v1'

| form                                  | what it names                              |
|---------------------------------------|--------------------------------------------|
| `docker://HOST[:PORT]/NAME[:TAG][@DIGEST]` | an image in a registry; a DIGEST decides |
| `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`   | the same; without HOST it is a short name  |
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

from imagers.errors import FormatError, Unsupported, UsageError
from imagers.model.digest import Digest
from imagers.model.reference import DEFAULT_REGISTRY, Reference, may_hold_login, parse_reference
from imagers.transport.kinds.transport import TRANSPORTS, find_transport, known_transports

__all__ = ["ImageName", "check_one_meaning", "locate", "parse_image_name"]

_OTHERS = frozenset(
    {
        "atomic",
        "containers-storage",
        "ostree",
        "sif",
        "tarball",
    }
)
_STORAGE = (
    "'podman save --format oci-archive -o FILE NAME' writes what oci-archive:FILE reads; or "
    "docker-daemon:NAME, with the socket of podman: docs/tasks/tools.md"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HUB_NAMES = (DEFAULT_REGISTRY, "index.docker.io")
_MAX_NAME = 4096


@dataclass(frozen=True, slots=True)
class ImageName:
    """Where an image is or goes.

    Attributes:
        transport: its name in the table of `kinds.transport`; `docker` and `docker-daemon` have a
            `reference`, all others a `path`.
        ref: name of the entry in an OCI layout.
        position: of the entry in a layout or archive, from 0; never together with a name.
        image_id: of an image of an engine, in place of a `reference`.
        short_name: what was written without transport and registry, without tag and digest;
            "": there was one of them, which says where the image is.
        written: the path as the user wrote it, where `path` is what `locate` made of it; "":
            nobody has looked yet which directory or file the path leads to.
    """

    transport: str
    reference: Reference | None = None
    path: str = ""
    ref: str | None = None
    position: int | None = None
    image_id: Digest | None = None
    short_name: str = field(default="", compare=False)
    written: str = field(default="", compare=False)

    @property
    def is_remote(self) -> bool:
        """Whether it is reached as registries are, with logins and certificates."""
        return TRANSPORTS[self.transport].is_remote

    @property
    def holds_encrypted(self) -> bool:
        """Whether an encrypted image can be there at all."""
        return TRANSPORTS[self.transport].holds_encrypted

    def __str__(self) -> str:
        prefix = TRANSPORTS[self.transport].prefix
        path = self.written or self.path
        if not path:
            return f"{prefix}{self.image_id or (self.reference and self.reference.written)}"
        if self.position is not None:
            return f"{prefix}{path}:@{self.position}"
        ref = self.ref if self.reference is None else str(self.reference)
        return f"{prefix}{path}" + (f":{ref}" if ref is not None else "")


def parse_image_name(text: str) -> ImageName:
    """The name in `text`; without a transport it is one of a registry.

    Raises:
        FormatError: it is no name.
        Unsupported: the transport is not done here.
    """
    if not text or len(text) > _MAX_NAME or not text.isprintable():
        raise FormatError(
            f"expected an image name, got {text[:80]!r}", what="image name", hint=known_transports()
        )
    transport, colon, rest = text.partition(":")
    if colon and transport in TRANSPORTS:
        return find_transport(transport).parse(rest, text)
    if transport in ("http", "https") and rest.startswith("//"):
        shown = "//HOST/NAME" if may_hold_login(rest) else rest[:200]
        raise Unsupported(
            f"transport {transport!r} is not supported",
            hint=f"an image of a registry is docker:{shown}; https is tried first, and "
            "--tls-verify=false allows plain http",
        )
    if (colon and transport in _OTHERS) or _SCHEME.match(text):
        raise Unsupported(
            f"transport {transport[:40]!r} is not supported",
            hint=_STORAGE if transport == "containers-storage" else known_transports(),
        )
    reference = parse_reference(text)
    return ImageName("docker", reference=reference, short_name=_short_name(text, reference))


def check_one_meaning(name: ImageName) -> None:
    """Raise unless a name of something to change has a tag or a digest, and not both.

    Raises:
        UsageError: it has both.
    """
    if name.reference is not None and name.reference.remark:
        raise UsageError(
            f"{name}: has a tag and a digest: expected one of them in a name of what is changed",
            hint="the digest would decide, and the tag would stay as it is",
        )


def locate(name: ImageName) -> ImageName:
    """The same name with its path absolute and free of symbolic links; others as they are.

    Done once, before a policy is asked and before anything is opened: whoever owns a symbolic
    link on the way could have one image judged and another one read.
    """
    if not name.path or name.written or not TRANSPORTS[name.transport].has_path:
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
