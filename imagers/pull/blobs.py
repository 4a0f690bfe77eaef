# SPDX-License-Identifier: Apache-2.0
"""Stored bytes of layers that are kept where the host may write: nothing of them is believed.

What is kept is what the registry has, encrypted where the layer is. It is opened as if it had
been downloaded: digest, HMAC and diff_id are compared anew, by whoever reads it. The seal beside
it says what was verified once; an entry without one of this guest's key is not there. What came
of a download that broke off has no seal, and is gone on with.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from imagers.errors import LocalError
from imagers.store.seal import Seal, entry_name
from imagers.store.store import BLOB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.core import OpenedLayer
    from imagers.model.stream import RawStream
    from imagers.pull.ahead import Check
    from imagers.pull.plan import PlannedLayer
    from imagers.store import Store
    from imagers.store.seal import Checks, StoredAs
    from imagers.store.store import NewBlob

__all__ = ["KeptBlobs"]

_log = logging.getLogger(__name__)


class KeptBlobs:
    """The `Keeping` of a store.

    Args:
        layers: of the image.
        stored_as: of each of them.
        checks: on whose word they will be kept.
        full_checks: what each of them goes through when it was kept.
    """

    def __init__(
        self,
        store: Store,
        layers: Sequence[PlannedLayer],
        stored_as: Sequence[StoredAs],
        checks: Checks,
        full_checks: Sequence[Check],
    ) -> None:
        self._store = store
        self._layers = layers
        self._stored_as = stored_as
        self._checks = checks
        self._full_checks = full_checks

    def open(self, index: int) -> RawStream | None:
        """See `Keeping`."""
        descriptor = self._layers[index].layer.descriptor
        entry = self._store.find(self._name(index))
        if entry is None:
            return None
        with entry, suppress(OSError):
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.fdopen(os.open(BLOB, flags, dir_fd=entry.fd), "rb", buffering=0)
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size == descriptor.size:
                # Of a pull that was killed beside the one that has kept it.
                self._store.drop_part(descriptor.digest)
                return file
            file.close()
        return None

    def check(self, index: int) -> Check:
        """See `Keeping`."""
        return self._full_checks[index]

    def drop(self, index: int) -> None:
        """See `Keeping`."""
        with suppress(LocalError):  # another pull has it open, and finds the same
            self._store.remove(self._name(index))

    def prepare(self, index: int) -> NewBlob | None:
        """See `Keeping`."""
        layer = self._layers[index].layer
        size = layer.descriptor.size
        try:
            if self._store.make_room(size) < size:
                _log.debug("%s is not kept: there is no room in the store", layer.what)
                return None
            new = self._store.prepare_blob(
                layer.descriptor.digest, size=size, lasts=layer.is_resumable
            )
        except LocalError as error:  # a store that is only read, or cannot be read
            _log.debug("%s is not kept: %s", layer.what, error)
            return None
        return self._with_room(index, new)

    def resume(self, index: int) -> NewBlob | None:
        """See `Keeping`."""
        layer = self._layers[index].layer
        if not layer.is_resumable:
            return None
        size = layer.descriptor.size
        with suppress(LocalError):  # it is downloaded as if nothing were there
            part = self._store.take_part(layer.descriptor.digest, size=size)
            if part is None:
                return None
            try:
                if self._store.make_room(size) >= size:
                    return self._with_room(index, part)
            except BaseException:
                part.close()
                raise
            part.drop()
        return None

    def _with_room(self, index: int, new: NewBlob) -> NewBlob | None:
        """The place; None: what is still to come does not fit on its disk."""
        layer = self._layers[index].layer
        status = os.fstatvfs(new.fd)
        if layer.descriptor.size - new.there <= status.f_bavail * status.f_frsize:
            return new
        new.drop()
        _log.debug("%s is not kept: the disk of the store is full", layer.what)
        return None

    def keep(self, index: int, new: NewBlob, opened: OpenedLayer) -> None:
        """Let an entry appear, if it can: the layer was opened well, with a store or without."""
        planned = self._layers[index]
        seal = Seal(
            name=self._name(index),
            size=planned.layer.descriptor.size,
            checks=self._checks,
            diff_id=planned.layer.diff_id,
            stored_as=(self._stored_as[index],),
            tar_size=opened.tar_size,
            entries=opened.entries,
            hole_bytes=opened.hole_bytes,
        )
        try:
            new.commit(seal).close()
        except LocalError as error:
            new.drop()
            _log.debug("%s is not kept: %s", planned.layer.what, error)

    def _name(self, index: int) -> str:
        return entry_name(BLOB, self._layers[index].layer.descriptor.digest)
