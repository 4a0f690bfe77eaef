# SPDX-License-Identifier: Apache-2.0
"""The answer about an image, as a value and as a tree that says how it came about.

    no   $.transports.docker['r.example'][0] signedBy
      no   signature 1 of 1 (file:///.../signature-1)
        yes  one good signature by key 'D5AF...'
        no   is for another manifest: expected 'sha256:...', got 'sha256:...'

The tree *is* the decision: `verify_image` raises what its root holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from imagers.errors import CouldNotVerify, ImagersError, PolicyDenied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.model.digest import Digest
    from imagers.model.strict_json import JSONObject

__all__ = ["Answer", "Decision", "Explanation", "Finding", "PolicyBasis", "Signer"]


class Answer(Enum):
    """Of one check."""

    YES = "yes"
    NO = "no"
    COULD_NOT_LOOK = "could not look"
    NOTE = "note"  # says something, decides nothing


class PolicyBasis(Enum):
    """Why a policy let an image through."""

    SIGNATURE = "signature"
    UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed, as verified.

    Attributes:
        fingerprint: SHA-256 of the DER SubjectPublicKeyInfo, hex; of an OpenPGP key its own
            fingerprint, in capitals.
        reference: the name that the signature was made for, as it was written; "" where the
            signature format has none.
        where: place in the policy of the requirement that it satisfies.
        subject: who, by a certificate; "" for a bare key.
    """

    fingerprint: str
    reference: str
    where: str
    subject: str = ""

    @property
    def key(self) -> str:
        """The fingerprint as people compare it."""
        is_openpgp = self.fingerprint != self.fingerprint.lower()
        return self.fingerprint if is_openpgp else f"sha256:{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes, and why. Only `verify_image` makes one.

    Attributes:
        basis: `UNSIGNED` where the policy accepts the image without any signature.
        manifest_digest: SHA-256 of the manifest that was decided about.
        signers: one for each requirement that a signature satisfied; empty if `basis` is
            `UNSIGNED`.
        where: place of the list of requirements in the policy.
    """

    basis: PolicyBasis
    manifest_digest: Digest
    signers: tuple[Signer, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the tree, with what is below it.

    Attributes:
        error: what a "no" or "could not look" raises; None for the others.
        signers: who satisfied it.
    """

    answer: Answer
    text: str
    children: tuple[Finding, ...] = ()
    error: ImagersError | None = field(default=None, compare=False)
    signers: tuple[Signer, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[tuple[int, Finding]]:
        """This one and all below it, each with its depth."""
        yield depth, self
        for child in self.children:
            yield from child.lines(depth + 1)

    def to_json(self) -> JSONObject:
        """The same for machines."""
        document: JSONObject = {"answer": self.answer.value, "text": self.text}
        if self.error is not None and self.error.hint:
            document["hint"] = self.error.hint
        if self.children:
            document["checks"] = [child.to_json() for child in self.children]
        return document

    @classmethod
    def of_error(
        cls, error: ImagersError, text: str = "", children: tuple[Finding, ...] = ()
    ) -> Finding:
        """The line for an error: "could not look" where it is one, else "no"."""
        could_not = isinstance(error, CouldNotVerify)
        answer = Answer.COULD_NOT_LOOK if could_not else Answer.NO
        return cls(answer, text or str(error), children, error)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The tree and the answer.

    Attributes:
        decision: None unless the answer is yes.
    """

    root: Finding
    decision: Decision | None

    def require(self) -> Decision:
        """The decision.

        Raises:
            ImagersError: the answer is another than yes; of the class that says which.
        """
        if self.decision is not None and self.root.answer is Answer.YES:
            return self.decision
        if self.root.error is not None:
            raise self.root.error
        raise PolicyDenied("the image is rejected")  # unreachable: every other answer has one
