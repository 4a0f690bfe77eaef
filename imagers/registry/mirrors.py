"""Where the images of a name really are: mirrors, other locations, blocked prefixes. No IO.

    conf = parse_registries_conf([text])
    for endpoint in conf.endpoints(reference): ...     # in this order, until one has it

The name that the user gave stays the name: policies and signatures are looked up under it,
and only requests go elsewhere. Short names mean docker.io here as everywhere in imagers:
`unqualified-search-registries` is not followed, because which image a short name means would
depend on which registry answers.

Spec: containers-registries.conf(5), version 2; confidential-containers/guest-components,
image-rs/src/registry.rs (its match is not anchored at the start; here it is).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError, PolicyDenied
from imagers.model.reference import Reference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Endpoint", "RegistriesConf", "parse_image_rs_registries", "parse_registries_conf"]

_MAX_FILE = 1024 * 1024
_MAX_RULES = 4096
_PULLS = ("all", "digest-only", "tag-only")
_LOCATION = re.compile(r"[A-Za-z0-9.\-\[\]:_/]{1,255}\Z")
_BOUNDARY = "/:@"


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
class _Mirror:
    location: str
    insecure: bool
    pulls: str


@dataclass(frozen=True, slots=True)
class _Rule:
    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[_Mirror, ...]

    def matched(self, text: str) -> int:
        """Characters of a reference that the prefix covers; 0: it does not fit."""
        if self.prefix.startswith("*."):
            host = text.partition("/")[0]
            return len(host) if host.partition(":")[0].endswith(self.prefix[1:]) else 0
        rest = text[len(self.prefix) :]
        fits = text.startswith(self.prefix) and (not rest or rest[0] in _BOUNDARY)
        return len(self.prefix) if fits else 0


@dataclass(frozen=True, slots=True)
class RegistriesConf:
    """Rules, of which the one with the longest match counts.

    Attributes:
        insecure_is_any_certificate: whether "insecure" also means https that is not verified.
    """

    rules: tuple[_Rule, ...] = ()
    insecure_is_any_certificate: bool = True

    def endpoints(self, reference: Reference) -> list[Endpoint]:
        """Where to read `reference`: mirrors in their order, then the place itself.

        Raises:
            PolicyDenied: the name is blocked.
            FormatError: a location does not make a name.
        """
        text = str(reference)
        rule = self._find(text)
        if rule is None:
            return [Endpoint(reference)]
        if rule.blocked:
            raise PolicyDenied(
                f"{reference}: registries.conf blocks {rule.prefix!r}",
                hint="who set it up wants no images from there",
            )
        rest = text[rule.matched(text) :]
        found = [
            self._endpoint(mirror.location + rest, insecure=mirror.insecure)
            for mirror in rule.mirrors
            if mirror.pulls == "all" or (mirror.pulls == "digest-only") == reference.is_pinned
        ]
        own = rule.location + rest if rule.location else text
        return [*found, self._endpoint(own, insecure=rule.insecure)]

    def place(self, reference: Reference) -> Endpoint:
        """Where to write `reference`: never to a mirror. Raises as `endpoints`."""
        return self.endpoints(reference)[-1]

    def _endpoint(self, text: str, *, insecure: bool) -> Endpoint:
        return Endpoint(
            parse_reference(text), insecure, insecure and self.insecure_is_any_certificate
        )

    def _find(self, text: str) -> _Rule | None:
        best: _Rule | None = None
        for rule in self.rules:
            length = rule.matched(text)
            # A name beats a wildcard that covers as much; the later of two equals wins.
            if length and (
                best is None
                or (length, "*" not in rule.prefix) >= (best.matched(text), "*" not in best.prefix)
            ):
                best = rule
        return best


def parse_registries_conf(texts: Sequence[tuple[str, str]]) -> RegistriesConf:
    """The rules of registries.conf and its drop-in files.

    Args:
        texts: path and text of each; a later file replaces the rule of an equal prefix.

    Raises:
        FormatError: one is no TOML, of version 1, or a value is malformed.
    """
    rules: dict[str, _Rule] = {}
    for what, text in texts:
        for rule in _parse(text, what=what, mirror_default="all"):
            rules.pop(rule.prefix, None)
            rules[rule.prefix] = rule
    return RegistriesConf(tuple(rules.values()))


def parse_image_rs_registries(text: str, *, what: str) -> RegistriesConf:
    """The rules of image-rs's registry configuration: "insecure" means plain http there."""
    return RegistriesConf(
        tuple(_parse(text, what=what, mirror_default="all")), insecure_is_any_certificate=False
    )


def _parse(text: str, *, what: str, mirror_default: str) -> list[_Rule]:
    if len(text) > _MAX_FILE:
        raise FormatError(f"expected at most {_MAX_FILE} characters", what=what)
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FormatError(f"expected TOML: {str(error)[:200]}", what=what) from error
    if "registries" in document:
        raise FormatError(
            "expected version 2, got version 1",
            what=what,
            where="registries",
            hint="write [[registry]] tables, as containers-registries.conf(5) shows",
        )
    tables = _tables(document, "registry", what)
    return [
        _parse_rule(table, what=what, where=f"registry[{at}]", mirror_default=mirror_default)
        for at, table in enumerate(tables)
    ]


def _parse_rule(
    table: Mapping[str, object], *, what: str, where: str, mirror_default: str
) -> _Rule:
    location = _location(table, "location", what, where)
    prefix = _text(table, "prefix", what, where).rstrip("/") or location
    if not prefix:
        raise FormatError("expected a prefix or a location", what=what, where=where)
    if not _LOCATION.match(prefix.removeprefix("*.")):
        raise FormatError(f"expected a prefix, got {prefix[:80]!r}", what=what, where=where)
    if _flag(table, "mirror-by-digest-only", what, where):
        mirror_default = "digest-only"
    mirrors = []
    for at, mirror in enumerate(_tables(table, "mirror", what)):
        inside = f"{where}.mirror[{at}]"
        pulls = _text(mirror, "pull-from-mirror", what, inside) or mirror_default
        target = _location(mirror, "location", what, inside)
        if pulls not in _PULLS or not target:
            raise FormatError(
                "expected a location, and pulls of a known kind", what=what, where=inside
            )
        mirrors.append(_Mirror(target, _flag(mirror, "insecure", what, inside), pulls))
    return _Rule(
        prefix,
        location,
        _flag(table, "insecure", what, where),
        _flag(table, "blocked", what, where),
        tuple(mirrors),
    )


def _tables(document: Mapping[str, object], name: str, what: str) -> list[Mapping[str, object]]:
    value = document.get(name, [])
    if not isinstance(value, list) or len(value) > _MAX_RULES:
        raise FormatError(f"expected at most {_MAX_RULES} tables", what=what, where=name)
    if not all(isinstance(one, dict) for one in value):
        raise FormatError("expected tables", what=what, where=name)
    return value


def _text(table: Mapping[str, object], name: str, what: str, where: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise FormatError("expected a string", what=what, where=f"{where}.{name}")
    return value


def _location(table: Mapping[str, object], name: str, what: str, where: str) -> str:
    value = _text(table, name, what, where).rstrip("/")
    if value and not _LOCATION.match(value):
        raise FormatError(
            f"expected HOST[:PORT][/PATH], got {value[:80]!r}", what=what, where=f"{where}.{name}"
        )
    return value


def _flag(table: Mapping[str, object], name: str, what: str, where: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise FormatError("expected true or false", what=what, where=f"{where}.{name}")
    return value
