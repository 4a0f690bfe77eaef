# SPDX-License-Identifier: Apache-2.0
"""Sign images: under a tag, or with a bundle that refers to them.

    signed = sign_image(source, sink, reference, key)

Signatures of a manifest are in its own repository under the tag `sha256-HEX.sig`. That tag can
be overwritten by anybody who may push, and registries have no compare-and-swap: signing keeps
what is there, looks again afterwards, and repeats itself if somebody else wrote meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from imagers.errors import (
    FormatError,
    RemoteError,
    Unauthorized,
    Unsupported,
    UsageError,
    VerificationError,
)
from imagers.model.descriptor import Descriptor
from imagers.model.digest import Digest, check_digest, digest_of
from imagers.model.image import read_config
from imagers.model.manifest import (
    Index,
    Manifest,
    check_platform,
    parse_manifest_or_index,
)
from imagers.model.media import (
    DOCKER_CONFIG,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_MANIFEST,
)
from imagers.pki.chain import parse_certificates
from imagers.sign.find import read_attached
from imagers.sign.formats.bundle import (
    EMPTY,
    EMPTY_TYPE,
    build_bundle,
    build_bundle_manifest,
    check_statement,
    parse_bundle_file,
)
from imagers.sign.formats.sigstore import (
    CERTIFICATE_ANNOTATION,
    SignatureManifest,
    build_signature_manifest,
    decode_signature,
    sign_payload,
    signature_tag,
)
from imagers.sign.formats.sigstore_signed import read_signature_manifest, read_signatures
from imagers.sign.found import BUNDLE_TYPE, BundleSignature, SigstoreSignature
from imagers.sign.identity import parse_signed_name
from imagers.sign.payload import build_payload, parse_payload

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.model.manifest import ImageConfig
    from imagers.model.reference import Reference
    from imagers.sign.repository import (
        ManifestSource,
        ReferrersSink,
        SignatureSink,
        SignatureSource,
    )
    from imagers.sign.sigstore_key import SigstorePrivateKey

__all__ = [
    "PlaceKind",
    "SignaturePlace",
    "SignedManifest",
    "attach_bundles",
    "digests_to_sign",
    "referrers_of",
    "sign_image",
    "signing_name",
]

_IMAGE_CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
_FORBIDDEN = 403
_MAX_DEPTH = 3  # indexes within indexes
_MAX_MANIFESTS = 1024  # of one image with all that it contains
_ATTEMPTS = 3  # to write where somebody else writes at the same time


class PlaceKind(Enum):
    """What signatures are kept in."""

    TAG = "tag"
    REFERRERS = "referrers"
    EXTENSION = "extension"  # of the registry
    LOOKASIDE = "lookaside"


@dataclass(frozen=True, slots=True)
class SignaturePlace:
    """Where signatures of one manifest are.

    Attributes:
        text: the tag, or what people find it by.
    """

    kind: PlaceKind
    text: str


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """What `sign_image` did for one manifest or index.

    Attributes:
        digest: of the manifest that is signed now.
        place: of its signatures, or of the new one.
        identity: the name in the signature.
        added: false where the same signature by the same key was there already.
        count: signatures that are there now.
    """

    digest: Digest
    place: SignaturePlace
    identity: str
    added: bool
    count: int


def sign_image(
    source: ManifestSource,
    sink: SignatureSink,
    reference: Reference,
    key: SigstorePrivateKey,
    *,
    expected_digest: Digest | None = None,
    identity: str | None = None,
    timestamp: int | None = None,
) -> tuple[SignedManifest, ...]:
    """Sign the image that `source` names; of an index, every image in it and then itself.

    All get one identity, as `cosign sign --recursive` and containers/image do: a guest pulls
    one image of the index, by the name of the index, and looks for that image's signature.

    Args:
        reference: the name of the image, as those who verify will write it.
        expected_digest: of the manifest or index that is meant. Without it, and with a source
            that is named by tag, what is signed is what the registry says the tag is now.
        identity: the name to sign instead of `reference`; needs a tag or a digest.
        timestamp: seconds since 1970 to write into the signature; nothing verifies it.

    Returns:
        One entry a manifest, the one that `source` names last.

    Raises:
        DigestMismatch: the image is another one than `expected_digest`; nothing was signed.
        UsageError: `identity` names a repository only.
        FormatError, Unsupported: the image, or what is under the tag, cannot be read.
        VerificationError: an image of an index is for another platform than the index says.
        RemoteError: the registry could not be asked or did not take it. Manifests that were
            signed before stay signed; signing again adds nothing to them.
    """
    name = signing_name(reference, identity)
    digests = digests_to_sign(source, reference, expected_digest=expected_digest)
    return tuple(
        _sign_manifest(source, sink, digest, identity=name, key=key, timestamp=timestamp)
        for digest in digests
    )


def referrers_of(digest: Digest) -> SignaturePlace:
    """The place of what refers to a manifest."""
    return SignaturePlace(PlaceKind.REFERRERS, f"referrers of {digest}")


def signing_name(reference: Reference, identity: str | None) -> str:
    """The name that a signature speaks for.

    Raises:
        UsageError: `identity` names a repository only.
        FormatError: it is no name.
    """
    name = parse_signed_name(str(reference) if identity is None else identity, what="identity")
    if name.is_name_only:
        raise UsageError(
            f"expected an identity with a tag or a digest, got '{name}'",
            hint=f"write '{name}:TAG': a signature without one satisfies no default policy",
        )
    return str(name)


def digests_to_sign(
    source: ManifestSource, reference: Reference, *, expected_digest: Digest | None
) -> tuple[Digest, ...]:
    """Of what `source` names and, of an index, of everything in it; the top one last.

    Raises:
        As `sign_image`.
    """
    top = source.read_manifest()
    if expected_digest is not None:
        check_digest(top.raw, expected_digest, what=f"image '{reference}'")
    collection = _Collection(source)
    collection.add(parse_manifest_or_index(top.raw, media_type=top.media_type), 0)
    return tuple(collection.digests)


class _Collection:
    """An index and all that it contains, read before anything of it is signed."""

    def __init__(self, source: ManifestSource) -> None:
        self._source = source
        self._documents: dict[Digest, Manifest | Index] = {}  # by the digests of entries
        self._configs: dict[Digest, ImageConfig] = {}  # of images, by the same
        self.digests: dict[Digest, None] = {}

    def add(self, document: Manifest | Index, depth: int) -> None:
        """The digests of all that `document` contains, then its own."""
        if isinstance(document, Index):
            if depth >= _MAX_DEPTH:
                raise Unsupported(f"expected at most {_MAX_DEPTH} levels of indexes, got more")
            for entry in document.manifests:
                self._add_entry(entry, depth)
        # By SHA-256 whatever digest the index used: the tag of another would not be found.
        self.digests[digest_of(document.raw)] = None

    def _add_entry(self, entry: Descriptor, depth: int) -> None:
        if entry.media_type not in MANIFEST_TYPES | INDEX_TYPES:
            raise Unsupported(
                f"index has an entry of media type {entry.media_type[:160]!r}: expected images "
                "and indexes"
            )
        document = self._documents.get(entry.digest)
        if document is None:
            if len(self._documents) >= _MAX_MANIFESTS:
                raise Unsupported(f"expected at most {_MAX_MANIFESTS} manifests, got more")
            child = self._source.read_manifest(entry.digest)
            check_digest(child.raw, entry.digest, what="manifest of the index")
            document = parse_manifest_or_index(child.raw, media_type=entry.media_type)
            self._documents[entry.digest] = document
            self.add(document, depth + 1)
        self._check_platform(entry, document)

    def _check_platform(self, entry: Descriptor, document: Manifest | Index) -> None:
        """Raise unless an image is for the platform that its entry says.

        A signature of the index would vouch for that. What is no image (an attestation, an
        artifact, an index) has no platform that counts.
        """
        platform = entry.platform
        if platform is None or platform.is_none or not isinstance(document, Manifest):
            return
        if document.config.media_type not in _IMAGE_CONFIGS:
            return
        if entry.digest not in self._configs:
            self._configs[entry.digest] = read_config(document, self._source)
        check_platform(self._configs[entry.digest], platform, entry=platform)


def _sign_manifest(
    source: SignatureSource,
    sink: SignatureSink,
    digest: Digest,
    *,
    identity: str,
    key: SigstorePrivateKey,
    timestamp: int | None,
) -> SignedManifest:
    tag = signature_tag(digest)
    place = SignaturePlace(PlaceKind.TAG, tag)
    payload = build_payload(identity, digest, timestamp=timestamp)
    signature: SigstoreSignature | None = None
    for _ in range(_ATTEMPTS):
        existing = _read_to_write(source, tag)
        if existing is not None and _is_signed(source, existing, payload, key):
            count = len(existing.signatures)
            return SignedManifest(digest, place, identity, signature is not None, count)
        signature = signature or sign_payload(payload, key)
        raw, config = build_signature_manifest(existing, [signature])
        sink.put_blob(
            Descriptor(signature.media_type, digest_of(payload), len(payload)),
            payload,
            what="signature payload",
        )
        sink.put_blob(
            Descriptor(OCI_CONFIG, digest_of(config), len(config)),
            config,
            what="config of the signatures",
        )
        sink.put_manifest_as(raw, OCI_MANIFEST, tag)
    # The last look: the same as the one that begins an attempt.
    existing = read_signature_manifest(source, tag)
    if existing is None or not _is_signed(source, existing, payload, key):
        raise RemoteError(
            f"tag '{tag}' does not keep the signature: somebody else writes it, or the registry "
            "forgets it",
            temporary=True,
            hint="sign again when nobody else does",
        )
    return SignedManifest(digest, place, identity, added=True, count=len(existing.signatures))


def _read_to_write(source: SignatureSource, tag: str) -> SignatureManifest | None:
    """What is under a tag that will be written; None: there is no such tag.

    A registry that says "forbidden" of it may mean that it is not there: whoever writes it finds
    out. Whoever verifies has not looked.
    """
    try:
        return read_signature_manifest(source, tag)
    except Unauthorized as error:
        if error.status != _FORBIDDEN:
            raise
        return None


def _is_signed(
    source: SignatureSource, existing: SignatureManifest, payload: bytes, key: SigstorePrivateKey
) -> bool:
    """Whether a good signature by `key` is there that says the same as `payload`.

    When it was made, and by which program, makes no difference: a pipeline that signs each
    time it runs does not add a signature each time.
    """
    wanted = parse_payload(payload)
    for one in read_signatures(source, existing):
        try:
            signature = decode_signature(one.annotations)
            if not key.public_key.is_good(signature, one.payload):
                continue
            if not _has_certificate(one, key):
                continue
            said = parse_payload(one.payload)
        except FormatError:
            continue
        if (said.reference, said.manifest_digest) == (wanted.reference, wanted.manifest_digest):
            return True
    return False


def _has_certificate(signature: SigstoreSignature, key: SigstorePrivateKey) -> bool:
    """Whether it brings the certificate along that `key` has now, if it has one."""
    if not key.certificates:
        return True
    text = signature.annotations.get(CERTIFICATE_ANNOTATION, "")
    return parse_certificates(text.encode(), what="certificate") == key.certificates[:1]


def attach_bundles(
    source: ManifestSource,
    sink: SignatureSink,
    referrers: ReferrersSink,
    reference: Reference,
    key: SigstorePrivateKey,
    *,
    expected_digest: Digest | None = None,
    created: datetime,
) -> tuple[SignedManifest, ...]:
    """As `sign_image`, as bundles that refer to the manifests: the format of cosign 3.

    A bundle names no image, so there is no identity.

    Args:
        created: aware; written for people.

    Raises:
        As `sign_image`.
    """
    digests = digests_to_sign(source, reference, expected_digest=expected_digest)
    signed = []
    for digest in digests:
        answer = source.read_manifest(digest)
        check_digest(answer.raw, digest, what="manifest to sign")
        subject = parse_manifest_or_index(answer.raw, media_type=answer.media_type).descriptor
        count, is_there = _count_bundles(source, referrers, digest, key)
        if not is_there:
            _attach_bundle(sink, referrers, subject, key, created)
        signed.append(
            SignedManifest(digest, referrers_of(digest), "", added=not is_there, count=count + 1)
        )
    return tuple(signed)


def _attach_bundle(
    sink: SignatureSink,
    referrers: ReferrersSink,
    subject: Descriptor,
    key: SigstorePrivateKey,
    created: datetime,
) -> None:
    bundle = build_bundle(subject.digest, key)
    raw = build_bundle_manifest(subject, bundle, created=created)
    for media_type, data, what in (
        (BUNDLE_TYPE, bundle, "bundle"),
        (EMPTY_TYPE, EMPTY, "config of the bundle"),
    ):
        sink.put_blob(Descriptor(media_type, digest_of(data), len(data)), data, what=what)
    referrers.put_referrer(
        raw,
        Descriptor(OCI_MANIFEST, digest_of(raw), len(raw), artifact_type=BUNDLE_TYPE),
        subject.digest,
    )


def _count_bundles(
    source: ManifestSource, referrers: ReferrersSink, digest: Digest, key: SigstorePrivateKey
) -> tuple[int, bool]:
    """How many other bundles there are, and whether one of this key is among them."""
    found = read_attached(source, referrers, digest, {BundleSignature.format})
    for failure in found.failures:
        # As with a tag that is not there yet, see `_read_to_write`.
        if not isinstance(failure.error, Unauthorized) or failure.error.status != _FORBIDDEN:
            raise failure.error
    raw = source.read_manifest(digest).raw
    for one in found.signatures:
        assert isinstance(one, BundleSignature)
        try:
            bundle = parse_bundle_file(one.raw)
            if key.public_key.is_good(bundle.evidence.signature, bundle.evidence.data):
                check_statement(bundle.payload, raw, what="bundle", noun="manifest")
                if key.certificates and bundle.evidence.certificate != key.certificates[0]:
                    continue
                return len(found.signatures) - 1, True
        except (FormatError, Unsupported, VerificationError):
            continue
    return len(found.signatures), False
