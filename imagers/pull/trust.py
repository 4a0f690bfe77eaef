# SPDX-License-Identifier: Apache-2.0
"""The whole trust decision of a pull: bytes in, a `TrustedImage` or an exception out. No IO.

Whoever drives this (`run.py`) fetches what it is asked for and hands it in; every answer
of the outside world passes one numbered step, in this order:

1. *Reference.* What the user named, and the policy in force, fix what will be accepted.
   A pinned digest is the strongest name.
2. *Top document.* Its bytes have the pinned digest, if there is one. Of an index, the
   entry for the platform is chosen; its digest is now asked for.
3. *Manifest.* Its bytes have the digest of the index entry (or step 2 was it). Its media
   types, bounds and structure are checked.
4. *Signatures and policy.* The most specific requirements of the policy are evaluated over
   the signatures found for the digest of step 3, and requirements of type `index` over those
   found for the digest of step 2. "Could not look" is not "none". What gpg and the clock
   have to say comes in as values.
5. *Config.* Its bytes have the digest and size that the manifest gives, it counts as many
   diff_ids as the manifest has layers, and it is for the platform that was asked for: what
   an index says of its entries is the registry's word, the config is the signer's.
6. *Layers.* Each layer has a media type that can be opened; each encrypted one has key
   packets and options that parse. With `require_encrypted`, each one is encrypted.

Only then is there a `TrustedImage`, and only for it:

7. *Keys* are asked for, all of them, before the first layer: from a broker only where the
   basis is a signature or a pinned digest (`check_may_ask_broker`); the broker is told the
   digest of step 3 and decides by itself.
8. *Layers* are streamed; `imagers.core` compares blob digest, size, HMAC and diff_id with
   the values fixed in steps 3, 5 and 6. Nothing is published before the last one.

A method called out of order is a `RuntimeError`. After an error the object refuses any
further step. Steps 7 and 8 are in `run.py`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import InitVar, dataclass
from enum import Enum
from typing import TYPE_CHECKING

from imagers.encrypt.annotations import read_annotations
from imagers.errors import (
    PolicyDenied,
    SizeMismatch,
    Unsupported,
)
from imagers.model.digest import Digest, check_digest, digest_of
from imagers.model.identity import ImageIdentity
from imagers.model.manifest import (
    ImageConfig,
    Index,
    Manifest,
    check_config_size,
    check_layer_count,
    check_platform,
    parse_config,
    parse_manifest,
    parse_manifest_or_index,
)
from imagers.model.media import compression_of, is_encrypted, plaintext_media_type
from imagers.sign.decision import Decision, PolicyBasis
from imagers.sign.found import Found
from imagers.sign.verify import Subject, explain_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from imagers.model.descriptor import Descriptor, Platform
    from imagers.model.manifest import RawManifest
    from imagers.sign.decision import Explanation
    from imagers.sign.verify import Trust

__all__ = ["Basis", "TrustDecision", "TrustedImage"]


class Basis(Enum):
    """Why an image is trusted."""

    SIGNATURE = "signature"
    PINNED_DIGEST = "pinned_digest"
    UNSIGNED = "unsigned"


_SEAL = object()  # known to this module only: see TrustedImage


@dataclass(frozen=True, slots=True)
class TrustedImage:
    """An image whose reference, digests, signatures and policy have been checked.

    Made by `TrustDecision` only; everything that decrypts or unpacks takes this type.

    Attributes:
        identity: the name that the policy was evaluated for.
        basis: why it is trusted.
        decision: what the policy found: signer and identity.
        manifest: the platform's manifest, digest verified.
        config: its config, digest verified; as many diff_ids as the manifest has layers.
        top_digest: of the document that the reference named: the index or the manifest.
    """

    identity: ImageIdentity
    basis: Basis
    decision: Decision
    manifest: Manifest
    config: ImageConfig
    top_digest: Digest
    _seal: InitVar[object]

    def __post_init__(self, _seal: object) -> None:
        # Not a field: `dataclasses.replace` would hand it to an image that nobody checked.
        if _seal is not _SEAL:
            raise RuntimeError("a TrustedImage is made by TrustDecision.conclude() only")

    @property
    def encrypted_layers(self) -> int:
        """How many layers are encrypted."""
        return sum(is_encrypted(layer.media_type) for layer in self.manifest.layers)

    def check_may_ask_broker(self) -> None:
        """Raise unless keys of this image may be asked for at a broker (step 7).

        An unsigned, unpinned image could be anybody's: the host could have a guest decrypt
        the layers of another image inside one of its own.

        Raises:
            PolicyDenied: the basis is neither a signature nor a pinned digest.
        """
        if self.basis is Basis.UNSIGNED:
            raise PolicyDenied(
                "keys are not asked for at a broker: the policy accepts this image without a "
                "signature, and the reference has no digest",
                hint="sign the image and demand it in the policy, or name it by digest",
            )


class _Step(Enum):
    TOP = "the top document"
    MANIFEST = "the manifest of the platform"
    SIGNATURES = "the signatures"
    CONFIG = "the config"
    CONCLUDE = "the conclusion"
    DONE = "nothing, it is done"
    FAILED = "nothing, it failed"


class TrustDecision:
    """The steps of the module docstring, one method each.

    Args:
        requirements: of the policy in force for what the user named, with their keys
            (step 1). There is always a policy.
        platform: what to choose of an index, and what the config must be for.
        require_encrypted: refuse an image with a plain layer.
    """

    def __init__(
        self,
        requirements: Trust,
        platform: Platform,
        *,
        require_encrypted: bool = False,
    ) -> None:
        self._requirements = requirements
        self._identity = requirements.selected.identity
        self._platform = platform
        self._require_encrypted = require_encrypted
        self._next = _Step.TOP
        self._child: Descriptor | None = None
        self._top: Digest | None = None
        self._index_raw: bytes | None = None
        self._explanation: Explanation | None = None
        self._manifest: Manifest | None = None
        self._decision: Decision | None = None
        self._config: ImageConfig | None = None

    @contextmanager
    def _step(self, step: _Step) -> Iterator[None]:
        if self._next is not step:
            raise RuntimeError(f"trust decision wants {self._next.value}, got {step.value}")
        self._next = _Step.FAILED  # an error in a step is final
        yield

    @property
    def pinned(self) -> Digest | None:
        """Step 1: the digest in the reference, if it has one."""
        reference = self._identity.reference
        return None if reference is None else reference.digest

    def receive_top(self, answer: RawManifest) -> Descriptor | None:
        """Step 2: the document that the reference named.

        Returns:
            The entry of an index whose manifest must be handed to `receive_manifest`; None
            if `answer` is the manifest itself and `receive_signatures` is next.

        Raises:
            DigestMismatch: not the pinned bytes.
            NotFound: the index has no entry for the platform.
            FormatError, Unsupported: no manifest and no index.
        """
        with self._step(_Step.TOP):
            if self.pinned is not None:
                check_digest(answer.raw, self.pinned, what=f"manifest of {self._identity}")
            self._top = self.pinned or digest_of(answer.raw)
            document = parse_manifest_or_index(answer.raw, media_type=answer.media_type)
            if isinstance(document, Index):
                self._child = document.require_platform(
                    self._platform, what=f"image {self._identity}"
                )
                self._index_raw = answer.raw
                self._next = _Step.MANIFEST
            else:
                self._manifest = document
                self._next = _Step.SIGNATURES
            return self._child

    def receive_manifest(self, answer: RawManifest) -> None:
        """Step 3: the manifest of the platform, after an index.

        Raises:
            DigestMismatch, SizeMismatch: not the bytes of the index entry.
            FormatError, Unsupported: no manifest; an index inside an index is refused.
        """
        with self._step(_Step.MANIFEST):
            assert self._child is not None
            what = f"manifest for {self._platform}"
            if len(answer.raw) != self._child.size:
                raise SizeMismatch(expected=self._child.size, actual=len(answer.raw), what=what)
            check_digest(answer.raw, self._child.digest, what=what)
            self._manifest = parse_manifest(answer.raw, media_type=self._child.media_type)
            self._next = _Step.SIGNATURES

    @property
    def manifest(self) -> Manifest:
        """The manifest, from step 3 on: its digest is verified, its origin is not."""
        if self._manifest is None:
            raise RuntimeError("trust decision has no manifest yet")
        return self._manifest

    @property
    def index_digest(self) -> Digest | None:
        """SHA-256 of the index of step 2, whose signatures step 4 may ask for; None: no index."""
        return None if self._index_raw is None else digest_of(self._index_raw)

    def receive_signatures(
        self,
        found: Found,
        *,
        index_found: Found | None = None,
        now: datetime | None = None,
    ) -> None:
        """Step 4: the signatures found for the manifest, judged by the policy.

        Args:
            found: all of them, and where somebody looked; those of simple signing as gpg read
                them.
            index_found: the same for the index, if there is one; None: nobody looked.
            now: the time, aware, for certificates and expiries; without it those are no yes.

        Raises:
            VerificationError: the policy says no; its sub-classes say why.
            CouldNotVerify: it would need signatures that nobody could look for.
            Unsupported: a requirement that cannot be checked here; never skipped.
        """
        with self._step(_Step.SIGNATURES):
            index = None
            if self._index_raw is not None:
                index = Subject(self._index_raw, index_found or Found(), "index")
            # Exactly the bytes of step 2 or 3: whitespace counts.
            self._explanation = explain_image(
                self._requirements, self.manifest.raw, found, index=index, now=now
            )
            self._decision = self._explanation.require()
            self._next = _Step.CONFIG

    @property
    def explanation(self) -> Explanation | None:
        """How step 4 came to its answer, also where that is no; None before it."""
        return self._explanation

    def receive_config(self, raw: bytes) -> None:
        """Step 5: the config.

        Raises:
            DigestMismatch, SizeMismatch: not the bytes that the manifest names, or another
                count of layers than the manifest.
            VerificationError: it is for another platform.
            FormatError, Unsupported: no image config.
        """
        with self._step(_Step.CONFIG):
            descriptor = self.manifest.config
            check_config_size(descriptor)
            if len(raw) != descriptor.size:
                raise SizeMismatch(expected=descriptor.size, actual=len(raw), what="config")
            check_digest(raw, descriptor.digest, what="config")
            self._config = parse_config(raw, media_type=descriptor.media_type)
            check_layer_count(self.manifest, self._config)
            entry = None if self._child is None else self._child.platform
            check_platform(self._config, self._platform, entry=entry)
            self._next = _Step.CONCLUDE

    def conclude(self) -> TrustedImage:
        """Step 6: look at every layer's descriptor; then the image is trusted.

        Raises:
            Unsupported, FormatError: a layer that could not be opened later.
            PolicyDenied: a plain layer or no layer at all, and encryption is demanded.
        """
        with self._step(_Step.CONCLUDE):
            assert self._config is not None
            assert self._decision is not None
            assert self._top is not None
            count = len(self.manifest.layers)
            if self._require_encrypted and not count:
                raise PolicyDenied("encryption is demanded, and the image has no layers")
            for index, layer in enumerate(self.manifest.layers):
                self._check_layer(layer, f"layer {index + 1} of {count}")
            trusted = TrustedImage(
                identity=self._identity,
                basis=self._basis(),
                decision=self._decision,
                manifest=self.manifest,
                config=self._config,
                top_digest=self._top,
                _seal=_SEAL,
            )
            self._next = _Step.DONE
            return trusted

    def _basis(self) -> Basis:
        assert self._decision is not None
        if self._decision.basis is PolicyBasis.SIGNATURE:
            return Basis.SIGNATURE
        # A pinned index chains to the manifest by step 3.
        return Basis.UNSIGNED if self.pinned is None else Basis.PINNED_DIGEST

    def _check_layer(self, layer: Descriptor, what: str) -> None:
        try:
            if is_encrypted(layer.media_type):
                compression_of(plaintext_media_type(layer.media_type))
                read_annotations(layer, what=what)
                return
            compression_of(layer.media_type)
        except Unsupported as error:
            raise Unsupported(f"{what}: {error}", hint=error.hint) from error
        if self._require_encrypted:
            raise PolicyDenied(
                f"{what} is not encrypted, and encryption is demanded",
                hint="somebody may have replaced it; do not use this image",
            )
