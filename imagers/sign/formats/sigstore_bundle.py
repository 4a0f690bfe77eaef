# SPDX-License-Identifier: Apache-2.0
"""Sigstore bundles that refer to the manifest: demanded by `sigstoreBundle`, judged.

    {"type": "sigstoreBundle", "keyPath": "/etc/keys/release.pub"}

`bundle` has the bytes, `imagers.sign.image` makes them.

Spec: cosign specs/BUNDLE_SPEC.md; docs/policy.md for the requirement, which is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.model.digest import digest_of
from imagers.sign.decision import Signer
from imagers.sign.formats.format import SignatureFormat
from imagers.sign.found import BUNDLE_TYPE, BundleSignature
from imagers.sign.materials import SignerMaterial, load_signers, load_trusted_root
from imagers.sign.requirements import (
    KEY_MEMBERS,
    REKOR_MEMBERS,
    KeyRefs,
    SignatureRequirement,
    parse_fulcio,
    parse_keys,
    parse_pki,
    parse_trusted_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.descriptor import Descriptor
    from imagers.sign.judge import Case
    from imagers.sign.requirements import PKI, Fulcio, Strict

__all__ = ["FORMAT", "SigstoreBundle"]

_TSA_MEMBERS = ("tsaCertificatesPath", "tsaCertificatesData")


@dataclass(frozen=True, slots=True)
class SigstoreBundle(SignatureRequirement):
    """A good bundle as cosign 3 attaches it. It speaks of a digest and of no name.

    Attributes:
        keys: None where `fulcio` or `pki` is given.
        rekor: keys of logs; if given, the signature must have an entry in one of them.
        tsa: certificates of time-stamp authorities; if given, there must be a stamp by one.
        trusted_root: file with the certificates of fulcio, logs and time-stamp authorities;
            one witness of them is enough.
    """

    format: ClassVar[str] = BundleSignature.format

    keys: KeyRefs | None
    rekor: KeyRefs | None = None
    fulcio: Fulcio | None = None
    pki: PKI | None = None
    tsa: KeyRefs | None = None
    trusted_root: str | None = None


class _Bundle(SignatureFormat):
    name = BundleSignature.format
    is_attached = True

    def parse(self, strict: Strict) -> SigstoreBundle:
        own = ("trustedRootPath", *REKOR_MEMBERS, *_TSA_MEMBERS)
        strict.only("type", *KEY_MEMBERS, "fulcio", "pki", *own)
        if "trustedRootPath" in strict:
            strict.only("type", "trustedRootPath", "fulcio")
            fulcio, root = parse_trusted_root(strict)
            return SigstoreBundle(None, where=strict.where, fulcio=fulcio, trusted_root=root)
        source = str(strict.one_of(*KEY_MEMBERS, "fulcio", "pki"))
        rekor = strict.one_of(*REKOR_MEMBERS, optional=True)
        tsa = strict.one_of(*_TSA_MEMBERS, optional=True)
        # A certificate of ten minutes says nothing without a witness of the time of signing.
        if source == "fulcio" and rekor is None and tsa is None:
            raise strict.error(
                f"expected one of {', '.join((*REKOR_MEMBERS, *_TSA_MEMBERS))} beside fulcio"
            )
        stampers = "certificates of a time-stamp authority"
        return SigstoreBundle(
            None if source in ("fulcio", "pki") else parse_keys(strict, source),
            where=strict.where,
            rekor=None if rekor is None else parse_keys(strict, rekor, "key of a Rekor log"),
            fulcio=parse_fulcio(strict) if source == "fulcio" else None,
            pki=parse_pki(strict) if source == "pki" else None,
            tsa=None if tsa is None else parse_keys(strict, tsa, stampers),
        )

    def load(
        self, requirement: SignatureRequirement, read_key: Callable[[str], bytes]
    ) -> SignerMaterial:
        assert isinstance(requirement, SigstoreBundle)
        if requirement.trusted_root is not None:
            return load_trusted_root(
                requirement.trusted_root, requirement.where, read_key, stamps=True
            )
        return load_signers(
            requirement.where,
            read_key,
            keys=requirement.keys,
            rekor=requirement.rekor,
            fulcio=requirement.fulcio,
            pki=requirement.pki,
            tsa=requirement.tsa,
        )

    def is_in(self, kind: str, layer: Descriptor) -> bool:
        del kind
        return layer.media_type == BUNDLE_TYPE

    def attached(self, raw: bytes, layer: Descriptor, place: str) -> BundleSignature:
        del layer
        return BundleSignature(raw, place)

    def judge(self, case: Case) -> Signer:
        """Steps 4 and 5 of a bundle, which has no name for step 6."""
        from imagers.sign.certified.signer import check_signer
        from imagers.sign.formats.bundle import check_statement, parse_bundle_file

        signature, subject, requirement = case.signature, case.subject, case.requirement
        assert isinstance(signature, BundleSignature)
        assert isinstance(requirement, SigstoreBundle)
        try:
            bundle = parse_bundle_file(signature.raw)
        except (FormatError, Unsupported) as error:
            raise SignatureInvalid(f"{case.name}: {error}") from error
        material = case.material
        assert isinstance(material, SignerMaterial)
        who = check_signer(  # step 4
            bundle.evidence,
            material,
            fulcio=requirement.fulcio,
            pki=requirement.pki,
            now=case.now,
            what=case.name,
            note=case.note,
        )
        # 5. The statement is parsed only now.
        check_statement(bundle.payload, subject.raw, what=case.name, noun=subject.noun)
        case.note(f"is for {subject.noun} {digest_of(subject.raw)}")
        return Signer(who.fingerprint, "", requirement.where, who.subject)


FORMAT = _Bundle()
