"""Key providers as wrapper and unwrapper, whether they are programs or services.

    config = find_provider(load_provider_config(path), "attestation-agent")
    wrapper = ProviderWrapper("attestation-agent", config, ["keyid=kbs:///default/key/1"])

A packet is opaque here: what is in it is between the two sides of the provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.encrypt.schemes.providers.config import ProgramProvider, check_provider_name
from imagers.encrypt.schemes.providers.messages import (
    build_unwrap_question,
    build_wrap_question,
    parse_unwrap_answer,
    parse_wrap_answer,
)
from imagers.encrypt.schemes.providers.program import ask_program
from imagers.encrypt.schemes.providers.remote import ask_service
from imagers.model.keys import KeyUnwrapper, KeyWrapper, NotMine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.encrypt.schemes.providers.config import ProviderConfig
    from imagers.model.keys import SecretKey, UnwrapContext, WrapContext, WrappedKey

__all__ = ["TIMEOUT_S", "ProviderUnwrapper", "ProviderWrapper"]

TIMEOUT_S = 60.0
"""How long a provider may take for one answer: an attestation may be behind it."""


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
