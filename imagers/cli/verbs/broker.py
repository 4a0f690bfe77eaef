# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker init | serve | check-config | reference-value ...
       imagers broker put URI FILE | get URI | list | delete URI | undelete URI
       imagers broker policy show | set FILE | reset | test FILE ...
       imagers broker image list | approve | supersede | revoke | floor ...
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
broker admin-key" and "tenant". About images that are no good: "imagers broker
image".

  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE     else IMAGERS_BROKER_ADMIN_KEY, else where a broker
                              of this user writes it
  --broker-admin-certificate FILE, --broker-admin-certificate-key FILE
                              PEM, for a broker that was started with --admin-ca
  --replace                   of "put": overwrite; the old bindings are lost
  --expires TIME, --max-uses N
                              of "put": released no more from then on (RFC 3339,
                              or as 12h, 30d), or after so many times
  --permanently               of "delete": with all that had the name before;
                              else "undelete" has it again
  --version N                 of "undelete": which one; "get" shows them
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker put kbs:///default/app/key FILE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import print_json, print_line
from imagers.cli.verbs import (
    broker_admin_key,
    broker_audit,
    broker_backup,
    broker_check_config,
    broker_image,
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

if TYPE_CHECKING:
    from imagers.kbs.admin import ResourceMetadata

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
    broker_image,
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
@click.option("--expires", metavar="TIME")
@click.option("--max-uses", type=click.IntRange(1, 2**31 - 1))
@admin_options
@json_option
def put(
    *,
    uri: str,
    file: str,
    replace: bool,
    expires: str | None,
    max_uses: int | None,
    broker: BrokerOptions,
    as_json: bool,
) -> None:
    """Store a secret."""
    from imagers.cli.evidence import parse_time_ahead
    from imagers.kbs.jwe import MAX_RESOURCE_BYTES
    from imagers.model.keys import SecretKey

    end = None if expires is None else parse_time_ahead("--expires", expires)
    with open(file, "rb") as stream:
        data = stream.read(MAX_RESOURCE_BYTES + 1)
    if not 1 <= len(data) <= MAX_RESOURCE_BYTES:
        raise LocalError(f"expected 1 to {MAX_RESOURCE_BYTES} bytes of secret", path=file)
    with SecretKey(data) as secret, this_broker(broker).admin() as admin:
        admin.put_resource(uri, secret, replace=replace, expires=end, max_uses=max_uses)
    if as_json:
        print_json({"uri": uri, "size": len(data)})
        return
    told = "" if end is None else f", until {end.isoformat()}"
    told += "" if max_uses is None else f", to be released {max_uses} times"
    print_line(f"stored {uri}, {len(data)} bytes, bound to no image{told}")


@command.command("get", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@admin_options
@json_option
def get(*, uri: str, broker: BrokerOptions, as_json: bool) -> None:
    """Show what is known of a secret."""
    with this_broker(broker).admin() as admin:
        found = admin.metadata(uri)
    if as_json:
        former = [_facts(one) for one in found.former]
        print_json({"uri": found.uri, **_facts(found), "former": former})
        return
    print_line(f"{found.uri}: {_told(found)}")
    for digest in found.manifest_digests:
        click.echo(f"  bound to {digest}")
    for one in found.former:
        print_line(f"  before: {_told(one)}")


def _told(one: ResourceMetadata) -> str:
    told = f"{one.size} bytes, version {one.version}, {one.created_at}"
    told += "" if one.expires is None else f", until {one.expires}"
    return told + ("" if one.max_uses is None else f", released {one.uses} of {one.max_uses} times")


def _facts(one: ResourceMetadata) -> dict[str, object]:
    return {
        "size": one.size,
        "version": one.version,
        "created_at": one.created_at,
        "expires": one.expires,
        "uses": one.uses,
        "max_uses": one.max_uses,
        "manifest_digests": [str(digest) for digest in one.manifest_digests],
    }


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
@click.option("--permanently", is_flag=True)
@admin_options
@json_option
def delete(*, uri: str, permanently: bool, broker: BrokerOptions, as_json: bool) -> None:
    """Serve a secret no more."""
    with this_broker(broker).admin() as admin:
        admin.delete_resource(uri, permanently=permanently)
    if as_json:
        print_json({"uri": uri})
    else:
        print_line(f"deleted {uri}{' permanently' if permanently else ''}")


@command.command("undelete", cls=VerbCommand, help=__doc__)
@click.argument("uri")
@click.option("--version", type=click.IntRange(1, 10**18 - 1))
@admin_options
@json_option
def undelete(*, uri: str, version: int | None, broker: BrokerOptions, as_json: bool) -> None:
    """Serve a secret again."""
    with this_broker(broker).admin() as admin:
        admin.undelete_resource(uri, version=version)
        found = admin.metadata(uri)
    if as_json:
        print_json({"uri": uri, "version": found.version})
    else:
        print_line(f"{uri} is version {found.version} again, as it was bound")
