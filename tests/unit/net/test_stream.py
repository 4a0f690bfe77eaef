# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import RemoteError


def fill(stream, count):
    buffer = memoryview(bytearray(count))
    return bytes(buffer[: stream.readinto(buffer)])


def read_to_the_end(stream):
    while fill(stream, 10):
        pass


def test_readinto_pieces_come_in_order_then_end(client, peer, say):
    peer.answers = [say(body=b"0123456789")]
    with client.open("GET", peer.url) as stream:
        assert (stream.status, stream.length) == (200, 10)
        data = b""
        while piece := fill(stream, 3):
            assert len(piece) <= 3
            data += piece
        assert data == b"0123456789"
        assert fill(stream, 3) == b""


def test_readinto_empty_buffer_is_the_callers_bug(client, peer, say):
    peer.answers = [say(body=b"1")]
    with client.open("GET", peer.url) as stream, pytest.raises(ValueError, match="room"):
        stream.readinto(memoryview(b""))


def test_readinto_whole_body_gives_the_connection_back(client, peer, say):
    peer.answers = [say(body=b"1")]
    for _ in range(2):
        with client.open("GET", peer.url) as stream:
            read_to_the_end(stream)
    assert peer.connections == 1


def test_readinto_reset_in_the_middle_raises_and_stays(client, peer, say):
    peer.answers = [(say(body=b"12345", length=100), "reset")]
    with client.open("GET", peer.url) as stream:
        with pytest.raises(RemoteError, match=r"closed the connection|broke") as caught:
            read_to_the_end(stream)
        assert caught.value.temporary
        with pytest.raises(RemoteError) as again:
            fill(stream, 10)
        assert again.value is caught.value


def test_readinto_more_than_announced_is_cut_at_the_announced_length(client, peer, say):
    # The next answer must not begin with the surplus.
    peer.answers = [say(body=b"12345", length=3), say(body=b"next")]
    with client.open("GET", peer.url) as stream:
        assert stream.read_bounded(10) == b"123"
    assert client.request("GET", peer.url).body == b"next"


def test_length_not_a_number_is_none(client, peer):
    peer.answers = [(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc", "close")]
    with client.open("GET", peer.url) as stream:
        assert stream.length is None
        assert stream.read_bounded(3) == b"abc"


def test_open_half_read_connection_is_not_used_again(client, peer, say):
    peer.answers = [say(body=b"x" * 100_000), say(body=b"next")]
    with client.open("GET", peer.url) as stream:
        fill(stream, 10)
    assert client.request("GET", peer.url).body == b"next"
    assert peer.connections == 2


def test_open_unexpected_status_raises(client, peer, say):
    peer.answers = [say("403 No", b"x")]
    with pytest.raises(RemoteError, match="403 forbidden"):
        client.open("GET", peer.url)


def test_open_503_then_200_is_tried_again(client, peer, say):
    peer.answers = [say("503 Busy", b"x"), say(body=b"ok")]
    with client.open("GET", peer.url) as stream:
        assert stream.read_bounded(10) == b"ok"
    assert peer.connections == 1


def test_read_bounded_more_than_allowed_is_an_error(client, peer, say):
    peer.answers = [say(body=b"12345")]
    with (
        client.open("GET", peer.url) as stream,
        pytest.raises(RemoteError, match="at most 4 bytes"),
    ):
        stream.read_bounded(4)
