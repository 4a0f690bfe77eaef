# SPDX-License-Identifier: Apache-2.0
"""usage: imagers logout [OPTION]... REGISTRY[/NAMESPACE]

Drops the login for a registry from all auth files, and from the credential
helpers that they and registries.conf name.

  --authfile FILE             only from this one
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers logout registry.example.org
"""

from __future__ import annotations

from pathlib import Path

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line
from imagers.cli.verbs.login import parse_login_name
from imagers.errors import UsageError
from imagers.settings import read_settings

__all__ = ["command"]


@click.command("logout", cls=VerbCommand, help=__doc__)
@click.argument("registry")
@click.option("--authfile", metavar="FILE")
@json_option
def command(*, registry: str, authfile: str | None, as_json: bool) -> None:
    """See the module."""
    from imagers.registry.logins import forget_login

    host, namespace = parse_login_name(registry)
    settings = read_settings()
    key = f"{host}/{namespace}" if namespace else host
    if authfile is not None:
        dropped = forget_login([Path(authfile)], key)
    else:
        helpers = settings.registries().credential_helpers
        dropped = forget_login(settings.auth_files, key, helpers=helpers)
    if not dropped:
        raise UsageError(f"there is no login for {registry}")
    if as_json:
        print_json({"registry": key, "places": list(dropped)})
    else:
        print_line(f"logged out of {registry}: {', '.join(dropped)}")
