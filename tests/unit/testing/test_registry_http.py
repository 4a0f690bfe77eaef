# SPDX-License-Identifier: Apache-2.0
import io
import socket
import threading
from contextlib import suppress
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.model.digest import digest_of
from imagers.testing.registry import EmbeddedRegistry
from imagers.testing.registry_http import Refused, RequestBody


def body_of(data, **headers):
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return RequestBody(io.BufferedReader(io.BytesIO(data)), message)


def test_request_body_by_length_leaves_the_next_request():
    file = io.BufferedReader(io.BytesIO(b"12345next"))
    message = Message()
    message["Content-Length"] = "5"
    assert RequestBody(file, message).read(5) == b"12345"
    assert file.read() == b"next"


@pytest.mark.parametrize(
    "data",
    [
        b"5\r\n12345\r\n0\r\n\r\n",
        b"2\r\n12\r\n3;ext=1\r\n345\r\n0\r\n\r\n",
        b"1\r\n1\r\n4\r\n2345\r\n0\r\nTrailer: x\r\n\r\n",
        b"005\r\n12345\r\n000\r\n\r\n",
    ],
)
def test_request_body_in_chunks_comes_whole(data):
    assert body_of(data, Transfer_Encoding="chunked").read(5) == b"12345"


@pytest.mark.parametrize("data", [b"", b"zz\r\n", b"5\r\n123", b"-1\r\n"])
def test_request_body_in_broken_chunks_is_a_broken_connection(data):
    with pytest.raises(ConnectionResetError):
        body_of(data, Transfer_Encoding="chunked").read(5)


def test_request_body_cut_off_is_a_broken_connection():
    with pytest.raises(ConnectionResetError):
        body_of(b"123", Content_Length="5").read(5)


def test_request_body_above_its_bound_refused():
    with pytest.raises(Refused, match="at most 4 bytes") as caught:
        body_of(b"12345", Content_Length="5").read(4)
    assert caught.value.status == 413


def test_request_body_drained_says_whether_that_was_all():
    assert body_of(b"12345", Content_Length="5").drain(5)
    assert not body_of(b"12345", Content_Length="5").drain(4)
    assert body_of(b"", Content_Length="0").drain(0)


@given(st.binary(max_size=60))
def test_request_body_any_chunks_end(data):
    with suppress(ConnectionResetError, Refused):
        body_of(data, Transfer_Encoding="chunked").read(60)


@pytest.mark.parametrize(
    "noise", [b"\x16\x03\x01\x02\x00\n\n", b"GET\r\n\r\n", b"\r\n", b"GET / HTTP/9.9\r\n\r\n", b""]
)
def test_connection_noise_ends_it_and_nothing_else(noise):
    with EmbeddedRegistry() as registry:
        host, _, port = registry.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert ("GET", "/v2/") in registry.asked()


def test_connection_expect_continue_is_answered_before_the_body():
    with EmbeddedRegistry() as registry:
        host, _, port = registry.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(
                f"POST /v2/app/blobs/uploads/?digest={digest_of(b'x')} HTTP/1.1\r\n"
                "Content-Length: 1\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n")
            connection.sendall(b"x")
            assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")


def test_connection_many_at_once_are_all_served():
    with EmbeddedRegistry() as registry:
        host, _, port = registry.address.partition(":")
        gate = threading.Barrier(8)
        answers = []

        def work():
            gate.wait()
            with socket.create_connection((host, int(port)), timeout=10) as connection:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n")
                answers.append(connection.recv(65536)[:12])

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [b"HTTP/1.1 200"] * 8
        assert len(registry.requests) == 8
