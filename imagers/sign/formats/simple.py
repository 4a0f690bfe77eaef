# SPDX-License-Identifier: Apache-2.0
"""Sign images with GPG: OpenPGP messages in the registry's extension or in a lookaside.

    signed = sign_image_simple(source, places, sink, reference, fingerprint)

Both places only add: the extension by its protocol, a lookaside because a file gets the first
free number and never the place of another. Of an index, every image in it and the index itself
are signed, all under one name, as with the other formats.

Spec: containers-signature.5.md; containers-registries.d(5), "lookaside-staging".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError, Unsupported
from imagers.sign.find import Finder
from imagers.sign.formats.gpg import Keyring, export_key, sign_simple
from imagers.sign.formats.lookaside import write_to_extension, write_to_lookaside
from imagers.sign.found import SimpleSignature
from imagers.sign.image import (
    PlaceKind,
    SignaturePlace,
    SignedManifest,
    digests_to_sign,
    signing_name,
)
from imagers.sign.payload import PayloadType, build_payload, parse_payload

if TYPE_CHECKING:
    import os

    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey
    from imagers.model.reference import Reference
    from imagers.sign.find import Places
    from imagers.sign.formats.lookaside import SignatureExtensionSink
    from imagers.sign.found import Found
    from imagers.sign.repository import ManifestSource

__all__ = ["sign_image_simple"]


def sign_image_simple(
    source: ManifestSource,
    places: Places,
    sink: SignatureExtensionSink | None,
    reference: Reference,
    fingerprint: str,
    *,
    expected_digest: Digest | None = None,
    identity: str | None = None,
    timestamp: int | None = None,
    passphrase: SecretKey | None = None,
    home: str | os.PathLike[str] | None = None,
) -> tuple[SignedManifest, ...]:
    """Sign the image that `source` names with a key of the user's gpg.

    Args:
        places: where its signatures are read; their lookaside is where they are written.
        sink: the registry's extension, if it may have one.
        fingerprint: of the primary key, as `gpg.parse_fingerprint` gives it.
        passphrase: of the key; None leaves it to the user's agent.
        home: of gpg; None: the user's.

    Returns:
        One entry a manifest; `place` is that of the signature.

    Raises:
        DigestMismatch: the image is another one than `expected_digest`; nothing was signed.
        KeyUnavailable: gpg cannot sign with the key.
        Unsupported: there is no place to write a signature to.
        RemoteError, LocalError, FormatError: as reading and writing raise them.
    """
    name = signing_name(reference, identity)
    digests = digests_to_sign(source, reference, expected_digest=expected_digest)
    extension = sink
    if places.extension is None or not places.extension.supports_signatures():
        extension = None
    kind = PlaceKind.LOOKASIDE if extension is None else PlaceKind.EXTENSION
    base = places.lookaside(write=True)
    if extension is None and base is None:
        raise Unsupported(
            f"there is no place for a GPG signature of '{reference}'",
            hint="name one in registries.d: docker: {REGISTRY: {lookaside-staging: file:///DIR}}",
        )
    key = export_key(fingerprint, home=home)
    signed = []
    with Keyring([(f"key {fingerprint}", key)]) as keyring:
        finder = Finder(places)
        for digest in digests:
            found = finder.find(digest, {SimpleSignature.format})
            if not found.failures and _is_signed(keyring, found, name, digest):
                place = found.looked[0].place
                count = len(found.signatures)
                signed.append(
                    SignedManifest(
                        digest, SignaturePlace(kind, place), name, added=False, count=count
                    )
                )
                continue
            payload = build_payload(name, digest, timestamp=timestamp, kind=PayloadType.SIMPLE)
            blob = sign_simple(payload, fingerprint, keyring, passphrase=passphrase, home=home)
            if extension is not None:
                place = write_to_extension(extension, digest, blob)
            else:
                assert base is not None
                place = write_to_lookaside(base, reference, digest, blob)
            count = len(found.signatures) + 1
            signed.append(
                SignedManifest(digest, SignaturePlace(kind, place), name, added=True, count=count)
            )
    return tuple(signed)


def _is_signed(keyring: Keyring, found: Found, name: str, digest: Digest) -> bool:
    """Whether a good signature by the key is there that says the same."""
    for one in found.signatures:
        if not isinstance(one, SimpleSignature):
            continue
        reading = keyring.read(one.blob)
        if reading.payload is None:
            continue
        try:
            said = parse_payload(reading.payload, PayloadType.SIMPLE)
        except FormatError:
            continue
        if (said.reference, said.manifest_digest) == (name, digest):
            return True
    return False
