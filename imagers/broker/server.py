# SPDX-License-Identifier: Apache-2.0
"""Run a broker: in this thread until a signal, or beside the caller's work.

    serve(BrokerConfig(state_directory=Path("state")), on_start=announce)   # until SIGTERM

    with running(BrokerConfig(state_directory=folder, port=0)) as broker:
        broker.url                                                         # listens

Both finish the requests that run when they are told to stop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn
import uvicorn.server

from imagers.broker.app import create_app
from imagers.broker.config import BrokerConfig
from imagers.broker.http1 import HTTP1Protocol
from imagers.broker.keyfiles import lock_state_directory, make_state_directory
from imagers.broker.loglines import LimitedLog
from imagers.broker.places import Network, Place, Places, address_key, forwarded_key
from imagers.broker.start import check_settings, open_state
from imagers.broker.state import BrokerState
from imagers.broker.tls import ServerCertificate
from imagers.errors import LocalError, UsageError
from imagers.files import reason_of
from imagers.net.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from imagers.broker.policy.rego.engine import PolicyEngine

__all__ = ["BrokerConfig", "RunningBroker", "check", "running", "serve"]

_BACKLOG = 128
_HANDSHAKE_SECONDS = 10.0  # until the first byte, and the end of the handshake of TLS
_HEAD_SECONDS = 10.0  # until the end of the first head, handshake included; then of the next
_PEER_SECONDS = 35.0  # to read an answer, 3 MiB at most; `app` gives less for a body, and says so
_LINGER_SECONDS = 25.0  # to read the rest of an answer after which we close
_THREADS = 8  # each can hold some copies of a secret of 2 MiB
_SWEEP_SECONDS = 0.25
_ACCEPT_AGAIN_SECONDS = 0.1
_STARTS_WITHIN_S = 30.0
_CERTIFICATE_SECONDS = 5.0  # between two looks at its files


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that listens.

    Attributes:
        url: for clients on this machine.
        admin_key_file: private key of the admin, unless it was moved away.
        admin_key_made, master_key_made: whether this start made the file.
        tees: whose evidence is taken.
        issuers: whose passports are taken.
        resources: how many there are.
        fault: why no guest can get anything; "" if one may.
        unknown: TEEs no guest of which is known as the owner's, and the names of the reference
            values that are missing.
    """

    url: str
    admin_key_file: Path
    master_key_file: Path
    admin_key_made: bool
    master_key_made: bool
    tees: tuple[str, ...]
    issuers: tuple[str, ...]
    resources: int
    fault: str
    unknown: Mapping[str, tuple[str, ...]]


class _Connection(Place):
    """A connection from the moment that it is accepted: TLS handshake, requests, end."""

    def __init__(self, places: Places, peer: str, proxies: Sequence[Network]) -> None:
        self._proxies = proxies
        is_proxy = forwarded_key(peer, (), proxies) is not None
        super().__init__(places, None if is_proxy else address_key(peer))
        self.peer = peer
        self.since = time.monotonic()
        self.handshake: asyncio.Task[None] | None = None
        self.protocol: _Protocol | None = None
        self.request: asyncio.Task[Any] | None = None
        self._ended = False
        self._closing_since: float | None = None

    @property
    def waits_since(self) -> float | None:
        return self.since if self.protocol is None or self.protocol.waits_for_peer else None

    def arrive(self, forwarded: Sequence[str]) -> bool:
        self.requests += 1
        key = forwarded_key(self.peer, forwarded, self._proxies)
        return key is None or self._places.move(self, key)

    @property
    def shows_certificate(self) -> bool:
        transport = None if self.protocol is None else self.protocol.transport
        # OpenSSL has verified it, or there would be no connection.
        return transport is not None and bool(transport.get_extra_info("peercert"))

    def evict(self) -> None:
        if self.protocol is not None:
            # Not `close`, which would wait until the peer has read what we sent.
            self.protocol.transport.abort()
            self.end()
        elif self.handshake is not None:
            self.handshake.cancel()

    def has_ended(self) -> bool:
        """Whether there is nobody to answer to."""
        return self._ended

    def end(self) -> None:
        """The connection is gone, and so is what we hold for it: a body that waits for its turn.

        What already runs in a thread goes on to its end, an audit row included.
        """
        if self._ended:
            return
        self._ended = True
        self.leave()
        if self.request is not None:
            self.request.cancel()

    def check_time(self, now: float) -> None:
        """Close what takes too long. uvicorn bounds the time between requests, `app` bodies."""
        if self.protocol is None:
            return  # asyncio bounds the handshake of TLS
        if self.protocol.transport.is_closing():
            # It waits for a peer that does not read, or not fast enough.
            self._closing_since = self._closing_since or now
            if now - self._closing_since > _LINGER_SECONDS:
                self.evict()
        elif self.protocol.waits_for_head:
            if now - self.since > _HEAD_SECONDS:
                self.protocol.transport.close()
        elif self.protocol.waits_for_peer and now - self.since > _PEER_SECONDS:
            self.evict()


class _Protocol(HTTP1Protocol):
    """With what `_Connection` must know."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: uvicorn.server.ServerState,
        app_state: dict[str, Any],
        *,
        connection: _Connection,
        log: LimitedLog,
    ) -> None:
        super().__init__(config, server_state, app_state, log=log)
        self.app = _Announced(self.app, connection)
        self._connection = connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._connection.protocol = self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.end()
        self._connection.protocol = None  # no cycle: see `_begin`

    def on_response_complete(self) -> None:
        self._connection.since = time.monotonic()
        super().on_response_complete()


class _Announced:
    """An ASGI application that is told of the connection, and times the turns of its peer."""

    def __init__(self, app: ASGIApp, connection: _Connection) -> None:
        self._app = app
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._connection
        if connection.has_ended():  # between the head and the turn of this task
            return
        connection.since = time.monotonic()
        connection.hold(0)

        async def timed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                connection.since = time.monotonic()
            await send(message)

        scope["imagers.place"] = connection
        connection.request = task = asyncio.current_task()
        try:
            await self._app(scope, receive, timed_send)
        except asyncio.CancelledError:
            if not connection.has_ended():
                raise
            # Nothing for uvicorn to complain about.
            if connection.protocol is not None:
                connection.protocol.cycle.disconnected = True
        finally:
            if connection.request is task:  # not the next one, of a pipeline
                connection.request = None


class _Server(uvicorn.Server):
    """uvicorn that tells when it listens, and takes a signal as a wish and not as a death.

    It accepts connections itself: a bound that is in force only when a request is read is none
    for connections that send no request, or do not even finish the handshake of TLS.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        proxies: Sequence[Network],
        certificate: ServerCertificate | None,
        engine: PolicyEngine,
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._certificate = certificate
        self._certificate_since = time.monotonic()
        self._hung_up = False
        self.is_listening = threading.Event()
        self.on_listening: Callable[[], None] | None = None
        self._log = LimitedLog("uvicorn.error")
        self._crowd_log = LimitedLog("imagers.broker", a_minute=6)
        self._places = Places(on_evict=self._tell_evicted)
        self._proxies = proxies
        self._listeners: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        if self.started:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(_THREADS, "imagers-broker-call"))
            for listener in sockets or []:
                listener.setblocking(False)
                self._listeners.append(listener)
                loop.add_reader(listener, self._accept, listener)
            self._sweeping = loop.create_task(self._sweep())
            self.is_listening.set()
            if self.on_listening is not None:
                self.on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._listeners.clear()
        for listener in sockets or []:
            loop.remove_reader(listener)
            listener.close()
        for task in self._handshakes:
            task.cancel()
        try:
            await super().shutdown(sockets=[])
        finally:
            self._sweeping.cancel()
            await self._engine.close()

    def _accept(self, listener: socket.socket) -> None:
        """Accept one connection, of those that wait."""
        try:
            accepted, address = listener.accept()
            accepted.setblocking(False)
            self._begin(accepted, _Connection(self._places, address[0], self._proxies))
        except BlockingIOError:
            pass  # it is gone
        except OSError as error:
            # Gone before it was accepted, or no file descriptor is left.
            self._log.warning("cannot accept a connection: %s", reason_of(error))
            self._pause(listener)
        except Exception:  # noqa: BLE001 - a bug here must not close the broker to all
            self._log.error("fault while accepting a connection", exc_info=True)
            self._pause(listener)

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)

        def go_on() -> None:
            if listener in self._listeners:
                loop.add_reader(listener, self._accept, listener)

        loop.call_later(_ACCEPT_AGAIN_SECONDS, go_on)

    def _begin(self, accepted: socket.socket, connection: _Connection) -> None:
        if not self._places.enter(connection):
            accepted.close()
            return
        task = asyncio.get_running_loop().create_task(self._shake_hands(accepted, connection))
        connection.handshake = task
        self._handshakes.add(task)

        def done(_: asyncio.Task[None]) -> None:
            # A task that is cancelled before it ran has done nothing, not even this.
            self._handshakes.discard(task)
            # No cycle is left: 300 KiB of TLS must be freed now, and not when the collector
            # comes. In a flood of 5,000 unfinished handshakes that makes some hundred MiB.
            connection.handshake = None
            if connection.protocol is None:
                connection.leave()
                accepted.close()

        task.add_done_callback(done)

    async def _shake_hands(self, accepted: socket.socket, connection: _Connection) -> None:
        """Until the connection has its protocol: with TLS, after the handshake."""

        def make_protocol() -> _Protocol:
            return _Protocol(
                self.config,
                self.server_state,
                self.lifespan.state,
                connection=connection,
                log=self._log,
            )

        tls = self._certificate.context if self._certificate is not None else None
        # No TLS, another version of it, not in time: not our business.
        with suppress(OSError):
            async with asyncio.timeout(_HANDSHAKE_SECONDS if tls else None):
                if tls:
                    # Before it has sent a byte a connection costs no more than its socket: a
                    # handshake takes some hundred KiB.
                    await _until_readable(accepted)
                await asyncio.get_running_loop().connect_accepted_socket(
                    make_protocol,
                    accepted,
                    ssl=tls,
                    ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls else None,
                    ssl_shutdown_timeout=_LINGER_SECONDS if tls else None,
                )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            self._look_at_certificate(now)
            for place in self._places:
                assert isinstance(place, _Connection)
                try:
                    place.check_time(now)
                except Exception:  # noqa: BLE001 - a bug with one must not let all others stay
                    self._log.error("fault while closing a connection", exc_info=True)

    def _look_at_certificate(self, now: float) -> None:
        """Show another certificate where its files have changed, or at SIGHUP."""
        asked, self._hung_up = self._hung_up, False
        if self._certificate is None or not (
            asked or now - self._certificate_since > _CERTIFICATE_SECONDS
        ):
            return
        self._certificate_since = now
        try:
            if self._certificate.renew(always=asked):
                self._log.warning("the certificate was read again")
        except LocalError as error:
            self._log.warning("the certificate stays as it was: %s", error)

    def _hang_up(self, *_: object) -> None:
        self._hung_up = True

    def _tell_evicted(self, place: Place) -> None:
        assert isinstance(place, _Connection)
        self._crowd_log.warning(
            "no room for more connections: closed one of %s that kept waiting", place.peer
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again after a clean stop, which would end the
        # process before its caller could say that all is well.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _until_readable(connection: socket.socket) -> None:
    """Wait for the peer's first byte, or its end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    connection.setblocking(False)
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)


def serve(config: BrokerConfig, *, on_start: Callable[[RunningBroker], None] | None = None) -> None:
    """Run a broker until SIGTERM or SIGINT; a second SIGINT does not wait for requests.

    Args:
        on_start: is called once when it listens, to say so.

    Raises:
        LocalError: state, certificate or address cannot be used.
        UsageError: plain http on another address than loopback, without saying so; a proxy that
            is no address.
        FormatError, PluginError: see `open_state`.
    """
    with _prepared(config) as (server, listener, broker):
        if on_start is not None:
            server.on_listening = lambda: on_start(broker)
        server.run(sockets=[listener])


def check(config: BrokerConfig) -> None:
    """Raise what `serve` would for what the configuration says; nothing is made or listened on."""
    _open_certificate(config)
    _parse_proxies(config)
    check_settings(config)


@contextmanager
def running(config: BrokerConfig) -> Iterator[RunningBroker]:
    """A broker in a thread of its own, listening until the block ends. Raises as `serve`."""
    with _prepared(config) as (server, listener, broker):
        failures: list[BaseException] = []

        def run() -> None:
            try:
                server.run(sockets=[listener])
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
                failures.append(error)
            finally:
                server.is_listening.set()

        thread = threading.Thread(target=run, name="imagers-broker", daemon=True)
        thread.start()
        try:
            listening = server.is_listening.wait(_STARTS_WITHIN_S)
            if failures:
                raise LocalError("the broker did not start") from failures[0]
            if not listening:
                raise LocalError(f"the broker did not start within {_STARTS_WITHIN_S:g} s")
            yield broker
        finally:
            server.should_exit = True
            thread.join(config.stop_timeout_s + _STARTS_WITHIN_S)


@contextmanager
def _prepared(config: BrokerConfig) -> Iterator[tuple[_Server, socket.socket, RunningBroker]]:
    """Everything that can fail, before anything listens."""
    certificate = _open_certificate(config)
    proxies = _parse_proxies(config)
    with _sole_user(config.state_directory), open_state(config) as state:
        server = _Server(_uvicorn_config(config, state), proxies, certificate, state.engine)
        with _listen(config) as listener:
            tls = certificate is not None
            yield server, listener, _describe(config, state, listener, tls=tls)


@contextmanager
def _sole_user(directory: Path) -> Iterator[None]:
    """A block in which no other broker runs on the state directory."""
    make_state_directory(directory)
    lock = lock_state_directory(directory)
    try:
        yield
    finally:
        os.close(lock)


def _open_certificate(config: BrokerConfig) -> ServerCertificate | None:
    """What TLS is spoken with; None: it is not."""
    if config.certificate_file is not None and config.certificate_key_file is not None:
        return ServerCertificate(
            config.certificate_file, config.certificate_key_file, config.admin_ca_file
        )
    if config.certificate_file is not None or config.certificate_key_file is not None:
        raise UsageError("expected a certificate and its key, got one of them")
    if config.admin_ca_file is not None:
        raise UsageError(
            "expected a certificate of the broker: without https no admin can show one of the "
            "admins' CA"
        )
    if not is_loopback(config.host) and not config.unsafe_plain_http:
        raise UsageError(
            f"expected a certificate to listen on '{config.host}': tokens and names would be "
            "readable on the network",
            hint="give a certificate and its key, or listen on 127.0.0.1",
        )
    return None


def _parse_proxies(config: BrokerConfig) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in config.trusted_proxies)
    except ValueError as error:
        raise UsageError(
            f"expected the address or network of a proxy, such as '10.0.0.0/8': {error}"
        ) from None


def _uvicorn_config(config: BrokerConfig, state: BrokerState) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(state),
        http=_Protocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,  # paths and queries are in the audit log, where they are bounded
        server_header=False,
        proxy_headers=False,  # `places` reads them, of configured proxies only
        backlog=_BACKLOG,
        timeout_graceful_shutdown=config.stop_timeout_s,
    )


def _listen(config: BrokerConfig) -> socket.socket:
    try:
        listener = socket.create_server(
            (config.host, config.port),
            family=socket.AF_INET6 if ":" in config.host else socket.AF_INET,
            backlog=_BACKLOG,
        )
        # Inherited by each connection: asyncio sets it only on sockets that name TCP, and head
        # and body of an answer are two writes. Without it a get takes 49 ms, with it 3.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise LocalError(
            f"cannot listen on {config.host} port {config.port}: {reason_of(error)}",
            hint="is another broker running there? port 0 takes any free one",
        ) from None


def _describe(
    config: BrokerConfig, state: BrokerState, listener: socket.socket, *, tls: bool
) -> RunningBroker:
    host = f"[{config.host}]" if ":" in config.host else config.host
    with state.store.reading() as transaction:
        resources = transaction.count_resources()
    return RunningBroker(
        url=f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}",
        admin_key_file=config.admin_key_file,
        master_key_file=config.master_key_file,
        admin_key_made=state.admin_key_made is not None,
        master_key_made=state.master_key_made is not None,
        tees=tuple(sorted(state.verifiers)),
        issuers=state.passports.issuers,
        resources=resources,
        fault=state.why_nothing_is_released(),
        unknown=state.tees_without_references(),
    )
