# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.core import BlobProgress, Watch


def test_watch_tells_of_the_work_and_its_good_end():
    news = []
    with Watch(news.append, "layer 1 of 2", 10) as watch:
        watch.show(0)
        watch.show(4)
    assert news[:2] == [BlobProgress("layer 1 of 2", 10, 0), BlobProgress("layer 1 of 2", 10, 4)]
    assert news[2:] == [BlobProgress("layer 1 of 2", 10, 10, watch.seconds)]
    assert watch.seconds >= 0


def test_watch_never_tells_of_more_than_there_is():
    news = []
    with Watch(news.append, "layer", 10) as watch:
        watch.show(11)  # a source may have a byte too many, and is refused for it
    assert [one.done for one in news] == [10, 10]


def test_watch_tells_no_end_of_work_that_failed():
    news = []
    watch = Watch(news.append, "layer", 10)

    def fail():
        with watch:
            watch.show(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [one.seconds for one in news] == [None]


def test_watch_without_a_listener_takes_the_time():
    with Watch(None, "layer", 10) as watch:
        watch.show(3)
    assert watch.seconds >= 0
