# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker init | serve | check-config | reference-value ...
       imagers broker put URI FILE | get URI | list | delete URI
       imagers broker policy show | set FILE | reset | test FILE ...
       imagers broker audit ... | ui | tenant ... | admin-key ...
       imagers broker backup FILE | restore FILE | rotate-master-key
       imagers broker import-trustee DIR

A key broker for guests: "imagers broker init --help" is about its first day,
"imagers broker serve --help" about running one. The other words administrate
one that runs; "get" shows what is known of a secret, never the secret. A secret
bound to an image goes to guests that name this image and whose measurement is a
known one, see "imagers broker reference-value"; the policy may say more, see
"imagers broker policy". Who got what, and who did not: "imagers broker audit",
and in a browser "imagers broker ui". Who administrates what of it: "imagers
broker admin-key" and "imagers broker tenant".

  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE     else IMAGERS_BROKER_ADMIN_KEY, else where a broker
                              of this user writes it
  --broker-admin-certificate FILE, --broker-admin-certificate-key FILE
                              PEM, for a broker that was started with --admin-ca
  --replace                   of "put": overwrite; the old bindings are lost
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker put kbs:///default/app/key FILE
"""

from __future__ import annotations

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import print_json, print_line
from imagers.cli.verbs import (
    broker_admin_key,
    broker_audit,
    broker_backup,
    broker_check_config,
    broker_import_trustee,
    broker_init,
    broker_policy,
    broker_reference_value,
    broker_restore,
    broker_rotate_master_key,
    broker_serve,
    broker_tenant,
    broker_ui,
)
from imagers.errors import LocalError

__all__ = ["command"]


@click.group("broker", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


for _module in (
    broker_init,
    broker_serve,
    broker_check_config,
    broker_policy,
    broker_reference_value,
    broker_audit,
    broker_ui,
    broker_backup,
    broker_restore,
    broker_tenant,
    broker_admin_key,
    broker_rotate_master_key,
    broker_import_trustee,
):
    command.add_command(_module.command)


@command.command("put", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@click.argument("file")
@click.option("--replace", is_flag=True)
@admin_options
@json_option
def put(*, uri: str, file: str, replace: bool, broker: BrokerOptions, as_json: bool) -> None:
    """Store a secret."""
    from imagers.kbs.jwe import MAX_RESOURCE_BYTES
    from imagers.model.keys import SecretKey

    with open(file, "rb") as stream:
        data = stream.read(MAX_RESOURCE_BYTES + 1)
    if not 1 <= len(data) <= MAX_RESOURCE_BYTES:
        raise LocalError(f"expected 1 to {MAX_RESOURCE_BYTES} bytes of secret", path=file)
    with SecretKey(data) as secret, this_broker(broker).admin() as admin:
        admin.put_resource(uri, secret, replace=replace)
    if as_json:
        print_json({"uri": uri, "size": len(data)})
    else:
        print_line(f"stored {uri}, {len(data)} bytes, bound to no image")


@command.command("get", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@admin_options
@json_option
def get(*, uri: str, broker: BrokerOptions, as_json: bool) -> None:
    """Show what is known of a secret."""
    with this_broker(broker).admin() as admin:
        found = admin.metadata(uri)
    digests = [str(digest) for digest in found.manifest_digests]
    if as_json:
        print_json(
            {
                "uri": found.uri,
                "size": found.size,
                "version": found.version,
                "created_at": found.created_at,
                "manifest_digests": digests,
            }
        )
        return
    print_line(f"{found.uri}: {found.size} bytes, version {found.version}, {found.created_at}")
    for digest in digests:
        click.echo(f"  bound to {digest}")


@command.command("list", cls=VerbCommand, help=__doc__)
@admin_options
@json_option
def list_(*, broker: BrokerOptions, as_json: bool) -> None:
    """List the secrets."""
    with this_broker(broker).admin() as admin:
        uris = admin.list_resources()
    if as_json:
        print_json({"uris": list(uris)})
    else:
        for uri in uris:
            click.echo(uri)


@command.command("delete", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@admin_options
@json_option
def delete(*, uri: str, broker: BrokerOptions, as_json: bool) -> None:
    """Remove a secret."""
    with this_broker(broker).admin() as admin:
        admin.delete_resource(uri)
    if as_json:
        print_json({"uri": uri})
    else:
        print_line(f"deleted {uri}")
