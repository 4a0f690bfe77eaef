# SPDX-License-Identifier: Apache-2.0
"""The options of a broker, and what they are turned into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on, option_group
from imagers.errors import UsageError
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.kbs.admin import BrokerAdmin
    from imagers.kbs.client import BrokerClient
    from imagers.net.http import HTTPSettings

__all__ = ["BrokerOptions", "admin_options", "broker_options"]


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Which broker, and how to speak to it.

    Attributes:
        url: None where no broker was named.
        ca_file: PEM certificates that are trusted for it, and no others.
        insecure_http: plain http to another machine.
        admin_key: file of the administrator's key; None for the default place.
    """

    url: str | None
    ca_file: str | None
    insecure_http: bool
    admin_key: str | None = None

    def _http(self) -> HTTPSettings:
        from imagers.net.http import HTTPSettings

        return HTTPSettings(
            ca_file=self.ca_file,
            insecure_http=self.insecure_http,
            ca_option="--broker-ca FILE",
            plain_option="http:// in its address",
        )

    def require_url(self) -> str:
        """The URL.

        Raises:
            UsageError: none was given, or plain http to another machine.
            FormatError: it is no URL.
        """
        if self.url is None:
            raise UsageError(
                "no broker is named", hint="name it with --broker https://HOST, and its CA"
            )
        from imagers.net.urls import parse_origin, with_scheme

        meant = with_scheme(self.url)
        if meant is not None:
            raise UsageError(
                f"--broker: expected a URL with http:// or https://, got {self.url[:160]!r}",
                hint=f"write --broker {meant[:160]}",
            )
        with blamed_on("--broker"):
            origin = parse_origin(self.url)
        if origin.scheme == "http" and not origin.is_loopback and not self.insecure_http:
            raise UsageError(
                f"plain http to the broker at {origin} is refused: keys and tokens would be "
                "readable on the way",
                hint="use https, or say --insecure-broker-http",
            )
        return self.url

    def admin(self) -> BrokerAdmin:
        """The administrator's side of the broker; the caller closes it."""
        from imagers.kbs.admin import BrokerAdmin

        url = self.require_url()
        if self.admin_key is None:
            key = str(read_settings().broker_admin_key)
            return BrokerAdmin(url, key_file=key, http=self._http())
        with blamed_on("--broker-admin-key"):
            return BrokerAdmin(url, key_file=self.admin_key, http=self._http())

    def client(self, tee: str | None) -> BrokerClient:
        """The guest's side of the broker; the caller closes it.

        Args:
            tee: name of the TEE to give evidence of.

        Raises:
            NoTEE: none was named, and this machine has none that is known here.
            PluginNotFound: no plugin for it is installed.
        """
        from imagers.errors import NoTEE
        from imagers.evidence.plugins import load_attester
        from imagers.kbs.client import BrokerClient

        url = self.require_url()
        if tee is None:
            raise NoTEE(
                "this machine has no TEE that is known here: expected one, or a name",
                hint="for tests and demos: 'imagers pull --tee sample', whose plugin comes, in the "
                "clone of imagers, with: pip install ./plugins/sample_tee",
            )
        return BrokerClient(url, attester=load_attester(tee), http=self._http())


_GUEST = {
    "url": click.option("--broker", "url", metavar="URL"),
    "ca_file": click.option("--broker-ca", "ca_file", metavar="FILE"),
    "insecure_http": click.option("--insecure-broker-http", "insecure_http", is_flag=True),
}

broker_options = option_group("broker", BrokerOptions, _GUEST)
"""The options of a guest; the verb gets them as `broker`."""

admin_options = option_group(
    "broker",
    BrokerOptions,
    {**_GUEST, "admin_key": click.option("--broker-admin-key", "admin_key", metavar="FILE")},
)
"""The options of an administrator; the verb gets them as `broker`."""
