# SPDX-License-Identifier: Apache-2.0
"""Simple signing: OpenPGP signatures in the registry's extension, a lookaside or a directory.

    {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/keys/release.gpg"}

`lookaside` has them, `gpg` reads them, `simple` makes them.

Spec: containers-signature.5.md; containers-policy.json(5), "signedBy".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import CouldNotVerify, SignatureInvalid
from imagers.sign.decision import Signer
from imagers.sign.formats.format import SignatureFormat
from imagers.sign.found import Found, Looked, SimpleSignature
from imagers.sign.judge import check_payload
from imagers.sign.materials import Material, read_refs
from imagers.sign.payload import PayloadType
from imagers.sign.requirements import (
    KeyRefs,
    SignatureRequirement,
    Unchecked,
    parse_keys,
    parse_signed_identity,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imagers.model.digest import Digest
    from imagers.sign.find import Places
    from imagers.sign.identity import SignedIdentity
    from imagers.sign.judge import Case
    from imagers.sign.materials import Trust
    from imagers.sign.requirements import Requirement, Strict

__all__ = ["FORMAT", "KeyringMaterial", "SignedBy"]

_KEY_TYPES = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")


@dataclass(frozen=True, slots=True)
class SignedBy(SignatureRequirement):
    """A good OpenPGP signature by one of the keys, for the right name."""

    format: ClassVar[str] = SimpleSignature.format

    keys: KeyRefs
    signed_identity: SignedIdentity


@dataclass(frozen=True, slots=True)
class KeyringMaterial(Material):
    """OpenPGP keys, each with its name in messages."""

    keyring: tuple[tuple[str, bytes], ...]


class _SimpleSigning(SignatureFormat):
    name = SimpleSignature.format

    def parse(self, strict: Strict) -> Requirement:
        strict.only("type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity")
        kind = strict.text("keyType")
        if kind not in _KEY_TYPES:
            raise strict.error(f"expected 'GPGKeys', got {kind[:80]!r}", "keyType")
        keys = parse_keys(strict, str(strict.one_of("keyPath", "keyPaths", "keyData")), "GPG keys")
        identity = parse_signed_identity(strict)
        if kind != "GPGKeys":  # valid words of the format that nobody has ever checked
            return Unchecked(f"signedBy with keyType {kind}", strict.value, strict.where)
        return SignedBy(keys, identity, where=strict.where)

    def load(
        self, requirement: SignatureRequirement, read_key: Callable[[str], bytes]
    ) -> KeyringMaterial:
        assert isinstance(requirement, SignedBy)
        return KeyringMaterial(read_refs(requirement.keys, requirement.where, read_key))

    def check_material(self, material: Material) -> None:
        from imagers.sign.formats.gpg import Keyring

        assert isinstance(material, KeyringMaterial)
        with Keyring(material.keyring):
            pass

    def notes(self, requirement: SignatureRequirement) -> Iterator[str]:
        assert isinstance(requirement, SignedBy)
        if len(requirement.keys.paths) > 1:
            yield "image-rs does not know keyPaths"

    def find(self, places: Places, digest: Digest) -> Found:
        from imagers.sign.formats.lookaside import find_in_extension, find_in_lookaside

        if places.extension is not None:
            assert places.reference is not None
            place = f"signatures kept by registry {places.reference.registry}"
            kept = find_in_extension(places.extension, digest, place)
            # As containers/image: a registry that keeps signatures is asked in place of a
            # lookaside, not beside it.
            if kept is not None:
                return kept
        base = places.lookaside()
        if base is None or places.reference is None:
            return Found(looked=(Looked(self.name, "no lookaside is configured", 0),))
        return find_in_lookaside(base, places.reference, digest, fetch=places.fetch)

    def parse_file(self, content: bytes, place: str) -> SimpleSignature:
        return SimpleSignature(content, place)

    def read(self, trust: Trust, found: Found) -> Found:
        from imagers.sign.formats.gpg import read_simple_signatures  # not every guest has gpg

        return read_simple_signatures(trust, found)

    def judge(self, case: Case) -> Signer:
        """Steps 4 to 6 of an OpenPGP signature."""
        name, signature, requirement = case.name, case.signature, case.requirement
        assert isinstance(signature, SimpleSignature)
        assert isinstance(requirement, SignedBy)
        reading = signature.readings.get(requirement.where)
        if reading is None:
            raise CouldNotVerify(f"{name}: gpg was not asked about it")
        if reading.failed is not None:
            raise CouldNotVerify(
                f"{name}: {reading.failed}", hint=reading.failed.hint
            ) from reading.failed
        if reading.payload is None:  # step 4
            raise SignatureInvalid(
                f"{name} is not accepted: {reading.refusal}",
                hint="'gpg --show-keys' prints the fingerprints in a key file",
            )
        case.note(f"gpg says: one good signature by key {reading.fingerprint}")
        reference = check_payload(
            case, reading.payload, PayloadType.SIMPLE, requirement.signed_identity
        )
        return Signer(reading.fingerprint, reference, requirement.where)


FORMAT = _SimpleSigning()
