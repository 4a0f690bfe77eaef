# SPDX-License-Identifier: Apache-2.0
import click
import pytest

from imagers.cli.command import (
    VerbCommand,
    VerbGroup,
    blamed_on,
    budget_options,
    json_option,
    option_group,
    platform_option,
)
from imagers.core import Budget
from imagers.errors import LocalError, UsageError

HELP = "usage: imagers trial\n\n  kept   as it   stands\n"


@pytest.fixture
def trial():
    """A command that gives back what it got."""

    @click.command("trial", cls=VerbCommand, help=HELP)
    @click.argument("name")
    @click.option("--file", metavar="FILE")
    @click.option("--many", multiple=True)
    @option_group(
        "pair",
        lambda left, right: (left, right),
        {"left": click.option("--left"), "right": click.option("--right")},
    )
    @platform_option
    @json_option
    def command(**given):
        return given

    return command


def invoke(command, *words):
    with command.make_context("trial", list(words)) as context:
        return command.invoke(context)


def test_options_of_a_group_reach_the_verb_as_one_value(trial):
    given = invoke(trial, "x", "--left", "l", "--many", "a", "--many", "b", "--json")
    assert given == {
        "name": "x",
        "file": None,
        "many": ("a", "b"),
        "pair": ("l", None),
        "platform": None,
        "as_json": True,
    }


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([""], "NAME"),
        (["x", "--file", ""], "--file"),
        (["x", "--many", "a", "--many", ""], "--many"),
        (["x", "--right", ""], "--right"),
    ],
)
def test_empty_value_refused_by_name(trial, words, named):
    with pytest.raises(UsageError, match=f"expected a value for {named}, got an empty one"):
        invoke(trial, *words)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["x", "--file", "a", "--file", "b"], "--file once, got it 2 times"),
        (["--file=a", "x", "--file=a", "--file", "c"], "--file once, got it 3 times"),
        (["x", "--left", "a", "--right", "b", "--left", "c"], "--left once"),
        (["x", "--platform", "a/b", "--platform", "a/c"], "--platform once"),
    ],
)
def test_option_with_one_value_given_twice_refused_by_name(trial, words, named):
    with pytest.raises(UsageError, match=named) as caught:
        invoke(trial, *words)
    assert caught.value.exit_code == 2


def test_flag_given_twice_is_given(trial):
    assert invoke(trial, "x", "--json", "--json")["as_json"] is True


def test_value_that_looks_like_an_option_is_none(trial):
    assert invoke(trial, "--file", "f", "--", "--file")["name"] == "--file"


def test_option_with_two_spellings_given_in_both_refused():
    @click.command("trial", cls=VerbCommand, help=HELP)
    @click.option("--key", "--private-key", "key")
    def command(key):
        return key

    assert invoke(command, "--private-key", "a") == "a"
    with pytest.raises(UsageError, match="--key or --private-key once, got it 2 times"):
        invoke(command, "--key", "a", "--private-key", "a")


def test_help_is_the_text_as_it_stands(trial, capsys):
    with pytest.raises(click.exceptions.Exit) as caught:
        invoke(trial, "--help")
    assert caught.value.exit_code == 0
    assert capsys.readouterr().out.rstrip("\n") == HELP.rstrip("\n")


def test_help_of_a_group_is_its_text_too(capsys):
    group = VerbGroup("trial", help=HELP)
    with pytest.raises(click.exceptions.Exit):
        invoke(group, "--help")
    assert capsys.readouterr().out.rstrip("\n") == HELP.rstrip("\n")


@pytest.fixture
def budgeted():
    @click.command("trial", cls=VerbCommand, help=HELP)
    @budget_options
    def command(budget):
        return budget

    return command


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Budget()),
        (["--jobs", "3"], Budget(jobs=3)),
        (["--memory", "64MiB"], Budget()),
        (["--memory", "0.1GiB"], None),
        (["--memory", "1g"], Budget(memory_bytes=1 << 30)),
        (["--memory", "20000K"], Budget(memory_bytes=20000 << 10)),
        (["--memory", "16777216"], Budget(memory_bytes=1 << 24)),
        (["--memory", "lots"], None),
        (["--memory", "15MiB"], None),
        (["--memory", "-1"], None),
    ],
    ids=str,
)
def test_budget_options_are_one_value(budgeted, words, expected):
    if expected is None:
        with pytest.raises(UsageError, match="memory"):
            invoke(budgeted, *words)
        return
    assert invoke(budgeted, *words) == expected


@pytest.mark.parametrize("jobs", ["0", "65", "x"])
def test_budget_options_refuse_jobs_that_are_none(budgeted, jobs):
    with pytest.raises(click.BadParameter, match="range"):
        invoke(budgeted, "--jobs", jobs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--key"], "--key: f: no such file"),
        ([None], "f: no such file"),
        (["--key", None, "--passphrase-file"], "--passphrase-file: f: no such file"),
        (["--key", "--key"], "--key: f: no such file"),
    ],
)
def test_error_names_the_option_that_it_is_about(options, said):
    def fail():
        raise LocalError("no such file", path="f")

    for option in reversed(options):
        fail = blamed_on(option)(fail)
    with pytest.raises(LocalError) as caught:
        fail()
    assert str(caught.value) == said
