"""The `imagers` program: finds the verb, runs it, turns errors into lines and exit codes.

Verbs are imported when they are called, so that `imagers --version` loads neither
cryptography nor an HTTP client.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, NoReturn

import click

from imagers import __version__
from imagers.cli.output import say
from imagers.errors import ImagersError

if TYPE_CHECKING:
    from types import FrameType
    from typing import TextIO

__all__ = ["VERBS", "main", "root"]

# Every verb, in the order of the help. The value is the module below imagers.cli.verbs.
VERBS = {
    "copy": "copy",
    "encrypt": "encrypt",
    "decrypt": "decrypt",
    "sign": "sign",
    "inspect": "inspect",
    "pull": "pull",
    "key": "key",
    "broker": "broker",
}

HELP = """\
usage: imagers VERB [OPTION]... [ARGUMENT]...

Takes container images to confidential guests: encrypted, signed, verified.

  copy      SRC DST                 copy an image; bytes and digests unchanged
  encrypt   SRC DST                 encrypt its layers, a key of its own for each
  decrypt   SRC DST                 decrypt its layers with key files
  sign      REF                     sign it in its registry
  inspect   REF                     show what is encrypted, how, for whom; signatures
  pull      REF BUNDLE              verify, get keys, decrypt, unpack for a runtime
  key       generate | show         signing and encryption keys
  broker    serve | put | get | list | delete | policy | audit

REF, SRC, DST: docker://HOST/NAME[:TAG|@DIGEST] or oci:PATH[:TAG]; a bare name is docker://.

  --version    print the version
  --debug      show a traceback with every error
  --help       this text; "imagers VERB --help" has that of a verb

exit codes: 0 done, 1 bug of imagers, 2 usage, 10 remote, 11 format, 12 unsupported,
13 local (path, disk, permission), 20 integrity, 21 verification says no,
22 could not verify, 30 no key, 31 key refused, 40 attestation, 50 plugin,
130 interrupted.

example:
  imagers inspect docker://registry.example.org/app:v1
"""

_BUG = 1
_USAGE = 2
_INTERRUPTED = 130
_TERMINATED = 143


class _Root(click.Group):
    """The program itself: verbs by name, imported on use."""

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

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        formatter.write(HELP)


@click.group(cls=_Root, invoke_without_command=True, no_args_is_help=False)
@click.option("--version", is_flag=True)
@click.option("--debug", is_flag=True)
@click.pass_context
def root(context: click.Context, *, version: bool, debug: bool) -> None:
    """Run a verb."""
    del debug  # read by main(), which is where errors end
    if version:
        click.echo(f"imagers {__version__}")
    elif context.invoked_subcommand is None:
        click.echo(HELP, nl=False)
        context.exit(_USAGE)


class _Terminated(BaseException):
    """SIGTERM arrived: unwinds like Ctrl-C, so that staging places are removed."""


def _on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise _Terminated


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


def _fail(error: ImagersError) -> int:
    say("error", str(error))
    if error.hint:
        say("hint", error.hint)
    return error.exit_code


def run(arguments: list[str]) -> int:
    """Run the program; its exit code."""
    debug = "--debug" in arguments
    try:
        result = root.main(args=arguments, prog_name="imagers", standalone_mode=False)
        sys.stdout.flush()
    except ImagersError as error:
        if debug:
            raise
        return _fail(error)
    except click.UsageError as error:
        say("error", _one_line(error.format_message()))
        path = error.ctx.command_path if error.ctx else "imagers"
        say("hint", f'"{path} --help" shows what it takes')
        return _USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("error", "interrupted; nothing was published")
        return _INTERRUPTED
    except _Terminated:
        say("error", "terminated; nothing was published")
        return _TERMINATED
    except BrokenPipeError:
        # The reader of our output went away: no fault, and nothing to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        # A file of the user; everything else was translated where it happened.
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        say("error", f"{where}{(error.strerror or str(error)).lower()}")
        return 13
    return result if isinstance(result, int) else 0


def _one_line(text: str) -> str:
    text = " ".join(text.split()).removesuffix(".")
    return text[:1].lower() + text[1:]


def main() -> NoReturn:
    """The console script."""
    warnings.simplefilter("default")
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _on_sigterm)
    sys.exit(run(sys.argv[1:]))
