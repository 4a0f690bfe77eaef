"""The decision whether an image may be used, as a containers policy says. No IO, no clock.

    selected = policy.select(identity)              # which requirements
    trust = load_trust(selected, read_key_file)     # their keys: the one step that reads
    decision = verify_image(trust, raw_manifest, found)

Steps of `verify_image`, in this order; the numbers stand at the lines that do them:

1. `reject` anywhere in the list is a no, whatever else is there.
2. A requirement that this version cannot check is an error, never skipped.
3. Every other requirement of the list must hold. For `sigstoreSigned` one good signature is
   enough, and a signature is good if, in this order:
4. it verifies over the exact bytes of its payload with one of the keys of the requirement,
5. the payload, parsed only now, names the SHA-256 (or other) digest of exactly `raw_manifest`,
6. and the name in it satisfies `signedIdentity`.

What the decision speaks of is the bytes `raw_manifest` and nothing else. The caller holds the
config and the layers to their digests in it. Where the image was named by digest, or found
through an index, the caller has held `raw_manifest` to that digest before; the index itself
is not verified by any signature here, as in containers/image.

Spec: containers-policy.json(5); containers/image df7e80d2, signature/policy_eval.go and
policy_eval_sigstore.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from imagers.errors import (
    CouldNotVerify,
    FormatError,
    ImagersError,
    NoSignature,
    PolicyDenied,
    SignatureInvalid,
    Unsupported,
    UntrustedSigner,
    VerificationError,
)
from imagers.model.digest import Digest, digest_of
from imagers.sign.identity import parse_signed_name
from imagers.sign.payload import parse_payload
from imagers.sign.public_key import PublicKey, parse_public_key
from imagers.sign.requirements import Reject, SigstoreSigned, Unchecked
from imagers.sign.sigstore import PAYLOAD_TYPE, SigstoreSignature, decode_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imagers.sign.policy_json import ImageIdentity, Selected

__all__ = ["Basis", "CouldNotLook", "Decision", "Signer", "Trust", "load_trust", "verify_image"]

_MOST_REASONS = 4  # that one message repeats


class Basis(Enum):
    """Why an image was let through."""

    SIGNATURE = "signature"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class CouldNotLook:
    """In place of a list of signatures: they could not be looked for.

    Attributes:
        error: why; its text goes into the message, and it becomes the cause.
    """

    error: ImagersError


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed, as verified.

    Attributes:
        fingerprint: SHA-256 of the DER SubjectPublicKeyInfo, hex.
        reference: the name that the signature was made for, as it was written.
        where: place in the policy of the requirement that it satisfies.
    """

    fingerprint: str
    reference: str
    where: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes, and why. Only `verify_image` makes one.

    Attributes:
        basis: `UNSIGNED` where the policy accepts anything and asks for no signature.
        manifest_digest: SHA-256 of the manifest that was decided about.
        signers: one for each `sigstoreSigned`; empty if `basis` is `UNSIGNED`.
        where: place of the list of requirements in the policy.
    """

    basis: Basis
    manifest_digest: Digest
    signers: tuple[Signer, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Trust:
    """The requirements for one image, with the keys loaded. Made by `load_trust`.

    Attributes:
        keys: by place of the requirement in the policy.
    """

    selected: Selected
    keys: Mapping[str, tuple[PublicKey, ...]]

    @property
    def needs_signatures(self) -> bool:
        """Whether the answer depends on signatures; if not, none need be looked for."""
        return bool(self.keys)


def load_trust(selected: Selected, read_key: Callable[[str], bytes]) -> Trust:
    """The requirements with their keys; nothing is decided yet.

    Every key must be there and be one, also those that turn out not to be needed: a spare key
    that is broken is found before it is needed. No key is read for a list that has a `reject`
    or a requirement that cannot be checked, whose answer is settled.

    Args:
        read_key: gives the bytes for a `keyPath`, such as `keyfiles.read_key_file`.

    Raises:
        LocalError: as `read_key` raises it.
        FormatError, Unsupported: it is not a public key for signatures of images.
    """
    if any(isinstance(one, Reject | Unchecked) for one in selected.requirements):
        return Trust(selected, {})
    keys: dict[str, tuple[PublicKey, ...]] = {}
    for requirement in selected.requirements:
        if isinstance(requirement, SigstoreSigned):
            pems = [(f"key file '{path}'", read_key(path)) for path in requirement.key_paths]
            pems += [
                (f"key {number} in the policy at {requirement.where}", pem)
                for number, pem in enumerate(requirement.key_datas, 1)
            ]
            keys[requirement.where] = tuple(parse_public_key(pem, what=what) for what, pem in pems)
    return Trust(selected, keys)


def verify_image(
    trust: Trust, raw_manifest: bytes, found: Sequence[SigstoreSignature] | CouldNotLook
) -> Decision:
    """Yes, for exactly the manifest `raw_manifest`; every other answer is an exception.

    Args:
        raw_manifest: the bytes as they came; the digest is computed here.
        found: the signatures kept for this manifest, in any order and of any quality. If
            `trust.needs_signatures` is false, they are not looked at.

    Raises:
        PolicyDenied: the policy rejects the image.
        Unsupported: the policy asks for something that this version cannot check.
        NoSignature: a signature is needed and there is none.
        SignatureInvalid: none verifies, or what verifies signs another manifest.
        UntrustedSigner: a good signature by a trusted key is for another name.
        CouldNotVerify: signatures are needed and could not be looked for.
    """
    identity = trust.selected.identity
    requirements = trust.selected.requirements
    if not requirements:  # unreachable: the parser refuses empty lists
        raise PolicyDenied(f"'{identity}' is rejected: the policy has no requirement for it")
    for requirement in requirements:  # step 1
        if isinstance(requirement, Reject):
            raise PolicyDenied(
                f"'{identity}' is rejected by the policy at {requirement.where}",
                hint="the most specific scope of the policy decides; add one for this image if it "
                "is to be trusted",
            )
    for requirement in requirements:  # step 2
        if isinstance(requirement, Unchecked):
            raise Unsupported(
                f"'{identity}' is not verified: the policy at {requirement.where} asks for "
                f"{requirement.feature}, which this version cannot check",
                hint="use sigstoreSigned with keyPath, keyPaths, keyData or keyDatas",
            )
    signers = tuple(  # step 3
        _verify_signed(one, trust.keys[one.where], identity, raw_manifest, found)
        for one in requirements
        if isinstance(one, SigstoreSigned)
    )
    return Decision(
        basis=Basis.SIGNATURE if signers else Basis.UNSIGNED,
        manifest_digest=digest_of(raw_manifest),
        signers=signers,
        where=trust.selected.where,
    )


def _verify_signed(
    requirement: SigstoreSigned,
    keys: tuple[PublicKey, ...],
    identity: ImageIdentity,
    raw_manifest: bytes,
    found: Sequence[SigstoreSignature] | CouldNotLook,
) -> Signer:
    if isinstance(found, CouldNotLook):
        raise CouldNotVerify(
            f"could not look for signatures of '{identity}': {found.error}", hint=found.error.hint
        ) from found.error
    candidates = [one for one in found if one.media_type == PAYLOAD_TYPE]
    if not candidates:
        raise NoSignature(
            f"'{identity}' is not signed, and the policy at {requirement.where} asks for a "
            f"signature of manifest '{digest_of(raw_manifest)}'",
            hint="sign it with 'imagers sign'; the bundles that cosign 3 writes by default are not "
            "seen, 'cosign sign --new-bundle-format=false' writes the form that is",
        )
    refusals: list[VerificationError] = []
    for number, signature in enumerate(candidates, 1):
        name = f"signature {number} of {len(candidates)}"
        try:
            return _verify_one(
                signature,
                name,
                requirement=requirement,
                keys=keys,
                identity=identity,
                raw_manifest=raw_manifest,
            )
        except VerificationError as error:
            refusals.append(error)
    raise _summary(refusals)


def _verify_one(
    signature: SigstoreSignature,
    name: str,
    *,
    requirement: SigstoreSigned,
    keys: tuple[PublicKey, ...],
    identity: ImageIdentity,
    raw_manifest: bytes,
) -> Signer:
    """Steps 4 to 6 for one signature and one requirement."""
    try:
        signature_bytes = decode_signature(signature.annotations)
    except FormatError as error:
        raise SignatureInvalid(f"{name}: {error}") from error
    # 4. Until a key says yes the payload is not even parsed.
    key = next((one for one in keys if one.is_good(signature_bytes, signature.payload)), None)
    if key is None:
        raise SignatureInvalid(
            f"{name} verifies with none of the trusted keys: expected SHA-256 "
            + " or ".join(one.fingerprint for one in keys[:_MOST_REASONS]),
            hint="another key made it, or it was changed; 'imagers key show' prints the SHA-256 "
            "of a key",
        )
    try:
        payload = parse_payload(signature.payload)
        signed = parse_signed_name(payload.reference)
    except FormatError as error:
        raise SignatureInvalid(f"{name}: {error}") from error
    # 5. Exact bytes: the same JSON with other white space is another manifest.
    actual = digest_of(raw_manifest, payload.manifest_digest.algorithm)
    if payload.manifest_digest != actual:
        raise SignatureInvalid(
            f"{name} is for another manifest: expected '{actual}', got '{payload.manifest_digest}'",
            hint="the image changed after it was signed, or the signature was moved from another",
        )
    # 6.
    if not requirement.signed_identity.matches(identity.reference, signed):
        raise UntrustedSigner(
            f"{name} is for another name: expected "
            f"{requirement.signed_identity.wanted(identity.reference)}, got '{signed}'",
            hint="cosign signs the repository without a tag: that satisfies matchRepository or "
            "exactRepository only"
            if signed.is_name_only
            else "the signer vouched for this image under that name; signedIdentity in the policy "
            "says which names count",
        )
    return Signer(key.fingerprint, payload.reference, requirement.where)


def _summary(refusals: list[VerificationError]) -> VerificationError:
    """One error for all signatures, of the class that came closest to a yes."""
    if len(refusals) == 1:
        return refusals[0]
    closest = next((one for one in refusals if isinstance(one, UntrustedSigner)), refusals[0])
    reasons = [str(closest), *(str(one) for one in refusals if one is not closest)]
    text = "; ".join(reasons[:_MOST_REASONS])
    more = len(reasons) - _MOST_REASONS
    if more > 0:
        text += f"; and {more} more"
    return type(closest)(f"none of {len(refusals)} signatures is good: {text}", hint=closest.hint)
