# SPDX-License-Identifier: Apache-2.0
"""Guests that do nothing but ask a key broker: the load of benchmarks/broker.py.

They speak HTTP over a socket in as few steps as it takes, so that they cost little beside the
server; what they send and open is made and read by the library.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Self

from imagers.evidence.plugins import load_attester
from imagers.kbs.jwe import open_answer
from imagers.kbs.messages import Attestation, Request, hash_report_data, parse_challenge
from imagers.kbs.tee_key import ECKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

RESOURCE = "default/bench/key"
SECRET = b"k" * 32
AUTH = Request.offering_hashes("sample").to_bytes()
PATIENCE_S = 60.0


class Wire:
    """A connection, and requests on it in turn."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, body: bytes = b"", cookie: str = "") -> tuple[bytes, str]:
        """The body of the answer, and the cookie that came with it."""
        head = f"{method} /kbs/v0/{path} HTTP/1.1\r\nHost: bench\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        if cookie:
            head += f"Cookie: kbs-session-id={cookie}\r\n"
        self._socket.sendall(head.encode() + b"\r\n" + body)
        while b"\r\n\r\n" not in self._read:
            self._more()
        answered, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = answered.decode("latin-1").split("\r\n")
        split = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in split}
        size = int(headers["content-length"])
        while len(self._read) < size:
            self._more()
        data, self._read = self._read[:size], self._read[size:]
        if first.split(" ")[1] != "200":
            raise RuntimeError(f"{path}: {first}: {data[:200]!r}")
        given = headers.get("set-cookie", "").partition(";")[0].partition("=")[2]
        return data, given

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the server closed the connection")
        self._read += data


class Guest:
    """One client; each method is one unit of work."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._attester = load_attester("sample")
        self.handshake()
        self._kept = Wire(address)

    def handshake(self) -> None:
        with Wire(self._address) as wire:
            answer, self._cookie = wire.ask("POST", "auth", AUTH)
            challenge = parse_challenge(answer)
            self._key = ECKey()
            bound = hash_report_data(
                nonce=challenge.nonce,
                tee_pubkey=self._key.public,
                report_hash=challenge.report_hash,
            )
            message = Attestation(
                nonce=challenge.nonce,
                tee_pubkey=self._key.public,
                primary_evidence=self._attester.collect(bound).body,
            )
            wire.ask("POST", "attest", message.to_bytes(), self._cookie)
            self._compare(self._resource(wire))

    def read(self) -> None:
        with Wire(self._address) as wire:
            self._resource(wire)

    def read_kept(self) -> None:
        self._resource(self._kept)

    def _resource(self, wire: Wire) -> bytes:
        return wire.ask("GET", f"resource/{RESOURCE}", cookie=self._cookie)[0]

    def _compare(self, answer: bytes) -> None:
        with open_answer(answer, self._key) as secret, secret.view() as data:
            if data != SECRET:
                raise RuntimeError("another secret than the one that was stored")


WORK: dict[str, Callable[[Guest], None]] = {
    "handshake": Guest.handshake,
    "read": Guest.read,
    "read, kept": Guest.read_kept,
}


def client(
    address: tuple[str, int], work: str, stop: float, count: int, start: Barrier, tell: Connection
) -> None:
    """The life of a client: until `stop` seconds or `count` units have passed."""
    seconds: list[float] = []
    errors: list[str] = []
    try:
        guest = Guest(address)
        start.wait(PATIENCE_S)
    except (OSError, RuntimeError) as error:
        errors.append(str(error))
        start.abort()
        count = 0
    end = time.perf_counter() + stop
    while len(seconds) < count and (begin := time.perf_counter()) < end:
        try:
            WORK[work](guest)
        except (OSError, RuntimeError) as error:
            errors.append(str(error))
        seconds.append(time.perf_counter() - begin)
    tell.send((seconds, errors))
