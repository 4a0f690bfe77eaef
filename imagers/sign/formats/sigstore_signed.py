# SPDX-License-Identifier: Apache-2.0
"""Sigstore signatures under a tag: demanded by `sigstoreSigned`, found, judged.

    {"type": "sigstoreSigned", "keyPath": "/etc/keys/release.pub"}

    found = find_signatures(repository, digest)

`sigstore` has the bytes, `imagers.sign.image` makes them.

Spec: cosign SIGNATURE_SPEC.md; containers-policy.json(5), "sigstoreSigned"; containers/image
df7e80d2, signature/policy_eval_sigstore.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import (
    Cancelled,
    CouldNotVerify,
    FormatError,
    ImagersError,
    NotFound,
    SignatureInvalid,
)
from imagers.model.stream import read_all
from imagers.model.strict_json import View
from imagers.sign.decision import Signer
from imagers.sign.formats.format import SignatureFormat
from imagers.sign.formats.lookaside import MAX_SIGNATURE_BYTES
from imagers.sign.formats.sigstore import parse_signature_manifest, signature_tag
from imagers.sign.found import (
    PAYLOAD_TYPE,
    BundleSignature,
    CouldNotLook,
    Found,
    Looked,
    SigstoreSignature,
)
from imagers.sign.identity import ExactRepository, MatchRepository
from imagers.sign.judge import check_payload
from imagers.sign.materials import SignerMaterial, load_signers, load_trusted_root
from imagers.sign.payload import PayloadType
from imagers.sign.requirements import (
    KEY_MEMBERS,
    REKOR_MEMBERS,
    KeyRefs,
    SignatureRequirement,
    parse_fulcio,
    parse_keys,
    parse_pki,
    parse_signed_identity,
    parse_trusted_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagers.model.digest import Digest
    from imagers.sign.find import Places
    from imagers.sign.formats.sigstore import SignatureManifest
    from imagers.sign.found import Signature
    from imagers.sign.identity import SignedIdentity
    from imagers.sign.judge import Case
    from imagers.sign.repository import SignatureSource
    from imagers.sign.requirements import PKI, Fulcio, Strict

__all__ = [
    "FORMAT",
    "SigstoreSigned",
    "find_signatures",
    "read_signature_manifest",
    "read_signatures",
]


@dataclass(frozen=True, slots=True)
class SigstoreSigned(SignatureRequirement):
    """A good sigstore signature by one of the keys, or a certificate, for the right name.

    Attributes:
        key_paths: as the policy writes them.
        key_datas: PEM, not parsed yet. With neither, `fulcio` or `pki` is given.
        rekor: keys of logs; if given, the signature must have an entry in one of them.
        trusted_root: file with the certificates of fulcio and the logs.
    """

    format: ClassVar[str] = SigstoreSignature.format

    key_paths: tuple[str, ...]
    key_datas: tuple[bytes, ...]
    signed_identity: SignedIdentity
    rekor: KeyRefs | None = None
    fulcio: Fulcio | None = None
    pki: PKI | None = None
    trusted_root: str | None = None


class _Sigstore(SignatureFormat):
    name = SigstoreSignature.format
    hint = (
        "sign it with 'imagers sign'; the bundles that cosign 3 writes by default are not seen by "
        "sigstoreSigned, 'cosign sign --new-bundle-format=false' writes the form that is"
    )

    def parse(self, strict: Strict) -> SigstoreSigned:
        if "trustedRootPath" in strict:
            strict.only("type", "trustedRootPath", "fulcio", "signedIdentity")
            fulcio, root = parse_trusted_root(strict)
            identity, where = parse_signed_identity(strict), strict.where
            return SigstoreSigned((), (), identity, where=where, fulcio=fulcio, trusted_root=root)
        strict.only("type", *KEY_MEMBERS, "fulcio", "pki", *REKOR_MEMBERS, "signedIdentity")
        source = str(strict.one_of(*KEY_MEMBERS, "fulcio", "pki"))
        rekor = strict.one_of(*REKOR_MEMBERS, optional=True)
        if source == "fulcio" and rekor is None:
            raise strict.error(f"expected one of {', '.join(REKOR_MEMBERS)} beside fulcio")
        if source == "pki" and rekor is not None:
            raise strict.error(f"expected no {rekor} beside pki")
        keys = None if source in ("fulcio", "pki") else parse_keys(strict, source)
        return SigstoreSigned(
            () if keys is None else keys.paths,
            () if keys is None else keys.datas,
            parse_signed_identity(strict),
            where=strict.where,
            rekor=None if rekor is None else parse_keys(strict, rekor, "key of a Rekor log"),
            fulcio=parse_fulcio(strict) if source == "fulcio" else None,
            pki=parse_pki(strict) if source == "pki" else None,
        )

    def load(
        self, requirement: SignatureRequirement, read_key: Callable[[str], bytes]
    ) -> SignerMaterial:
        assert isinstance(requirement, SigstoreSigned)
        if requirement.trusted_root is not None:
            return load_trusted_root(
                requirement.trusted_root, requirement.where, read_key, stamps=False
            )
        return load_signers(
            requirement.where,
            read_key,
            keys=KeyRefs(requirement.key_paths, requirement.key_datas),
            rekor=requirement.rekor,
            fulcio=requirement.fulcio,
            pki=requirement.pki,
        )

    def notes(self, requirement: SignatureRequirement) -> Iterator[str]:
        one = requirement
        assert isinstance(one, SigstoreSigned)
        kinds = [
            name
            for name, found in (
                ("fulcio", one.fulcio),
                ("pki", one.pki),
                ("keys of Rekor logs", one.rekor),
            )
            if found
        ]
        new = [] if one.trusted_root is None else ["trustedRootPath"]
        if one.fulcio is not None and one.fulcio.subject.email is None:
            new.append("subjects of fulcio other than subjectEmail")
        if new:
            yield f"{' and '.join(new)}: of imagers; other readers refuse the whole file"
        elif kinds or len(one.key_paths) + len(one.key_datas) > 1:
            what = " and ".join(kinds) or "several keys"
            yield f"image-rs does not know {what} in sigstoreSigned"
        elif not isinstance(one.signed_identity, MatchRepository | ExactRepository):
            yield (
                "image-rs checks no name without signedIdentity, and refuses other kinds than "
                "matchRepository and exactRepository for sigstoreSigned"
            )

    def find(self, places: Places, digest: Digest) -> Found:
        if places.repository is None:
            return Found()
        place = f"tag {signature_tag(digest)}"
        try:
            found = find_signatures(places.repository, digest)
        except CouldNotVerify as error:
            return Found(failures=(CouldNotLook(error, self.name, place),))
        return Found(found, (Looked(self.name, place, len(found)),))

    def parse_file(self, content: bytes, place: str) -> SigstoreSignature:
        del place
        document = View.parse(content, what="signature file", max_bytes=MAX_SIGNATURE_BYTES)
        document.exactly("mimeType", "payload", "annotations")
        return SigstoreSignature(
            document.bytes64("payload"),
            document.string_map("annotations"),
            document.text("mimeType"),
        )

    def is_candidate(self, signature: Signature) -> bool:
        return not isinstance(signature, SigstoreSignature) or signature.media_type == PAYLOAD_TYPE

    def judge(self, case: Case) -> Signer:
        """Steps 4 to 6 of a sigstore signature."""
        from imagers.sign.certified.evidence import read_evidence
        from imagers.sign.certified.signer import check_signer

        signature, requirement, material = case.signature, case.requirement, case.material
        assert isinstance(signature, SigstoreSignature)
        assert isinstance(requirement, SigstoreSigned)
        assert isinstance(material, SignerMaterial)
        try:
            evidence = read_evidence(
                signature,
                with_certificate=bool(requirement.fulcio or requirement.pki),
                with_entry=bool(requirement.rekor or requirement.trusted_root),
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
        reference = check_payload(
            case, signature.payload, PayloadType.SIGSTORE, requirement.signed_identity
        )
        return Signer(who.fingerprint, reference, requirement.where, who.subject)

    def hint_beside(self, others: Sequence[str]) -> str:
        if BundleSignature.format not in others:
            return ""
        return (
            "there is a bundle as cosign 3 writes it, which sigstoreSigned does not see: "
            "demand sigstoreBundle, or sign with 'cosign sign --new-bundle-format=false'"
        )


FORMAT = _Sigstore()


def read_signature_manifest(source: SignatureSource, tag: str) -> SignatureManifest | None:
    """The signatures under a tag; None if there is no such tag."""
    try:
        found = source.read_tag(tag)
    except NotFound:
        return None
    return parse_signature_manifest(found.raw, media_type=found.media_type)


def read_signatures(
    source: SignatureSource, existing: SignatureManifest
) -> tuple[SigstoreSignature, ...]:
    """Their payloads, read. Nothing is verified."""
    payloads: dict[tuple[Digest, int], bytes] = {}
    count = len(existing.signatures)
    for number, layer in enumerate(existing.signatures, 1):
        place = (layer.digest, layer.size)
        if place not in payloads:  # one payload often has many signatures
            with source.open_blob(layer, what=f"signature {number} of {count}") as stream:
                payloads[place] = read_all(stream, size=layer.size)
    return tuple(
        SigstoreSignature(payloads[layer.digest, layer.size], layer.annotations, layer.media_type)
        for layer in existing.signatures
    )


def find_signatures(source: SignatureSource, digest: Digest) -> tuple[SigstoreSignature, ...]:
    """The signatures that are kept for the manifest with `digest`. *Nothing* is verified.

    Empty if the repository has no tag for them, which is the one answer that means "none": a
    registry that fails, a payload that is missing, a manifest that cannot be read are not.

    Args:
        digest: SHA-256 of the exact bytes of the image's manifest, not of an index around it.

    Raises:
        CouldNotVerify: they could not be looked for; the cause says why.
    """
    tag = signature_tag(digest)
    try:
        existing = read_signature_manifest(source, tag)
        return () if existing is None else read_signatures(source, existing)
    except Cancelled:
        raise
    except ImagersError as error:
        raise CouldNotVerify(
            f"could not read the signatures in tag '{tag}': {error}", hint=error.hint
        ) from error
