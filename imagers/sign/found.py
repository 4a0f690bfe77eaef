"""What was found beside an image: signatures of four forms, and where somebody looked.

| form            | kept as                                              | names the image |
|-----------------|------------------------------------------------------|-----------------|
| `SIMPLE`        | files of a lookaside, or the registry's extension    | yes             |
| `SIGSTORE`      | tag `sha256-HEX.sig`                                 | yes             |
| `BUNDLE`        | referrer, as cosign 3 writes it                      | no              |
| `NOTATION`      | referrer, as notation writes it                      | no              |

Nothing of this is verified. A place that could not be asked stays in the list as
`CouldNotLook`: it is neither a signature nor the answer that there is none. One whose bytes were
got and cannot be read is a signature that is not good, whatever its form, and stays as
`UnreadableSignature`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from imagers.sign.formats.sigstore import SigstoreSignature

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from imagers.errors import FormatError, ImagersError, Unsupported

__all__ = [
    "BundleSignature",
    "CouldNotLook",
    "Form",
    "Found",
    "Looked",
    "NotationSignature",
    "Reading",
    "Signature",
    "SimpleSignature",
    "Subject",
    "UnreadableSignature",
]


class Form(Enum):
    """How a signature is made and kept."""

    SIMPLE = "simple signing"
    SIGSTORE = "sigstore"
    BUNDLE = "sigstore bundle"
    NOTATION = "notation"


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

    blob: bytes
    place: str = ""
    readings: Mapping[str, Reading] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundleSignature:
    """A sigstore bundle: JSON with the signature and what it takes to verify it."""

    raw: bytes
    place: str = ""


@dataclass(frozen=True, slots=True)
class NotationSignature:
    """A signature envelope of the Notary Project.

    Attributes:
        media_type: `application/jose+json` or `application/cose`.
    """

    raw: bytes
    media_type: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class UnreadableSignature:
    """A signature whose bytes are not of its format.

    Attributes:
        error: what is wrong with them.
        form: None where they do not even say that.
        place: where, for messages.
    """

    error: FormatError | Unsupported
    form: Form | None = None
    place: str = ""


Signature = (
    SimpleSignature | SigstoreSignature | BundleSignature | NotationSignature | UnreadableSignature
)
_FORM_OF: dict[type, Form] = {
    SimpleSignature: Form.SIMPLE,
    SigstoreSignature: Form.SIGSTORE,
    BundleSignature: Form.BUNDLE,
    NotationSignature: Form.NOTATION,
}


@dataclass(frozen=True, slots=True)
class CouldNotLook:
    """In place of signatures: they could not be looked for.

    Attributes:
        error: why; its text goes into the message, and it becomes the cause.
        form: which signatures; None: any.
        place: where, for messages.
    """

    error: ImagersError
    form: Form | None = None
    place: str = ""


@dataclass(frozen=True, slots=True)
class Looked:
    """One place that was asked, and how many signatures it had."""

    form: Form
    place: str
    count: int


@dataclass(frozen=True, slots=True)
class Found:
    """All that was found for one manifest or index.

    Attributes:
        signatures: of any form and any quality.
        looked: places that answered.
        failures: places that did not.
    """

    signatures: tuple[Signature, ...] = ()
    looked: tuple[Looked, ...] = ()
    failures: tuple[CouldNotLook, ...] = ()

    def of(self, form: Form) -> tuple[Signature, ...]:
        """The signatures of one form."""
        return tuple(one for one in self.signatures if _form_of(one) in (None, form))

    @classmethod
    def everywhere(cls, signatures: Iterable[Signature]) -> Found:
        """Of a caller who has looked in all places himself: these are all that there are."""
        found = cls(tuple(signatures))
        counts = [Looked(form, "the caller", len(found.of(form))) for form in Form]
        return replace(found, looked=tuple(counts))

    def was_looked_for(self, form: Form) -> bool:
        """Whether any place answered: else that there are none is nobody's word."""
        return any(one.form is form for one in self.looked)

    def failure(self, form: Form) -> CouldNotLook | None:
        """A place that may have signatures of this form and could not be asked."""
        return next((one for one in self.failures if one.form in (None, form)), None)

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


def _form_of(signature: Signature) -> Form | None:
    if isinstance(signature, UnreadableSignature):
        return signature.form
    return _FORM_OF[type(signature)]
