# SPDX-License-Identifier: Apache-2.0
"""The options of what a guest measures, and of what its host may steer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import click

from imagers.cli.command import blamed_on, option_group
from imagers.cli.output import print_bytes, say
from imagers.errors import PolicyDenied
from imagers.model.origin import check_origin
from imagers.settings.documents import Document, is_at_broker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imagers.cli.brokers import BrokerOptions
    from imagers.cli.images import RegistryOptions
    from imagers.evidence.init_data import InitData
    from imagers.model.evidence import Measure
    from imagers.model.origin import Origin
    from imagers.pull.measured_settings import MeasuredSettings
    from imagers.pull.named import NamedImage
    from imagers.settings import Settings
    from imagers.settings.guest import Said
    from imagers.sign.policy_json import Policy

__all__ = [
    "Measuring",
    "OwnInitData",
    "check_used",
    "measuring_options",
    "print_settings",
    "settle",
]


class OwnInitData(NamedTuple):
    """The init data that this machine was started with: the document, and what is in it."""

    text: str
    document: InitData


@dataclass(frozen=True, slots=True)
class Measuring:
    """What is measured, and what is believed of settings.

    Attributes:
        register: that is extended; None: none is.
        init_data: path of the document that this machine was started with.
        unmeasured: settings count wherever they come from.
        only_print: the settings document is asked for, and no pull.
    """

    register: str | None
    init_data: str | None
    unmeasured: bool
    only_print: bool

    def measure(self) -> Measure | None:
        """What measures; raises as `measure_of_machine`."""
        from imagers.cli.machine import measure_of_machine

        return None if self.register is None else measure_of_machine(self.register)

    def read_init_data(self, tee: str | None) -> OwnInitData | None:
        """The init data, which is that of this machine by the word of its hardware.

        Args:
            tee: as for `BrokerOptions.guest`.

        Raises:
            FormatError, LocalError: it is none, or cannot be read.
            NoTEE, Unsupported, EvidenceRejected: it is not that of this machine.
        """
        if self.init_data is None or self.only_print:
            return None
        from imagers.cli.machine import attester_of_machine
        from imagers.evidence.init_data import MAX_INIT_DATA, parse_init_data
        from imagers.evidence.own import check_own_init_data
        from imagers.files import read_bounded

        with blamed_on("--init-data"):
            data = read_bounded(self.init_data, max_bytes=MAX_INIT_DATA)
            document = parse_init_data(data)
            name = (tee or "").partition(",")[0]
            check_own_init_data(attester_of_machine(name or None), document.digest)
        return OwnInitData(data.decode(), document)

    def settings(
        self,
        ref: str,
        user: Settings,
        broker: BrokerOptions,
        registry: RegistryOptions,
        policy: str | None,
    ) -> MeasuredSettings | None:
        """The settings of a pull that a host could have chosen, before anybody is asked anything.

        What a broker has is in it by its name: who the broker is decides what it says. None where
        nobody wants to know.

        Args:
            policy: of `--policy`.

        Raises:
            As what reads them for the pull.
        """
        if self.register is None and self.init_data is None and not self.only_print:
            return None
        from imagers.cli.images import name_of
        from imagers.pull.measured_settings import MeasuredSettings
        from imagers.pull.named import identity_of
        from imagers.registry.mirrors import AUTH_FILES, RegistriesConf

        name = name_of(ref)
        place = user.find_policy(policy)
        if place is None or not is_at_broker(place):
            place = str(user.policy_for(identity_of(name), policy).digest)
        if not name.is_remote:
            return MeasuredSettings(broker.measured(), place)
        rules = registry.image_rs_registries
        document = user.guest.registries if rules is None else Document(rules)
        if isinstance(document, Document) and is_at_broker(document.name):
            registries: RegistriesConf | str = document.name
        else:
            registries = user.registries(rules)
        logins = user.guest.logins if registry.authfile is None else Document(registry.authfile)
        has_logins = logins is not None and is_at_broker(logins.name)
        if has_logins and isinstance(registries, RegistriesConf):  # then no program is asked
            registries = replace(registries, credential_helpers=(AUTH_FILES,))
        if registry.creds is not None:
            auth = ["--creds"]
        elif logins is not None:
            auth = [logins.name]
        else:
            auth = [str(one) for one in user.auth_files]
        return MeasuredSettings(broker.measured(), place, registries, tuple(auth))

    def check_broker(self, broker: BrokerOptions, *, is_vouched_for: bool) -> None:
        """Raise where a host may have named the broker, or its CA; before it is asked.

        Args:
            is_vouched_for: init data has the settings in force.

        Raises:
            PolicyDenied: it may.
        """
        measured = broker.measured()
        if measured is not None:
            with self._refusing():
                measured.check_sources(is_vouched_for=is_vouched_for)

    def check_images(
        self, user: Settings, policy: str | None, registry: RegistryOptions, *, is_vouched_for: bool
    ) -> None:
        """Raise where a host may have said which images count, or where they are found.

        Args:
            policy: of `--policy`.
            is_vouched_for: init data has the settings in force; of certificates it has nothing.

        Raises:
            PolicyDenied: it may.
            As what reads them for the pull.
        """
        if self.only_print:
            return
        guest = user.guest
        found: list[tuple[Origin, str, str]] = []
        if guest.roots:
            found.append((guest.origin, "a certificate for registries", "extra_root_certificates"))
        if not is_vouched_for:
            place = user.find_policy(policy)
            if place is not None:
                document = guest.policy if policy is None else None
                document = document or Document(place, by=place)
                with blamed_on("--policy" if policy else document.by):
                    found.append((document.content_origin(), "the policy", document.by))
            rules = registry.image_rs_registries
            named = guest.registries if rules is None else Document(rules, by=rules)
            where = "where names of images lead"
            if isinstance(named, Document):
                with blamed_on("--image-rs-registries" if rules else named.by):
                    found.append((named.content_origin(), where, named.by))
            elif named is not None:
                found.append((guest.origin, where, "registry_config"))
        for one in found:
            with self._refusing():
                check_origin(*one)

    def check_store(self, said: Sequence[Said]) -> None:
        """Raise where a host may have named the place of unpacked layers.

        Raises:
            PolicyDenied: it may.
        """
        for one in said:
            with self._refusing():
                check_origin(one.origin, "where unpacked layers are kept", one.by)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """A block that raises for what a host may have set, or warns where it counts."""
        try:
            yield
        except PolicyDenied as error:
            if not self.unmeasured:
                raise
            say("warning", f"{error}; it counts all the same")


def settle(
    settings: MeasuredSettings, init_data: OwnInitData | None, measure: Measure | None
) -> None:
    """Compare settings with the init data, and measure them.

    Raises:
        PolicyDenied: the init data has other ones, or none.
        FormatError: what it has is no settings document.
        As `Measure.record`.
    """
    from imagers.pull.measured_settings import INIT_DATA_KEY

    if init_data is not None:
        stated = init_data.document.data.get(INIT_DATA_KEY)
        if stated is None:
            raise PolicyDenied(
                f"settings: the init data of this machine has no {INIT_DATA_KEY!r}",
                hint="'imagers pull --print-settings' prints it; docs/guest.md says how it gets "
                "there",
            )
        with blamed_on("--init-data"):
            settings.check_init_data(stated)
    if measure is not None:
        measure.record("Settings", settings.event)


def check_used(settings: MeasuredSettings, image: NamedImage, policy: Policy) -> None:
    """Raise unless a pull uses what was measured: files were read a second time for it.

    Raises:
        PolicyDenied: one was exchanged in between.
    """
    options = image.transport_options
    assert options is not None  # opened by its name
    settings.check_used(policy.digest, options.registries)


def print_settings(settings: MeasuredSettings) -> None:
    """Print the document, and its digest beside it."""
    print_bytes(settings.to_bytes() + b"\n")
    say("", f"settings {settings.digest}")


def _options(
    *, register: str | None, init_data: str | None, unmeasured: bool, only_print: bool
) -> Measuring:
    return Measuring(register, init_data, unmeasured, only_print)


measuring_options = option_group(
    "measuring",
    _options,
    {
        "register": click.option("--measure", "register", metavar="REGISTER"),
        "init_data": click.option("--init-data", "init_data", metavar="FILE"),
        "unmeasured": click.option("--insecure-unmeasured-settings", "unmeasured", is_flag=True),
        "only_print": click.option("--print-settings", "only_print", is_flag=True),
    },
)
"""The options of a guest's pull; the verb gets them as `measuring`."""
