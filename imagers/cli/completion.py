# SPDX-License-Identifier: Apache-2.0
"""Completion in a shell, by click's own mechanism; loaded only while somebody completes.

bash takes a colon for the end of a word: `oci:app` comes as three words, and what is inserted goes
behind the colon. Names of images have colons, so the words are put together first.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    shell_complete,
)

if TYPE_CHECKING:
    import click

__all__ = ["complete", "paths_behind_a_word"]


class _Bash(BashComplete):
    _cut = 0  # characters of a completion that stand before the colon

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in (*args, incomplete):
            if words and (word.startswith(":") or words[-1].endswith(":")):
                words[-1] += word
            else:
                words.append(word)
        self._cut = words[-1].rfind(":") + 1
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value[self._cut :]}"


def complete(root: click.Command, variable: str, instruction: str) -> int:
    """Print what a shell asked for; the exit code.

    Args:
        variable: in which shells ask.
        instruction: its value, such as `bash_source`.
    """
    add_completion_class(_Bash)
    return shell_complete(root, {}, "imagers", variable, instruction)


def paths_behind_a_word(incomplete: str, words: tuple[str, ...]) -> list[CompletionItem]:
    """Paths that may follow in a text such as `oci:PATH`, which is no path to a shell.

    Args:
        words: before the colon, where a path follows.
    """
    word, colon, path = incomplete.partition(":")
    if not colon or word not in words:
        return []
    directory, slash, start = path.rpartition("/")
    try:
        names = sorted(os.listdir(f"{directory}{slash}" or "."))
    except OSError:
        return []
    return [
        CompletionItem(f"{word}:{directory}{slash}{name}")
        for name in names
        if name.startswith(start) and (start or not name.startswith("."))
    ]
