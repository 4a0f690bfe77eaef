"""The subcommands. Each module has a click command named `command`; its docstring is the help."""
