# SPDX-License-Identifier: Apache-2.0
"""usage: imagers copy [OPTION]... SRC DST

Copies an image. Bytes and digests stay as they are; every blob is checked
against its descriptor on the way, and the manifest is written last. Of an
index, the image for this machine's platform is copied, or with --all the index
with all its images.

  --all                       all platforms of an index, and the index itself
  --platform OS/ARCH[/VAR]    another platform than this machine's
  --with-referrers            also signatures and all else that refers to it:
                              referrers, and the tags of cosign
  --policy FILE               containers policy.json, which must let SRC pass;
                              else the user's, else the system's; where there is
                              none, it goes on and says so
  --registries.d DIR          where lookasides of GPG signatures are configured
  --digestfile FILE           gets the digest of what was written
  --jobs N                    blobs at the same time; default: 3
  --ranges N                  connections for one blob from 64 MiB on, 1 to 4;
                              default: 1
  --creds USER:PASSWORD       for a registry. This and the next five also have
                              --src- and --dest- forms, as in --src-creds
  --tls-verify BOOL           false allows plain http and any certificate;
                              loopback may use http
  --registry-ca FILE          PEM certificates to trust for registries, and no
                              others
  --cert-dir DIR              certificates as in containers-certs.d(5); default:
                              those of the registry in certs.d of the system
  --authfile FILE             logins; default: where "imagers login" and others
                              keep them
  --daemon-host URL           of the engine; default: DOCKER_HOST
  --image-rs-registries FILE  mirrors and other places of names, as image-rs
                              reads them, in place of registries.conf
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers copy oci:app:v1 docker://registry.example.org/app:v1
"""

from __future__ import annotations

from contextlib import ExitStack

import click

from imagers.cli.command import VerbCommand, json_option, platform_option
from imagers.cli.images import (
    TwoRegistries,
    open_destination,
    open_named,
    parse_platform,
    two_registries_options,
)
from imagers.cli.output import ProgressBar, human_bytes, print_json, write_file
from imagers.cli.signatures import has_policy, permitted, policy_option, registries_d_option
from imagers.errors import UsageError

__all__ = ["command"]


@click.command("copy", cls=VerbCommand, help=__doc__)
@click.argument("src")
@click.argument("dst")
@click.option("--all", "all_platforms", is_flag=True)
@platform_option
@click.option("--with-referrers", is_flag=True)
@policy_option
@registries_d_option
@click.option("--digestfile", metavar="FILE")
@click.option("--jobs", type=click.IntRange(1, 16), default=3)
@two_registries_options
@json_option
def command(
    *,
    src: str,
    dst: str,
    all_platforms: bool,
    platform: str | None,
    with_referrers: bool,
    policy: str | None,
    registries_d: str | None,
    digestfile: str | None,
    jobs: int,
    registries: TwoRegistries,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.transport.copy import copy_image
    from imagers.transport.resolve import this_platform

    if all_platforms and platform is not None:
        raise UsageError("--all and --platform exclude each other")
    wanted = parse_platform(platform)
    with ExitStack() as stack:
        asks = has_policy(policy)
        image = stack.enter_context(open_named(src, registries.source, registries_d, asks=asks))
        sink = stack.enter_context(open_destination(dst, registries.sink))
        top = permitted(image, policy, None if all_platforms else wanted or this_platform())
        bar = stack.enter_context(ProgressBar("copy"))
        report = copy_image(
            image.source,
            sink,
            top=top,
            platform=wanted,
            all_platforms=all_platforms,
            with_referrers=with_referrers,
            jobs=jobs,
            on_size=bar.add,
            on_progress=bar.show,
        )
        written = sink.name
    if digestfile is not None:
        write_file(digestfile, str(report.digest))
    if as_json:
        print_json(
            {
                "reference": written,
                "digest": str(report.digest),
                "media_type": report.media_type,
                "blobs": report.blobs,
                "size": report.size,
                "skipped": report.skipped,
                "mounted": report.mounted,
                "referrers": report.referrers,
                "foreign": report.foreign,
            }
        )
    else:
        click.echo(
            f"copied {report.digest}: {report.blobs} blobs, {human_bytes(report.size)}"
            + (f"; {report.skipped} were there already" if report.skipped else "")
            + (f"; {report.mounted} mounted" if report.mounted else "")
            + (f"; {report.referrers} manifests beside it" if report.referrers else "")
            + (f"; {report.foreign} foreign layers stay where they are" if report.foreign else "")
        )
