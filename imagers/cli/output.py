# SPDX-License-Identifier: Apache-2.0
"""What the program says: messages on standard error, results on standard output.

`say` writes the lines with `imagers:` before them; `ProgressBar` shows how far the work is.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import click

from imagers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import NoReturn, Self

    from tqdm import tqdm

    from imagers.core import BlobProgress
    from imagers.errors import ImagersError

__all__ = [
    "JSON_PRINTED",
    "ProgressBar",
    "error_facts",
    "harmless",
    "human_bytes",
    "print_bytes",
    "print_json",
    "print_line",
    "print_table",
    "say",
    "set_loudness",
    "write_file",
]

JSON_PRINTED = "imagers.json_printed"
"""Of click's context: a verb has printed its document, and no other may follow."""

_KIBI = 1024
_loudness = {"news": True, "bar": True}
_STEP = "{desc}"
_BAR = "{desc} {percentage:3.0f}% {n:.1f}/{total:.1f} MiB |{bar}| {rate_noinv_fmt} {remaining}"
_MARGIN = 3  # columns
_WORTH_A_LINE = _KIBI**2  # bytes; below, a line of a log says more than the blob is worth
_OPEN_FILE = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/([0-9]{1,9})")


def harmless(text: str) -> str:
    """Printable characters only: text of a peer must not move a cursor or hide a word."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def print_line(text: str) -> None:
    """One line of the result on standard output."""
    click.echo(harmless(text))


def set_loudness(*, news: bool = True, bar: bool = True) -> None:
    """Whether lines of plain news are said, and whether progress may be a bar."""
    _loudness.update(news=news, bar=bar)


def print_bytes(data: bytes) -> None:
    """Bytes on standard output as they are, and nothing else.

    Raises:
        UsageError: it is a terminal, and something in them would move its cursor or hide a word.
    """
    if sys.stdout.isatty():
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if any(not (c.isprintable() or c in "\n\t") for c in text):
            raise UsageError(
                f"expected text that a terminal can show, got {len(data)} bytes with other "
                "characters in them",
                hint="write them to a file or into a pipe: > FILE, or | cat -v",
            )
    click.echo(data, nl=False)


def say(kind: str, text: str) -> None:
    """One line on standard error; `kind` is error, hint, warning or "" for plain news."""
    if not kind and not _loudness["news"]:
        return
    prefix = f"imagers: {kind}: " if kind else "imagers: "
    if _Bar.shown is not None:
        _Bar.shown.make_room()
    try:
        click.echo(prefix + harmless(text.replace("\n", " ")), err=True)
    except OSError:
        # Nobody listens, or the log is on a full disk: the exit code has to do, and Python
        # must not try again at its end.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


def print_json(value: object) -> None:
    """The result as one JSON document on standard output.

    Text of a stranger may be in it: what could move a cursor or hide a word is escaped.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))
    if (context := click.get_current_context(silent=True)) is not None:
        context.meta[JSON_PRINTED] = True


def error_facts(error: ImagersError) -> dict[str, object]:
    """An error as the member of a JSON document."""
    return {
        "type": type(error).__name__,
        "message": str(error),
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns on standard output; columns of numbers are set right."""
    clean = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *clean, strict=True)]
    right = [
        bool(clean) and all(cell[:1].isdigit() or cell in ("-", "") for cell in column)
        for column in (zip(*clean, strict=True) if clean else [()] * len(head))
    ]
    for row in [list(head), *clean]:
        cells = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def write_file(path: str, text: str) -> None:
    """A file that the user named with `text` and nothing else, by one rename.

    A symbolic link is replaced and never followed: in a directory that others may write to it
    could lead to any file of the user's. A device or a pipe is written to, and what is open
    already, such as `/dev/stdout`, where it stands: opened once more, a file would be overwritten
    from its beginning.

    Raises:
        LocalError: it could not be written.
    """
    from pathlib import Path

    from imagers.files import StagedFile, local_errors, write_all

    target = Path(path)
    with local_errors(path):
        is_open = _OPEN_FILE.fullmatch(path)
        if is_open is not None:
            sys.stdout.flush()
            write_all({"stdout": 1, "stderr": 2}.get(is_open[1]) or int(is_open[2]), text.encode())
            return
        if _is_stream(path):
            # Without a reader a pipe is an error, and does not hold us up.
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                write_all(fd, text.encode())
            finally:
                os.close(fd)
            return
        file = StagedFile(target.parent)
        try:
            write_all(file.fileno(), text.encode())
            file.publish(target)
        finally:
            file.close()


def _is_stream(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def human_bytes(count: int) -> str:
    """A size as people read it, in powers of 1024."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _KIBI or unit == "GiB":
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KIBI
    raise AssertionError  # unreachable: the loop returns at its last unit


class ProgressBar:
    """How far the work on an image is, on standard error.

    On a terminal it is one bar that is gone at the end, elsewhere a line when a blob begins and one
    when it ends; small blobs pass in silence there.

    Args:
        label: what is done, such as "encrypt".

    Threads: safe.
    """

    def __init__(self, label: str) -> None:
        self._view = _choose_view(label)
        self._lock = threading.Lock()

    def step(self, text: str) -> None:
        """This is done now, before there are blobs to work on."""
        with self._lock:
            if isinstance(self._view, _Bar):
                self._view.step(text)

    def add(self, size: int) -> None:
        """So many bytes more are to be done."""
        with self._lock:
            if isinstance(self._view, _Bar):
                self._view.add(size)

    def show(self, news: BlobProgress) -> None:
        """So far is a blob."""
        with self._lock:
            if self._view is not None:
                self._view.show(news)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            if isinstance(self._view, _Bar):
                self._view.close()
            self._view = None  # threads that were left behind say nothing any more


def _choose_view(label: str) -> _Bar | _Lines | None:
    """What progress looks like; None: it is not shown."""
    if sys.stderr is None:  # it was closed by whoever started this
        return None
    return _Bar(label) if sys.stderr.isatty() and _loudness["bar"] else _Lines()


class _Bar:
    """One line of a terminal, as wide as the terminal is at each moment."""

    shown: ClassVar[_Bar | None] = None

    def __init__(self, label: str) -> None:
        from tqdm import tqdm

        self._label = label
        self._total = 0
        self._ended = 0
        self._on_their_way: dict[str, int] = {}
        # In MiB, as all tables are; tqdm's own scale would say 90.0M.
        self._bar: tqdm[NoReturn] = tqdm(
            total=0,
            desc=label,
            unit="MiB",
            bar_format=_STEP,
            ncols=_columns(),
            nrows=2,  # there is but one bar, also where the terminal does not know its height
            miniters=0,
            leave=False,
            file=sys.stderr,
        )
        _Bar.shown = self

    def step(self, text: str) -> None:
        self._fit()
        self._bar.bar_format = _STEP
        self._bar.set_description_str(f"{self._label}: {text}")

    def add(self, size: int) -> None:
        self._total += size
        self._draw(now=True)

    def show(self, news: BlobProgress) -> None:
        if news.seconds is None:
            self._on_their_way[news.what] = news.done
        else:
            self._on_their_way.pop(news.what, None)
            self._ended += news.size
        self._draw(now=news.seconds is not None)

    def _draw(self, *, now: bool) -> None:
        """Show it, if it was not just shown; with `now` also then: nothing may follow for long."""
        done = self._ended + sum(self._on_their_way.values())
        self._bar.bar_format = _BAR
        self._bar.set_description_str(self._label, refresh=False)
        self._fit()
        self._bar.total = max(self._total, done) / _KIBI**2
        self._bar.n = done / _KIBI**2
        if now:
            self._bar.refresh()
        else:
            self._bar.update(0)

    def _fit(self) -> None:
        """To the terminal, which may have been resized."""
        columns = _columns()
        if columns != self._bar.ncols:
            self._bar.ncols = columns
            # The old one would fill the line up with blanks, to the old width.
            self._bar.sp = self._bar.status_printer(sys.stderr)

    def make_room(self) -> None:
        self._bar.clear()

    def close(self) -> None:
        _Bar.shown = None
        self._bar.close()
        # A "^C" that the terminal wrote behind it goes too.
        with suppress(OSError):
            click.echo("\r" + " " * (_columns() + _MARGIN - 1) + "\r", nl=False, err=True)


def _columns() -> int:
    """How long the bar may be: a "^C" behind it must not begin another line."""
    with suppress(OSError):
        return max((os.get_terminal_size(sys.stderr.fileno()).columns or 80) - _MARGIN, 1)
    return 80 - _MARGIN


class _Lines:
    """What a log keeps: a blob began, a blob ended."""

    def __init__(self) -> None:
        self._begun: set[str] = set()

    def show(self, news: BlobProgress) -> None:
        if news.size < _WORTH_A_LINE:
            return
        if news.seconds is None and news.what not in self._begun:
            self._begun.add(news.what)
            say("", f"{news.what}: {human_bytes(news.size)}")
        elif news.seconds is not None and news.what in self._begun:
            self._begun.remove(news.what)
            say("", f"{news.what}: done in {news.seconds:.1f} s")
