# SPDX-License-Identifier: Apache-2.0
"""An image by the name that somebody wrote: where it is read, and what a policy asks about it.

    with open_image("registry.example.org/app:v1", transport, lookasides) as image:
        pull_image(image, Path("bundle"), PullOptions(policy))

Whoever asks a policy opens the image this way, so that all get the same answer: to a command, a
guest and a library "is not signed" means that every place was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from imagers import sign, transport
from imagers.model.closing import Closing
from imagers.model.digest import Digest
from imagers.model.identity import ImageIdentity
from imagers.model.image import ImageSource
from imagers.sign.found import Found
from imagers.transport.kinds.transport import find_transport

__all__ = ["NamedImage", "identity_of", "open_image"]


@dataclass(frozen=True, slots=True)
class NamedImage(Closing):
    """See the module. Nothing of it is verified.

    Attributes:
        identity: what a policy is asked about.
        source: closed with this object.
        find: the signatures of a manifest or an index, of the given formats. A place that cannot
            be asked is in the answer as a failure, and no error.
        transport_options: how it is reached; None: somebody else opened the source.
        read_key: the bytes of a key that a policy names; None: files only.
    """

    identity: ImageIdentity
    source: ImageSource
    find: Callable[[Digest, Collection[str]], Found]
    transport_options: transport.TransportOptions | None = None
    read_key: Callable[[str], bytes] | None = None
    _loaded: list[tuple[sign.Policy, sign.Trust]] = field(
        default_factory=list, repr=False, compare=False
    )

    def requirements(self, policy: sign.Policy) -> sign.Trust:
        """What a policy demands of this name, with its keys.

        They are read once for a policy: what was looked at first is what decides.

        Raises:
            LocalError, FormatError, Unsupported: a key cannot be read, or is none.
        """
        import logging

        from imagers.sign.keyfiles import read_key_file
        from imagers.sign.materials import load_trust

        for known, trust in self._loaded:
            if known is policy:
                return trust
        selected = policy.select(self.identity)
        log = logging.getLogger(__name__)
        log.debug("%s: the policy has its requirements at %s", self.identity, selected.where)
        loaded = load_trust(selected, self.read_key or read_key_file)
        self._loaded.append((policy, loaded))
        return loaded

    def signatures(
        self, trust: sign.Trust, *, everything: bool = False
    ) -> Callable[[Digest], Found]:
        """What finds the signatures that a policy asks about, with what gpg says of them.

        gpg runs only where simple signatures were found and the policy has keys for them.

        Args:
            everything: look for all formats, for an explanation.
        """
        from imagers.sign.formats.format import FORMATS, find_format

        formats = trust.formats() | trust.formats(on_index=True)
        if everything:
            formats = frozenset(FORMATS)

        def find(digest: Digest) -> Found:
            found = self.find(digest, formats)
            for name in formats:
                found = find_format(name).read(trust, found)
            return found

        return find

    def close(self) -> None:
        """Close the source. Safe to call twice."""
        self.source.close()


def open_image(
    name: str | transport.ImageName,
    transport: transport.TransportOptions | None = None,
    lookasides: sign.Lookasides | None = None,
    *,
    read_key: Callable[[str], bytes] | None = None,
) -> NamedImage:
    """The image of that name; the caller closes it. Nothing is read or asked yet.

    Args:
        name: as a user writes it; or one from `imagers.transport.names.locate`.
        transport: logins, certificates, mirrors; None: none of them.
        lookasides: where OpenPGP signatures outside of registries are; None: nowhere.
        read_key: the bytes of a key that a policy names; None: files only.

    Raises:
        FormatError, Unsupported, UsageError: it is no name of an image.
        PolicyDenied: registries.conf blocks it.
        LocalError: a file of `transport` cannot be read.
    """
    from imagers.sign.find import Finder
    from imagers.sign.places import places_of
    from imagers.transport.names import locate, parse_image_name
    from imagers.transport.open import open_source

    if isinstance(name, str):
        name = locate(parse_image_name(name))
    identity = identity_of(name)
    source = open_source(name, transport)
    finder = Finder(places_of(name, source, lookasides=lookasides, transport=transport))
    return NamedImage(identity, source, finder.find, transport, read_key)


def identity_of(name: transport.ImageName) -> ImageIdentity:
    """What a policy looks up for a name that a user wrote.

    Only an image of a registry is looked up under its name in `docker`: what stands in an
    archive or in an engine under the same name is somebody else's word. The path of a layout
    or an archive is absolute and free of symbolic links: a policy for a directory does not
    hold for what a link in it points to.

    Args:
        name: from `imagers.transport.names.locate`, and the image is opened by the same one.

    Raises:
        UsageError: the path is `/`, for which there can be no scope.
        ValueError: `name` has a path that nobody located.
    """
    return find_transport(name.transport).identity(name)
