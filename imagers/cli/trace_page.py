# SPDX-License-Identifier: Apache-2.0
"""The trace of a pull as one HTML file: the decision as a tree, and below it a timeline.

    with TraceFile("trace.html", reference=ref, bundle=bundle, broker=None) as file:
        pull_image(..., trace=file.trace)

It needs no network, no script and no other file, and its own policy forbids them. Names and labels
are a stranger's: what does not print is replaced in all of it, and none of it can become markup.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from imagers.broker.ui.elements import element, table, to_html
from imagers.cli.output import harmless, human_bytes, say
from imagers.errors import ImagersError
from imagers.files import check_new, write_new
from imagers.net.urls import redact_url
from imagers.pull.trace import WAIT, Span, Trace, find_critical_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self
    from xml.etree.ElementTree import Element

    from imagers.pull.trust import TrustedImage
    from imagers.sign.decision import Finding

__all__ = ["TraceFile", "trace_page"]

_MODE = 0o600
_ROW = 18  # pixels
_THINNEST = 0.15  # percent: what took no time is seen too
_TICKS = 4
_AFTER = frozenset({"compose", "working directory", "measure", "sync", "publish"})
_COLOURS = {
    "request": "net",
    "download": "net",
    "download and check": "net",
    "resume and check": "net",
    "download and open": "open",
    "check": "check",
    "check kept": "kept",
    "kept": "kept",
    "keep": "kept",
    "open": "open",
    WAIT: "wait",
}
_LEGEND = {
    "net": "download; its check is the same pass",
    "check": "check of a local file",
    "open": "open: decryption, decompression, hashing and unpacking, in one pass",
    "kept": "kept from an earlier pull, or for the next",
    "wait": "waiting for a download",
    "other": "everything else",
    "mark": "the critical path: only what is faster here makes the pull faster",
}
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #57606a; --line: #d0d7de;
  --good: #1a7f37; --bad: #b42318; --net: #0969da; --check: #0e7c86; --open: #1a7f37;
  --kept: #8250df; --wait: #c4cbd3; --other: #6e7781; --mark: #d1242f; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9198a1;
  --line: #30363d; --good: #3fb950; --bad: #ff7b72; --net: #58a6ff; --check: #39c5cf;
  --open: #3fb950; --kept: #bc8cff; --wait: #484f58; --other: #8b949e; --mark: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1em clamp(1em, 4vw, 3em); max-width: 90em; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 1.8em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2em 1.2em; }
dt, .soft, th { color: var(--soft); } dd { margin: 0; }
ul { list-style: none; margin: 0 0 0 .3em; padding-left: 1em; border-left: 2px solid var(--line); }
.yes { color: var(--good); font-weight: 600; } .no { color: var(--bad); font-weight: 600; }
.row { display: grid; grid-template-columns: 15em 1fr; gap: 0 1em; padding: .3em 0;
  border-top: 1px solid var(--line); align-items: center; }
@media (max-width: 50em) { .row { grid-template-columns: 1fr; } }
svg { display: block; width: 100%; overflow: hidden; }
svg text { fill: var(--soft); font-size: 11px; }
.legend span { display: inline-block; margin-right: 1.5em; }
.legend svg { display: inline-block; width: 1.2em; margin-right: .4em; vertical-align: -2px; }
.net { fill: var(--net); } .check { fill: var(--check); } .open { fill: var(--open); }
.kept { fill: var(--kept); } .wait { fill: var(--wait); } .other { fill: var(--other); }
.mark { fill: var(--mark); }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .2em 1em .2em 0; white-space: nowrap; }
"""


class TraceFile:
    """Gives a trace to fill; at the end of the block, a bad one too, the file is written.

    Args:
        path: of a file that is not there yet.
        reference, bundle: as the user wrote them.
        broker: the address of the one that is asked for keys.

    Attributes:
        policy: its place, once it is known.

    Raises:
        LocalError: on entering, if the name is taken; at the end, if the file cannot be written
            and nothing else went wrong.
    """

    def __init__(self, path: str, *, reference: str, bundle: str, broker: str | None) -> None:
        self._path = path
        self._facts = {"image": reference, "bundle": bundle}
        self._broker = broker
        self.policy = ""
        self.trace = Trace()

    def __enter__(self) -> Self:
        check_new(self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if value is not None and not isinstance(value, ImagersError | KeyboardInterrupt):
            return  # a bug of ours: nothing can be said about it
        failure = None if value is None else str(value) or "interrupted"
        page = trace_page(
            self.trace,
            self._facts | {"policy": self.policy or "not yet known"},
            broker=self._broker,
            failure=failure,
        )
        try:
            write_new(self._path, page, mode=_MODE)
        except ImagersError as error:
            if value is None:
                raise
            say("warning", f"there is no trace: {error}")


def trace_page(
    trace: Trace, facts: dict[str, str], *, broker: str | None, failure: str | None
) -> bytes:
    """The file.

    Args:
        facts: what stands at its top, beside what the trace knows.
        broker: None: none was named.
        failure: why the pull ended early, in a line; None: it did not.
    """
    seconds, cpu = trace.seconds, trace.cpu_seconds
    trusted = trace.trusted
    spans = trace.spans
    answer = ("yes", "done") if failure is None else ("no", failure)
    head = {
        **facts,
        "digest": "not trusted" if trusted is None else str(trusted.manifest.descriptor.digest),
        "trusted by": "nothing" if trusted is None else trusted.basis.value,
        "took": f"{seconds:.3f} s, and {cpu:.3f} s of CPU in this process",
    }
    body = element(
        "body",
        element("h1", f"Pull of {facts['image']}"),
        element(
            "dl",
            *(one for name, text in head.items() for one in _fact(name, text)),
            *_fact("result", element("span", answer[1], class_=answer[0])),
        ),
        element("h2", "Why it is trusted, or not"),
        _decision(trace, broker),
        element("h2", "Where the time went"),
        element("p", *_legend(), class_="legend"),
        element("div", *_timeline(spans, trusted, seconds)),
        element("h2", "Numbers"),
        _numbers(spans),
    )
    title = element("title", f"Pull of {facts['image']}")
    for one in (title, *body.iter()):
        _clean(one)
    return to_html(element("html", element("head", *_meta(), title, _style()), body, lang="en"))


def _meta() -> Iterator[Element]:
    known = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{known}'; base-uri 'none'; form-action 'none'"
    yield element("meta", charset="utf-8")
    yield element("meta", http_equiv="Content-Security-Policy", content=policy)
    yield element("meta", name="viewport", content="width=device-width, initial-scale=1")


def _style() -> Element:
    return element("style", _STYLE)


def _clean(one: Element) -> None:
    one.text = harmless(one.text or "")
    one.tail = harmless(one.tail or "")
    for name, value in one.attrib.items():
        one.set(name, harmless(value))


def _fact(name: str, value: Element | str) -> tuple[Element, Element]:
    return element("dt", name), element("dd", value)


def _decision(trace: Trace, broker: str | None) -> Element:
    if trace.explanation is None:
        return element("p", "The policy was not asked: the pull did not come so far.")
    keys = ", ".join(trace.key_names) or "none"
    asked = "none was named" if broker is None else redact_url(broker)
    return element(
        "div",
        element("ul", _branch(trace.explanation.root)),
        element("dl", *_fact("broker", asked), *_fact("names of the keys", keys)),
    )


def _branch(finding: Finding) -> Element:
    answer = finding.answer.value
    shade = {"yes": "yes", "note": "soft"}.get(answer, "no")
    below = [_branch(child) for child in finding.children]
    return element(
        "li",
        element("span", answer, class_=shade),
        f" {finding.text}",
        element("ul", *below) if below else None,
    )


def _legend() -> Iterator[Element]:
    for shade, text in _LEGEND.items():
        box = element("rect", width="100%", height="12", class_=shade)
        yield element("span", element("svg", box, height="12", aria_hidden="true"), text)


def _timeline(
    spans: Sequence[Span], trusted: TrustedImage | None, seconds: float
) -> Iterator[Element]:
    critical = find_critical_path(spans)
    whole = max(seconds, *(span.end for span in spans), 1e-9) if spans else max(seconds, 1e-9)
    ticks = (
        element(
            "text",
            f"{whole * part / _TICKS:.3f} s",
            x=f"{100 * part / _TICKS:g}%",
            y="12",
            text_anchor="start" if part == 0 else "end" if part == _TICKS else "middle",
        )
        for part in range(_TICKS + 1)
    )
    yield _row("", element("svg", *ticks, height="16"))
    others = [span for span in spans if span.layer is None]
    before = [span for span in others if span.name not in _AFTER]
    yield _row("before the layers", _bars(before, critical, whole))
    for index in sorted({span.layer for span in spans if span.layer is not None}):
        mine = [span for span in spans if span.layer == index]
        yield _row(_layer_name(index, trusted), _bars(mine, critical, whole))
    after = [span for span in others if span.name in _AFTER]
    yield _row("after the layers", _bars(after, critical, whole))


def _row(name: str, bars: Element) -> Element:
    return element("div", element("div", name), bars, class_="row")


def _layer_name(index: int, trusted: TrustedImage | None) -> str:
    if trusted is None:
        return f"layer {index + 1}"
    layers = trusted.manifest.layers
    digest = layers[index].digest.hex[:12]
    return f"layer {index + 1} of {len(layers)}, {human_bytes(layers[index].size)}, {digest}"


def _bars(spans: Iterable[Span], critical: frozenset[Span], whole: float) -> Element:
    ends: list[float] = []  # of each line of the row: what overlaps does not cover another
    bars = []
    for span in spans:
        line = next((at for at, end in enumerate(ends) if end <= span.start), len(ends))
        ends[line : line + 1] = [span.end]
        place = {
            "x": f"{100 * span.start / whole:.3f}%",
            "width": f"{max(100 * span.seconds / whole, _THINNEST):.3f}%",
        }
        told = f"{span.name}: {span.seconds:.3f} s from {span.start:.3f} s, {span.thread}"
        top, shade = line * _ROW, _COLOURS.get(span.name, "other")
        bars.append(
            element(
                "g",
                element("title", told),
                element("rect", **place, y=str(top), height="12", class_=shade),
                element("rect", **place, y=str(top + 13), height="3", class_="mark")
                if span in critical
                else None,
            )
        )
    return element("svg", *bars, height=str(max(len(ends), 1) * _ROW), role="img")


def _numbers(spans: Sequence[Span]) -> Element:
    critical = find_critical_path(spans)
    rows = [
        (
            span.name,
            "" if span.layer is None else str(span.layer + 1),
            f"{span.start:.3f}",
            f"{span.seconds:.3f}",
            span.thread,
            "yes" if span in critical else "",
        )
        for span in spans
    ]
    head = ("what", "layer", "begins, s", "takes, s", "thread", "critical")
    return table(head, rows, empty="Nothing was begun.")
