"""Run a broker: in this thread until a signal, or beside the caller's work.

    serve(BrokerConfig(state_directory=Path("state")), on_start=announce)   # until SIGTERM

    with running(BrokerConfig(state_directory=folder, port=0)) as broker:
        broker.url                                                         # listens

Both finish the requests that run when they are told to stop.
"""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imagers.broker.app import create_app
from imagers.broker.state import BrokerConfig, BrokerState, open_state
from imagers.errors import LocalError, UsageError
from imagers.net.urls import is_loopback

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

__all__ = ["BrokerConfig", "RunningBroker", "running", "serve"]

_BACKLOG = 128
_MAX_CONNECTIONS = 256  # each may hold a body of 2 MiB
_HEAD_SECONDS = 10.0
_STARTS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A broker that listens.

    Attributes:
        url: for clients on this machine.
        admin_key_file: private key of the admin, unless it was moved away.
        admin_key_made, master_key_made: whether this start made the file.
    """

    url: str
    admin_key_file: Path
    master_key_file: Path
    admin_key_made: bool
    master_key_made: bool
    sample_tee: bool


class _Protocol(H11Protocol):
    """uvicorn's, with a bound on the time that the head of a request may take.

    Without it, connections that send nothing, or a byte now and then, hold their places for
    ever. The time between requests and that of bodies are bounded elsewhere.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_watch()

    @property
    def _waits_for_head(self) -> bool:
        # uvicorn's type forgets that there is no cycle before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _watch(self) -> None:
        if not self._waits_for_head:
            self._stop_watch()
        elif self._timer is None:
            self._timer = self.loop.call_later(_HEAD_SECONDS, self._close_if_waiting)

    def _stop_watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_if_waiting(self) -> None:
        self._timer = None
        if self._waits_for_head:
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn that tells when it listens, and takes a signal as a wish and not as a death."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = threading.Event()
        self.on_listening: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.is_listening.set()
            if self.on_listening is not None:
                self.on_listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again after a clean stop, which would end the
        # process before its caller could say that all is well.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(config: BrokerConfig, *, on_start: Callable[[RunningBroker], None] | None = None) -> None:
    """Run a broker until SIGTERM or SIGINT; a second SIGINT does not wait for requests.

    Args:
        on_start: is called once when it listens, to say so.

    Raises:
        LocalError: state, certificate or address cannot be used.
        UsageError: plain http on another address than loopback, without saying so.
        FormatError, PluginError: see `open_state`.
    """
    with _prepared(config) as (server, listener, broker):
        if on_start is not None:
            server.on_listening = lambda: on_start(broker)
        server.run(sockets=[listener])


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
    tls = _check_transport(config)
    state = open_state(config)
    try:
        server = _Server(_uvicorn_config(config, state))
        try:
            server.config.load()
        except (OSError, ssl.SSLError) as error:
            raise LocalError(
                f"certificate and key cannot be used: {error.strerror or error}",
                path=str(config.certificate_file),
            ) from None
        with _listen(config) as listener:
            yield server, listener, _describe(config, state, listener, tls=tls)
    finally:
        state.close()


def _check_transport(config: BrokerConfig) -> bool:
    """Whether TLS is spoken."""
    if (config.certificate_file is None) != (config.certificate_key_file is None):
        raise UsageError("expected a certificate and its key, got one of them")
    tls = config.certificate_file is not None
    if not tls and not is_loopback(config.host) and not config.unsafe_plain_http:
        raise UsageError(
            f"expected a certificate to listen on '{config.host}': tokens and names would be "
            "readable on the network",
            hint="give a certificate and its key, or listen on 127.0.0.1",
        )
    return tls


def _uvicorn_config(config: BrokerConfig, state: BrokerState) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(state),
        http=_Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,  # paths and queries are in the audit log, where they are bounded
        server_header=False,
        proxy_headers=False,  # nothing depends on the caller's address
        backlog=_BACKLOG,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=config.stop_timeout_s,
        ssl_certfile=config.certificate_file,
        ssl_keyfile=str(config.certificate_key_file) if config.certificate_key_file else None,
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
            f"cannot listen on {config.host} port {config.port}: {error.strerror or error}",
            hint="is another broker running there? --port 0 takes any free port",
        ) from None


def _describe(
    config: BrokerConfig, state: BrokerState, listener: socket.socket, *, tls: bool
) -> RunningBroker:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return RunningBroker(
        url=f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}",
        admin_key_file=config.admin_key_file,
        master_key_file=config.master_key_file,
        admin_key_made=state.admin_key_made is not None,
        master_key_made=state.master_key_made is not None,
        sample_tee="sample" in state.verifiers,
    )
