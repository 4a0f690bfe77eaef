# SPDX-License-Identifier: Apache-2.0
"""How one broker is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from imagers.broker.keeping.store import BROKER
from imagers.broker.tokens import DEFAULT_ISSUER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["MAX_SESSIONS", "BrokerConfig"]

ADMIN_KEY = "admin.key"
ADMIN_PUBLIC_KEY = "admin.pub"
MASTER_KEY = "master.key"
NEXT_KEY = "master.next"
STORE = "broker.sqlite"
MAX_SESSIONS = 200_000  # of some 2 KiB of disk each; 333 handshakes a second, for ever


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """How one broker is run.

    Attributes:
        state_directory: for the store and the keys; made with mode 0700 if missing.
        database: `postgresql://…` of a store that many brokers share; None: a file in the state
            directory.
        name: of this broker among those that share its store.
        host: address to listen on.
        port: 0 for any free one.
        tees: names of the TEEs to take evidence of.
        appraisal_policy_file: what to let pass of each TEE, and reference values, which are set
            at each start; None: the strict settings.
        collateral_directory: lists of revoked certificates, TCB information and such, by name.
        test_roots: certificates in PEM by the name of a TEE, in place of its vendor's. For tests.
        allow_sample_tee: take evidence that anybody can make. For demonstrations.
        issuer: what this broker is called in its tokens; where it is an https URL, a document of
            OpenID discovery is there.
        passport_issuers_file: whose tokens are taken beside this broker's own; None: nobody's.
        policy_file: resource policy to put in force at the start; None keeps the stored
            one, which at first is "an image's key only for that image and one's own guests".
        certificate_file, certificate_key_file: PEM, for https.
        admin_ca_file: PEM; admins have to show a certificate of these CAs beside their token; None:
            the token is enough.
        unsafe_plain_http: listen without TLS on an address that is not this machine's own.
        trusted_proxies: addresses and networks whose X-Forwarded-For is believed, for the
            shares of places; of anybody else it is not looked at.
        session_lifetime: of a handshake and its token, from its start, never extended.
        master_key_fd: a descriptor that gives the master key, in place of the file; read once.
        accept_older_state: believe a database that is older than one that was seen here.
        max_sessions: attested, at the same time, each kept for its lifetime and the longest
            error of a clock; more are refused with 429.
        max_sessions_of_instance: the same of one machine, for TEEs whose verifier tells
            machines apart.
        stop_timeout_s: how long a stop waits for requests that run.
        clock: gives aware times; tests give their own.
    """

    state_directory: Path
    database: str | None = None
    name: str = BROKER
    host: str = "127.0.0.1"
    port: int = 8080
    tees: tuple[str, ...] = ()
    appraisal_policy_file: Path | None = None
    collateral_directory: Path | None = None
    test_roots: Mapping[str, bytes] = field(default_factory=dict)
    allow_sample_tee: bool = False
    issuer: str = DEFAULT_ISSUER
    passport_issuers_file: Path | None = None
    policy_file: Path | None = None
    certificate_file: Path | None = None
    certificate_key_file: Path | None = None
    admin_ca_file: Path | None = None
    unsafe_plain_http: bool = False
    trusted_proxies: tuple[str, ...] = ()
    master_key_fd: int | None = None
    accept_older_state: bool = False
    session_lifetime: timedelta = timedelta(minutes=5)
    max_sessions: int = MAX_SESSIONS
    max_sessions_of_instance: int = 256
    stop_timeout_s: int = 30
    clock: Callable[[], datetime] = field(default=_utc_now, compare=False)

    @property
    def admin_key_file(self) -> Path:
        """Where the first start writes the admin's private key."""
        return self.state_directory / ADMIN_KEY

    @property
    def master_key_file(self) -> Path:
        """Where the first start writes the master key."""
        return self.state_directory / MASTER_KEY

    @property
    def store_file(self) -> Path:
        """Where the store is, unless it is in a database of its own."""
        return self.state_directory / STORE

    @property
    def next_key_file(self) -> Path:
        """Where the next master key is while it is rotated."""
        return self.state_directory / NEXT_KEY
