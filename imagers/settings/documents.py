# SPDX-License-Identifier: Apache-2.0
"""Documents by their place: a path, `file:///path`, or `kbs:///repository/type/tag` of a broker.

    raw = read_document("kbs:///default/security-policy/test", max_bytes=65536, resources=broker)

What a broker gives is kept in memory, and nowhere else: it is asked anew each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imagers.errors import FormatError, KeyRefused, Unsupported, UsageError
from imagers.model.keys import ResourceStore
from imagers.model.origin import Origin

__all__ = ["Document", "is_at_broker", "key_reader", "path_of", "read_document"]

_FORMS = "a path, file:///PATH or kbs:///REPOSITORY/TYPE/TAG"


@dataclass(frozen=True, slots=True)
class Document:
    """What somebody named, or wrote down himself.

    Attributes:
        name: in messages: its place, or the key that it stands under.
        by: who named it: a key of a file, or a word; "" for the caller himself.
        text: where it stands in the configuration; None: it is at `name`.
    """

    name: str
    by: str = ""
    origin: Origin = Origin.CALLER
    text: str | None = None

    def read(self, *, max_bytes: int, resources: ResourceStore | None) -> bytes:
        """Its bytes; as `read_document`."""
        if self.text is not None:
            return self.text.encode()
        return read_document(self.name, max_bytes=max_bytes, resources=resources)

    def content_origin(self) -> Origin:
        """Who can have written it: who named it, or the host, where a file of its is named.

        Raises:
            FormatError, Unsupported: as `path_of`.
            LocalError: it cannot be told.
        """
        from imagers.files import is_shared_with_host

        if not self.origin.is_measured or self.text is not None or is_at_broker(self.name):
            return self.origin
        is_shared = is_shared_with_host(path_of(self.name))
        return Origin.SHARED_FILE if is_shared else self.origin


def is_at_broker(place: str) -> bool:
    """Whether a broker has it, if anybody."""
    return place.startswith(("kbs:", "kbs+"))


def path_of(place: str) -> str:
    """The path that a place means which is not at a broker.

    Raises:
        FormatError: `file:` and no absolute path.
        Unsupported: a URI of another kind.
    """
    if "://" not in place:
        return place
    if not place.startswith("file://"):
        raise Unsupported(f"expected {_FORMS}, got {place[:160]!r}")
    path = place.removeprefix("file://")
    if not path.startswith("/"):
        raise FormatError(f"expected file:///PATH, got {place[:160]!r}", what="place")
    return path


def read_document(place: str, *, max_bytes: int, resources: ResourceStore | None) -> bytes:
    """The bytes at a place.

    Args:
        resources: where those at a broker are asked for; None: nobody named one.

    Raises:
        LocalError: a file cannot be read, or is too long.
        UsageError: it is at a broker, and none is named.
        FormatError, Unsupported: it is no place, or too long.
        KeyUnavailable, KeyRefused, AttestationError, RemoteError: the broker does not give it.
    """
    if not is_at_broker(place):
        from imagers.files import read_bounded

        return read_bounded(path_of(place), max_bytes=max_bytes)
    if place.startswith("kbs+"):
        raise Unsupported(
            f"expected {_FORMS}, got {place[:160]!r}",
            hint="plugins of a broker are not asked; store the document as a resource",
        )
    if resources is None:
        raise UsageError(
            f"{place[:160]!r} is at a broker, and none is named",
            hint="'imagers pull --broker https://HOST' asks it; other verbs take a file",
        )
    try:
        found = resources.get(place, manifest_digest=None)
    except KeyRefused as error:
        error.hint = "its policy needs a rule that asks for no image, as docs/guest.md has one"
        raise
    with found as secret, secret.view() as data:
        if len(data) > max_bytes:
            raise FormatError(f"expected at most {max_bytes} bytes, got {len(data)}", what=place)
        return bytes(data)


def key_reader(resources: ResourceStore | None) -> Callable[[str], bytes]:
    """What reads the keys that a policy names, those at a broker too: for `open_image`."""

    def read(place: str) -> bytes:
        from imagers.sign.keyfiles import MAX_KEYRING_BYTES, read_key_file

        if resources is None or not is_at_broker(place):
            return read_key_file(place)
        return read_document(place, max_bytes=MAX_KEYRING_BYTES, resources=resources)

    return read
