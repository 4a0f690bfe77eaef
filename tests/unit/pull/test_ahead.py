# SPDX-License-Identifier: Apache-2.0
"""Downloads ahead of their turn: the same bytes, the same errors, and nothing left behind."""

import errno
import gc
import os
import threading
from functools import partial

import pytest

from imagers.core import Cancellation, check_layer
from imagers.errors import Cancelled, DigestMismatch, LocalError, RemoteError, Truncated
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.image import Layer
from imagers.model.keys import SecretKey
from imagers.model.media import OCI_LAYER
from imagers.pull.ahead import ReadAhead
from imagers.pull.trace import WAIT, Trace
from imagers.store import Store

PATIENCE_S = 60
COUNT = 6


class Stream:
    """Bytes in small pieces; waits for `gate` at `at` if there is one, or fails there."""

    def __init__(self, data, *, gate=None, error=None, at=0):
        self.data = data
        self.offset = 0
        self.gate, self.error, self.at = gate, error, at
        self.closed = False

    def readinto(self, buffer):
        assert not self.closed
        if self.offset >= self.at:
            if self.gate is not None:
                assert self.gate.wait(PATIENCE_S)
            if self.error is not None:
                raise self.error
        piece = self.data[self.offset :][: min(len(buffer), 1000)]
        buffer[: len(piece)] = piece
        self.offset += len(piece)
        return len(piece)

    def close(self):
        self.closed = True


class Source:
    """Layers of random bytes; `faults` are settings of a layer's stream."""

    def __init__(self, sizes):
        self.data = [os.urandom(size) for size in sizes]
        self.faults = {}
        self.opened = []
        self.lock = threading.Condition()
        self.streams = []

    def layers(self):
        return [
            Layer(index, len(self.data), Descriptor(OCI_LAYER, digest, len(data)), digest, self)
            for index, data in enumerate(self.data)
            for digest in [digest_of(data)]
        ]

    def open_raw_blob(self, descriptor, *, what):
        index = int(what.split()[1]) - 1
        with self.lock:
            self.opened.append(index)
            self.lock.notify_all()
        assert descriptor.digest == digest_of(self.data[index])
        self.streams.append(Stream(self.data[index], **self.faults.get(index, {})))
        return self.streams[-1]

    def wait_for(self, count):
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.opened) >= count, PATIENCE_S)


@pytest.fixture
def source():
    return Source([5000 * number for number in range(COUNT)])


@pytest.fixture
def place(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    gc.collect()  # what other tests have left closes now, and not meanwhile
    before = len(os.listdir("/proc/self/fd"))
    yield fd
    assert os.listdir(fd) == []
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


def read_all(stream):
    buffer = memoryview(bytearray(777))
    data = b""
    try:
        while count := stream.readinto(buffer):
            data += buffer[:count]
    finally:
        stream.close()
    return data


def check_of(layer):
    return partial(check_layer, expected=layer.descriptor, cipher=None, hmac=None, what=layer.what)


def ahead_of(source, place, downloads=3, cancellation=None, *, checked=False, trace=None):
    layers = source.layers()
    return ReadAhead(
        layers,
        [check_of(layer) if checked else None for layer in layers],
        place,
        downloads=downloads,
        cancellation=cancellation or Cancellation(),
        trace=trace,
    )


@pytest.mark.parametrize("checked", [True, False])
def test_trace_tells_a_download_from_the_wait_for_it(source, place, checked):
    trace = Trace()
    with ahead_of(source, place, checked=checked, trace=trace) as ahead:
        ahead.open(0).close()
        source.wait_for(3)  # both of them are there, or on their way
        for index in (1, 2):
            with ahead.open(index) as arrived:
                read_all(arrived.stream)
    name = "download and check" if checked else "download"
    for index in (1, 2):
        mine = {span.name: span for span in trace.spans if span.layer == index}
        assert {"request", name, WAIT} <= set(mine)
        assert mine[name].thread.startswith("download-")
        assert mine[WAIT].thread == threading.current_thread().name
        if checked:
            assert mine[name].end <= mine[WAIT].end  # so that the one is found by the other


def test_trace_tells_a_check_of_a_local_file(source, place, tmp_path):
    path = tmp_path.parent / "blob"
    path.write_bytes(source.data[0])
    source.open_raw_blob = lambda *_, **__: path.open("rb", buffering=0)
    trace = Trace()
    with ahead_of(source, place, checked=True, trace=trace) as ahead:
        ahead.open(0).close()
    assert [(span.name, span.layer) for span in trace.spans] == [("request", 0), ("check", 0)]


@pytest.mark.parametrize("downloads", [1, 2, 3, 20])
def test_layers_come_whole_and_in_order_whoever_fetched_them(source, place, downloads):
    with ahead_of(source, place, downloads) as ahead:
        assert [read_all(ahead.open(index).stream) for index in range(COUNT)] == source.data
    assert sorted(source.opened) == list(range(COUNT))
    assert all(stream.closed for stream in source.streams)


def test_no_more_layers_are_fetched_than_asked_for(source, place):
    with ahead_of(source, place, 3) as ahead:
        first = ahead.open(0).stream
        source.wait_for(3)
        assert sorted(source.opened) == [0, 1, 2]
        first.close()
        ahead.open(1).close()
        source.wait_for(4)
        assert max(source.opened) == 3


def test_one_download_fetches_nothing_ahead(source, place):
    with ahead_of(source, place, 1) as ahead:
        read_all(ahead.open(0).stream)
        assert source.opened == [0]
        read_all(ahead.open(1).stream)
        assert source.opened == [0, 1]


def test_layer_of_a_local_file_is_given_as_it_is(source, place, tmp_path):
    path = tmp_path.parent / "blob"
    path.write_bytes(b"local")
    files = [open(path, "rb", buffering=0) for _ in range(2)]  # noqa: SIM115  # closed below
    source.open_raw_blob = lambda _, what: files[int(what.split()[1]) - 1]
    with ahead_of(source, place) as ahead:
        for index in range(2):
            assert ahead.open(index).stream is files[index]
            files[index].close()


def test_layer_is_read_while_it_grows(source, place):
    gate = threading.Event()
    source.faults[1] = {"gate": gate, "at": 2000}
    with ahead_of(source, place) as ahead:
        read_all(ahead.open(0).stream)
        source.wait_for(2)
        stream = ahead.open(1).stream
        buffer = memoryview(bytearray(2000))
        got = b""
        while len(got) < 2000:
            got += buffer[: stream.readinto(buffer[: 2000 - len(got)])]
        gate.set()
        assert got + read_all(stream) == source.data[1]


def test_layer_that_is_there_is_a_file_that_the_core_reads_itself(source, place):
    with ahead_of(source, place, 2) as ahead:
        read_all(ahead.open(0).stream)
        source.wait_for(2)
        file = ahead._files[1]
        with file._changed:
            assert file._changed.wait_for(lambda: not file._filling, PATIENCE_S)
        with ahead.open(1).stream as stream:
            assert os.pread(stream.fileno(), 10**6, 0) == source.data[1]


@pytest.mark.parametrize("at", [0, 2000])
def test_error_is_the_readers_when_its_turn_comes(source, place, at):
    source.faults[2] = {"error": RemoteError("gone"), "at": at}
    with ahead_of(source, place) as ahead:
        assert read_all(ahead.open(0).stream) == source.data[0]
        source.wait_for(3)
        assert read_all(ahead.open(1).stream) == source.data[1]
        with pytest.raises(RemoteError, match="gone"):
            read_all(ahead.open(2).stream)


def test_surplus_is_kept_to_one_byte(source, place):
    """The core takes one byte too many for proof; a registry that sends for ever fills no disk."""
    layers = source.layers()
    source.data[1] += bytes(10**6)
    layers[1] = Layer(
        1, COUNT, Descriptor(OCI_LAYER, digest_of(source.data[1]), 5000), None, source
    )
    with ReadAhead(
        layers, [None] * COUNT, place, downloads=2, cancellation=Cancellation()
    ) as ahead:
        read_all(ahead.open(0).stream)
        source.wait_for(2)
        assert len(read_all(ahead.open(1).stream)) == 5001


def test_full_disk_is_told_with_what_helps(source, place, monkeypatch):
    class FullDisk:
        def __getattr__(self, name):
            return getattr(os, name)

        def write(self, *_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ahead_of(source, place) as ahead:
        monkeypatch.setattr("imagers.pull.ahead.os", FullDisk())
        read_all(ahead.open(0).stream)
        source.wait_for(2)
        with pytest.raises(LocalError, match="downloaded ahead: no space left") as raised:
            read_all(ahead.open(1).stream)
    assert "--jobs 1" in raised.value.hint


def test_disk_that_gives_nothing_back_is_a_local_error(source, place, monkeypatch):
    class BrokenDisk:
        def __getattr__(self, name):
            return getattr(os, name)

        def preadv(self, *_):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    gate = threading.Event()
    source.faults[1] = {"gate": gate, "at": 2000}
    with ahead_of(source, place) as ahead:
        read_all(ahead.open(0).stream)
        source.wait_for(2)
        stream = ahead.open(1).stream
        monkeypatch.setattr("imagers.pull.ahead.os", BrokenDisk())
        with pytest.raises(LocalError, match="downloaded ahead: input/output error"):
            read_all(stream)
        gate.set()


def test_cancelled_while_it_waits_for_a_download(source, place):
    gate = threading.Event()
    source.faults[1] = {"gate": gate}
    cancellation = Cancellation()
    with ahead_of(source, place, 2, cancellation) as ahead:
        read_all(ahead.open(0).stream)
        source.wait_for(2)
        stream = ahead.open(1).stream
        cancellation.cancel()
        with pytest.raises(Cancelled):
            read_all(stream)
        gate.set()


def test_leaving_stops_downloads_and_takes_the_files_away(source, place):
    gate = threading.Event()
    source.faults[1] = {"gate": gate, "at": 2000}
    with ahead_of(source, place) as ahead:
        read_all(ahead.open(0).stream)
        source.wait_for(3)
        threading.Timer(0.05, gate.set).start()
    assert not [one for one in threading.enumerate() if one.name.startswith("download")]


@pytest.mark.parametrize("started", [0, 1])
def test_interrupt_while_downloads_are_started_is_passed_on(source, place, monkeypatch, started):
    class Interrupted(threading.Thread):
        def start(self):
            if self.name == f"download-{started}":
                raise KeyboardInterrupt
            super().start()

    monkeypatch.setattr("imagers.pull.ahead.threading.Thread", Interrupted)
    with pytest.raises(KeyboardInterrupt), ahead_of(source, place) as ahead:
        ahead.open(0)
    assert source.streams[0].closed
    assert not [one for one in threading.enumerate() if one.name.startswith("download")]


# ---- layers that are checked on their way ----------------------------------------------------


@pytest.mark.parametrize("downloads", [1, 2, 3, 20])
def test_checked_layers_come_whole_and_in_order_whoever_fetched_them(source, place, downloads):
    with ahead_of(source, place, downloads, checked=True) as ahead:
        for index, layer in enumerate(source.layers()):
            with ahead.open(index) as arrived:
                assert read_all(arrived.stream) == source.data[index]
                assert arrived.checked.expected == layer.descriptor
                assert arrived.checked.beginning == source.data[index][:512]
            with pytest.raises(ValueError, match="closed"), arrived.checked.key.view():
                pass
    assert sorted(source.opened) == list(range(COUNT))
    assert all(stream.closed for stream in source.streams)


@pytest.mark.parametrize("downloads", [1, 3])
@pytest.mark.parametrize(
    ("change", "error"),
    [(lambda data: data[:-1] + b"x", DigestMismatch), (lambda data: data[:-1], Truncated)],
)
def test_wrong_layer_is_told_when_its_turn_comes(source, place, downloads, change, error):
    source.data[2] = b"0123456789" * 1000
    ahead = ahead_of(source, place, downloads, checked=True)
    source.open_raw_blob = lambda _, what: Stream(
        change(source.data[2]) if "3" in what.split()[1] else source.data[int(what.split()[1]) - 1]
    )
    with ahead:
        for index in range(2):
            with ahead.open(index) as arrived:
                assert read_all(arrived.stream) == source.data[index]
        with pytest.raises(error, match=f"layer 3 of {COUNT}"):
            ahead.open(2)


@pytest.mark.parametrize("at", [0, 2000])
def test_error_of_a_stream_that_is_checked_is_told_when_its_turn_comes(source, place, at):
    source.faults[1] = {"error": RemoteError("gone"), "at": at}
    with ahead_of(source, place, checked=True) as ahead:
        ahead.open(0).close()
        with pytest.raises(RemoteError, match="gone"):
            ahead.open(1)


@pytest.mark.parametrize("index", [0, 1])
def test_nothing_of_a_checked_layer_is_given_out_before_all_of_it_is_there(source, place, index):
    gate = threading.Event()
    source.data[0] = bytes(5000)
    source.faults[index] = {"gate": gate, "at": 4999}
    given = []

    def open_all(ahead):
        for number in range(2):
            with ahead.open(number) as arrived:
                given.append(read_all(arrived.stream))

    with ahead_of(source, place, checked=True) as ahead:
        reader = threading.Thread(target=open_all, args=[ahead])
        reader.start()
        source.wait_for(3)
        assert source.data[index] not in given
        gate.set()
        reader.join(PATIENCE_S)
        assert given == source.data[:2]


def test_waiting_for_a_check_tells_how_much_is_there(source, place):
    told = []
    with ahead_of(source, place, checked=True) as ahead:
        ahead.open(0).close()
        ahead.open(1, told.append).close()
        ahead.open(2).close()
    with ahead_of(source, place, 1, checked=True) as ahead:
        for index in range(2):
            ahead.open(index, told.append).close()
    assert told[-1] == len(source.data[1])


def test_checked_layer_of_a_local_file_stays_where_it_lies(source, place, tmp_path):
    path = tmp_path.parent / "blob"
    path.write_bytes(source.data[1])
    local = open(path, "rb", buffering=0)  # noqa: SIM115  # closed below
    source.open_raw_blob = lambda _, what: local if what.startswith("layer 2 ") else Stream(b"")
    with ahead_of(source, place, 1, checked=True) as ahead:
        ahead.open(0).close()
        with ahead.open(1) as arrived:
            assert arrived.stream is local
            assert os.listdir(place) == []
            assert read_all(local) == source.data[1]


def test_full_disk_is_told_with_what_helps_where_a_layer_is_kept(source, place, monkeypatch):
    class FullDisk:
        def __getattr__(self, name):
            return getattr(os, name)

        def open(self, *_, **__):
            return os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC)

        def unlink(self, *_, **__):
            pass

    with ahead_of(source, place, 1, checked=True) as ahead:
        ahead.open(0).close()
        monkeypatch.setattr("imagers.pull.ahead.os", FullDisk())
        with pytest.raises(LocalError, match="cannot keep layer 2 of 6 until it is che") as raised:
            ahead.open(1)
    assert "--stream" in raised.value.hint


def test_cancelled_while_it_waits_for_a_check(source, place):
    gate = threading.Event()
    source.faults[1] = {"gate": gate}
    cancellation = Cancellation()
    with ahead_of(source, place, 2, cancellation, checked=True) as ahead:
        ahead.open(0).close()
        source.wait_for(2)
        cancellation.cancel()
        with pytest.raises(Cancelled):
            ahead.open(1)
        gate.set()


def test_leaving_stops_checks_and_forgets_what_nobody_opened(source, place):
    gate = threading.Event()
    source.faults[2] = {"gate": gate, "at": 2000}
    with ahead_of(source, place, checked=True) as ahead:
        ahead.open(0).close()
        source.wait_for(3)
        file = ahead._files[1]
        with file._changed:
            assert file._changed.wait_for(lambda: not file._filling, PATIENCE_S)
        key = file._checked.key
        threading.Timer(0.05, gate.set).start()
    assert not [one for one in threading.enumerate() if one.name.startswith("download")]
    with pytest.raises(ValueError, match="closed"), key.view():
        pass


def test_leaving_ends_a_check_of_a_layer_that_comes_without_end(source, place):
    came = threading.Event()

    class Endless(Stream):
        def readinto(self, buffer):
            came.set()
            buffer[:1] = b"x"
            return 1

    layers = source.layers()[:2]
    endless = Descriptor(OCI_LAYER, layers[1].descriptor.digest, 1 << 40)
    layers[1] = Layer(1, 2, endless, None, source)
    source.open_raw_blob = lambda descriptor, **_: (
        Endless(b"") if descriptor is endless else Stream(source.data[0])
    )
    with ReadAhead(
        layers,
        [check_of(layer) for layer in layers],
        place,
        downloads=2,
        cancellation=Cancellation(),
    ) as ahead:
        ahead.open(0).close()
        assert came.wait(PATIENCE_S)
    for thread in threading.enumerate():
        if thread.name.startswith("download"):
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


# ---- layers whose beginning is there -----------------------------------------------------------


class Parts:
    """A `Keeping` with a part of each layer in a store, and nothing else."""

    def __init__(self, layers, store):
        self.layers = layers
        self.store = store

    def open(self, _):
        return None

    def drop(self, _):
        raise AssertionError

    def prepare(self, _):
        return None

    def check(self, index):
        return check_of(self.layers[index])

    def resume(self, index):
        descriptor = self.layers[index].descriptor
        return self.store.take_part(descriptor.digest, size=descriptor.size)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("change", [0, 1], ids=["right", "wrong"])
def test_nothing_of_a_part_is_given_out_before_all_of_the_layer_was_right(
    place, tmp_path_factory, index, change
):
    """Also of a layer that has no check of its own, as with --stream: its turn has come."""
    source = Source([3 * 2**20, 3 * 2**20])
    layers, data = source.layers(), source.data
    gate, asked = threading.Event(), threading.Event()
    given = []

    def rest(first, _, *, what):
        number = int(what.split()[1]) - 1
        if number == index:
            asked.set()
            return Stream(data[number][first:], gate=gate)
        return Stream(data[number][first:])

    source.open_raw_blob_from = rest
    path = tmp_path_factory.mktemp("store")
    with SecretKey(b"k" * 32) as key, Store(path, key) as store:
        for number, layer in enumerate(layers):
            digest, size = layer.descriptor.digest, layer.descriptor.size
            with store.prepare_blob(digest, size=size, lasts=True) as new:
                begin = bytearray(data[number][: 2 * 2**20])
                begin[1000] ^= change
                os.write(new.blob_fd, begin)
        with ReadAhead(
            layers,
            [None, None],
            place,
            downloads=2,
            cancellation=Cancellation(),
            keeping=Parts(layers, store),
        ) as ahead:

            def open_all():
                for number in range(2):
                    with ahead.open(number) as arrived:
                        assert arrived.checked is None
                        assert arrived.resumed == (0 if change else 2 * 2**20)
                        given.append(arrived.stream.read())

            reader = threading.Thread(target=open_all)
            reader.start()
            assert asked.wait(PATIENCE_S)
            reader.join(0.3)
            assert len(given) <= index
            gate.set()
            reader.join(PATIENCE_S)
            assert given == data


@pytest.mark.parametrize("ahead_of_turn", [False, True])
@pytest.mark.parametrize("checks", [False, True])
def test_what_nobody_closed_is_closed_at_the_end(place, tmp_path_factory, ahead_of_turn, checks):
    """A signal may come when a layer was given out, and before whoever asked has it."""

    class Entries(Parts):
        def prepare(self, index):
            digest, size = self.layers[index].descriptor.digest, 5000
            return self.store.prepare_blob(digest, size=size, lasts=False)

    source = Source([5000, 5000])
    layers = source.layers()
    path = tmp_path_factory.mktemp("store")
    given = []  # kept, so that nothing is closed because it is forgotten
    with SecretKey(b"k" * 32) as key, Store(path, key) as store:
        with ReadAhead(
            layers,
            [check_of(layer) if checks else None for layer in layers],
            place,
            downloads=2 if ahead_of_turn else 1,
            cancellation=Cancellation(),
            keeping=Entries(layers, store),
        ) as ahead:
            given.append(ahead.open(0))
            if ahead_of_turn:
                source.wait_for(2)
            given.append(ahead.open(1))
        assert os.listdir(path) == []
        for arrived in given:
            arrived.close()
