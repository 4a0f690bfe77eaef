# SPDX-License-Identifier: Apache-2.0
"""Several pieces of work at once: results in order, one error, nothing left running."""

import subprocess
import sys
import textwrap
import threading
import time
from functools import partial

import pytest

from imagers.core import Cancellation, run_together, together
from imagers.errors import Cancelled, LocalError

PATIENCE_S = 60


def wait_for(event, stop):
    """As a job does: until the event, or until it is cancelled."""
    while not event.wait(0.005):
        if stop.is_cancelled:
            raise Cancelled("cancelled")


@pytest.mark.parametrize("jobs", [1, 2, 5, 50])
def test_results_have_the_order_of_the_tasks(jobs):
    done = []
    tasks = [lambda _, number=number: number * 10 for number in range(20)]
    results = run_together(tasks, jobs=jobs, on_done=lambda *one: done.append(one))
    assert results == [number * 10 for number in range(20)]
    assert sorted(done) == list(enumerate(results))


def test_tasks_run_at_the_same_time_and_no_more_than_that():
    meet = threading.Barrier(3)
    running, most = [], []

    def task(_):
        running.append(1)
        most.append(len(running))
        meet.wait(PATIENCE_S)
        running.pop()

    run_together([task] * 6, jobs=3)
    assert max(most) <= 3 + 2  # one may have begun before those that met have gone


def test_one_job_runs_in_the_thread_that_calls():
    threads = run_together([lambda _: threading.current_thread()] * 3, jobs=1)
    assert set(threads) == {threading.current_thread()}


@pytest.mark.parametrize("jobs", [1, 2])
def test_first_error_stops_the_others_and_starts_no_more(jobs):
    started = []

    def fail(_):
        started.append("fail")
        raise LocalError("full", path="disk")

    def wait(stop):
        started.append("wait")
        wait_for(threading.Event(), stop)

    with pytest.raises(LocalError, match="disk: full"):
        run_together([fail, wait, *[partial(started.append)] * 20], jobs=jobs)
    assert started[:2] in (["fail"], ["fail", "wait"], ["wait", "fail"])
    assert len(started) <= 2


def test_error_is_the_cause_and_not_what_it_cancelled():
    begun = threading.Event()

    def wait(stop):
        begun.set()
        wait_for(threading.Event(), stop)

    def fail(stop):
        wait_for(begun, stop)
        raise LocalError("full", path="disk")

    with pytest.raises(LocalError):
        run_together([wait, fail], jobs=2)


def test_cancellation_of_the_caller_ends_all():
    cancellation = Cancellation()
    begun = threading.Event()

    def wait(stop):
        begun.set()
        wait_for(threading.Event(), stop)

    def cancel():
        begun.wait(PATIENCE_S)
        cancellation.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Cancelled):
        run_together([wait] * 4, jobs=2, cancellation=cancellation)
    thread.join()


@pytest.mark.parametrize("jobs", [1, 2])
def test_cancelled_before_the_start_runs_nothing(jobs):
    cancellation = Cancellation()
    cancellation.cancel()
    ran = []
    with pytest.raises(Cancelled):
        run_together([ran.append] * 3, jobs=jobs, cancellation=cancellation)
    assert ran == []


def test_threads_that_hang_are_waited_for_once_all_together(monkeypatch):
    monkeypatch.setattr(together, "_GRACE_S", 0.5)
    over = threading.Event()
    both = threading.Barrier(64)

    def hang(_):
        both.wait(PATIENCE_S)
        over.wait(PATIENCE_S)

    def fail(_):
        both.wait(PATIENCE_S)
        raise LocalError("full", path="disk")

    began = time.monotonic()
    with pytest.raises(LocalError):
        run_together([*[hang] * 63, fail], jobs=64)
    waited = time.monotonic() - began
    over.set()
    assert waited < 20  # and not 63 times half a second


def test_error_of_the_callers_callback_stops_all():
    def refuse(number, result):
        raise RuntimeError(f"{number} {result}")

    with pytest.raises(RuntimeError):
        run_together([lambda _: 1] * 50, jobs=2, on_done=refuse)


def test_ctrl_c_in_the_waiting_thread_ends_the_work():
    program = """
        import os, signal, sys, threading
        from imagers.core import run_together
        from imagers.errors import Cancelled
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stopped = []
        both = threading.Barrier(2)

        def work(stop):
            if both.wait() == 0:
                os.kill(os.getpid(), signal.SIGINT)
            while not stop.is_cancelled:
                threading.Event().wait(0.01)
            stopped.append(1)
            raise Cancelled("cancelled")

        try:
            run_together([work] * 5, jobs=2)
        except KeyboardInterrupt:
            print("interrupted", len(stopped))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "interrupted 2\n", done.stderr
