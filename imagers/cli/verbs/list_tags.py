# SPDX-License-Identifier: Apache-2.0
"""usage: imagers list-tags [OPTION]... REPOSITORY

Lists the tags of a repository, a line each, as the registry orders them; never
those that a mirror has. Of a layout or an archive (oci:PATH, oci-archive:PATH,
docker-archive:PATH) it lists what may follow PATH and a colon: names, and @N
for an image without one.

  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR,
  --authfile FILE, --daemon-host URL, --image-rs-registries FILE
                              as for "imagers copy"
  --json                      {"repository": NAME, "tags": [TAG, ...]}, where
                              skopeo writes "Repository" and "Tags"
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers list-tags docker://registry.example.org/app
"""

from __future__ import annotations

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.images import RegistryOptions, registry_options
from imagers.cli.output import print_json, print_line

__all__ = ["command"]


@click.command("list-tags", cls=VerbCommand, help=__doc__)
@click.argument("repository")
@registry_options
@json_option
def command(*, repository: str, registry: RegistryOptions, as_json: bool) -> None:
    """See the module."""
    from imagers.transport.repository import list_tags, parse_repository, repository_of

    name = parse_repository(repository)
    tags = list_tags(name, registry.transport(is_remote=name.is_remote))
    if as_json:
        print_json({"repository": repository_of(name), "tags": list(tags)})
        return
    for tag in tags:
        print_line(tag)
