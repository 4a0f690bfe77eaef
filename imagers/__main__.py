# SPDX-License-Identifier: Apache-2.0
"""The `imagers` command, also as `python -m imagers`.

A signal while Python loads modules ends the program at once: there is nothing to undo yet, and
Python's own way is a traceback. `imagers.cli.main` takes over when a verb is there.
"""

from __future__ import annotations

import os

# What `signal` is made of: that module takes longer to load than all before it.
from _signal import SIGINT, SIGTERM, signal  # type: ignore[import-not-found]  # has no stub

TYPE_CHECKING = False  # so does that of `typing`
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_WORDS = {SIGINT: (b"interrupted", 130), SIGTERM: (b"terminated", 143)}


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    word, code = _WORDS[number]
    line = b"\n" if os.isatty(2) else b""  # ends the line with the ^C
    try:
        os.write(2, line + b"imagers: error: " + word + b"\n")
    finally:
        os._exit(code)


for _number in _WORDS:
    signal(_number, _end)


def main() -> NoReturn:
    """The console script."""
    from imagers.cli.main import main as run_main  # after the handlers

    run_main()


if __name__ == "__main__":
    main()
