# SPDX-License-Identifier: Apache-2.0
"""The table of faults: each has an exception, one line, and nothing that reaches a terminal."""

import pytest

from imagers.core.failures import Fault, failure_of, shown_name
from imagers.errors import ImagersError, LocalError

FACTS = {
    "text": b"sha256:" + b"0" * 64,
    "more": b"sha256:" + b"1" * 64,
    "number": 28,
    "other": 5,
}


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_every_fault_has_an_exception_of_one_line(fault):
    error = failure_of(fault, what="layer 3 of 7", **FACTS)
    if fault is Fault.NO_MEMORY:
        assert isinstance(error, MemoryError)
        return
    assert isinstance(error, ImagersError)
    text = str(error)
    assert "layer 3 of 7" in text
    assert "\n" not in text
    assert not text.endswith(".")
    assert "{" not in text


def test_names_are_shown_on_one_bounded_line():
    assert shown_name(b"usr/bin/x") == "'usr/bin/x'"
    assert shown_name(b"\x1b[31m\n\xff") == (
        "'\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}\\xff'"
    )
    assert shown_name(b"n" * 201) == "'" + "n" * 200 + "…'"
    assert shown_name(b"n" * 200) == "'" + "n" * 200 + "'"


def test_local_error_says_what_the_machine_said():
    error = failure_of(Fault.UNPACK, what="layer", text=b"usr/\nx", number=28)
    assert isinstance(error, LocalError)
    assert error.path == "usr/\N{REPLACEMENT CHARACTER}x"
    assert str(error).endswith("cannot unpack layer: no space left on device")
    assert "--jobs 1 with --stream none" in error.hint  # of room that is taken until then
    assert failure_of(Fault.KEEP, what="layer", number=28).hint == error.hint
    assert "make room" in failure_of(Fault.WRITE, what="layer", number=28).hint
    assert failure_of(Fault.WRITE, what="layer", number=5).hint is None


def test_unknown_fault_is_our_own_bug():
    with pytest.raises(ValueError, match="99"):
        failure_of(99, what="layer")
