# SPDX-License-Identifier: Apache-2.0
"""Passphrases of private keys: from a file, from a variable, or asked for on a terminal.

The order is that of cosign: what the user named (`--passphrase-file`), then `COSIGN_PASSWORD` for
keys in cosign's format, then the terminal. A key that opens without one asks for nothing.
"""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from typing import TYPE_CHECKING, TypeVar

from imagers.cli.command import blamed_on
from imagers.cli.output import harmless, say
from imagers.errors import KeyUnavailable, UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.keys import SecretKey

__all__ = ["ask_passphrase", "new_passphrase", "open_with_passphrase", "read_passphrase"]

_VARIABLE = "COSIGN_PASSWORD"
_Key = TypeVar("_Key")


def read_passphrase(path: str) -> SecretKey:
    """The passphrase in a file, without its line end.

    Raises:
        LocalError, UsageError: the file cannot be read, or is empty.
    """
    from imagers.encrypt.keyfiles import Password, read_password

    with blamed_on("--passphrase-file"):
        return read_password(Password("file", path=path))


def open_with_passphrase(
    load: Callable[[SecretKey], _Key], path: str | None, *, what: str, has_variable: bool
) -> _Key:
    """What `load` makes of a passphrase, which is wiped afterwards.

    Args:
        load: raises `KeyUnavailable` where the passphrase is not the right one; an empty one
            stands for none.
        path: of `--passphrase-file`; None if it was not given.
        what: option and file, for messages.
        has_variable: whether `COSIGN_PASSWORD` is looked at.

    Raises:
        KeyUnavailable: the passphrase does not open it, or nobody gave one.
        LocalError, UsageError: as for `read_passphrase`; and from `load`.
    """
    secret, source = _given(path, has_variable=has_variable)
    with secret:
        try:
            return load(secret)
        except KeyUnavailable as error:
            if source:
                raise KeyUnavailable(
                    f"{what}: the passphrase of {source} does not open it",
                    hint="give the passphrase that the key was made with",
                ) from error
            wanted = error
    typed = ask_passphrase(what)
    if typed is None:
        variable = f" or in {_VARIABLE}" if has_variable else ""
        raise KeyUnavailable(
            f"{what}: the key has a passphrase, and none was given",
            hint=f"give it with --passphrase-file{variable}; on a terminal it is asked for",
        ) from wanted
    with typed:
        try:
            return load(typed)
        except KeyUnavailable as error:
            raise KeyUnavailable(
                f"{what}: the passphrase that was typed does not open it"
            ) from error


def new_passphrase(path: str | None) -> SecretKey:
    """The passphrase for a new key in cosign's format; on a terminal it is typed twice.

    An empty one is allowed, as by cosign, and said aloud: whoever reads the file has the key.

    Raises:
        UsageError: it was typed in two ways.
        LocalError, UsageError: as for `read_passphrase`.
    """
    secret, source = _given(path, has_variable=True)
    if not source:
        typed = ask_passphrase("the new key", "; empty for none")
        if typed is not None:
            again = ask_passphrase("the new key", ", again")
            if again is None or typed != again:
                raise UsageError("the passphrase was typed in two different ways")
            secret = typed
    if not len(secret):
        say("warning", "the passphrase is empty: whoever can read the private key can sign with it")
    return secret


def ask_passphrase(what: str, more: str = "") -> SecretKey | None:
    """A passphrase that somebody types; None where standard input is no terminal.

    It is read from the terminal itself and not shown. Python's text of it cannot be wiped.

    Raises:
        UsageError: the terminal cannot be told not to show it, or its line has ended.
    """
    from imagers.model.keys import SecretKey

    # Not the terminal behind a pipe: what is fed by a program has nobody who types.
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            text = getpass.getpass(f"passphrase of {harmless(what)}{more}: ")
    except (EOFError, getpass.GetPassWarning, OSError):
        raise UsageError(f"{what}: no passphrase could be read from the terminal") from None
    return SecretKey(os.fsencode(text))


def _given(path: str | None, *, has_variable: bool) -> tuple[SecretKey, str]:
    """The passphrase, and who gave it: "" where nobody did."""
    from imagers.model.keys import SecretKey

    if path is not None:
        return read_passphrase(path), f"--passphrase-file {path}"
    password = read_settings().cosign_password
    if has_variable and password is not None:
        return SecretKey(os.fsencode(password)), _VARIABLE
    return SecretKey(b""), ""
