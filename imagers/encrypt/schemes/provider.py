# SPDX-License-Identifier: Apache-2.0
"""Key providers as wrapper and unwrapper, whether they are programs or services.

    config = find_provider(load_provider_config(path), "attestation-agent")
    wrapper = ProviderWrapper("attestation-agent", config, ["keyid=kbs:///default/key/1"])

A packet is opaque here: what is in it is between the two sides of the provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.encrypt.annotations import COCO_SCHEME
from imagers.encrypt.schemes.broker import NameTarget, parse_packet
from imagers.encrypt.schemes.providers.config import (
    ProgramProvider,
    check_provider_name,
    find_provider,
    load_provider_config,
)
from imagers.encrypt.schemes.providers.messages import (
    build_unwrap_question,
    build_wrap_question,
    parse_unwrap_answer,
    parse_wrap_answer,
)
from imagers.encrypt.schemes.providers.program import ask_program
from imagers.encrypt.schemes.providers.remote import ask_service
from imagers.encrypt.schemes.scheme import TIMEOUT_S, Scheme
from imagers.errors import KeyUnavailable, UsageError
from imagers.model.keys import KeyUnwrapper, KeyWrapper, NotMine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import ExitStack

    from imagers.encrypt.schemes.providers.config import ProviderConfig
    from imagers.encrypt.schemes.scheme import ProviderSettings, Target
    from imagers.model.keys import SecretKey, UnwrapContext, WrapContext, WrappedKey

__all__ = ["SCHEME", "ProviderUnwrapper", "ProviderWrapper", "open_unwrapper"]


class _Provider:
    def __init__(self, name: str, config: ProviderConfig, timeout_s: float) -> None:
        self._name = check_provider_name(name, what="key provider")
        self._config = config
        self._timeout_s = timeout_s

    def _ask(self, method: str, question: SecretKey, what: str) -> SecretKey:
        named = f"{what}: key provider {self._name!r}"
        if isinstance(self._config, ProgramProvider):
            return ask_program(self._config, question, timeout_s=self._timeout_s, what=named)
        return ask_service(self._config, method, question, timeout_s=self._timeout_s, what=named)


class ProviderWrapper(_Provider):
    """Wraps by a provider, for all recipients that have it.

    Args:
        name: as the configuration calls it, and then the annotation.
        parameters: what follows `provider:NAME:`, one a recipient; "" for nothing.
        timeout_s: for one answer.
    """

    def __init__(
        self,
        name: str,
        config: ProviderConfig,
        parameters: Sequence[str] = ("",),
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(name, config, timeout_s)
        self._parameters = tuple(parameters)

    @property
    def scheme(self) -> str:
        """`provider.NAME`."""
        return f"provider.{self._name}"

    @property
    def recipients(self) -> tuple[str, ...]:
        """The provider alone: its parameters may be secret."""
        return (f"provider:{self._name}",)

    def wrap(self, private_options: SecretKey, context: WrapContext) -> bytes:
        """What the provider makes of them.

        Raises:
            ProviderFailed: it gives no packet.
        """
        named = f"{context.what}: key provider {self._name!r}"
        with (
            build_wrap_question(self._name, self._parameters, private_options) as question,
            self._ask("WrapKey", question, context.what) as answer,
        ):
            return parse_wrap_answer(answer, what=named)


class ProviderUnwrapper(_Provider):
    """Asks a provider for what it wrapped.

    Args:
        parameters: what follows `provider:NAME:`; "" for nothing.
    """

    def __init__(
        self,
        name: str,
        config: ProviderConfig,
        parameters: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        super().__init__(name, config, timeout_s)
        self._parameters = parameters

    @property
    def description(self) -> str:
        """The provider's name."""
        return f"key provider {self._name!r}"

    def unwrap(self, wrapped: WrappedKey, context: UnwrapContext) -> SecretKey:
        """The private options; the caller closes them.

        Raises:
            NotMine: a packet of another provider or scheme.
            ProviderFailed: it does not open this one.
        """
        if wrapped.scheme != f"provider.{self._name}":
            raise NotMine(f"the scheme is {wrapped.scheme[:80]!r}")
        named = f"{context.what}: key provider {self._name!r}"
        with (
            build_unwrap_question(self._name, self._parameters, wrapped.packet) as question,
            self._ask("UnWrapKey", question, context.what) as answer,
        ):
            return parse_unwrap_answer(answer, what=named)


_wrapper: type[KeyWrapper] = ProviderWrapper
_unwrapper: type[KeyUnwrapper] = ProviderUnwrapper


def _find(name: str, settings: ProviderSettings) -> ProviderConfig:
    """The provider of that name.

    Raises:
        KeyUnavailable: there is none.
        LocalError, FormatError, Unsupported: its configuration.
    """
    if settings.config_path is None:
        raise KeyUnavailable(
            f"key provider {name[:80]!r}: no provider is configured",
            hint="set OCICRYPT_KEYPROVIDER_CONFIG to the path of a configuration",
        )
    return find_provider(load_provider_config(settings.config_path), name)


def open_unwrapper(name: str, parameters: str, settings: ProviderSettings) -> ProviderUnwrapper:
    """The unwrapper of the provider of that name.

    Raises:
        KeyUnavailable: there is none.
        LocalError, FormatError, Unsupported: its configuration.
    """
    return ProviderUnwrapper(name, _find(name, settings), parameters, timeout_s=settings.timeout_s)


class _ProviderScheme(Scheme):
    """`provider:NAME[:PARAMETERS]`; the parameters are for the provider to read."""

    def check(self, value: str) -> None:
        """See `Scheme`."""
        check_provider_name(value.partition(":")[0], what="recipient")

    def open_wrappers(
        self, values: Sequence[str], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyWrapper]:
        """See `Scheme`."""
        del stack
        providers: dict[str, list[str]] = {}
        for value in values:
            name, _, parameters = value.partition(":")
            providers.setdefault(name, []).append(parameters)
        return [
            ProviderWrapper(name, _find(name, settings), parameters, timeout_s=settings.timeout_s)
            for name, parameters in providers.items()
        ]

    def load_target(self, value: str, settings: ProviderSettings) -> Target:
        """See `Scheme`."""
        del settings
        name, _, parameters = value.partition(":")
        if parameters:
            raise UsageError(
                f"provider:{name}: only the provider can read its parameters",
                hint=f"give provider:{name}, or provider.{name}#NUMBER",
            )
        return NameTarget(f"provider.{name}", "", f"provider:{name}")

    def list_recipients(self, wrapped: WrappedKey) -> list[tuple[str, str]]:
        """See `Scheme`."""
        parsed = parse_packet(wrapped.packet, what="")
        return [(parsed.wrap_type or parsed.provider, parsed.kid)]

    def check_packet(self, wrapped: WrappedKey) -> None:
        """See `Scheme`."""
        if wrapped.scheme == COCO_SCHEME:  # what others write is theirs to read
            self.list_recipients(wrapped)


SCHEME = _ProviderScheme()
