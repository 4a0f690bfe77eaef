# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker rotate-master-key [--state DIR] [OPTION]...

Seal all that a broker keeps with another master key, on the broker's machine
and while it serves. Said again, it continues what was cut off.

  --state DIR                 of the broker; default:
                              ~/.local/state/imagers/broker
  --database URL              postgresql://USER@HOST/NAME that brokers share, in
                              place of a file in the state directory: the first
                              time, the next key is made, to be copied to each
                              of them; the second time all is done
  --master-key-fd N           a descriptor that gives the key in force and then
                              the next one, 32 bytes each; default: files in the
                              state directory, where the next one is made
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

The former key stays in the state directory: it opens older backups.

example:
  imagers broker rotate-master-key --state broker/state
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line
from imagers.settings import read_settings

if TYPE_CHECKING:
    from imagers.broker.rotation import Rotated

__all__ = ["command"]


@click.command("rotate-master-key", cls=VerbCommand, help=__doc__)
@click.option("--state", metavar="DIR")
@click.option("--database", metavar="URL")
@click.option("--master-key-fd", type=click.IntRange(min=0), metavar="N")
@json_option
def command(
    *, state: str | None, database: str | None, master_key_fd: int | None, as_json: bool
) -> None:
    """Seal all with another master key."""
    from imagers.broker.config import BrokerConfig
    from imagers.broker.rotation import make_next_key, rotate

    config = BrokerConfig(
        state_directory=Path(state) if state else read_settings().broker_state,
        database=database,
        master_key_fd=master_key_fd,
    )
    made = master_key_fd is None and make_next_key(config)
    if made and database is not None:
        if as_json:
            print_json(_facts(config.next_key_file, None))
            return
        print_line(f"made the next master key {config.next_key_file}")
        print_line("copy it to the state directory of each other broker, then say this again")
        return
    done = rotate(config)
    if as_json:
        print_json(_facts(None, done))
        return
    print_line(f"sealed {done.sealed} values anew; nothing needs the master key {done.before}")
    if done.old_file is None:
        print_line(f"the master key {done.key} is in force: give it alone at the next start")
        return
    print_line(f"the master key {done.key} is in force, as {config.master_key_file}; keep a copy")
    print_line(f"the former one, which opens older backups, is {done.old_file}")
    if database is not None:
        print_line(f"on each other broker: mv {config.next_key_file.name} master.key")


def _facts(next_key_file: Path | None, done: Rotated | None) -> dict[str, object]:
    return {
        "next_key_file": None if next_key_file is None else str(next_key_file),
        "before": None if done is None else done.before,
        "key": None if done is None else done.key,
        "sealed": None if done is None else done.sealed,
        "old_file": None if done is None or done.old_file is None else str(done.old_file),
    }
