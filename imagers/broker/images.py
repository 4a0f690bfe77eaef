# SPDX-License-Identifier: Apache-2.0
"""The images of repositories: what admins say of them. The caller has checked the admin.

    approve     this image is good, until a time
    supersede   take another one in its place; this one is served still
    revoke      serve it nevermore; that is final
    floor       serve nothing older than this one

An image is known once a secret was bound to it, and stays known: whoever deletes a secret, or puts
another in its place, takes back nothing of this. What may be served is decided in
`imagers.broker.policy.images`.

Each change is in the audit log, and in force for the next release.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imagers.broker.admins import approving_keys, by_admin
from imagers.broker.audit import append
from imagers.broker.keeping.rows import Approval
from imagers.broker.policy.images import good_approvals
from imagers.broker.policy.table import ResourcePolicy
from imagers.broker.refusals import Refusal
from imagers.broker.resources import change_repository
from imagers.kbs.images import is_approval
from imagers.model.digest import parse_digest
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from imagers.broker.keeping.rows import Admin, Image
    from imagers.broker.keeping.transaction import Transaction
    from imagers.broker.rules import Rules
    from imagers.broker.state import BrokerState
    from imagers.model.digest import Digest
    from imagers.model.strict_json import JSONObject

__all__ = ["MAX_REASON", "Images"]

MAX_REASON = 400
"""Characters of why an image was revoked: as many as a row of the audit log has."""
_MAX_MESSAGE = 4096
_SIGNATURE_BYTES = 64
_LAST = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that datetime knows


class Images:
    """The images of one broker.

    Threads: safe.
    """

    def __init__(self, state: BrokerState) -> None:
        self._state = state

    async def list(self, by: Admin, repository: str) -> bytes:
        """The JSON of all that a repository knows, the oldest first."""

        def look(transaction: Transaction) -> JSONObject:
            if transaction.owner_of(repository) != by.tenant:
                return {"repository": repository, "floor": None, "images": []}
            return self._look(transaction, by, repository)

        return dump_json(await self._state.store.read(look))

    async def list_all(self, by: Admin) -> Sequence[JSONObject]:
        """The same of each repository of his tenant that knows images, by name."""

        def look(transaction: Transaction) -> Sequence[JSONObject]:
            return [
                self._look(transaction, by, name)
                for name in transaction.repositories_of_images()
                if transaction.owner_of(name) == by.tenant
            ]

        return await self._state.store.read_aside(look)

    def _look(self, transaction: Transaction, by: Admin, repository: str) -> JSONObject:
        rules = self._state.rules(transaction, by.tenant)
        now = self._state.session_now(transaction.store_row())
        admins = transaction.admins(by.tenant)
        keys = approving_keys(admins)
        images = transaction.list_images(repository)
        given = transaction.approvals(repository)
        floor = rules.floors.get(repository, 0)
        oldest = [str(one.digest) for one in images if one.number == floor]
        return {
            "repository": repository,
            "floor": oldest[0] if oldest else None,
            "images": [
                _told(
                    one,
                    good_approvals(one, given.get(one.digest, ()), keys, now=now),
                    {one.id: one.name for one in admins},
                    floor=floor,
                    wanted=_wanted(rules, repository),
                )
                for one in images
            ],
        }

    async def approve(self, by: Admin, repository: str, body: bytes) -> None:
        """Keep an admin's approval; his former one of that image counts no more.

            {"manifest_digest": "sha256:…", "until": 1798761600, "signature": base64}

        Raises:
            FormatError: the message is none.
            Refusal: there is no such image, or it is revoked, or he proposed it; the signature is
                not his, or over; the repository is not his tenant's, as with all that follow.
        """
        message = _parse(body, "until", "signature")
        until = message.integer("until", maximum=_LAST)
        signature = message.bytes64("signature", size=_SIGNATURE_BYTES)
        digest = _digest(message)
        if not is_approval(
            by.public_key, signature, repository=repository, digest=digest, until=until
        ):
            raise Refusal("SerdeError", "the signature is not this admin's, or of something else")

        def keep(transaction: Transaction) -> None:
            image = _find(transaction, repository, digest)
            if image.state == "revoked":
                raise Refusal("ImageRevoked", f"the image {digest} is revoked")
            if image.proposed_by == by.id:
                raise Refusal(
                    "PolicyDeny",
                    "expected another admin than who bound a secret to the image first",
                )
            now = self._state.session_now(transaction.store_row())
            if until <= now.timestamp():
                raise Refusal("SerdeError", "expected a time that is to come, got one that is over")
            transaction.set_approval(repository, digest, Approval(by.id, until, signature))
            told = datetime.fromtimestamp(until, UTC).isoformat()
            self._log(transaction, by, "approve", repository, digest, detail=f"until {told}")

        await change_repository(self._state, by, repository, keep)

    async def revoke(self, by: Admin, repository: str, body: bytes) -> None:
        """Serve an image nevermore; the reason that was given first stays.

            {"manifest_digest": "sha256:…", "reason": "CVE-2026-1"}

        Raises:
            FormatError: the message is none.
            Refusal: there is no such image.
        """
        message = _parse(body, "reason")
        reason = message.text("reason")
        if not (0 < len(reason) <= MAX_REASON and reason.isprintable()):
            raise message.error(f"expected 1 to {MAX_REASON} printable characters", "reason")
        digest = _digest(message)

        def keep(transaction: Transaction) -> None:
            image = _find(transaction, repository, digest)
            if image.state == "revoked":
                return
            transaction.set_image(replace(image, state="revoked", reason=reason))
            self._log(transaction, by, "revoke", repository, digest, detail=reason)

        await change_repository(self._state, by, repository, keep)

    async def supersede(self, by: Admin, repository: str, body: bytes) -> None:
        """Say what to take in place of an image; one that is revoked stays so.

            {"manifest_digest": "sha256:…", "successor": "sha256:…"}

        Raises:
            FormatError: the message is none.
            Refusal: there is no such image, or the other is revoked, or followed by this one.
        """
        message = _parse(body, "successor")
        digest = _digest(message)
        successor = _digest(message, "successor")

        def keep(transaction: Transaction) -> None:
            known = {one.digest: one for one in transaction.list_images(repository)}
            image = _known(known.get(digest), digest)
            after = _known(known.get(successor), successor)
            if after.state == "revoked":
                raise Refusal("ImageRevoked", f"the image {successor} is revoked")
            while after.digest != digest and after.successor is not None:
                after = known[after.successor]
            if after.digest == digest:
                raise Refusal("SerdeError", f"the image {digest} is what {successor} leads to")
            state = "superseded" if image.state == "current" else image.state
            transaction.set_image(replace(image, state=state, successor=successor))
            self._log(transaction, by, "supersede", repository, digest, detail=f"by {successor}")

        await change_repository(self._state, by, repository, keep)

    async def set_floor(self, by: Admin, repository: str, body: bytes) -> None:
        """Serve nothing older than an image.

            {"manifest_digest": "sha256:…"}       null: serve all

        Raises:
            FormatError: the message is none.
            Refusal: there is no such image.
        """
        message = _parse(body)
        digest = None if message.optional_text("manifest_digest") is None else _digest(message)

        def keep(transaction: Transaction) -> None:
            number = 0 if digest is None else _find(transaction, repository, digest).number
            transaction.set_floor(repository, number)
            told = "none" if digest is None else f"number {number}"
            self._log(transaction, by, "floor", repository, digest, detail=told)

        await change_repository(self._state, by, repository, keep)

    def _log(
        self,
        transaction: Transaction,
        by: Admin,
        event: Literal["approve", "revoke", "supersede", "floor"],
        repository: str,
        digest: Digest | None,
        *,
        detail: str,
    ) -> None:
        row = by_admin(
            by,
            event=event,
            image="" if digest is None else str(digest),
            detail=f"repository {repository}: {detail}",
        )
        append(transaction, row, now=self._state.now())


def _parse(body: bytes, *members: str) -> View:
    message = View.parse(body, what="message about an image", max_bytes=_MAX_MESSAGE)
    message.only("manifest_digest", *members)
    return message


def _digest(message: View, member: str = "manifest_digest") -> Digest:
    return parse_digest(message.text(member), what=message.what, where=message.at(member))


def _find(transaction: Transaction, repository: str, digest: Digest) -> Image:
    return _known(transaction.find_image(repository, digest), digest)


def _known(image: Image | None, digest: Digest) -> Image:
    if image is None:
        raise Refusal("ResourceNotFound", f"the repository has no image {digest}")
    return image


def _wanted(rules: Rules, repository: str) -> int:
    """How many approvals a table demands; what a policy in Rego demands, it alone knows."""
    policy = rules.policy
    return policy.approvals_of(repository) if isinstance(policy, ResourcePolicy) else 0


def _told(
    image: Image,
    approvals: Sequence[Approval],
    names: Mapping[str, str],
    *,
    floor: int,
    wanted: int,
) -> JSONObject:
    state: str = image.state
    if state != "revoked" and image.number < floor:
        state = "too-old"
    elif state == "current":
        state = "proposed" if len(approvals) < wanted else "active"
    return {
        "manifest_digest": str(image.digest),
        "state": state,
        "successor": None if image.successor is None else str(image.successor),
        "reason": image.reason or None,
        "proposed_by": names.get(image.proposed_by, image.proposed_by) or None,
        "proposed_at": image.proposed_at or None,
        "approvals": [
            {
                "admin": names[one.admin],
                "until": datetime.fromtimestamp(one.until, UTC).isoformat(),
            }
            for one in approvals
        ],
    }
