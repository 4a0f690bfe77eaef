# SPDX-License-Identifier: Apache-2.0
"""Administration of a broker: put, list, bind and delete secrets; policy and audit log.

    with BrokerAdmin(url, key_file="admin.key", http=settings) as admin:
        admin.put_resource("kbs:///default/key/1", secret)
        admin.bind_manifest("kbs:///default/key/1", digest)

Each request carries a token of its own, which names the admin's Ed25519 key, is signed with it and
good for a minute. What it sees and changes is what its tenant has; `imagers.kbs.tenants` is about
those. One key is for one broker: a broker that has seen a token could use it, within that minute,
at another one that trusts the same key.

`put_resource`, `delete_resource` and `list_resources` are Trustee's; the others are ours,
under `/kbs/v0/imagers/`. Trustee knows no create-only: a put there overwrites, so a full
name is only as safe there as it is fresh.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, urlencode

from imagers.errors import (
    FormatError,
    NotFound,
    RemoteError,
    Unauthorized,
    Unsupported,
    UsageError,
)
from imagers.files import read_bounded
from imagers.kbs.images import KnownImages, parse_images, sign_approval
from imagers.kbs.jwe import MAX_RESOURCE_BYTES
from imagers.kbs.resources import parse_repository, parse_resource_path, parse_resource_uri
from imagers.kbs.wire import Endpoint, admin_key_id, parse_error
from imagers.model.base64 import encode_base64
from imagers.model.closing import Closing
from imagers.model.digest import Digest, parse_digest
from imagers.model.keys import SecretKey
from imagers.model.references import (
    ReferenceValue,
    is_reference_name,
    parse_references,
    references_to_json,
)
from imagers.model.strict_json import View, dump_json, parse_json
from imagers.net.http import HTTPSettings
from imagers.pki.jose import sign_token

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from imagers.model.strict_json import JSONObject
    from imagers.net.http import Response

__all__ = ["AuditEntry", "BrokerAdmin", "ResourceMetadata", "load_admin_key"]

_TOKEN_SECONDS = 60
_MAX_KEY_FILE = 64 * 1024
_MAX_ANSWER = 16 * 1024 * 1024  # of a list or of the audit log
_EMPTY = 64 * 1024  # of an answer that has nothing to say
_DONE = (200, 201, 204)
_BAD_INPUT = (400, 413)
_JSON = "application/json"
_BYTES = "application/octet-stream"
_DENIED = {
    "RoleDenied": "an owner of the tenant adds keys that may: 'imagers broker admin-key add'",
    "RepositoryDenied": "an operator gives one to your tenant: 'imagers broker tenant assign'",
}
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_CONFLICT = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceMetadata:
    """What a broker tells of a secret without telling the secret.

    Attributes:
        size: of the secret in bytes.
        created_at: RFC 3339, by the broker's clock.
        version: no other secret of that name had it.
        expires: RFC 3339, from when on it is not released; None: never.
        uses: how often it was released, counted where there is a `max_uses`.
        max_uses: how often it is released; None: without an end.
        manifest_digests: of the images that it is bound to.
        former: what it replaced, or what was deleted of that name, the newest first.
    """

    uri: str
    size: int
    version: int
    created_at: str
    expires: str | None
    uses: int
    max_uses: int | None
    manifest_digests: tuple[Digest, ...]
    former: tuple[ResourceMetadata, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of a broker's audit log; "" where a member does not apply.

    Attributes:
        id: 16 hex digits, of the hash that the row has in its chain.
        at: RFC 3339, by the broker's clock.
        event: such as `release`, `attest`, `put`.
        outcome: `ok` or `refused`.
        tee: name of the TEE.
        path: of the resource.
        image: digest that the guest named.
        rule: of the policy that decided.
        session: which session, by a name that opens nothing.
        client: the address that asked.
        evidence: SHA-256 of the guest's attestation, as it came, in hex.
        claims: SHA-256 of what its token says of it, in hex.
        tenant: whose row it is; "": the broker's own.
        admin: who did it, by name and the beginning of the key's id.
        detail: why.
    """

    id: str
    at: str
    event: str
    outcome: str
    tee: str = ""
    path: str = ""
    image: str = ""
    rule: str = ""
    session: str = ""
    client: str = ""
    evidence: str = ""
    claims: str = ""
    tenant: str = ""
    admin: str = ""
    detail: str = ""


_ENTRY_TEXTS = tuple(one.name for one in fields(AuditEntry) if one.default == "")


def load_admin_key(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    """An Ed25519 private key from a PEM file.

    Raises:
        LocalError: no such file, or it cannot be read.
        FormatError: no such key in it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    hint = "the first 'imagers broker serve' makes one; --broker-admin-key names another"
    doing = "the admin key cannot be read"
    data = read_bounded(path, max_bytes=_MAX_KEY_FILE, doing=doing, hint=hint)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise FormatError("expected a PEM file with an Ed25519 private key", what=str(path))
    return key


class BrokerAdmin(Closing):
    """The administrator's side of one broker.

    Args:
        url: of the broker, without `/kbs/v0`.
        key_file: Ed25519 private key in PEM.
        http: as for `BrokerClient`.

    Raises:
        LocalError, FormatError: the key file cannot be read, or is none.

    Threads: safe.
    """

    def __init__(
        self,
        url: str,
        *,
        key_file: str | os.PathLike[str],
        http: HTTPSettings | None = None,
    ) -> None:
        self._key = load_admin_key(key_file)
        self._endpoint = Endpoint(url, http)

    def put_resource(
        self,
        uri: str,
        secret: SecretKey,
        *,
        replace: bool = False,
        expires: datetime | None = None,
        max_uses: int | None = None,
    ) -> None:
        """Store a secret under a name that is free; with `replace` also under one that is not.

        A replaced secret loses its bindings: it is no longer the key of those images.

        Args:
            expires: from then on it is not released.
            max_uses: how often it is released.

        Raises:
            Unsupported: it is to end, and the broker is not ours: it would not.
            RemoteError: code `ResourceExists`: the name is taken, nothing was changed.
            Unauthorized: the broker does not accept the admin key.
        """
        path = parse_resource_uri(uri)
        if not 1 <= len(secret) <= MAX_RESOURCE_BYTES:
            raise FormatError(
                f"expected 1 to {MAX_RESOURCE_BYTES} bytes, got {len(secret)}", what="secret"
            )
        query: dict[str, str | int] = {}  # Trustee ignores it, and replaces always
        if replace:
            query["replace"] = "true"
        if expires is not None:
            query["expires"] = int(expires.timestamp())
        if max_uses is not None:
            query["max-uses"] = max_uses
        if expires is not None or max_uses is not None:
            with suppress(NotFound):
                self.metadata(uri)
        target = f"resource/{path}?{urlencode(query)}" if query else f"resource/{path}"
        with secret.view() as data:
            # urllib3 sends `bytes`; this copy lives as long as the call.
            # Create-only is sent once: after a lost answer, "exists" would be our own doing.
            response = self._send("POST", target, _EMPTY, bytes(data), _BYTES, repeatable=replace)
        if response.status == _CONFLICT:
            raise RemoteError(
                f"the broker has a resource {uri!r} already",
                status=response.status,
                code="ResourceExists",
                hint="choose a fresh name, or say --replace to overwrite it",
            )
        self._check(f"put {uri!r}", response)

    def delete_resource(self, uri: str, *, permanently: bool = False) -> None:
        """Let a secret be served no more.

        Args:
            permanently: nothing of it is left, nor of what had that name before. Else our own
                broker keeps it, see `undelete_resource`.

        Raises:
            NotFound: there is none of that name.
        """
        path = parse_resource_uri(uri)
        query = "?permanently=true" if permanently else ""
        self._check(f"delete {uri!r}", self._send("DELETE", f"resource/{path}{query}", _EMPTY))

    def undelete_resource(self, uri: str, *, version: int | None = None) -> None:
        """Have a secret again that was deleted or replaced, with its bindings.

        Args:
            version: None: the newest of them.

        Raises:
            NotFound: there is none.
            Unsupported: the broker is not ours.
        """
        path = parse_resource_uri(uri)
        query = "" if version is None else f"?version={version}"
        what = "secret" if version is None else f"version {version}"
        self.ask(
            f"undelete {uri!r}",
            "POST",
            f"imagers/undelete/{path}{query}",
            missing=f"the broker keeps no former {what} of {uri!r}",
            hint="it may have been deleted permanently; 'imagers broker audit' shows by whom",
        )

    def list_resources(self) -> tuple[str, ...]:
        """The URIs of all secrets, sorted."""
        response = self._send("GET", "resource", _MAX_ANSWER)
        self._check("list resources", response)
        what = "list of resources"
        value = parse_json(response.body, what=what, max_bytes=_MAX_ANSWER)
        if not isinstance(value, list):
            raise FormatError("expected a list", what=what, where="$")
        uris = []
        for item in value:
            if not isinstance(item, str):
                raise FormatError("expected a list of names", what=what, where="$")
            uris.append(parse_resource_path(item, what=what).uri)
        return tuple(sorted(uris))

    def metadata(self, uri: str) -> ResourceMetadata:
        """What the broker knows of a secret, and not the secret.

        Raises:
            NotFound: there is none of that name.
            Unsupported: the broker is not ours.
        """
        path = parse_resource_uri(uri)
        response = self._send("GET", f"imagers/metadata/{path}", _MAX_ANSWER)
        self._check_ours(f"show metadata of {uri!r}", response)
        answer = View.parse(response.body, what="resource metadata", max_bytes=_MAX_ANSWER)
        former = tuple(_parse_metadata(uri, one) for one in answer.objects("former"))
        return replace(_parse_metadata(uri, answer), former=former)

    def bind_manifest(self, uri: str, digest: Digest) -> None:
        """Say that a secret belongs to the image with this manifest; repeating it is no fault.

        Raises:
            NotFound: there is no such secret.
            Unsupported: the broker is not ours.
        """
        path = parse_resource_uri(uri)
        body = dump_json({"manifest_digest": str(digest)})
        response = self._send("POST", f"imagers/binding/{path}", _EMPTY, body, repeatable=True)
        self._check_ours(f"bind {uri!r} to an image", response)

    def get_policy(self, attestation: str | None = None) -> str:
        """A policy in force: a table as JSON text, or a text in Rego.

        Args:
            attestation: a class of evidence, `cpu` or `gpu`, whose attestation policy is meant;
                None: the resource policy.

        Raises:
            NotFound: there is no such attestation policy.
        """
        response = self._send("GET", _policy_path(attestation), _MAX_ANSWER)
        if attestation is not None and response.status == _NOT_FOUND:
            error = parse_error(response.body)
            if error.name == "ResourceNotFound":
                raise NotFound(
                    f"the broker has no attestation policy for {attestation!r}: reference values "
                    "alone say what its evidence is worth",
                    status=response.status,
                    code=error.name,
                )
        self._check_ours("show the policy", response)
        try:
            return response.body.decode()
        except UnicodeDecodeError:
            raise FormatError("is not UTF-8", what="policy") from None

    def set_policy(
        self, text: str, *, attestation: str | None = None, what: str = "policy"
    ) -> None:
        """Put another policy in force.

        Args:
            attestation: as for `get_policy`.
            what: its file, for messages.

        Raises:
            FormatError: the broker found a fault in it; the old one stays in force.
        """
        response = self._send(
            "POST", _policy_path(attestation), _EMPTY, text.encode(), repeatable=True
        )
        if response.status in _BAD_INPUT:
            # Its own words say where, such as `$.rules[0].effect`.
            raise FormatError(
                parse_error(response.body).detail or "the broker does not take it",
                what=what,
                hint="the policy that was in force before still is",
            )
        self._check_ours("set the policy", response)

    def reset_attestation_policy(self, attestation: str) -> None:
        """Let reference values alone say what evidence of a class is worth.

        Args:
            attestation: as for `get_policy`.
        """
        self._check_ours(
            "remove the attestation policy",
            self._send("DELETE", _policy_path(attestation), _EMPTY),
        )

    def reference_values(self) -> tuple[ReferenceValue, ...]:
        """What guests are compared with, sorted by name."""
        response = self._send("GET", "imagers/reference-value", _MAX_ANSWER)
        self._check_ours("list reference values", response)
        return parse_references(response.body)

    def set_reference_values(
        self, references: Iterable[ReferenceValue], *, add: bool = False
    ) -> None:
        """Set or replace reference values, all or none; in force for the next request.

        Args:
            add: their values join those that are there.
        """
        body = dump_json(references_to_json(references))
        query = "?add=true" if add else ""
        response = self._send(
            "POST", f"imagers/reference-value{query}", _EMPTY, body, repeatable=True
        )
        self._check_ours("set a reference value", response)

    def delete_reference_value(self, name: str) -> None:
        """Remove a reference value.

        Raises:
            NotFound: there is none of that name.
        """
        if not is_reference_name(name):
            raise UsageError(f"expected the name of a reference value, got {name[:128]!r}")
        self.ask(
            "delete a reference value",
            "DELETE",
            f"imagers/reference-value/{quote(name, safe='')}",
            missing=f"the broker has no reference value {name!r}",
            hint="'imagers broker reference-value list' shows what it has",
        )

    def images(self, repository: str) -> KnownImages:
        """The images of a repository, whose digests secrets were bound to."""
        path = f"imagers/image/{parse_repository(repository)}"
        response = self._send("GET", path, _MAX_ANSWER)
        self._check_ours("list images", response)
        return parse_images(response.body, max_bytes=_MAX_ANSWER)

    def approve_image(self, repository: str, digest: Digest, *, until: datetime) -> None:
        """Sign that an image is good, until a time.

        Raises:
            NotFound: the repository has no such image.
        """
        seconds = int(until.timestamp())
        signature = sign_approval(self._key, repository=repository, digest=digest, until=seconds)
        told: JSONObject = {"until": seconds, "signature": encode_base64(signature)}
        self._change_image(repository, "approval", digest, told)

    def revoke_image(self, repository: str, digest: Digest, *, reason: str) -> None:
        """Let an image be served nevermore. Raises as `approve_image`."""
        self._change_image(repository, "revocation", digest, {"reason": reason})

    def supersede_image(self, repository: str, digest: Digest, *, successor: Digest) -> None:
        """Say what to take in place of an image. Raises as `approve_image`."""
        self._change_image(repository, "successor", digest, {"successor": str(successor)})

    def set_image_floor(self, repository: str, digest: Digest | None) -> None:
        """Let nothing older than an image be served; None: all. Raises as `approve_image`."""
        self._change_image(repository, "floor", digest, {})

    def _change_image(
        self, repository: str, what: str, digest: Digest | None, told: JSONObject
    ) -> None:
        self.ask(
            f"change an image of {repository!r}",
            "POST",
            f"imagers/image/{parse_repository(repository)}/{what}",
            dump_json({"manifest_digest": None if digest is None else str(digest), **told}),
            missing=f"the repository {repository!r} has no such image",
            hint=f"'imagers broker image list {repository}' shows what it has",
        )

    def audit(
        self, limit: int = 100, filters: Mapping[str, str] | None = None
    ) -> tuple[AuditEntry, ...]:
        """The last `limit` entries of the audit log, oldest first.

        Args:
            filters: only entries that fit all of them, by the names that the broker takes:
                `event`, `outcome`, `path`, `image` and `session` (a beginning of it is enough for
                the last two), `since`, an RFC 3339 time, and `id`.

        Raises:
            UsageError: the broker does not take a value.
        """
        query = urlencode({"limit": limit, **(filters or {})})
        response = self._send("GET", f"imagers/audit?{query}", _MAX_ANSWER)
        if response.status in _BAD_INPUT:
            raise UsageError(f"the broker refuses the search: {parse_error(response.body).detail}")
        self._check_ours("show the audit log", response)
        answer = View.parse(response.body, what="audit log", max_bytes=_MAX_ANSWER)
        return tuple(map(_parse_entry, answer.objects("entries")))

    def audit_heads(self) -> bytes:
        """Signed heads of the chains of the audit log, in JSON: to be kept elsewhere."""
        response = self._send("GET", "imagers/audit/head", _MAX_ANSWER)
        self._check_ours("export the heads of the audit log", response)
        return response.body

    def ask(
        self,
        what: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        missing: str,
        hint: str,
    ) -> bytes:
        """The answer to a request of our own broker's.

        Args:
            what: is asked for, for messages.
            missing: what to say where there is no such thing.
            hint: what to type then.

        Raises:
            NotFound: there is no such thing.
            Unsupported: the broker is not ours.
        """
        response = self._send(method, path, _MAX_ANSWER, body)
        error = parse_error(response.body)
        if response.status == _NOT_FOUND and error.name == "ResourceNotFound":
            raise NotFound(missing, status=response.status, code=error.name, hint=hint)
        self._check_ours(what, response)
        return response.body

    def make_token(self) -> str:
        """What proves to the broker who asks, for a minute: a secret until then."""
        now = int(time.time())
        return sign_token(
            {"iat": now, "nbf": now, "exp": now + _TOKEN_SECONDS, "role": "admin"},
            key=self._key,
            header={"kid": admin_key_id(self._key.public_key())},
        )

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._endpoint.close()

    def _send(
        self,
        method: str,
        path: str,
        max_bytes: int,
        body: bytes | None = None,
        content_type: str = _JSON,
        *,
        repeatable: bool | None = None,
    ) -> Response:
        headers = {"Authorization": f"Bearer {self.make_token()}"}
        if body is not None:
            headers["Content-Type"] = content_type
        return self._endpoint.send(
            method, path, headers=headers, body=body, max_bytes=max_bytes, repeatable=repeatable
        )

    def _check(self, what: str, response: Response) -> None:
        if response.status in _DONE:
            return
        error = parse_error(response.body)
        if response.status == _UNAUTHORIZED and error.name == "AdminCertificate":
            raise Unauthorized(
                f"{what}: the broker demands a certificate: {error.detail}",
                status=response.status,
                code=error.name,
                hint="give it with --broker-admin-certificate FILE and "
                "--broker-admin-certificate-key FILE",
            )
        if response.status == _UNAUTHORIZED and error.name:
            raise Unauthorized(
                f"{what}: the broker does not accept the admin key: {error}",
                status=response.status,
                code=error.name,
                hint="is it the key of this broker, and do the clocks agree?",
            )
        if error.name in _DENIED:
            raise Unauthorized(
                f"{what}: {error.detail}",
                status=response.status,
                code=error.name,
                hint=_DENIED[error.name],
            )
        self._raise(what, response)

    def _check_ours(self, what: str, response: Response) -> None:
        if response.status == _NOT_FOUND and parse_error(response.body).name != "ResourceNotFound":
            raise Unsupported(
                f"the broker at {self._endpoint.origin} cannot {what}",
                hint="this is an extension of imagers' own broker",
            )
        self._check(what, response)

    def _raise(self, what: str, response: Response) -> NoReturn:
        error = parse_error(response.body)
        if response.status == _NOT_FOUND and error.name == "ResourceNotFound":
            raise NotFound(
                f"{what}: the broker has no such resource",
                status=response.status,
                code=error.name,
                hint="'imagers broker list' shows what it has",
            )
        raise self._endpoint.failure(what, response)


def _policy_path(attestation: str | None) -> str:
    return "imagers/policy" if attestation is None else f"imagers/attestation-policy/{attestation}"


def _parse_metadata(uri: str, one: View) -> ResourceMetadata:
    return ResourceMetadata(
        uri=uri,
        size=one.integer("size"),
        version=one.integer("version"),
        created_at=one.text("created_at"),
        expires=one.optional_text("expires"),
        uses=one.integer("uses"),
        max_uses=None if one.value.get("max_uses") is None else one.integer("max_uses"),
        manifest_digests=tuple(
            parse_digest(digest, what=one.what) for digest in one.texts("manifest_digests")
        ),
    )


def _parse_entry(entry: View) -> AuditEntry:
    texts = {name: entry.optional_text(name) or "" for name in _ENTRY_TEXTS}
    return AuditEntry(
        id=entry.text("id"),
        at=entry.text("at"),
        event=entry.text("event"),
        outcome=entry.text("outcome"),
        **texts,
    )
