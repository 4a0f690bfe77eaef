# SPDX-License-Identifier: Apache-2.0
"""Unpacked layers that are kept where nobody but the guest can write, and roots made of them.

    with Trees(store, snapshotter, plan, stored_as, checks) as trees:
        for index in range(len(plan.layers)):
            opened = trees.found(index)              # from an earlier pull, or None
            if opened is None:
                with trees.make(index) as making:
                    making.opened = open_layer(stream, making.sink, ...)
        trees.compose(staging, bundle)

A tree is found by its ChainID, and given only to an image in which the layer is the same stored
bytes under the same key as when it was verified: a diff_id is no secret, and knowing it must
not be as good as having the key. Where the bytes are others, they are fetched and checked, and
the tree is not made again.

What a container writes is an entry of its own, named after the bundle, which needs the layers:
none of them goes before it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagers.core import DirectorySink, OpenedLayer, Ownership
from imagers.core.left_out import Left, LeftOut
from imagers.errors import LocalError
from imagers.files import local_errors, read_bounded, read_mounts
from imagers.model.closing import Closing
from imagers.model.digest import digest_of
from imagers.pull.snapshots.snapshotter import Committed
from imagers.pull.snapshots.table import load_snapshotter
from imagers.store.content import content_digest
from imagers.store.seal import Seal, entry_name
from imagers.store.store import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagers.pull.plan import Plan
    from imagers.pull.snapshots.snapshotter import Snapshotter
    from imagers.pull.staging import Staging
    from imagers.store import Store
    from imagers.store.seal import Checks, StoredAs
    from imagers.store.store import Entry

__all__ = ["Making", "Trees", "bundle_entry", "ownership", "remove_bundle", "remove_stale_bundles"]

_SCRATCH = "scratch"
_MAX_STORED_AS = 64  # in one seal; the oldest goes
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_NAMESPACE = "/proc/self/ns/mnt"
_MAX_BOOT_ID_BYTES = 64


@dataclass(slots=True)
class Making:
    """A layer that is being made.

    Attributes:
        sink: where it is unpacked; None: it is only to be checked.
        opened: what came of it, to be set before the block ends.
    """

    sink: DirectorySink | None
    opened: OpenedLayer | None = None


class Trees(Closing):
    """See the module. What is found stays locked until this object is closed.

    Args:
        stored_as: of each layer.
        checks: on whose word what is made will be kept.
    """

    def __init__(
        self,
        store: Store,
        snapshotter: Snapshotter,
        plan: Plan,
        stored_as: Sequence[StoredAs],
        checks: Checks,
    ) -> None:
        self._store = store
        self._snapshotter = snapshotter
        self._plan = plan
        self._stored_as = stored_as
        self._checks = checks
        self._owner = ownership()
        # Root of a user's namespace may have the same store, and has other owners in its trees.
        kind = snapshotter.name if self._owner is Ownership.KEEP else f"{snapshotter.name}mine"
        self._names = [entry_name(kind, chain) for chain in plan.chain_ids]
        self._stack = ExitStack()
        self._entries: list[Entry | None] = [None] * len(self._names)
        try:
            # From the top, so that the base is what was used last.
            for index in reversed(range(len(self._names))):
                self._entries[index] = self._hold(store.find(self._names[index]))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the layers. Safe to call twice."""
        self._stack.close()

    def _hold(self, entry: Entry | None) -> Entry | None:
        return None if entry is None else self._stack.enter_context(entry)

    def found(self, index: int) -> OpenedLayer | None:
        """What was read when the layer was kept; None: it has to be fetched."""
        entry = self._entries[index]
        if entry is None or self._stored_as[index] not in entry.seal.stored_as:
            return None
        seal = entry.seal
        return OpenedLayer(
            size=self._plan.layers[index].layer.descriptor.size,
            tar_size=seal.tar_size,
            diff_id=seal.diff_id,
            entries=seal.entries,
            hole_bytes=seal.hole_bytes,
            left_out=tuple(
                LeftOut(
                    Left(int(one["kind"])),
                    int(one["count"]),
                    bytes.fromhex(one["first"]),
                    bytes.fromhex(one["attribute"]),
                )
                for one in seal.left_out
            ),
        )

    @contextmanager
    def make(self, index: int) -> Iterator[Making]:
        """Unpack a layer on those below it, which are all there; it is kept when the block ends.

        Raises:
            LocalError: there is no room, or it cannot be written. What the snapshotter raises
                passes.
        """
        entry = self._entries[index]
        if entry is not None:
            yield Making(None)
            known = (*entry.seal.stored_as, self._stored_as[index])[-_MAX_STORED_AS:]
            self._store.reseal(entry, replace(entry.seal, stored_as=known))
            return
        with self._store.prepare(self._names[index]) as new:
            with self._snapshotter.prepare(self._committed(index), new.path) as prepared:
                making = Making(DirectorySink(prepared.root_fd, self._owner))
                yield making
            assert making.opened is not None  # set by the block
            self._make_room(index, making.opened)
            with local_errors(new.path, "the kept tree cannot be read"):
                content = content_digest(new.fd)
            seal = self._seal(index, making.opened, prepared.facts, content)
            self._entries[index] = self._hold(new.commit(seal))

    def _seal(self, index: int, opened: OpenedLayer, facts: dict[str, str], content: str) -> Seal:
        return Seal(
            name=self._names[index],
            size=opened.tar_size,
            checks=self._checks,
            needs=tuple(self._names[:index][-1:]),
            diff_id=self._plan.layers[index].layer.diff_id,
            stored_as=(self._stored_as[index],),
            tar_size=opened.tar_size,
            entries=opened.entries,
            hole_bytes=opened.hole_bytes,
            left_out=tuple(
                {
                    "kind": str(int(left.kind)),
                    "count": str(left.count),
                    "first": left.first.hex(),
                    "attribute": left.attribute.hex(),
                }
                for left in opened.left_out
            ),
            facts=facts,
            content=content,
        )

    def _make_room(self, index: int, opened: OpenedLayer) -> None:
        free = self._store.make_room(opened.tar_size)
        if free < opened.tar_size:
            raise LocalError(
                f"{self._plan.layers[index].layer.what} takes {opened.tar_size} bytes, and "
                f"{max(0, free)} of the store's {self._store.max_bytes} can be had: the rest is "
                "in use",
                path=str(self._store.path),
                hint="allow more with --store-size, or keep nothing with --no-store",
            )

    def _committed(self, upto: int) -> list[Committed]:
        return [
            Committed(entry.path, entry.seal.facts)
            for entry in self._entries[:upto]
            if entry is not None
        ]

    def compose(self, staging: Staging, bundle: Path) -> None:
        """Let the tree of all layers be the root of a bundle on its way.

        Raises:
            LocalError: another pull is about to put a bundle there, or one that was there is still
                mounted.
            As `Snapshotter.compose`.
        """
        name = bundle_entry(bundle)
        former = self._store.find(name)
        if former is not None:  # not stale: see `remove_stale_bundles`
            former.close()
            if any(one.name == name and one.in_use for one in self._store.entries()):
                raise _made_by_another(bundle)
            raise LocalError(
                "the root of a bundle that was at this path is still mounted",
                path=str(bundle),
                hint=f'"imagers store remove {name}" unmounts it',
            )
        with self._store.prepare(name) as new:
            with local_errors(new.path):
                os.mkdir(_SCRATCH, 0o700, dir_fd=new.fd)
            seal = Seal(
                name=name,
                size=0,
                checks=self._checks,
                needs=tuple(self._names),
                facts={
                    "bundle": str(bundle),
                    "root": str(staging.root),
                    "snapshotter": self._snapshotter.name,
                    **_here(),
                },
            )
            entry = self._stack.enter_context(new.commit(seal))
        if entry.seal.facts["root"] != seal.facts["root"]:
            # It came since we looked: what is below is written to by the root of that bundle.
            raise _made_by_another(bundle)

        def release(root: Path) -> None:
            self._snapshotter.release(root)
            entry.close()
            self._store.remove(name)

        staging.compose(
            lambda root: self._snapshotter.compose(
                self._committed(len(self._names)), root, entry.path / _SCRATCH
            ),
            release,
        )
        if os.path.ismount(staging.root):
            status = os.fstat(staging.root_fd)
            device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
            facts = {**seal.facts, "device": device, "inode": str(status.st_ino)}
            self._store.reseal(entry, replace(seal, facts=facts))
        else:
            # A tree of its own, which needs nothing of the store.
            entry.close()
            self._store.remove(name)


def _made_by_another(bundle: Path) -> LocalError:
    return LocalError("another pull is about to put a bundle there", path=str(bundle))


def ownership() -> Ownership:
    """Who files of layers belong to: whom their tar names, if this user can give them away."""
    return Ownership.KEEP if os.geteuid() == 0 else Ownership.MINE


def _here() -> dict[str, str]:
    """Where a mount is seen: this boot, this mount namespace."""
    with local_errors(_NAMESPACE):
        namespace = os.readlink(_NAMESPACE)
    boot = read_bounded(_BOOT_ID, max_bytes=_MAX_BOOT_ID_BYTES)
    return {"boot": boot.decode("ascii", "replace").strip(), "namespace": namespace}


def bundle_entry(bundle: Path) -> str:
    """The name of the entry with what the container of a bundle writes.

    Another in each mount namespace, where the same path is the bundle of somebody else.
    """
    here = _here()
    parts = (here["boot"], here["namespace"], str(bundle.absolute()))
    return entry_name(BUNDLE, digest_of(os.fsencode("\0".join(parts))))


def _mounted_at(seal: Seal) -> tuple[list[Path], list[Path]]:
    """Where the root of a bundle is mounted, and where it may be; it may have been moved since.

    The number of a device is given again when it is free, so the root must be the same one. What
    is mounted over it, or cannot be looked at, leaves that open.
    """
    device, inode = seal.facts.get("device"), seal.facts.get("inode")
    sure: list[Path] = []
    open_: list[Path] = []
    for mount in read_mounts():
        if mount.device == device and mount.kind == "overlay":
            try:
                found = str(os.stat(mount.point).st_ino)
            except OSError:
                if mount not in read_mounts():  # moved meanwhile, or not mounted any more
                    return _mounted_at(seal)
                found = ""
            (sure if found == inode else open_).append(Path(mount.point))
    return sure, open_


def remove_stale_bundles(store: Store) -> None:
    """Remove what bundles wrote that are gone: unmounted, or of a process that was killed.

    A bundle that is mounted in another mount namespace cannot be seen from here, and stays, and
    so does one that another process removes just now.
    """
    here = _here()
    for found in store.entries():
        seal = found.seal
        if seal is None or not found.is_bundle or found.in_use:
            continue
        with suppress(LocalError):
            if seal.facts["boot"] == here["boot"]:
                if seal.facts["namespace"] != here["namespace"]:
                    continue
                # Of a pull that was killed before its bundle appeared; else nothing is there.
                load_snapshotter(seal.facts["snapshotter"]).release(Path(seal.facts["root"]))
                if any(_mounted_at(seal)):
                    continue
            store.remove(found.name)


def remove_bundle(store: Store, bundle: Path) -> bool:
    """Unmount the root of a bundle and remove what its container wrote; False: there is none.

    The directory itself stays, with `config.json` and an empty `rootfs`.

    Args:
        bundle: its path, or the name of its entry, if it was moved since.

    Raises:
        LocalError: it is in use, or of another mount namespace.
    """
    name = str(bundle) if str(bundle).startswith(f"{BUNDLE}-sha256-") else bundle_entry(bundle)
    entry = store.find(name)
    if entry is None:
        return False
    with entry:
        seal = entry.seal
    here = _here()
    if seal.facts["boot"] == here["boot"]:
        if seal.facts["namespace"] != here["namespace"]:
            raise LocalError(
                f"expected a bundle of this mount namespace, got one of {seal.facts['namespace']}",
                path=seal.facts["bundle"],
                hint="remove it there; what an earlier boot left goes by itself",
            )
        sure, _ = _mounted_at(seal)
        for point in (Path(seal.facts["root"]), *sure):
            load_snapshotter(seal.facts["snapshotter"]).release(point)
        if any(left := _mounted_at(seal)):
            raise LocalError(
                f"its root may still be mounted at '{(left[0] + left[1])[0]}', below another mount",
                path=seal.facts["bundle"],
                hint="unmount what is mounted over it first",
            )
    return store.remove(seal.name)
