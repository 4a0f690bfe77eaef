# SPDX-License-Identifier: Apache-2.0
"""What the program says: messages on standard error, results on standard output.

`say` writes the lines with `imagers:` before them; `ProgressBar` shows how far the work is,
on a terminal only.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import threading
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import NoReturn, Self

    from tqdm import tqdm

__all__ = [
    "ProgressBar",
    "harmless",
    "human_bytes",
    "print_json",
    "print_line",
    "print_table",
    "say",
    "set_loudness",
    "write_file",
]

_KIBI = 1024
_loudness = {"news": True, "progress": True}
_OPEN_FILE = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/([0-9]{1,9})")


def harmless(text: str) -> str:
    """Printable characters only: text of a peer must not move a cursor or hide a word."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def print_line(text: str) -> None:
    """One line of the result on standard output."""
    click.echo(harmless(text))


def set_loudness(*, news: bool = True, progress: bool = True) -> None:
    """Whether lines of plain news are said, and whether progress is shown."""
    _loudness.update(news=news, progress=progress)


def say(kind: str, text: str) -> None:
    """One line on standard error; `kind` is error, hint, warning or "" for plain news."""
    if not kind and not _loudness["news"]:
        return
    prefix = f"imagers: {kind}: " if kind else "imagers: "
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
    """Bytes done of bytes to do, on a terminal; silent where standard error is none.

    Args:
        total: bytes.
        label: stands before the bar.

    Threads: `show` is safe.
    """

    def __init__(self, total: int, label: str) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._label = label
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        if sys.stderr.isatty() and _loudness["progress"]:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=label, unit="B", unit_scale=True, leave=False, file=sys.stderr
            )

    def set_total(self, total: int) -> None:
        """The bytes to do, where they were not known at the start."""
        if self._bar is not None:
            self._bar.total = total

    def show(self, part: str, bytes_done: int) -> None:
        """So many bytes of a part, such as a layer, are done."""
        if self._bar is None:
            return
        with self._lock:
            if part not in self._done:
                self._bar.set_description(f"{self._label} {part}")
            self._bar.update(bytes_done - self._done.get(part, 0))
            self._done[part] = bytes_done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
