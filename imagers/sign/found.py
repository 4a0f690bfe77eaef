# SPDX-License-Identifier: Apache-2.0
"""What was found for an image: signatures of any format, and where somebody looked.

| format            | kept as                                            | names the image |
|-------------------|----------------------------------------------------|-----------------|
| `simple signing`  | files of a lookaside, or the registry's extension  | yes             |
| `sigstore`        | tag `sha256-HEX.sig`                               | yes             |
| `sigstore bundle` | referrer, as cosign 3 writes it                    | no              |
| `notation`        | referrer, as notation writes it                    | no              |

The names of formats are those of the table in `formats.format`.

Nothing of this is verified. A place that could not be asked stays in the list as
`CouldNotLook`: it is neither a signature nor the answer that there is none. One whose bytes were
got and cannot be read is a signature that is not good, whatever its format, and stays as
`UnreadableSignature`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imagers.errors import FormatError, ImagersError, Unsupported

__all__ = [
    "BUNDLE_TYPE",
    "NOTATION_TYPE",
    "PAYLOAD_TYPE",
    "BundleSignature",
    "CouldNotLook",
    "Found",
    "Looked",
    "NotationSignature",
    "Reading",
    "Signature",
    "SigstoreSignature",
    "SimpleSignature",
    "Subject",
    "UnreadableSignature",
]

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
NOTATION_TYPE = "application/vnd.cncf.notary.signature"
PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"


class Signature(Protocol):
    """A signature as it was found. Nothing of it is verified."""

    @property
    def format(self) -> str | None:
        """The name of its format; None where the bytes do not even say that."""

    @property
    def place(self) -> str:
        """Where it was found, for messages."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What gpg said about one blob with the keys of one requirement. Made by `gpg` only.

    Attributes:
        payload: what gpg gave out, if there is exactly one good signature; else None.
        fingerprint: of the primary key of the signer; "" without a good signature.
        refusal: why there is no payload; "" where there is one.
        failed: gpg could not be asked: neither good nor bad.
    """

    payload: bytes | None
    fingerprint: str = ""
    refusal: str = ""
    failed: ImagersError | None = None


@dataclass(frozen=True, slots=True)
class SimpleSignature:
    """An OpenPGP signed message of simple signing.

    Attributes:
        blob: the bytes as they were found.
        place: where, for messages.
        readings: by place of the requirement in the policy; empty until `gpg` was asked.
    """

    format: ClassVar[str] = "simple signing"

    blob: bytes
    place: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SigstoreSignature:
    """A sigstore signature under a tag.

    Attributes:
        payload: the exact bytes that the signature is over.
        annotations: of the payload; the signature itself is one of them.
        media_type: of the payload; another than `PAYLOAD_TYPE` is no signature.
        place: where, for messages.
    """

    format: ClassVar[str] = "sigstore"

    payload: bytes
    annotations: Mapping[str, str]
    media_type: str = PAYLOAD_TYPE
    place: str = ""


@dataclass(frozen=True, slots=True)
class BundleSignature:
    """A sigstore bundle: JSON with the signature and what it takes to verify it."""

    format: ClassVar[str] = "sigstore bundle"

    raw: bytes
    place: str = ""


@dataclass(frozen=True, slots=True)
class NotationSignature:
    """A signature envelope of the Notary Project.

    Attributes:
        media_type: `application/jose+json` or `application/cose`.
    """

    format: ClassVar[str] = "notation"

    raw: bytes
    media_type: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class UnreadableSignature:
    """A signature whose bytes are not of its format.

    Attributes:
        error: what is wrong with them.
        format: None where they do not even say that.
        place: where, for messages.
    """

    error: FormatError | Unsupported
    format: str | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class CouldNotLook:
    """In place of signatures: they could not be looked for.

    Attributes:
        error: why; its text goes into the message, and it becomes the cause.
        format: of which signatures; None: of any.
        place: where, for messages.
    """

    error: ImagersError
    format: str | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """One place that was asked, and how many signatures it had."""

    format: str
    place: str
    count: int


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found for one manifest or index.

    Attributes:
        signatures: of any format and any quality.
        looked: places that answered.
        failures: places that did not.
    """

    signatures: tuple[Signature, ...] = ()
    looked: tuple[Looked, ...] = ()
    failures: tuple[CouldNotLook, ...] = ()

    def of(self, name: str) -> tuple[Signature, ...]:
        """The signatures of one format."""
        return tuple(one for one in self.signatures if one.format in (None, name))

    @classmethod
    def everywhere(cls, signatures: Iterable[Signature]) -> Found:
        """Of a caller who has looked in all places himself: these are all that there are."""
        from imagers.sign.formats.format import FORMATS

        found = cls(tuple(signatures))
        counts = [Looked(name, "the caller", len(found.of(name))) for name in FORMATS]
        return replace(found, looked=tuple(counts))

    def was_looked_for(self, name: str) -> bool:
        """Whether any place answered: else that there are none is nobody's word."""
        return any(one.format == name for one in self.looked)

    def failure(self, name: str) -> CouldNotLook | None:
        """A place that may have signatures of this format and could not be asked."""
        return next((one for one in self.failures if one.format in (None, name)), None)

    def __add__(self, other: Found) -> Found:
        return Found(
            self.signatures + other.signatures,
            self.looked + other.looked,
            self.failures + other.failures,
        )

    def with_signatures(self, signatures: Sequence[Signature]) -> Found:
        """The same places with other signatures."""
        return replace(self, signatures=tuple(signatures))


@dataclass(frozen=True, slots=True)
class Subject:
    """A manifest or an index, and the signatures that were found for it.

    Attributes:
        raw: the bytes as they came.
    """

    raw: bytes
    found: Found
    noun: str = "manifest"
