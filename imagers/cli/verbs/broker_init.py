# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker init DIR [--name HOST]... [OPTION]...

Make what a broker needs on its first day, in a directory that is not there yet:
a CA, a certificate for https and a configuration file. The key of the CA is not
kept, so that nobody can make another certificate that your guests believe.

  --name HOST                 name or address by which guests reach the broker
                              (repeat it); without one it is for this machine
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

The certificates count for a year. To replace them, by your own or by another
first day, put the new files in their place: the broker reads them again. Before
that, give your guests the new CA beside the old one, in one file.

example:
  imagers broker init broker --name broker.example.org
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line

__all__ = ["command"]


@click.command("init", cls=VerbCommand, help=__doc__)
@click.argument("directory", metavar="DIR")
@click.option("--name", "names", multiple=True, metavar="HOST")
@json_option
def command(*, directory: str, names: tuple[str, ...], as_json: bool) -> None:
    """Make what a broker needs on its first day."""
    from imagers.broker.first_day import make_first_day

    made = make_first_day(Path(directory), names, now=datetime.now(UTC))
    if as_json:
        print_json(
            {
                "config": str(made.config),
                "ca": str(made.ca),
                "certificate": str(made.certificate),
                "certificate_key": str(made.key),
                "names": list(made.names),
                "not_after": made.not_after.isoformat(),
            }
        )
        return
    until = made.not_after.date().isoformat()
    print_line(f"made a certificate for {', '.join(made.names)}; it counts until {until}")
    print_line(f"start the broker: imagers broker serve --config {made.config}")
    print_line(f"trust it:         --broker-ca {made.ca}, on the machines of guests and admins")
