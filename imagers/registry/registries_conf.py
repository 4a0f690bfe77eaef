# SPDX-License-Identifier: Apache-2.0
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
from imagers.model.strict_json import View
from imagers.registry.mirrors import AUTH_FILES, Mirror, RegistriesConf, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["parse_image_rs_registries", "parse_registries_conf", "read_image_rs_registries"]

_MAX_FILE = 1024 * 1024
_MAX_RULES = 4096
_PULLS = ("all", "digest-only", "tag-only")
_MODES = ("", "enforcing", "permissive", "disabled")
_LOCATION = re.compile(r"[A-Za-z0-9.\-\[\]:_/]{1,255}\Z")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_RULE_KEYS = ("prefix", "location", "insecure", "blocked", "mirror")
_MIRROR_KEYS = ("location", "insecure")
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
        file = _parse(text, what)
        for rule in _rules(
            file, (*_RULE_KEYS, "mirror-by-digest-only"), (*_MIRROR_KEYS, "pull-from-mirror")
        ):
            rules.pop(rule.prefix, None)
            rules[rule.prefix] = rule
        unqualified = _search(file, unqualified)
        helpers = _strings(file, "credential-helpers", _HELPER, "names of helpers", ()) or helpers
        if (file.optional_text("short-name-mode") or "") not in _MODES:
            raise file.error("expected enforcing, permissive or disabled", "short-name-mode")
        for name, target in file.string_map("aliases").items():
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
    return read_image_rs_registries(_parse(text, what))


def read_image_rs_registries(file: View) -> RegistriesConf:
    """The same in a document that is parsed, or in a table of another one.

    Raises:
        FormatError: a value is malformed, or image-rs does not know a key.
    """
    unknown = sorted(file.value.keys() - _IMAGE_RS_KEYS)
    if unknown:
        raise file.error(
            f"image-rs knows no {unknown[0][:80]!r}: expected one of "
            f"{', '.join(sorted(_IMAGE_RS_KEYS))}",
            hint="a guest would ignore it",
        )
    rules = _rules(file, _RULE_KEYS, _MIRROR_KEYS)
    for at, rule in enumerate(rules):
        if rule.prefix.startswith("*.") and not rule.location:
            raise file.error(
                "expected a location beside a prefix with a wildcard", f"registry[{at}]"
            )
    return RegistriesConf(
        tuple(rules),
        search=_search(file, (DEFAULT_REGISTRY,)),
        insecure_is_any_certificate=False,
        insecure_needs_location=True,
    )


def _parse(text: str, what: str) -> View:
    if len(text) > _MAX_FILE:
        raise FormatError(f"expected at most {_MAX_FILE} characters", what=what)
    try:
        file = View(tomllib.loads(text), what=what, where="")
    except (ValueError, RecursionError) as error:  # a number of too many digits is no TOML error
        raise FormatError(f"expected TOML: {str(error)[:200]}", what=what) from error
    if "registries" in file:
        raise file.error(
            "expected version 2, got version 1",
            "registries",
            hint="write [[registry]] tables, as containers-registries.conf(5) shows",
        )
    return file


def _rules(file: View, keys: Sequence[str], mirror_keys: Sequence[str]) -> list[Rule]:
    tables = file.objects("registry", most=_MAX_RULES, null_is_empty=True)
    return [_rule(table, keys, mirror_keys) for table in tables]


def _search(file: View, before: tuple[str, ...]) -> tuple[str, ...]:
    """Where names without a registry are looked for; `before` if the file says nothing."""
    name = "unqualified-search-registries"
    found = _strings(file, name, _LOCATION, "HOST[:PORT][/PATH]", before)
    return tuple(normal_name(one) for one in found)


def _strings(
    file: View, name: str, form: re.Pattern[str], expected: str, default: tuple[str, ...]
) -> tuple[str, ...]:
    if name not in file:
        return default
    found = file.texts(name, most=_MAX_RULES)
    if not all(map(form.match, found)):
        raise file.error(f"expected a list of {expected}", name)
    return tuple(one.rstrip("/") for one in found)


def _rule(table: View, keys: Sequence[str], mirror_keys: Sequence[str]) -> Rule:
    _check_keys(table, keys)
    location = _location(table)
    prefix = normal_name((table.optional_text("prefix") or "").rstrip("/")) or location
    if not prefix:
        raise table.error("expected a prefix or a location")
    if not _LOCATION.match(prefix.removeprefix("*.")):
        raise table.error(f"expected a prefix, got {prefix[:80]!r}")
    default = "digest-only" if table.flag("mirror-by-digest-only") else "all"
    mirrors = []
    for mirror in table.objects("mirror", most=_MAX_RULES, null_is_empty=True):
        _check_keys(mirror, mirror_keys)
        pulls = mirror.optional_text("pull-from-mirror") or default
        target = _location(mirror)
        if pulls not in _PULLS or not target:
            raise mirror.error("expected a location, and pulls of a known kind")
        mirrors.append(Mirror(target, mirror.flag("insecure"), pulls))
    return Rule(prefix, location, table.flag("insecure"), table.flag("blocked"), tuple(mirrors))


def _check_keys(table: View, keys: Sequence[str]) -> None:
    unknown = sorted(table.value.keys() - set(keys))
    if unknown:
        raise table.error(
            f"expected one of {', '.join(sorted(keys))}, got {unknown[0][:80]!r}",
            hint="is it misspelt?",
        )


def _location(table: View) -> str:
    value = normal_name((table.optional_text("location") or "").rstrip("/"))
    if value and not _LOCATION.match(value):
        raise table.error(f"expected HOST[:PORT][/PATH], got {value[:80]!r}", "location")
    return value
