# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import click
import pytest

from imagers.cli.config_file import config_option, read_config
from imagers.errors import FormatError


@click.command("work")
@config_option
@click.option("--one-file", metavar="FILE")
@click.option("--name", metavar="NAME", default="default")
@click.option("--many", "several", multiple=True)
@click.option("--flag", is_flag=True)
def work(**given):
    click.echo(given)


def test_read_config_gives_values_by_parameter_and_paths_from_its_directory(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('one-file = "x/y"\nname = "x/y"\nmany = ["a", "b"]\nflag = true\n')
    assert read_config(str(path), work) == {
        "one_file": str(tmp_path / "x" / "y"),
        "name": "x/y",
        "several": ("a", "b"),
        "flag": True,
    }


def test_absolute_path_stays(tmp_path):
    (tmp_path / "a.toml").write_text('one-file = "/etc/x"\n')
    assert read_config(str(tmp_path / "a.toml"), work) == {"one_file": "/etc/x"}


def test_command_takes_what_the_file_says_and_its_own_options_first(tmp_path, capsys):
    path = tmp_path / "a.toml"
    path.write_text('name = "file"\nmany = ["a"]\n')
    work(["--config", str(path), "--many", "b"], standalone_mode=False)
    assert "'name': 'file'" in (out := capsys.readouterr().out)
    assert "'several': ('b',)" in out
    work(["--name", "line", "--config", str(path)], standalone_mode=False)
    assert "'name': 'line'" in (out := capsys.readouterr().out)
    assert "'several': ('a',)" in out


def test_bytes_that_are_no_text_refused(tmp_path):
    Path(tmp_path / "a.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(FormatError, match="is not UTF-8"):
        read_config(str(tmp_path / "a.toml"), work)
    for text in ("[", "a = " + "[" * 100_000, f"a = {'1' * 5000}"):
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(FormatError, match=r"a\.toml: is no TOML: "):
            read_config(str(tmp_path / "a.toml"), work)
