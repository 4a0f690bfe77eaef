# SPDX-License-Identifier: Apache-2.0
"""usage: imagers delete [OPTION]... REF

Deletes an image from its registry: its manifest or index, by digest. The bytes
of its layers go when the registry clears away what nothing names.

REF with a tag deletes the image of that tag. With it all its other tags would
go, and an index would lose an image that it has: where there are any, or the
registry does not tell, nothing is deleted, and the other names are said.
REF with a digest deletes that manifest, under all names that it has.

Signatures and what else refers to the image stay, and are named; each can be
deleted by that name. So do the images of an index. Mirrors stay as they are.

  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR,
  --authfile FILE, --daemon-host URL, --image-rs-registries FILE
                              as for "imagers copy"
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers delete docker://registry.example.org/app:v1
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.images import RegistryOptions, registry_options
from imagers.cli.output import print_json, print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.registry.deletion import Deletion

__all__ = ["command"]


@click.command("delete", cls=VerbCommand, help=__doc__)
@click.argument("ref")
@registry_options
@json_option
def command(*, ref: str, registry: RegistryOptions, as_json: bool) -> None:
    """See the module."""
    from imagers.transport.repository import delete_image, parse_one_image

    name = parse_one_image(ref)
    deletion = delete_image(name, registry.transport(is_remote=name.is_remote))
    if as_json:
        print_json({"reference": str(name), **_facts(deletion)})
        return
    print_line(f"deleted {deletion.digest}")
    if deletion.tags is None:
        print_line("  tags that meant it are gone too; the registry does not tell which")
    else:
        _print_names("tags that meant it:", deletion.tags)
    _print_names("indexes that lack it now:", deletion.indexes or ())
    _print_names("its images stay:", [str(one) for one in deletion.entries])
    _print_names("what refers to it stays:", deletion.referrers)


def _facts(deletion: Deletion) -> dict[str, object]:
    return {
        "digest": str(deletion.digest),
        "tags": deletion.tags,
        "indexes": deletion.indexes,
        "entries": [str(one) for one in deletion.entries],
        "referrers": deletion.referrers,
    }


def _print_names(what: str, names: Sequence[str]) -> None:
    if names:
        print_line(f"  {what} {', '.join(names)}")
