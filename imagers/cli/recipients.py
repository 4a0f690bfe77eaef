"""The recipients of `imagers encrypt` and the keys of `imagers decrypt` and `imagers pull`."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on
from imagers.cli.output import say
from imagers.cli.passphrases import ask_passphrase
from imagers.errors import FormatError, NotFound, Unsupported, UsageError
from imagers.files import local_errors
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from imagers.cli.brokers import BrokerOptions
    from imagers.encrypt.recipients import BrokerRecipient
    from imagers.encrypt.wrappers import ProviderSettings
    from imagers.model.digest import Digest
    from imagers.model.keys import KeyUnwrapper, KeyWrapper, SecretKey

__all__ = ["ImageKeys", "opened_unwrappers", "provider_settings", "timeout_option"]

timeout_option = click.option(
    "--provider-timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=86400),
    metavar="SECONDS",
)
"""`--provider-timeout`: for one answer of a key provider."""

_KEK_BYTES = 32


def provider_settings(timeout_s: float | None = None) -> ProviderSettings:
    """Key providers as the environment configures them.

    Args:
        timeout_s: for one answer of a provider; None for the default.
    """
    from imagers.encrypt.schemes.provider import TIMEOUT_S
    from imagers.encrypt.wrappers import ProviderSettings

    settings = read_settings()
    return ProviderSettings(
        config_path=settings.keyprovider_config,
        timeout_s=TIMEOUT_S if timeout_s is None else timeout_s,
        oaep_hash=settings.oaep_hash,
        ask=lambda path: ask_passphrase(f"--decryption-key {path}"),
    )


class ImageKeys:
    """The wrappers for one image, with its key-encryption key in the broker.

    Entering opens keys, certificates, keyrings and providers of all recipients and stores
    the key-encryption key, so it is in the broker before anything of the image is published.
    `bind` registers the manifest with it afterwards. Leaving wipes it.

    Args:
        recipients: texts of `--encryption-key`.
        broker: where `broker:` recipients are.
        replace: overwrite a key of the same name.
        kek_file: a key to use instead of a fresh one; the broker is then not asked.
        timeout_s: for one answer of a key provider; None for the default.
    """

    def __init__(
        self,
        recipients: Sequence[str],
        broker: BrokerOptions,
        *,
        replace: bool,
        kek_file: str | None,
        timeout_s: float | None = None,
    ) -> None:
        from imagers.encrypt.recipients import BrokerRecipient, parse_recipients

        with blamed_on("--encryption-key"):
            parsed = parse_recipients(recipients)
        brokers = [one for one in parsed if isinstance(one, BrokerRecipient)]
        if len(brokers) > 1:
            raise UsageError("expected one broker: recipient at most, got several")
        if kek_file is not None and (not brokers or brokers[0].is_fresh):
            raise UsageError("--kek-file needs a recipient broker:kbs:///REPOSITORY/TYPE/NAME")
        if kek_file is None and brokers:
            broker.require_url()
        self._others = [one for one in parsed if not isinstance(one, BrokerRecipient)]
        self._timeout_s = timeout_s
        self._recipient: BrokerRecipient | None = brokers[0] if brokers else None
        self._broker = broker
        self._replace = replace
        self._kek_file = kek_file
        self._stored = False
        self._stack = ExitStack()
        self.kid: str | None = None
        self.wrappers: tuple[KeyWrapper, ...] = ()

    def __enter__(self) -> Self:
        from imagers.encrypt.schemes.broker import BrokerKeyWrapper
        from imagers.encrypt.wrappers import opened_wrappers

        wrappers: list[KeyWrapper] = []
        with ExitStack() as unless_entered:
            if self._others:
                settings = provider_settings(self._timeout_s)
                with blamed_on("--encryption-key"):
                    opened = opened_wrappers(self._others, settings)
                    wrappers += unless_entered.enter_context(opened)
            if self._recipient is not None:
                self.kid = self._recipient.kid()
                with blamed_on("--kek-file"):
                    kek = unless_entered.enter_context(self._kek())
                self._store(kek)
                wrappers.append(BrokerKeyWrapper(kek, self.kid))
            self._stack = unless_entered.pop_all()
        self.wrappers = tuple(wrappers)
        return self

    def _kek(self) -> SecretKey:
        from imagers.model.keys import SecretKey, random_secret

        if self._kek_file is None:
            return random_secret(_KEK_BYTES)
        with local_errors(self._kek_file), open(self._kek_file, "rb") as file:
            data = file.read(_KEK_BYTES + 1)
        if len(data) != _KEK_BYTES:
            raise FormatError(
                f"expected exactly {_KEK_BYTES} bytes, got "
                + (f"{len(data)}" if len(data) < _KEK_BYTES else "more"),
                what=self._kek_file,
                hint="a raw key, as 'imagers key generate kek' makes it",
            )
        return SecretKey(data)

    def _store(self, kek: SecretKey) -> None:
        if self._kek_file is not None:
            return
        assert self.kid is not None
        with self._broker.admin() as admin:
            # A broker that cannot bind a key to an image cannot refuse a name that is taken
            # either: it is found out before it could overwrite anything.
            try:
                admin.metadata(self.kid)
            except NotFound:
                pass
            except Unsupported as error:
                raise Unsupported(
                    f"{error}: expected a broker that keeps a key for one image",
                    hint="put a key there yourself and name its file with --kek-file",
                ) from error
            admin.put_resource(self.kid, kek, replace=self._replace)
        self._stored = True

    def bind(self, digest: Digest) -> None:
        """Register the manifest with the key: from now on it is this image's key.

        Raises:
            RemoteError: the broker could not be asked; the image is published and signed by
                nobody yet, and no guest gets its key.
        """
        if self._stored:
            assert self.kid is not None
            with self._broker.admin() as admin:
                admin.bind_manifest(self.kid, digest)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        if value is not None and self._stored:
            say("", f"the key {self.kid} is in the broker, bound to no image: no guest gets it")


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
