# SPDX-License-Identifier: Apache-2.0
"""What the pages show, made of what the interface for programs answers.

A view gets the rows as they are and gives the content of a page: elements, to be put below its
heading. Nothing is read here, so nothing is shown that a caller could not ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from imagers.broker.ui.elements import element, table, to_html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from xml.etree.ElementTree import Element

    from imagers.model.strict_json import JSONObject

    # Of the audit log, by the names of `imagers.broker.audit.AuditEvent`, with its `id`.
    Row = Mapping[str, str]

__all__ = [
    "HOURS",
    "SCREENS",
    "attempt",
    "attempts",
    "frame",
    "guests",
    "images",
    "login",
    "overview",
    "policies",
    "reference_values",
    "resource",
    "resources",
    "told",
]

HOURS = 24
"""How far back the plot goes."""

SCREENS = {
    "": "Overview",
    "attempts": "Attempts",
    "guests": "Guests",
    "images": "Images",
    "resources": "Resources",
    "policies": "Policies",
    "reference-values": "Reference values",
}
"""The pages by their paths below `/ui`, in the order of the navigation."""

_WIDTH, _HEIGHT, _FOOT = 960, 180, 20
_SHOWN_DIGITS = 12


def frame(
    title: str, content: Sequence[Element], *, here: str | None = None, name: str | None = None
) -> bytes:
    """A whole page.

    Args:
        here: the path of its place in the navigation; None: it has none.
        name: of the admin; None: nobody has logged in, and there is no navigation.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} \N{MIDDLE DOT} imagers broker"),
        element("link", rel="icon", href="data:,"),
        element("link", rel="stylesheet", href="/ui/page.css"),
        element("script", src="/ui/page.js", defer="defer"),
    )
    places: list[Element] = []
    if name is not None:
        for path, label in SCREENS.items():
            current = "page" if path == here else None
            href = f"/ui/{path}" if path else "/ui"
            places.append(element("a", label, href=href, aria_current=current))
        leave = element("button", f"log out {name}")
        places.append(element("form", leave, method="post", action="/ui/logout"))
    body = element(
        "body",
        element("a", "to the content", href="#content", class_="skip"),
        element("header", element("nav", element("strong", "imagers broker"), *places)),
        element("main", element("h1", title), *content, id="content"),
    )
    return to_html(element("html", head, body, lang="en"))


def login(problem: str = "") -> Sequence[Element]:
    """Where an admin shows a token."""
    field = element(
        "textarea",
        id="token",
        name="token",
        rows="5",
        required="required",
        autocomplete="off",
        spellcheck="false",
        autofocus="autofocus",
    )
    told = element("p", problem, class_="refused", role="alert") if problem else None
    form = element(
        "form",
        element("p", element("label", "Token of an admin", for_="token")),
        field,
        element("p", element("button", "log in")),
        method="post",
        action="/ui/login",
    )
    how = element("p", "Made by ", element("code", "imagers broker ui"), ", good for a minute.")
    return [one for one in (told, form, how) if one is not None]


def told(text: str) -> Sequence[Element]:
    """One line."""
    return [element("p", text, role="alert")]


@dataclass(frozen=True, slots=True)
class _Hour:
    at: datetime
    ok: int
    refused: int


def overview(
    counts: Mapping[tuple[str, str], int], rows: Sequence[Row], *, now: datetime
) -> Sequence[Element]:
    """Releases over time, and the newest attempts that were refused.

    Args:
        counts: of releases, by hour (`2026-01-31T12`) and outcome.
        rows: the newest refused ones, the oldest first.
    """
    last = now.replace(minute=0, second=0, microsecond=0)
    hours = [
        _Hour(at, *(counts.get((at.isoformat()[:13], one), 0) for one in ("ok", "refused")))
        for at in (last - timedelta(hours=back) for back in reversed(range(HOURS)))
    ]
    ok, refused = sum(one.ok for one in hours), sum(one.refused for one in hours)
    return [
        element(
            "p",
            f"In the last {HOURS} hours: ",
            element("span", f"{ok} released", class_="ok"),
            ", ",
            element("span", f"{refused} refused", class_="refused"),
            ".",
        ),
        _plot(hours),
        _plot_table(hours),
        element("h2", "Newest refusals"),
        _attempt_table(rows, empty="Nothing was refused."),
    ]


def _plot(hours: Sequence[_Hour]) -> Element:
    most = max((one.ok + one.refused for one in hours), default=0) or 1
    step = _WIDTH / len(hours)
    room = _HEIGHT - _FOOT
    drawn = []
    for index, one in enumerate(hours):
        told = f"{one.at:%H:%M} UTC: {one.ok} released, {one.refused} refused"
        top = float(room)
        bars = []
        for kind, count in (("ok", one.ok), ("refused", one.refused)):
            height = count / most * (room - 4)
            top -= height
            if count:
                bars.append(
                    element(
                        "rect",
                        class_=f"{kind}-bar",
                        x=f"{index * step + 2:.1f}",
                        y=f"{top:.1f}",
                        width=f"{step - 4:.1f}",
                        height=f"{height:.1f}",
                    )
                )
        drawn.append(element("g", element("title", told), *bars))
        if index % 4 == 0:
            place = f"{index * step:.0f}"
            drawn.append(element("text", f"{one.at:%H:%M}", x=place, y=str(_HEIGHT - 5)))
    drawn.append(element("line", x1="0", x2=str(_WIDTH), y1=str(room), y2=str(room)))
    return element(
        "svg",
        element("title", "Releases and refusals by the hour"),
        *drawn,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
    )


def _plot_table(hours: Sequence[_Hour]) -> Element:
    rows = [
        [f"{one.at:%Y-%m-%d %H:%M} UTC", str(one.ok), str(one.refused)]
        for one in hours
        if one.ok or one.refused
    ]
    numbers = table(["hour", "released", "refused"], rows, empty="None in this time.")
    return element("details", element("summary", "as numbers"), numbers)


def attempts(rows: Sequence[Row], *, only_refused: bool) -> Sequence[Element]:
    """Attestations and requests for secrets, the newest first."""
    other = (
        element("a", "show all", href="/ui/attempts")
        if only_refused
        else element("a", "show only refused ones", href="/ui/attempts?outcome=refused")
    )
    return [element("p", other), _attempt_table(rows, empty="There was no attempt.")]


def _attempt_table(rows: Sequence[Row], *, empty: str) -> Element:
    return table(
        ["at", "outcome", "event", "guest", "asked for", "rule", "why"],
        [
            [
                element("a", _time(row["at"]), href=f"/ui/attempts/{quote(row['id'], safe='')}"),
                _outcome(row),
                row["event"],
                _guest(row),
                row["path"],
                row["rule"],
                _short(row["detail"]),
            ]
            for row in reversed(rows)
        ],
        empty=empty,
    )


def attempt(row: Row, before: Sequence[Row]) -> Sequence[Element]:
    """One attempt: who asked, for what, what decided, and each reason."""
    reasons = [
        element("li", part, class_="reason" if row["outcome"] == "refused" else None)
        for part in row["detail"].split("; ")
        if part
    ]
    decided = f"rule {row['rule']}" if row["rule"] else "no rule of a policy"
    verdict = element("li", _outcome(row), f" by {decided}", element("ul", *reasons))
    tree = element(
        "ul",
        _branch(
            "the guest",
            {
                "TEE": row["tee"],
                "address": row["client"],
                "session": row["session"],
                "SHA-256 of its attestation": row["evidence"],
                "SHA-256 of its claims": row["claims"],
            },
        ),
        _branch(f"asked: {row['event']}", {"resource": row["path"], "image": row["image"]}),
        verdict,
        class_="tree",
    )
    content = [element("p", _time(row["at"]), class_="soft"), tree]
    if before:
        content += [
            element("h2", "Before that, in the same session"),
            _attempt_table(before, empty=""),
        ]
    return content


def _branch(name: str, facts: Mapping[str, str]) -> Element:
    leaves = [
        element("li", f"{label}: ", element("code", value))
        for label, value in facts.items()
        if value
    ]
    return element("li", name, element("ul", *leaves) if leaves else None)


def guests(rows: Sequence[Row]) -> Sequence[Element]:
    """Who was seen, by session, the last one first.

    Args:
        rows: those of attestations and releases, the oldest first.
    """
    seen: dict[str, list[Row]] = {}
    for row in rows:
        if row["session"]:
            seen.setdefault(row["session"], []).append(row)
    ordered = sorted(seen.items(), key=lambda one: one[1][-1]["at"], reverse=True)
    lines: list[list[Element | str]] = []
    for session, of_it in ordered:
        last = of_it[-1]
        released = sum(_is(row, "release", "ok") for row in of_it)
        refused = sum(row["outcome"] == "refused" for row in of_it)
        link = f"/ui/attempts?session={quote(session, safe='')}"
        lines.append(
            [
                element("a", session, href=link),
                last["tee"],
                last["client"],
                *(element("span", _time(at), class_="time") for at in (of_it[0]["at"], last["at"])),
                str(released),
                element("span", str(refused), class_="refused") if refused else "0",
                element("code", last["claims"][:_SHOWN_DIGITS]),
            ]
        )
    head = ["session", "TEE", "address", "first seen", "last seen", "released", "refused", "claims"]
    return [table(head, lines, empty="No guest was seen.")]


def images(repositories: Sequence[JSONObject]) -> Sequence[Element]:
    """The images that each repository knows, the newest first, and whether they are served."""
    content: list[Element] = []
    for one in repositories:
        known = one["images"]
        assert isinstance(known, list)  # as `Images` has them
        content.append(element("h2", f"Repository {one['repository']}"))
        content.append(
            table(
                ["image", "state", "instead", "why", "approved by", "proposed"],
                [_image(image) for image in reversed(known) if isinstance(image, dict)],
                empty="It knows none.",
            )
        )
    return content or [element("p", "No repository knows an image.", class_="empty")]


def _image(image: JSONObject) -> list[Element | str]:
    given = image["approvals"]
    approvals = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    state = _text(image["state"])
    proposed = (_text(image[name] or "") for name in ("proposed_by", "proposed_at"))
    by, at = proposed
    return [
        element("code", _text(image["manifest_digest"])),
        element("span", state, class_="ok" if state in ("active", "superseded") else "refused"),
        element("code", _text(image["successor"] or "")),
        _text(image["reason"] or ""),
        ", ".join(f"{one['admin']} until {_time(_text(one['until']))}" for one in approvals),
        f"{by} {_time(at)}".strip(),
    ]


def resources(paths: Sequence[str]) -> Sequence[Element]:
    """Which secrets there are."""
    rows = [[element("a", one, href=f"/ui/resources/{quote(one)}")] for one in paths]
    return [table(["resource"], rows, empty="There is no resource.")]


def resource(facts: JSONObject) -> Sequence[Element]:
    """What may be told of a secret."""
    rows: list[list[Element | str]] = []
    for name, value in facts.items():
        several = value if isinstance(value, list) else [value]
        rows += [[name.replace("_", " "), element("code", _text(one))] for one in several]
    return [table(["", ""], rows, empty="")]


def policies(texts: Mapping[str, str]) -> Sequence[Element]:
    """The policies in force, by name."""
    content: list[Element] = []
    for name, text in texts.items():
        content += [element("h2", name), element("pre", text, tabindex="0")]
    return content


def reference_values(values: Sequence[JSONObject], *, now: datetime) -> Sequence[Element]:
    """What claims have to equal, and until when."""
    rows: list[list[Element | str]] = []
    for one in values:
        expires = _text(one.get("expires") or "")
        is_over = bool(expires) and datetime.fromisoformat(expires) <= now
        several = one.get("values")
        told = ", ".join(map(_text, several)) if isinstance(several, list) else _text(several)
        rows.append(
            [
                _text(one.get("name")),
                element("code", told),
                element("span", f"{_time(expires)}: is over", class_="refused")
                if is_over
                else _time(expires),
                _text(one.get("source") or ""),
            ]
        )
    return [table(["name", "values", "expires", "source"], rows, empty="There is none.")]


def _is(row: Row, event: str, outcome: str) -> bool:
    return (row["event"], row["outcome"]) == (event, outcome)


def _guest(row: Row) -> str:
    return " ".join(part for part in (row["tee"], row["session"]) if part)


def _outcome(row: Row) -> Element:
    return element("span", row["outcome"], class_=row["outcome"])


def _time(text: str) -> str:
    """RFC 3339, as people read it."""
    return text[:19].replace("T", " ") + (" UTC" if text.endswith(("+00:00", "Z")) else text[19:])


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}\N{HORIZONTAL ELLIPSIS}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)
