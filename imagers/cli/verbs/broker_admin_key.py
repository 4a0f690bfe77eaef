# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker admin-key list [--tenant TENANT]
       imagers broker admin-key add NAME FILE --role ROLE... [--tenant TENANT]
       imagers broker admin-key remove NAME [--tenant TENANT]

Says whose keys administrate a broker. FILE is a public key, as "imagers key
generate admin" makes it; the private one is for --broker-admin-key. The key
that a broker makes at its first start has all roles.

  --role ROLE                 what it may, of its tenant (repeat it):
      owner                   all, also change policies and admin keys
      writer                  put, delete and bind secrets, and list them
      auditor                 see all but the secrets themselves
      operator                in the tenant "default": tenants, repositories and
                              admin keys of all, and nothing that they keep
  --tenant TENANT             another tenant than one's own: of operators
  NAME                        what the tenant calls it; of "remove" also its id

  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE, --broker-admin-certificate FILE,
  --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker admin-key add alice alice.pub --role writer
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import print_json, print_line, print_table
from imagers.errors import NotFound

if TYPE_CHECKING:
    from imagers.kbs.tenants import AdminKey

__all__ = ["command"]

# Those of `imagers.broker.admins`, which needs the extra.
_ROLES = ["owner", "writer", "auditor", "operator"]
_SHOWN = 12  # digits of an id, as in the audit log; --json has all


@click.group("admin-key", cls=VerbGroup, help=__doc__)
def command() -> None:
    """Whose keys administrate a broker."""


@command.command("list", cls=VerbCommand, help=__doc__)
@click.option("--tenant", metavar="TENANT")
@admin_options
@json_option
def list_(*, tenant: str | None, broker: BrokerOptions, as_json: bool) -> None:
    """List the admin keys of a tenant."""
    from imagers.kbs.tenants import TenantAdmin

    with this_broker(broker).admin() as admin:
        keys = TenantAdmin(admin).keys(tenant)
    if as_json:
        print_json({"admin_keys": [_facts(one) for one in keys]})
        return
    print_table(
        ["name", "tenant", "roles", "id"],
        [[one.name, one.tenant, ", ".join(one.roles), one.id[:_SHOWN]] for one in keys],
    )


@command.command("add", cls=VerbCommand, help=__doc__)
@click.argument("name")
@click.argument("file")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice(_ROLES))
@click.option("--tenant", metavar="TENANT")
@admin_options
@json_option
def add(
    *,
    name: str,
    file: str,
    roles: tuple[str, ...],
    tenant: str | None,
    broker: BrokerOptions,
    as_json: bool,
) -> None:
    """Let a key administrate."""
    from imagers.kbs.tenants import TenantAdmin, load_admin_public_key

    key = load_admin_public_key(file)
    with this_broker(broker).admin() as admin:
        added = TenantAdmin(admin).add_key(name, roles, key, tenant=tenant)
    if as_json:
        print_json({"admin_key": _facts(added)})
    else:
        print_line(f"added {name}, {', '.join(added.roles)} of the tenant {added.tenant}")


@command.command("remove", cls=VerbCommand, help=__doc__)
@click.argument("name")
@click.option("--tenant", metavar="TENANT")
@admin_options
@json_option
def remove(*, name: str, tenant: str | None, broker: BrokerOptions, as_json: bool) -> None:
    """Let a key administrate no more."""
    from imagers.kbs.tenants import TenantAdmin

    with this_broker(broker).admin() as admin:
        tenants = TenantAdmin(admin)
        found = [one for one in tenants.keys(tenant) if name in (one.name, one.id)]
        if not found:
            raise NotFound(
                f"the tenant has no admin key {name!r}",
                hint="'imagers broker admin-key list' shows what it has",
            )
        tenants.remove_key(found[0].id)
    if as_json:
        print_json({"admin_key": _facts(found[0])})
    else:
        print_line(f"removed {name}: its key opens nothing more")


def _facts(one: AdminKey) -> dict[str, object]:
    return {"id": one.id, "tenant": one.tenant, "name": one.name, "roles": list(one.roles)}
