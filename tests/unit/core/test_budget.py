# SPDX-License-Identifier: Apache-2.0
"""Threads and memory of several layers: never more than there is, and the large layer first."""

import threading

import pytest

from imagers.core import Budget, Resources, budget, native, run_layers
from imagers.errors import UsageError, WindowTooLarge
from imagers.model.media import Compression

MIB = 1024 * 1024


@pytest.fixture
def cores(monkeypatch):
    def use(count):
        monkeypatch.setattr(budget, "usable_cores", lambda: count)

    return use


@pytest.mark.parametrize(
    ("count", "jobs", "memory", "layers", "expected"),
    [
        (2, None, 64, 4, 2),
        (2, None, 64, 1, 1),
        (2, None, 64, 0, 1),
        (16, None, 64, 16, 4),  # as many as have 16 MiB each
        (16, None, 256, 16, 16),
        (16, 3, 256, 16, 3),
        (2, 4, 64, 8, 4),
        (2, 4, 16, 8, 1),
    ],
)
def test_layers_at_once(cores, count, jobs, memory, layers, expected):
    cores(count)
    assert Budget(jobs, memory * MIB).jobs_for(layers) == expected


@pytest.mark.parametrize(
    ("part", "jobs", "threads"),
    [
        (1, 1, 2),  # alone: all cores
        (0.25, 2, 1),  # four of one size: each in a thread of its own
        (0.5, 2, 1),
        (0.53, 2, 1),  # about half is half
        (0.9, 2, 2),  # what all wait for is split
        (0.01, 2, 1),
    ],
)
def test_threads_of_a_layer_follow_its_part_of_the_bytes(cores, part, jobs, threads):
    cores(2)
    assert Budget().resources_of(part, jobs=jobs).threads == threads


@pytest.mark.parametrize(
    ("memory", "jobs", "window"),
    [(64, 1, 32), (64, 2, 16), (64, 4, 8), (16, 1, 8), (256, 1, 128), (1 << 20, 1, 2048)],
)
def test_window_and_buffers_fit_into_the_memory(memory, jobs, window):
    resources = Budget(memory_bytes=memory * MIB).resources_of(1, jobs=jobs)
    assert resources.window_bytes == window * MIB
    assert resources.window_bytes < memory * MIB / jobs


@pytest.mark.parametrize(
    ("memory", "jobs"),
    [(16, 1), (20, 1), (32, 1), (32, 2), (40, 2), (64, 1), (64, 2), (64, 4), (100, 3), (256, 4)],
)
def test_all_that_the_core_holds_for_layers_fits_into_the_memory(cores, memory, jobs):
    cores(64)
    resources = Budget(memory_bytes=memory * MIB).resources_of(1, jobs=jobs)
    held = [
        native.memory_of(
            sealing=True,
            threads=min(resources.threads, resources.compressors),
            size=1 << 40,
            compress=compression,
        )
        for compression in Compression
    ]
    held += [
        native.memory_of(
            sealing=False,
            threads=resources.threads,
            size=1 << 40,
            decompress=compression,
            window_bytes=resources.window_bytes,
        )
        for compression in Compression
    ]
    assert max(held) * jobs <= memory * MIB


def test_default_budget_gives_a_layer_alone_what_it_has_without_one():
    assert Budget().resources_of(1, jobs=1).window_bytes == Resources().window_bytes


def test_budget_below_what_one_layer_needs_is_refused():
    with pytest.raises(UsageError, match="at least 16 MiB of memory to work with, got 1000000"):
        Budget(memory_bytes=1_000_000)
    with pytest.raises(ValueError, match="at least 1"):
        Budget(jobs=0)


def test_results_have_the_order_of_the_layers_and_large_ones_begin_first():
    begun, done = [], []

    def work(index, resources, stop):
        assert not stop.is_cancelled
        begun.append((index, resources.threads))
        return f"layer {index}"

    sizes = [10, 500, 20, 300]
    results = run_layers(sizes, Budget(jobs=1), work, on_done=done.append)
    assert results == [f"layer {index}" for index in range(4)]
    assert [index for index, _ in begun] == [1, 3, 2, 0]
    assert sorted(done) == results


def test_layer_whose_window_does_not_fit_beside_others_is_done_alone_after_them(cores):
    cores(4)
    windows, lock = [], threading.Lock()

    def work(index, resources, stop):
        del stop
        with lock:
            windows.append((index, resources.window_bytes))
        if index == 1 and resources.window_bytes < 32 * MIB:
            raise WindowTooLarge("layer 2")
        return index

    done = []
    assert run_layers([5, 50, 5, 5], Budget(), work, on_done=done.append) == [0, 1, 2, 3]
    assert windows[-1] == (1, 32 * MIB)
    assert sorted(windows[:-1]) == [(index, 8 * MIB) for index in range(4)]
    assert sorted(done) == [0, 1, 2, 3]


@pytest.mark.parametrize("layers", [1, 3])
def test_layer_whose_window_does_not_fit_at_all_is_refused(cores, layers):
    cores(2)

    def work(index, resources, stop):
        del resources, stop
        if index == 0:
            raise WindowTooLarge("layer 1")
        return index

    with pytest.raises(WindowTooLarge):
        run_layers([1] * layers, Budget(), work)


def test_no_layers_are_no_work():
    assert run_layers([], Budget(), None) == []
