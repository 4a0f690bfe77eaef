# SPDX-License-Identifier: Apache-2.0
"""Where the images of a name really are: mirrors, other locations, blocked prefixes. No IO.

    conf = parse_registries_conf([(path, text)])    # of imagers.registry.registries_conf
    for endpoint in conf.endpoints(reference): ...     # in this order, until one has it

The name that the user gave stays the name: policies and signatures are looked up under it,
and only requests go elsewhere.

A name without a registry means docker.io here, as everywhere in imagers. Where a file has it
searched for in other registries, or gives it another meaning, it is refused: which image it
meant would depend on which registry answers.

Spec: containers-registries.conf(5), version 2; confidential-containers/guest-components,
image-rs/src/registry.rs (its match is not anchored at the start; here it is).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.errors import PolicyDenied, UsageError
from imagers.model.reference import DEFAULT_REGISTRY, Reference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AUTH_FILES", "Endpoint", "Mirror", "RegistriesConf", "Rule"]

AUTH_FILES = "containers-auth.json"  # among credential helpers: the auth files
_BOUNDARY = "/:@"
_LIBRARY = "library/"
_SHOWN = 5  # registries of a list that a message names


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask.

    Attributes:
        reference: of the image there.
        insecure: plain http is allowed.
        any_certificate: and so is any certificate.
    """

    reference: Reference
    insecure: bool = False
    any_certificate: bool = False


@dataclass(frozen=True, slots=True)
class Mirror:
    """Another place for the names of a rule.

    Attributes:
        pulls: `all`, `digest-only` or `tag-only`.
    """

    location: str
    insecure: bool
    pulls: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for names that begin with `prefix`.

    Attributes:
        location: that replaces the prefix; "": nothing does.
    """

    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[Mirror, ...]

    def matched(self, text: str) -> int:
        """Characters of a reference that the prefix covers; 0: it does not fit."""
        if self.prefix.startswith("*."):
            return _matched_below(text, self.prefix[1:])
        return len(self.prefix) if _fits(text, self.prefix, 0) else 0


def _fits(text: str, what: str, at: int) -> bool:
    end = at + len(what)
    return text.startswith(what, at) and (end == len(text) or text[end] in _BOUNDARY)


def _matched_below(text: str, domain: str) -> int:
    """The same for `.example.com`: it begins in the host, behind at least one character."""
    at = text.find(domain, 1)
    while at > 0 and "/" not in text[:at]:
        if _fits(text, domain, at):
            return at + len(domain)
        at = text.find(domain, at + 1)
    return 0


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """Rules, of which the one with the longest match counts.

    Attributes:
        search: registries in which image-rs looks for names of docker.io, in this order;
            (): in docker.io only.
        insecure_is_any_certificate: whether "insecure" also means https that is not verified.
        insecure_needs_location: whether a rule without a location leaves its own registry secure.
        unqualified: registries in which podman would look for a name without a registry.
        aliases: names without a registry, and what podman takes them for.
        credential_helpers: who has logins, in this order: `AUTH_FILES`, or names of helpers.
    """

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] = ()
    insecure_is_any_certificate: bool = True
    insecure_needs_location: bool = False
    unqualified: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    credential_helpers: tuple[str, ...] = (AUTH_FILES,)

    def endpoints(self, reference: Reference) -> list[Endpoint]:
        """Where to read `reference`: mirrors in their order, then the place itself.

        Raises:
            PolicyDenied: the name is blocked.
            FormatError: a location does not make a name.
        """
        found: list[Endpoint] = []
        blocked: Rule | None = None
        for one in self._candidates(reference):
            blocking = self._blocking(one)
            if blocking is not None:
                blocked = blocked or blocking
            else:
                rule = self._find(str(one))
                found += self._mirrors(one, rule)
                found.append(self._own(one, rule))
        if not found:
            assert blocked is not None  # there is one candidate at least
            raise _blocked(reference, blocked)
        return found

    def place(self, reference: Reference) -> Endpoint:
        """Where to write `reference`: never to a mirror. Raises as `endpoints`."""
        blocked = self._blocking(reference)
        if blocked is not None:
            raise _blocked(reference, blocked)
        return self._own(reference, self._find(str(reference)))

    def check_short_name(self, text: str, reference: Reference) -> None:
        """Raise unless a name without a registry means `reference` to podman too.

        Args:
            text: the name as written, without tag and digest.

        Raises:
            UsageError: it means something else, or what a search finds.
        """
        alias = self.aliases.get(text)
        if alias is not None:
            if parse_reference(alias).name == reference.name:
                return
            raise UsageError(
                f"{text!r}: expected a name with its registry: registries.conf takes it for "
                f"{alias!r}, and imagers for {reference.name!r}",
                hint=f"write {alias} or {reference.name}",
            )
        if set(self.unqualified) <= {DEFAULT_REGISTRY}:
            return
        places = ", ".join(repr(one) for one in self.unqualified[:_SHOWN])
        raise UsageError(
            f"{text!r}: expected a name with its registry: registries.conf has such names "
            f"searched for in {places}, and imagers does not search: which image it got would "
            "depend on which registry answers",
            hint=f"write {reference.name}, or the registry that you mean before the name",
        )

    def _candidates(self, reference: Reference) -> list[Reference]:
        if not self.search or reference.registry != DEFAULT_REGISTRY:
            return [reference]
        rest = str(reference).removeprefix(f"{DEFAULT_REGISTRY}/").removeprefix(_LIBRARY)
        return [
            reference if registry == DEFAULT_REGISTRY else parse_reference(f"{registry}/{rest}")
            for registry in self.search
        ]

    def _mirrors(self, reference: Reference, rule: Rule | None) -> list[Endpoint]:
        if rule is None:
            return []
        rest = str(reference)[rule.matched(str(reference)) :]
        return [
            self._endpoint(mirror.location + rest, insecure=mirror.insecure)
            for mirror in rule.mirrors
            if mirror.pulls == "all" or (mirror.pulls == "digest-only") == reference.is_pinned
        ]

    def _own(self, reference: Reference, rule: Rule | None) -> Endpoint:
        if rule is None:
            return Endpoint(reference)
        text = str(reference)
        if rule.location:
            text = rule.location + text[rule.matched(text) :]
        elif self.insecure_needs_location:
            return Endpoint(reference)
        return self._endpoint(text, insecure=rule.insecure)

    def _endpoint(self, text: str, *, insecure: bool) -> Endpoint:
        return Endpoint(
            parse_reference(text), insecure, insecure and self.insecure_is_any_certificate
        )

    def _blocking(self, reference: Reference) -> Rule | None:
        """The rule that blocks a name, with the port of https or without, by tag or by digest."""
        names = [one for one in (reference, reference.tagged) if one is not None]
        rules = (self._find(str(one)) for name in names for one in name.spellings())
        return next((rule for rule in rules if rule is not None and rule.blocked), None)

    def _find(self, text: str) -> Rule | None:
        best: Rule | None = None
        for rule in self.rules:
            length = rule.matched(text)
            # A name beats a wildcard that covers as much; the later of two equals wins.
            if length and (
                best is None
                or (length, "*" not in rule.prefix) >= (best.matched(text), "*" not in best.prefix)
            ):
                best = rule
        return best


def _blocked(reference: Reference, rule: Rule) -> PolicyDenied:
    return PolicyDenied(
        f"{reference}: the configuration of registries blocks {rule.prefix!r}",
        hint="who set it up wants no images from there",
    )
