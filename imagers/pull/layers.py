# SPDX-License-Identifier: Apache-2.0
"""All layers of a planned image, from the base up: fetched, checked, opened, unpacked, kept.

    with keys_of_layers as keys, Staging(bundle) as staging, opened_trees(plan, keys, options) as t:
        layers = open_layers(plan, keys, staging, options, t)

Each layer changes what is below it, so they are unpacked one after another, while the next ones
are downloaded. Where they go is the root of the bundle, or trees that are kept (`trees.py`);
where they come from is the image's source, or what is kept of it (`blobs.py`).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from imagers.core import (
    AES256_GCM_HKDF_1MB,
    Allowance,
    Budget,
    DirectorySink,
    Limits,
    Watch,
    check_layer,
    compression_of_checked,
    look_at,
    open_layer,
)
from imagers.errors import IntegrityError, LocalError
from imagers.model.descriptor import Platform
from imagers.model.time_limits import TimeLimits
from imagers.pull.ahead import ReadAhead
from imagers.pull.blobs import KeptBlobs
from imagers.pull.snapshots.snapshotter import Snapshotter
from imagers.pull.trace import traced
from imagers.pull.trees import Making, Trees, ownership
from imagers.sign.policy_json import Policy
from imagers.store import Store
from imagers.store.seal import Checks, StoredAs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagers.core import Cancellation, OnProgress, OpenedLayer, Resources
    from imagers.encrypt.keys import LayerKey, LayerKeys
    from imagers.pull.ahead import Arrived, Check
    from imagers.pull.plan import Plan, PlannedLayer
    from imagers.pull.staging import Staging
    from imagers.pull.trace import Trace

__all__ = ["PullOptions", "PulledLayer", "kept_trees", "open_layers", "sink_of"]

_DOWNLOADS = 3  # at the same time, as image-rs has it
_DOWNLOAD_BYTES = 8 * 1024 * 1024  # of memory, so that one has more than it takes


@dataclass(frozen=True, slots=True)
class PullOptions:
    """What a pull accepts.

    Attributes:
        policy: the containers policy in force; it is asked about the name that the user wrote,
            never about that of a mirror. There is no default.
        platform: what is chosen of an index; the config must be for it. None: this machine's.
        require_encrypted: refuse an image with a plain layer.
        stream: open layers while they come, and compare digest and HMAC at their end. Else a
            layer's stored bytes are all there and right before any of them is decompressed
            (docs/adr/0081); those from a registry are kept beside the bundle meanwhile.
        limits: bounds of every layer, and of all together.
        budget: memory to work with, and how many layers are downloaded at the same time;
            layers are unpacked one after another.
        store: what is kept from one pull to the next; stays the caller's. Policy, signatures and
            keys are asked each time, whatever is kept. None: nothing is kept.
        snapshotter: for a store where nobody but this guest can read and write: unpacked layers
            are kept, and this makes root file systems of them. None: only stored bytes are kept,
            and they are checked, decrypted and unpacked each time.
        time_limits: of each phase, and of all of it.
    """

    policy: Policy
    platform: Platform | None = None
    require_encrypted: bool = False
    stream: bool = False
    limits: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)
    store: Store | None = None
    snapshotter: Snapshotter | None = None
    time_limits: TimeLimits = field(default_factory=TimeLimits)


@dataclass(frozen=True, slots=True)
class PulledLayer:
    """What became of one layer; sizes in bytes.

    Attributes:
        seconds: from the layer's turn to its last check.
        is_kept: whether its bytes, or its files, were there from an earlier pull.
        resumed: how many of its bytes were there from a download that broke off.
    """

    planned: PlannedLayer
    opened: OpenedLayer
    seconds: float
    is_kept: bool = False
    resumed: int = 0


@contextmanager
def kept_trees(plan: Plan, keys: LayerKeys, options: PullOptions) -> Iterator[Trees | None]:
    """What a private store keeps of the layers; None: there is no such store."""
    store, snapshotter = options.store, options.snapshotter
    if store is None or snapshotter is None:
        yield None
        return
    stored_as = _stored_as(plan, keys, store)
    checks = _checks_of(plan, options)
    with Trees(store, snapshotter, plan, stored_as, checks) as trees:
        yield trees


def open_layers(
    plan: Plan,
    keys: LayerKeys,
    staging: Staging,
    options: PullOptions,
    trees: Trees | None,
    *,
    on_progress: OnProgress | None,
    cancellation: Cancellation,
    trace: Trace | None,
) -> list[PulledLayer]:
    """Open every layer, each checked to its end.

    Args:
        trees: where they go, and what is there already; None: below `staging`.

    Raises:
        As `pull_image`.
    """
    found = [None if trees is None else trees.found(index) for index in range(len(plan.layers))]
    wanted = [index for index, opened in enumerate(found) if opened is None]
    downloads = _DOWNLOADS if options.budget.jobs is None else options.budget.jobs
    allowance = Allowance(options.limits)
    pulled = []
    with ReadAhead(
        [plan.layers[index].layer for index in wanted],
        [
            None if options.stream else _check_of(plan.layers[index], keys[index])
            for index in wanted
        ],
        staging.place_fd,
        downloads=min(downloads, options.budget.memory_bytes // _DOWNLOAD_BYTES),
        cancellation=cancellation,
        keeping=(blobs := _kept_blobs(plan, keys, options)),
        trace=trace,
    ) as ahead:
        for index, planned in enumerate(plan.layers):
            with Watch(on_progress, planned.layer.what, planned.layer.descriptor.size) as watch:
                watch.show(0)
                opened, is_kept, resumed = found[index], True, 0
                if opened is not None:
                    with traced(trace, "kept", index):
                        pass  # there is nothing to do
                else:
                    with (
                        _making(trees, index, staging) as making,
                        ahead.open(wanted.index(index), _first_half(watch)) as arrived,
                    ):
                        is_kept, resumed = arrived.is_kept, arrived.resumed
                        doing = "download and open" if arrived.is_direct else "open"
                        try:
                            with traced(trace, doing, index):
                                opened = making.opened = _open(
                                    planned,
                                    keys[index],
                                    arrived,
                                    making.sink,
                                    limits=allowance.limits,
                                    resources=options.budget.resources_of(1, jobs=1),
                                    watch=watch,
                                    cancellation=cancellation,
                                )
                        except (IntegrityError, LocalError) as error:
                            if blobs is not None and is_kept and isinstance(error, IntegrityError):
                                blobs.drop(index)
                            # Wrong bytes are no part of the layer; a full disk is not to stay one.
                            if arrived.entry is not None:
                                arrived.entry.drop()
                            raise
                        if blobs is not None and arrived.entry is not None:
                            with traced(trace, "keep", index):
                                blobs.keep(index, arrived.entry, opened)
                allowance.spend(
                    stored_size=opened.size,
                    tar_size=opened.tar_size + opened.hole_bytes,
                    entries=opened.entries,
                    what=planned.layer.what,
                )
            pulled.append(PulledLayer(planned, opened, watch.seconds, is_kept, resumed))
    return pulled


def _kept_blobs(plan: Plan, keys: LayerKeys, options: PullOptions) -> KeptBlobs | None:
    if options.store is None or options.snapshotter is not None:
        return None
    return KeptBlobs(
        options.store,
        plan.layers,
        _stored_as(plan, keys, options.store),
        _checks_of(plan, options),
        [
            _check_of(planned, key) or _digest_check_of(planned)
            for planned, key in zip(plan.layers, keys, strict=True)
        ],
    )


def _stored_as(plan: Plan, keys: LayerKeys, store: Store) -> list[StoredAs]:
    return [
        StoredAs.of(
            planned.layer.descriptor.digest,
            None if key is None else key.cipher.key,
            key=store.key,
        )
        for planned, key in zip(plan.layers, keys, strict=True)
    ]


def _checks_of(plan: Plan, options: PullOptions) -> Checks:
    trusted = plan.trusted
    return Checks(
        image=trusted.manifest.descriptor.digest,
        basis=trusted.basis.value,
        policy=options.policy.digest.hex,
        signers=tuple(signer.fingerprint for signer in trusted.decision.signers),
        at=int(datetime.now(UTC).timestamp()),
    )


@contextmanager
def _making(trees: Trees | None, index: int, staging: Staging) -> Iterator[Making]:
    """Where a layer goes: into the root of the bundle, or into a tree that is kept."""
    if trees is None:
        yield Making(sink_of(staging))
    else:
        with trees.make(index) as making:
            yield making


def _first_half(watch: Watch) -> Callable[[int], None]:
    """Tells the bytes of a check; where each is read twice, each counts half."""
    return lambda done: watch.show(done // 2)


def _check_of(planned: PlannedLayer, key: LayerKey | None) -> Check | None:
    """What a layer goes through before it is opened.

    None where each of its segments is authenticated before it is decompressed anyway.
    """
    if key is not None and key.cipher.name == AES256_GCM_HKDF_1MB:
        return None
    return partial(
        check_layer,
        expected=planned.layer.descriptor,
        cipher=None if key is None else key.cipher,
        hmac=None if key is None else key.hmac,
        what=planned.layer.what,
    )


def _digest_check_of(planned: PlannedLayer) -> Check:
    """What kept bytes go through that have no other check."""
    return partial(
        check_layer,
        expected=planned.layer.descriptor,
        cipher=None,
        hmac=None,
        what=planned.layer.what,
    )


def _open(
    planned: PlannedLayer,
    key: LayerKey | None,
    arrived: Arrived,
    sink: DirectorySink | None,
    *,
    limits: Limits,
    resources: Resources,
    watch: Watch,
    cancellation: Cancellation,
) -> OpenedLayer:
    """One layer, checked, in the tree."""
    layer, cipher = planned.layer, None if key is None else key.cipher
    size, checked, stream = layer.descriptor.size, arrived.checked, arrived.stream
    if checked is None:
        stream, compression = look_at(
            stream, cipher=cipher, size=size, told=planned.compression, what=layer.what
        )
    else:
        compression = compression_of_checked(checked, what=layer.what)
    return open_layer(
        stream,
        sink,
        expected=layer.descriptor,
        cipher=cipher,
        hmac=None if key is None else key.hmac,
        compression=compression,
        diff_id=layer.diff_id,
        checked=checked,
        what=layer.what,
        limits=limits,
        resources=resources,
        on_progress=lambda progress: watch.show(
            progress.bytes_in if checked is None else (size + progress.bytes_in) // 2
        ),
        cancellation=cancellation,
    )


def sink_of(staging: Staging) -> DirectorySink:
    """The root of a bundle on its way."""
    return DirectorySink(staging.root_fd, ownership())
