# SPDX-License-Identifier: Apache-2.0
"""What an attestation agent is asked, and what its answers lead to."""

import socket
import struct
import threading

import pytest

from imagers.errors import FormatError, LocalError, TimedOut, Unsupported
from imagers.evidence import agent as module
from imagers.evidence.agent import MeasuredByAgent
from imagers.evidence.ccel import NO_ACTION, agent_event, digest_by, make_record
from imagers.model.protobuf import bytes_field, number_field, parse_fields
from imagers.waiting import Cancellation

CONTENT = {"image": "sha256:00"}
TEXT = '{"image":"sha256:00"}'
EVENT = agent_event("imagers", "PullImage", TEXT)
OK = bytes_field(2, b"")


def frame(payload, *, stream=1, kind=2):
    return struct.pack(">IIBB", len(payload), stream, kind, 0) + payload


def result(number):
    return frame(bytes_field(2, number_field(1, number)))


@pytest.fixture
def agent(tmp_path):
    """A function: listens once, answers with the given bytes; the list of what it was asked."""
    threads = []

    def listen(answer):
        asked = []
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "agent.sock"))
        server.listen()

        def serve():
            with server, server.accept()[0] as connection:
                header = connection.recv(10, socket.MSG_WAITALL)
                length, stream, kind, flags = struct.unpack(">IIBB", header)
                asked.append((stream, kind, flags, connection.recv(length, socket.MSG_WAITALL)))
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return asked

    yield listen
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def measure(tmp_path):
    return MeasuredByAgent(tmp_path / "agent.sock", tmp_path / "log")


def test_agent_is_asked_for_one_event(agent, measure):
    asked = agent(result(0))
    measure.record("PullImage", CONTENT)
    ((stream, kind, flags, request),) = asked
    assert (stream, kind, flags) == (1, 1, 0)
    fields = dict(parse_fields(request))
    assert fields[1] == b"attestation_agent.AttestationAgentService"
    assert fields[2] == b"ExtendRuntimeMeasurement"
    assert fields[4] == 50_000_000_000
    # No register: that is the agent's to know.
    assert list(parse_fields(fields[3])) == [
        (1, b"imagers"),
        (2, b"PullImage"),
        (3, TEXT.encode()),
    ]


@pytest.mark.parametrize("algorithm", ["SHA-256", "SHA-384"])
def test_event_that_the_log_has_is_not_measured_again(tmp_path, measure, algorithm):
    record = make_record(17, {algorithm: digest_by(algorithm, EVENT)}, EVENT)
    (tmp_path / "log").write_bytes(record)
    measure.record("PullImage", CONTENT)  # nobody listens


@pytest.mark.parametrize(
    "record",
    [
        make_record(17, {"SHA-256": digest_by("SHA-256", EVENT + b" ")}, EVENT),
        make_record(17, {"SHA-256": digest_by("SHA-256", EVENT)}, EVENT).replace(
            struct.pack("<I", 6), struct.pack("<I", NO_ACTION), 1
        ),
        make_record(17, {"SHA-256": digest_by("SHA-256", b"other")}, b"other"),
    ],
    ids=["other digest", "no action", "other event"],
)
def test_record_of_something_else_does_not_stand_for_an_event(tmp_path, agent, measure, record):
    (tmp_path / "log").write_bytes(record)
    asked = agent(result(0))
    measure.record("PullImage", CONTENT)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "error", "piece"),
    [
        (result(1), Unsupported, "has no register that it could extend"),
        (result(2), LocalError, "it keeps no log"),
        (result(7), LocalError, "expected the result 0, 1 or 2, got 7"),
        (
            frame(bytes_field(1, number_field(1, 13) + bytes_field(2, b"no\nway"))),
            LocalError,
            "status 13: no way",
        ),
        (frame(OK, stream=3), FormatError, "for stream 3"),
        (frame(OK, kind=3), FormatError, "got type 3"),
        (struct.pack(">IIBB", 1 << 30, 1, 2, 0), FormatError, "of at most 65536 bytes"),
        (frame(b"\x0a\x7f"), FormatError, "ends inside a field"),
        (frame(bytes_field(2, b"\x08")), FormatError, "ends inside a number"),
        (result(0)[:-1], LocalError, "closed the connection after"),
        (b"", LocalError, "closed the connection after 0 of 10 bytes"),
    ],
)
def test_agent_that_does_not_measure_ends_the_pull(agent, measure, answer, error, piece):
    agent(answer)
    with pytest.raises(error, match=piece) as caught:
        measure.record("PullImage", CONTENT)
    if error is LocalError:
        assert "agent.sock" in str(caught.value)


def test_agent_that_is_not_there_is_named(measure):
    with pytest.raises(LocalError, match=r"attestation agent at '.*agent.sock': no such file"):
        measure.record("PullImage", CONTENT)


def test_agent_that_never_answers_is_not_waited_for_ever(tmp_path, measure, monkeypatch):
    monkeypatch.setattr(module, "_LIMIT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen()
        with pytest.raises(LocalError, match="no answer within"):
            measure.record("PullImage", CONTENT)


def test_agent_that_never_answers_is_waited_for_until_a_limit(tmp_path, measure):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen()
        limit = Cancellation(seconds=0.3, phase="bundle")
        with pytest.raises(TimedOut) as caught, limit.in_force():
            measure.record("PullImage", CONTENT)
    assert caught.value.waited_for == f"the attestation agent at '{tmp_path / 'agent.sock'}'"
