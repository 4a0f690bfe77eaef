# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

from imagers.pull.trace import WAIT, Span, Trace, find_critical_path, traced


def span(name, layer, start, end, thread="main"):
    return Span(name, layer, start, end, thread)


def test_spans_stand_by_their_start():
    trace = Trace()
    with trace.span("outer"), traced(trace, "second", 1):
        pass
    outer, second = trace.spans
    assert (outer.name, outer.layer) == ("outer", None)
    assert (second.name, second.layer) == ("second", 1)
    assert second.thread == threading.current_thread().name
    assert 0 <= outer.start <= second.start <= second.end <= outer.end <= trace.seconds


def test_span_names_the_thread_that_did_it():
    trace = Trace()

    def work():
        with trace.span("download", 3):
            pass

    thread = threading.Thread(target=work, name="download-7")
    thread.start()
    thread.join()
    assert [(one.name, one.layer, one.thread) for one in trace.spans] == [
        ("download", 3, "download-7")
    ]


def test_work_before_anybody_asked_is_noted_afterwards():
    trace = Trace()
    trace.note("set-up", since=0)
    (one,) = trace.spans
    assert one.start == 0
    assert 0 < one.end == one.seconds


def test_span_that_fails_is_there_too():
    trace = Trace()
    with pytest.raises(KeyError), traced(trace, "manifest"):
        raise KeyError
    assert [one.name for one in trace.spans] == ["manifest"]


def test_without_a_trace_nothing_is_noted():
    with traced(None, "manifest"):
        pass


def test_critical_path_is_what_followed_one_another():
    first, second, third = (span(str(n), None, n, n + 1) for n in range(3))
    beside = span("beside", 0, 0.5, 1.5, "download-0")
    assert find_critical_path([first, beside, second, third]) == {first, second, third}


def test_critical_path_goes_through_what_was_waited_for():
    keys = span("keys", None, 0, 1)
    opened = span("open", 0, 1, 2)
    download = span("download", 1, 1, 5, "download-0")
    wait = span(WAIT, 1, 2, 5.001)
    last = span("open", 1, 5.001, 6)
    # Layer 0 could take longer: nothing would be later.
    assert find_critical_path([keys, opened, download, wait, last]) == {keys, download, wait, last}


def test_critical_path_of_a_wait_for_nothing_known_is_the_wait():
    before, wait = span("keys", None, 0, 1), span(WAIT, 1, 1, 5)
    assert find_critical_path([before, wait]) == {before, wait}


def test_critical_path_ends_where_spans_take_no_time():
    spans = [span("kept", number, 1, 1) for number in range(3)]
    assert find_critical_path(spans) == set(spans)
    assert find_critical_path([]) == frozenset()
