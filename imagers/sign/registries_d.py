# SPDX-License-Identifier: Apache-2.0
"""registries.d: where the lookaside of a repository is, and which forms are looked for.

    docker:
      registry.example.org/team:
        lookaside: https://signatures.example.org/team
        lookaside-staging: file:///srv/signatures/team
        use-sigstore-attachments: true

    config = parse_registries_d([("10-team.yaml", raw)])
    config.for_repository("registry.example.org/team/app").lookaside

Each member is that of the most specific scope that sets it, as containers/image does it (its
manual page says: of the most specific scope only). The older words `sigstore` and
`sigstore-staging` mean `lookaside` and `lookaside-staging`.

Spec: containers-registries.d(5); containers/image df7e80d2, docker/registries_d.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from imagers.errors import FormatError
from imagers.model.reference import normal_name
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "MAX_CONFIG_BYTES",
    "RegistriesD",
    "Scope",
    "lookaside_url",
    "parse_registries_d",
    "scopes_of",
]

MAX_CONFIG_BYTES = 1024 * 1024  # of one file
_MEMBERS = {
    "lookaside": "lookaside",
    "sigstore": "lookaside",
    "lookaside-staging": "staging",
    "sigstore-staging": "staging",
    "use-sigstore-attachments": "attachments",
}
_SCHEMES = ("file", "http", "https")


@dataclass(frozen=True, slots=True)
class Scope:
    """What is said of one scope; None where nothing is.

    Attributes:
        lookaside: URL that signatures are read from.
        staging: URL that they are written to; None: `lookaside`.
        attachments: whether sigstore signatures in the registry are used; None: as the user
            of this module decides. imagers looks for what the policy demands.
    """

    lookaside: str | None = None
    staging: str | None = None
    attachments: bool | None = None


@dataclass(frozen=True, slots=True)
class RegistriesD:
    """All files together."""

    default: Scope
    scopes: Mapping[str, Scope]

    def for_repository(self, name: str, target: str = "") -> Scope:
        """What holds for a repository.

        Args:
            name: registry and repository.
            target: tag or digest with its sign; a scope may name one image.
        """
        chain = [self.scopes[one] for one in scopes_of(name, target) if one in self.scopes]
        chain.append(self.default)
        # A scope that names a lookaside and no staging place does not inherit another's.
        reading = next((one.lookaside for one in chain if one.lookaside), None)
        writing = next(
            (one.staging or one.lookaside for one in chain if one.staging or one.lookaside), None
        )
        attachments = next((one.attachments for one in chain if one.attachments is not None), None)
        return Scope(reading, writing, attachments)


def scopes_of(name: str, target: str = "") -> list[str]:
    """Scopes of a repository, the most specific one first."""
    found = [f"{name}{target}"] if target else []
    found.append(name)
    while "/" in name:
        name = name.rpartition("/")[0]
        found.append(name)
    host = name.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        found.append(f"*.{host}")
    return found


def parse_registries_d(files: Sequence[tuple[str, bytes]]) -> RegistriesD:
    """The configuration in all `*.yaml` of one directory.

    Args:
        files: name and bytes of each.

    Raises:
        FormatError: not such a file; or a scope, or the default, is set twice.
    """
    default: Scope | None = None
    scopes: dict[str, Scope] = {}
    for what, raw in files:
        document = _load(raw, what)
        document.only("default-docker", "docker")
        found = document.optional_object("default-docker")
        if found is not None:
            if default is not None:
                raise document.error("is set in another file too", "default-docker")
            default = _scope(found)
        docker = document.object("docker", null_is_empty=True)
        for written in docker.value:
            if not isinstance(written, str):
                raise docker.error("expected names of repositories")
            scope = normal_name(written)
            if scope in scopes:
                raise docker.error(f"scope {scope[:160]!r} is set in another file too")
            scopes[scope] = _scope(docker.object(written))
    return RegistriesD(default or Scope(), scopes)


def _load(raw: bytes, what: str) -> View:
    import yaml

    if len(raw) > MAX_CONFIG_BYTES:
        raise FormatError(f"expected at most {MAX_CONFIG_BYTES} bytes, got {len(raw)}", what=what)

    class Loader(yaml.SafeLoader):
        """SafeLoader that refuses aliases, which could grow, and names that stand twice."""

        def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise FormatError("has an alias, which is refused", what=what)
            node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]  # the stub has int
            return node

        def construct_mapping(
            self,
            node: yaml.MappingNode,
            deep: bool = False,  # noqa: FBT001, FBT002  # the library's shape
        ) -> dict[object, object]:
            names = [self.construct_object(key, deep=deep) for key, _ in node.value]
            for name in names:
                if names.count(name) > 1:
                    raise FormatError(f"has the name {str(name)[:80]!r} twice", what=what)
            return dict(super().construct_mapping(node, deep=deep))

    try:
        value = yaml.load(raw.decode("utf-8"), Loader=Loader)  # noqa: S506  # a SafeLoader
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8", what=what) from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise FormatError(f"is not YAML: {' '.join(str(error).split())[:160]}", what=what) from None
    return View({} if value is None else value, what=what, where="")


def _scope(view: View) -> Scope:
    view.only(*_MEMBERS)
    found: dict[str, object] = {}
    for name, value in view.value.items():
        member = _MEMBERS[name]
        if member == "attachments":
            if not isinstance(value, bool):
                raise view.error("expected true or false", name)
        else:
            _check_url(view, name)
            # The newer word wins, as in containers/image; both are often there for old readers.
            if name.startswith("sigstore") and member in found:
                continue
        found[member] = value
    return Scope(**found)  # type: ignore[arg-type]  # each was checked above


def _check_url(view: View, name: str) -> None:
    text = view.text(name)
    try:
        parts = urlsplit(text if text.isprintable() else "")
    except ValueError:
        parts = urlsplit("")
    is_file = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    is_http = parts.scheme in ("http", "https") and bool(parts.netloc)
    if not (is_file or is_http) or parts.query or parts.fragment:
        raise view.error(
            f"expected a URL with {', '.join(_SCHEMES)}, got {text[:160]!r}",
            name,
            hint="file:///srv/signatures or https://signatures.example.org",
        )


def lookaside_url(base: str, repository: str, algorithm: str, hex_digits: str, number: int) -> str:
    """Where signature `number` (from 1) of a manifest is, below the URL `base`.

    Args:
        repository: without its registry.
    """
    path = f"{repository}@{algorithm}={hex_digits}/signature-{number}"
    if not base.startswith("file:"):
        path = quote(path, safe="/@=")
    return f"{base.rstrip('/')}/{path}"
