# SPDX-License-Identifier: Apache-2.0
"""The resource policy: a fixed table of allow and deny rules.

    {"rules": [
      {"name": "no-staging", "effect": "deny",  "resource": "staging/*/*", "image": "any"},
      {"name": "anchors",    "effect": "allow", "resource": "trust/*/*",   "image": "any",
       "tee": ["snp", "tdx"]},
      {"name": "bound-image", "effect": "allow", "resource": "*/*/*",       "image": "bound",
       "trust": "affirming"}
    ]}

The first rule that matches decides; none matching is a denial. A rule matches when

1. `resource` fits: three segments, in which `*` stands for any characters of one segment;
2. `tee`, if given, names the TEE of the guest;
3. `devices`, if given, names kinds of devices, such as `nvidia`, and the guest has shown evidence
   of at least one of each kind;
4. `trust`, if given, is `affirming` and so is the appraisal of all evidence of the guest by the
   reference values in force: it is the operator's own machine, and not somebody's who rents one;
5. `image` is `any`, or it is `bound` and the image that the guest names is one that the
   resource is bound to. A resource without bindings matches no `bound` rule;
6. `approvals`, if given, is not more than how many admins have approved that image.

The default is the last rule alone. A rule for `any` image without `trust` takes any genuine guest
of its TEEs. What image a guest names is the word of its agent, and worth as much as the measurement
of the agent in the evidence: so `bound` asks for what `trust` does, whether it is given or not.

No IO and no clock here.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from imagers.errors import FormatError, PolicyDenied
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest

__all__ = [
    "DEFAULT_POLICY",
    "DENY_ALL_POLICY",
    "FORMER_DEFAULT_POLICY",
    "MAX_APPROVALS",
    "MAX_POLICY_BYTES",
    "NotAffirming",
    "ReleaseFacts",
    "ResourcePolicy",
    "Rule",
    "RuleDenied",
    "parse_policy",
]

DEFAULT_POLICY = (
    '{"rules": [{"name": "bound-image", "effect": "allow", '
    '"resource": "*/*/*", "image": "bound", "trust": "affirming"}]}\n'
)
FORMER_DEFAULT_POLICY = (
    '{"rules": [{"name": "bound-image", "effect": "allow", '
    '"resource": "*/*/*", "image": "bound"}]}\n'
)
"""The default of stores that were made before there were reference values."""
DENY_ALL_POLICY = (
    '{"rules": [{"name": "deny-all", "effect": "deny", "resource": "*/*/*", "image": "any"}]}\n'
)
MAX_POLICY_BYTES = 256 * 1024
MAX_APPROVALS = 16
"""That a rule can demand."""
_MAX_RULES = 1000
_MAX_TEES = 32
_WHAT = "resource policy"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_TEE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,255}(?:/[A-Za-z0-9_.*-]{1,255}){2}\Z")


@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """What is known when a guest asks for a resource.

    Attributes:
        tee: whose evidence a verifier accepted.
        devices: kinds of devices whose evidence was accepted beside it.
        image: digest that the guest names, or None.
        bindings: digests of the images that the resource belongs to.
        is_affirming: whether all evidence is appraised as that of a machine of the operator's.
        approvals: how many admins have approved the image that the guest names.
    """

    path: ResourcePath
    tee: str
    image: Digest | None
    bindings: frozenset[Digest]
    is_affirming: bool
    devices: frozenset[str] = frozenset()
    approvals: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        resource: one expression a segment, made by `parse_policy`.
        tees: empty means any whose verifier is enabled.
        bound: whether the image must be one that the resource is bound to.
        affirming: whether the guest must be known as one of the operator's.
        devices: kinds of devices that the guest must have shown.
        approvals: that the image must have.
    """

    name: str
    effect: Literal["allow", "deny"]
    resource: tuple[re.Pattern[str], ...]
    tees: frozenset[str]
    bound: bool
    affirming: bool = False
    devices: frozenset[str] = frozenset()
    approvals: int = 0

    def fits(self, facts: ReleaseFacts) -> bool:
        """Whether resource and TEE are those of the rule; the image is not looked at."""
        segments = (facts.path.repository, facts.path.type, facts.path.tag)
        return (not self.tees or facts.tee in self.tees) and all(
            pattern.fullmatch(segment)
            for pattern, segment in zip(self.resource, segments, strict=True)
        )


class RuleDenied(PolicyDenied):
    """A rule denies it.

    Attributes:
        rule: its name.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(f"rule '{rule}' denies it")
        self.rule = rule


class NotAffirming(PolicyDenied):
    """A rule would allow it, if the guest were known as one of the operator's.

    Attributes:
        rule: its name.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(
            f"rule '{rule}' does not apply: this guest is not known as one of the operator's"
        )
        self.rule = rule


class ResourcePolicy:
    """A table, and the text that it was made from.

    Attributes:
        demands_approvals: whether any rule asks how many admins have approved an image.
    """

    def __init__(self, rules: tuple[Rule, ...], text: str) -> None:
        self.rules = rules
        self.text = text
        self.demands_approvals = any(rule.approvals for rule in rules)

    def approvals_of(self, repository: str) -> int:
        """How many approvals an image of a repository needs at least, to be served at all."""
        wanted = [
            rule.approvals
            for rule in self.rules
            if rule.effect == "allow" and rule.resource[0].fullmatch(repository)
        ]
        return min(wanted, default=0)

    def check(self, facts: ReleaseFacts) -> None:
        """Raise unless the policy lets the facts through."""
        self.decide(facts)

    def decide(self, facts: ReleaseFacts) -> str:
        """The name of the rule that allows it.

        Raises:
            RuleDenied: a rule denies it.
            NotAffirming: no rule allows it, and one wants better evidence.
            PolicyDenied: no rule allows it; says why.
        """
        near: list[str] = []
        unknown_guest = ""
        for rule in self.rules:
            if not rule.fits(facts):
                continue
            if missing := rule.devices - facts.devices:
                near.append(
                    f"rule '{rule.name}' does not apply: the guest has shown no evidence of a "
                    f"device '{min(missing)}'"
                )
                continue
            if (rule.affirming or rule.bound) and not facts.is_affirming:
                # Before the image: who is not known learns nothing of what is bound to what.
                unknown_guest = unknown_guest or rule.name
                continue
            if rule.bound and (reason := _unbound(facts, rule.approvals)) is not None:
                near.append(f"rule '{rule.name}' does not apply: {reason}")
                continue
            if rule.effect != "allow":
                raise RuleDenied(rule.name)
            return rule.name
        if unknown_guest and not near:
            raise NotAffirming(unknown_guest)
        raise PolicyDenied("; ".join(near[:3]) or "no rule allows it")


def _unbound(facts: ReleaseFacts, approvals: int) -> str | None:
    """Why a `bound` rule does not match. It never shows what the resource is bound to."""
    if not facts.bindings:
        return "the resource is not bound to any image"
    if facts.image is None:
        return "the request names no image"
    if facts.image not in facts.bindings:
        return f"the resource is not bound to the image {facts.image}"
    if facts.approvals < approvals:
        return f"the image {facts.image} has {facts.approvals} of {approvals} approvals"
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
    policy = View.parse(data, what=_WHAT, max_bytes=MAX_POLICY_BYTES)
    policy.only("rules")
    rules: dict[str, Rule] = {}
    for item in policy.objects("rules", most=_MAX_RULES):
        rule = _parse_rule(item)
        if rule.name in rules:
            raise item.error(f"has the name {rule.name!r} twice", "name")
        rules[rule.name] = rule
    return ResourcePolicy(tuple(rules.values()), text)


def _parse_rule(rule: View) -> Rule:
    rule.only("name", "effect", "resource", "tee", "devices", "image", "trust", "approvals")
    name = rule.text("name")
    if not _NAME.match(name):
        raise _fault(rule, "name", "a name of letters, digits, '_', '.' and '-'")
    effect = rule.text("effect")
    if effect not in ("allow", "deny"):
        raise _fault(rule, "effect", "'allow' or 'deny'")
    image = rule.text("image")
    if image not in ("bound", "any"):
        raise _fault(rule, "image", "'bound' or 'any'")
    if effect == "deny" and image == "bound":
        # It would deny the right image and let the wrong ones go on to the next rule.
        raise _fault(rule, "image", "'any' in a rule that denies")
    trust = rule.optional_text("trust")
    if trust not in (None, "affirming"):
        raise _fault(rule, "trust", "'affirming'")
    if effect == "deny" and trust is not None:
        raise _fault(rule, "trust", "none in a rule that denies")
    devices = _parse_tees(rule, "devices")
    if effect == "deny" and devices:
        # A guest would only have to keep quiet about them.
        raise rule.error("expected none in a rule that denies", "devices")
    approvals = 0
    if "approvals" in rule:
        if image != "bound":
            # The guest names its image, and would have to name none.
            raise rule.error("expected none in a rule for any image", "approvals")
        approvals = rule.integer("approvals", minimum=1, maximum=MAX_APPROVALS)
    return Rule(
        name=name,
        effect="allow" if effect == "allow" else "deny",
        resource=_parse_pattern(rule),
        tees=_parse_tees(rule, "tee"),
        bound=image == "bound",
        affirming=trust is not None,
        devices=devices,
        approvals=approvals,
    )


def _parse_pattern(rule: View) -> tuple[re.Pattern[str], ...]:
    text = rule.text("resource")
    if not _PATTERN.match(text):
        raise _fault(rule, "resource", "'repository/type/tag' with '*' for any part of a segment")
    # Of what fnmatch knows only "*" passes the pattern above; its expressions do not backtrack.
    return tuple(re.compile(fnmatch.translate(segment)) for segment in text.split("/"))


def _parse_tees(rule: View, member: str) -> frozenset[str]:
    if member not in rule:
        return frozenset()
    # An empty list could be read as "none" or as "any".
    tees = rule.texts(member, most=_MAX_TEES, non_empty=True)
    for name in tees:
        if not _TEE.match(name):
            raise rule.error(f"expected the name of a TEE, got {name[:80]!r}", member)
    return frozenset(tees)


def _fault(rule: View, member: str, expected: str) -> FormatError:
    return rule.error(f"expected {expected}, got {rule.text(member)[:80]!r}", member)
