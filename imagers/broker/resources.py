# SPDX-License-Identifier: Apache-2.0
"""Secrets and policies of tenants, kept by their admins, whose role for it the caller has checked.

Each change is in the audit log, and in force for the next release. What is another tenant's is as
if it were not there; into a repository that is another's nothing is put, whatever is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

from imagers.broker.admins import Right, by_admin, has_right
from imagers.broker.audit import append
from imagers.broker.keeping.rows import StoredResource
from imagers.broker.keeping.sealed import Altered
from imagers.broker.policy.table import ResourcePolicy
from imagers.broker.refusals import Refusal
from imagers.broker.rules import ATTESTATION, CLASSES, POLICY, parse_either
from imagers.broker.sealing import RESOURCE_KIND
from imagers.errors import FormatError
from imagers.kbs.jwe import MAX_RESOURCE_BYTES
from imagers.kbs.resources import parse_resource_path
from imagers.model.digest import parse_digest
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imagers.broker.keeping.rows import Admin
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.rules import Rules
    from imagers.broker.state import BrokerState
    from imagers.kbs.resources import ResourcePath
    from imagers.model.digest import Digest
    from imagers.model.keys import SecretKey
    from imagers.model.strict_json import JSONObject

__all__ = ["Ends", "Resources", "change_repository", "parse_path", "raise_missing"]

_T = TypeVar("_T")
_MAX_AUDIT = 10_000  # rows of one answer
_AUDIT_FILTERS = frozenset({"event", "outcome", "path", "image", "session", "since", "id"})
_ID = re.compile(r"[0-9a-f]{16}\Z")
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
            Refusal: it is no number, or one that no time has.
        """
        found = []
        for name, text, most in (("expires", expires, _LAST), ("max-uses", max_uses, _MAX_USES)):
            if text is not None and (_NUMBER.match(text) is None or int(text) > most):
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
        self,
        by: Admin,
        path_text: str,
        secret: SecretKey,
        *,
        replace: bool,
        ends: Ends | None = None,
    ) -> None:
        """Store a secret; without `replace` only under a free name. What it replaces is kept.

        Args:
            ends: None: never.

        Raises:
            Refusal: `ResourceExists`, `RepositoryDenied`, or a bad name or size.
        """
        path, ends = parse_path(path_text), ends or Ends()
        if not 1 <= len(secret) <= MAX_RESOURCE_BYTES:
            raise Refusal(
                "SerdeError", f"expected 1 to {MAX_RESOURCE_BYTES} bytes, got {len(secret)}"
            )
        now = self._state.now()

        def keep(transaction: Transaction) -> bool:
            event: Literal["put", "replace"] = "put"
            if transaction.find_resource(path) is not None:
                if not replace:
                    refused = by_admin(
                        by, event="put", outcome="refused", path=str(path), detail="exists"
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
            row = by_admin(by, event=event, path=str(path), detail=ends.told())
            append(transaction, row, now=now)
            return True

        if not await self._change(by, path, keep):
            raise Refusal("ResourceExists", f"there is a resource '{path}' already")

    async def delete(self, by: Admin, path_text: str, *, permanently: bool = False) -> None:
        """Serve a secret no more; it can be had again, unless it is deleted permanently.

        Args:
            permanently: former ones too, also where there is none that is served.

        Raises:
            Refusal: `ResourceNotFound`, `RepositoryDenied`.
        """
        path = parse_path(path_text)

        def remove(transaction: Transaction) -> None:
            take = transaction.delete_resource if permanently else transaction.retire_resource
            if not take(path):
                raise_missing(path)
            told = "permanently" if permanently else ""
            row = by_admin(by, event="delete", path=str(path), detail=told)
            append(transaction, row, now=self._state.now())

        await self._change(by, path, remove)

    async def undelete(self, by: Admin, path_text: str, version: int | None) -> None:
        """Serve a former secret again, with its bindings; one that is served becomes a former one.

        Args:
            version: None: the newest of the former ones.

        Raises:
            Refusal: `ResourceNotFound`, `RepositoryDenied`.
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
            row = by_admin(by, event="undelete", path=str(path), detail=told)
            append(transaction, row, now=self._state.now())

        await self._change(by, path, revive)

    async def names(self, by: Admin) -> bytes:
        """The JSON list of all paths of his tenant."""
        paths = await self._state.store.read(
            lambda transaction: transaction.list_resources(by.tenant)
        )
        return dump_json([str(path) for path in paths])

    async def metadata(self, by: Admin, path_text: str) -> bytes:
        """The JSON of what may be told of a secret.

        Raises:
            Refusal: `ResourceNotFound`.
        """
        path = parse_path(path_text)
        stored, bindings, former, owner = await self._state.store.read(
            lambda transaction: (
                transaction.find_resource(path),
                transaction.bindings(path),
                transaction.former_resources(path),
                transaction.owner_of(path.repository),
            )
        )
        if stored is None or owner != by.tenant:
            raise_missing(path)
        return dump_json(
            {
                "path": str(path),
                **_told(stored, bindings),
                "former": [_told(one.resource, one.manifest_digests) for one in former],
            }
        )

    async def bind(self, by: Admin, path_text: str, body: bytes) -> None:
        """Register that a secret belongs to an image, and propose that to its repository.

        Raises:
            Refusal: `ResourceNotFound`, `RepositoryDenied`, or too many.
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
            transaction.add_binding(path, digest, by=by.id, at=now.isoformat(timespec="seconds"))
            event = by_admin(by, event="bind", path=str(path), image=str(digest))
            append(transaction, event, now=now)

        await self._change(by, path, add)

    async def _change(self, by: Admin, path: ResourcePath, work: Callable[[Transaction], _T]) -> _T:
        """Change something of a repository that is his tenant's.

        Raises:
            Refusal: `RepositoryDenied`, in the same words whoever owns it and whatever is there.
        """
        return await change_repository(self._state, by, path.repository, work, path=str(path))

    async def policy_text(self, by: Admin) -> bytes:
        """The policy in force."""
        rules = await self._rules(by)
        return self._state.policy(rules).text.encode()

    async def _rules(self, by: Admin) -> Rules:
        return await self._state.store.read(lambda t: self._state.rules(t, by.tenant))

    async def set_policy(self, by: Admin, body: bytes) -> None:
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
        await self._keep_policy(by, POLICY, body, told)

    async def attestation_policy(self, by: Admin, name: str) -> bytes:
        """The attestation policy of a class of evidence.

        Raises:
            Refusal: `ResourceNotFound`: reference values alone say what it is worth.
        """
        rules = await self._rules(by)
        if name not in rules.attestation:
            raise Refusal("ResourceNotFound", f"there is no attestation policy {name[:40]!r}")
        return rules.attestation[name].encode()

    async def set_attestation_policy(self, by: Admin, name: str, body: bytes | None) -> None:
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
        await self._keep_policy(by, ATTESTATION + name, body, f"attestation of {name}: {told}")

    async def _keep_policy(self, by: Admin, name: str, value: bytes | None, told: str) -> None:
        def keep(transaction: Transaction) -> None:
            transaction.set_policy(by.tenant, name, value)
            append(transaction, by_admin(by, event="policy", detail=told), now=self._state.now())

        await self._state.change(by, keep)

    async def audit(
        self, by: Admin, limit_text: str, filters: Mapping[str, str] | None = None
    ) -> bytes:
        """The JSON of the last rows of his tenant, and for who operates the broker of its own.

        None has its number in the chain, which would tell how many rows are another's.

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
        return dump_json({"entries": await self.audit_rows(by, limit, wanted)})

    async def audit_rows(
        self, by: Admin, limit: int, wanted: Mapping[str, str]
    ) -> Sequence[Mapping[str, str]]:
        """The same, as rows.

        Raises:
            Refusal: `id` is none.
        """
        if "id" in wanted and not _ID.match(wanted["id"]):
            raise Refusal("SerdeError", "expected an id of 16 hex digits")
        return await self._read_audit(
            lambda transaction: transaction.list_audit(limit, wanted, tenants=_rows_of(by))
        )

    async def count_releases(self, by: Admin, since: str) -> Mapping[tuple[str, str], int]:
        """How many releases there were of his tenant; see `Transaction.count_releases`."""
        return await self._read_audit(
            lambda transaction: transaction.count_releases(since, _rows_of(by))
        )

    async def _read_audit(self, look: Callable[[Transaction], _T]) -> _T:
        try:
            return await self._state.store.read_aside(look)
        except Altered:
            raise Refusal(
                "StoreUnavailable",
                "a row of the audit log was changed from outside; 'imagers broker audit --verify', "
                "where the store is, says which",
            ) from None

    async def audit_heads(self) -> bytes:
        """The JSON of the last signed head of each broker's chain; this one's is signed now."""

        def sign(transaction: Transaction) -> Sequence[str]:
            self._state.audit_heads.sign(transaction)
            return transaction.audit_heads()

        return self._state.audit_heads.to_bytes(await self._state.store.write(sign))


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


def _rows_of(by: Admin) -> Sequence[str]:
    """Whose rows an admin sees; "": the broker's own."""
    mine = [by.tenant] if has_right(by, Right.READ) else []
    return [*mine, ""] if has_right(by, Right.OPERATE) else mine


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


async def change_repository(
    state: BrokerState,
    by: Admin,
    repository: str,
    work: Callable[[Transaction], _T],
    *,
    path: str = "",
) -> _T:
    """Change something of a repository that is his tenant's.

    Args:
        path: of a resource, for the audit log.

    Raises:
        Refusal: `RepositoryDenied`, in the same words whoever owns it and whatever is there.
    """

    def run(transaction: Transaction) -> _T:
        if transaction.owner_of(repository) != by.tenant:
            raise Refusal(
                "RepositoryDenied",
                f"the repository '{repository}' is not one of the admin's tenant",
            )
        return work(transaction)

    try:
        return await state.change(by, run)
    except Refusal as refusal:
        if refusal.name == "RepositoryDenied":
            await state.log_denied(by, refusal.detail, path=path)
        raise


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
