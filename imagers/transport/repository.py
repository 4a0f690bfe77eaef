# SPDX-License-Identifier: Apache-2.0
"""What stands beside an image where it is: its other tags; and deleting it there.

    list_tags(parse_repository("registry.example.org/app"), options)     # ('v1', 'v2')
    delete_image(parse_one_image("registry.example.org/app:v1"), options)

Both ask the place that a name means, and never a mirror of it.
"""

from __future__ import annotations

from imagers.errors import UsageError
from imagers.registry.deletion import Deletion
from imagers.transport.kinds.transport import TRANSPORTS, find_transport
from imagers.transport.names import ImageName, check_one_meaning, locate, parse_image_name
from imagers.transport.open import TransportOptions

__all__ = ["delete_image", "list_tags", "parse_one_image", "parse_repository", "repository_of"]


def parse_repository(text: str) -> ImageName:
    """The repository, layout or archive that a name means.

    Raises:
        FormatError, Unsupported: it is no name.
        UsageError: it names one image of them.
    """
    name = parse_image_name(text)
    if _says_which(name, text):
        raise UsageError(
            f"{name}: expected a repository, got an image of one",
            hint="leave out what follows the name: its tag, digest or position",
        )
    return locate(name)


def parse_one_image(text: str) -> ImageName:
    """The image that a name means, which has to say which: no tag is added to it.

    Raises:
        FormatError, Unsupported: it is no name.
        UsageError: it has neither a tag nor a digest, or both.
    """
    name = parse_image_name(text)
    check_one_meaning(name)
    if name.reference is not None and not _says_which(name, text):
        raise UsageError(
            f"{name.reference.name}: expected a tag or a digest, got a repository",
            hint=f"{name.reference} is the image that a name without them means elsewhere",
        )
    return locate(name)


def _says_which(name: ImageName, text: str) -> bool:
    """Whether a name that was parsed from `text` says which image it means."""
    if name.reference is None:
        return (name.ref, name.position, name.image_id) != (None, None, None)
    # Parsed, it has a tag in any case.
    rest = text.removeprefix(TRANSPORTS[name.transport].prefix)
    return bool(name.path) or "@" in rest or ":" in rest.rpartition("/")[2]


def repository_of(name: ImageName) -> str:
    """The name of all images beside this one, without a tag."""
    return name.reference.name if name.reference is not None else str(name)


def list_tags(name: ImageName, options: TransportOptions | None = None) -> tuple[str, ...]:
    """What may stand behind a name, each once: tags, or the names of entries and `@N`.

    Args:
        name: from `parse_repository`.

    Raises:
        Unsupported: the transport has nothing of the kind.
        NotFound, RemoteError, LocalError, FormatError: it could not be read.
        PolicyDenied: registries.conf blocks it.
    """
    found = find_transport(name.transport).list_tags(name, options or TransportOptions())
    return tuple(dict.fromkeys(found))


def delete_image(name: ImageName, options: TransportOptions | None = None) -> Deletion:
    """Delete an image of a registry, and no other one with it: `imagers.registry.deletion`.

    Args:
        name: from `parse_one_image`.

    Raises:
        Unsupported: the transport is not one of registries.
        UsageError: other names would lose their image with this one.
        NotFound: there is no such image.
        RemoteError: the registry does not delete, or could not be asked.
        PolicyDenied: registries.conf blocks it.
    """
    return find_transport(name.transport).delete_image(name, options or TransportOptions())
