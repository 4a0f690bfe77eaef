# SPDX-License-Identifier: Apache-2.0
"""Encrypt an image, change who can read it, or decrypt it: one image, or all of an index.

    with open_image(name) as image, open_sink(other) as sink, opened_wrappers(who) as wrappers:
        top = permit_image(image, policy, platform=None)
        done = encrypt(image.source, sink, wrappers, work=Work(top=top))

A layer that several images of an index share is worked on once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from imagers.build.broker_key import BrokerKey
from imagers.core import BlobProgress, Budget, OnProgress
from imagers.encrypt.image import LayerAction, decrypt_image, encrypt_image
from imagers.encrypt.index import LeftOutEntry, rewrite_index
from imagers.encrypt.options import AES_256_CTR_HMAC_SHA256
from imagers.encrypt.rekey import rekey_image
from imagers.encrypt.rewrap import rewrap_image
from imagers.encrypt.rewrite import Run
from imagers.encrypt.schemes.scheme import Target
from imagers.encrypt.sealing import SharedLayers
from imagers.encrypt.selection import LayerSelection
from imagers.errors import UsageError
from imagers.model.descriptor import Platform
from imagers.model.image import Image, ImageSink, ImageSource
from imagers.model.keys import KeyUnwrapper, KeyWrapper
from imagers.model.manifest import RawManifest
from imagers.transport.resolve import resolve_image

if TYPE_CHECKING:
    from imagers.encrypt.rewrite import RewrittenImage
    from imagers.model.digest import Digest

    OneImage = Callable[[Image, SharedLayers | None], RewrittenImage]

__all__ = ["Change", "Changed", "Kind", "Work", "decrypt", "encrypt"]


class Kind(Enum):
    """What is done to the layers that a change is about."""

    ENCRYPT = "encrypt"
    REWRAP = "rewrap"  # other recipients, the same layer keys
    REKEY = "rekey"


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done to each image.

    Attributes:
        layers: which ones are encrypted; empty: all.
        skip_base: so many of the lowest are not.
        cipher: of new layer keys.
        allow_nothing: no error where no layer was to be encrypted.
        targets: who is removed, of `Kind.REWRAP`; the wrappers are who is added.
    """

    kind: Kind = Kind.ENCRYPT
    layers: Sequence[LayerSelection] = ()
    skip_base: int = 0
    cipher: str = AES_256_CTR_HMAC_SHA256
    allow_nothing: bool = False
    targets: Sequence[Target] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """Which images, with what, and who is told; the same for each use case.

    Attributes:
        top: what the name of the source means, if somebody has asked already.
        platform: which image of an index, as somebody asked for it; None: this machine's.
        all_images: the index with all its images, whatever `platform` says.
        budget: for all layers together.
        on_size: told of each image how many stored bytes its layers have.
        on_progress: told how far each layer is.
    """

    top: RawManifest | None = None
    platform: Platform | None = None
    all_images: bool = False
    budget: Budget = field(default_factory=Budget)
    on_size: Callable[[int], None] | None = None
    on_progress: OnProgress | None = None

    def resolve(self, source: ImageSource) -> tuple[RawManifest, Image | None]:
        """What the name means, and the one image to work on; None for all of them."""
        top = source.read_manifest() if self.top is None else self.top
        image = None if self.all_images else resolve_image(source, top, self.platform)
        return top, image

    def run(self, image: Image, *, by_name: bool) -> Run:
        """How one image is worked on."""
        if self.on_size is not None:
            self.on_size(sum(layer.size for layer in image.manifest.layers))
        told = self.on_progress
        if told is None or not self.all_images:
            return Run(by_name, self.budget, told)

        def show(news: BlobProgress) -> None:
            told(replace(news, what=f"{image.config.platform} {news.what}"))

        return Run(by_name, self.budget, show)


@dataclass(frozen=True, slots=True)
class Changed:
    """What is at the destination now.

    Attributes:
        images: the platform of each, and what was done to it.
        digest: of the manifest or index that the destination's name means.
        left_out: entries of an index that were no images.
        added: recipients that `Kind.REWRAP` added.
        removed: recipients that it removed.
    """

    images: tuple[tuple[str, RewrittenImage], ...]
    digest: Digest
    left_out: tuple[LeftOutEntry, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def opens(self) -> bool:
        """Whether the unwrappers that were given still open each image, after `Kind.REWRAP`."""
        return all(image.opens for _, image in self.images)

    def count(self, *actions: LayerAction) -> int:
        """How many layers of all images had one of these done to them."""
        return sum(image.count(*actions) for _, image in self.images)


def encrypt(
    source: ImageSource,
    sink: ImageSink,
    wrappers: Sequence[KeyWrapper],
    change: Change | None = None,
    *,
    unwrappers: Sequence[KeyUnwrapper] = (),
    broker_key: BrokerKey | None = None,
    work: Work | None = None,
) -> Changed:
    """Write the image with layers that only the given recipients can read.

    Args:
        wrappers: of all recipients but the broker's.
        unwrappers: what opens the image now, for a change other than `Kind.ENCRYPT`.
        broker_key: entered here, when the image has been found: its key is at the broker before
            anything of the image is published, and bound to each manifest afterwards.

    Raises:
        UsageError: nothing was to be encrypted, or a layer is encrypted in one image of an index
            and in the clear in another.
        KeyUnavailable: no unwrapper opens a layer.
        FormatError, Unsupported, IntegrityError, VerificationError, NotFound: the image.
        RemoteError, LocalError, Cancelled: the outside world. The destination's name is as it was.
    """
    change, work = change or Change(), work or Work()
    top, image = work.resolve(source)
    with broker_key or nullcontext():
        if broker_key is not None:
            wrappers = (*wrappers, broker_key.wrapper)
        each = _Each(change, sink, wrappers, unwrappers, work)
        done = _rewrite(source, sink, each.do, top, image, check=each.check_all)
        if broker_key is not None:
            for _, one in done.images:
                broker_key.bind(one.descriptor.digest)
    if change.kind is Kind.REWRAP:
        added = tuple(one for wrapper in wrappers for one in wrapper.recipients)
        return replace(done, added=added, removed=tuple(one.name for one in change.targets))
    return done


def decrypt(
    source: ImageSource,
    sink: ImageSink,
    unwrappers: Sequence[KeyUnwrapper],
    *,
    require_encrypted: bool = False,
    skip_diff_id: bool = False,
    work: Work | None = None,
) -> Changed:
    """Write the image with its layers in the clear.

    Every digest, tag and size is checked, and that each layer is the one that the config names by
    its diff_id.

    Args:
        require_encrypted: refuse an image with a plain layer.
        skip_diff_id: leave the last of these checks out.

    Raises:
        As `encrypt`.
    """
    plan = work or Work()
    top, image = plan.resolve(source)

    def do(one: Image, shared: SharedLayers | None) -> RewrittenImage:
        return decrypt_image(
            one,
            sink,
            unwrappers,
            require_encrypted=require_encrypted,
            skip_diff_id=skip_diff_id,
            shared=shared,
            run=plan.run(one, by_name=shared is None),
        )

    return _rewrite(source, sink, do, top, image)


def _rewrite(
    source: ImageSource,
    sink: ImageSink,
    do: OneImage,
    top: RawManifest,
    image: Image | None,
    *,
    check: Callable[[tuple[RewrittenImage, ...]], None] | None = None,
) -> Changed:
    if image is not None:
        one = do(image, None)
        return Changed(((str(image.config.platform), one),), one.descriptor.digest)
    shared = SharedLayers()
    index = rewrite_index(source, sink, lambda one: do(one, shared), top=top, check=check)
    return Changed(index.images, index.descriptor.digest, index.left_out)


@dataclass(frozen=True, slots=True)
class _Each:
    """What is done to each image, and what of that has to fit together."""

    change: Change
    sink: ImageSink
    wrappers: Sequence[KeyWrapper]
    unwrappers: Sequence[KeyUnwrapper]
    work: Work
    sealed: set[Digest] = field(default_factory=set)
    clear: set[Digest] = field(default_factory=set)

    def do(self, image: Image, shared: SharedLayers | None) -> RewrittenImage:
        """One image; of an index if there is `shared`."""
        change, by_name = self.change, shared is None
        run = self.work.run(image, by_name=by_name)
        if change.kind is Kind.REWRAP:
            return rewrap_image(
                image,
                self.sink,
                added=self.wrappers,
                removed=change.targets,
                unwrappers=self.unwrappers,
                run=run,
            )
        if change.kind is Kind.REKEY:
            return rekey_image(
                image,
                self.sink,
                self.wrappers,
                self.unwrappers,
                cipher=change.cipher,
                run=run,
            )
        done = encrypt_image(
            image,
            self.sink,
            self.wrappers,
            layers=list(change.layers) or None,
            skip_base=change.skip_base,
            cipher=change.cipher,
            # One image of an index may be encrypted already: `check_all` looks at all.
            allow_nothing=change.allow_nothing or not by_name,
            shared=shared,
            run=run,
        )
        for layer, report in zip(image.layers(), done.layers, strict=True):
            is_clear = report.action is LayerAction.COPIED
            (self.clear if is_clear else self.sealed).add(layer.diff_id)
        return done

    def check_all(self, images: tuple[RewrittenImage, ...]) -> None:
        """Raise unless something was done to an index, and nothing undoes it.

        Raises:
            UsageError: nothing was, or a layer is encrypted here and in the clear there.
        """
        if both := self.sealed & self.clear:
            raise UsageError(
                f"the layer with diff_id {min(map(str, both))} is encrypted in one image of "
                "the index and in the clear in another",
                hint="choose the layers so that it is the same in all, or encrypt all of them",
            )
        if not self.change.allow_nothing and not any(image.count(*DONE) for image in images):
            raise UsageError(
                "there is nothing to encrypt: every selected layer of every image is "
                "encrypted already",
                hint="choose other layers, or say --allow-nothing: the images then stay",
            )


DONE = (LayerAction.ENCRYPTED, LayerAction.SHARED, LayerAction.REWRAPPED)
"""What makes a layer another one than it was."""
