# SPDX-License-Identifier: Apache-2.0
"""References: registry, repository, tag or digest.

    >>> str(parse_reference("busybox"))
    'docker.io/library/busybox:latest'
    >>> parse_reference("127.0.0.1:5000/app").registry
    '127.0.0.1:5000'
    >>> str(parse_reference("Registry.Example.ORG:0443/app"))
    'registry.example.org:443/app:latest'

A host has one spelling here: policies, lists of blocked registries and logins are looked up by
it, and another spelling of the same host must not fall out of them.

Spec: distribution/reference v0.6, reference.go and normalize.go; OCI distribution-spec
v1.1, "Pulling manifests" for the grammar of names and tags.
"""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace

from imagers.errors import FormatError
from imagers.model.digest import Digest, parse_digest

__all__ = ["Reference", "is_tag", "may_hold_login", "normal_name", "parse_reference"]

_MAX_NAME = 255  # characters of registry and repository together
_MAX_TEXT = 640  # more than the longest name, tag and digest; bounds what is searched
_MAX_PORT = 65535
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(
    rf"(?:\[[0-9A-Fa-f:]+\]|{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?\Z"
)
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:]{2,45}\]|[^:\[\]]*)(?::0*(?P<port>[0-9]{1,5}))?\Z")
_PORT_AT_END = re.compile(r":[0-9]+\Z")
_HTTPS_PORT = "443"
# inet_aton(3) takes 127.1, 0x7f000001 and 0177.0.0.1 for 127.0.0.1.
_NUMBER_AT_END = re.compile(r"(?:\A|\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\Z")
_DIGEST = re.compile(r"(?:sha|md|blake)[0-9a-z]+:|[0-9a-f]+\Z")  # or what was meant as one
_IMAGE_ID = re.compile(r"[0-9a-f]{64}\Z")
DEFAULT_REGISTRY = "docker.io"
_OTHER_DEFAULT_REGISTRY = "index.docker.io"  # normalize.go takes it for the same
_DEFAULT_NAMESPACE = "library"
_DEFAULT_TAG = "latest"


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image in a registry; exactly one of `tag` and `digest` is set.

    Attributes:
        registry: host and port as `normal_name` writes them.
        remark: the tag that was written beside a digest. It is for people: what is read, and what
            a policy says of it, is the digest's.
    """

    registry: str
    repository: str
    tag: str | None
    digest: Digest | None
    remark: str = field(default="", compare=False)

    @property
    def is_pinned(self) -> bool:
        """Whether the name says which bytes: it has a digest."""
        return self.digest is not None

    @property
    def name(self) -> str:
        """Registry and repository, without tag or digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What stands in the URL of the manifest: the digest or the tag."""
        return str(self.digest) if self.digest is not None else str(self.tag)

    @property
    def written(self) -> str:
        """The reference for people: with the tag that was written beside the digest."""
        if self.remark:
            return f"{self.name}:{self.remark}@{self.digest}"
        return str(self)

    @property
    def tagged(self) -> Reference | None:
        """What was written, by the tag alone; None for one that has only a digest."""
        tag = self.tag or self.remark
        return self.with_tag(tag) if tag else None

    def spellings(self) -> tuple[Reference, ...]:
        """This name, and the same image with the port of https left out or written out.

        Policies, signatures and logins tell the two apart, as those of podman do; what must
        not be reached at all is not reached by either.
        """
        host, _, port = self.registry.rpartition(":")
        if port == _HTTPS_PORT and host:
            return (self, replace(self, registry=normal_name(host)))
        if _PORT_AT_END.search(self.registry):
            return (self,)
        return (self, replace(self, registry=f"{self.registry}:{_HTTPS_PORT}"))

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository, pinned."""
        return Reference(self.registry, self.repository, None, digest)

    def with_tag(self, tag: str) -> Reference:
        """The same repository with another tag."""
        if not is_tag(tag):
            raise FormatError(f"expected a tag, got {tag[:160]!r}", what="reference")
        return Reference(self.registry, self.repository, tag, None)

    def __str__(self) -> str:
        if self.digest is not None:
            return f"{self.name}@{self.digest}"
        return f"{self.name}:{self.tag}"


def is_tag(text: str) -> bool:
    """Whether the text is a tag, as the distribution specification has them."""
    return _TAG.match(text) is not None


def normal_name(text: str) -> str:
    """The same name, or beginning of one, with its registry in the one spelling used here.

    Letters of the host are lower case, a port has no leading zeros, an IPv6 address is in its
    short form, index.docker.io is docker.io. What comes behind the first slash stays as it is;
    what is no name as well.

    Spec: RFC 4343 section 3 (case of host names); RFC 5952 section 4 (IPv6).
    """
    registry, slash, rest = text.partition("/")
    match = _HOST.match(registry)
    if match is not None:
        host = match["host"].lower()
        if host.startswith("["):
            with suppress(ValueError):
                address = ipaddress.IPv6Address(host[1:-1])
                mapped = address.ipv4_mapped
                host = f"[{address.compressed}]" if mapped is None else str(mapped)
        registry = host if match["port"] is None else f"{host}:{match['port']}"
    if registry == _OTHER_DEFAULT_REGISTRY:
        registry = DEFAULT_REGISTRY
    return f"{registry}{slash}{rest}"


def may_hold_login(text: str) -> bool:
    """Whether a text that is no name may be USER:PASSWORD@HOST, and is not to be repeated."""
    before, at, behind = text.partition("@")
    is_digest = _DIGEST.match(behind) is not None
    return bool(at) and ("/" in behind or (":" in before.removeprefix("//") and not is_digest))


def _is_ipv4(text: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(text)) == text
    except ValueError:
        return False


def parse_reference(text: str) -> Reference:
    """A `Reference` as docker, skopeo and podman read it.

    A name without a registry is at docker.io, one without a namespace there is in
    `library`, one without tag and digest means `latest`. Of a tag and a digest together the
    digest decides, and the tag is kept as a remark, as for podman, containerd and image-rs. 64
    hex digits alone are refused, which docker would take for the id of a local image.

    Raises:
        FormatError: it is not a reference.
    """

    def refuse(message: str) -> FormatError:
        return FormatError(
            message,
            what=f"reference {text[:160]!r}",
            hint="a reference looks like registry.example.org/namespace/name:tag",
        )

    if len(text) > _MAX_TEXT:
        raise refuse(f"expected at most {_MAX_TEXT} characters, got {len(text)}")
    if _IMAGE_ID.match(text):
        raise refuse("expected a name, got the id of an image")
    rest, at, digest_text = text.partition("@")
    if may_hold_login(text):
        # The text is not repeated, there may be a password in it.
        raise FormatError(
            "has a user name in it", what="reference", hint="credentials go into --creds"
        )
    digest = parse_digest(digest_text, what=f"reference {text[:160]!r}") if at else None
    tag: str | None = None
    colon = rest.rfind(":")
    if colon > rest.rfind("/"):
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not is_tag(tag):
            raise refuse(f"expected a tag after the colon, got {tag[:160]!r}")
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first.lower() == "localhost"):
        registry, repository = normal_name(first), remainder
    else:
        registry, repository = DEFAULT_REGISTRY, rest
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"{_DEFAULT_NAMESPACE}/{repository}"
    host = _REGISTRY.match(registry)
    if host is None or int(host["port"] or 1) not in range(1, _MAX_PORT + 1):
        raise refuse(f"expected a host and optional port, got {registry[:160]!r}")
    name = registry.removesuffix(f":{host['port']}")
    if _NUMBER_AT_END.search(name) and not _is_ipv4(name):
        raise refuse(f"expected an IPv4 address of four numbers, got {name[:160]!r}")
    if not _REPOSITORY.match(repository):
        raise refuse(f"expected a lower-case repository name, got {repository[:160]!r}")
    if len(registry) + 1 + len(repository) > _MAX_NAME:
        raise refuse(f"expected a name of at most {_MAX_NAME} characters")
    if tag is None and digest is None:
        tag = _DEFAULT_TAG
    if digest is None:
        return Reference(registry, repository, tag, None)
    return Reference(registry, repository, None, digest, remark=tag or "")
