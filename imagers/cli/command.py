# SPDX-License-Identifier: Apache-2.0
"""The click commands of verbs: hand-written help, and options that several verbs share."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from imagers.cli.output import set_loudness
from imagers.errors import Cancelled, ImagersError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.shell_completion import CompletionItem

    from imagers.core import Budget

__all__ = [
    "FINISH",
    "Verb",
    "VerbCommand",
    "VerbGroup",
    "blamed_on",
    "budget_options",
    "common_options",
    "json_option",
    "option_group",
    "parse_size",
    "platform_option",
]

Verb = Callable[..., Any]
"""What click's decorators take and give: a verb's function, whatever its options are."""


FINISH = "imagers.finish"
"""In `Context.meta`: what a verb calls when no signal must end it any more. None: there is none."""


def common_options() -> list[click.Parameter]:
    """`--quiet`, `--verbose` and `--debug`, which stand before the verb or after it."""
    return [
        _flag("-q", "--quiet", callback=_be_quiet),
        _flag("-v", "--verbose", callback=_be_verbose),
        _flag("--debug"),  # read by main(), which is where errors end
    ]


def _flag(*names: str, callback: Callable[..., None] | None = None) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, is_eager=True, callback=callback)


def _be_quiet(context: click.Context, option: click.Parameter, given: bool) -> None:  # noqa: FBT001
    del option
    if given and not context.resilient_parsing:
        _once(context, "quiet", set_loudness)
        set_loudness(news=False, bar=False)


def _be_verbose(context: click.Context, option: click.Parameter, given: bool) -> None:  # noqa: FBT001
    del option
    if given and not context.resilient_parsing:
        from imagers.cli import verbose  # brings `logging`

        _once(context, "verbose", verbose.stop)
        verbose.start()


def _once(context: click.Context, word: str, undo: Callable[[], object]) -> None:
    """Note that an option was given, and what undoes it when the program is done."""
    meta = context.find_root().meta
    if meta.setdefault("loudness", word) != word:
        raise UsageError("expected --quiet or --verbose, got both")
    context.find_root().call_on_close(undo)


class _Place(click.types.StringParamType):
    """A text that is completed as a path.

    Args:
        kind: `file` or `dir`.
        behind: the words that stand before a colon and the path, if any.
    """

    def __init__(self, kind: str, *behind: str) -> None:
        self._kind = kind
        self._behind = behind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """What the shell finds, or we."""
        from click.shell_completion import CompletionItem

        del ctx, param
        if not self._behind:
            return [CompletionItem(incomplete, type=self._kind)]
        from imagers.cli.completion import paths_behind_a_word

        return paths_behind_a_word(incomplete, self._behind)


_IMAGE = _Place("file", "oci", "oci-archive", "docker-archive", "dir")
# By the word that the help has for a value.
_PLACES = {
    "FILE": _Place("file"),
    "KEY": _Place("file"),
    "DIR": _Place("dir"),
    "BUNDLE": _Place("dir"),
    "REF": _IMAGE,
    "SRC": _IMAGE,
    "DST": _IMAGE,
    "RECIPIENT": _Place("file", "jwe", "pkcs7", "pkcs11"),
}


class _Told:
    """A command that has the common options, and whose help is the docstring of its module.

    A word below a verb shows the part of it that is about the word, unless it has a module and a
    help of its own.
    """

    params: list[click.Parameter]
    help: str | None
    callback: Callable[..., object] | None

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        for one in self.params:
            place = _PLACES.get((one.metavar or one.human_readable_name).upper())
            if place is not None and one.type is click.STRING:
                one.type = place
        self.params += common_options()

    def get_short_help_str(self, limit: int = 45) -> str:
        """What a completion says."""
        del limit
        return (self.callback.__doc__ or "").partition("\n")[0].rstrip(".").lower()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the docstring says."""
        text = (self.help or "").strip("\n") + "\n"
        if ctx.parent is not None and ctx.parent.command.help == self.help:
            from imagers.cli.word_help import help_of_word

            text = help_of_word(text, ctx)
        formatter.write(text)


class VerbCommand(_Told, click.Command):
    """A verb, or a word below one.

    No option and no argument of any verb may be empty: an empty one comes from a variable of
    the shell that is not set, and would be taken for the working directory or for nothing.

    An option with one value may be given once: of two keys, click would take the last one and
    say nothing of the other.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, and look for empty values and for doubled options."""
        if not ctx.resilient_parsing:
            self._check_once(ctx, args)
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            if "" in (value if isinstance(value, tuple) else (value,)):
                name = parameter.opts[0] if parameter.param_type_name == "option" else None
                raise UsageError(
                    f"expected a value for {name or parameter.human_readable_name}, "
                    "got an empty one",
                    hint="is a variable of the shell not set?",
                )
        return rest

    def _check_once(self, ctx: click.Context, args: list[str]) -> None:
        given = Counter(
            one
            for one in self.make_parser(ctx).parse_args(list(args))[2]
            if isinstance(one, click.Option) and not (one.multiple or one.count or one.is_flag)
        )
        for option, count in given.items():
            if count > 1:
                raise UsageError(
                    f"expected {' or '.join(option.opts)} once, got it {count} times",
                    hint="it has one value, and the last one would count in silence",
                )


class VerbGroup(_Told, click.Group):
    """A verb with words below it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, which without a word would make one line of the whole help."""
        if not args and not ctx.resilient_parsing:
            words = ", ".join(self.commands)
            raise click.UsageError(f"expected one of {words}, got nothing", ctx)
        return super().parse_args(ctx, args)


@contextmanager
def blamed_on(option: str | None) -> Iterator[None]:
    """A block whose errors are about what the user gave to an option, and say so.

    Args:
        option: None: it was not given, and is not named. Of nested blocks the inner one is.
    """
    try:
        yield
    except Cancelled:
        raise  # wherever it was noticed
    except ImagersError as error:
        # The library says in a word of its own what the option says here.
        text = str(error).removeprefix("decryption key: ").removeprefix("recipient: ")
        if option is not None and not text.startswith("--"):
            error.args = (f"{option}: {text}", *error.args[1:])
        raise


def option_group(
    name: str, make: Callable[..., object], options: Mapping[str, Callable[[Verb], Verb]]
) -> Callable[[Verb], Verb]:
    """A decorator: several options that reach the verb as one value.

    Args:
        name: of the verb's argument.
        make: called with the options' values, by the keys of `options`.
        options: click's decorators, by the name that click gives the value.
    """

    def decorate(function: Verb) -> Verb:
        @functools.wraps(function)
        def wrapped(**given: Any) -> Any:
            values = {key: given.pop(key) for key in options}
            return function(**given, **{name: make(**values)})

        decorated: Verb = wrapped
        for option in reversed(tuple(options.values())):
            decorated = option(decorated)
        return decorated

    return decorate


json_option = click.option("--json", "as_json", is_flag=True)
"""`--json`: the result as one JSON document."""

platform_option = click.option("--platform", metavar="OS/ARCH[/VARIANT]")
"""`--platform`: which image of an index."""


_SIZE = re.compile(r"([0-9]{1,15})(?:([KMGT])i?B?)?\Z", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_MAX_JOBS = 64


def _make_budget(jobs: int | None, memory: str | None) -> Budget:
    from imagers.core import Budget

    return Budget(jobs) if memory is None else Budget(jobs, parse_size(memory, "--memory"))


def parse_size(text: str, option: str) -> int:
    """Bytes, of a number with K, M, G or T behind it.

    Raises:
        UsageError: it is none.
    """
    size = _SIZE.match(text)
    if size is None:
        raise UsageError(f"expected a size such as 64MiB for {option}, got {text[:80]!r}")
    unit: int = 1024 ** _POWERS[(size[2] or "").upper()]
    return int(size[1]) * unit


budget_options = option_group(
    "budget",
    _make_budget,
    {
        "jobs": click.option("--jobs", type=click.IntRange(1, _MAX_JOBS)),
        "memory": click.option("--memory", metavar="SIZE"),
    },
)
"""`--jobs` and `--memory`: what the layers of an image may use together."""
