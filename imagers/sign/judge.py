# SPDX-License-Identifier: Apache-2.0
"""Whether one signature is good: steps 4 to 6 of `verify`. No IO, no clock.

    signer = judge(Case(signature, "signature 1 of 2", requirement, subject, ...))

Step 4, and the order of the steps, are those of the format: `judge` in its module. Steps 5 and
6 of all that have the simple-signing payload are here. A refusal is an exception; what was
established on the way is told by `Case.note`.

Spec: as of `verify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError, SignatureInvalid, UntrustedSigner
from imagers.model.digest import digest_of
from imagers.sign.formats.format import find_format
from imagers.sign.found import UnreadableSignature
from imagers.sign.identity import parse_signed_name
from imagers.sign.payload import PayloadType, parse_payload

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from imagers.model.identity import ImageIdentity
    from imagers.sign.decision import Signer
    from imagers.sign.found import Signature, Subject
    from imagers.sign.identity import SignedIdentity
    from imagers.sign.materials import Material, Trust
    from imagers.sign.requirements import SignatureRequirement

__all__ = ["Case", "check_payload", "judge"]


@dataclass(frozen=True, slots=True)
class Case:
    """One signature, and all that it is held against.

    Attributes:
        name: of the signature in messages, such as `signature 1 of 2`.
        subject: the manifest or index that it must be for.
        identity: of the image, as the user named it.
        now: the time, aware; None where none was given.
        note: is told each check that went well.
    """

    signature: Signature
    name: str
    requirement: SignatureRequirement
    subject: Subject
    trust: Trust
    identity: ImageIdentity
    now: datetime | None
    note: Callable[[str], None]

    @property
    def material(self) -> Material:
        """The keys of the requirement."""
        return self.trust.material_of(self.requirement)


def judge(case: Case) -> Signer | None:
    """Who made the signature; None where a trust policy of notation only takes notes.

    Raises:
        SignatureInvalid: it does not verify, or signs something else.
        UntrustedSigner: it is good, and its signer or the name in it does not count here.
        CouldNotVerify: it could not be looked at.
    """
    if isinstance(case.signature, UnreadableSignature):
        raise SignatureInvalid(f"{case.name}: {case.signature.error}") from case.signature.error
    return find_format(case.requirement.format).judge(case)


def check_payload(case: Case, raw: bytes, kind: PayloadType, identity: SignedIdentity) -> str:
    """Steps 5 and 6 for a payload whose signature is good; the name in it."""
    name, subject = case.name, case.subject
    try:
        payload = parse_payload(raw, kind)
        signed = parse_signed_name(payload.reference)
    except FormatError as error:
        raise SignatureInvalid(f"{name}: {error}") from error
    # 5. Exact bytes: the same JSON with other white space is another manifest.
    actual = digest_of(subject.raw, payload.manifest_digest.algorithm)
    if payload.manifest_digest != actual:
        raise SignatureInvalid(
            f"{name} is for another manifest: expected '{actual}', got '{payload.manifest_digest}'",
            hint="the image changed after it was signed, or the signature was moved from another",
        )
    case.note(f"is for {subject.noun} {actual}")
    # 6.
    wanted = identity.wanted(case.identity.reference)
    if not identity.matches(case.identity.reference, signed):
        raise UntrustedSigner(
            f"{name} is for another name: expected {wanted}, got '{signed}'",
            hint="cosign signs the repository without a tag: that satisfies matchRepository or "
            "exactRepository only"
            if signed.is_name_only
            else "the signer vouched for this image under that name; signedIdentity in the "
            "policy says which names count",
        )
    case.note(f"is for the name '{signed}', wanted was {wanted}")
    return payload.reference
