# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker tenant list
       imagers broker tenant add NAME | remove NAME
       imagers broker tenant assign NAME REPOSITORY...

Divides a broker: each repository, the first part of a secret's name, is of one
tenant, with admin keys, a policy, reference values and an audit log of its own.
One that was given to nobody is the tenant "default"'s. All of this is for the
role operator, see "imagers broker admin-key".

  add                         a new tenant; a name is given once
  assign                      give it repositories that have no secrets; NAME
                              may be "default"
  remove                      with its admin keys, policy and reference values;
                              it must have no secrets any more

  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE, --broker-admin-certificate FILE,
  --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker tenant assign team-a app-a
"""

from __future__ import annotations

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import print_json, print_line, print_table

__all__ = ["command"]


@click.group("tenant", cls=VerbGroup, help=__doc__)
def command() -> None:
    """Who shares a broker."""


@command.command("list", cls=VerbCommand, help=__doc__)
@admin_options
@json_option
def list_(*, broker: BrokerOptions, as_json: bool) -> None:
    """List the tenants."""
    from imagers.kbs.tenants import TenantAdmin

    with this_broker(broker).admin() as admin:
        tenants = TenantAdmin(admin).tenants()
    if as_json:
        facts = [
            {
                "name": one.name,
                "repositories": list(one.repositories),
                "admin_keys": one.admin_keys,
            }
            for one in tenants
        ]
        print_json({"tenants": facts})
        return
    print_table(
        ["name", "admin keys", "repositories"],
        [
            [one.name, str(one.admin_keys), ", ".join(one.repositories) or _nothing_of(one.name)]
            for one in tenants
        ],
    )


def _nothing_of(tenant: str) -> str:
    return "all others" if tenant == "default" else "-"


@command.command("add", cls=VerbCommand, help=__doc__)
@click.argument("name")
@admin_options
@json_option
def add(*, name: str, broker: BrokerOptions, as_json: bool) -> None:
    """Make a tenant."""
    from imagers.kbs.tenants import TenantAdmin

    with this_broker(broker).admin() as admin:
        TenantAdmin(admin).add(name)
    if as_json:
        print_json({"name": name})
        return
    print_line(f"made the tenant {name}; give it an owner:")
    print_line(f"  imagers broker admin-key add NAME FILE --role owner --tenant {name}")


@command.command("remove", cls=VerbCommand, help=__doc__)
@click.argument("name")
@admin_options
@json_option
def remove(*, name: str, broker: BrokerOptions, as_json: bool) -> None:
    """Remove a tenant."""
    from imagers.kbs.tenants import TenantAdmin

    with this_broker(broker).admin() as admin:
        TenantAdmin(admin).remove(name)
    if as_json:
        print_json({"name": name})
    else:
        print_line(f"removed the tenant {name}")


@command.command("assign", cls=VerbCommand, help=__doc__)
@click.argument("name")
@click.argument("repository", nargs=-1, required=True)
@admin_options
@json_option
def assign(*, name: str, repository: tuple[str, ...], broker: BrokerOptions, as_json: bool) -> None:
    """Give repositories to a tenant."""
    from imagers.kbs.tenants import TenantAdmin

    with this_broker(broker).admin() as admin:
        for one in repository:
            TenantAdmin(admin).assign(name, one)
            if not as_json:
                print_line(f"{one} is of the tenant {name}")
    if as_json:
        print_json({"name": name, "repositories": list(repository)})
