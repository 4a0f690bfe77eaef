# SPDX-License-Identifier: Apache-2.0
"""The help of a word below a verb: the part of the verb's help that is about it.

So one text serves `imagers broker --help` and `imagers broker put --help`. Its form is that of
all helps: usage lines with ` | ` between words, paragraphs, lists of options with two blanks
before what they do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["help_of_word"]


def help_of_word(text: str, context: click.Context) -> str:
    """The usage of a word, what it does, its options.

    Args:
        text: the help of its verb.
        context: of the word.
    """
    command = context.command
    options = {
        name
        for one in command.get_params(context)
        for name in (*one.opts, *one.secondary_opts)
        if isinstance(one, click.Option)
    }
    head, *paragraphs = text.strip("\n").split("\n\n")
    usage = "\n       ".join(_usages(head, context))
    about = command.get_short_help_str().capitalize() + "."
    lists = []
    for paragraph in paragraphs:
        if paragraph.startswith(f"{command.name} "):
            about = paragraph
        elif paragraph.startswith("  "):
            first = paragraph.split()[0]
            if first.isupper() and re.search(rf"\b{first}\b", usage):  # what an argument may be
                lists.append(paragraph)
            elif kept := [entry for entry in _entries(paragraph) if options & _options_of(entry)]:
                lists.append("\n".join(kept))
    whole = context
    while whole.parent is not None and whole.parent.command.help == command.help:
        whole = whole.parent
    parts = [f"usage: {usage}", about, *lists, f'"{whole.command_path} --help" has the rest.']
    return "\n\n".join(parts) + "\n"


def _usages(head: str, context: click.Context) -> Iterator[str]:
    """The usage lines of a word; of a word with others below it, theirs."""
    assert context.parent is not None
    name, above = context.info_name, context.parent.command_path
    for line in head.removeprefix("usage: ").split("\n"):
        start, _, ways = line.strip().partition(f"{above} ")
        for way in ways.split(" | ") if ways and not start else ():
            if way.split()[0] == name:
                yield line.strip() if isinstance(context.command, click.Group) else f"{above} {way}"


def _entries(paragraph: str) -> Iterator[str]:
    """What is said of each option, or of several together."""
    for entry in re.split(r"\n(?= {2,4}-)", paragraph):
        if entry.lstrip().startswith("-"):
            yield entry
        else:  # a heading above the first
            yield from entry.split("\n", 1)[1:]


def _options_of(entry: str) -> set[str]:
    column = re.split(r" {2,}|\n", entry.strip(), maxsplit=1)[0]
    return set(re.findall(r"(?<!\S)--?[a-z][a-z.-]*", column))
