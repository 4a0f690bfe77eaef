# SPDX-License-Identifier: Apache-2.0
"""A TOML file that says what options of a command say, each under the option's name.

    listen = "0.0.0.0:8443"
    tee = ["snp", "tdx"]          # an option that is repeated
    allow-sample-tee = false      # one without a value

An option on the command line wins. Paths are relative to the directory of the file. What is said
for one start alone, by an option that is `hidden`, is no key.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.errors import FormatError
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from imagers.cli.command import Verb

__all__ = ["config_option", "read_config"]

_MAX_BYTES = 1024 * 1024
_PATHS = ("FILE", "DIR")  # what the help calls a value that is one


def config_option(command: Verb) -> Verb:
    """Give a command the option `--config`."""
    return click.option(
        "--config", metavar="FILE", is_eager=True, expose_value=False, callback=_use
    )(command)


def _use(context: click.Context, option: click.Parameter, path: str | None) -> None:
    del option
    if path:
        context.default_map = read_config(path, context.command)


def read_config(path: str, command: click.Command) -> dict[str, object]:
    """What a file says, by the names of the command's parameters.

    Raises:
        LocalError: it cannot be read.
        FormatError: it is no TOML, has another key than an option, or another kind of value.
    """
    from imagers.files import read_bounded

    data = read_bounded(path, max_bytes=_MAX_BYTES)
    try:
        document = View(tomllib.loads(data.decode()), what=path, where="")
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8", what=path) from None
    except (ValueError, RecursionError) as error:  # a number of too many digits is no TOML error
        text = str(error)
        raise FormatError(f"is no TOML: {text[:1].lower()}{text[1:]}", what=path) from None
    options = {
        one.opts[0].removeprefix("--"): one
        for one in command.params
        if isinstance(one, click.Option) and one.expose_value and not one.hidden
    }
    found: dict[str, object] = {}
    for key in document.value:
        option = options.get(key)
        if option is None:
            raise _unknown(path, key, list(options), command)
        assert option.name is not None  # it has a value
        found[option.name] = _value(document, key, option, Path(path).parent)
    return found


def _value(document: View, key: str, option: click.Option, base: Path) -> object:
    if option.is_flag:
        return document.flag(key)
    if option.multiple:
        return document.texts(key)
    text = document.text(key)
    if isinstance(option.type, click.Choice) and text not in option.type.choices:
        choices = " or ".join(repr(one) for one in option.type.choices)
        raise document.error(f"expected {choices}, got {text[:80]!r}", key)
    return str(base / text) if option.metavar in _PATHS and text else text


def _unknown(path: str, key: str, known: list[str], command: click.Command) -> FormatError:
    near = get_close_matches(key, known, n=1)
    return FormatError(
        f"expected an option of 'imagers broker {command.name}', got {key[:80]!r}",
        what=path,
        hint=f"write {near[0]!r}" if near else f"there are {', '.join(known)}",
    )
