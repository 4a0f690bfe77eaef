"""The trust settings: containers-policy.json(5), strictly parsed.

    {"default": [{"type": "reject"}],
     "transports": {"docker": {"registry.example.org/team": [
         {"type": "sigstoreSigned", "keyPath": "/etc/keys/release.pub"}]}}}

    policy = parse_policy(raw, what="policy.json")
    selected = policy.select(docker_identity(parse_reference("registry.example.org/team/app:v1")))

Hosts in scopes count in any spelling: `Registry.Example.org` is `registry.example.org`.

An unknown, doubled or ill-typed member anywhere, or an empty list of requirements, refuses
the whole file: a policy that is half understood is not a policy. Of the scopes, the most
specific one that is there counts and no other; all requirements of its list must hold.

Spec: containers-policy.json(5); containers/image df7e80d2, signature/policy_config.go,
signature/policy_eval.go, docker/policyconfiguration/naming.go, oci/internal/oci_util.go.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.model.digest import parse_digest
from imagers.model.reference import normal_name
from imagers.sign.requirements import Requirement, Strict, parse_requirement

if TYPE_CHECKING:
    from imagers.model.reference import Reference

__all__ = [
    "MAX_POLICY_BYTES",
    "ImageIdentity",
    "Policy",
    "Selected",
    "docker_identity",
    "parse_policy",
    "path_identity",
]

MAX_POLICY_BYTES = 4 * 1024 * 1024
_PATH_TRANSPORTS = frozenset({"dir", "oci", "oci-archive", "sif"})
_NAME_TRANSPORTS = frozenset({"atomic", "docker", "docker-daemon"})
_SCOPELESS_TRANSPORTS = frozenset({"docker-archive", "tarball"})


@dataclass(frozen=True, slots=True)
class ImageIdentity:
    """What an image is called where a policy looks it up.

    Make one with `docker_identity` or `path_identity`.

    Attributes:
        transport: as a policy names it, such as `docker` or `oci`.
        reference: as the user named the image, never a mirror's name; None in a directory.
        scopes: from the most specific one on; `""` is not among them.
    """

    transport: str
    reference: Reference | None
    scopes: tuple[str, ...]

    def __str__(self) -> str:
        name = self.reference if self.reference is not None else self.scopes[0]
        return f"{self.transport}:{'//' if self.transport == 'docker' else ''}{name}"


def docker_identity(reference: Reference) -> ImageIdentity:
    """The identity of an image in a registry.

    Scopes: the whole reference, the repository, its parents down to the host with its port,
    then `*.` and what follows each dot of the host.
    """
    scopes = [str(reference)]
    name = reference.name
    while True:
        scopes.append(name)
        if "/" not in name:
            break
        name = name.rpartition("/")[0]
    host = name.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        scopes.append(f"*.{host}")
    return ImageIdentity("docker", reference, tuple(scopes))


def path_identity(transport: str, path: str) -> ImageIdentity:
    """The identity of an image in a directory or an archive.

    Scopes: the path and its parents, without `/`.

    Args:
        path: absolute and normal, with all symbolic links resolved by the caller: a policy
            for `/trusted` must not hold for what a link below it points to.

    Raises:
        ValueError: it is not absolute and normal.
    """
    if not _is_normal(path):
        raise ValueError("expected an absolute, normal path other than '/'")
    scopes = []
    rest = path
    while rest:
        scopes.append(rest)
        rest = rest.rpartition("/")[0]
    return ImageIdentity(transport, None, tuple(scopes))


def _is_normal(path: str) -> bool:
    return (
        path.startswith("/")
        and not path.startswith("//")
        and path != "/"
        and posixpath.normpath(path) == path
    )


@dataclass(frozen=True, slots=True)
class Selected:
    """The requirements that a policy has for one image. All of them must hold.

    Attributes:
        where: place of the list in the policy, such as `$.transports.docker['r.example']`.
    """

    identity: ImageIdentity
    where: str
    requirements: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy.

    Attributes:
        default: for images that no scope fits; never empty.
        transports: by transport and scope; a list is never empty.
    """

    default: tuple[Requirement, ...]
    transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]]

    def select(self, identity: ImageIdentity) -> Selected:
        """The list for `identity`: of the most specific scope only."""
        scopes = self.transports.get(identity.transport, {})
        for scope in (*identity.scopes, ""):
            if scope in scopes:
                where = f"$.transports.{identity.transport}[{scope!r}]"
                return Selected(identity, where, scopes[scope])
        return Selected(identity, "$.default", self.default)


def parse_policy(raw: bytes, *, what: str = "policy") -> Policy:
    """The policy in `raw`.

    Args:
        what: name of the file in messages.

    Raises:
        FormatError: anything that the specification does not say; `where` has the place.
    """
    document = Strict.parse(raw, what=what, max_bytes=MAX_POLICY_BYTES)
    document.only("default", "transports")
    if "default" not in document:
        raise document.error("is missing, expected a list of requirements", "default")
    transports: dict[str, dict[str, tuple[Requirement, ...]]] = {}
    inside = document.object("transports", null_is_empty="transports" not in document)
    for transport in inside.value:
        scopes = inside.object(transport)
        transports[transport] = {}
        for written in scopes.value:
            where = f"{scopes.where}[{written[:160]!r}]"
            _check_scope(transport, written, what=what, where=where)
            scope = normal_name(written) if transport in _NAME_TRANSPORTS else written
            if scope in transports[transport]:
                raise FormatError(
                    f"is the scope {scope[:160]!r} in another spelling, which is there too",
                    what=what,
                    where=where,
                )
            transports[transport][scope] = _parse_list(scopes, written, where)
    return Policy(_parse_list(document, "default", document.at("default")), transports)


def _parse_list(parent: Strict, name: str, where: str) -> tuple[Requirement, ...]:
    value = parent.value.get(name)
    if not isinstance(value, list):
        raise FormatError("expected a list of requirements", what=parent.what, where=where)
    if not value:
        raise FormatError(
            "expected at least one requirement, got an empty list",
            what=parent.what,
            where=where,
            hint='write [{"type": "reject"}] to refuse every image',
        )
    return tuple(
        parse_requirement(Strict(one, what=parent.what, where=f"{where}[{index}]"))
        for index, one in enumerate(value)
    )


def _check_scope(transport: str, scope: str, *, what: str, where: str) -> None:
    """Refuse scopes that can never match, where the transport says what they look like."""
    if not scope:
        return
    if transport in _PATH_TRANSPORTS and not _is_normal(scope):
        raise FormatError(
            "expected a scope that is an absolute path without '..', '.', double or closing "
            "slashes, or the empty scope",
            what=what,
            where=where,
        )
    if transport in _SCOPELESS_TRANSPORTS:
        raise FormatError(
            f"expected only the empty scope for transport {transport!r}", what=what, where=where
        )
    if transport == "docker" and "://" in scope:
        raise FormatError(
            "expected a scope without a scheme, such as 'registry.example.org/team'",
            what=what,
            where=where,
        )
    if transport == "docker-daemon":
        try:
            parse_digest(scope)
        except FormatError:
            return
        raise FormatError("expected a scope that is not a digest", what=what, where=where)
