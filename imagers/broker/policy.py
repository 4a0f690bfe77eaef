"""The resource policy: a fixed table of allow and deny rules.

    {"rules": [
      {"name": "no-staging", "effect": "deny",  "resource": "staging/*/*", "image": "any"},
      {"name": "anchors",    "effect": "allow", "resource": "trust/*/*",   "image": "any",
       "tee": ["snp", "tdx"]},
      {"name": "bound-image","effect": "allow", "resource": "*/*/*",       "image": "bound"}
    ]}

The first rule that matches decides; none matching is a denial. A rule matches when

1. `resource` fits: three segments, in which `*` stands for any characters of one segment;
2. `tee`, if given, names the TEE of the guest;
3. `image` is `any`, or it is `bound` and the image that the guest names is one that the
   resource is bound to. A resource without bindings matches no `bound` rule.

The default is the last rule alone. What image a guest names is the word of its agent: that
is worth as much as the measurement of the agent in the evidence, which the verifier judged.

No IO and no clock here.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from imagers.errors import FormatError, PolicyDenied
from imagers.model.strict_json import get_list, get_str, parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest
    from imagers.model.policy import Policy
    from imagers.model.strict_json import JSON

__all__ = [
    "DEFAULT_POLICY",
    "DENY_ALL_POLICY",
    "MAX_POLICY_BYTES",
    "ReleaseFacts",
    "ResourcePolicy",
    "Rule",
    "parse_policy",
]

DEFAULT_POLICY = (
    '{"rules": [{"name": "bound-image", "effect": "allow", '
    '"resource": "*/*/*", "image": "bound"}]}\n'
)
DENY_ALL_POLICY = (
    '{"rules": [{"name": "deny-all", "effect": "deny", "resource": "*/*/*", "image": "any"}]}\n'
)
MAX_POLICY_BYTES = 256 * 1024
_MAX_RULES = 1000
_MAX_TEES = 32
_WHAT = "resource policy"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_TEE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,255}(?:/[A-Za-z0-9_.*-]{1,255}){2}\Z")
_MEMBERS = frozenset({"name", "effect", "resource", "tee", "image"})


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What is known when a guest asks for a resource.

    Attributes:
        tee: whose evidence a verifier accepted.
        image: digest that the guest names, or None.
        bindings: digests of the images that the resource belongs to.
    """

    path: ResourcePath
    tee: str
    image: Digest | None
    bindings: frozenset[Digest]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        resource: one expression a segment, made by `parse_policy`.
        tees: empty means any whose verifier is enabled.
        bound: whether the image must be one that the resource is bound to.
    """

    name: str
    effect: Literal["allow", "deny"]
    resource: tuple[re.Pattern[str], ...]
    tees: frozenset[str]
    bound: bool

    def fits(self, facts: ReleaseFacts) -> bool:
        """Whether resource and TEE are those of the rule; the image is not looked at."""
        segments = (facts.path.repository, facts.path.type, facts.path.tag)
        return (not self.tees or facts.tee in self.tees) and all(
            pattern.fullmatch(segment)
            for pattern, segment in zip(self.resource, segments, strict=True)
        )


class ResourcePolicy:
    """A table, and the text that it was made from."""

    def __init__(self, rules: tuple[Rule, ...], text: str) -> None:
        self.rules = rules
        self.text = text

    def check(self, facts: ReleaseFacts) -> None:
        """See `Policy`."""
        self.decide(facts)

    def decide(self, facts: ReleaseFacts) -> str:
        """The name of the rule that allows it.

        Raises:
            PolicyDenied: a rule denies it, or none allows it; says which and why.
        """
        near: list[str] = []
        for rule in self.rules:
            if not rule.fits(facts):
                continue
            if rule.bound and (reason := _unbound(facts)) is not None:
                near.append(f"rule '{rule.name}' does not apply: {reason}")
                continue
            if rule.effect != "allow":
                raise PolicyDenied(f"rule '{rule.name}' denies it")
            return rule.name
        raise PolicyDenied("; ".join(near[:3]) or "no rule allows it")


def _unbound(facts: ReleaseFacts) -> str | None:
    """Why a `bound` rule does not match. It never shows what the resource is bound to."""
    if not facts.bindings:
        return "the resource is not bound to any image"
    if facts.image is None:
        return "the request names no image"
    if facts.image not in facts.bindings:
        return f"the resource is not bound to the image {facts.image}"
    return None


def parse_policy(text: str) -> ResourcePolicy:
    """A policy from its JSON, strictly: an unknown member is an error, not a hope.

    Raises:
        FormatError: anything that is not a table as the module describes.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise FormatError("is not text", what=_WHAT) from None
    value = parse_object(data, what=_WHAT, max_bytes=MAX_POLICY_BYTES)
    _check_members(value.keys(), frozenset({"rules"}), "$")
    items = get_list(value, "rules", what=_WHAT)
    if len(items) > _MAX_RULES:
        raise FormatError(
            f"expected at most {_MAX_RULES} rules, got {len(items)}", what=_WHAT, where="$.rules"
        )
    rules = tuple(_parse_rule(item, f"$.rules[{at}]") for at, item in enumerate(items))
    names = [rule.name for rule in rules]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise FormatError(
                f"has the name {name!r} twice", what=_WHAT, where=f"$.rules[{at}].name"
            )
    return ResourcePolicy(rules, text)


def _parse_rule(item: JSON, where: str) -> Rule:
    if not isinstance(item, dict):
        raise FormatError("expected an object", what=_WHAT, where=where)
    _check_members(item.keys(), _MEMBERS, where)
    name = get_str(item, "name", what=_WHAT, where=where)
    if not _NAME.match(name):
        raise _fault("a name of letters, digits, '_', '.' and '-'", name, f"{where}.name")
    effect = get_str(item, "effect", what=_WHAT, where=where)
    if effect not in ("allow", "deny"):
        raise _fault("'allow' or 'deny'", effect, f"{where}.effect")
    image = get_str(item, "image", what=_WHAT, where=where)
    if image not in ("bound", "any"):
        raise _fault("'bound' or 'any'", image, f"{where}.image")
    if effect == "deny" and image == "bound":
        # It would deny the right image and let the wrong ones go on to the next rule.
        raise _fault("'any' in a rule that denies", image, f"{where}.image")
    return Rule(
        name=name,
        effect="allow" if effect == "allow" else "deny",
        resource=_parse_pattern(get_str(item, "resource", what=_WHAT, where=where), where),
        tees=_parse_tees(item, where),
        bound=image == "bound",
    )


def _parse_pattern(text: str, where: str) -> tuple[re.Pattern[str], ...]:
    where = f"{where}.resource"
    if not _PATTERN.match(text):
        raise _fault("'repository/type/tag' with '*' for any part of a segment", text, where)
    # Of what fnmatch knows only "*" passes the pattern above; its expressions do not backtrack.
    return tuple(re.compile(fnmatch.translate(segment)) for segment in text.split("/"))


def _parse_tees(item: dict[str, JSON], where: str) -> frozenset[str]:
    if "tee" not in item:
        return frozenset()
    where = f"{where}.tee"
    names = get_list(item, "tee", what=_WHAT, where=where.removesuffix(".tee"))
    if not 1 <= len(names) <= _MAX_TEES:
        # An empty list could be read as "none" or as "any".
        raise FormatError(
            f"expected 1 to {_MAX_TEES} names, got {len(names)}", what=_WHAT, where=where
        )
    tees = set()
    for name in names:
        if not isinstance(name, str) or not _TEE.match(name):
            raise _fault("the name of a TEE", name, where)
        tees.add(name)
    return frozenset(tees)


def _check_members(names: Iterable[str], known: frozenset[str], where: str) -> None:
    for name in names:
        if name not in known:
            raise FormatError(
                f"has an unknown member {name[:80]!r}, expected {', '.join(sorted(known))}",
                what=_WHAT,
                where=where,
            )


def _fault(expected: str, actual: object, where: str) -> FormatError:
    return FormatError(f"expected {expected}, got {str(actual)[:80]!r}", what=_WHAT, where=where)


if TYPE_CHECKING:

    def _is_policy(policy: ResourcePolicy) -> Policy[ReleaseFacts]:
        return policy
