"""Files that say where the images of names are: registries.conf, and that of image-rs. No IO.

    conf = parse_registries_conf([(path, text), ...])
    conf = parse_image_rs_registries(text, what=path)

| key                             | registries.conf        | image-rs                       |
|---------------------------------|------------------------|--------------------------------|
| `unqualified-search-registries` | short names refused    | names of docker.io looked for there |
| `short-name-mode`               | checked; nothing to do | refused                        |
| `credential-helpers`            | done                   | refused                        |
| `[aliases]`                     | short names refused    | refused                        |
| `[[registry]]` prefix, location, insecure, blocked, mirror | done | done                 |
| `mirror-by-digest-only`, `pull-from-mirror` | done       | refused                        |

In a table of a registry every other key is refused in both: a misspelt `blocked` blocks
nothing.

Spec: containers-registries.conf(5), version 2; confidential-containers/guest-components,
image-rs/src/registry.rs.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.reference import DEFAULT_REGISTRY, normal_name
from imagers.registry.mirrors import AUTH_FILES, Mirror, RegistriesConf, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["parse_image_rs_registries", "parse_registries_conf"]

_MAX_FILE = 1024 * 1024
_MAX_RULES = 4096
_PULLS = ("all", "digest-only", "tag-only")
_MODES = ("", "enforcing", "permissive", "disabled")
_LOCATION = re.compile(r"[A-Za-z0-9.\-\[\]:_/]{1,255}\Z")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_RULE_KEYS = frozenset({"prefix", "location", "insecure", "blocked", "mirror"})
_MIRROR_KEYS = frozenset({"location", "insecure"})
_IMAGE_RS_KEYS = frozenset({"unqualified-search-registries", "registry"})


def parse_registries_conf(texts: Sequence[tuple[str, str]]) -> RegistriesConf:
    """The rules of registries.conf and its drop-in files.

    Args:
        texts: path and text of each; a later file replaces the rule of an equal prefix, each
            alias of an equal name, and lists as a whole.

    Raises:
        FormatError: one is no TOML, of version 1, or a value is malformed.
    """
    rules: dict[str, Rule] = {}
    aliases: dict[str, str] = {}
    unqualified: tuple[str, ...] = ()
    helpers: tuple[str, ...] = (AUTH_FILES,)
    for what, text in texts:
        file = _File(text, what)
        for rule in file.rules(
            _RULE_KEYS | {"mirror-by-digest-only"}, _MIRROR_KEYS | {"pull-from-mirror"}
        ):
            rules.pop(rule.prefix, None)
            rules[rule.prefix] = rule
        unqualified = file.search(unqualified)
        helpers = file.helpers(helpers)
        if file.text(file.document, "short-name-mode", "") not in _MODES:
            raise FormatError(
                "expected enforcing, permissive or disabled", what=what, where="short-name-mode"
            )
        for name, target in file.aliases().items():
            aliases.pop(name, None)
            if target:  # an empty one takes an earlier alias back
                aliases[name] = target
    return RegistriesConf(
        tuple(rules.values()),
        unqualified=unqualified,
        aliases=aliases,
        credential_helpers=helpers,
    )


def parse_image_rs_registries(text: str, *, what: str) -> RegistriesConf:
    """The rules of image-rs's registry configuration: "insecure" means plain http there.

    Raises:
        FormatError: it is no TOML, a value is malformed, or image-rs does not know a key.
    """
    file = _File(text, what)
    unknown = sorted(file.document.keys() - _IMAGE_RS_KEYS)
    if unknown:
        raise FormatError(
            f"image-rs knows no {unknown[0][:80]!r}: expected one of "
            f"{', '.join(sorted(_IMAGE_RS_KEYS))}",
            what=what,
            hint="a guest would ignore it",
        )
    rules = file.rules(_RULE_KEYS, _MIRROR_KEYS)
    for at, rule in enumerate(rules):
        if rule.prefix.startswith("*.") and not rule.location:
            raise FormatError(
                "expected a location beside a prefix with a wildcard",
                what=what,
                where=f"registry[{at}]",
            )
    return RegistriesConf(
        tuple(rules),
        search=file.search((DEFAULT_REGISTRY,)),
        insecure_is_any_certificate=False,
        insecure_needs_location=True,
    )


class _File:
    """One parsed file."""

    def __init__(self, text: str, what: str) -> None:
        self.what = what
        if len(text) > _MAX_FILE:
            raise FormatError(f"expected at most {_MAX_FILE} characters", what=what)
        try:
            self.document = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise FormatError(f"expected TOML: {str(error)[:200]}", what=what) from error
        if "registries" in self.document:
            raise FormatError(
                "expected version 2, got version 1",
                what=what,
                where="registries",
                hint="write [[registry]] tables, as containers-registries.conf(5) shows",
            )

    def rules(self, keys: frozenset[str], mirror_keys: frozenset[str]) -> list[Rule]:
        tables = self._tables(self.document, "registry", "")
        return [
            self._rule(table, f"registry[{at}]", keys, mirror_keys)
            for at, table in enumerate(tables)
        ]

    def search(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """Where names without a registry are looked for; `before` if the file says nothing."""
        name = "unqualified-search-registries"
        found = self._strings(name, _LOCATION, "HOST[:PORT][/PATH]", before)
        return tuple(normal_name(one) for one in found)

    def helpers(self, before: tuple[str, ...]) -> tuple[str, ...]:
        found = self._strings("credential-helpers", _HELPER, "names of helpers", before)
        return found or before

    def aliases(self) -> dict[str, str]:
        table = self.document.get("aliases", {})
        if not isinstance(table, dict) or not all(isinstance(one, str) for one in table.values()):
            raise FormatError("expected names and strings", what=self.what, where="aliases")
        return table

    def text(self, table: Mapping[str, object], name: str, inside: str) -> str:
        value = table.get(name, "")
        if not isinstance(value, str):
            raise FormatError("expected a string", what=self.what, where=_path(inside, name))
        return value

    def _rule(
        self,
        table: Mapping[str, object],
        where: str,
        keys: frozenset[str],
        mirror_keys: frozenset[str],
    ) -> Rule:
        self._check_keys(table, keys, where)
        location = self._location(table, where)
        prefix = normal_name(self.text(table, "prefix", where).rstrip("/")) or location
        if not prefix:
            raise FormatError("expected a prefix or a location", what=self.what, where=where)
        if not _LOCATION.match(prefix.removeprefix("*.")):
            raise FormatError(
                f"expected a prefix, got {prefix[:80]!r}", what=self.what, where=where
            )
        default = "digest-only" if self._flag(table, "mirror-by-digest-only", where) else "all"
        mirrors = []
        for at, mirror in enumerate(self._tables(table, "mirror", where)):
            inside = f"{where}.mirror[{at}]"
            self._check_keys(mirror, mirror_keys, inside)
            pulls = self.text(mirror, "pull-from-mirror", inside) or default
            target = self._location(mirror, inside)
            if pulls not in _PULLS or not target:
                raise FormatError(
                    "expected a location, and pulls of a known kind", what=self.what, where=inside
                )
            mirrors.append(Mirror(target, self._flag(mirror, "insecure", inside), pulls))
        return Rule(
            prefix,
            location,
            self._flag(table, "insecure", where),
            self._flag(table, "blocked", where),
            tuple(mirrors),
        )

    def _check_keys(self, table: Mapping[str, object], keys: frozenset[str], where: str) -> None:
        unknown = sorted(table.keys() - keys)
        if unknown:
            raise FormatError(
                f"expected one of {', '.join(sorted(keys))}, got {unknown[0][:80]!r}",
                what=self.what,
                where=where,
                hint="is it misspelt?",
            )

    def _tables(
        self, document: Mapping[str, object], name: str, inside: str
    ) -> list[Mapping[str, object]]:
        value = document.get(name, [])
        where = _path(inside, name)
        if not isinstance(value, list) or len(value) > _MAX_RULES:
            raise FormatError(f"expected at most {_MAX_RULES} tables", what=self.what, where=where)
        if not all(isinstance(one, dict) for one in value):
            raise FormatError("expected tables", what=self.what, where=where)
        return value

    def _strings(
        self, name: str, form: re.Pattern[str], expected: str, default: tuple[str, ...]
    ) -> tuple[str, ...]:
        value = self.document.get(name)
        if value is None:
            return default
        if (
            not isinstance(value, list)
            or len(value) > _MAX_RULES
            or not all(isinstance(one, str) and form.match(one) for one in value)
        ):
            raise FormatError(f"expected a list of {expected}", what=self.what, where=name)
        return tuple(one.rstrip("/") for one in value)

    def _location(self, table: Mapping[str, object], inside: str) -> str:
        value = normal_name(self.text(table, "location", inside).rstrip("/"))
        if value and not _LOCATION.match(value):
            raise FormatError(
                f"expected HOST[:PORT][/PATH], got {value[:80]!r}",
                what=self.what,
                where=_path(inside, "location"),
            )
        return value

    def _flag(self, table: Mapping[str, object], name: str, inside: str) -> bool:
        value = table.get(name, False)
        if not isinstance(value, bool):
            raise FormatError("expected true or false", what=self.what, where=_path(inside, name))
        return value


def _path(inside: str, name: str) -> str:
    return f"{inside}.{name}" if inside else name
