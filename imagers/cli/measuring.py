# SPDX-License-Identifier: Apache-2.0
"""The options of what a guest measures, and of what its host may steer."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import click

from imagers.cli.command import blamed_on, option_group
from imagers.cli.output import print_bytes, say
from imagers.errors import PolicyDenied, UsageError
from imagers.model.origin import check_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.cli.brokers import BrokerOptions
    from imagers.evidence.init_data import InitData
    from imagers.model.evidence import Measure
    from imagers.pull.measured_settings import MeasuredSettings
    from imagers.pull.named import NamedImage
    from imagers.settings.documents import Document
    from imagers.sign.policy_json import Policy

__all__ = [
    "BrokerGuard",
    "Measuring",
    "OwnInitData",
    "measuring_options",
    "print_settings",
    "settings_in_force",
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
        from imagers.cli.machine import attester_of_machine
        from imagers.evidence.init_data import MAX_INIT_DATA, parse_init_data
        from imagers.evidence.own import check_own_init_data
        from imagers.files import read_bounded
        from imagers.model.evidence import ReportData

        if self.init_data is None or self.only_print:
            return None
        with blamed_on("--init-data"):
            data = read_bounded(self.init_data, max_bytes=MAX_INIT_DATA)
            document = parse_init_data(data)
            name = (tee or "").partition(",")[0]
            evidence = attester_of_machine(name or None).collect(ReportData(bytes(64)))
            check_own_init_data(evidence, document.digest)
        return OwnInitData(data.decode(), document)

    @property
    def is_asked(self) -> bool:
        """Whether settings are measured, or compared with what was."""
        return self.register is not None or self.init_data is not None

    def check_policy(self, named: Document | None) -> None:
        """Raise if the host may have named the policy of a guest's configuration.

        Raises:
            PolicyDenied: it may.
        """
        if named is not None and not self.only_print:
            with _refusing(unmeasured=self.unmeasured):
                check_origin(named.origin, "the policy", named.by)

    def settle(
        self,
        settings: MeasuredSettings,
        init_data: OwnInitData | None,
        measure: Measure | None,
        guard: BrokerGuard,
    ) -> None:
        """Compare settings with the init data, and measure them; from then on a broker is asked.

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
                    hint="'imagers pull --print-settings' prints it; docs/guest.md says how it "
                    "gets there",
                )
            with blamed_on("--init-data"):
                settings.check_init_data(stated)
        if measure is not None:
            measure.record("Settings", settings.event)
        guard.settled(is_vouched_for=init_data is not None)


class BrokerGuard:
    """Called before a broker is asked for the first time: raises where it must not be.

    Args:
        unmeasured: it may be one that a host named.
        waits: settings are measured or compared first.
    """

    def __init__(self, broker: BrokerOptions, *, unmeasured: bool, waits: bool) -> None:
        self._broker = broker
        self._unmeasured = unmeasured
        self._waits = waits
        self._is_vouched_for = False

    def settled(self, *, is_vouched_for: bool) -> None:
        """Settings are measured, or compared with init data that has them."""
        self._waits, self._is_vouched_for = False, is_vouched_for

    def __call__(self) -> None:
        """See the class.

        Raises:
            PolicyDenied: the host may have named the broker, or its CA.
            UsageError: the broker has settings that were to be measured before it is asked.
        """
        if self._waits:
            raise UsageError(
                "settings that a broker has cannot be measured before it is asked",
                hint="name files, or pull without --measure and --init-data",
            )
        measured = self._broker.measured()
        if measured is None:
            return
        with _refusing(unmeasured=self._unmeasured):
            measured.check_origins(is_vouched_for=self._is_vouched_for)


@contextmanager
def _refusing(*, unmeasured: bool) -> Iterator[None]:
    """A block that raises `PolicyDenied` for a setting of the host's; a warning if it may count."""
    try:
        yield
    except PolicyDenied as error:
        if not unmeasured:
            raise
        say("warning", f"{error}; it counts all the same")


def settings_in_force(image: NamedImage, policy: Policy, broker: BrokerOptions) -> MeasuredSettings:
    """The settings of a pull that a host could have chosen, as they were read for it."""
    from imagers.pull.measured_settings import MeasuredSettings

    options = image.transport_options
    assert options is not None  # opened by its name
    if options.credentials is not None:
        auth: tuple[str, ...] = ("--creds",)
    else:
        auth = tuple(map(str, options.auth_files))
    return MeasuredSettings(broker.measured(), str(policy.digest), options.registries, auth)


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
