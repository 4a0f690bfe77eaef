# SPDX-License-Identifier: Apache-2.0
"""usage: imagers login [OPTION]... REGISTRY[/NAMESPACE]

Keeps a login for a registry, after the registry has accepted it, where podman,
skopeo and docker look for it too: in an auth file, or in the credential helper
that the file or registries.conf names. With a NAMESPACE the login is for names
below it only.

  --username NAME             else it is asked for
  --password-stdin            the password is the first line of standard input
  --password-file FILE        ... or of this file; else it is asked for
  --authfile FILE             default: the first of the places that all verbs
                              look into, as containers-auth.json(5) has them
  --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR
                              as for "imagers copy"
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers login --username me --password-file secret registry.example.org
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.images import RegistryOptions
from imagers.cli.output import print_json, print_line
from imagers.cli.passphrases import read_passphrase
from imagers.errors import UsageError
from imagers.settings import read_settings

__all__ = ["command", "parse_login_name"]

_MAX_PASSWORD = 64 * 1024


def parse_login_name(text: str) -> tuple[str, str]:
    """Registry, and namespace or "", of a name that logins are kept for.

    Raises:
        UsageError: it is none.
    """
    from imagers.errors import FormatError
    from imagers.model.reference import normal_name, parse_reference

    bare = text.removeprefix("https://").removeprefix("docker://").rstrip("/")
    registry, _, namespace = bare.partition("/")
    try:
        reference = parse_reference(f"{registry}/{namespace or 'x'}:x")
    except FormatError:
        reference = None
    registry = normal_name(registry)
    known = {registry, "docker.io" if registry == "index.docker.io" else registry}
    if reference is None or reference.registry not in known:
        raise UsageError(
            f"expected a registry, got {text!r}", hint="as registry.example.org or localhost:5000"
        )
    return reference.registry, namespace


@click.command("login", cls=VerbCommand, help=__doc__)
@click.argument("registry")
@click.option("--username", "-u", metavar="NAME")
@click.option("--password-stdin", is_flag=True)
@click.option("--password-file", metavar="FILE")
@click.option("--authfile", metavar="FILE")
@click.option("--tls-verify", type=bool, default=True)
@click.option("--registry-ca", metavar="FILE")
@click.option("--cert-dir", metavar="DIR")
@json_option
def command(
    *,
    registry: str,
    username: str | None,
    password_stdin: bool,
    password_file: str | None,
    authfile: str | None,
    tls_verify: bool,
    registry_ca: str | None,
    cert_dir: str | None,
    as_json: bool,
) -> None:
    """See the module."""
    from dataclasses import replace

    from imagers.model.reference import Reference
    from imagers.registry.credentials import Credentials
    from imagers.registry.logins import keep_login
    from imagers.registry.mirrors import AUTH_FILES
    from imagers.transport.open import open_registry

    host, namespace = parse_login_name(registry)
    if password_stdin and password_file is not None:
        raise UsageError("--password-stdin and --password-file exclude each other")
    username = username or _ask_name()
    password = _read_password(password_file, from_stdin=password_stdin)
    credentials = Credentials(username, password)
    options = RegistryOptions(None, tls_verify, registry_ca, cert_dir).transport()
    client = open_registry(
        Reference(host, namespace or "x", "x", None), replace(options, credentials=credentials), ""
    )
    try:
        client.check_login()
    finally:
        client.close()
    path = Path(authfile) if authfile is not None else read_settings().auth_files[0]
    helpers = options.registries.credential_helpers if authfile is None else (AUTH_FILES,)
    key = f"{host}/{namespace}" if namespace else host
    where = keep_login(path, key, credentials, helpers=helpers)
    if as_json:
        print_json({"registry": key, "username": username, "place": where})
    else:
        print_line(f"logged in to {host} as {username}; kept in {where}")


def _ask_name() -> str:
    if not sys.stdin.isatty():
        raise UsageError("expected --username NAME")
    return str(click.prompt("user name", err=True))


def _read_password(path: str | None, *, from_stdin: bool) -> str:
    if path is not None:
        with read_passphrase(path).view() as password:
            return bytes(password).decode()
    if from_stdin:
        line = sys.stdin.readline(_MAX_PASSWORD).rstrip("\r\n")
        if not line:
            raise UsageError("expected a password on standard input, got nothing")
        return line
    if not sys.stdin.isatty():
        raise UsageError(
            "expected --password-stdin or --password-file FILE",
            hint="a password among the words of a command is seen by every user of the machine",
        )
    return str(click.prompt("password", hide_input=True, err=True))
