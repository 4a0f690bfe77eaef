# SPDX-License-Identifier: Apache-2.0
import re

import click
import pytest

from imagers.cli.command import VerbCommand, VerbGroup
from imagers.cli.main import VERBS, root
from imagers.cli.word_help import help_of_word


def words_below():
    """The context of each word below a verb."""

    def below(context):
        for name, command in getattr(context.command, "commands", {}).items():
            child = click.Context(command, info_name=name, parent=context)
            yield child
            yield from below(child)

    top = root.make_context("imagers", [], resilient_parsing=True)
    for verb in VERBS:
        command = root.get_command(top, verb)
        yield from below(click.Context(command, info_name=verb, parent=top))


def owner_of(context):
    """The verb, or the group below it, whose help a word has a part of."""
    while context.parent.command.help == context.command.help:
        context = context.parent
    return context


CONTEXTS = [one for one in words_below() if owner_of(one) is not one]
LEAVES = [one for one in CONTEXTS if not isinstance(one.command, click.Group)]


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda one: one.command_path)
def test_help_of_a_word_is_about_it_and_fits_a_screen(context):
    text = context.get_help()
    lines = text.splitlines()
    assert lines[0].startswith(f"usage: {context.command_path}")
    assert "|" not in lines[0] or isinstance(context.command, click.Group)
    assert len(lines[2]) > 5
    assert lines[-1] == f'"{owner_of(context).command_path} --help" has the rest.'
    assert len(lines) < 30
    whole = context.command.help
    assert all(line in whole for line in lines[4:-1])


@pytest.mark.parametrize("context", LEAVES, ids=lambda one: one.command_path)
def test_help_of_a_word_explains_its_options_and_no_others(context):
    own = {
        name
        for one in context.command.params
        if isinstance(one, click.Option)
        for name in one.opts
        if name not in ("--quiet", "--verbose", "--debug")
    }
    text = "\n".join(context.get_help().splitlines()[4:-1])
    for name in own:
        assert re.search(rf"(?<![\w-]){re.escape(name)}\b", text), name
    explained = re.findall(r"^ {2,4}(--[a-z-]+)", text, re.MULTILINE)
    assert set(explained) <= own


HELP = """usage: imagers trial make KIND [--size N]
       imagers trial show | keep FILE

Tries things. make has a paragraph.

make makes one.

  KIND is one of
    big, small

  make:
  --size N, --deep  how
                    big
  --sure            what nobody has

example:
  imagers trial make big
"""


def trial():
    group = VerbGroup("trial", help=HELP)

    @group.command("make", cls=VerbCommand, help=HELP)
    @click.argument("kind")
    @click.option("--size")
    @click.option("--deep", is_flag=True)
    def make():
        """Make a thing."""

    @group.command("keep", cls=VerbCommand, help=HELP)
    @click.argument("file")
    def keep():
        """Keep a thing.

        More of it.
        """

    assert make
    assert keep
    return click.Context(
        group, info_name="trial", parent=root.make_context("imagers", [], resilient_parsing=True)
    )


def test_parts_that_are_about_a_word_are_kept_as_they_stand():
    parent = trial()
    context = click.Context(parent.command.commands["make"], info_name="make", parent=parent)
    assert help_of_word(HELP, context) == (
        "usage: imagers trial make KIND [--size N]\n\n"
        "make makes one.\n\n"
        "  KIND is one of\n    big, small\n\n"
        "  --size N, --deep  how\n                    big\n\n"
        '"imagers trial --help" has the rest.\n'
    )


def test_word_without_a_paragraph_has_the_line_of_its_function():
    parent = trial()
    context = click.Context(parent.command.commands["keep"], info_name="keep", parent=parent)
    assert help_of_word(HELP, context) == (
        'usage: imagers trial keep FILE\n\nKeep a thing.\n\n"imagers trial --help" has the rest.\n'
    )


def test_word_with_a_help_of_its_own_shows_all_of_it():
    parent = trial()
    inner = VerbGroup("more", help="usage: imagers trial more\n\nAll of it.\n")
    parent.command.add_command(inner)
    context = click.Context(inner, info_name="more", parent=parent)
    assert context.get_help() == "usage: imagers trial more\n\nAll of it."
