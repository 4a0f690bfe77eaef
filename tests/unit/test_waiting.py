# SPDX-License-Identifier: Apache-2.0
"""What ends work that waits, and what it says then. Limits are short, and ends are waited for."""

import fcntl
import os
import pickle
import threading
import time
from contextlib import nullcontext

import pytest

from imagers import waiting
from imagers.errors import Cancelled, TimedOut
from imagers.waiting import OTHERS, Cancellation

SOON = 10  # seconds, within which what has to end does, on any machine


@pytest.fixture
def lock(tmp_path):
    """The path of a file that somebody has locked."""
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_cancellation_stays():
    cancellation = Cancellation()
    assert not cancellation.is_cancelled
    cancellation.check()
    cancellation.cancel()
    cancellation.cancel()
    assert cancellation.is_cancelled
    with pytest.raises(Cancelled) as caught:
        cancellation.check()
    assert not isinstance(caught.value, TimedOut)


def test_cancellation_ends_what_is_within_and_not_what_is_around():
    outer = Cancellation()
    inner, sibling = Cancellation(within=outer), Cancellation(within=outer)
    inner.cancel()
    assert inner.is_cancelled
    assert not outer.is_cancelled
    assert not sibling.is_cancelled
    outer.cancel()
    assert sibling.is_cancelled


def test_limit_that_is_reached_says_phase_step_and_for_whom():
    limit = Cancellation(seconds=0.01, phase="keys")
    limit.note("asks for keys")
    with limit.waiting("broker.example.org:443"), pytest.raises(TimedOut) as caught:
        wait_for(limit)
    error = caught.value
    assert str(error) == (
        "keys: not done within 0.01 s: asks for keys, waited for broker.example.org:443"
    )
    assert error.hint == "--timeout keys=LONGER gives it more time; 0 is none"
    assert (error.phase, error.limit_s, error.in_all) == ("keys", 0.01, False)
    assert (error.step, error.waited_for) == ("asks for keys", "broker.example.org:443")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
    assert (str(again), again.phase, again.hint) == (str(error), "keys", error.hint)


def wait_for(limit):
    """Until it is reached; raises what it raises."""
    while not limit.is_cancelled:
        time.sleep(0.001)
    limit.check()


def test_limit_of_all_is_told_with_the_phase_that_it_ends():
    whole = Cancellation(seconds=0.01)
    with pytest.raises(TimedOut) as caught:
        wait_for(Cancellation(within=whole, seconds=100, phase="layers"))
    assert str(caught.value).startswith("layers: not done within 0.01 s in all: ")
    assert caught.value.hint == "--timeout LONGER gives it more time; 0 is none"


def test_who_cancels_is_told_so_also_after_a_limit():
    limit = Cancellation(seconds=0.001, phase="trust")
    with pytest.raises(TimedOut):
        wait_for(limit)
    limit.cancel()
    with pytest.raises(Cancelled) as caught:
        limit.check()
    assert not isinstance(caught.value, TimedOut)


def test_what_is_left_is_that_of_the_first_limit():
    assert Cancellation().left_s is None
    outer = Cancellation(seconds=50)
    assert 49 < Cancellation(within=outer, seconds=1000).left_s <= 50
    assert 4 < Cancellation(within=outer, seconds=5).left_s <= 5
    with Cancellation(seconds=5).in_force():
        assert 4 < waiting.left_s(100) <= 5
        assert waiting.left_s(1) == 1
    assert waiting.left_s(100) == 100


@pytest.mark.parametrize(
    ("own", "others", "told"),
    [
        ("a", ["b"], "waited for a"),
        (OTHERS, ["b", "a", "b"], "waited for a and b"),
        (OTHERS, [], "still at work on this machine"),
        (None, ["b"], "still at work on this machine"),
    ],
)
def test_helpers_are_waited_for_only_where_the_worker_waits_for_them(own, others, told):
    limit = Cancellation(seconds=0.001, phase="layers")
    over, begun = threading.Event(), threading.Barrier(len(others) + 1)

    def help_with(who):
        with limit.waiting(who):
            begun.wait(SOON)
            over.wait(SOON)

    threads = [threading.Thread(target=help_with, args=(who,)) for who in others]
    for thread in threads:
        thread.start()
    begun.wait(SOON)
    try:
        with (
            pytest.raises(TimedOut, match=f"{told}$"),
            nullcontext() if own is None else limit.waiting(own),
        ):
            wait_for(limit)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_all_threads_are_told_the_same():
    """Who comes first knows what was waited for; the others are not waiting any more."""
    limit = Cancellation(seconds=0.001, phase="layers")
    with limit.waiting("a"), pytest.raises(TimedOut) as first:
        wait_for(limit)
    with pytest.raises(TimedOut) as second:
        limit.check()
    assert str(first.value) == str(second.value)
    assert first.value is not second.value


def test_what_waits_in_turn_is_told_innermost():
    limit = Cancellation(seconds=100, phase="trust")
    with limit.in_force(), waiting.waits_for("outer"):
        with waiting.waits_for("inner"):
            pass
        short = Cancellation(within=limit, seconds=0.001)
        with pytest.raises(TimedOut, match=r"waited for outer$"):
            wait_for(short)


def test_nothing_is_in_force_in_a_thread_that_does_not_say_so():
    seen = []
    with Cancellation().in_force():
        assert waiting.in_force() is not None
        thread = threading.Thread(target=lambda: seen.append(waiting.in_force()))
        thread.start()
        thread.join()
    assert seen == [None]
    assert waiting.in_force() is None


def test_ignorant_cancelled_becomes_the_limit_that_was_reached():
    limit = Cancellation(seconds=0.001, phase="layers")
    while not limit.is_cancelled:
        time.sleep(0.001)
    with pytest.raises(TimedOut), limit.in_force():
        raise Cancelled("layer 1 of 2: cancelled")
    with pytest.raises(Cancelled, match="another") as caught, Cancellation(seconds=99).in_force():
        raise Cancelled("another")
    assert not isinstance(caught.value, TimedOut)


def held_lock():
    lock = threading.Lock()
    lock.acquire()
    with waiting.held(lock, "somebody"):
        raise AssertionError


def aside():
    waiting.run_aside(threading.Event().wait)


def lock_it(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        waiting.lock_file(fd, shared=True, what="the store")
    finally:
        os.close(fd)


BLOCKS = {
    "a pause": lambda _: waiting.pause(1000),
    "a lock of threads": lambda _: held_lock(),
    "work aside": lambda _: aside(),
    "a lock of files": lock_it,
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_what_waits_ends_by_a_limit(block, lock):
    start = time.monotonic()
    limit = Cancellation(seconds=0.3, phase="keys")
    with pytest.raises(TimedOut), limit.in_force():
        block(lock)
    assert 0.3 <= time.monotonic() - start < SOON


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_what_waits_ends_when_it_is_cancelled(block, lock):
    stop = Cancellation()
    timer = threading.Timer(0.2, stop.cancel)
    timer.start()
    start = time.monotonic()
    with pytest.raises(Cancelled), stop.in_force():
        block(lock)
    assert time.monotonic() - start < SOON
    timer.join()


def test_lock_of_a_file_that_is_free_is_had(lock):
    for stop in (None, Cancellation()):
        free = lock.with_name("free")
        free.touch()
        fd, other = os.open(free, os.O_RDONLY), os.open(free, os.O_RDONLY)
        if stop is None:
            waiting.lock_file(fd, shared=False, what="it")
        else:
            with stop.in_force():
                waiting.lock_file(fd, shared=False, what="it")
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        os.close(other)


def test_pause_without_anything_in_force_lasts():
    start = time.monotonic()
    waiting.pause(0.25)
    assert time.monotonic() - start >= 0.25


def test_held_lock_is_let_go_also_after_an_error():
    lock = threading.Lock()
    with pytest.raises(ValueError, match="x"), waiting.held(lock, "x"):
        raise ValueError("x")
    assert not lock.locked()


@pytest.mark.parametrize("stop", [None, Cancellation()])
def test_work_aside_gives_what_it_gives_and_raises_what_it_raises(stop):
    def run(work):
        if stop is None:
            return waiting.run_aside(work)
        with stop.in_force():
            return waiting.run_aside(work)

    assert run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


@pytest.mark.parametrize("fails", [False, True])
def test_work_aside_that_nobody_waits_for_any_more_cleans_up_at_its_end(fails):
    go_on, cleaned = threading.Event(), threading.Event()

    def work():
        go_on.wait(SOON)
        if fails:
            raise OSError

    with (
        pytest.raises(TimedOut),
        Cancellation(seconds=0.05, phase="trust").in_force(),
    ):
        waiting.run_aside(work, if_late=cleaned.set)
    assert not cleaned.is_set()
    go_on.set()
    assert cleaned.wait(SOON)


def test_work_aside_that_was_waited_for_is_not_cleaned_up():
    with Cancellation().in_force():
        waiting.run_aside(lambda: None, if_late=pytest.fail)


def test_clock_of_the_machine_changes_nothing(monkeypatch):
    limit = Cancellation(seconds=100, phase="trust")
    monkeypatch.setattr(time, "time", lambda: 2**40)
    assert not limit.is_cancelled
    assert limit.left_s > 50
