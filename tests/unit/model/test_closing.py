# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.model.closing import Closing


class Thing(Closing):
    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_closing_closes_at_the_end_of_the_block_however_it_ends(error):
    thing = Thing()
    if error is None:
        with thing as entered:
            assert entered is thing
            assert thing.closed == 0
    else:
        with pytest.raises(error), thing:
            raise error
    assert thing.closed == 1


def test_closing_without_a_close_cannot_be_made():
    with pytest.raises(TypeError, match="abstract method"):
        Closing()
