# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker import-trustee DIR [OPTION]...

Put what a Trustee keeps in the files of DIR (its storage LocalFs or LocalJson)
to a broker that runs: secrets, reference values, policies. A secret whose name
is taken is left as the broker has it. What could not be taken is listed, and
the exit code is 12 then.

  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE, --broker-admin-certificate FILE,
  --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

Its resource policy is in force then, in place of the one that the broker has:
under it, a secret needs no image that it is bound to.

example:
  imagers broker import-trustee /opt/confidential-containers/storage
"""

from __future__ import annotations

from pathlib import Path

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line
from imagers.errors import Unsupported

__all__ = ["command"]


@click.command("import-trustee", cls=VerbCommand, help=__doc__)
@click.argument("directory", metavar="DIR")
@admin_options
@json_option
def command(*, directory: str, broker: BrokerOptions, as_json: bool) -> None:
    """Put what a Trustee keeps to a broker."""
    from imagers.build.trustee_files import move_trustee

    with this_broker(broker).admin() as admin:
        moved = move_trustee(Path(directory), admin)
    if as_json:
        left = [{"name": name, "reason": reason} for name, reason in moved.left]
        print_json({"taken": moved.taken, "left": left})
    else:
        for name in moved.taken:
            print_line(f"took {name}")
        for name, reason in moved.left:
            print_line(f"left {name}: {reason}")
    if moved.left:
        count = len(moved.taken) + len(moved.left)
        raise Unsupported(f"{len(moved.left)} of {count} could not be taken from {directory}")
