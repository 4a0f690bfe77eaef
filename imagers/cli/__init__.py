# SPDX-License-Identifier: Apache-2.0
"""The `imagers` command. One module a verb in `verbs`; its docstring is its help.

The rules of the interface:

- Results go to standard output, everything else to standard error with `imagers:` before it.
- With `--json` the result is one JSON document.
- Errors are one line, `imagers: error: ...`, and at most one hint. No traceback but for
  `--debug` and for bugs of our own.
- The exit code comes from the class of the error: see `imagers --help`.
- Nothing is printed that is secret. A password is asked for where standard input is a terminal,
  and never read from what is fed by a program.
"""
