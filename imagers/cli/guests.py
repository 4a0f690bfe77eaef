# SPDX-License-Identifier: Apache-2.0
"""The options that say where a guest's configuration is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from imagers.cli.command import blamed_on, option_group
from imagers.cli.output import say
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.core import Budget
    from imagers.settings import Settings

__all__ = ["budget_of", "guest_options"]


def budget_of(given: Budget, user: Settings) -> Budget:
    """That of the command line, with the number of downloads that the configuration has."""
    return given if given.jobs is not None else replace(given, jobs=user.guest.downloads)


def _settings(config: str | None, kernel: str | None) -> Settings:
    """What this machine says, as a guest."""
    from imagers.settings.guest import GuestConfig, load_guest_config, load_kernel_words

    found = GuestConfig()
    if config is not None:
        with blamed_on("--config"):
            found = load_guest_config(config)
    if kernel is not None:
        with blamed_on("--kernel-command-line"):
            found = found.or_else(load_kernel_words(kernel))
    for one in found.passed_over:
        say("warning", one)
    return read_settings(found)


guest_options = option_group(
    "user",
    _settings,
    {
        "config": click.option("--config", metavar="FILE"),
        "kernel": click.option("--kernel-command-line", "kernel", metavar="FILE"),
    },
)
"""`--config` and `--kernel-command-line`; the verb gets the `Settings` as `user`."""
