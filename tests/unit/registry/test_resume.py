# SPDX-License-Identifier: Apache-2.0
"""Downloads that break off, over the embedded registry."""

from contextlib import closing

import pytest

from imagers.errors import DigestMismatch, RateLimited, RemoteError, SizeMismatch
from imagers.model.reference import parse_reference
from imagers.model.stream import read_all
from imagers.net.http import HTTPClient
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.credentials import Credentials
from imagers.registry.resume import Patience
from imagers.registry.source import RegistrySource
from imagers.testing.registry import EmbeddedRegistry


@pytest.fixture
def source(registry, opened):
    return opened.source(f"{registry.address}/app:v1")


def read(source, pushed):
    with source.open_blob(pushed.layers[0], what="layer") as stream:
        return read_all(stream, size=pushed.layers[0].size)


def gets(registry):
    return [one for one in registry.requests if one.method == "GET" and "/blobs/" in one.path]


@pytest.mark.parametrize("after", [0, 1, 1000, 1_048_576, 2_999_999])
def test_resume_at_the_right_byte(source, pushed, registry, after):
    registry.break_off(path="/blobs/", after=after)
    assert read(source, pushed) == pushed.blobs[pushed.layers[0]]
    assert [one.status for one in gets(registry)][-1] == (206 if after else 200) or after == 0


def test_resume_again_and_again_while_there_is_progress(source, pushed, registry):
    registry.break_off(path="/blobs/", after=1_200_000, times=2)
    assert read(source, pushed) == pushed.blobs[pushed.layers[0]]
    assert len(gets(registry)) == 3


def test_resume_is_given_up_without_progress(source, pushed, registry):
    registry.break_off(path="/blobs/", after=10, times=100)
    with pytest.raises(
        RemoteError, match=r"layer: broke off after \d+ of 3000000 bytes: .*closed the conn"
    ) as caught:
        read(source, pushed)
    assert caught.value.temporary
    assert len(gets(registry)) == 5  # the first, and two for each of `attempts`, but one


def test_resume_where_the_server_knows_no_ranges(source, pushed, registry):
    registry.break_off(path="/blobs/", after=100_000)
    data = pushed.blobs[pushed.layers[0]]
    registry.answer_with(200, path="/blobs/", body=data)
    assert read(source, pushed) == data


def test_resume_with_other_bytes_is_found_by_the_digest(source, pushed, registry):
    registry.break_off(path="/blobs/", after=100_000)
    data = bytearray(pushed.blobs[pushed.layers[0]])
    data[-1] ^= 1
    registry.answer_with(200, path="/blobs/", body=bytes(data))
    with pytest.raises(DigestMismatch):
        read(source, pushed)


@pytest.mark.parametrize(
    "told", ["", "bytes 0-2999999/3000000", "bytes 100001-2999999/3000000", "bytes x"]
)
def test_resume_with_another_part_refused(source, pushed, registry, told):
    registry.break_off(path="/blobs/", after=100_000)
    headers = {"Content-Range": told} if told else {}
    registry.answer_with(206, path="/blobs/", headers=headers, body=b"x" * 10)
    # A reset may take the last bytes with it, before anybody has read them.
    with pytest.raises(RemoteError, match=r"expected the bytes from (9\d{4}|100000) to 2999999"):
        read(source, pushed)


def test_resume_with_another_size_refused(source, pushed, registry):
    registry.break_off(path="/blobs/", after=100_000)
    registry.answer_with(200, path="/blobs/", body=b"short")
    with pytest.raises(SizeMismatch):
        read(source, pushed)


def test_resume_after_the_blob_is_gone_says_so(source, pushed, registry):
    registry.break_off(path="/blobs/", after=100_000)
    registry.answer_with(404, path="/blobs/")
    with pytest.raises(RemoteError, match="404"):
        read(source, pushed)


def test_resume_fetches_a_new_token_when_the_old_one_ran_out(opened, image):
    with EmbeddedRegistry(username="me", password="pw", token_auth=True) as registry:
        name, login = f"{registry.address}/app:v1", {"credentials": Credentials("me", "pw")}
        image.write(opened.sink(name, **login))
        source = opened.source(name, **login)
        registry.break_off(path="/blobs/", after=100_000)
        with source.open_blob(image.layers[0], what="layer") as stream:
            registry.tokens.clear()
            assert read_all(stream, size=image.layers[0].size) == image.blobs[image.layers[0]]


def rest(source, pushed, first):
    """What it gives from a byte on."""
    layer = pushed.layers[0]
    with closing(source.open_raw_blob_from(first, layer, what="layer")) as stream:
        data = bytearray(layer.size + 1)
        at = first
        while count := stream.readinto(memoryview(data)[at:]):
            at += count
        return bytes(data[first:at])


@pytest.mark.parametrize("first", [1, 1000, 2_999_999])
def test_rest_is_asked_for_from_its_byte_on(source, pushed, registry, first):
    assert rest(source, pushed, first) == pushed.blobs[pushed.layers[0]][first:]
    assert [(one.status, one.range) for one in gets(registry)] == [(206, f"bytes={first}-")]


def test_rest_that_breaks_off_goes_on_at_its_byte(source, pushed, registry):
    registry.break_off(path="/blobs/", after=0)
    assert rest(source, pushed, 1000) == pushed.blobs[pushed.layers[0]][1000:]
    assert [one.range for one in gets(registry)] == ["bytes=1000-"] * 2


def test_rest_of_a_server_without_ranges_is_what_follows(source, pushed, registry):
    data = pushed.blobs[pushed.layers[0]]
    registry.answer_with(200, path="/blobs/", body=data)
    assert rest(source, pushed, 2_000_000) == data[2_000_000:]
    assert len(gets(registry)) == 1


@pytest.mark.parametrize("status", [206, 416])
@pytest.mark.parametrize(
    "told", ["", "bytes 0-2999999/3000000", "bytes 1001-2999999/3000000", "bytes */3000000"]
)
def test_rest_of_a_server_with_wrong_ranges_is_what_follows(source, pushed, registry, status, told):
    headers = {"Content-Range": told} if told else {}
    registry.answer_with(status, path="/blobs/", headers=headers, body=b"x" * 10)
    assert rest(source, pushed, 1000) == pushed.blobs[pushed.layers[0]][1000:]
    assert [(one.status, one.range) for one in gets(registry)] == [
        (status, "bytes=1000-"),
        (200, ""),
    ]


@pytest.mark.parametrize(
    ("status", "headers"), [(200, {}), (206, {"Content-Range": "bytes 1000-1999/2000"})]
)
def test_rest_of_a_blob_of_another_size_refused(source, pushed, registry, status, headers):
    registry.answer_with(status, path="/blobs/", headers=headers, body=b"x" * 1000)
    with pytest.raises(SizeMismatch):
        rest(source, pushed, 1000)


@pytest.mark.parametrize("status", [404, 403, 500])
def test_rest_that_is_refused_says_so(source, pushed, registry, status):
    registry.answer_with(status, path="/blobs/", times=100)
    with pytest.raises(RemoteError, match=str(status)):
        rest(source, pushed, 1000)


@pytest.fixture
def waits():
    return []


@pytest.fixture
def patient(registry, opened, waits):
    """A source that notes its waits and does not wait."""
    reference = parse_reference(f"{registry.address}/app:v1")
    client = RegistryClient(reference, http=HTTPClient(opened.settings, sleep=waits.append))
    source = RegistrySource(reference, client, name="docker://x")
    yield source
    source.close()


@pytest.mark.parametrize("status", [429, 503])
def test_resume_waits_as_long_as_the_server_asks(patient, pushed, registry, waits, status):
    registry.break_off(path="/blobs/", after=100_000)
    for seconds in ("7", "11"):
        registry.answer_with(status, path="/blobs/", headers={"Retry-After": seconds})
    assert read(patient, pushed) == pushed.blobs[pushed.layers[0]]
    assert [round(one) for one in waits] == [0, 7, 11]
    # Each wait is before one request: what is beneath does not try again by itself.
    assert [one.status for one in gets(registry)] == [200, status, status, 206]


def test_resume_does_not_ask_before_the_time_that_the_server_gave(patient, pushed, registry, waits):
    registry.break_off(path="/blobs/", after=100_000)
    registry.answer_with(429, path="/blobs/", headers={"Retry-After": "61"}, times=9)
    with pytest.raises(RateLimited, match="429") as caught:
        read(patient, pushed)
    assert caught.value.retry_after == 61
    assert caught.value.hint == "the registry asks to wait 61 s before trying again"
    assert len(waits) == 1
    assert len(gets(registry)) == 2


def test_resume_waits_in_a_row_are_bounded_together(patient, pushed, registry, waits):
    registry.break_off(path="/blobs/", after=100_000)
    registry.answer_with(503, path="/blobs/", headers={"Retry-After": "25"}, times=9)
    with pytest.raises(RemoteError, match="503"):
        read(patient, pushed)
    assert [round(one) for one in waits] == [0, 25, 25]


def test_patience_of_a_whole_download_has_an_end():
    """A server that gives a mebibyte and asks to wait, for ever."""
    waits = []
    patience = Patience(RetryPolicy(attempts=3, backoff_s=0.0, max_wait_s=60.0), waits.append)
    error = RemoteError("x", temporary=True)
    error.retry_after = 50.0

    while patience.wait(error):
        patience.progress(1024 * 1024)
    assert sum(waits) == 600


def test_patience_without_retries_has_none():
    patience = Patience(RetryPolicy(attempts=1), lambda _: pytest.fail("waited"))
    assert not patience.wait(RemoteError("x", temporary=True))


def test_patience_is_not_for_what_stays_wrong():
    patience = Patience(RetryPolicy(), lambda _: pytest.fail("waited"))
    assert not patience.wait(RemoteError("x"))
