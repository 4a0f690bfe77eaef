# SPDX-License-Identifier: Apache-2.0
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

from collections.abc import Mapping
from dataclasses import dataclass

from imagers.errors import FormatError, PolicyDenied
from imagers.model.digest import Digest, digest_of
from imagers.model.identity import ImageIdentity, parse_path_scope
from imagers.model.reference import normal_name
from imagers.sign.requirements import (
    InsecureAcceptAnything,
    Requirement,
    Strict,
    parse_requirement,
)
from imagers.transport.kinds.transport import TRANSPORTS, find_transport

__all__ = [
    "MAX_POLICY_BYTES",
    "Policy",
    "Selected",
    "parse_policy",
]

MAX_POLICY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Selected:
    """The requirements that a policy has for one image. All of them must hold.

    Attributes:
        where: place of the list in the policy, such as `$.transports.docker['r.example']`.
        is_default: whether it is there for want of a scope: the default, or that of a transport.
    """

    identity: ImageIdentity
    where: str
    requirements: tuple[Requirement, ...]
    is_default: bool = False

    @property
    def is_unsaid(self) -> bool:
        """Whether nobody said anything of this image: a default lets everything pass."""
        return self.is_default and all(
            isinstance(one, InsecureAcceptAnything) for one in self.requirements
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy.

    Attributes:
        default: for images that no scope fits; never empty.
        transports: by transport and scope; a list is never empty.
        digest: of the document, as it was written.
    """

    default: tuple[Requirement, ...]
    transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]]
    digest: Digest

    def select(self, identity: ImageIdentity) -> Selected:
        """The list for `identity`: of the most specific scope only.

        Raises:
            PolicyDenied: it has a tag beside its digest, and the policy a scope for the tag.
                Neither of the two may open what the other one keeps shut; containers/image
                refuses all names that have both.
        """
        scopes = self.transports.get(identity.transport, {})
        reference = identity.reference
        if reference is not None and reference.remark and str(reference.tagged) in scopes:
            raise PolicyDenied(
                f"{identity}: the policy has requirements for '{reference.tagged}', and others for "
                "the digest",
                hint="write the tag or the digest: whichever is meant is judged by its own",
            )
        for scope in (*identity.scopes, ""):
            if scope in scopes:
                where = f"$.transports.{identity.transport}[{scope!r}]"
                return Selected(identity, where, scopes[scope], is_default=not scope)
        return Selected(identity, "$.default", self.default, is_default=True)


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
            scope = _parse_scope(transport, written, what=what, where=where)
            if scope in transports[transport]:
                raise FormatError(
                    f"is the scope {scope[:160]!r} in another spelling, which is there too",
                    what=what,
                    where=where,
                )
            transports[transport][scope] = _parse_list(scopes, written, where)
    default = _parse_list(document, "default", document.at("default"))
    return Policy(default, transports, digest_of(raw))


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


def _parse_scope(transport: str, written: str, *, what: str, where: str) -> str:
    """A scope as identities spell it; refused where it can never match and that is known."""
    if not written:
        return written
    if transport in TRANSPORTS:
        return find_transport(transport).parse_scope(written, what=what, where=where)
    # Transports of other readers of the file.
    if transport == "sif":
        return parse_path_scope(written, what=what, where=where)
    if transport == "tarball":
        raise FormatError(
            f"expected only the empty scope for transport {transport!r}", what=what, where=where
        )
    return normal_name(written) if transport == "atomic" else written
