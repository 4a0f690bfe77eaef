# SPDX-License-Identifier: Apache-2.0
"""The options of the store of a guest, and what they are turned into."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on, option_group, parse_size
from imagers.cli.output import say
from imagers.errors import FormatError, LocalError, UsageError
from imagers.pull.snapshots.table import SNAPSHOTTERS
from imagers.settings.guest import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from imagers.cli.command import Verb
    from imagers.model.keys import ResourceStore, SecretKey
    from imagers.pull.snapshots.snapshotter import Snapshotter
    from imagers.settings import Settings
    from imagers.settings.guest import Said
    from imagers.store import Store

__all__ = ["OpenedStore", "StoreOptions", "keeping_options", "store_options"]

_DEFAULT_BYTES = 10 * 1024**3
_DEFAULT_PART = 4  # of the file system
_MIN_KEY_BYTES = 32
_MAX_KEY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """A store, and who makes root file systems of what it keeps; None: nobody does."""

    store: Store
    snapshotter: Snapshotter | None


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What is kept from one pull to the next, and where.

    Attributes:
        directory: None: the default place.
        size: the most that is kept, as written.
        key: of the seals: a file, or a broker's resource; None: one for each boot.
        place: whether only the guest can read and write there; None: nobody said so.
        snapshotter: of a private place; None: one that works here.
        is_off: nothing is kept.

    Raises:
        UsageError: they are not one thing.
    """

    directory: str | None
    size: str | None
    key: str | None
    place: str | None = None
    snapshotter: str | None = None
    is_off: bool = False

    def __post_init__(self) -> None:
        if self.is_off and self._given:
            raise UsageError(f"{self._given[0]} and --no-store exclude each other")

    def where(self, user: Settings) -> list[Said]:
        """What the guest's configuration says of a private place; [] where it is none.

        Who chooses that chooses who reads unpacked layers, and changes them.

        Raises:
            UsageError: what is only for a private place was given for another.
        """
        if self._place(user) != "private":
            if self.snapshotter is not None:
                raise UsageError(
                    "--snapshotter is for --store-place private: elsewhere no unpacked layers are "
                    "kept"
                )
            return []
        said = [None if self.place else user.guest.store_place]
        if self.directory is None and not user.names_store:
            said.append(user.guest.work_dir)
        return [one for one in said if one is not None]

    def _place(self, user: Settings) -> str:
        if self.is_off:
            return "shared"
        said = user.guest.store_place
        return self.place or ("shared" if said is None else said.value)

    @property
    def _given(self) -> list[str]:
        values = {
            "--store": self.directory,
            "--store-place": self.place,
            "--store-size": self.size,
            "--store-key": self.key,
            "--snapshotter": self.snapshotter,
        }
        return [name for name, value in values.items() if value is not None]

    @contextmanager
    def opened(
        self, user: Settings, resources: ResourceStore | None = None, *, must: bool = False
    ) -> Iterator[OpenedStore | None]:
        """The store; None: it is off, or there is none at the default place.

        Args:
            user: what this machine says.
            resources: where a key is asked for that is a broker's.
            must: there is one, or an error.

        Raises:
            LocalError, Unsupported: it cannot be had as the options say.
        """
        if self.is_off:
            yield None
            return
        from imagers.store import Store

        path = user.store if self.directory is None else Path(self.directory)
        with ExitStack() as stack:
            try:
                key = stack.enter_context(self._load_key(user, resources))
                store = stack.enter_context(Store(path, key, max_bytes=self._max_bytes()))
            except LocalError as error:
                if self._given or must:
                    raise
                say("warning", f"nothing is kept of this image: {error}")  # nobody asked for it
                yield None
                return
            if store.max_bytes is None:
                status = os.fstatvfs(store.fd)
                whole = status.f_blocks * status.f_frsize
                store.max_bytes = min(_DEFAULT_BYTES, whole // _DEFAULT_PART)
            # In a place of the store's own: what a killed trial leaves, the next command removes.
            with store.prepare("trial") as trial:
                snapshotter = self._find_snapshotter(trial.path, user)
            yield OpenedStore(store, snapshotter)

    def _max_bytes(self) -> int | None:
        return None if self.size is None else parse_size(self.size, "--store-size")

    def _find_snapshotter(self, trial: Path, user: Settings) -> Snapshotter | None:
        if self._place(user) != "private":
            return None
        from imagers.pull.snapshots.table import choose_snapshotter, load_snapshotter

        if self.snapshotter is None:
            return choose_snapshotter(trial)
        with blamed_on("--snapshotter"):
            snapshotter = load_snapshotter(self.snapshotter)
            snapshotter.check(trial)
        return snapshotter

    def _load_key(self, user: Settings, resources: ResourceStore | None) -> SecretKey:
        from imagers.files import read_bounded
        from imagers.model.keys import SecretKey
        from imagers.store import load_store_key

        if self.key is None:
            if user.runtime is None:
                raise LocalError(
                    "there is no directory for a key that lasts as long as this boot",
                    path="XDG_RUNTIME_DIR",
                    hint="name a key with --store-key; 'imagers pull --no-store' keeps nothing",
                )
            return load_store_key(user.runtime)
        with blamed_on("--store-key"):
            if not self.key.startswith("kbs:"):
                key = SecretKey(read_bounded(self.key, max_bytes=_MAX_KEY_BYTES))
            elif resources is None:
                raise UsageError(
                    "expected a broker that the key is asked for, got none",
                    hint="'imagers pull --broker URL' asks one; elsewhere the key has to be a file",
                )
            else:
                key = resources.get(self.key, manifest_digest=None)
            if len(key) < _MIN_KEY_BYTES:
                raise FormatError(
                    f"expected at least {_MIN_KEY_BYTES} bytes, got {len(key)}", what="key"
                )
        return key


_OPTIONS: Mapping[str, Callable[[Verb], Verb]] = {
    "directory": click.option("--store", "directory", metavar="DIR"),
    "size": click.option("--store-size", "size", metavar="SIZE"),
    "key": click.option("--store-key", "key", metavar="KEY"),
}

store_options = option_group("store", StoreOptions, _OPTIONS)
"""Of who looks after a store."""

keeping_options = option_group(
    "store",
    StoreOptions,
    {
        **_OPTIONS,
        "place": click.option("--store-place", "place", type=click.Choice(PLACES)),
        "snapshotter": click.option("--snapshotter", type=click.Choice(SNAPSHOTTERS)),
        "is_off": click.option("--no-store", "is_off", is_flag=True),
    },
)
"""Of a pull."""
