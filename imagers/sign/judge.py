"""Whether one signature is good: steps 4 to 6 of `verify`, for each form. No IO, no clock.

    signer = judge(Case(signature, "signature 1 of 2", requirement, subject, ...))

A refusal is an exception; what was established on the way is told by `Case.note`.

Spec: as of `verify`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import (
    CouldNotVerify,
    FormatError,
    SignatureInvalid,
    Unsupported,
    UntrustedSigner,
)
from imagers.model.digest import digest_of
from imagers.sign.certified.evidence import read_evidence
from imagers.sign.certified.signer import check_signer
from imagers.sign.decision import Signer
from imagers.sign.formats.bundle import check_statement, parse_bundle_file
from imagers.sign.formats.notation.check import check_signature
from imagers.sign.formats.sigstore import SigstoreSignature
from imagers.sign.found import (
    BundleSignature,
    NotationSignature,
    SimpleSignature,
    UnreadableSignature,
)
from imagers.sign.identity import parse_signed_name
from imagers.sign.payload import PayloadType, parse_payload
from imagers.sign.requirements import NotationSigned, SignedBy, SigstoreBundle, SigstoreSigned

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from imagers.sign.formats.notation.trust_policy import Statement
    from imagers.sign.found import Signature, Subject
    from imagers.sign.identity import SignedIdentity
    from imagers.sign.materials import Material, Trust
    from imagers.sign.policy_json import ImageIdentity

__all__ = ["Case", "SignatureRequirement", "judge", "notation_statement"]

SignatureRequirement = SigstoreSigned | SigstoreBundle | SignedBy | NotationSigned
"""Requirements that a signature can satisfy."""


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
    match case.requirement:
        case SignedBy():
            return _judge_simple(case, case.requirement)
        case SigstoreSigned():
            return _judge_sigstore(case, case.requirement)
        case SigstoreBundle():
            return _judge_bundle(case, case.requirement)
        case NotationSigned():
            return _judge_notation(case, case.requirement)


def _judge_simple(case: Case, requirement: SignedBy) -> Signer:
    """Steps 4 to 6 of an OpenPGP signature."""
    name, signature = case.name, case.signature
    assert isinstance(signature, SimpleSignature)
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
    reference = _check_payload(
        case, reading.payload, PayloadType.SIMPLE, requirement.signed_identity
    )
    return Signer(reading.fingerprint, reference, requirement.where)


def _judge_sigstore(case: Case, requirement: SigstoreSigned) -> Signer:
    """Steps 4 to 6 of a sigstore signature."""
    signature = case.signature
    assert isinstance(signature, SigstoreSignature)
    material = case.material
    try:
        evidence = read_evidence(
            signature,
            with_certificate=bool(requirement.fulcio or requirement.pki),
            with_entry=requirement.rekor is not None,
        )
    except FormatError as error:
        raise SignatureInvalid(f"{case.name}: {error}") from error
    # 4. Until somebody who is trusted has signed it, the payload is not even parsed.
    who = check_signer(
        evidence,
        material,
        fulcio=requirement.fulcio,
        pki=requirement.pki,
        now=case.now,
        what=case.name,
        note=case.note,
    )
    reference = _check_payload(
        case, signature.payload, PayloadType.SIGSTORE, requirement.signed_identity
    )
    return Signer(who.fingerprint, reference, requirement.where, who.subject)


def _judge_bundle(case: Case, requirement: SigstoreBundle) -> Signer:
    """Steps 4 and 5 of a bundle, which has no name for step 6."""
    signature, subject = case.signature, case.subject
    assert isinstance(signature, BundleSignature)
    try:
        bundle = parse_bundle_file(signature.raw)
    except (FormatError, Unsupported) as error:
        raise SignatureInvalid(f"{case.name}: {error}") from error
    who = check_signer(
        bundle.evidence,
        case.material,
        fulcio=requirement.fulcio,
        pki=requirement.pki,
        now=case.now,
        what=case.name,
        note=case.note,
    )
    check_statement(bundle.payload, subject.raw, what=case.name, noun=subject.noun)
    case.note(f"is for {subject.noun} {digest_of(subject.raw)}")
    return Signer(who.fingerprint, "", requirement.where, who.subject)


def notation_statement(material: Material, identity: ImageIdentity, where: str) -> Statement:
    """What the trust policy of notation says about an image.

    Raises:
        CouldNotVerify: no trust policy was loaded.
    """
    if material.trust_policy is None:  # unreachable: load_trust loads it
        raise CouldNotVerify(f"the trust policy of {where} was not loaded")
    reference = identity.reference
    return material.trust_policy.select("" if reference is None else reference.name)


def _judge_notation(case: Case, requirement: NotationSigned) -> Signer | None:
    """Steps 4 and 5 of a signature of notation; who made it, if that is known."""
    signature = case.signature
    assert isinstance(signature, NotationSignature)
    material = case.material
    if case.now is None:
        raise CouldNotVerify(f"{case.name}: the time is not known, and certificates need it")
    outcome = check_signature(
        signature.raw,
        signature.media_type,
        notation_statement(material, case.identity, requirement.where),
        material.stores,
        case.subject.raw,
        now=case.now,
        what=case.name,
        note=case.note,
    )
    for text in outcome.notes:
        case.note(text)
    if not outcome.is_authentic:
        return None
    return Signer(outcome.fingerprint, "", requirement.where, outcome.subject)


def _check_payload(case: Case, raw: bytes, kind: PayloadType, identity: SignedIdentity) -> str:
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
