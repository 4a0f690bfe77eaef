# SPDX-License-Identifier: Apache-2.0
"""What shells make of it is in tests/cli/test_completion.py."""

from pathlib import Path

import pytest

from imagers.cli.completion import complete, paths_behind_a_word
from imagers.cli.main import root


@pytest.fixture
def ask(home, monkeypatch, capsys):
    """A function: what bash gets for these words, of which the last is being typed."""
    assert home.is_dir()

    def ask(*words):
        monkeypatch.setenv("COMP_WORDS", "\n".join(["imagers", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        capsys.readouterr()
        assert complete(root, "_IMAGERS_COMPLETE", "bash_complete") == 0
        return capsys.readouterr().out.split()

    return ask


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pul"], ["plain,pull"]),
        (["pull", "docker", ":", "//h", ":", "5/a", ":", "v1", "bun"], ["dir,bun"]),
        (["pull", "docker", ":", "//h/a", "--polic"], ["plain,--policy"]),
        (["inspect", "oci", ":", "ap"], ["plain,app"]),
        (["inspect", "oci", ":"], ["plain,app"]),
        (["inspect", "oci", ":", "app/in"], ["plain,app/index.json"]),
        (["inspect", "docker", ":", "//"], []),
    ],
    ids=str,
)
def test_words_that_bash_takes_apart_are_put_together(ask, words, offered):
    Path("app").mkdir()
    Path("app", "index.json").touch()
    Path(".hidden").touch()
    assert ask(*words) == offered


def test_shell_that_is_not_known_is_a_failure():
    assert complete(root, "_IMAGERS_COMPLETE", "tcsh_complete") == 1


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("text", ["app", "jwe:app", "oci:nowhere/", "oci:app:v1", ""])
def test_no_path_is_offered_where_none_can_be(text):
    Path("app").mkdir()
    assert paths_behind_a_word(text, ("oci",)) == []
