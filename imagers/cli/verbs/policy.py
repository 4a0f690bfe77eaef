# SPDX-License-Identifier: Apache-2.0
"""usage: imagers policy check [FILE] [--json]
       imagers policy init --scope SCOPE --key FILE [--output FILE] [--json]

Looks after the containers policy.json that says which images may be used.

check reads a policy as "imagers pull" does, with all its keys and certificates,
and tells what is probably not meant and what other readers of the file make of
it. Without FILE it is the one in force. It fails if it could not be used.

init writes a policy that refuses everything but images below SCOPE that are
signed by KEY.

  --scope SCOPE            registry, registry/namespace or registry/repository
  --key FILE               public key of who signs, as "imagers key generate
                           cosign", cosign or gpg exported it; repeatable: one
                           of them is enough
  --signed-identity WORD   which names in signatures count:
                           matchRepoDigestOrExact (the default), matchExact, or
                           matchRepository for signatures that cosign made
  --output FILE            where to write; nothing is overwritten; default:
                           standard output
  --json                   the result as JSON
  -q, -v, -h               quiet, verbose, this text

example:
  imagers policy init --scope registry.example.org/team --key release.pub
"""

from __future__ import annotations

import json
import os

import click

from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import print_json, say
from imagers.settings import read_settings

__all__ = ["command"]

_IDENTITIES = ("matchRepoDigestOrExact", "matchExact", "matchRepository")


@click.group("policy", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


@command.command("check", cls=VerbCommand, help=__doc__)
@click.argument("file", required=False)
@json_option
def check(file: str | None, *, as_json: bool) -> None:
    """Lint a policy."""
    from imagers.sign.keyfiles import load_policy, locate_policy, read_key_file
    from imagers.sign.policy_lint import Note, check_materials, lint_policy
    from imagers.sign.requirements import InsecureAcceptAnything

    path = locate_policy(
        explicit=file, candidates=[str(one) for one in read_settings().policy_paths]
    )
    policy = load_policy(path)
    check_materials(policy, read_key_file)
    notes = lint_policy(policy)
    accepts = all(isinstance(one, InsecureAcceptAnything) for one in policy.default)
    if file is None and accepts:
        text = "'imagers pull' and 'imagers verify' count it as none unless --policy names it"
        notes.append(Note("note", "$.default", text))
    count = sum(len(scopes) for scopes in policy.transports.values())
    if as_json:
        print_json(
            {
                "policy": path,
                "scopes": count,
                "notes": [
                    {"level": one.level, "where": one.where, "text": one.text} for one in notes
                ],
            }
        )
        return
    for one in notes:
        click.echo(f"{one.level}: {one.where}: {one.text}")
    click.echo(
        f"{path}: good: {count} scope{'s' if count != 1 else ''} and the default, "
        f"{len(notes)} note{'s' if len(notes) != 1 else ''}"
    )


@command.command("init", cls=VerbCommand, help=__doc__)
@click.option("--scope", required=True, metavar="SCOPE")
@click.option("--key", "key_files", required=True, multiple=True, metavar="FILE")
@click.option(
    "--signed-identity", "identity", type=click.Choice(_IDENTITIES), default=_IDENTITIES[0]
)
@click.option("--output", metavar="FILE")
@json_option
def init(
    *, scope: str, key_files: tuple[str, ...], identity: str, output: str | None, as_json: bool
) -> None:
    """Write a strict policy."""
    from imagers.files import write_new
    from imagers.sign.keyfiles import read_key_file
    from imagers.sign.policy_json import parse_policy
    from imagers.sign.policy_lint import check_materials
    from imagers.sign.policy_make import requirement_of_keys

    scope = scope.removeprefix("docker://")  # as images are named everywhere else
    # Each is read once: what was looked at is what is checked.
    keys = {os.path.abspath(path): read_key_file(path) for path in key_files}
    requirement = requirement_of_keys(keys, identity)
    document = {
        "default": [{"type": "reject"}],
        "transports": {"docker": {scope: [requirement]}},
    }
    raw = json.dumps(document, indent=2).encode() + b"\n"
    check_materials(parse_policy(raw, what="policy"), keys.__getitem__)
    if output is not None:
        write_new(output, raw, mode=0o644)
    if as_json:
        print_json({"policy": output, "scope": scope, "keys": list(keys), "document": document})
    elif output is None:
        click.echo(raw.decode(), nl=False)
    else:
        signers = " or ".join(key_files)
        say("", f"{output}: refuses everything but images below {scope} signed by {signers}")
