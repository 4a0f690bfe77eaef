# SPDX-License-Identifier: Apache-2.0
import gzip
import logging
import os
import re
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from imagers import __version__
from imagers.errors import (
    Cancelled,
    DigestMismatch,
    FormatError,
    LocalError,
    NotFound,
    RateLimited,
    RemoteError,
    TimedOut,
    Unauthorized,
    UsageError,
)
from imagers.net.failures import NOT_TLS
from imagers.net.http import (
    ANY_STATUS,
    FileBody,
    HTTPClient,
    HTTPSettings,
    PieceBody,
    status_error,
    status_text,
)
from imagers.net.retry import RetryPolicy
from imagers.waiting import Cancellation

QUICK = RetryPolicy(attempts=1)


def test_request_good_answer_comes_whole(client, peer, say):
    peer.answers = [say(body=b"hello", headers=["X-One: 1"])]
    answer = client.request("GET", f"{peer.url}/a?b=c", headers={"Accept": "text/x"})
    assert (answer.status, answer.body, answer.headers["x-one"]) == (200, b"hello", "1")
    method, target, headers, _ = peer.seen[0]
    assert (method, target) == ("GET", "/a?b=c")
    assert headers["accept"] == "text/x"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == f"imagers/{__version__}"


def test_request_and_what_it_is_made_again_for_are_logged(peer, say, caplog):
    peer.answers = [say("503 Busy"), say(body=b"1")]
    with caplog.at_level(logging.DEBUG, "imagers"), HTTPClient(sleep=lambda _: None) as client:
        client.request("GET", f"{peer.url}/a?token=canary", headers={"Authorization": "canary"})
    lines = [one.getMessage() for one in caplog.records if one.name == "imagers.net.http"]
    assert [lines[0], lines[2]] == [f"GET {peer.url}/a?token=…: {status}" for status in (503, 200)]
    assert re.fullmatch(r"again in [0-9.]+ s, attempt 2 of 4: 503 service unavailable", lines[1])
    assert len(lines) == 3
    assert "canary" not in caplog.text


def test_library_is_silent_until_a_program_listens():
    kinds = [type(one) for one in logging.getLogger("imagers").handlers]
    assert logging.NullHandler in kinds
    assert not logging.getLogger("imagers.net.http").isEnabledFor(logging.DEBUG)


def test_request_second_one_uses_the_same_connection(client, peer, say):
    peer.answers = [say(body=b"1")]
    client.request("GET", peer.url)
    client.request("GET", peer.url)
    assert peer.connections == 1


def test_request_body_of_bytes_arrives(client, peer, say):
    peer.answers = [say("201 Created")]
    body = os.urandom(300_000)
    assert client.request("PUT", peer.url, body=body).status == 201
    assert peer.seen[0][3] == body
    assert peer.seen[0][2]["content-length"] == "300000"


def test_request_empty_body_has_a_length(client, peer, say):
    peer.answers = [say()]
    client.request("PUT", peer.url, body=b"")
    client.request("POST", peer.url)
    assert [one[2]["content-length"] for one in peer.seen] == ["0", "0"]


def test_request_file_body_replayed_from_its_start_after_a_failure(client, peer, say, tmp_path):
    peer.answers = [say("503 Busy"), say("201 Created")]
    data = os.urandom(200_000)
    path = tmp_path / "blob"
    path.write_bytes(data)
    with path.open("rb") as file:
        file.seek(5)
        client.request("PUT", peer.url, body=FileBody(file.fileno(), len(data)))
        assert file.tell() == 5
    assert [one[3] == data for one in peer.seen] == [True, True]


def test_request_file_that_became_shorter_is_a_local_error(client, peer, say, tmp_path):
    peer.answers = [say("201 Created")]
    path = tmp_path / "blob"
    path.write_bytes(b"12345")
    with path.open("rb") as file, pytest.raises(LocalError, match="shorter"):
        client.request("PUT", peer.url, body=FileBody(file.fileno(), 6))


def test_request_file_that_cannot_be_read_is_a_local_error(client, peer, say, tmp_path):
    peer.answers = [say("201 Created")]
    with (tmp_path / "blob").open("wb") as file, pytest.raises(LocalError, match="read") as caught:
        client.request("PUT", peer.url, body=FileBody(file.fileno(), 6))
    assert not isinstance(caught.value, RemoteError)


def test_request_body_of_pieces_made_anew_for_each_attempt(client, peer, say):
    peer.answers = [say("503 Busy"), say("201 Created")]
    data = os.urandom(200_000)
    closed = []

    def pieces():
        try:
            for at in range(0, len(data), 70_000):
                yield memoryview(data)[at : at + 70_000]
        finally:
            closed.append(True)

    client.request("PUT", peer.url, body=PieceBody(len(data), pieces))
    assert [one[3] == data for one in peer.seen] == [True, True]
    assert closed == [True, True]


def test_request_body_of_pieces_that_fails_is_never_sent_whole(client, peer, say):
    peer.answers = [say("201 Created")]

    def pieces():
        yield memoryview(b"12345")
        raise DigestMismatch(expected="a", actual="b")

    with pytest.raises(DigestMismatch):
        client.request("PUT", peer.url, body=PieceBody(6, pieces))
    peer.answers = [say(body=b"next")]
    assert client.request("GET", peer.url).body == b"next"
    assert peer.connections == 2  # the first one was broken off, without its last byte
    while len(peer.seen) < 2:  # the peer sees that in a thread of its own
        time.sleep(0.01)
    assert b"".join(one[3] for one in peer.seen if one[0] == "PUT") == b"12345"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("400 Bad", (RemoteError, False)),
        ("401 No", (Unauthorized, False)),
        ("403 No", (Unauthorized, False)),
        ("404 None", (NotFound, False)),
        ("429 Slow", (RateLimited, True)),
        ("500 Oh", (RemoteError, True)),
        ("503 Oh", (RemoteError, True)),
    ],
)
def test_request_unexpected_status_raises_its_kind(client, peer, say, status, expected):
    peer.answers = [say(status, b"details")]
    with pytest.raises(RemoteError) as caught:
        client.request("GET", f"{peer.url}/x?token=secret")
    assert (type(caught.value), caught.value.temporary) == expected
    assert caught.value.status == int(status[:3])
    assert f"GET {peer.url}/x?token=…: the server answered {status[:3]}" in str(caught.value)


def test_request_expected_status_is_returned_with_its_body(client, peer, say):
    peer.answers = [say("404 None", b"details")]
    assert client.request("GET", peer.url, expected=ANY_STATUS).body == b"details"


def test_open_for_a_caller_with_retries_of_its_own_asks_once(client, peer, say, waits):
    peer.answers = [say("503 Busy"), say(body=b"ok")]
    with client.open("GET", peer.url, expected=ANY_STATUS, repeatable=False) as stream:
        assert stream.status == 503
    assert waits == []


def test_request_503_then_200_is_tried_again(client, peer, say, waits):
    peer.answers = [say("503 Busy"), say("502 Gone"), say(body=b"ok")]
    assert client.request("GET", peer.url).body == b"ok"
    assert len(waits) == 2
    assert waits[0] <= 0.5
    assert waits[1] <= 1.0


def test_request_retry_after_is_obeyed(client, peer, say, waits):
    peer.answers = [say("429 Slow", headers=["Retry-After: 7"]), say(body=b"ok")]
    client.request("GET", peer.url)
    assert waits == [7.0]


def test_request_retry_after_beyond_patience_gives_up_at_once(client, peer, say, waits):
    peer.answers = [say("429 Slow", headers=["Retry-After: 3600"])]
    with pytest.raises(RateLimited):
        client.request("GET", peer.url)
    assert (len(peer.seen), waits) == (1, [])


def test_request_post_is_not_repeated_unless_it_may(client, peer, say):
    peer.answers = [say("503 Busy"), say()]
    with pytest.raises(RemoteError):
        client.request("POST", peer.url)
    assert len(peer.seen) == 1
    peer.answers = [None, say("503 Busy"), say()]
    assert client.request("POST", peer.url, repeatable=True).status == 200


def test_request_connection_reset_then_good_is_tried_again(client, peer, say):
    peer.answers = [(b"", "reset"), (say(body=b"12", length=5), "reset"), say(body=b"ok")]
    assert client.request("GET", peer.url).body == b"ok"
    assert len(peer.seen) == 3


def test_request_connection_always_closed_raises_temporary(client, peer, waits):
    peer.answers = [(b"", "close")]
    with pytest.raises(RemoteError, match="connection") as caught:
        client.request("GET", peer.url)
    assert caught.value.temporary
    assert caught.value.hint
    assert (len(peer.seen), len(waits)) == (3, 2)


def test_request_body_shorter_than_promised_is_an_error(client, peer, say):
    peer.answers = [(say(body=b"123", length=10), "close")]
    with pytest.raises(RemoteError, match="before the answer was complete"):
        client.request("GET", peer.url)


def test_request_announced_length_above_bound_refused_before_reading(client, peer, say):
    peer.answers = [(say(body=b"x", length=10**12), "close")]
    with pytest.raises(RemoteError, match=r"at most 100 bytes, got 1000000000000"):
        client.request("GET", peer.url, max_bytes=100)


def test_request_head_of_something_large_is_no_long_answer(client, peer, say):
    peer.answers = [say(length=10**12)]
    answer = client.request("HEAD", peer.url, max_bytes=100)
    assert (answer.body, answer.headers["Content-Length"]) == (b"", "1000000000000")
    client.request("HEAD", peer.url)
    assert peer.connections == 1


def test_request_body_above_bound_without_length_refused(client, peer):
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    peer.answers = [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 50, "close")
    ]
    with pytest.raises(RemoteError, match="at most 4000 bytes, got more"):
        client.request("GET", peer.url, max_bytes=4000)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024])
def test_request_chunked_body_up_to_the_bound_comes_whole(client, peer, size):
    chunk = b"%x\r\n" % size + b"x" * size + b"\r\n" if size else b""
    peer.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"]
    assert client.request("GET", peer.url, max_bytes=1024).body == b"x" * size


@pytest.mark.parametrize("size", [0, 999, 1000])
def test_request_body_up_to_the_bound_until_close_comes_whole(client, peer, size):
    peer.answers = [(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size, "close")]
    assert client.request("GET", peer.url, max_bytes=1000).body == b"x" * size


def test_request_chunked_body_cut_off_is_an_error(client, peer):
    peer.answers = [(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123", "close")]
    with pytest.raises(RemoteError):
        client.request("GET", peer.url)


def test_request_chunk_size_that_is_no_number_is_an_error(client, peer):
    peer.answers = [(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n123", "close")]
    with pytest.raises(RemoteError):
        client.request("GET", peer.url)


@pytest.mark.parametrize("label", ["gzip", "x-gzip", " GZIP "])
def test_request_body_that_is_gzip_as_its_label_says_is_unpacked(client, peer, say, label):
    peer.answers = [say(body=gzip.compress(b"a" * 99), headers=[f"Content-Encoding: {label}"])]
    assert client.request("GET", peer.url, max_bytes=99).body == b"a" * 99


@pytest.mark.parametrize("label", ["gzip", "x-gzip", "aws-chunked", "utf-8", "br", "identity", ""])
def test_request_body_that_is_not_what_its_label_says_is_taken_as_it_is(client, peer, say, label):
    peer.answers = [say(body=b"{}", headers=[f"Content-Encoding: {label}"])] * 2
    assert client.request("GET", peer.url).body == b"{}"
    with client.open("GET", peer.url) as stream:
        assert stream.read_bounded(10) == b"{}"


def test_open_gives_the_bytes_as_they_came_whatever_the_label_says(client, peer, say):
    """Of a blob the digest decides; a layer is gzip itself."""
    packed = gzip.compress(b"layer")
    peer.answers = [say(body=packed, headers=["Content-Encoding: gzip"])]
    with client.open("GET", peer.url) as stream:
        assert stream.read_bounded(100) == packed


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (gzip.compress(bytes(100_000)), "too long"),
        (gzip.compress(b"abc")[:-9], "breaks off"),
        (b"\x1f\x8b" + b"\xff" * 30, "expected gzip"),
        (gzip.compress(b"[]") + gzip.compress(b"[1]"), "expected one gzip"),
        (gzip.compress(b"[]") + b"more", "expected one gzip"),
    ],
    ids=["too long", "cut", "damaged", "two", "more"],  # the bytes say when they were made
)
def test_request_gzip_beyond_its_bound_or_damaged_refused(client, peer, say, body, text):
    peer.answers = [say(body=body, headers=["Content-Encoding: gzip"])]
    with pytest.raises(RemoteError, match=text) as caught:
        client.request("GET", peer.url, max_bytes=99_999)
    assert peer.address in str(caught.value)


@pytest.mark.parametrize(
    "noise",
    [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\n"],
)
def test_request_what_is_no_http_is_an_error(client, peer, noise):
    peer.answers = [(noise, "close")]
    with pytest.raises(RemoteError, match=f"{peer.address}: ") as caught:
        client.request("GET", peer.url)
    assert "\n" not in str(caught.value)


def test_request_hanging_server_times_out(impatient, peer):
    peer.answers = [lambda _: peer.stopped.wait()]
    with pytest.raises(RemoteError, match=r"no answer within 0.3 s") as caught:
        impatient.request("GET", peer.url)
    assert caught.value.temporary
    peer.stopped.set()


def drip(peer, connection, data):
    for byte in data:
        if peer.stopped.wait(0.1):
            return
        connection.sendall(bytes([byte]))


def test_request_headers_byte_by_byte_time_out(impatient, peer):
    peer.answers = [lambda c: drip(peer, c, b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 100)]
    with pytest.raises(RemoteError, match="no answer within"):
        impatient.request("GET", peer.url)


def test_request_body_byte_by_byte_times_out(impatient, peer):
    def slow(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        drip(peer, connection, b"x" * 100)

    peer.answers = [slow]
    with pytest.raises(RemoteError, match=r"too slow: . bytes in"):
        impatient.request("GET", peer.url)


def test_request_total_time_is_bounded(peer, say):
    settings = HTTPSettings(total_timeout_s=0.0, retry=RetryPolicy(attempts=5))
    with HTTPClient(settings, sleep=pytest.fail) as client:
        peer.answers = [say("503 Busy")]
        with pytest.raises(RemoteError):
            client.request("GET", peer.url)
        peer.answers = [None, say(body=b"x")]
        with pytest.raises(RemoteError, match="took too long"):
            client.request("GET", peer.url)


def test_request_refused_connection_says_so(client, peer):
    address = peer.address
    peer.stop()
    peer.stop = lambda: None
    with pytest.raises(RemoteError, match=f"{address}: connection refused") as caught:
        client.request("GET", f"http://{address}/")
    assert "running" in caught.value.hint


def test_request_unknown_name_says_so(waits):
    with (
        HTTPClient(HTTPSettings(retry=RetryPolicy(attempts=2)), sleep=waits.append) as client,
        pytest.raises(RemoteError, match=r"registry.invalid:443: the host name was not found"),
    ):
        client.request("GET", "https://registry.invalid/")


def test_request_plain_http_to_another_machine_refused_before_asking(client):
    with pytest.raises(UsageError, match="plain http") as caught:
        client.request("GET", "http://example.org/")
    assert "https" in caught.value.hint


def test_request_bad_url_refused(client):
    with pytest.raises(FormatError):
        client.request("GET", "gopher://host/")


# Redirects.


def to(url, status="307 Temporary Redirect"):
    return f"HTTP/1.1 {status}\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_redirect_to_another_origin_drops_authorization(client, peer, other_peer, say, status):
    peer.answers = [to(f"{other_peer.url}/blob", status)]
    other_peer.answers = [say(body=b"ok")]
    headers = {
        "Authorization": "Bearer secret",
        "Cookie": "a=secret",
        "X-Key": "secret",
        "Accept": "x",
    }
    answer = client.request("GET", peer.url, headers=headers)
    assert answer.body == b"ok"
    assert answer.url == f"{other_peer.url}/blob"
    assert peer.seen[0][2]["authorization"] == "Bearer secret"
    assert "secret" not in str(other_peer.seen)
    assert other_peer.seen[0][2]["accept"] == "x"


def test_redirect_back_to_the_first_origin_stays_without_authorization(
    client, peer, other_peer, say
):
    peer.answers = [to(f"{other_peer.url}/"), say(body=b"ok")]
    other_peer.answers = [to(f"{peer.url}/again")]
    client.request("GET", peer.url, headers={"Authorization": "Bearer secret"})
    assert "authorization" not in peer.seen[1][2]


def test_redirect_within_the_origin_keeps_authorization(client, peer, say):
    peer.answers = [to("/there"), say(body=b"ok")]
    client.request("GET", peer.url, headers={"Authorization": "Bearer secret"})
    assert peer.seen[1][1] == "/there"
    assert peer.seen[1][2]["authorization"] == "Bearer secret"
    assert peer.connections == 1


def test_redirect_circle_ends(client, peer):
    peer.answers = [to("/again")]
    with pytest.raises(RemoteError, match="at most 5 redirects"):
        client.request("GET", peer.url)
    assert len(peer.seen) == 6


def test_redirect_of_a_body_to_another_origin_refused(client, peer, other_peer, say):
    peer.answers = [to(f"{other_peer.url}/")]
    other_peer.answers = [say()]
    with pytest.raises(RemoteError, match="redirects a PUT request"):
        client.request("PUT", peer.url, body=b"secret")
    assert other_peer.seen == []


def test_redirect_of_a_body_within_the_origin_sends_it_again(client, peer, say):
    peer.answers = [to("/there"), say("201 Created")]
    client.request("PUT", peer.url, body=b"data")
    assert [one[3] for one in peer.seen] == [b"data", b"data"]


def test_redirect_303_of_a_put_refused(client, peer):
    peer.answers = [to("/there", "303 See Other")]
    with pytest.raises(RemoteError, match="redirects a PUT request"):
        client.request("PUT", peer.url, body=b"data")


def test_redirect_to_plain_http_on_another_machine_refused(client, peer):
    peer.answers = [to("http://example.org/")]
    with pytest.raises(RemoteError, match=r"plain http at example.org:80"):
        client.request("GET", peer.url)


@pytest.mark.parametrize("location", ["https://u:secret@host/", "file:///etc/passwd", "https://["])
def test_redirect_to_no_url_refused(client, peer, location):
    peer.answers = [to(location)]
    with pytest.raises(FormatError) as caught:
        client.request("GET", peer.url)
    assert "secret" not in str(caught.value)


# TLS.


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def test_tls_pinned_ca_accepted(tls_peer, say, ca_file):
    tls_peer.answers = [say(body=b"ok")]
    with HTTPClient(HTTPSettings(ca_file=ca_file)) as client:
        assert client.request("GET", tls_peer.url).body == b"ok"


def test_tls_pinned_certificate_of_the_server_itself_accepted(tls_peer, say, tmp_path):
    tls_peer.answers = [say(body=b"ok")]
    host, _, port = tls_peer.address.partition(":")
    path = tmp_path / "server.pem"
    path.write_text(ssl.get_server_certificate((host, int(port))))
    with HTTPClient(HTTPSettings(ca_file=path)) as client:
        assert client.request("GET", tls_peer.url).body == b"ok"


def test_tls_unknown_ca_refused_without_retry(client, tls_peer, waits):
    with pytest.raises(RemoteError, match="certificate was not accepted") as caught:
        client.request("GET", tls_peer.url)
    assert not caught.value.temporary
    assert caught.value.code == ""
    assert waits == []


def test_tls_other_host_name_refused(tls_peer, ca_file):
    url = tls_peer.url.replace("127.0.0.1", "localhost")
    with (
        HTTPClient(HTTPSettings(ca_file=ca_file, retry=QUICK)) as client,
        pytest.raises(RemoteError, match="certificate was not accepted"),
    ):
        client.request("GET", url)


def test_tls_unverified_only_when_asked_for(tls_peer, say):
    tls_peer.answers = [say(body=b"ok")]
    with HTTPClient(HTTPSettings(insecure_skip_verify=True)) as client:
        assert client.request("GET", tls_peer.url).body == b"ok"


def test_tls_to_a_server_of_plain_http_says_so(client, peer, waits):
    def noise(connection):
        with connection:
            connection.recv(100_000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    peer._serve = noise
    with pytest.raises(RemoteError, match="does not speak TLS") as caught:
        client.request("GET", peer.url.replace("http:", "https:"))
    assert caught.value.code == NOT_TLS
    assert waits == []


def test_tls_redirect_to_plain_http_refused_even_on_this_machine(tls_peer, peer, say, ca_file):
    tls_peer.answers = [to(f"{peer.url}/")]
    peer.answers = [say()]
    settings = HTTPSettings(ca_file=ca_file, insecure_http=True)
    with (
        HTTPClient(settings) as client,
        pytest.raises(RemoteError, match="from https to plain http"),
    ):
        client.request("GET", tls_peer.url)
    assert peer.seen == []


# The rest.


def test_client_from_several_threads_serves_all(client, peer, say):
    peer.answers = [say(body=b"ok")]
    barrier = threading.Barrier(6)
    bodies = []

    def work():
        barrier.wait()
        bodies.extend(client.request("GET", peer.url).body for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [b"ok"] * 60


def test_response_repr_shows_neither_body_nor_url(client, peer, say):
    peer.answers = [say(body=b"secret-token")]
    answer = client.request("GET", f"{peer.url}/?sig=secret-query")
    assert "secret" not in repr(answer)


def test_status_error_keeps_code_and_hint():
    error = status_error(404, "x", code="C", hint="h")
    assert (type(error), error.code, error.hint, error.status) == (NotFound, "C", "h", 404)


def test_status_text_unknown_status_is_its_number():
    assert [status_text(one) for one in (503, 599)] == ["503 service unavailable", "599"]


def test_request_to_a_server_that_takes_nothing_says_which_limit_ended_it():
    """Nobody reads, and what sockets hold is soon full; the answer's own limit is another."""
    settings = HTTPSettings(
        connect_timeout_s=0.3,
        read_timeout_s=0.3,
        upload_answer_timeout_s=600,
        retry=RetryPolicy(attempts=1),
    )
    piece = memoryview(bytes(1 << 20))
    body = PieceBody(50 << 20, lambda: (piece for _ in range(50)))
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        HTTPClient(settings) as client,
        pytest.raises(RemoteError, match=r"took nothing of what is sent for 0\.3 s") as caught,
    ):
        client.request("PUT", f"http://127.0.0.1:{listener.getsockname()[1]}/x", body=body)
    assert caught.value.temporary


# ---- what is in force ----------------------------------------------------------------------------

GIVES_UP_S = 20  # the client of these tests, by itself


def half_a_record(peer, connection):
    """The head of an answer, and then the begin of a TLS record whose rest does not come."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n12345")
    below = socket.socket(fileno=os.dup(connection.fileno()))
    with below:
        below.sendall(b"\x17\x03\x03\x20\x00" + bytes(100))
    peer.stopped.wait()


def dripped_head(peer, connection):
    drip(peer, connection, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)


def half_a_body(peer, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n12345")
    peer.stopped.wait()


def dripped_body(peer, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
    drip(peer, connection, b"x" * 9000)


STALLS = {
    "no answer": (False, lambda peer, _: peer.stopped.wait()),
    "an answer whose head drips": (False, dripped_head),
    "half a body": (False, half_a_body),
    "a body that drips": (False, dripped_body),
    "no answer over TLS": (True, lambda peer, _: peer.stopped.wait()),
    "half a record of TLS": (True, half_a_record),
}
ENDS = {
    "a limit": lambda: Cancellation(seconds=0.5, phase="trust"),
    "a cancellation": Cancellation,
}


@pytest.fixture
def ended():
    """A function: a context in which something is in force, which ends it in half a second."""

    @contextmanager
    def ended(end):
        stop = end()
        timer = threading.Timer(0.5, stop.cancel)
        if stop.left_s is None:
            timer.start()
        start = time.monotonic()
        try:
            with pytest.raises(Cancelled) as caught, stop.in_force():
                yield stop
        finally:
            timer.cancel()
        assert time.monotonic() - start < GIVES_UP_S / 2
        assert isinstance(caught.value, TimedOut) is (stop.left_s is not None)
        assert caught.value.__cause__ is None

    return ended


@pytest.fixture
def patient(authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = HTTPSettings(
        ca_file=tmp_path / "ca.pem", connect_timeout_s=GIVES_UP_S, read_timeout_s=GIVES_UP_S
    )
    with HTTPClient(settings) as client:
        yield client


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("stall", STALLS.values(), ids=STALLS)
def test_server_that_stalls_is_waited_for_until_something_ends_it(
    peer, tls_peer, say, patient, ended, stall, end
):
    tls, how = stall
    one = tls_peer if tls else peer
    one.answers = [say(body=b"first"), lambda connection: how(one, connection), say(body=b"last")]
    assert patient.request("GET", one.url).body == b"first"  # so that a connection is there
    with ended(end):
        patient.request("GET", one.url)
    assert patient.request("GET", one.url).body == b"last"
    assert one.connections == 2  # of which the one that was left in the middle is not used again


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_server_that_takes_no_body_is_waited_for_until_something_ends_it(patient, ended, end):
    with socket.create_server(("127.0.0.1", 0)) as listener, ended(end):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        patient.request("POST", url, body=bytes(50_000_000))


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connection_is_waited_for_until_something_ends_it(patient, ended, end, scheme):
    """Of http: nobody takes it; of https: nobody speaks TLS."""
    with socket.socket() as listener, ExitStack() as opened:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if scheme == "http" else 9)
        for _ in range(8 if scheme == "http" else 0):
            one = opened.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        before = set(threading.enumerate())
        with ended(end) as stop:
            patient.request("GET", f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
        if stop.left_s is not None:  # what is left of it is the limit of the connection, too
            left = [one for one in threading.enumerate() if one not in before]
            for one in left:
                one.join(GIVES_UP_S / 2)
                assert not one.is_alive()


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_name_server_is_waited_for_until_something_ends_it(monkeypatch, patient, ended, end):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    with ended(end):
        patient.request("GET", "https://slow.example/")
    over.set()


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_pause_that_a_server_asks_for_lasts_until_something_ends_it(peer, say, patient, ended, end):
    peer.answers = [say("503 Busy", headers=["Retry-After: 50"])]
    with ended(end):
        patient.request("GET", peer.url)


def test_limit_names_the_server_and_who_named_it(peer, patient):
    peer.answers = [lambda _: peer.stopped.wait()]
    limit = Cancellation(seconds=0.2, phase="trust")
    with pytest.raises(TimedOut) as caught, limit.in_force():
        patient.request("GET", peer.url, named_by="the manifest")
    assert caught.value.waited_for == f"{peer.address}, which the manifest names"


def test_limit_that_is_not_reached_leaves_the_limits_of_the_client(peer, impatient):
    peer.answers = [lambda _: peer.stopped.wait()]
    with (
        pytest.raises(RemoteError, match=r"no answer within 0.3 s"),
        Cancellation(seconds=60, phase="trust").in_force(),
    ):
        impatient.request("GET", peer.url)
