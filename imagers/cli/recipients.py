# SPDX-License-Identifier: Apache-2.0
"""The recipients of `imagers encrypt` and the keys of `imagers decrypt` and `imagers pull`."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on
from imagers.cli.output import say
from imagers.cli.passphrases import ask_passphrase
from imagers.errors import UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagers.build.broker_key import BrokerKey
    from imagers.cli.brokers import BrokerOptions
    from imagers.encrypt.schemes.scheme import ProviderSettings
    from imagers.model.keys import KeyUnwrapper, KeyWrapper

__all__ = [
    "Recipients",
    "opened_recipients",
    "opened_unwrappers",
    "provider_settings",
    "timeout_option",
]

timeout_option = click.option(
    "--provider-timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    metavar="SECONDS",
)
"""`--provider-timeout`: for one answer of a key provider."""


def provider_settings(timeout_s: float | None = None) -> ProviderSettings:
    """Key providers as the environment configures them; a person is asked for passphrases."""
    return read_settings().providers(
        timeout_s, ask=lambda path: ask_passphrase(f"--decryption-key {path}")
    )


@dataclass(frozen=True, slots=True)
class Recipients:
    """Those of `--encryption-key`, opened.

    Attributes:
        wrappers: of all but the broker's.
        broker_key: the image's key at the broker, not made yet; None: there is none.
    """

    wrappers: tuple[KeyWrapper, ...]
    broker_key: BrokerKey | None


@contextmanager
def opened_recipients(
    texts: Sequence[str],
    broker: BrokerOptions,
    *,
    replace: bool,
    kek_file: str | None,
    timeout_s: float | None = None,
) -> Iterator[Recipients]:
    """Keys, certificates, keyrings and providers of all recipients, and the key at the broker.

    Args:
        texts: of `--encryption-key`.
        broker: where `broker:` recipients are.
        replace: overwrite a key of the same name.
        kek_file: a key to use instead of a fresh one; the broker is then not asked.
        timeout_s: for one answer of a key provider; None for the default.
    """
    from imagers.build.broker_key import BrokerKey, load_kek
    from imagers.encrypt.recipients import parse_recipients
    from imagers.encrypt.schemes.broker import is_open_name
    from imagers.encrypt.wrappers import opened_wrappers

    with blamed_on("--encryption-key"):
        parsed = parse_recipients(texts)
    at_broker = [one.value for one in parsed if one.scheme == "broker"]
    if len(at_broker) > 1:
        raise UsageError("expected one broker: recipient at most, got several")
    if kek_file is not None and (not at_broker or is_open_name(at_broker[0])):
        raise UsageError("--kek-file needs a recipient broker:kbs:///REPOSITORY/TYPE/NAME")
    if kek_file is None and at_broker:
        broker.require_url()
    others = [one for one in parsed if one.scheme != "broker"]
    with ExitStack() as stack:
        with blamed_on("--encryption-key"):
            wrappers = stack.enter_context(opened_wrappers(others, provider_settings(timeout_s)))
        key = kek = None
        if kek_file is not None:
            with blamed_on("--kek-file"):
                kek = stack.enter_context(load_kek(kek_file))
        if at_broker:
            key = BrokerKey(
                at_broker[0],
                broker.admin,
                kek=kek,
                replace=replace,
                on_unbound=lambda kid: say(
                    "", f"the key {kid} is in the broker, bound to no image: no guest gets it"
                ),
            )
        yield Recipients(wrappers, key)


@contextmanager
def opened_unwrappers(
    keys: Sequence[str], timeout_s: float | None = None
) -> Iterator[tuple[KeyUnwrapper, ...]]:
    """The keys of `--decryption-key`.

    Args:
        timeout_s: for one answer of a key provider; None for the default.

    Raises:
        UsageError, LocalError, FormatError, KeyUnavailable: one of them is not usable.
    """
    from imagers.encrypt.recipients import DecryptionKey, parse_decryption_key
    from imagers.encrypt.wrappers import opened_unwrappers as opened

    with blamed_on("--decryption-key"):
        parsed = [parse_decryption_key(text) for text in keys]
    if any(
        isinstance(key, DecryptionKey)
        and key.has_password_in_argument
        and not os.path.isfile(key.certificate)  # FILE:CERT is no password
        for key in parsed
    ):
        say(
            "warning",
            "a password in an argument can be read by everybody on this machine; "
            "use FILE:file=PASSWORDFILE or FILE:fd=N",
        )
    with ExitStack() as stack:
        with blamed_on("--decryption-key"):
            unwrappers = stack.enter_context(opened(parsed, provider_settings(timeout_s)))
        yield unwrappers
