"""The click command of a verb: hand-written help, and the options that several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VerbCommand", "json_option", "registry_options"]

Function = TypeVar("Function", bound="Callable[..., Any]")


class VerbCommand(click.Command):
    """A command whose help is the docstring of its module, as it stands there."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the docstring."""
        formatter.write((self.help or "").strip("\n") + "\n")


def json_option(function: Function) -> Function:
    """`--json`: the result as one JSON document."""
    return click.option("--json", "as_json", is_flag=True)(function)


def registry_options(*sides: str) -> Callable[[Function], Function]:
    """`--creds` and `--tls-verify`, and with sides (`src`, `dest`) their forms for each."""

    def decorate(function: Function) -> Function:
        for side in ("", *sides):
            prefix = f"{side}-" if side else ""
            name = f"{side}_" if side else ""
            function = click.option(f"--{prefix}creds", f"{name}creds", metavar="USER:PASSWORD")(
                function
            )
            function = click.option(
                f"--{prefix}tls-verify", f"{name}tls_verify", type=bool, default=None
            )(function)
        return click.option("--registry-ca", type=click.Path())(function)

    return decorate
