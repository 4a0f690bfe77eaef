# SPDX-License-Identifier: Apache-2.0
"""What is said to those who know other programs: each row must be so here."""

import re

import click
import pytest

from imagers.cli import meant
from imagers.cli.main import VERBS, root
from imagers.net.http import HTTPSettings

OPTION = re.compile(r"(?<![\w-])--?[a-z](?:[a-z-]|\.(?=[a-z]))*")
COMMAND = re.compile(r"'imagers ([^']*)'")


def context_of(*words):
    """The context of a command, as far as its words go, and the words that are left."""
    context = root.make_context("imagers", [], resilient_parsing=True)
    words = list(words)
    while words and isinstance(context.command, click.Group):
        command = context.command.get_command(context, words[0])
        if command is None:
            break
        context = click.Context(command, info_name=words.pop(0), parent=context)
    return context, words


def options_of(context):
    """Of a command; of a group, those of any word below it."""
    command = context.command
    found = {one for p in command.get_params(context) for one in p.opts if one[0] == "-"}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            found |= options_of(click.Context(below, info_name=name, parent=context))
    return found


def check_commands(text):
    """Each command in quotes has its verb, its words and its options."""
    for line in COMMAND.findall(text):
        context, rest = context_of(*line.split())
        assert context.parent is not None or rest[0] in ("--version", "--help"), line
        words = [one for one in rest if one.islower() and one.isalpha()]
        assert not (words and isinstance(context.command, click.Group)), line
        assert set(OPTION.findall(line)) <= options_of(context), line


@pytest.mark.parametrize("name", meant.WORDS)
def test_word_of_others_is_none_of_ours_and_its_answer_can_be_typed(name):
    text = meant.WORDS[name]
    assert name not in VERBS
    assert not OPTION.findall(COMMAND.sub("", text))
    check_commands(text)
    assert meant.word(name, context_of()[0]) == text


LOWER = [(verb, name) for verb, names in meant.BELOW.items() for name in names]


@pytest.mark.parametrize(("verb", "name"), LOWER)
def test_word_of_others_below_a_verb_is_none_of_ours_and_its_answer_can_be_typed(verb, name):
    context, _ = context_of(verb)
    text = meant.BELOW[verb][name]
    assert name not in context.command.list_commands(context)
    named = set(OPTION.findall(COMMAND.sub("", text)))
    assert named <= options_of(context) | options_of(context_of("pull")[0])
    check_commands(text)
    assert meant.word(name, context) == text


@pytest.mark.parametrize(
    ("words", "name", "told"),
    [
        ([], "sgin", "did you mean sign?"),
        ([], "insp", "did you mean inspect?"),
        (["key"], "gen", "did you mean generate?"),
        (["broker", "policy"], "rest", "did you mean reset?"),
        (["broker", "policy"], "add", ""),
        ([], "i", ""),
    ],
)
def test_word_that_is_misspelt_or_a_beginning_is_guessed(words, name, told):
    assert meant.word(name, context_of(*words)[0]) == told


ROWS = [(name, verbs, text) for name, rows in meant.ANSWERS.items() for verbs, text in rows]


@pytest.mark.parametrize(("name", "verbs", "text"), ROWS)
def test_option_of_others_is_none_of_ours_and_its_answer_names_ours(name, verbs, text):
    check_commands(text)
    named = set(OPTION.findall(COMMAND.sub("", text)))
    for verb in verbs.split() or VERBS:
        context, _ = context_of(verb)
        has = options_of(context)
        assert verb in VERBS
        assert name not in has, f"imagers {verb} has {name}"
        assert named <= has, f"imagers {verb} has no {named - has}"
        assert meant.option(name, context) == text


@pytest.mark.parametrize("name", meant.RENAMED)
def test_option_that_has_another_name_here_has_it_where_it_is_told(name):
    count = dict.fromkeys(meant.RENAMED[name], 0)
    for verb in VERBS:
        context, _ = context_of(verb)
        has = options_of(context)
        if name in has:
            continue  # there it is what was meant
        told = meant.option(name, context)
        for renamed in meant.RENAMED[name]:
            if told == f"did you mean {renamed}?":
                assert re.split(r"[= ,]", renamed)[0] in has
                count[renamed] += 1
    context, _ = context_of("broker", "put")
    for renamed in meant.RENAMED[name]:
        count[renamed] += meant.option(name, context) == f"did you mean {renamed}?"
        for word in ("generate", "serve"):
            context_of_word, _ = context_of("key" if word == "generate" else "broker", word)
            count[renamed] += meant.option(name, context_of_word) == f"did you mean {renamed}?"
    assert any(count.values()), f"{name} is told to nobody"


@pytest.mark.parametrize(
    ("words", "name", "told"),
    [
        (["copy"], "--retry-times", "tried again"),
        (["copy"], "--src-username", "did you mean --src-creds USER:PASSWORD?"),
        (["inspect"], "--src-username", "did you mean --creds USER:PASSWORD?"),
        (["pull"], "--polcy", "did you mean --policy?"),
        (["broker", "put"], "--cacert", "did you mean --broker-ca?"),
        (["encrypt"], "--key", "did you mean --encryption-key jwe:FILE?"),
        (["decrypt"], "--key", "did you mean --decryption-key?"),
        (["login"], "-p", "--password-stdin or --password-file"),
        (["sign"], "--sign-by-sq-fingerprint", "--sign-by takes one of gpg"),
    ],
)
def test_option_of_others_is_answered(words, name, told):
    context, _ = context_of(*words)
    assert told in meant.option(name, context)


@pytest.mark.parametrize("name", ["--registry-storage", "--zebra", "-Z", "--no-such"])
def test_option_that_nobody_knows_is_not_guessed_at(name):
    for verb in VERBS:
        context, _ = context_of(verb)
        assert meant.option(name, context) == ""


def test_word_below_a_verb_is_answered_with_those_of_the_verb():
    context, _ = context_of("broker")
    assert meant.word("lst", context) == "did you mean list?"
    assert meant.word("push", context) == ""


def test_numbers_of_the_answers_are_those_of_the_client():
    settings = HTTPSettings()
    assert settings.retry.attempts == 4
    assert "four times" in meant.ANSWERS["--retry-times"][0][1]
    assert settings.read_timeout_s == 30
    assert "30 s" in meant.ANSWERS["--timeout"][0][1]
