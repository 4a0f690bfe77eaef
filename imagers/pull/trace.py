# SPDX-License-Identifier: Apache-2.0
"""What a pull did when, and on whose word: for people who ask where the time went.

    trace = Trace()
    pull_image(image, bundle, options, trace=trace)
    for span in trace.spans: ...

Only what can be told apart from here is a span of its own: decryption, decompression, hashing and
unpacking are one pass of the core, and so is a download and its check.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from imagers.pull.trust import TrustedImage
    from imagers.sign.decision import Explanation

__all__ = ["WAIT", "Span", "Trace", "find_critical_path", "traced"]

WAIT = "wait"
"""The span in which a layer's turn has come, and its bytes have not."""


@dataclass(frozen=True, slots=True)
class Span:
    """Some work, in seconds from the begin of the trace.

    Attributes:
        layer: its index; None: it is of no layer.
        thread: the name of the one that did it.
    """

    name: str
    layer: int | None
    start: float
    end: float
    thread: str

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


class Trace:
    """See the module. The clock starts when it is made.

    Attributes:
        explanation: how the policy came to its answer; None before it was asked.
        trusted: the image; None unless the answer was yes.
        key_names: of the keys that open its layers, as its packets name them.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._begin_cpu = time.process_time()
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self.explanation: Explanation | None = None
        self.trusted: TrustedImage | None = None
        self.key_names: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Since the begin."""
        return time.monotonic() - self._begin

    @property
    def cpu_seconds(self) -> float:
        """What all threads of this process have used since the begin."""
        return time.process_time() - self._begin_cpu

    @property
    def spans(self) -> tuple[Span, ...]:
        """Those that have ended, well or not, by their start."""
        with self._lock:
            return tuple(sorted(self._spans, key=lambda span: (span.start, span.end)))

    @contextmanager
    def span(self, name: str, layer: int | None = None) -> Iterator[None]:
        """A block that is one."""
        start = self.seconds
        try:
            yield
        finally:
            self.note(name, layer, since=start)

    def note(self, name: str, layer: int | None = None, *, since: float) -> None:
        """What ends now is one, in this thread."""
        span = Span(name, layer, since, self.seconds, threading.current_thread().name)
        with self._lock:
            self._spans.append(span)


def traced(
    trace: Trace | None, name: str, layer: int | None = None
) -> AbstractContextManager[None]:
    """A block that is a span, if there is a trace."""
    return nullcontext() if trace is None else trace.span(name, layer)


def find_critical_path(spans: Sequence[Span]) -> frozenset[Span]:
    """What the end had to wait for: to make something else faster helps nobody.

    From the end backwards: what ended last; where that is a wait, what it waited for; and then what
    ended last before that began.
    """
    path: set[Span] = set()
    left = list(spans)
    while left:
        last = max(left, key=lambda span: (span.end, span.start))
        if last.name == WAIT:
            path.add(last)
            last = _waited_for(last, left)
        path.add(last)
        left = [span for span in left if span.end <= last.start and span not in path]
    return frozenset(path)


def _waited_for(wait: Span, spans: Sequence[Span]) -> Span:
    """The other work on the layer that ended last, while it was waited for."""
    others = [
        span
        for span in spans
        if span.layer == wait.layer and span.name != WAIT and wait.start <= span.end <= wait.end
    ]
    return max(others, key=lambda span: span.end, default=wait)
