# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker backup [--state DIR] [--database URL] FILE

Write all that a broker keeps into a file, as it is at one moment, on its
machine and while it serves. Secrets are sealed in it; the master key is not in
it. "imagers broker restore" puts it in force again, in either kind of database.

  --state DIR                 of the broker; default:
                              ~/.local/state/imagers/broker
  --database URL              postgresql://USER@HOST/NAME that brokers share, in
                              place of a file in the state directory
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker backup --state broker/state today.backup
"""

from __future__ import annotations

from pathlib import Path

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line
from imagers.settings import read_settings

__all__ = ["command"]


@click.command("backup", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--state", metavar="DIR")
@click.option("--database", metavar="URL")
@json_option
def command(*, file: str, state: str | None, database: str | None, as_json: bool) -> None:
    """Write all that a broker keeps into a file."""
    from imagers.broker.backup import make_backup
    from imagers.broker.config import BrokerConfig

    folder = Path(state) if state else read_settings().broker_state
    made = make_backup(BrokerConfig(state_directory=folder, database=database), Path(file))
    if as_json:
        print_json({"file": file, "number": made.number, "rows": made.rows})
    else:
        print_line(f"wrote {file}: {made.rows} rows, as of change {made.number}")
