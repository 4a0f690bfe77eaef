# SPDX-License-Identifier: Apache-2.0
"""The options of a broker, and the variables in their place, and what they are turned into."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from imagers.cli.command import blamed_on, option_group
from imagers.cli.output import say
from imagers.errors import FormatError, UsageError
from imagers.model.closing import Closing
from imagers.model.origin import Origin
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imagers.kbs.admin import BrokerAdmin
    from imagers.kbs.client import BrokerClient
    from imagers.model.digest import Digest
    from imagers.model.evidence import Attester
    from imagers.model.keys import ResourceStore, SecretKey
    from imagers.net.http import HTTPSettings
    from imagers.net.tls import PeerCheck
    from imagers.pull.measured_settings import MeasuredBroker, Source
    from imagers.settings import Settings

__all__ = [
    "DEFAULT_PORT",
    "BrokerOptions",
    "Given",
    "LazyGuest",
    "admin_options",
    "broker_options",
    "this_broker",
]

DEFAULT_PORT = 8080
_CA = "the CA of the broker"
_MAX_FILE = 16 * 1024 * 1024  # of certificates, or of reference values


class Given(NamedTuple):
    """What the user said, and where: the name of an option, a variable, a file or a word."""

    value: str
    by: str
    origin: Origin = Origin.CALLER

    def better(self, value: str) -> str:
        """What should have been typed."""
        if " " in self.by:  # a key of a file
            return f"{value} there"
        return f"{self.by}{' ' if self.by.startswith('-') else '='}{value}"


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Which broker, and how to speak to it.

    Attributes:
        url: None where no broker was named.
        ca_file: PEM certificates that are trusted for it, and no others.
        ca_pem: the same in PEM, of a guest's configuration.
        reference: file with what a broker in a TEE has to be, which it shows by RA-TLS.
        test_roots: certificates in place of the vendor's of a TEE, as TEE=FILE.
        certificates: pairs of certificate and key, shown where the broker asks for one.
        insecure_http: plain http to another machine.
        admin_key: file of the administrator's key; None for the default place.
    """

    url: Given | None
    ca_file: Given | None
    insecure_http: bool
    admin_key: Given | None = None
    reference: Given | None = None
    test_roots: tuple[str, ...] = ()
    certificates: tuple[tuple[str, str], ...] = ()
    ca_pem: Given | None = None

    def or_guests(self, user: Settings) -> BrokerOptions:
        """These, with the broker of a guest's variables or configuration where none is named.

        Raises:
            FormatError, Unsupported: the variable names none that can be spoken to.
        """
        said = user.guest_broker if self.url is None else None
        ca = user.guest.broker_ca if self.ca_file is None and self.reference is None else None
        return replace(
            self,
            url=self.url if said is None else Given(*said),
            ca_pem=None if ca is None else Given(*ca),
        )

    @property
    def is_option(self) -> bool:
        """Whether the broker was named on the command line, for this command."""
        return self.url is not None and self.url.by.startswith("-")

    def _http(self, url: str) -> HTTPSettings:
        from imagers.net.http import HTTPSettings

        if self.reference is not None:
            return HTTPSettings(peer_check=self._peer_check(self.reference, url))
        if url.startswith("https:"):
            from imagers.net.tls import new_tls_context

            if self.ca_file is not None:
                with blamed_on(self.ca_file.by):
                    new_tls_context(self.ca_file.value)
            if self.ca_pem is not None:
                with blamed_on(self.ca_pem.by):
                    new_tls_context(None, ca_pem=self.ca_pem.value)
            if self.certificates:
                with blamed_on("--broker-admin-certificate"):
                    new_tls_context(None, client_certificates=self.certificates)
        elif self.certificates:
            raise UsageError("--broker-admin-certificate is for a broker with https")
        return HTTPSettings(
            client_certificates=self.certificates,
            ca_file=None if self.ca_file is None else self.ca_file.value,
            ca_pem=None if self.ca_pem is None else self.ca_pem.value,
            insecure_http=self.insecure_http,
            ca_option="--broker-ca FILE, or a broker in a TEE with --broker-reference FILE",
            plain_option="http:// in its address",
        )

    def _peer_check(self, reference: Given, url: str) -> PeerCheck:
        """Whether the broker is one of the user's machines, as far as it shows that."""
        from datetime import UTC, datetime

        from imagers.cli.evidence import find_collateral, read_test_roots
        from imagers.evidence.collateral.directory import CollateralDirectory
        from imagers.evidence.policy import MAX_POLICY_BYTES, parse_appraisal_policy
        from imagers.evidence.ratls import PeerEvidence
        from imagers.files import read_bounded

        if self.ca_file is not None:
            raise UsageError(
                f"{reference.by} and {self.ca_file.by} exclude each other: a broker is known by "
                "what it runs, or by its certificate"
            )
        if not url.startswith("https:"):
            raise UsageError(f"{reference.by}: expected a broker with https, got {url[:160]!r}")
        with blamed_on(reference.by):
            data = read_bounded(Path(reference.value), max_bytes=MAX_POLICY_BYTES)
            policy = parse_appraisal_policy(data, what=reference.value)
            if not policy.references:
                raise FormatError(
                    "has no reference values: any machine of a TEE would be a broker",
                    what=reference.value,
                    hint="docs/tee/ratls.md says how to make them",
                )
        if self.test_roots:
            say("warning", "certificates for tests stand for the vendor's: this proves nothing")
        directory = find_collateral(None)
        return PeerEvidence(
            policy,
            read=CollateralDirectory(directory).read if directory is not None else lambda _: None,
            clock=lambda: datetime.now(UTC),
            roots=read_test_roots(self.test_roots),
        )

    def measured(self) -> MeasuredBroker | None:
        """What is measured of it; None where none was named, or by a variable that names none.

        Raises:
            LocalError: a file cannot be read.
        """
        from imagers.model.digest import digest_of
        from imagers.net.urls import parse_origin
        from imagers.pull.measured_settings import MeasuredBroker, Source

        if self.url is None:
            return None
        try:
            parse_origin(self.url.value)
        except FormatError:  # told when it is asked, and never asked
            return None
        ca, ca_source = _measured_file(self.ca_file, _CA)
        if self.ca_pem is not None:
            ca = digest_of(self.ca_pem.value.encode())
            ca_source = (Source(self.ca_pem.origin, _CA, self.ca_pem.by),)
        reference, reference_source = _measured_file(self.reference, "what the broker has to be")
        address = Source(self.url.origin, "the broker's address", self.url.by)
        sources = (address, *ca_source, *reference_source)
        return MeasuredBroker(self.url.value.rstrip("/"), ca, reference, sources)

    def require_url(self) -> str:
        """The URL.

        Raises:
            UsageError: none was given, or plain http to another machine.
            FormatError: it is no URL.
        """
        if self.url is None:
            raise UsageError(
                "no broker is named",
                hint="name it with --broker https://HOST, or in IMAGERS_BROKER, and its CA",
            )
        from imagers.net.urls import parse_origin, with_scheme

        url, by = self.url.value, self.url.by
        meant = with_scheme(url)
        if meant is not None:
            raise UsageError(
                f"{by}: expected a URL with http:// or https://, got {url[:160]!r}",
                hint=f"write {self.url.better(meant[:160])}",
            )
        with blamed_on(by):
            origin = parse_origin(url)
        if origin.scheme == "http" and not origin.is_loopback and not self.insecure_http:
            raise UsageError(
                f"{by}: plain http to the broker at {origin} is refused: keys and tokens would be "
                "readable on the way",
                hint="use https, or say --insecure-broker-http",
            )
        return url

    def admin(self) -> BrokerAdmin:
        """The administrator's side of the broker; the caller closes it."""
        from imagers.kbs.admin import BrokerAdmin

        url = self.require_url()
        key = self.admin_key or Given(str(read_settings().broker_admin_key), "")
        http = self._http(url)
        with blamed_on(key.by or None):
            return BrokerAdmin(url, key_file=key.value, http=http)

    def guest(
        self,
        tee: str | None,
        init_data: str | None = None,
        *,
        before: Callable[[], None] = lambda: None,
    ) -> LazyGuest | None:
        """The guest's side of the broker, which is spoken to when a key is asked for.

        None where no broker is named. What was said on the command line is looked at now; a
        variable is for images that need a broker, and does not disturb others. The caller
        closes it.

        Args:
            tee: name of the TEE to give evidence of, and those of devices, with commas between;
                without the first one, such as `,nvidia`: the one that is there.
            init_data: the document that this machine was started with.
            before: called before the broker is asked for the first time; it may raise.

        Raises:
            UsageError, FormatError: as for `require_url`; or a TEE, and no broker.
            PluginNotFound: no plugin for the TEE is installed.
        """
        if self.url is None:
            if tee is not None:
                raise UsageError("--tee is for a broker: expected --broker URL or IMAGERS_BROKER")
            return None
        if self.is_option:
            self.require_url()
        attester, devices = None, []
        if tee is not None:
            from imagers.cli.machine import attester_of_machine

            name, *others = tee.split(",")
            attester = attester_of_machine(name) if name else None
            devices = [attester_of_machine(one) for one in dict.fromkeys(others)]

        def make() -> BrokerClient:
            before()
            return self._client(attester, devices, init_data)

        return LazyGuest(make)

    def _client(
        self, attester: Attester | None, devices: Sequence[Attester], init_data: str | None
    ) -> BrokerClient:
        from imagers.cli.machine import attester_of_machine
        from imagers.errors import NoTEE
        from imagers.kbs.client import BrokerClient
        from imagers.kbs.tee_key import DEFAULT_TEE_KEY

        url = self.require_url()
        algorithm = read_settings().tee_key_algorithm or DEFAULT_TEE_KEY
        try:
            attester = attester or attester_of_machine(None)
        except NoTEE as error:
            raise NoTEE(
                str(error),
                hint=f"{error.hint}; for tests and demos: 'imagers pull --tee sample', whose "
                "plugin comes, in the clone of imagers, with: pip install ./plugins/sample_tee",
            ) from None
        http = self._http(url)
        with blamed_on("IMAGERS_TEE_KEY_ALGORITHM"):
            return BrokerClient(
                url,
                attester=attester,
                devices=devices,
                tee_key_algorithm=algorithm,
                init_data=init_data,
                http=http,
            )


def _measured_file(given: Given | None, what: str) -> tuple[Digest | None, tuple[Source, ...]]:
    """The digest of a file, and where it came from."""
    from imagers.files import is_shared_with_host, read_bounded
    from imagers.model.digest import digest_of
    from imagers.pull.measured_settings import Source

    if given is None:
        return None, ()
    with blamed_on(given.by):
        data = read_bounded(given.value, max_bytes=_MAX_FILE)
        origin = given.origin
        if origin.is_measured:
            origin = Origin.of_file(is_shared=is_shared_with_host(given.value))
    return digest_of(data), (Source(origin, what, given.value, is_read_again=True),)


def this_broker(broker: BrokerOptions) -> BrokerOptions:
    """The administrator's broker is the one of this machine, if none is named."""
    if broker.url is not None:
        return broker
    return replace(broker, url=Given(f"http://127.0.0.1:{DEFAULT_PORT}", "--broker"))


class LazyGuest(Closing):
    """A `ResourceStore` that is made when it is first asked.

    Raises, beside what the store raises:
        NoTEE: this machine has none that is known here, and none was named.

    Threads: safe.
    """

    def __init__(self, make: Callable[[], BrokerClient]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: BrokerClient | None = None

    def get(self, uri: str, *, manifest_digest: Digest | None) -> SecretKey:
        """See `ResourceStore`."""
        return self._made().get(uri, manifest_digest=manifest_digest)

    def get_all(
        self, uris: Sequence[str], *, manifest_digest: Digest | None
    ) -> dict[str, SecretKey]:
        """See `ResourceStore`."""
        return self._made().get_all(uris, manifest_digest=manifest_digest)

    def _made(self) -> BrokerClient:
        with self._lock:
            self._client = self._client or self._make()
            return self._client

    def close(self) -> None:
        """Close it, if it was made."""
        if self._client is not None:
            self._client.close()


if TYPE_CHECKING:

    def _is_store(guest: LazyGuest) -> ResourceStore:
        return guest


def _options(
    url: str | None,
    ca_file: str | None,
    *,
    insecure_http: bool,
    reference: str | None,
    test_roots: tuple[str, ...],
    admin_key: str | None = None,
    certificate: str | None = None,
    certificate_key: str | None = None,
) -> BrokerOptions:
    """What the options say, else the variables."""
    if (certificate is None) != (certificate_key is None):
        raise UsageError(
            "expected --broker-admin-certificate and --broker-admin-certificate-key, got one of "
            "them"
        )
    if certificate is not None and reference is not None:
        raise UsageError("--broker-reference and --broker-admin-certificate exclude each other")
    user = read_settings()
    named_key = None if user.named_admin_key is None else str(user.named_admin_key)

    def one(option: str, text: str | None, variable: str, other: str | None) -> Given | None:
        if text is not None:
            return Given(text, option)
        return None if other is None else Given(other, variable)

    return BrokerOptions(
        one("--broker", url, "IMAGERS_BROKER", user.broker_url),
        one("--broker-ca", ca_file, "IMAGERS_BROKER_CA", user.broker_ca),
        insecure_http,
        one("--broker-admin-key", admin_key, "IMAGERS_BROKER_ADMIN_KEY", named_key),
        one("--broker-reference", reference, "IMAGERS_BROKER_REFERENCE", user.broker_reference),
        test_roots,
        () if certificate is None or certificate_key is None else ((certificate, certificate_key),),
    )


_GUEST = {
    "url": click.option("--broker", "url", metavar="URL"),
    "ca_file": click.option("--broker-ca", "ca_file", metavar="FILE"),
    "reference": click.option("--broker-reference", "reference", metavar="FILE"),
    "test_roots": click.option(
        "--insecure-test-root", "test_roots", multiple=True, metavar="TEE=FILE"
    ),
    "insecure_http": click.option("--insecure-broker-http", "insecure_http", is_flag=True),
}

broker_options = option_group("broker", _options, _GUEST)
"""The options of a guest; the verb gets them as `broker`."""

admin_options = option_group(
    "broker",
    _options,
    {
        **_GUEST,
        "admin_key": click.option("--broker-admin-key", "admin_key", metavar="FILE"),
        "certificate": click.option("--broker-admin-certificate", "certificate", metavar="FILE"),
        "certificate_key": click.option(
            "--broker-admin-certificate-key", "certificate_key", metavar="FILE"
        ),
    },
)
"""The options of an administrator; the verb gets them as `broker`."""
