# SPDX-License-Identifier: Apache-2.0
"""Names of tests that attack a rule begin their docstring with its number in the module."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from imagers.broker.http1 import MAX_HEAD_BYTES, MAX_HEAD_FIELDS

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"version":"0.4.0","tee":"sample","extra-params":""}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(BODY), BODY)


@pytest.fixture
def connect(shared):
    """A connection to a broker that other tests share."""
    parts = urlsplit(shared.url)
    made = []

    def run():
        made.append(socket.create_connection((parts.hostname, parts.port), timeout=10))
        return made[-1]

    yield run
    for one in made:
        one.close()


def receive(connection):
    """(head, body) of one answer; the peer may have closed behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        assert more, data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < size:
        body += connection.recv(65536)
    return head, body


def is_closed(connection):
    try:
        return connection.recv(65536) == b""
    except ConnectionResetError:
        return True


def status(head):
    return int(head[9:12])


@pytest.mark.parametrize(
    "request_",
    [
        GET + b"\r\n",
        b"\r\n" + GET + b"\r\n",
        b"GET http://other.example/healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz?a=b HTTP/1.1\r\nHOST: x\r\nA:\t b \t\r\n\r\n",
        GET + b"Content-Length: 0\r\n\r\n",
        POST + LENGTH + b"\r\n" + BODY,
        POST + b"Content-Length: 00%d\r\n\r\n" % len(BODY) + BODY,
        POST + CHUNKED + b"\r\n" + CHUNKS + b"\r\n",
        POST + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKS + b"\r\n",
        POST + CHUNKED + b"\r\n" + b"0" + CHUNKS.replace(b"\r\n", b";a=b\r\n", 1) + b"\r\n",
    ],
    ids=[
        "plain",
        "an empty line before it",
        "absolute form",
        "white space about a value",
        "a body of nothing",
        "a length",
        "a length with zeros",
        "chunks",
        "chunks in capitals",
        "a chunk with an extension",
    ],
)
def test_request_that_is_one_is_answered_and_the_connection_kept(connect, request_):
    connection = connect()
    for _ in range(2):
        connection.sendall(request_)
        head, _ = receive(connection)
        assert status(head) == 200
        assert b"connection: close" not in head.lower()


REFUSED = {
    "two lengths": POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "one length twice": POST + LENGTH * 2 + b"\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: 52, 52\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +52\r\n\r\n" + BODY,
    "a length in another base": POST + b"Content-Length: 0x34\r\n\r\n" + BODY,
    "an empty length": POST + b"Content-Length:\r\n\r\n" + BODY,
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a coding and a length": POST + CHUNKED + LENGTH + b"\r\n" + CHUNKS + b"\r\n",
    "a length and a coding": POST + LENGTH + CHUNKED + b"\r\n" + CHUNKS + b"\r\n",
    "a coding twice": POST + CHUNKED * 2 + b"\r\n" + CHUNKS + b"\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS + b"\r\n",
    "two codings, the other way": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked is not the last": POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n",
    "another coding": POST + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS + b"\r\n",
    "a coding in quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS + b"\r\n",
    "a coding behind a control character": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "an empty coding": POST + b"Transfer-Encoding:\r\n\r\n" + CHUNKS + b"\r\n",
    "white space before a colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS,
    "lines without CR": GET.replace(b"\r", b"") + b"\n",
    "a line without CR": GET + b"A: b\nC: d\r\n\r\n",
    "a last line without CR": GET + b"\n",
    "a CR alone": GET + b"A: b\rC: d\r\n\r\n",
    "a folded line": GET + b"A: b\r\n c\r\n\r\n",
    "a folded first line": b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n",
    "NUL in a value": GET + b"A: b\0\r\n\r\n",
    "NUL in a name": GET + b"A\0: b\r\n\r\n",
    "NUL in the target": b"GET /healthz\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control character in a value": GET + b"A: b\x01\r\n\r\n",
    "no name": GET + b": b\r\n\r\n",
    "no colon": GET + b"abc\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: y\r\n\r\n",
    "two hosts of HTTP/1.0": b"GET /healthz HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a handshake of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII in the target": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade with a body": POST
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    + LENGTH
    + b"\r\n"
    + BODY,
    "a chunk without CR": POST + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r", b"") + b"\n",
    "a chunk with a sign": POST + CHUNKED + b"\r\n-" + CHUNKS + b"\r\n",
    "a chunk in another base": POST + CHUNKED + b"\r\n0x" + CHUNKS + b"\r\n",
    "a chunk beyond 64 bits": POST + CHUNKED + b"\r\n" + b"f" * 17 + b"\r\n",
    "a chunk longer than it says": POST + CHUNKED + b"\r\n1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk without size": POST + CHUNKED + b"\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
def test_request_that_is_none_is_refused_and_the_connection_closed(connect, request_):
    """2, 6, 7: nobody before us may see another end of a request than we do."""
    connection = connect()
    connection.sendall(request_ + GET + b"\r\n")
    head, body = receive(connection)
    assert status(head) == 400
    assert b"connection: close" in head
    error = json.loads(body)
    assert error["type"].endswith("/SerdeError")
    assert error["detail"].startswith("this is no request of HTTP/1.1: ")
    assert is_closed(connection)


def test_detail_of_a_refusal_says_what_is_wrong(connect):
    """7."""
    connection = connect()
    connection.sendall(POST + LENGTH * 2 + b"\r\n")
    assert json.loads(receive(connection)[1])["detail"].endswith("Duplicate Content-Length")


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_head_of_the_longest_length_is_taken(connect, pieces):
    """1: however it arrives."""
    head = GET + b"A: "
    head += b"a" * (MAX_HEAD_BYTES - len(head) - 60) + b"\r\n\r\n"
    connection = connect()
    for at in range(0, len(head), len(head) // pieces + 1):
        connection.sendall(head[at : at + len(head) // pieces + 1])
    assert status(receive(connection)[0]) == 200


@pytest.mark.parametrize("end", [b"\r\n\r\n", b""], ids=["whole", "endless"])
@pytest.mark.parametrize(
    "head",
    [
        GET + b"A: " + b"a" * MAX_HEAD_BYTES,
        b"GET /" + b"a" * MAX_HEAD_BYTES,
        GET + b"a" * MAX_HEAD_BYTES,
    ],
    ids=["value", "target", "name"],
)
def test_head_that_is_too_long_refused(connect, head, end):
    """1."""
    connection = connect()
    connection.sendall(head + end)
    assert status(receive(connection)[0]) in (400, 431)  # a name without a colon is none either
    assert is_closed(connection)


def test_head_of_too_many_fields_refused(connect):
    """1: each takes more memory than it is long."""
    connection = connect()
    connection.sendall(GET + b"A: b\r\n" * (MAX_HEAD_FIELDS - 1) + b"\r\n")
    assert status(receive(connection)[0]) == 200
    connection.sendall(GET + b"A: b\r\n" * (MAX_HEAD_FIELDS + 1))
    assert status(receive(connection)[0]) == 431
    assert is_closed(connection)


def test_trailers_become_no_fields_of_a_head(connect, shared):
    """3: neither of this request nor of the next one."""
    with shared.client() as client:
        session, _ = client._current(stale=None)
    cookie = f"Cookie: {session.headers['Cookie']}\r\n".encode()
    ask = b"POST /kbs/v0/attest HTTP/1.1\r\nHost: x\r\n"
    connection = connect()
    connection.sendall(ask + CHUNKED + b"\r\n" + CHUNKS + cookie + b"\r\n")
    assert status(receive(connection)[0]) == 401
    connection.sendall(b"GET /kbs/v0/resource/a/b/c HTTP/1.1\r\nHost: x\r\n\r\n")
    head, body = receive(connection)
    assert (status(head), json.loads(body)["type"].rpartition("/")[2]) == (401, "TokenNotFound")


def test_trailers_are_bounded(connect):
    """1, 3."""
    connection = connect()
    connection.sendall(POST + CHUNKED + b"\r\n" + CHUNKS + b"A: b\r\n" * (MAX_HEAD_FIELDS + 1))
    assert status(receive(connection)[0]) == 431
    assert is_closed(connection)


def test_next_request_before_the_answer_is_not_run(connect):
    """4: and the answer says that the connection closes."""
    connection = connect()
    connection.sendall((GET + b"\r\n") * 1000)
    head, body = receive(connection)
    assert (status(head), body) == (200, b"ok\n")
    assert b"connection: close" in head
    assert is_closed(connection)


def test_bytes_behind_an_answered_last_request_are_not_read(connect):
    """4."""
    connection = connect()
    connection.sendall(GET + b"Connection: close\r\n\r\n" + GET + b"\r\n")
    assert receive(connection)[1] == b"ok\n"
    assert is_closed(connection)


@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"], ids=["sends", "waits"])
def test_connection_whose_body_was_not_read_is_not_used_again(connect, more):
    """5: what comes next could be the body or a request."""
    connection = connect()
    connection.sendall(
        b"PUT /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n" + more + b"\r\n"
    )
    assert status(receive(connection)[0]) == 404
    connection.sendall(GET + b"\r\n")
    assert is_closed(connection)


def test_expectation_is_met_when_the_body_is_wanted(connect):
    connection = connect()
    connection.sendall(POST + LENGTH + b"Expect: 100-continue\r\n\r\n")
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(BODY)
    assert status(receive(connection)[0]) == 200


def test_expectation_of_http_1_0_is_none(connect):
    connection = connect()
    connection.sendall(
        POST.replace(b"1.1", b"1.0") + LENGTH + b"Expect: 100-continue\r\n\r\n" + BODY
    )
    assert status(receive(connection)[0]) == 200
    assert is_closed(connection)


def test_upgrade_is_ignored_and_ends_the_connection(connect):
    """6."""
    connection = connect()
    connection.sendall(GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + b"\x81\x00" * 9)
    head, body = receive(connection)
    assert (status(head), body) == (200, b"ok\n")
    assert b"connection: close" in head
    assert is_closed(connection)


def test_body_that_is_damaged_on_its_way_is_refused_once(connect):
    """7: not within another answer."""
    connection = connect()
    connection.sendall(POST + CHUNKED + b"\r\n")
    connection.sendall(b"zz\r\n")
    assert status(receive(connection)[0]) == 400
    assert is_closed(connection)


def test_head_and_body_of_an_answer_come_in_one_piece(connect):
    """Rule 8."""
    connection = connect()
    for _ in range(20):
        connection.sendall(GET + b"\r\n")
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert (status(head), body) == (200, b"ok\n")


def test_answer_without_a_body_does_not_wait_for_one(connect):
    """Rule 8."""
    connection = connect()
    for _ in range(2):
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert (status(head), body) == (200, b"")


@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"])
def test_answer_before_the_end_of_a_body_says_that_the_connection_closes(connect, more):
    """Rule 5: who asks again, behind the rest of the body, would be taken for one who pipelines."""
    connection = connect()
    head = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    connection.sendall(head + more + b"\r\nab")
    answer, _ = receive(connection)
    assert status(answer) == 404
    assert b"connection: close" in answer.lower()
    if not more:
        connection.sendall(b"cd")
    assert is_closed(connection)


def test_answer_after_a_body_that_nobody_wanted_leaves_the_connection_open(connect):
    """Rule 5."""
    connection = connect()
    for _ in range(2):
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        answer, _ = receive(connection)
        assert status(answer) == 404
        assert b"connection:" not in answer.lower()
