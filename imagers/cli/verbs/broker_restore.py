# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker restore [--state DIR] [--database URL] FILE [OPTION]...

Put what "imagers broker backup" wrote in force, in a store that is empty: with
the broker stopped, and what is there moved away. The master key that was in use
has to be in the state directory. Nothing of a file that was changed is taken.

  --state DIR                 of the broker; default:
                              ~/.local/state/imagers/broker
  --database URL              postgresql://USER@HOST/NAME that brokers share, in
                              place of a file in the state directory
  --master-key-fd N           a descriptor that gives the master key
  --accept-older-state        also where the broker has seen a later state: what
                              was deleted or taken back since is there again
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker restore --state broker/state today.backup
"""

from __future__ import annotations

from pathlib import Path

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line
from imagers.settings import read_settings

__all__ = ["command"]


@click.command("restore", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--state", metavar="DIR")
@click.option("--database", metavar="URL")
@click.option("--master-key-fd", type=click.IntRange(min=0), metavar="N")
@click.option("--accept-older-state", is_flag=True)
@json_option
def command(
    *,
    file: str,
    state: str | None,
    database: str | None,
    master_key_fd: int | None,
    accept_older_state: bool,
    as_json: bool,
) -> None:
    """Put what was written in force."""
    from imagers.broker.backup import restore
    from imagers.broker.config import BrokerConfig

    config = BrokerConfig(
        state_directory=Path(state) if state else read_settings().broker_state,
        database=database,
        master_key_fd=master_key_fd,
        accept_older_state=accept_older_state,
    )
    done = restore(config, Path(file))
    if as_json:
        print_json({"file": file, "number": done.number, "rows": done.rows, "older": done.is_older})
        return
    print_line(f"{file} is in force: {done.rows} rows, as of change {done.number}")
    if done.is_older:
        print_line("it is older than what was seen here: take back again what was taken back since")
