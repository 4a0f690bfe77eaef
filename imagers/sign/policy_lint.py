# SPDX-License-Identifier: Apache-2.0
"""What is valid in a policy and probably not meant; what other readers of the file make of it.

    for note in lint_policy(parse_policy(raw)):
        print(note.where, note.text)

Nothing here changes a decision.

Spec: docs/policy.md has the table of differences to image-rs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.sign.formats.format import FORMATS, find_format
from imagers.sign.requirements import (
    AllOf,
    AnyOf,
    Encrypted,
    InsecureAcceptAnything,
    OnIndex,
    Reject,
    SignatureRequirement,
    Unchecked,
    walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imagers.sign.policy_json import Policy
    from imagers.sign.requirements import Requirement

__all__ = ["Note", "check_materials", "lint_policy"]


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to look at.

    Attributes:
        level: `warning`: probably not meant; `note`: another reader takes it otherwise.
        where: place in the policy.
    """

    level: str
    where: str
    text: str


def lint_policy(policy: Policy) -> list[Note]:
    """The notes on a policy, in its order."""
    notes: list[Note] = []
    if not policy.transports:
        notes.append(Note("note", "$", 'image-rs refuses a file without "transports"'))
    lists = [("$.default", policy.default)]
    for transport, scopes in policy.transports.items():
        lists += [(f"$.transports.{transport}[{s!r}]", reqs) for s, reqs in scopes.items()]
    for where, requirements in lists:
        notes += _lint_list(where, requirements)
    return notes


def _lint_list(where: str, requirements: Sequence[Requirement]) -> Iterator[Note]:
    every = [one for one, _ in walk(requirements)]
    if any(isinstance(one, Reject) for one in requirements):
        if len(requirements) > 1:
            yield Note("warning", where, "everything beside reject makes no difference")
        return
    anything = any(isinstance(one, InsecureAcceptAnything) for one in requirements)
    if anything and len(requirements) > 1:
        yield Note("warning", where, "insecureAcceptAnything beside others makes no difference")
    elif anything:
        yield Note("warning", where, "accepts every image, signed or not")
    elif not any(isinstance(one, SignatureRequirement) for one in every):
        yield Note("warning", where, "demands no signature: anybody may have made the image")
    for one in every:
        yield from _lint_one(one)


def _lint_one(one: Requirement) -> Iterator[Note]:
    if isinstance(one, Unchecked):
        yield Note("warning", one.where, f"{one.feature} can never be satisfied")
    elif isinstance(one, AnyOf):
        if any(isinstance(part, InsecureAcceptAnything) for part in one.parts):
            yield Note("warning", one.where, "one part of anyOf accepts every image")
    elif isinstance(one, SignatureRequirement):
        for text in find_format(one.format).notes(one):
            yield Note("note", one.where, text)
    if _is_ours(one):
        yield Note("note", one.where, "a type of imagers: other readers refuse the whole file")


def _is_ours(one: Requirement) -> bool:
    if isinstance(one, SignatureRequirement):
        return FORMATS[one.format].is_ours
    return isinstance(one, AllOf | AnyOf | Encrypted | OnIndex)


def check_materials(policy: Policy, read_key: Callable[[str], bytes]) -> None:
    """Nothing, if every key and certificate of a whole policy can be read and used.

    Raises:
        As `load_trust`; also FormatError for OpenPGP keys that gpg does not take.
    """
    lists = [policy.default]
    for scopes in policy.transports.values():
        lists += scopes.values()
    for requirements in lists:
        for one, _ in walk(requirements):
            if isinstance(one, SignatureRequirement):
                record = find_format(one.format)
                record.check_material(record.load(one, read_key))
