# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker reference-value set [NAME VALUE...] [OPTION]...
       imagers broker reference-value list | delete NAME

What claims of guests have to equal, so that a broker knows its owner's machines
among all genuine ones: for AMD SEV-SNP the launch measurement. By the default
policy nothing leaves for a guest that equals none. A change is in force for the
next request, also of guests that have attested before.

  NAME is snp_launch_measurement, or what docs/tee has; VALUE is text, a whole
    number of at most 10 digits, true or false: any of several will do

  set:
  --file FILE                 in place of NAME and VALUE: all that "imagers
                              attest reference make" wrote into it
  --add                       keep the values that are there, and their expiry
  --single                    policies in Rego see VALUE and no list: for "=="
  --expires TIME              RFC 3339; from then on they equal nothing
  --source TEXT               where you have them from; refusals say it

  all:
  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE, --broker-admin-certificate FILE,
  --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker reference-value set snp_launch_measurement c4a6...
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import print_json, print_line, print_table
from imagers.errors import UsageError

if TYPE_CHECKING:
    from imagers.model.references import ReferenceValue
    from imagers.model.strict_json import JSON

__all__ = ["command"]

_SHOWN = 3  # values in a line
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,9})\Z")


@click.group("reference-value", cls=VerbGroup, help=__doc__)
def command() -> None:
    """What claims of guests have to equal."""


@command.command("set", cls=VerbCommand, help=__doc__)
@click.argument("name", required=False)
@click.argument("value", nargs=-1)
@click.option("--file", metavar="FILE")
@click.option("--add", is_flag=True)
@click.option("--single", is_flag=True)
@click.option("--expires", metavar="TIME")
@click.option("--source", metavar="TEXT")
@admin_options
@json_option
def set_(
    *,
    name: str | None,
    value: tuple[str, ...],
    file: str | None,
    add: bool,
    single: bool,
    expires: str | None,
    source: str | None,
    broker: BrokerOptions,
    as_json: bool,
) -> None:
    """Set reference values."""
    from imagers.model.references import as_word

    references: tuple[ReferenceValue, ...]
    if file is not None:
        if name is not None or single or expires is not None or source is not None:
            raise UsageError("--file has names, values, times and sources; expected it alone")
        references = _read(file)
    elif name is None or not value:
        raise UsageError("expected NAME and VALUE, or --file FILE")
    elif add and single:
        raise UsageError("--add makes a list, and --single is for one value; expected one of them")
    else:
        source = source or "the command line"
        references = (_given(name, value, expires, source, single=single),)
    with this_broker(broker).admin() as admin:
        admin.set_reference_values(references, add=add)
    if as_json:
        print_json({"reference_values": [_facts(one) for one in references]})
        return
    for one in references:
        values = ", ".join(as_word(value) for value in one.values[:_SHOWN])
        more = f" and {len(one.values) - _SHOWN} more" if len(one.values) > _SHOWN else ""
        print_line(f"{'added to' if add else 'set'} {one.name}: {values}{more}")


@command.command("list", cls=VerbCommand, help=__doc__)
@admin_options
@json_option
def list_(*, broker: BrokerOptions, as_json: bool) -> None:
    """List the reference values."""
    from imagers.model.references import as_word

    with this_broker(broker).admin() as admin:
        references = admin.reference_values()
    if as_json:
        print_json({"reference_values": [_facts(one) for one in references]})
        return
    print_table(
        ["name", "value", "expires", "source"],
        [
            [one.name, as_word(value), _time(one) or "never", one.source or "-"]
            for one in references
            for value in one.values
        ],
    )


@command.command("delete", cls=VerbCommand, help=__doc__)
@click.argument("name")
@admin_options
@json_option
def delete(*, name: str, broker: BrokerOptions, as_json: bool) -> None:
    """Remove a reference value."""
    with this_broker(broker).admin() as admin:
        admin.delete_reference_value(name)
    if as_json:
        print_json({"name": name})
    else:
        print_line(f"deleted {name}")


def _read(file: str) -> tuple[ReferenceValue, ...]:
    from imagers.files import read_bounded
    from imagers.model.references import MAX_REFERENCES_BYTES, parse_references

    return parse_references(read_bounded(file, max_bytes=MAX_REFERENCES_BYTES), what=file)


def _given(
    name: str, values: tuple[str, ...], expires: str | None, source: str, *, single: bool
) -> ReferenceValue:
    """The value that the words say, read as one from a file is."""
    from imagers.cli.evidence import parse_time
    from imagers.errors import FormatError
    from imagers.model.references import parse_references
    from imagers.model.strict_json import dump_json

    if expires is not None:
        parse_time("--expires", expires)
    item = {
        "name": name,
        "values": [_value(word) for word in values],
        "expires": expires,
        "source": source,
        "single": single,
    }
    try:
        (reference,) = parse_references(dump_json({"reference_values": [item]}))
    except FormatError as error:
        raise UsageError(str(error)) from None
    return reference


def _value(word: str) -> JSON:
    if word in ("true", "false"):
        return word == "true"
    return int(word) if _NUMBER.match(word) else word


def _time(one: ReferenceValue) -> str | None:
    return None if one.expires is None else one.expires.isoformat()


def _facts(one: ReferenceValue) -> dict[str, object]:
    return {
        "name": one.name,
        "values": list(one.values),
        "expires": _time(one),
        "source": one.source or None,
        **({"single": True} if one.is_single else {}),
    }
