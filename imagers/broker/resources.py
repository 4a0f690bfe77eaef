# SPDX-License-Identifier: Apache-2.0
"""Secrets and policies, kept by admins. The caller has checked the admin's token.

Each change is in the audit log, and in force for the next release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, NoReturn

from imagers.broker.audit import AuditEvent, append
from imagers.broker.keeping.rows import StoredResource
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.table import ResourcePolicy
from imagers.broker.refusals import Refusal
from imagers.broker.rules import ATTESTATION, CLASSES, POLICY, parse_either
from imagers.errors import FormatError
from imagers.kbs.jwe import MAX_RESOURCE_BYTES
from imagers.kbs.resources import parse_resource_path
from imagers.model.digest import parse_digest
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.state import BrokerState
    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey
    from imagers.model.strict_json import JSONObject

__all__ = ["RESOURCE_KIND", "Ends", "Resources", "parse_path", "raise_missing"]

RESOURCE_KIND = "resource"
"""Of what the sealer seals."""
_MAX_AUDIT = 10_000  # rows of one answer
_AUDIT_FILTERS = frozenset({"event", "outcome", "path", "image", "session", "since"})
_MAX_BINDING = 4096  # bytes of the message
_LAST = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that datetime knows
_MAX_USES = 2**31 - 1
_NUMBER = re.compile(r"[1-9][0-9]{0,11}\Z")
_MAX_BINDINGS = 1000  # of one resource: the manifests of a large index


@dataclass(frozen=True, slots=True)
class Ends:
    """When a secret is released no more.

    Attributes:
        expires: seconds since 1970; 0: never.
        max_uses: after so many releases; 0: never.
    """

    expires: int = 0
    max_uses: int = 0

    @classmethod
    def parse(cls, expires: str | None, max_uses: str | None) -> Ends:
        """From what a request says.

        Raises:
            Refusal: it is no number, or a time that nobody sees.
        """
        found = []
        for name, text, most in (("expires", expires, _LAST), ("max-uses", max_uses, _MAX_USES)):
            is_number = text is None or (_NUMBER.match(text) and int(text) <= most)
            if not is_number:
                raise Refusal("SerdeError", f"expected '{name}' from 1 to {most}")
            found.append(int(text or 0))
        return cls(*found)

    def told(self) -> str:
        """For the audit log."""
        end = datetime.fromtimestamp(self.expires, UTC).isoformat() if self.expires else ""
        words = [f"expires {end}" if end else "", f"uses {self.max_uses}" if self.max_uses else ""]
        return "; ".join(filter(None, words))


class Resources:
    """The secrets and policies of one broker.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    async def put(
        self, path_text: str, secret: SecretKey, *, replace: bool, ends: Ends | None = None
    ) -> None:
        """Store a secret; without `replace` only under a free name. What it replaces is kept.

        Args:
            ends: None: never.

        Raises:
            Refusal: `ResourceExists`, or a bad name or size.
        """
        ends = ends or Ends()
        path = parse_path(path_text)
        if not 1 <= len(secret) <= MAX_RESOURCE_BYTES:
            raise Refusal(
                "SerdeError", f"expected 1 to {MAX_RESOURCE_BYTES} bytes, got {len(secret)}"
            )
        now = self._state.now()

        def keep(transaction: Transaction) -> bool:
            event: Literal["put", "replace"] = "put"
            if transaction.find_resource(path) is not None:
                if not replace:
                    refused = AuditEvent(
                        event="put", outcome="refused", path=str(path), detail="exists"
                    )
                    append(transaction, refused, now=now)
                    return False
                # The new secret is not the key of the images that the old one was for.
                event = "replace"
                transaction.retire_resource(path)
            version = transaction.next_version(path)
            sealed = self._state.sealer.seal(
                secret, kind=RESOURCE_KIND, name=str(path), version=version
            )
            transaction.insert_resource(
                StoredResource(
                    path,
                    sealed,
                    len(secret),
                    version,
                    now.isoformat(timespec="seconds"),
                    ends.expires,
                    ends.max_uses,
                )
            )
            row = AuditEvent(event=event, outcome="ok", path=str(path), detail=ends.told())
            append(transaction, row, now=now)
            return True

        if not await self._state.store.change(keep):
            raise Refusal("ResourceExists", f"there is a resource '{path}' already")

    async def delete(self, path_text: str, *, permanently: bool = False) -> None:
        """Serve a secret no more; it can be had again, unless it is deleted permanently.

        Args:
            permanently: former ones too, also where there is none that is served.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        path = parse_path(path_text)

        def remove(transaction: Transaction) -> None:
            take = transaction.delete_resource if permanently else transaction.retire_resource
            if not take(path):
                raise_missing(path)
            told = "permanently" if permanently else ""
            event = AuditEvent(event="delete", outcome="ok", path=str(path), detail=told)
            append(transaction, event, now=self._state.now())

        await self._state.store.change(remove)

    async def undelete(self, path_text: str, version: int | None) -> None:
        """Serve a former secret again, with its bindings; one that is served becomes a former one.

        Args:
            version: None: the newest of the former ones.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        path = parse_path(path_text)

        def revive(transaction: Transaction) -> None:
            former = transaction.former_resources(path)
            wanted = [one for one in former if version in (None, one.resource.version)]
            if not wanted:
                raise_missing(path)
            transaction.retire_resource(path)
            transaction.revive_resource(wanted[0])
            told = f"version {wanted[0].resource.version}"
            event = AuditEvent(event="undelete", outcome="ok", path=str(path), detail=told)
            append(transaction, event, now=self._state.now())

        await self._state.store.change(revive)

    async def names(self) -> bytes:
        """The JSON list of all paths."""
        paths = await self._state.store.read(
            lambda transaction: transaction.list_resources(DEFAULT_TENANT)
        )
        return dump_json([str(path) for path in paths])

    async def metadata(self, path_text: str) -> bytes:
        """The JSON of what may be told of a secret.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        path = parse_path(path_text)
        stored, bindings, former = await self._state.store.read(
            lambda transaction: (
                transaction.find_resource(path),
                transaction.bindings(path),
                transaction.former_resources(path),
            )
        )
        if stored is None:
            raise_missing(path)
        return dump_json(
            {
                "path": str(path),
                **_told(stored, bindings),
                "former": [_told(one.resource, one.manifest_digests) for one in former],
            }
        )

    async def bind(self, path_text: str, body: bytes, *, by: str = "") -> None:
        """Register that a secret belongs to an image, and propose that to its repository.

        Args:
            by: the id of the admin's key.

        Raises:
            Refusal: `ResourceNotFound`, or too many.
            FormatError: the message is none.
        """
        path = parse_path(path_text)
        binding = View.parse(body, what="binding", max_bytes=_MAX_BINDING)
        digest = parse_digest(
            binding.text("manifest_digest"), what=binding.what, where=binding.at("manifest_digest")
        )

        def add(transaction: Transaction) -> None:
            if transaction.find_resource(path) is None:
                raise_missing(path)
            bindings = transaction.bindings(path)
            if digest in bindings:
                return
            if len(bindings) >= _MAX_BINDINGS:
                raise Refusal("SerdeError", f"expected at most {_MAX_BINDINGS} bindings")
            now = self._state.now()
            transaction.add_binding(path, digest, by=by, at=now.isoformat(timespec="seconds"))
            event = AuditEvent(event="bind", outcome="ok", path=str(path), image=str(digest))
            append(transaction, event, now=now)

        await self._state.store.change(add)

    async def policy_text(self) -> bytes:
        """The policy in force."""
        rules = await self._state.store.read(self._state.rules)
        return self._state.policy(rules).text.encode()

    async def set_policy(self, body: bytes) -> None:
        """Put another policy in force.

        Raises:
            FormatError: it is none; the old one stays.
        """
        policy = parse_either(_text(body, what="resource policy"))
        if isinstance(policy, ResourcePolicy):
            told = f"rules: {', '.join(rule.name for rule in policy.rules) or 'none'}"
        else:
            await self._state.engine.check(policy.text)
            told = f"in Rego, SHA-256 {sha256(body).hexdigest()}"
        await self._keep_policy(POLICY, body, told)

    async def attestation_policy(self, name: str) -> bytes:
        """The attestation policy of a class of evidence.

        Raises:
            Refusal: `ResourceNotFound`: reference values alone say what it is worth.
        """
        rules = await self._state.store.read(self._state.rules)
        if name not in rules.attestation:
            raise Refusal("ResourceNotFound", f"there is no attestation policy {name[:40]!r}")
        return rules.attestation[name].encode()

    async def set_attestation_policy(self, name: str, body: bytes | None) -> None:
        """Put another attestation policy in force, or none.

        Raises:
            FormatError: it is none; the old one stays.
            Refusal: `ResourceNotFound`: there is no such class of evidence.
        """
        if name not in CLASSES:
            raise Refusal("ResourceNotFound", f"expected {' or '.join(CLASSES)}, got {name[:40]!r}")
        if body is not None:
            await self._state.engine.check(_text(body, what="attestation policy"))
        told = "removed" if body is None else f"SHA-256 {sha256(body).hexdigest()}"
        await self._keep_policy(ATTESTATION + name, body, f"attestation of {name}: {told}")

    async def _keep_policy(self, name: str, value: bytes | None, told: str) -> None:
        def keep(transaction: Transaction) -> None:
            transaction.set_policy(DEFAULT_TENANT, name, value)
            event = AuditEvent(event="policy", outcome="ok", detail=told)
            append(transaction, event, now=self._state.now())

        await self._state.store.change(keep)

    async def audit(self, limit_text: str, filters: Mapping[str, str] | None = None) -> bytes:
        """The JSON of the last rows.

        Args:
            filters: what rows must have; see `Transaction.list_audit`.

        Raises:
            Refusal: the limit is no number, the time no time, or a filter is not known.
        """
        if not (limit_text.isascii() and limit_text.isdigit() and len(limit_text) <= len("10000")):
            raise Refusal("SerdeError", f"expected a limit from 1 to {_MAX_AUDIT}")
        limit = min(int(limit_text), _MAX_AUDIT)
        wanted = dict(filters or {})
        if unknown := sorted(wanted.keys() - _AUDIT_FILTERS):
            raise Refusal("SerdeError", f"expected no filter {unknown[0][:40]!r}")
        if "since" in wanted:
            wanted["since"] = _parse_since(wanted["since"])
        rows = await self._state.store.read(
            lambda transaction: transaction.list_audit(limit, wanted)
        )
        return dump_json({"entries": rows})


def _told(stored: StoredResource, bindings: frozenset[Digest]) -> JSONObject:
    end = datetime.fromtimestamp(stored.expires, UTC).isoformat() if stored.expires else None
    return {
        "size": stored.size,
        "version": stored.version,
        "created_at": stored.created_at,
        "expires": end,
        "uses": stored.uses,
        "max_uses": stored.max_uses or None,
        "manifest_digests": [*sorted(str(digest) for digest in bindings)],
    }


def _text(body: bytes, *, what: str) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8", what=what) from None


def _parse_since(text: str) -> str:
    """A time of RFC 3339 as rows have theirs, so that texts can be compared."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no zone")  # noqa: TRY301  # as bad as no time
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: before the year 1, or after 9999
        raise Refusal("SerdeError", f"expected a time with its zone, got {text[:40]!r}") from None
    return moment.isoformat(timespec="milliseconds")


def parse_path(text: str) -> ResourcePath:
    """The name of a resource.

    Raises:
        Refusal: `InvalidRequestPath`.
    """
    try:
        return parse_resource_path(text)
    except FormatError as error:
        raise Refusal("InvalidRequestPath", str(error)) from None


def raise_missing(path: ResourcePath) -> NoReturn:
    """Refuse, since there is no such resource."""
    raise Refusal("ResourceNotFound", f"there is no resource '{path}'")
