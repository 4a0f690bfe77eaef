# SPDX-License-Identifier: Apache-2.0
"""Measuring by the attestation agent of Confidential Containers: it has register and log.

    measure = MeasuredByAgent()
    measure.record("PullImage", {"image": "sha256:..."})

Where an agent runs that keeps a log, nobody else may write it: the agent writes each record where
its own last one ended. Which register it extends its configuration says.

The agent is asked by ttrpc: a frame is its length in 4 bytes, a stream number in 4, both
big-endian, a type, and flags; then a message of protobuf.

Spec: containerd/ttrpc, PROTOCOL.md; guest-components, protos/attestation-agent.proto.
"""

from __future__ import annotations

import socket
import struct
import time
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from imagers import waiting
from imagers.errors import FormatError, LocalError, Unsupported
from imagers.evidence.ccel import NO_ACTION, agent_event, digest_by, parse_records
from imagers.evidence.measure import AGENT_LOG, DOMAIN, reading_log
from imagers.files import reason_of
from imagers.model.protobuf import bytes_field, number_field, parse_fields

if TYPE_CHECKING:
    from imagers.evidence.ccel import Event
    from imagers.model.evidence import Measure
    from imagers.model.strict_json import JSON

__all__ = ["AGENT_SOCKET", "MeasuredByAgent"]

AGENT_SOCKET = Path("/run/confidential-containers/attestation-agent/attestation-agent.sock")
_SERVICE = "attestation_agent.AttestationAgentService"
_METHOD = "ExtendRuntimeMeasurement"
_HEADER = struct.Struct(">IIBB")  # length, stream, type, flags
_REQUEST, _RESPONSE = 1, 2
_STREAM = 1  # odd where a client began it
_MAX_ANSWER = 64 * 1024
_LIMIT_S = 50.0  # as the Confidential Data Hub waits for it
_OK, _NOT_SUPPORTED, _NOT_ENABLED = 0, 1, 2


class MeasuredByAgent:
    """See `Measure`, and the module.

    Args:
        path: of the agent's socket.
        log: that it writes.

    Threads: safe.
    """

    def __init__(self, path: Path = AGENT_SOCKET, log: Path = AGENT_LOG) -> None:
        self._path = path
        self._log = log

    def record(self, operation: str, content: JSON) -> None:
        """See `Measure`. Register and log are the agent's to keep together.

        Raises:
            LocalError: the agent cannot be reached, or fails, or keeps no log.
            Unsupported: the machine has no register that it could extend.
            FormatError: its log or its answer is none.
        """
        import rfc8785  # used once a pull

        text = rfc8785.dumps(content).decode()
        event = agent_event(DOMAIN, operation, text)
        with reading_log(self._log) as log:
            # A log and a register that disagree are no evidence, so no more is to be known here.
            if any(_is_of(one, event) for one in parse_records(log)[0]):
                return
        question = b"".join(
            bytes_field(number, field.encode())
            for number, field in enumerate((DOMAIN, operation, text), 1)
        )
        with waiting.waits_for(f"the {self._name}"):
            try:
                answer = self._ask(question)
            except OSError as error:
                waiting.check()
                self._fail(reason_of(error))
        result = next((value for number, value in reversed(answer) if number == 1), _OK)
        if result == _NOT_ENABLED:
            self._fail("it keeps no log", "set enable_eventlog = true below [eventlog_config]")
        if result == _NOT_SUPPORTED:
            raise Unsupported(
                f"{self._name}: this machine has no register that it could extend",
                hint="measure into a register of a TPM if there is one",
            )
        if result != _OK:
            self._fail(f"expected the result 0, 1 or 2, got {str(result)[:40]}")

    @property
    def _name(self) -> str:
        return f"attestation agent at '{self._path}'"

    def _fail(self, reason: str, hint: str = "is it running, and of this version?") -> NoReturn:
        raise LocalError(f"{self._name}: {reason}", hint=hint)

    def _ask(self, question: bytes) -> list[tuple[int, int | bytes]]:
        """The fields of the answer."""
        request = (
            bytes_field(1, _SERVICE.encode())
            + bytes_field(2, _METHOD.encode())
            + bytes_field(3, question)
            + number_field(4, int(_LIMIT_S * 1e9))
        )
        deadline = time.monotonic() + _LIMIT_S
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(max(waiting.left_s(_LIMIT_S), waiting.TICK_S))
            connection.connect(str(self._path))
            connection.sendall(_HEADER.pack(len(request), _STREAM, _REQUEST, 0) + request)
            header = self._receive(connection, _HEADER.size, deadline)
            length, stream, kind, _ = _HEADER.unpack(header)
            if (stream, kind) != (_STREAM, _RESPONSE) or length > _MAX_ANSWER:
                raise FormatError(
                    f"expected a response of at most {_MAX_ANSWER} bytes for stream {_STREAM}, "
                    f"got type {kind} with {length} bytes for stream {stream}",
                    what=self._name,
                )
            response = self._receive(connection, length, deadline)
        status, answer = b"", b""
        for number, value in parse_fields(response):
            if isinstance(value, bytes) and number == 1:
                status = value
            elif isinstance(value, bytes) and number == 2:
                answer = value
        told = dict(parse_fields(status))
        if told.get(1, 0) != 0:
            text = told.get(2, b"")
            words = text.decode(errors="replace") if isinstance(text, bytes) else ""
            self._fail(f"status {str(told[1])[:40]}: {' '.join(words.split())[:400]}")
        return list(parse_fields(answer))

    def _receive(self, connection: socket.socket, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            waiting.check()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._fail(f"no answer within {_LIMIT_S:g} s")
            connection.settimeout(min(left_s, waiting.TICK_S))
            try:
                piece = connection.recv(size - len(data))
            except TimeoutError:
                continue
            if not piece:
                self._fail(f"it closed the connection after {len(data)} of {size} bytes")
            data += piece
        return data


def _is_of(record: Event, data: bytes) -> bool:
    """Whether a record measures this event."""
    return record.kind != NO_ACTION and any(
        compare_digest(digest, digest_by(name, data)) for name, digest in record.digests.items()
    )


if TYPE_CHECKING:

    def _is_measure(agent: MeasuredByAgent) -> Measure:
        return agent
