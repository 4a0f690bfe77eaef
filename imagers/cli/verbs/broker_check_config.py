# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker check-config FILE [OPTION]...

Say whether "imagers broker serve --config FILE" could be run: whether each key
is one, and the certificate, the policies and all else that it names can be
used. Nothing is made, and nothing listens.

  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker check-config /etc/imagers/broker.toml
"""

from __future__ import annotations

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line
from imagers.cli.verbs import broker_serve

__all__ = ["command"]


@click.command("check-config", cls=VerbCommand, help=__doc__)
@click.argument("file")
@json_option
def command(*, file: str, as_json: bool) -> None:
    """Say whether a broker could be run with a configuration file."""
    with broker_serve.command.make_context("serve", ["--config", file]) as context:
        options = dict(context.params)
    for name in ("url_file", "log_format"):
        del options[name]
    config = broker_serve.broker_config(**options)
    from imagers.broker.server import check

    check(config)
    if as_json:
        print_json(
            {
                "host": config.host,
                "port": config.port,
                "tls": config.certificate_file is not None,
                "state": str(config.state_directory),
                "tees": list(config.tees),
            }
        )
    else:
        tees = ", ".join(config.tees) or "none"
        print_line(f"{file} is good: listens on {config.host} port {config.port}; TEEs: {tees}")
