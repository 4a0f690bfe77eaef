# SPDX-License-Identifier: Apache-2.0
"""The `imagers` program: finds the verb, runs it, turns errors into lines and exit codes.

Verbs are imported when they are called, so that `imagers --version` loads neither
cryptography nor an HTTP client.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import signal
import sys
import time
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NoReturn

import click

from imagers import __version__
from imagers.cli.command import FINISH, common_options
from imagers.cli.output import JSON_PRINTED, print_json, say
from imagers.errors import ImagersError, LocalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sys import UnraisableHookArgs
    from types import FrameType
    from typing import TextIO

    from click.shell_completion import CompletionItem

__all__ = ["VERBS", "main", "root"]

# Every verb, in the order of the help. The value is the module below imagers.cli.verbs.
VERBS = {
    "copy": "copy",
    "encrypt": "encrypt",
    "decrypt": "decrypt",
    "sign": "sign",
    "verify": "verify",
    "inspect": "inspect",
    "pull": "pull",
    "list-tags": "list_tags",
    "delete": "delete",
    "login": "login",
    "logout": "logout",
    "policy": "policy",
    "key": "key",
    "store": "store",
    "attest": "attest",
    "broker": "broker",
}

HELP = """\
usage: imagers VERB [OPTION]... [ARGUMENT]...

Takes container images to confidential guests: encrypted, signed, verified.

  copy      SRC DST        copy an image; bytes and digests unchanged
  encrypt   SRC DST        encrypt its layers, a key of its own for each
  decrypt   SRC DST        decrypt its layers with key files
  sign      REF            sign it in its registry
  verify    REF            say whether a policy lets it through, and why
  inspect   REF            show what is encrypted, how, for whom; signatures
  pull      REF BUNDLE     verify, get keys, decrypt, unpack for a runtime
  list-tags REPOSITORY     list its tags
  delete    REF            delete it from its registry, and nothing with it
  login     REGISTRY       keep a login for a registry
  logout    REGISTRY       drop it
  policy    check | init   look after policy.json
  key       generate | show   signing and encryption keys
  store     list | WORD       what pulls keep: look at it, remove it
  attest    WORD           evidence of machines: make, check, compare it
  broker    serve | WORD   a key broker, and its administration

REF, SRC, DST: docker://HOST/NAME[:TAG|@DIGEST], which a bare name is too;
oci:PATH[:TAG], oci-archive:PATH[:TAG], docker-archive:PATH[:NAME],
docker-daemon:NAME, dir:PATH.

  -q, --quiet    no progress and no news; warnings, errors and results stay
  -v, --verbose  say what is asked of whom, and which settings count
  --debug        show a traceback with every error
  -h, --help     this text; "imagers help VERB [WORD]" has that of a verb
  --version      print the version

All but the last may also stand after the verb. Completion, as for zsh and fish:
eval "$(_IMAGERS_COMPLETE=bash_source imagers)"

exit codes: 0 done, 1 bug of imagers, 2 usage, 10 remote, 11 format,
12 unsupported, 13 local (path, disk, permission), 20 integrity, 21 verification
says no, 22 could not verify, 30 no key, 31 key refused, 40 attestation,
50 plugin, 124 timed out, 130 interrupted.

example:
  imagers inspect docker://registry.example.org/app:v1
"""

_TABLE = re.compile(r"^  ([a-z-]+) +(\S.*)$", re.MULTILINE)  # of the help
_COMPLETION = "_IMAGERS_COMPLETE"
_USAGE = 2
_INTERRUPTED = 130
_TERMINATED = 143
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_AGAIN_S = 0.01
_LOOK_S = 0.3  # whether what was raised is on its way
_GRACE_S = 3.0  # 10 000 staged files are removed in 0.3 s


class _Root(click.Group):
    """The program itself: verbs by name, imported on use; `help VERB` is `VERB --help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        module = VERBS.get(cmd_name)
        if module is None:
            return None
        command = importlib.import_module(f"imagers.cli.verbs.{module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, for the words behind `help` too."""
        word, *rest = args
        if word != "help":
            return super().resolve_command(ctx, args)
        if not rest:
            return word, self, [] if ctx.resilient_parsing else ["--help"]
        return self.resolve_command(ctx, rest if ctx.resilient_parsing else [*rest, "--help"])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, of which none is loaded for that; options."""
        from click.shell_completion import CompletionItem

        verbs = [] if incomplete.startswith("-") else [*VERBS, "help"]
        about = {verb: text.rpartition("  ")[2] for verb, text in _TABLE.findall(HELP)}
        items = [
            CompletionItem(verb, help=about.get(verb, "show the help of a verb"))
            for verb in verbs
            if verb.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        formatter.write(HELP)


@click.group(
    cls=_Root,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["--help", "-h"]},  # of all verbs
    params=common_options(),
)
@click.option("--version", is_flag=True)
@click.pass_context
def root(context: click.Context, *, version: bool) -> None:
    """Run a verb."""
    if version:
        click.echo(f"imagers {__version__}")
    elif context.invoked_subcommand is None:
        click.echo(HELP, nl=False)
        context.exit(_USAGE)


class _Terminated(BaseException):
    """SIGTERM arrived: unwinds like Ctrl-C, so that staging places are removed."""


class _Interrupted(KeyboardInterrupt):
    """SIGINT arrived.

    Of another type than Python's own, which remembers one of those that went through `exec` of
    a text (dataclasses do that) and kills itself by SIGINT at the end, whatever the exit code.
    """


class _Signals:
    """SIGINT and SIGTERM unwind the program; more of them do not disturb it in that.

    An impatient second Ctrl-C would interrupt the removal of a staging place. After the
    grace they count again.

    What they raise may get lost: Python drops it where it comes while an object is finalized, a
    stream for one, and says so only in some cases. So it is looked for a moment later: where no
    exception is being handled, none is on its way, and it is raised again.
    """

    def __init__(self) -> None:
        self._last = -_GRACE_S
        self._lost: type[BaseException] = _Interrupted
        self.is_told = False

    def finish(self) -> None:
        """Nothing ends the program any more but its own end, which is near."""
        self.is_told = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """A short block that none of them ends; one that comes is forgotten."""
        was_told, self.is_told = self.is_told, True
        try:
            yield
        finally:
            self.is_told = was_told

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        sys.unraisablehook = self._take_lost

    def _take_lost(self, lost: UnraisableHookArgs) -> None:
        """An exception that a destructor or a callback swallowed: ours comes again."""
        if not isinstance(lost.exc_value, (_Interrupted, _Terminated)):
            sys.__unraisablehook__(lost)
            return
        self._lost = lost.exc_type
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.is_told:
            return
        now = time.monotonic()
        is_new = number != signal.SIGALRM and now - self._last >= _GRACE_S
        if is_new:
            self._last = now
            self._lost = _Interrupted if number == signal.SIGINT else _Terminated
        elif number != signal.SIGALRM:
            return
        signal.setitimer(signal.ITIMER_REAL, _LOOK_S)
        if is_new or sys.exc_info()[1] is None:
            raise self._lost


def _show_warning(  # noqa: PLR0917  # the shape that `warnings` asks for
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del category, filename, lineno, file, line
    say("warning", str(message))


class _Ending:
    """Says how a run failed: in lines, and with `--json` as the one document on standard output.

    Attributes:
        context: of the run, as soon as there is one.
    """

    def __init__(self, arguments: list[str], signals: _Signals | None) -> None:
        self._signals = signals
        self._as_json = "--json" in itertools.takewhile(lambda word: word != "--", arguments)
        self.context: click.Context | None = None

    def fail(self, kind: str, text: str, hint: str | None, exit_code: int) -> int:
        """Tell it; the exit code."""
        _drop_output()  # what nobody took of it would change the exit code at Python's end
        # One error is told: with a signal in between there would be two, or half of one.
        with nullcontext() if self._signals is None else self._signals.held():
            say("error", text)
            if hint:
                say("hint", hint)
        has_printed = self.context is not None and self.context.meta.get(JSON_PRINTED, False)
        if self._as_json and not has_printed:
            facts = {"type": kind, "message": text, "hint": hint, "exit_code": exit_code}
            self._as_json = False  # once, also if this is interrupted
            try:
                print_json({"error": facts})
            except OSError:
                _drop_output()  # the lines and the exit code have to do
        return exit_code


def run(arguments: list[str], signals: _Signals | None = None) -> int:
    """Run the program; its exit code.

    Args:
        signals: what raises for them; None: nobody.
    """
    ending = _Ending(arguments, signals)
    try:
        return _run(arguments, ending, signals)  # also while an error is being told
    except (KeyboardInterrupt, click.Abort, _Terminated) as error:
        return _ended_by(error, ending, signals)
    except RuntimeError as error:
        # Of Python before 3.12, where it came while a class was being made.
        if not isinstance(error.__cause__, (KeyboardInterrupt, _Terminated)):
            raise
        return _ended_by(error.__cause__, ending, signals)


def _ended_by(signalled: BaseException, ending: _Ending, signals: _Signals | None) -> int:
    if signals is not None:
        signals.finish()
    if sys.stderr.isatty():
        click.echo(err=True)  # ends the line with the ^C, or with a question
    if isinstance(signalled, _Terminated):
        return ending.fail("Terminated", "terminated", None, _TERMINATED)
    return ending.fail("Interrupted", "interrupted", None, _INTERRUPTED)


def _run(arguments: list[str], ending: _Ending, signals: _Signals | None) -> int:
    debug = "--debug" in arguments
    try:
        # Not root.main(): it turns a closed pipe into exit code 1, and Ctrl-C into a line more.
        with root.make_context("imagers", list(arguments)) as context:
            ending.context = context
            if signals is not None:
                context.meta[FINISH] = signals.finish
            result = root.invoke(context)
        if sys.stdout is not None:  # it was closed by whoever started this
            sys.stdout.flush()
    except ImagersError as error:
        if debug:
            raise
        return ending.fail(type(error).__name__, str(error), error.hint, error.exit_code)
    except click.UsageError as error:
        return ending.fail("UsageError", _one_line(_message_of(error)), _hint_of(error), _USAGE)
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away: no fault, and nothing to say it to.
        _drop_output()
        return 0
    except OSError as error:
        # A file of the user, or standard output; all else was translated where it happened.
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        if _drop_output():
            where = "standard output: "
        from imagers.files import reason_of

        text = f"{where}{reason_of(error)}"
        return ending.fail("LocalError", text, None, LocalError.exit_code)
    return result if isinstance(result, int) else 0


def _message_of(error: click.UsageError) -> str:
    # Without click's "did you mean", which belongs into the hint.
    return error.format_message().partition("Did you mean")[0].rstrip(" .(")


def _hint_of(error: click.UsageError) -> str:
    """Where help is, and what was meant, as far as that is known."""
    context = error.ctx
    hint = f'"{context.command_path if context else "imagers"} --help" shows what it takes'
    unknown = re.search(r"No such command '([^']*)'", error.message)
    if context is None or not (unknown or isinstance(error, click.NoSuchOption)):
        return hint
    from imagers.cli import meant  # only where somebody mistyped

    if isinstance(error, click.NoSuchOption):
        found = meant.option(error.option_name, context)
    else:
        assert unknown is not None
        found = meant.word(unknown[1], context)
    return f"{found} {hint}" if found.endswith("?") else found or hint


def _drop_output() -> bool:
    """Whether standard output takes no more; then Python does not try it again at its end."""
    if sys.stdout is None:
        return False
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        return True
    return False


def _one_line(text: str) -> str:
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]


def main() -> NoReturn:
    """The console script."""
    if instruction := os.environ.get(_COMPLETION):
        from imagers.cli.completion import complete

        sys.exit(complete(root, _COMPLETION, instruction))
    warnings.simplefilter("default")
    warnings.showwarning = _show_warning
    # Loaded while a signal still ends the program at once, see `imagers.__main__`.
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if root.get_command(click.Context(root), verb) is not None:
        from imagers.settings import hide_secrets

        hide_secrets()
    signals = _Signals()
    signals.install()
    code = run(sys.argv[1:], signals)
    # All is said and done: a signal while Python takes itself down would only spoil the code.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
