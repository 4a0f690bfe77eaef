# SPDX-License-Identifier: Apache-2.0
"""Signatures of the Notary Project that refer to the manifest: demanded by `notation`, judged.

    {"type": "notation", "trustPolicyPath": "/etc/notation/trustpolicy.json",
     "trustStorePath": "/etc/notation/truststore"}

`trust_policy` says what is demanded, `check` decides about one signature, `make` signs.

Spec: notaryproject specifications v1.1; docs/policy.md for the requirement, which is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import CouldNotVerify
from imagers.sign.decision import Signer
from imagers.sign.formats.format import Demand, SignatureFormat
from imagers.sign.found import NOTATION_TYPE, NotationSignature
from imagers.sign.materials import Material
from imagers.sign.requirements import SignatureRequirement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.x509 import Certificate

    from imagers.model.descriptor import Descriptor
    from imagers.model.identity import ImageIdentity
    from imagers.sign.formats.notation.trust_policy import Statement, TrustPolicy
    from imagers.sign.judge import Case
    from imagers.sign.materials import Trust
    from imagers.sign.requirements import Strict

__all__ = ["FORMAT", "NotationMaterial", "NotationSigned", "notation_statement"]

_ENVELOPES = ("application/jose+json", "application/cose")


@dataclass(frozen=True, slots=True)
class NotationSigned(SignatureRequirement):
    """What a trust policy of the Notary Project demands.

    Attributes:
        trust_policy: file `trustpolicy.json`.
        trust_store: directory with `x509/ca/NAME` and its like.
    """

    format: ClassVar[str] = NotationSignature.format

    trust_policy: str
    trust_store: str


@dataclass(frozen=True, slots=True)
class NotationMaterial(Material):
    """A trust policy, with the certificates of its stores by their names."""

    trust_policy: TrustPolicy
    stores: Mapping[str, tuple[Certificate, ...]] = field(default_factory=dict)


class _Notation(SignatureFormat):
    name = NotationSignature.format
    is_attached = True

    def parse(self, strict: Strict) -> NotationSigned:
        strict.only("type", "trustPolicyPath", "trustStorePath")
        return NotationSigned(
            strict.text("trustPolicyPath"), strict.text("trustStorePath"), where=strict.where
        )

    def load(
        self, requirement: SignatureRequirement, read_key: Callable[[str], bytes]
    ) -> NotationMaterial:
        from imagers.sign.formats.notation.trust_policy import parse_trust_policy
        from imagers.sign.keyfiles import load_trust_store

        assert isinstance(requirement, NotationSigned)
        path = requirement.trust_policy
        policy = parse_trust_policy(read_key(path), what=f"trust policy '{path}'")
        names = {name for statement in policy.statements.values() for name in statement.stores}
        stores = {name: load_trust_store(requirement.trust_store, name) for name in sorted(names)}
        return NotationMaterial(policy, stores)

    def is_in(self, kind: str, layer: Descriptor) -> bool:
        return kind == NOTATION_TYPE and layer.media_type in _ENVELOPES

    def attached(self, raw: bytes, layer: Descriptor, place: str) -> NotationSignature:
        return NotationSignature(raw, layer.media_type, place)

    def demand(
        self, requirement: SignatureRequirement, trust: Trust, identity: ImageIdentity
    ) -> Demand:
        material = trust.material_of(requirement)
        statement = notation_statement(material, identity, requirement.where)
        if statement.actions is None:
            return Demand(f"notation: policy '{statement.name}' skips every check", is_waived=True)
        return Demand(f"notation, by policy '{statement.name}'")

    def judge(self, case: Case) -> Signer | None:
        """Steps 4 and 5 of a signature of notation; who made it, if that is known."""
        from imagers.sign.formats.notation.check import check_signature

        signature, material = case.signature, case.material
        assert isinstance(signature, NotationSignature)
        assert isinstance(material, NotationMaterial)
        if case.now is None:
            raise CouldNotVerify(f"{case.name}: the time is not known, and certificates need it")
        outcome = check_signature(
            signature.raw,
            signature.media_type,
            notation_statement(material, case.identity, case.requirement.where),
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
        return Signer(outcome.fingerprint, "", case.requirement.where, outcome.subject)


def notation_statement(material: Material, identity: ImageIdentity, where: str) -> Statement:
    """What the trust policy of notation says about an image.

    Raises:
        CouldNotVerify: no trust policy was loaded.
        PolicyDenied: it has no statement for the image.
    """
    if not isinstance(material, NotationMaterial):  # unreachable: load_trust loads it
        raise CouldNotVerify(f"the trust policy of {where} was not loaded")
    reference = identity.reference
    return material.trust_policy.select("" if reference is None else reference.name)


FORMAT = _Notation()
