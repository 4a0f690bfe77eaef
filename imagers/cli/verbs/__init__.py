# SPDX-License-Identifier: Apache-2.0
"""The subcommands. Each module has a click command named `command`; its docstring is the help."""
