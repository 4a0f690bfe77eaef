# SPDX-License-Identifier: Apache-2.0
"""The real key broker inside a test: a thread, a free port, a state directory that goes away.

    with EmbeddedBroker() as broker:
        broker.put("kbs:///default/key/1", b"0" * 32, image=digest)
        with broker.client() as client, client.get(uri, manifest_digest=digest) as key:
            ...
        assert broker.handshakes == 1

Nothing of the broker is replaced: what it counts is read from its audit log, and to make it
say no, its policy is changed. Only its clock can be moved.

It takes the TEE `sample`, whose plugin is `plugins/sample_tee`, and those that it is told to: of a
world of `imagers.testing.evidence` all that it needs is given in one.

    with EmbeddedBroker(worlds=[world]) as broker:
        broker.expect("snp_launch_measurement", world.measurement.hex())
        with broker.client(world.attester()) as client:
            ...
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from imagers.broker.config import MAX_SESSIONS
from imagers.broker.policy.table import DEFAULT_POLICY, DENY_ALL_POLICY
from imagers.broker.server import BrokerConfig, running
from imagers.evidence.plugins import load_attester
from imagers.kbs.admin import BrokerAdmin
from imagers.kbs.client import BrokerClient
from imagers.model.digest import Digest
from imagers.model.evidence import Attester
from imagers.model.keys import SecretKey
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import JSON
from imagers.testing.evidence.guests import World
from imagers.testing.evidence.make import write_collateral

if TYPE_CHECKING:
    from types import TracebackType

    from imagers.broker.server import RunningBroker
    from imagers.kbs.admin import AuditEntry

__all__ = ["EmbeddedBroker"]

_ALL_ROWS = 10_000


class EmbeddedBroker:
    """A broker for one test; a context manager that starts and stops it.

    Args:
        tees: names of the TEEs whose verifier plugins it loads; its guests then need an
            attester of one of them.
        worlds: of each its TEE, its roots, and its collateral in the temporary directory; those
            of TDX and SGX have lists of one name and must be of one seed.
        collateral_directory: as in `BrokerConfig`.
        allow_sample_tee: whether it takes evidence that anybody can make.
        state_directory: keeps the state when it stops; None: a temporary one.
        session_lifetime, max_sessions: as in `BrokerConfig`.
    """

    def __init__(
        self,
        *,
        tees: tuple[str, ...] = (),
        worlds: Sequence[World] = (),
        collateral_directory: Path | None = None,
        allow_sample_tee: bool = True,
        state_directory: Path | None = None,
        session_lifetime: timedelta = timedelta(minutes=5),
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self._tees = (*tees, *(world.tee for world in worlds))
        self._test_roots = {one.tee: one.roots for one in worlds if one.roots is not None}
        self._worlds = worlds
        self._collateral_directory = collateral_directory
        self._allow_sample_tee = allow_sample_tee
        self._given_directory = state_directory
        self._session_lifetime = session_lifetime
        self._max_sessions = max_sessions
        self._clock_offset = timedelta(0)
        self._stack = ExitStack()
        self._running: RunningBroker | None = None
        self._admin: BrokerAdmin | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = Path(tempfile.mkdtemp(prefix="imagers-broker-"))
            stack.callback(shutil.rmtree, temporary)
            directory = self._given_directory or temporary / "state"
            collateral = self._collateral_directory
            if self._worlds:
                collateral = collateral or temporary / "collateral"
                documents: dict[str, bytes] = {}
                for world in self._worlds:
                    documents |= world.collateral()
                write_collateral(documents, collateral)
            self._running = stack.enter_context(
                running(
                    BrokerConfig(
                        state_directory=directory,
                        port=0,
                        tees=self._tees,
                        test_roots=self._test_roots,
                        collateral_directory=collateral,
                        allow_sample_tee=self._allow_sample_tee,
                        session_lifetime=self._session_lifetime,
                        max_sessions=self._max_sessions,
                        clock=lambda: datetime.now(UTC) + self._clock_offset,
                    )
                )
            )
            self._admin = stack.enter_context(
                BrokerAdmin(self._running.url, key_file=self._running.admin_key_file)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._running = self._admin = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return self._started().url

    @property
    def admin_key_file(self) -> Path:
        """The admin's private key, for the command line."""
        return self._started().admin_key_file

    @property
    def state_directory(self) -> Path:
        """Where its store and keys are."""
        return self._started().admin_key_file.parent

    @property
    def admin(self) -> BrokerAdmin:
        """An admin's client, closed with the broker."""
        if self._admin is None:
            raise RuntimeError("the broker is not running")
        return self._admin

    @property
    def attester(self) -> Attester:
        """Makes evidence that this broker takes.

        Raises:
            PluginNotFound: `plugins/sample_tee` is not installed.
        """
        return load_attester("sample")

    def client(
        self, attester: Attester | None = None, devices: Sequence[Attester] = ()
    ) -> BrokerClient:
        """A new guest; the caller closes it.

        Args:
            attester: what makes its evidence; None: the sample TEE.
            devices: what makes that of its devices.
        """
        return BrokerClient(self.url, attester=attester or self.attester, devices=devices)

    def put(self, uri: str, secret: bytes, *, image: Digest | None = None) -> None:
        """Store a secret, bound to an image if one is given."""
        with SecretKey(secret) as key:
            self.admin.put_resource(uri, key)
        if image is not None:
            self.admin.bind_manifest(uri, image)

    def expect(self, name: str, *values: JSON) -> None:
        """Know guests as the owner's by a claim that has one of these values, from now on."""
        self.admin.set_reference_values([ReferenceValue(name, values, source="the test")])

    def deny(self) -> None:
        """Refuse every secret from now on, by policy."""
        self.admin.set_policy(DENY_ALL_POLICY)

    def allow_bound(self) -> None:
        """Go back to the default policy: a secret goes to known guests, for its own image only."""
        self.admin.set_policy(DEFAULT_POLICY)

    @contextmanager
    def clock_moved(self, by: timedelta) -> Iterator[None]:
        """A block in which the broker's clock is off; admins' tokens are too old in it.

        A broker that has seen a handshake refuses others when its clock goes back by more than
        five minutes, so also after a block that moved it forward by more.
        """
        self._clock_offset = by
        try:
            yield
        finally:
            self._clock_offset = timedelta(0)

    @property
    def log(self) -> tuple[AuditEntry, ...]:
        """The audit log, oldest first."""
        return self.admin.audit(_ALL_ROWS)

    @property
    def handshakes(self) -> int:
        """How many guests attested."""
        return self._count("attest", "ok")

    @property
    def releases(self) -> int:
        """How many secrets were given out."""
        return self._count("release", "ok")

    @property
    def refusals(self) -> int:
        """How many times a secret was refused."""
        return self._count("release", "refused")

    def _count(self, event: str, outcome: str) -> int:
        return sum(row.event == event and row.outcome == outcome for row in self.log)

    def _started(self) -> RunningBroker:
        if self._running is None:
            raise RuntimeError("the broker is not running")
        return self._running
