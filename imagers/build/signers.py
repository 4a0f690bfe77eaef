# SPDX-License-Identifier: Apache-2.0
"""Sign an image that is in a registry, in every format.

    signer = SigstoreSigner(load_private_key("release.key", passphrase))
    signed = sign(parse_image_name("registry.example.org/app:v1"), signer, transport=transport)

A signature format is a signer: what makes it is chosen here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from imagers.errors import Unsupported, UsageError
from imagers.model.digest import Digest
from imagers.registry.signatures import RegistrySignatures
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
from imagers.sign.formats.notation.envelope import JWS_TYPE
from imagers.sign.image import SignedManifest, attach_bundles, sign_image
from imagers.sign.places import Lookasides, places_of
from imagers.sign.sigstore_key import SigstorePrivateKey
from imagers.transport.names import ImageName
from imagers.transport.open import TransportOptions, open_sink, open_source

if TYPE_CHECKING:
    from imagers.model.keys import SecretKey
    from imagers.model.reference import Reference
    from imagers.sign.find import Places
    from imagers.sign.formats.notation.key import NotationKey

__all__ = [
    "GPGSigner",
    "NotationSigner",
    "Request",
    "Signer",
    "SigstoreSigner",
    "check_can_be_signed",
    "sign",
]


@dataclass(frozen=True, slots=True)
class Request:
    """One image in a registry that is to be signed, opened to read and to write.

    Attributes:
        reference: the name of the image, as those who verify will write it.
        places: where its signatures are.
        signatures: what the registry keeps of them itself, and what refers to images.
        expected_digest: of the manifest or index that is meant; None: what the name means now.
        identity: the name to sign instead of `reference`, for a format that signs names.
        now: aware; written into signatures for people.
    """

    reference: Reference
    source: RegistrySource
    sink: RegistrySink
    places: Places
    signatures: RegistrySignatures
    expected_digest: Digest | None
    identity: str | None
    now: datetime


class Signer(Protocol):
    """Makes signatures of one format with one key."""

    @property
    def key(self) -> str:
        """The key, for people."""

    @property
    def names_image(self) -> bool:
        """Whether its signatures speak for a name."""

    def sign(self, request: Request) -> tuple[SignedManifest, ...]:
        """Sign the image, and of an index everything in it; the top one last.

        Raises:
            As `imagers.sign.image.sign_image`.
        """


@dataclass(frozen=True, slots=True)
class SigstoreSigner:
    """Signatures under a tag of the repository, and as a bundle too if `bundle`."""

    private_key: SigstorePrivateKey
    bundle: bool = False

    @property
    def key(self) -> str:
        """See `Signer`."""
        return f"sha256:{self.private_key.public_key.fingerprint}"

    @property
    def names_image(self) -> bool:
        """See `Signer`; a bundle names none."""
        return not self.bundle

    def sign(self, request: Request) -> tuple[SignedManifest, ...]:
        """See `Signer`."""
        signed = sign_image(
            request.source,
            request.sink,
            request.reference,
            self.private_key,
            expected_digest=request.expected_digest,
            identity=request.identity,
            timestamp=int(request.now.timestamp()),
        )
        if not self.bundle:
            return signed
        return signed + attach_bundles(
            request.source,
            request.sink,
            request.signatures,
            request.reference,
            self.private_key,
            # What was signed just now, whatever the tag shows meanwhile.
            expected_digest=signed[-1].digest,
            created=request.now,
        )


@dataclass(frozen=True, slots=True)
class NotationSigner:
    """Envelopes of the Notary Project, which refer to the manifest.

    Attributes:
        media_type: of the envelope, `application/jose+json` or `application/cose`.
    """

    private_key: NotationKey
    media_type: str = JWS_TYPE

    @property
    def key(self) -> str:
        """See `Signer`."""
        return f"of {self.private_key.chain[0].subject.rfc4514_string()}"

    @property
    def names_image(self) -> bool:
        """See `Signer`."""
        return False

    def sign(self, request: Request) -> tuple[SignedManifest, ...]:
        """See `Signer`."""
        from imagers.sign.formats.notation.make import attach_notation

        return attach_notation(
            request.source,
            request.sink,
            request.signatures,
            request.reference,
            self.private_key,
            created=request.now,
            expected_digest=request.expected_digest,
            media_type=self.media_type,
        )


@dataclass(frozen=True, slots=True)
class GPGSigner:
    """Simple signing with a key of the user's gpg.

    Attributes:
        fingerprint: of the primary key, as `gpg.parse_fingerprint` gives it.
        passphrase: of the key; None leaves it to the user's agent.
    """

    fingerprint: str
    passphrase: SecretKey | None = None

    @property
    def key(self) -> str:
        """See `Signer`."""
        return self.fingerprint

    @property
    def names_image(self) -> bool:
        """See `Signer`."""
        return True

    def sign(self, request: Request) -> tuple[SignedManifest, ...]:
        """See `Signer`."""
        from imagers.sign.formats.simple import sign_image_simple

        return sign_image_simple(
            request.source,
            request.places,
            request.signatures,
            request.reference,
            self.fingerprint,
            expected_digest=request.expected_digest,
            identity=request.identity,
            timestamp=int(request.now.timestamp()),
            passphrase=self.passphrase,
        )


def check_can_be_signed(name: ImageName) -> Reference:
    """The name in a registry that `name` is; before anybody is asked for a passphrase.

    Raises:
        Unsupported: the image is not in a registry.
    """
    if name.transport != "docker" or name.reference is None:
        raise Unsupported(
            f"signatures of {name} are not supported: expected an image in a registry",
            hint="push it first, and sign docker://REGISTRY/NAME:TAG",
        )
    return name.reference


def sign(
    name: ImageName,
    signer: Signer,
    *,
    transport: TransportOptions | None = None,
    lookasides: Lookasides | None = None,
    expected_digest: Digest | None = None,
    identity: str | None = None,
    now: datetime,
) -> tuple[SignedManifest, ...]:
    """Sign an image and, of an index, every image in it and then itself.

    Args:
        expected_digest: of the manifest or index that is meant.
        identity: the name to sign instead of `name`; needs a tag or a digest.
        now: aware.

    Raises:
        Unsupported: the image is not in a registry.
        UsageError: `identity` for a format that signs no name, or a repository only.
        DigestMismatch: the image is another one than `expected_digest`; nothing was signed.
        As `sign_image`.
    """
    reference = check_can_be_signed(name)
    if identity is not None and not signer.names_image:
        raise UsageError("this signature format speaks for no name: expected no identity")
    # Signatures have names of their own: a tag beside the image's digest is not written to.
    beside = replace(name, reference=replace(reference, remark=""))
    with open_source(name, transport) as source, open_sink(beside, transport) as sink:
        assert isinstance(source, RegistrySource)  # as every one of that transport
        assert isinstance(sink, RegistrySink)
        places = places_of(name, source, lookasides=lookasides, transport=transport)
        return signer.sign(
            Request(
                reference,
                source,
                sink,
                places,
                RegistrySignatures(sink),
                expected_digest,
                identity,
                now,
            )
        )
