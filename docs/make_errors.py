# SPDX-License-Identifier: Apache-2.0
"""Writes docs/errors.md from the exception classes: `python docs/make_errors.py`."""

import inspect
from pathlib import Path

from imagers import errors

INTRODUCTION = """\
# Errors and exit codes

This page is made from `imagers/errors.py` by `docs/make_errors.py`; a test compares the two.

Every error is one line, `imagers: error: ...`, expected before actual, and at most one line
`imagers: hint: ...`. "The answer is no" (21) and "could not look" (22) are different errors:
a missing signature is the first, a registry that fails while it is asked for one the second.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a bug of imagers |
| 2 | usage: the words of the command do not fit together |
| 10 | remote: a registry or broker could not be reached, or gave no useful answer |
| 11 | format: bytes from outside are not what the specification says |
| 12 | unsupported: well-formed, but not done here |
| 13 | local: path, disk, permission, lock |
| 20 | integrity: the bytes are not the bytes that were promised |
| 21 | verification says no |
| 22 | could not verify |
| 30 | no key |
| 31 | a broker refuses the key |
| 40 | attestation |
| 50 | plugin |
| 124 | timed out: a limit that the caller gave was reached, as timeout(1) has it |
| 130 | interrupted, 143 terminated |

## The classes
"""


def lines_of(cls: type, depth: int) -> list[str]:
    """A class, its sub-classes below it."""
    first = (inspect.getdoc(cls) or "").splitlines()[0]
    lines = [f"{'  ' * depth}- `{cls.__name__}` ({cls.exit_code}): {first}"]
    for child in cls.__subclasses__():
        if child.__name__.startswith("_"):
            for grandchild in child.__subclasses__():
                lines += lines_of(grandchild, depth + 1)
        elif child.__module__ == errors.__name__:
            lines += lines_of(child, depth + 1)
    return lines


def page() -> str:
    """The text of docs/errors.md."""
    return INTRODUCTION + "\n" + "\n".join(lines_of(errors.ImagersError, 0)) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "errors.md").write_text(page())
