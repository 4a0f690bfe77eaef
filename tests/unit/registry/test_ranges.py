# SPDX-License-Identifier: Apache-2.0
"""Big blobs in parts, over the embedded registry; parts are small here."""

import os
import re
import threading
from contextlib import closing, suppress

import pytest

from imagers.errors import (
    DigestMismatch,
    IntegrityError,
    NotFound,
    RateLimited,
    RemoteError,
    SizeMismatch,
)
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_LAYER
from imagers.model.reference import parse_reference
from imagers.model.stream import read_all
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.credentials import Credentials
from imagers.registry.ranges import Ranges, Room
from imagers.registry.source import RegistrySource
from imagers.testing.fault_proxy import FaultProxy
from imagers.testing.registry import EmbeddedRegistry

PART = 100_000
SMALL = Ranges(4, part_bytes=PART, least_bytes=1_000_000, max_parts=6)


class Recorder(HTTPClient):
    """Keeps the ranges that were asked for."""

    def __init__(self, settings):
        super().__init__(settings)
        self.asked = []

    def open(self, method, url, *, headers=None, **options):
        self.asked.append((headers or {}).get("Range"))
        return super().open(method, url, headers=headers, **options)


def source_of(text, settings, ranges=SMALL, credentials=None):
    http = Recorder(settings)
    client = RegistryClient(parse_reference(text), http=http, credentials=credentials)
    return RegistrySource(parse_reference(text), client, name=text, ranges=ranges), http


@pytest.fixture
def source(registry, opened, pushed):
    assert pushed.layers[0].size >= SMALL.least_bytes
    one, _ = source_of(f"{registry.address}/app:v1", opened.settings)
    yield one
    one.close()


def read(source, image):
    with source.open_blob(image.layers[0], what="layer") as stream:
        return read_all(stream, size=image.layers[0].size)


def gets(registry):
    return [one for one in registry.requests if one.method == "GET" and "/blobs/" in one.path]


def lanes_alive():
    return [one for one in threading.enumerate() if one.name.startswith("range-")]


def all_lanes_end():
    """Whether they do, however loaded the machine is."""
    for lane in lanes_alive():
        lane.join(30)
    return lanes_alive() == []


@pytest.mark.parametrize(
    ("size", "count", "lanes"),
    [(64, 4, 4), (63, 4, 1), (64, 1, 1), (64, 3, 3), (10**12, 4, 4)],
)
def test_lanes_only_for_big_blobs_and_if_asked(size, count, lanes):
    mib = 1024 * 1024
    assert Ranges(count).lanes(size * mib) == lanes


def test_lanes_are_at_most_the_parts():
    assert Ranges(4, part_bytes=10, least_bytes=15).lanes(20) == 2
    assert Ranges(4, part_bytes=10, least_bytes=5).lanes(10) == 1


def test_memory_of_all_lanes_is_bounded_and_leaves_room_for_the_rest():
    ranges = Ranges(4)
    assert ranges.max_parts * ranges.part_bytes == 16 * 1024 * 1024


def test_room_gives_what_is_free_and_nothing_below_two():
    room = Room(6)
    assert [room.take(4), room.take(4), room.take(4)] == [4, 2, 0]
    room.give_back(1)
    assert room.take(4) == 0
    room.give_back(2)
    assert room.take(2) == 2
    assert room.take(1) == 0


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("size", [1_000_000, 1_000_001, 1_099_999])
def test_blob_in_parts_is_the_blob(registry, opened, size, count):
    data = os.urandom(size)
    descriptor = Descriptor(OCI_LAYER, digest_of(data), size)
    opened.sink(f"{registry.address}/app").put_blob(descriptor, data, what="layer")
    ranges = Ranges(count, part_bytes=PART, least_bytes=1_000_000)
    source, http = source_of(f"{registry.address}/app:v1", opened.settings, ranges)
    with closing(source), source.open_blob(descriptor, what="layer") as stream:
        assert read_all(stream, size=size) == data
    spans = [re.match(r"bytes=(\d+)-(\d+)\Z", one).groups() for one in http.asked]
    firsts = sorted(int(first) for first, _ in spans)
    assert firsts == list(range(0, size, PART))
    assert all_lanes_end()


def test_blob_in_parts_needs_no_more_connections_than_lanes(source, pushed, registry):
    assert read(source, pushed) == pushed.blobs[pushed.layers[0]]
    assert len(gets(registry)) == 30
    assert {one.status for one in gets(registry)} == {206}


def test_small_blob_comes_whole(source, pushed, registry):
    config = next(iter(pushed.blobs))
    with source.open_blob(config, what="config") as stream:
        assert read_all(stream, size=config.size) == pushed.blobs[config]
    assert [one.status for one in gets(registry)] == [200]


def test_several_blobs_share_the_room_and_the_last_comes_whole(source, pushed, registry):
    with (
        source.open_blob(pushed.layers[0], what="a") as one,
        source.open_blob(pushed.layers[0], what="b") as two,
        source.open_blob(pushed.layers[0], what="c") as three,
    ):
        assert 200 in [one.status for one in gets(registry)]
        for stream in (three, two, one):
            assert read_all(stream, size=pushed.layers[0].size) == pushed.blobs[pushed.layers[0]]
    assert all_lanes_end()
    registry.requests.clear()
    assert read(source, pushed) == pushed.blobs[pushed.layers[0]]
    assert {one.status for one in gets(registry)} == {206}


@pytest.mark.parametrize("after", [0, 1, 50_000, 99_999])
def test_part_that_breaks_off_goes_on_at_its_byte(source, pushed, registry, after):
    registry.break_off(path="/blobs/", after=after, times=3)
    assert read(source, pushed) == pushed.blobs[pushed.layers[0]]


def test_part_that_breaks_off_again_and_again_ends_it(source, pushed, registry):
    registry.break_off(path="/blobs/", after=10, times=10_000)
    with pytest.raises(RemoteError, match=r"layer: broke off after \d+ of 3000000") as caught:
        read(source, pushed)
    assert caught.value.temporary
    assert all_lanes_end()


def test_server_without_ranges_gives_it_whole(source, pushed, registry):
    data = pushed.blobs[pushed.layers[0]]
    registry.answer_with(200, path="/blobs/", body=data)
    assert read(source, pushed) == data
    assert len(gets(registry)) == 1


@pytest.mark.parametrize("times", [1, 2, 100])
def test_server_that_ends_giving_parts_is_read_over_one_connection(source, pushed, registry, times):
    data = pushed.blobs[pushed.layers[0]]
    stream = source.open_blob(pushed.layers[0], what="layer")
    registry.answer_with(200, path="/blobs/", body=data, times=times)
    with stream:
        assert read_all(stream, size=len(data)) == data
    assert all_lanes_end()


def test_parts_of_other_bytes_are_found_by_the_digest(source, pushed, registry):
    registry.corrupt_blob(pushed.layers[0].digest, 1_234_567)
    with pytest.raises(DigestMismatch):
        read(source, pushed)


@pytest.mark.parametrize("change", [-1, 1])
def test_blob_of_another_size_refused_at_once(source, pushed, registry, change):
    data = pushed.blobs[pushed.layers[0]]
    registry.replace_blob(pushed.layers[0].digest, (data + b"x")[: len(data) + change])
    with pytest.raises(SizeMismatch) as caught:
        source.open_blob(pushed.layers[0], what="layer")
    assert (caught.value.expected, caught.value.actual) == (len(data), len(data) + change)
    assert all_lanes_end()


@pytest.mark.parametrize(
    ("told", "length", "got"),
    [
        ("", PART, "''"),
        ("bytes 1-100000/3000000", PART, "'bytes 1-100000/3000000'"),
        ("bytes 0-99998/3000000", PART, "'bytes 0-99998/3000000'"),
        ("bytes 0-99999/3000000", PART + 1, "100001 bytes"),
        ("bytes 0-99999/x", PART, "'bytes 0-99999/x'"),
    ],
)
def test_first_part_that_is_another_refused(source, pushed, registry, told, length, got):
    headers = {"Content-Range": told} if told else {}
    registry.answer_with(206, path="/blobs/", headers=headers, body=b"x" * length)
    with pytest.raises(RemoteError, match="expected the bytes from 0 to 99999") as caught:
        source.open_blob(pushed.layers[0], what="layer 1")
    assert str(caught.value).startswith("layer 1: ")
    assert str(caught.value).endswith(f"got {got}")
    assert "does not keep to ranges" in caught.value.hint


def test_later_part_that_is_another_refused(source, pushed, registry):
    stream = source.open_blob(pushed.layers[0], what="layer")
    headers = {"Content-Range": f"bytes 0-99999/{pushed.layers[0].size}"}
    registry.answer_with(206, path="/blobs/", headers=headers, body=b"x" * PART, times=10_000)
    with stream, pytest.raises(RemoteError, match="expected the bytes from"):
        read_all(stream, size=pushed.layers[0].size)
    assert all_lanes_end()


def test_part_without_a_length_that_has_more_is_refused(source, pushed, registry):
    body = b"%x\r\n" % (PART + 1) + b"x" * (PART + 1) + b"\r\n0\r\n\r\n"
    headers = {
        "Content-Range": f"bytes 0-99999/{pushed.layers[0].size}",
        "Transfer-Encoding": "chunked",
    }
    registry.answer_with(206, path="/blobs/", headers=headers, body=body)
    with pytest.raises(RemoteError, match="expected the bytes from 0 to 99999, got more"):
        read(source, pushed)


def test_part_without_a_length_that_ends_early_goes_on(source, pushed, registry):
    data = pushed.blobs[pushed.layers[0]]
    body = b"%x\r\n" % 70_000 + data[:70_000] + b"\r\n0\r\n\r\n"
    headers = {"Content-Range": "bytes 0-99999/*", "Transfer-Encoding": "chunked"}
    registry.answer_with(206, path="/blobs/", headers=headers, body=body)
    assert read(source, pushed) == data


@pytest.mark.parametrize("first", [1, PART, 1_234_567, 2_000_000])
def test_rest_comes_over_several_connections(registry, opened, pushed, first):
    source, http = source_of(f"{registry.address}/app:v1", opened.settings)
    layer = pushed.layers[0]
    data = bytearray(layer.size + 1)
    at = first
    with closing(source), closing(source.open_raw_blob_from(first, layer, what="layer")) as stream:
        while count := stream.readinto(memoryview(data)[at:]):
            at += count
    assert data[first:at] == pushed.blobs[layer][first:]
    starts = {int(re.match(r"bytes=(\d+)-", one)[1]) for one in http.asked if one}
    assert starts == set(range(first, layer.size, PART))
    assert all_lanes_end()
    assert source._room.take(6) == 6


def test_rest_that_is_small_comes_over_one_connection(registry, opened, pushed):
    source, http = source_of(f"{registry.address}/app:v1", opened.settings)
    with (
        closing(source),
        closing(source.open_raw_blob_from(2_500_000, pushed.layers[0], what="layer")) as stream,
    ):
        assert stream.readinto(memoryview(bytearray(10))) > 0
    assert [one for one in http.asked if one] == ["bytes=2500000-"]


def test_rest_of_a_server_without_ranges_is_read_over(registry, opened, pushed):
    source, _ = source_of(f"{registry.address}/app:v1", opened.settings)
    layer = pushed.layers[0]
    data = pushed.blobs[layer]
    registry.answer_with(200, path="/blobs/", body=data, times=100)
    got = bytearray()
    buffer = memoryview(bytearray(PART))
    with closing(source), closing(source.open_raw_blob_from(1000, layer, what="layer")) as stream:
        while count := stream.readinto(buffer):
            got += buffer[:count]
    assert got == data[1000:]


def test_missing_blob_is_not_found_and_leaves_room(source):
    gone = Descriptor(OCI_LAYER, digest_of(b"none"), 3_000_000)
    for _ in range(4):
        with pytest.raises(NotFound):
            source.open_blob(gone, what="layer 7")
    assert source._room.take(6) == 6


def test_blob_that_vanishes_in_the_middle_says_so(source, pushed, registry):
    stream = source.open_blob(pushed.layers[0], what="layer")
    registry.answer_with(404, path="/blobs/", times=10_000)
    with stream, pytest.raises(NotFound, match="404"):
        read_all(stream, size=pushed.layers[0].size)


def test_part_that_is_refused_for_longer_than_allowed_ends_it(source, pushed, registry):
    stream = source.open_blob(pushed.layers[0], what="layer")
    registry.answer_with(429, path="/blobs/", headers={"Retry-After": "3600"}, times=10_000)
    with stream, pytest.raises(RateLimited) as caught:
        read_all(stream, size=pushed.layers[0].size)
    assert caught.value.retry_after == 3600
    assert "3600 s" in caught.value.hint


def test_closing_in_the_middle_ends_the_lanes_and_leaves_room(source, pushed):
    stream = source.open_blob(pushed.layers[0], what="layer")
    stream.readinto(memoryview(bytearray(1000)))
    stream.close()
    stream.close()
    assert all_lanes_end()
    assert source._room.take(6) == 6


def test_lanes_wait_for_a_slow_reader(source, pushed, registry):
    """Memory is what the lanes have: nothing is fetched ahead of that."""
    with source.open_blob(pushed.layers[0], what="layer") as stream:
        stream.readinto(memoryview(bytearray(1)))
        for lane in lanes_alive():
            lane.join(0.1)
        assert len(gets(registry)) <= 4
        rest = bytearray(pushed.layers[0].size - 1)
        at = 0
        with memoryview(rest) as view:
            while at < len(rest):
                at += stream.readinto(view[at : at + 12_345])
        assert bytes(rest) == pushed.blobs[pushed.layers[0]][1:]


def test_hanging_part_ends_by_the_time_limit(registry, pushed):
    settings = HTTPSettings(read_timeout_s=0.5, retry=RetryPolicy(attempts=1))
    source, _ = source_of(f"{registry.address}/app:v1", settings)

    def read_what_hangs():
        with source.open_blob(pushed.layers[0], what="layer") as stream:
            registry.hang(path="/blobs/", times=10_000)
            read_all(stream, size=pushed.layers[0].size)

    with closing(source), pytest.raises(RemoteError, match=r"no answer within 0\.5 s"):
        read_what_hangs()
    assert all_lanes_end()


def test_lanes_that_lose_their_token_all_at_once_go_on(opened, image):
    """Several 401 at the same time: each lane tries again, and nobody else's token is dropped."""
    with EmbeddedRegistry(username="me", password="pw", token_auth=True) as registry:
        name, login = f"{registry.address}/app:v1", Credentials("me", "pw")
        image.write(opened.sink(name, credentials=login))
        source, _ = source_of(name, opened.settings, credentials=login)
        with closing(source), source.open_blob(image.layers[0], what="layer") as stream:
            registry.tokens.clear()
            assert read_all(stream, size=image.layers[0].size) == image.blobs[image.layers[0]]
        assert {one.status for one in gets(registry)} == {206, 401}


def test_seeded_faults_never_give_wrong_bytes(registry, pushed):
    settings = HTTPSettings(
        connect_timeout_s=2, read_timeout_s=2, retry=RetryPolicy(attempts=4, backoff_s=0.001)
    )
    kinds = ("cut", "reset", "status 500", "status 429", "wrong length", "redirect", "wrong bytes")
    for seed in range(12):
        with FaultProxy(registry.address, seed=seed, rate=0.2, kinds=kinds) as proxy:
            source, _ = source_of(f"{proxy.address}/app:v1", settings)
            with closing(source), suppress(RemoteError, IntegrityError):
                assert read(source, pushed) == pushed.blobs[pushed.layers[0]]
            assert all_lanes_end()
