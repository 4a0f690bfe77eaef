# SPDX-License-Identifier: Apache-2.0
"""Drive a pull: sources, signatures, keys, the core and the staging place, in that order.

    with open_image("registry.example.org/app:v1", transport) as image:
        report = pull_image(image, Path("bundle"), PullOptions(policy), resources=broker_client)

All decisions of trust are in `trust.py`; this module only fetches what it is asked for.
Nothing is at the destination before the last check has passed, and nothing is left beside
it after a failure.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from imagers import waiting
from imagers.core import Cancellation, OnProgress, make_directories
from imagers.encrypt.keys import packets_of, unwrap_layer_keys
from imagers.encrypt.schemes.broker import BrokerKeyUnwrapper
from imagers.errors import FormatError
from imagers.files import local_errors
from imagers.model.evidence import Measure
from imagers.model.keys import KeyUnwrapper, ResourceStore
from imagers.model.manifest import check_config_size
from imagers.model.stream import read_all
from imagers.pull.bundle import labels_left_out, make_runtime_config, working_directory
from imagers.pull.layers import PulledLayer, PullOptions, kept_trees, open_layers, sink_of
from imagers.pull.named import NamedImage
from imagers.pull.plan import make_plan
from imagers.pull.staging import Staging, check_destination
from imagers.pull.trace import Trace, traced
from imagers.pull.trees import remove_stale_bundles
from imagers.pull.trust import TrustDecision, TrustedImage
from imagers.sign.decision import Explanation
from imagers.sign.found import Found
from imagers.transport.resolve import this_platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.core import BlobProgress
    from imagers.core.left_out import Left, LeftOut
    from imagers.encrypt.keys import LayerKeys
    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey
    from imagers.model.strict_json import JSON
    from imagers.pull.plan import Plan
    from imagers.sign.policy_json import Policy

__all__ = ["PullOptions", "PullReport", "PulledLayer", "pull_image", "trust_image"]

_MAX_ACCOUNTS_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull did."""

    trusted: TrustedImage
    layers: tuple[PulledLayer, ...]

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What the image has and the bundle has not, by kind, of all layers together."""
        found: dict[Left, LeftOut] = {}
        for layer in self.layers:
            for left in layer.opened.left_out:
                old = found.get(left.kind)
                count = left.count + (0 if old is None else old.count)
                found[left.kind] = replace(old or left, count=count)
        return tuple(found[kind] for kind in sorted(found))

    @property
    def labels_left_out(self) -> tuple[str, ...]:
        """The names of the image's labels that are no annotations of the bundle."""
        return labels_left_out(self.trusted.config)


def trust_image(
    image: NamedImage,
    options: PullOptions,
    *,
    on_explained: Callable[[Explanation], None] | None = None,
    on_step: Callable[[str], None] | None = None,
    cancellation: Cancellation | None = None,
    trace: Trace | None = None,
) -> TrustedImage:
    """Fetch manifest, signatures and config, and decide; no layer and no key is asked for.

    Args:
        on_explained: gets the tree of the policy's answer, whatever it is. For that signatures
            of every format are looked for; else only where and as far as the policy asks for them.
        on_step, cancellation, trace: as for `pull_image`.

    Raises:
        As `NamedImage.requirements`, the steps of `TrustDecision`, and the image's source.
        Cancelled: by `cancellation`; `TimedOut` by a time limit.
    """
    limits = options.time_limits
    whole = Cancellation(within=cancellation or waiting.in_force(), seconds=limits.total)
    with _phase("trust", limits.trust, whole) as limit:
        return _trust(image, options, on_explained, _told(on_step, limit), trace)


def _trust(
    image: NamedImage,
    options: PullOptions,
    on_explained: Callable[[Explanation], None] | None,
    on_step: Callable[[str], None],
    trace: Trace | None,
) -> TrustedImage:
    source, explain = image.source, on_explained is not None
    on_step("reads the manifest")
    requirements = image.requirements(options.policy)
    signatures = image.signatures(requirements, everything=explain)
    decision = TrustDecision(
        requirements,
        options.platform or this_platform(),
        require_encrypted=options.require_encrypted,
    )
    with traced(trace, "manifest"):
        child = decision.receive_top(source.read_manifest())
        if child is not None:
            decision.receive_manifest(source.read_manifest(child.digest))
    manifest = decision.manifest
    found: Found = Found()
    if explain or requirements.needs_signatures:
        on_step("looks for signatures")
        with traced(trace, "signatures"):
            found = signatures(manifest.descriptor.digest)
    index_found: Found | None = None
    if decision.index_digest is not None and (explain or requirements.formats(on_index=True)):
        with traced(trace, "signatures of the index"):
            index_found = signatures(decision.index_digest)
    try:
        with traced(trace, "policy"):
            decision.receive_signatures(found, index_found=index_found, now=datetime.now(UTC))
    finally:
        if trace is not None:
            trace.explanation = decision.explanation
        if on_explained is not None and decision.explanation is not None:
            on_explained(decision.explanation)
    check_config_size(manifest.config)
    on_step("reads the config")
    with traced(trace, "config"), source.open_blob(manifest.config, what="config") as stream:
        decision.receive_config(read_all(stream, size=manifest.config.size))
    return decision.conclude()


def pull_image(
    image: NamedImage,
    bundle: Path,
    options: PullOptions,
    *,
    unwrappers: Sequence[KeyUnwrapper] = (),
    resources: ResourceStore | None = None,
    on_trusted: Callable[[TrustedImage], None] | None = None,
    on_step: Callable[[str], None] | None = None,
    measure: Measure | None = None,
    on_progress: OnProgress | None = None,
    on_publish: Callable[[], None] | None = None,
    cancellation: Cancellation | None = None,
    trace: Trace | None = None,
) -> PullReport:
    """Verify an image, decrypt it and let it appear as an OCI bundle at `bundle`.

    Args:
        bundle: missing or an empty directory. It appears with one rename, after the last
            check, open to its owner only.
        unwrappers: keys from files.
        resources: a broker that keys are asked for, once for the whole image.
        measure: what the image, its policy and its keys are measured with, after the last check
            and before the bundle appears.
        on_trusted, on_step, on_progress: news for a user interface, told in this thread. A step
            says what is done now, in words, before there are layers to work on.
        on_publish: told in this thread right before the bundle appears. Who turns signals into
            exceptions stops that here: one that comes later would deny a bundle that is there.
        cancellation: ends the work within about 100 ms, whatever it waits for. None: what is in
            force in this thread (`Cancellation.in_force`) does.
        trace: learns what was done when, also where it fails.

    Raises:
        VerificationError, IntegrityError, FormatError, Unsupported: the image is not what
            it should be.
        KeyUnavailable, AttestationError: there are no keys.
        RemoteError, LocalError, Cancelled: the outside world.
        TimedOut: a limit of `options.time_limits`, which says in which phase.
        As `measure`.
        In each case nothing is at `bundle` that was not there before.

    Spec: OCI image-spec v1.1, layer.md; OCI runtime-spec v1.0.2, bundle.md.
    """
    bundle = bundle.absolute()
    check_destination(bundle)
    limits = options.time_limits
    whole = Cancellation(within=cancellation or waiting.in_force(), seconds=limits.total)
    with _phase("trust", limits.trust, whole) as limit:
        trusted = _trust(image, options, None, _told(on_step, limit), trace)
    if trace is not None:
        trace.trusted = trusted
    if on_trusted is not None:
        on_trusted(trusted)
    plan = make_plan(trusted, image.source)
    # Steps 7 and 8 of trust.py: all keys first, then the layers.
    with ExitStack() as stack:
        with _phase("keys", limits.keys, whole) as limit:
            if trusted.encrypted_layers:
                asks = "attests, asks for keys" if resources is not None else "opens the keys"
                _told(on_step, limit)(asks)
            keys = stack.enter_context(_layer_keys(plan, unwrappers, resources, trace))
        with _phase("layers", limits.layers, whole) as limit:
            if options.store is not None:
                limit.note("looks for kept layers")
                # Unmounts what a killed pull left, so that its staging place can be removed.
                remove_stale_bundles(options.store)
            staging = stack.enter_context(Staging(bundle))
            trees = stack.enter_context(kept_trees(plan, keys, options))
            layers = open_layers(
                plan,
                keys,
                staging,
                options,
                trees,
                on_progress=_noted(on_progress, limit),
                cancellation=limit,
                trace=trace,
            )
        with _phase("bundle", limits.bundle, whole) as limit:
            if trees is not None:
                limit.note("composes the root")
                with traced(trace, "compose"):
                    trees.compose(staging, bundle)
            record = None if measure is None else _measured(trusted, options.policy, keys)
            _publish(
                trusted,
                staging,
                measure,
                record,
                on_publish=on_publish,
                trace=trace,
                limit=limit,
            )
    return PullReport(trusted, tuple(layers))


@contextmanager
def _phase(name: str, seconds: float | None, whole: Cancellation) -> Iterator[Cancellation]:
    """A phase of a pull, which ends with it or by its own limit."""
    limit = Cancellation(within=whole, seconds=seconds, phase=name)
    with limit.in_force():
        limit.check()
        yield limit


def _told(on_step: Callable[[str], None] | None, limit: Cancellation) -> Callable[[str], None]:
    """Tells a step, and has it in the message of the limit."""

    def tell(step: str) -> None:
        limit.note(step)
        if on_step is not None:
            on_step(step)

    return tell


def _noted(on_progress: OnProgress | None, limit: Cancellation) -> OnProgress:
    """Tells of a layer, and has it in the message of the limit."""

    def tell(news: BlobProgress) -> None:
        limit.note(f"{news.what}, {news.done / 1e6:.1f} of {news.size / 1e6:.1f} MB")
        if on_progress is not None:
            on_progress(news)

    return tell


def _publish(
    trusted: TrustedImage,
    staging: Staging,
    measure: Measure | None,
    record: JSON,
    *,
    on_publish: Callable[[], None] | None,
    trace: Trace | None,
    limit: Cancellation,
) -> None:
    config = make_runtime_config(
        trusted.config,
        passwd=_read_below(staging.root_fd, "passwd"),
        group=_read_below(staging.root_fd, "group"),
        owner=(os.geteuid(), os.getegid()),
    )
    with traced(trace, "working directory"):
        _make_working_directory(trusted, staging)
    if measure is not None:
        limit.note("measures")
        limit.check()
        with traced(trace, "measure"):
            measure.record("PullImage", record)
    # From here on nothing waits but for the disk.
    limit.check()
    staging.publish(config, on_publish=on_publish, trace=trace)


def _measured(trusted: TrustedImage, policy: Policy, keys: LayerKeys) -> JSON:
    """What is measured of a pull: the same for the same image, policy and keys."""
    names: list[JSON] = [*_names_of(keys)]
    return {
        "image": str(trusted.manifest.descriptor.digest),
        "top": str(trusted.top_digest),
        "config": str(trusted.manifest.config.digest),
        "policy": str(policy.digest),
        "keys": names,
    }


def _names_of(keys: LayerKeys) -> tuple[str, ...]:
    return tuple(sorted({name for key in keys if key is not None for name in key.names}))


@dataclass(frozen=True, slots=True)
class _TrustedOnly:
    """A `ResourceStore` that is asked for keys of an image only if the image may ask: step 7.

    An image that a key file opens, or that is not encrypted, is nothing to a broker.
    """

    store: ResourceStore
    trusted: TrustedImage

    def get(self, uri: str, *, manifest_digest: Digest | None) -> SecretKey:
        """See `ResourceStore`; raises PolicyDenied before it asks."""
        self.trusted.check_may_ask_broker()
        return self.store.get(uri, manifest_digest=manifest_digest)

    def get_all(
        self, uris: Sequence[str], *, manifest_digest: Digest | None
    ) -> dict[str, SecretKey]:
        """See `ResourceStore`; raises PolicyDenied before it asks."""
        self.trusted.check_may_ask_broker()
        return self.store.get_all(uris, manifest_digest=manifest_digest)


@contextmanager
def _layer_keys(
    plan: Plan,
    unwrappers: Sequence[KeyUnwrapper],
    resources: ResourceStore | None,
    trace: Trace | None,
) -> Iterator[LayerKeys]:
    """Every layer's key, None for plain ones; wiped when the block ends."""
    trusted = plan.trusted
    layers = [planned.layer for planned in plan.layers]
    with ExitStack() as stack:
        with traced(trace, "keys"):
            asked = list(unwrappers)
            if resources is not None:
                store = _TrustedOnly(resources, trusted)
                packets = packets_of(layers)
                asked.append(stack.enter_context(BrokerKeyUnwrapper(store, packets)))
            keys = stack.enter_context(
                unwrap_layer_keys(layers, asked, manifest_digest=trusted.manifest.descriptor.digest)
            )
        if trace is not None:
            trace.key_names = _names_of(keys)
        yield keys


def _make_working_directory(trusted: TrustedImage, staging: Staging) -> None:
    """Make the image's working directory where no layer has it, as Docker and runc do.

    Other runtimes end with "no such file or directory", and with a read-only root nobody can
    make it later. It is root's, as theirs is, or the caller's.
    """
    path = working_directory(trusted.config)
    try:
        make_directories(sink_of(staging), path.encode(), what="rootfs")
    except FormatError as error:
        # It speaks of an entry of a layer, and there is none.
        reason = str(getattr(error.__cause__, "strerror", error)).lower()
        raise FormatError(
            f"expected a directory, or a place for one, at {path[:80]!r}: {reason}",
            what="config",
            where="$.config.WorkingDir",
        ) from error


def _read_below(root_fd: int, name: str) -> bytes:
    """/etc/`name` of the unpacked image; b"" if it has none, or it is no plain file.

    The tree is the image's: no symbolic link in it is followed, so that nothing of the
    host is read in its place.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        etc = os.open("etc", os.O_RDONLY | os.O_DIRECTORY | flags, dir_fd=root_fd)
    except OSError:
        return b""
    try:
        # Looked at before it is opened for reading: opening a device can do something.
        place = os.open(name, os.O_PATH | flags, dir_fd=etc)
    except OSError:
        return b""
    finally:
        os.close(etc)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            return b""
        with (
            local_errors(f"/etc/{name} of the image"),
            open(f"/proc/self/fd/{place}", "rb") as file,
        ):
            return file.read(_MAX_ACCOUNTS_BYTES)
    finally:
        os.close(place)
