# SPDX-License-Identifier: Apache-2.0
"""A registry inside a test: OCI distribution 1.1, on a free loopback port.

    with EmbeddedRegistry() as registry:
        subprocess.run(["skopeo", "copy", "--dest-tls-verify=false",
                        "oci:app:v1", f"docker://{registry.address}/app:v1"], check=True)
        registry.corrupt_blob(digest)
        assert ("GET", f"/v2/app/blobs/{digest}") in registry.asked()

It keeps the rules of the protocol strictly, counts what it is asked, and lies when it is
told to. As a process of its own, for demonstrations:

    python -m imagers.testing.registry --directory DIR --address-file FILE

Spec: OCI distribution-spec v1.1; token authentication as distribution v2.8 describes it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from imagers.model.digest import Digest, parse_digest
from imagers.testing.registry_http import Fault, LoggedRequest
from imagers.testing.registry_protocol import Handler
from imagers.testing.registry_storage import Storage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from imagers.testing.registry_http import RegistryState
    from imagers.testing.registry_storage import Upload

__all__ = ["EmbeddedRegistry", "LoggedRequest", "main"]

_HOST = "127.0.0.1"


class EmbeddedRegistry:
    """A registry that runs between `__enter__` and `__exit__`.

    Args:
        directory: keeps the content on disk, for large images and for later; None: in memory.
        username: who may do anything; None: everybody.
        password: of that user.
        token_auth: logins by tokens that are fetched from the registry itself.
        tls: of a server; None: plain http.
        port: 0: a free one.
        referrers_api: whether it keeps lists of referrers; without, clients keep them in tags.

    Attributes:
        requests: all requests so far, in the order of their answers.

    Threads: safe.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        *,
        token_auth: bool = False,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        referrers_api: bool = True,
    ) -> None:
        if (username is None) != (password is None):
            raise ValueError("expected both a user name and a password, or neither")
        self.storage = Storage(None if directory is None else Path(directory))
        self.uploads: dict[str, Upload] = {}
        self.requests: list[LoggedRequest] = []
        self.faults: list[Fault] = []
        self.tokens: dict[str, str] = {}
        self.stopping = threading.Event()
        self.username = username
        self.password = password
        self.token_auth = token_auth
        self.referrers_api = referrers_api
        self._tls = tls
        self._port = port
        self._listener: socket.socket | None = None
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        self._acceptor: threading.Thread | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, as names of images begin.

        Raises:
            RuntimeError: it is not running.
        """
        if self._listener is None:
            raise RuntimeError("the registry is not running")
        return f"{_HOST}:{self._port}"

    @property
    def url(self) -> str:
        """Scheme and address."""
        return f"{'http' if self._tls is None else 'https'}://{self.address}"

    def start(self) -> None:
        """Listen; requests are answered from now on.

        Raises:
            OSError: the port is taken.
        """
        listener = socket.create_server((_HOST, self._port))
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def stop(self) -> None:
        """End all connections and threads. Safe to call twice."""
        listener, self._listener = self._listener, None
        if listener is None or self._acceptor is None:
            return
        self.stopping.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the acceptor
        self._acceptor.join()
        listener.close()
        with self._lock:
            connections = list(self._connections.items())
        for thread, connection in connections:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            thread.join()
        for upload in self.uploads.values():
            upload.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # What tests look at.

    def asked(self) -> list[tuple[str, str]]:
        """Method and path of all requests so far."""
        return [(request.method, request.path) for request in list(self.requests)]

    def tags(self, repository: str) -> dict[str, Digest]:
        """The tags of a repository."""
        with self.storage.lock:
            return dict(self.storage.find(repository).tags)

    def read(self, digest: Digest | str) -> bytes:
        """The bytes of a blob or manifest.

        Raises:
            KeyError: there are none.
        """
        data = self.storage.read(_digest(digest))
        if data is None:
            raise KeyError(str(digest))
        return data

    # How tests make it lie.

    def corrupt_blob(self, digest: Digest | str, offset: int = 0) -> None:
        """Change one byte of a blob or manifest; it keeps its name."""
        data = bytearray(self.read(digest))
        data[offset] ^= 0x01
        self.storage.put(_digest(digest), bytes(data))

    def replace_blob(self, digest: Digest | str, data: bytes) -> None:
        """Give out other bytes under a digest: shorter, longer, or somebody else's."""
        self.read(digest)
        self.storage.put(_digest(digest), data)

    def drop_blob(self, digest: Digest | str) -> None:
        """Lose a blob that manifests still name."""
        self.read(digest)
        self.storage.drop(_digest(digest))

    def drop_manifest(self, repository: str, reference: Digest | str) -> None:
        """Lose a manifest, by digest or tag, with all tags that it has.

        Raises:
            KeyError: there is none.
        """
        with self.storage.lock:
            one = self.storage.find(repository)
            digest = one.tags.get(str(reference)) or _digest(reference)
            del one.manifests[digest]
            one.tags = {tag: target for tag, target in one.tags.items() if target != digest}
            self.storage.save()

    def answer_with(
        self,
        status: int,
        *,
        path: str,
        method: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        times: int = 1,
    ) -> None:
        """Give this answer to the next requests whose path contains `path`, in order of calls."""
        fault = Fault(method, path, times, status=status, headers=headers or {}, body=body)
        self.faults.append(fault)

    def break_off(self, *, path: str, after: int, method: str = "", times: int = 1) -> None:
        """Reset the connection after so many bytes of the right body."""
        self.faults.append(Fault(method, path, times, close_after=after))

    def hang(
        self, *, path: str, method: str = "", after: int | None = None, times: int = 1
    ) -> None:
        """Leave the next requests without an answer until the registry stops.

        Args:
            after: bytes of the right body that are given; None: not even its begin.
        """
        self.faults.append(Fault(method, path, times, close_after=after, hang=True))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return  # stopped
            thread = threading.Thread(target=self._serve, args=(connection, address), daemon=True)
            with self._lock:
                self._connections[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket, address: object) -> None:
        state: RegistryState = self
        try:
            # A client that goes away, or speaks no TLS, is no error of ours.
            with suppress(OSError):
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                Handler(connection, address, state)
        finally:
            with suppress(OSError):
                connection.close()
            with self._lock:
                self._connections.pop(threading.current_thread(), None)


def _digest(digest: Digest | str) -> Digest:
    return digest if isinstance(digest, Digest) else parse_digest(digest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a registry until SIGTERM or SIGINT; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m imagers.testing.registry",
        description="A registry on a loopback port, for tests and demonstrations.",
    )
    parser.add_argument("--directory", help="keep the content here; else in memory")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--address-file", required=True, help="gets HOST:PORT when the registry is ready"
    )
    options = parser.parse_args(arguments)
    signals = {signal.SIGTERM, signal.SIGINT}
    # Before any thread starts, so that none of them gets the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with EmbeddedRegistry(options.directory, port=options.port) as registry:
        path = Path(options.address_file)
        new = path.with_name(f".{path.name}.new")
        new.write_text(registry.address + "\n")
        os.replace(new, path)  # whoever waits for the file reads it whole
        signal.sigwait(signals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
