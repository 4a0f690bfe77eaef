# SPDX-License-Identifier: Apache-2.0
"""What the library logs, as lines of the program: `--verbose`."""

from __future__ import annotations

import logging

from imagers.cli.output import say, set_loudness

__all__ = ["start", "stop"]


class _Lines(logging.Handler):
    """What is below a warning: those of the broker's server have a handler of their own."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            say("", record.getMessage())


_LOGGER = logging.getLogger("imagers")
_HANDLER = _Lines()


def start() -> None:
    """Show the lines; progress is lines too, as a bar would be drawn between them."""
    set_loudness(bar=False)
    _LOGGER.addHandler(_HANDLER)
    _LOGGER.setLevel(logging.DEBUG)


def stop() -> None:
    """Show them no more."""
    set_loudness()
    _LOGGER.removeHandler(_HANDLER)
    _LOGGER.setLevel(logging.NOTSET)
