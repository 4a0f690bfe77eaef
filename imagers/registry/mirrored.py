# SPDX-License-Identifier: Apache-2.0
"""An image that may be read at several places, the first that has it.

It keeps the user's name: `reference` and `name` are what policies are asked about.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from imagers.errors import IntegrityError, NotFound, RemoteError
from imagers.registry.source import RegistrySource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.manifest import RawManifest
    from imagers.model.reference import Reference
    from imagers.registry.client import RegistryClient
    from imagers.registry.ranges import Ranges

__all__ = ["MirroredSource"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class MirroredSource(RegistrySource):
    """A `RegistrySource` over several clients, of which the last is the place itself.

    What has the manifest gives the blobs. A mirror that lacks a tag or referrers proves
    nothing: the others are asked too.

    Threads: blobs may be read from several; the rest one at a time.
    """

    def __init__(
        self,
        reference: Reference,
        clients: Sequence[RegistryClient],
        *,
        name: str,
        ranges: Ranges | None = None,
    ) -> None:
        super().__init__(reference, clients[0], name=name, ranges=ranges)
        self._clients = list(clients)
        places = ", then at ".join(str(client.reference) for client in clients)
        _log.debug("%s is read at %s", reference, places)
        self._chosen: RegistryClient | None = None

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """See `ImageSource`."""
        result = self._first(lambda: super(MirroredSource, self).read_manifest(digest))
        self._chosen = self._client
        return result

    def read_tag(self, tag: str) -> RawManifest:
        """See `RegistrySource`."""
        return self._first(lambda: super(MirroredSource, self).read_tag(tag))

    def referrers(
        self, digest: Digest, *, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """See `RegistrySource`; those of the first place that has any."""

        def ask() -> tuple[Descriptor, ...]:
            found = super(MirroredSource, self).referrers(digest, artifact_type=artifact_type)
            if not found and self._client is not self._clients[-1]:
                raise NotFound("none at this mirror")
            return found

        return self._first(ask)

    def close(self) -> None:
        """See `ImageSource`."""
        for client in self._clients:
            client.close()

    def _first(self, ask: Callable[[], _T]) -> _T:
        """What the first place gives that gives anything; else the error of the last one."""
        order = [*([self._chosen] if self._chosen else []), *self._clients]
        before = self._client
        failed: list[str] = []
        for client in dict.fromkeys(order):
            self._client = client
            try:
                result = ask()
            except (RemoteError, IntegrityError) as error:
                if client is self._clients[-1]:
                    self._client = before
                    if failed and error.hint is None:
                        error.hint = f"mirrors were asked before: {'; '.join(failed)[:300]}"
                    raise
                _log.debug("%s is left: %s", client.reference.registry, error)
                failed.append(f"{client.reference.registry}: {error}")
                continue
            if self._chosen is not None:
                self._client = self._chosen
            return result
        raise AssertionError  # unreachable: the last place ends the loop
