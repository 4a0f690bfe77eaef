# SPDX-License-Identifier: Apache-2.0
import logging

import pytest

from imagers.cli import verbose


@pytest.fixture
def listening():
    verbose.start()
    yield logging.getLogger("imagers.net.http")
    verbose.stop()


def test_lines_of_the_library_are_lines_of_the_program(listening, capsys):
    listening.debug("asks %s", "h.example")
    logging.getLogger("urllib3").debug("not ours")
    assert capsys.readouterr().err == "imagers: asks h.example\n"


def test_lines_cannot_move_a_cursor(listening, capsys):
    listening.info("asks %s", "h\x1b[2J\nimagers: trusted\u202e")
    assert capsys.readouterr().err == "imagers: asks h\ufffd[2J imagers: trusted\ufffd\n"


def test_warnings_are_left_to_who_shows_them_without(listening, capsys):
    listening.warning("careful")
    assert capsys.readouterr().err == ""


def test_started_twice_a_line_is_said_once_and_stopped_not_at_all(listening, capsys):
    verbose.start()
    listening.debug("once")
    assert capsys.readouterr().err == "imagers: once\n"
    verbose.stop()
    listening.debug("never")
    assert capsys.readouterr().err == ""
    assert not listening.isEnabledFor(logging.DEBUG)
