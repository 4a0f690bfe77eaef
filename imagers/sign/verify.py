# SPDX-License-Identifier: Apache-2.0
"""The decision whether an image may be used, as a containers policy says. No IO, no clock.

    selected = policy.select(identity)              # which requirements
    trust = load_trust(selected, read_key_file)     # their keys: the one step that reads
    decision = verify_image(trust, raw_manifest, found)

Steps of `verify_image`, in this order; the numbers stand at the lines that do them, from 4 on
in the `judge` of each format (`formats`), 5 and 6 mostly in `judge.check_payload`:

1. `reject` anywhere in the list is a no, whatever else is there.
2. A requirement that nothing can satisfy is an error, never skipped.
3. Every other requirement of the list must hold. Of signatures one good one is enough, and a
   signature is good if, in this order:
4. it verifies over the exact bytes of its payload with one of the keys of the requirement, or
   with a certificate that the requirement trusts (and what else it demands: `certified`),
5. the payload, parsed only now, names the SHA-256 (or other) digest of exactly `raw_manifest`,
6. and the name in it satisfies `signedIdentity`, where the signature format has a name.

`allOf` holds if each part does, `anyOf` if one does. A "no" of an `allOf` stays a no if another
part could not be looked at; an `anyOf` without a yes is "could not look" if one part was.

What the decision speaks of is the bytes `raw_manifest` and nothing else, and in a requirement
`index` the bytes that the name led to. The caller holds the config and the layers to their
digests in it. Where the image was named by digest, or found through an index, the caller has
held `raw_manifest` to that digest before: so a signed index vouches for its images, and a
signed image does not for the index around it.

Spec: containers-policy.json(5); containers/image df7e80d2, signature/policy_eval.go and
policy_eval_sigstore.go; docs/policy.md for the requirements of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import (
    CouldNotVerify,
    ImagersError,
    NoSignature,
    PolicyDenied,
    SignatureInvalid,
    Unsupported,
    UntrustedSigner,
    VerificationError,
)
from imagers.model.digest import digest_of
from imagers.model.manifest import Index, parse_manifest_or_index
from imagers.model.media import is_encrypted
from imagers.sign.decision import Answer, Decision, Explanation, Finding, PolicyBasis, Signer
from imagers.sign.formats.format import FORMATS, find_format
from imagers.sign.found import CouldNotLook, Found, Subject
from imagers.sign.judge import Case, judge
from imagers.sign.materials import Trust, load_trust
from imagers.sign.requirements import (
    AllOf,
    AnyOf,
    Encrypted,
    InsecureAcceptAnything,
    OnIndex,
    Reject,
    SignatureRequirement,
    Unchecked,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from imagers.model.identity import ImageIdentity
    from imagers.sign.formats.format import SignatureFormat
    from imagers.sign.found import Signature
    from imagers.sign.requirements import Requirement

__all__ = [
    "CouldNotLook",
    "Decision",
    "PolicyBasis",
    "Signer",
    "Subject",
    "Trust",
    "explain_image",
    "load_trust",
    "verify_image",
]

_SIGNED = frozenset({"docker", "dir"})  # transports of images that may have signatures
_MOST_REASONS = 4  # that one message repeats


def verify_image(
    trust: Trust,
    raw_manifest: bytes,
    found: Found,
    *,
    index: Subject | None = None,
    now: datetime | None = None,
) -> Decision:
    """Yes, for exactly the manifest `raw_manifest`; every other answer is an exception.

    Args:
        raw_manifest: the bytes as they came; the digest is computed here.
        found: the signatures kept for this manifest, in any order and of any quality, and
            where somebody looked (`imagers.sign.find`). If `trust.needs_signatures` is false,
            they are not looked at.
        index: what the name led to, if that is not the manifest itself.
        now: the time, aware; needed where certificates or expiries count.

    Raises:
        PolicyDenied: the policy rejects the image.
        Unsupported: the policy asks for something that cannot be checked.
        NoSignature: a signature is needed and there is none.
        SignatureInvalid: none verifies, or what verifies signs another manifest.
        UntrustedSigner: a good signature by a trusted key is for another name.
        CouldNotVerify: signatures are needed and could not be looked for.
    """
    return explain_image(trust, raw_manifest, found, index=index, now=now).require()


def explain_image(
    trust: Trust,
    raw_manifest: bytes,
    found: Found,
    *,
    index: Subject | None = None,
    now: datetime | None = None,
) -> Explanation:
    """As `verify_image`, with the answer as a value that says how it came about."""
    selected = trust.selected
    subject = Subject(raw_manifest, found)
    court = _Court(trust, selected.identity, subject if index is None else index, now)
    findings = tuple(court.check(one, subject) for one in selected.requirements)
    error = _first_error(selected.requirements, findings)
    if not findings:  # unreachable: the parser refuses empty lists
        error = PolicyDenied(f"'{selected.identity}' is rejected: the policy has no requirement")
    if error is not None:
        root = Finding.of_error(error, f"'{selected.identity}' by {selected.where}", findings)
        return Explanation(root, None)
    signers = tuple(signer for one in findings for signer in one.signers)
    root = Finding(
        Answer.YES, f"'{selected.identity}' by {selected.where}", findings, signers=signers
    )
    decision = Decision(
        basis=PolicyBasis.SIGNATURE if signers else PolicyBasis.UNSIGNED,
        manifest_digest=digest_of(raw_manifest),
        signers=signers,
        where=selected.where,
    )
    return Explanation(root, decision)


def _first_error(
    requirements: Sequence[Requirement], findings: Sequence[Finding]
) -> ImagersError | None:
    """What the list as a whole raises: rejections first, then "no", then "could not look"."""
    pairs = list(zip(requirements, findings, strict=True))
    for kind in (Reject, Unchecked):  # steps 1 and 2
        for requirement, finding in pairs:
            if isinstance(requirement, kind):
                return finding.error
    return _all_error(findings)


def _all_error(findings: Sequence[Finding]) -> ImagersError | None:
    for answer in (Answer.NO, Answer.COULD_NOT_LOOK):
        for finding in findings:
            if finding.answer is answer:
                return finding.error
    return None


class _Court:
    """Checks requirements one after the other; each answer is a `Finding`."""

    def __init__(
        self, trust: Trust, identity: ImageIdentity, index: Subject, now: datetime | None
    ) -> None:
        self._trust = trust
        self._identity = identity
        self._index = index
        self._now = now

    def check(self, requirement: Requirement, subject: Subject) -> Finding:
        """The answer of one requirement about one manifest or index."""
        try:
            return self._check(requirement, subject)
        except ImagersError as error:
            return Finding.of_error(error, f"{requirement.where} {error}")

    def _check(self, requirement: Requirement, subject: Subject) -> Finding:
        where = requirement.where
        match requirement:
            case Reject():
                raise PolicyDenied(
                    f"'{self._identity}' is rejected by the policy at {where}",
                    hint="the most specific scope of the policy decides; add one for this image if "
                    "it is to be trusted",
                )
            case InsecureAcceptAnything():
                return Finding(Answer.YES, f"{where} accepts anything, signed or not")
            case Unchecked():
                raise Unsupported(
                    f"'{self._identity}' is not verified: the policy at {where} asks for "
                    f"{requirement.feature}, which nothing can satisfy",
                    hint="use sigstoreSigned or signedBy with GPGKeys",
                )
            case Encrypted():
                return _check_encrypted(requirement, subject)
            case AllOf():
                return self._check_all(requirement, subject, "all of")
            case OnIndex():
                return self._check_all(requirement, self._index, "of what the name led to, all of")
            case AnyOf():
                return self._check_any(requirement, subject)
            case SignatureRequirement():
                return self._check_signatures(requirement, subject)

    def _check_all(self, group: AllOf | OnIndex, subject: Subject, text: str) -> Finding:
        parts = tuple(self.check(one, subject) for one in group.parts)
        error = _all_error(parts)
        if error is not None:
            return Finding.of_error(error, f"{group.where} {text} {len(parts)}", parts)
        signers = tuple(signer for one in parts for signer in one.signers)
        return Finding(Answer.YES, f"{group.where} {text} {len(parts)}", parts, signers=signers)

    def _check_any(self, group: AnyOf, subject: Subject) -> Finding:
        parts = tuple(self.check(one, subject) for one in group.parts)
        text = f"{group.where} any of {len(parts)}"
        good = [one for one in parts if one.answer is Answer.YES]
        if good:
            # A part that a signature satisfied says more than one that accepts anything.
            signers = next((one.signers for one in good if one.signers), ())
            return Finding(Answer.YES, text, parts, signers=signers)
        errors = [one.error for one in parts if one.error is not None]
        could_not = next((one for one in errors if isinstance(one, CouldNotVerify)), None)
        first = could_not or errors[0]
        kind = type(first) if isinstance(first, VerificationError) else PolicyDenied
        refusals = [*self._refusals(group, parts, subject)]
        reasons = [str(one) for one, _ in refusals if not isinstance(one, NoSignature)]
        reasons += [what for error, what in refusals if isinstance(error, NoSignature)]
        told = "; ".join([*dict.fromkeys(reasons)][:_MOST_REASONS])
        if all(isinstance(one, NoSignature) for one, _ in refusals):
            told = f"'{self._identity}' is not signed: {told}"
        hint = first.hint
        if hint in {find_format(name).hint for name in FORMATS}:  # of one form, and there are more
            hint = "sign it with 'imagers sign'"
        error = kind(f"{told} (none of {len(parts)} at {group.where} holds)", hint=hint)
        return Finding.of_error(error, text, parts)

    def _refusals(
        self, group: AnyOf | AllOf | OnIndex, parts: Sequence[Finding], subject: Subject
    ) -> Iterator[tuple[ImagersError, str]]:
        """Why each alternative in a group does not hold, and the same in short if unsigned."""
        for part, finding in zip(group.parts, parts, strict=True):
            error = finding.error
            about = self._index if isinstance(part, OnIndex) else subject
            if isinstance(part, AnyOf | AllOf | OnIndex) and finding.answer is not Answer.YES:
                yield from self._refusals(part, finding.children, about)
            elif error is not None:
                name = part.format if isinstance(part, SignatureRequirement) else ""
                yield error, f"the {about.noun} has no {name} signature"

    def _check_signatures(self, requirement: SignatureRequirement, subject: Subject) -> Finding:
        """Step 3 for the signatures of one format: one good one is enough."""
        name = requirement.format
        record = find_format(name)
        demand = record.demand(requirement, self._trust, self._identity)
        text = f"{requirement.where} {demand.text}"
        if demand.is_waived:
            return Finding(Answer.YES, text)
        found = subject.found
        candidates = [one for one in found.of(name) if record.is_candidate(one)]
        findings: list[Finding] = []
        for number, signature in enumerate(candidates, 1):
            numbered = f"signature {number} of {len(candidates)}"
            finding = self._check_one(signature, numbered, requirement, subject)
            findings.append(finding)
        places = tuple(
            Finding(Answer.NOTE, f"looked at {one.place}: {one.count} found")
            for one in found.looked
            if one.format == name
        )
        yes = [one for one in findings if one.answer is Answer.YES]
        if yes:
            # One that a trust policy only took notes of has no signer.
            signers = next((one.signers for one in yes if one.signers), ())
            return Finding(Answer.YES, text, (*places, *findings), signers=signers)
        failure = found.failure(name)
        if failure is not None:
            error: ImagersError = CouldNotVerify(
                f"could not look for signatures of '{self._identity}': {failure.error}",
                hint=failure.error.hint,
            )
            error.__cause__ = failure.error
            places = (*places, Finding.of_error(error, str(failure.error)))
        elif not found.was_looked_for(name):
            # Also where one was found that is not good: the good one may be in another place.
            error = CouldNotVerify(
                f"nobody looked for signatures of '{self._identity}' of the format {name}",
                hint="imagers.sign.find.Finder looks in all places",
            )
        elif not findings:
            error = self._no_signature(requirement, subject, record)
        else:
            error = _summary(
                [one.error for one in findings if isinstance(one.error, VerificationError)]
            )
        return Finding.of_error(error, text, (*places, *findings))

    def _check_one(
        self,
        signature: Signature,
        name: str,
        requirement: SignatureRequirement,
        subject: Subject,
    ) -> Finding:
        steps: list[Finding] = []
        case = Case(
            signature,
            name,
            requirement,
            subject,
            self._trust,
            self._identity,
            self._now,
            lambda said: steps.append(Finding(Answer.YES, said)),
        )
        text = f"{name} ({signature.place})" if signature.place else name
        try:
            signer = judge(case)
        except VerificationError as error:
            steps.append(Finding.of_error(error))
            return Finding.of_error(error, text, tuple(steps))
        except (ValueError, TypeError, OverflowError) as error:
            # Certificates are read piece by piece when they are looked at, and the library says
            # in these that a piece is not what it should be: a name, a time, an extension.
            refusal = SignatureInvalid(f"{name}: something in it cannot be read")
            refusal.__cause__ = error
            steps.append(Finding.of_error(refusal))
            return Finding.of_error(refusal, text, tuple(steps))
        # Without a signer it is let through by a trust policy that only takes notes.
        signers = () if signer is None else (signer,)
        return Finding(Answer.YES, text, tuple(steps), signers=signers)

    def _no_signature(
        self, requirement: SignatureRequirement, subject: Subject, record: SignatureFormat
    ) -> NoSignature:
        """The answer to the most common question, with what is there instead."""
        name = requirement.format
        others = [one for one in FORMATS if one != name and subject.found.of(one)]
        # What the name led to may be signed where the platform's manifest is not, or reverse.
        other = self._index.found if subject is not self._index else Found()
        hint = record.hint_beside(others)
        if not hint and other.of(name):
            hint = (
                "the index is signed and the manifest of this platform is not: sign recursively as "
                "'imagers sign' does, or put the requirement into one of type index"
            )
        elif not hint and others:
            hint = f"there are only signatures of the format {others[0]}"
        elif not hint and self._identity.transport not in _SIGNED:
            hint = "signatures are kept in registries: push the image, and sign and verify it there"
        elif not hint:
            hint = record.hint
        return NoSignature(
            f"'{self._identity}' is not signed, and the policy at {requirement.where} asks for a "
            f"{name} signature of {subject.noun} '{digest_of(subject.raw)}'",
            hint=hint,
        )


def _check_encrypted(requirement: Encrypted, subject: Subject) -> Finding:
    where = requirement.where
    document = parse_manifest_or_index(subject.raw)
    if isinstance(document, Index):
        raise PolicyDenied(
            f"the policy at {where} asks for encrypted layers, and an index has none"
        )
    layers = document.layers
    count = len(layers)
    if not count:
        raise PolicyDenied(f"the policy at {where} asks for encrypted layers, and there are none")
    wanted = range(count) if requirement.layers is None else requirement.layers
    for number in wanted:
        if not -count <= number < count:
            raise PolicyDenied(
                f"the policy at {where} asks for layer {number} to be encrypted, and there are "
                f"{count}"
            )
        layer = layers[number]
        if not is_encrypted(layer.media_type):
            raise PolicyDenied(
                f"layer {number % count + 1} of {count} is not encrypted, and the policy at "
                f"{where} demands it",
                hint="'imagers encrypt' encrypts every layer unless told otherwise",
            )
    return Finding(Answer.YES, f"{where} {len(wanted)} of {count} layers are encrypted")


def _summary(refusals: Sequence[VerificationError]) -> VerificationError:
    """One error for all signatures, of the class that came closest to a yes."""
    if len(refusals) == 1:
        return refusals[0]
    could_not = next((one for one in refusals if isinstance(one, CouldNotVerify)), None)
    named = next((one for one in refusals if isinstance(one, UntrustedSigner)), refusals[0])
    closest = could_not or named
    reasons = [str(closest), *(str(one) for one in refusals if one is not closest)]
    text = "; ".join(reasons[:_MOST_REASONS])
    more = len(reasons) - _MOST_REASONS
    if more > 0:
        text += f"; and {more} more"
    kind = type(closest)
    return kind(f"none of {len(refusals)} signatures is good: {text}", hint=closest.hint)
