# SPDX-License-Identifier: Apache-2.0
"""usage: imagers broker policy show | set FILE | reset [OPTION]...
       imagers broker policy test FILE ...

By what a broker releases secrets: a table (JSON) or a text in Rego, which
docs/broker.md and docs/policy-rego.md describe. One with a fault is refused,
and the one before stays. "test" asks no broker: "imagers broker policy test
--help".

  --attestation cpu|gpu       the policy (in Rego) that says what evidence is
                              worth, of CPUs or of devices; "reset" removes it,
                              and reference values alone say it
  --broker URL                else IMAGERS_BROKER, else http://127.0.0.1:8080
  --broker-ca FILE, --broker-reference FILE, --insecure-test-root TEE=FILE,
  --insecure-broker-http      as for "imagers pull"
  --broker-admin-key FILE, --broker-admin-certificate FILE,
  --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --json                      the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers broker policy set policy.rego
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options, this_broker
from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import harmless, print_json, print_line
from imagers.cli.verbs import broker_policy_test
from imagers.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["command"]

_CLASSES = ["cpu", "gpu"]  # those of `imagers.broker.rules`, which needs the extra


@click.group("policy", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


command.add_command(broker_policy_test.command)


def _attestation_option(callback: Callable[..., None]) -> Callable[..., None]:
    return click.option("--attestation", type=click.Choice(_CLASSES))(callback)


@command.command("show", cls=VerbCommand, help=__doc__)
@_attestation_option
@admin_options
@json_option
def show(*, attestation: str | None, broker: BrokerOptions, as_json: bool) -> None:
    """Show the policy in force."""
    with this_broker(broker).admin() as admin:
        text = admin.get_policy(attestation)
    if as_json:
        print_json({"text": text})
        return
    for line in text.rstrip("\n").split("\n"):
        # A tab is harmless, and Rego is indented with it.
        click.echo("\t".join(map(harmless, line.split("\t"))))


@command.command("set", cls=VerbCommand, help=__doc__)
@click.argument("file")
@_attestation_option
@admin_options
@json_option
def set_(*, file: str, attestation: str | None, broker: BrokerOptions, as_json: bool) -> None:
    """Put another policy in force."""
    from imagers.broker.policy.table import MAX_POLICY_BYTES

    with open(file, "rb") as stream:
        data = stream.read(MAX_POLICY_BYTES + 1)
    if len(data) > MAX_POLICY_BYTES:
        raise FormatError(f"expected at most {MAX_POLICY_BYTES} bytes, got more", what=file)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise FormatError("is not UTF-8", what=file) from None
    with this_broker(broker).admin() as admin:
        admin.set_policy(text, attestation=attestation, what=file)
    if as_json:
        print_json({"policy": file})
    elif attestation is None:
        print_line(f"policy {file} is in force")
    else:
        print_line(f"policy {file} is in force: it says what evidence of a {attestation} is worth")


@command.command("reset", cls=VerbCommand, help=__doc__)
@_attestation_option
@admin_options
@json_option
def reset(*, attestation: str | None, broker: BrokerOptions, as_json: bool) -> None:
    """Put the default policy in force, or no attestation policy."""
    from imagers.broker.policy.table import DEFAULT_POLICY

    with this_broker(broker).admin() as admin:
        if attestation is None:
            admin.set_policy(DEFAULT_POLICY)
        else:
            admin.reset_attestation_policy(attestation)
    if as_json:
        print_json({"policy": None})
    elif attestation is None:
        print_line(
            "the default policy is in force: keys go to your own guests of the image that they "
            "are for"
        )
    else:
        print_line(f"reference values alone say what evidence of a {attestation} is worth")
