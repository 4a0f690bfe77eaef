# SPDX-License-Identifier: Apache-2.0
"""What a signature format is, and the table of them.

    find_format("sigstore").find(places, digest)

A format is a module with a `FORMAT`, and one line in `FORMATS`, which imports it when it is used.
A policy demands its signatures with a requirement type of its own. Of the record, `judge` decides
about trust: it does no IO and reads no clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from imagers.sign.found import Found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagers.model.descriptor import Descriptor
    from imagers.model.digest import Digest
    from imagers.model.identity import ImageIdentity
    from imagers.sign.decision import Signer
    from imagers.sign.find import Places
    from imagers.sign.found import Signature
    from imagers.sign.judge import Case
    from imagers.sign.materials import Material, Trust
    from imagers.sign.requirements import Requirement, SignatureRequirement, Strict

__all__ = ["FORMATS", "Demand", "Row", "SignatureFormat", "find_format", "format_of_type"]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a requirement comes to for one image.

    Attributes:
        text: what the explanation calls it.
        is_waived: no signature is asked for: the answer is yes without one.
    """

    text: str
    is_waived: bool = False


class SignatureFormat(ABC):
    """One signature format.

    Attributes:
        name: in the table.
        is_attached: whether its signatures refer to the manifest; `is_in` and `attached` say
            which they are.
        hint: for an image that has no signature at all.
    """

    name: ClassVar[str]
    is_attached: ClassVar[bool] = False
    hint: ClassVar[str] = "sign it with 'imagers sign'"

    @abstractmethod
    def parse(self, strict: Strict) -> Requirement:
        """The requirement in an entry of a policy: a `SignatureRequirement`, or `Unchecked`.

        Raises:
            FormatError: anything that the specification does not say.
        """

    @abstractmethod
    def load(self, requirement: SignatureRequirement, read_key: Callable[[str], bytes]) -> Material:
        """The keys of a requirement; errors as `imagers.sign.materials.load_trust`."""

    def check_material(self, material: Material) -> None:
        """Raise FormatError if keys turn out to be none only when they are used."""
        del material

    def notes(self, requirement: SignatureRequirement) -> Iterator[str]:
        """What other readers of the policy make of a requirement, where it differs."""
        del requirement
        yield from ()

    def find(self, places: Places, digest: Digest) -> Found:
        """The signatures of a manifest in all places but what refers to it.

        A place that says "there is none" is an answer; any other failure is kept as
        `CouldNotLook`. Nothing is verified.
        """
        del places, digest
        return Found()

    def is_in(self, kind: str, layer: Descriptor) -> bool:
        """Whether a layer of what refers to a manifest is a signature.

        Args:
            kind: artifact type of that, else the media type of its config.
        """
        del kind, layer
        return False

    def attached(self, raw: bytes, layer: Descriptor, place: str) -> Signature:
        """The signature in such a layer. Nothing is verified."""
        raise NotImplementedError

    def parse_file(self, content: bytes, place: str) -> Signature:
        """The signature in a signature file, after the line with the row's `file_name`.

        Raises:
            FormatError: it is none.
        """
        raise NotImplementedError

    def read(self, trust: Trust, found: Found) -> Found:
        """The same with what programs say of the signatures, as values for `judge`.

        Raises:
            FormatError: a key of the policy is none.
        """
        del trust
        return found

    def is_candidate(self, signature: Signature) -> bool:
        """Whether it counts as a signature at all; what does not is left out without a word."""
        del signature
        return True

    def demand(
        self, requirement: SignatureRequirement, trust: Trust, identity: ImageIdentity
    ) -> Demand:
        """What a requirement comes to for an image.

        Raises:
            VerificationError: the answer is no whatever the signatures are.
        """
        del requirement, trust, identity
        return Demand(FORMATS[self.name].requirement)

    @abstractmethod
    def judge(self, case: Case) -> Signer | None:
        """Who made a signature, by steps 4 to 6 of `verify`; as `imagers.sign.judge.judge`."""

    def hint_beside(self, others: Sequence[str]) -> str:
        """What to say where there are only signatures of these other formats; "": nothing."""
        del others
        return ""


@dataclass(frozen=True, slots=True)
class Row:
    """One format in the table.

    Attributes:
        module: that has the `FORMAT`.
        requirement: the type of requirement in a policy that its signatures answer.
        is_ours: other readers of policies refuse that type.
        file_name: of the format in signature files; "": it is not kept in files.
    """

    module: str
    requirement: str
    is_ours: bool = False
    file_name: str = ""


_HERE = "imagers.sign.formats"
# By their names, in the order in which places are asked.
FORMATS: dict[str, Row] = {
    "simple signing": Row(f"{_HERE}.signed_by", "signedBy", file_name="simple-signing"),
    "sigstore": Row(f"{_HERE}.sigstore_signed", "sigstoreSigned", file_name="sigstore-json"),
    "sigstore bundle": Row(f"{_HERE}.sigstore_bundle", "sigstoreBundle", is_ours=True),
    "notation": Row(f"{_HERE}.notation.signed", "notation", is_ours=True),
}


def find_format(name: str) -> SignatureFormat:
    """The format of that name in the table."""
    found: SignatureFormat = import_module(FORMATS[name].module).FORMAT
    return found


def format_of_type(requirement: str) -> SignatureFormat | None:
    """The format whose signatures answer this type of requirement; None: of no signatures."""
    for name, row in FORMATS.items():
        if row.requirement == requirement:
            return find_format(name)
    return None
