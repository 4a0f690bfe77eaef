# SPDX-License-Identifier: Apache-2.0
"""Which page an admin sees: each by the rights that the interface for programs asks for it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from imagers.broker.admins import Right, require_right
from imagers.broker.refusals import Refusal
from imagers.broker.rules import CLASSES
from imagers.broker.ui import views

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from xml.etree.ElementTree import Element

    from imagers.broker.images import Images
    from imagers.broker.keeping.rows import Admin
    from imagers.broker.references import References
    from imagers.broker.resources import Resources
    from imagers.broker.state import BrokerState

    _Shown = tuple[str, Callable[[], Sequence[Element]]]

__all__ = ["ASSETS", "HEADERS", "READERS", "Page", "Pages", "asset"]

READERS = (Right.READ, Right.OPERATE)
"""Who has one of these may log in."""

ASSETS: Mapping[str, str] = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
"""What pages are made with, and its kind."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Of every answer below `/ui`."""

_ROWS = 500  # of the audit log, on one page
_SEEN = 5000  # in which guests are looked for
_NEWEST = 15


@cache
def asset(name: str) -> bytes:
    """One of `ASSETS`."""
    return (files("imagers.broker.ui") / name).read_bytes()


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered.

    Attributes:
        body: HTML.
    """

    status: int
    body: bytes


class Pages:
    """The pages of one broker.

    Threads: safe.
    """

    def __init__(
        self, state: BrokerState, resources: Resources, references: References, images: Images
    ) -> None:
        self._state = state
        self._resources = resources
        self._references = references
        self._known_images = images
        self._screens: Mapping[str, Callable[[Admin, Mapping[str, str]], Awaitable[_Shown]]] = {
            "": self._overview,
            "attempts": self._attempts,
            "guests": self._guests,
            "images": self._images,
            "resources": self._list_resources,
            "policies": self._policies,
            "reference-values": self._reference_values,
        }

    async def show(self, by: Admin, path: str, query: Mapping[str, str]) -> Page:
        """The page of a path below `/ui`.

        Raises:
            Refusal: there is none, or the admin may not see it.
        """
        screen, _, rest = path.partition("/")
        if rest and screen == "attempts":
            title, content = await self._attempt(by, rest)
        elif rest and screen == "resources":
            title, content = await self._resource(by, rest)
        elif path in self._screens:
            title, content = await self._screens[path](by, query)
        else:
            raise Refusal("ResourceNotFound", f"there is no page {path[:80]!r}")
        # A page can have thousands of rows: it is written beside the loop that serves guests.
        body = await asyncio.to_thread(
            lambda: views.frame(title, content(), here=path, name=by.name)
        )
        return Page(200, body)

    @staticmethod
    def login(problem: str = "") -> Page:
        """Where one logs in."""
        return Page(401 if problem else 200, views.frame("Log in", views.login(problem)))

    @staticmethod
    def refused(refusal: Refusal, by: Admin) -> Page:
        """Why there is nothing to see, for who has logged in."""
        return Page(
            refusal.status, views.frame("Not shown", views.told(refusal.told), name=by.name)
        )

    async def _overview(self, by: Admin, query: Mapping[str, str]) -> _Shown:
        del query
        now = self._state.now()
        since = (now - timedelta(hours=views.HOURS - 1)).isoformat()[: len("2026-01-31T12")]
        counts = await self._resources.count_releases(by, since)
        rows = await self._rows(by, _NEWEST, outcome="refused")
        return "Overview", lambda: views.overview(counts, rows, now=now)

    async def _attempts(self, by: Admin, query: Mapping[str, str]) -> _Shown:
        wanted = {name: query[name] for name in ("outcome", "session") if name in query}
        rows = await self._rows(by, _ROWS, **wanted)
        guests = [row for row in rows if row["event"] in ("auth", "attest", "release")]
        return "Attempts", lambda: views.attempts(guests, only_refused="outcome" in wanted)

    async def _attempt(self, by: Admin, row_id: str) -> _Shown:
        found = await self._rows(by, 1, id=row_id)
        if not found:
            raise Refusal("ResourceNotFound", f"there is no entry {row_id[:40]!r}")
        (row,) = found
        story: Sequence[Mapping[str, str]] = ()
        if row["session"]:
            story = await self._rows(by, _ROWS, session=row["session"])
        before = [one for one in story if (one["at"], one["id"]) < (row["at"], row["id"])]
        title = "Why it was refused" if row["outcome"] == "refused" else "What was done"
        return title, lambda: views.attempt(row, before)

    async def _guests(self, by: Admin, query: Mapping[str, str]) -> _Shown:
        del query
        rows = await self._rows(by, _SEEN)
        return "Guests", lambda: views.guests(rows)

    async def _images(self, by: Admin, query: Mapping[str, str]) -> _Shown:
        del query
        require_right(by, Right.SEE)
        known = await self._known_images.list_all(by)
        return "Images", lambda: views.images(known)

    async def _list_resources(self, by: Admin, query: Mapping[str, str]) -> _Shown:
        del query
        require_right(by, Right.SEE)
        names = await self._resources.names(by)
        return "Resources", lambda: views.resources(json.loads(names))

    async def _resource(self, by: Admin, path: str) -> _Shown:
        require_right(by, Right.SEE)
        facts = await self._resources.metadata(by, path)
        return path, lambda: views.resource(json.loads(facts))

    async def _policies(self, by: Admin, query: Mapping[str, str]) -> _Shown:
        del query
        require_right(by, Right.READ)
        texts = {"Resource policy": (await self._resources.policy_text(by)).decode()}
        for name in CLASSES:
            try:
                text = await self._resources.attestation_policy(by, name)
            except Refusal:
                texts[f"Attestation policy: {name}"] = "none: reference values alone decide\n"
            else:
                texts[f"Attestation policy: {name}"] = text.decode()
        return "Policies", lambda: views.policies(texts)

    async def _reference_values(self, by: Admin, query: Mapping[str, str]) -> _Shown:
        del query
        require_right(by, Right.READ)
        data, now = await self._references.list(by), self._state.now()
        return "Reference values", lambda: views.reference_values(
            json.loads(data)["reference_values"], now=now
        )

    async def _rows(self, by: Admin, limit: int, **wanted: str) -> Sequence[Mapping[str, str]]:
        return await self._resources.audit_rows(by, limit, wanted)
