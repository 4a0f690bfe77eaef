# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker ui [OPTION]...

Say where the pages of a broker are, and make a token to log in with there. It
is good for a minute, and as much worth as the admin key until then. The pages
show guests, why they were refused, images, secrets without their values,
policies and reference values; they change nothing.

  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http, --broker-admin-key FILE,
  --broker-admin-certificate FILE, --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker ui --broker https://broker.example.org
"""

from __future__ import annotations

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, say

__all__ = ["command"]


@click.command("ui", cls=VerbCommand, help=__doc__)
@admin_options
@json_option
def command(*, broker: BrokerOptions, as_json: bool) -> None:
    """Make a token for the pages of a broker."""
    here = this_broker(broker)
    with here.admin() as admin:
        token = admin.make_token()
    url = f"{here.require_url().rstrip('/')}/ui"
    if as_json:
        print_json({"url": url, "token": token})
    else:
        say("", f"open {url} and log in with this token, within a minute:")
        click.echo(token)
