# SPDX-License-Identifier: Apache-2.0
"""usage: imagers decrypt [OPTION]... SRC DST --decryption-key KEY...

Decrypts the layers of an image and writes the plain image. Every layer is
checked against its digest, its HMAC and its diff_id before the image appears,
and the result says how many were.

There is no policy here and no signature is looked at: whoever can write SRC
decides what is decrypted. Use "imagers pull" where that matters. Keys at a
broker that are bound to an image are for "imagers pull" only.

  --decryption-key KEY        private key FILE (PEM, DER, JWK, OpenPGP keyring,
                              PKCS11 key file), FILE:file=PASSWORDFILE,
                              FILE:fd=N; also FILE:PASSWORD and
                              FILE:pass=PASSWORD, with a warning; FILE:CERT with
                              its certificate, for pkcs7; or
                              provider:NAME[:PARAMETERS]; repeatable
  --require-encrypted         fail if a layer is not encrypted
  --insecure-skip-diff-id     do not hold layers to their diff_ids: for images
                              that are encrypted again and checked when pulled
  --provider-timeout SECONDS  for one answer of a provider; default: 60
  --all                       all images of an index
  --jobs N                    layers at the same time; default: a layer a core
  --memory SIZE               for all of them together; default: 64MiB
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --creds, --tls-verify, --registry-ca, --cert-dir, --authfile, --daemon-host,
  their --src- and --dest- forms, --image-rs-registries, --ranges
                              as for "imagers copy"
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers decrypt docker://registry.example.org/app:v1 oci:app:v1 \\
    --decryption-key recipient.key
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, budget_options, json_option, platform_option
from imagers.cli.images import (
    TwoRegistries,
    open_destination,
    open_source_of,
    parse_platform,
    two_registries_options,
)
from imagers.cli.output import ProgressBar, say
from imagers.cli.recipients import opened_unwrappers, timeout_option
from imagers.cli.reports import Report, say_entries_left_out
from imagers.errors import UsageError

if TYPE_CHECKING:
    from imagers.core import Budget

__all__ = ["command"]


@click.command("decrypt", cls=VerbCommand, help=__doc__)
@click.argument("src")
@click.argument("dst")
@click.option("--decryption-key", "keys", multiple=True, metavar="KEY")
@click.option("--require-encrypted", is_flag=True)
@click.option("--insecure-skip-diff-id", "skip_diff_id", is_flag=True)
@timeout_option
@click.option("--all", "all_images", is_flag=True)
@platform_option
@budget_options
@two_registries_options
@json_option
def command(  # one parameter an option
    *,
    src: str,
    dst: str,
    keys: tuple[str, ...],
    require_encrypted: bool,
    skip_diff_id: bool,
    timeout_s: float | None,
    all_images: bool,
    platform: str | None,
    budget: Budget,
    registries: TwoRegistries,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.build.change import Work, decrypt
    from imagers.encrypt.rewrite import LayerAction

    if all_images and platform is not None:
        raise UsageError("expected --all or --platform, got both")
    if skip_diff_id:
        say("warning", "diff_ids are not checked: layers may be other ones than the config names")
    start = time.perf_counter()
    with (
        opened_unwrappers(keys, timeout_s) as unwrappers,
        open_source_of(src, registries.source) as source,
        open_destination(dst, registries.sink) as sink,
        ProgressBar("decrypt") as bar,
    ):
        done = decrypt(
            source,
            sink,
            unwrappers,
            require_encrypted=require_encrypted,
            skip_diff_id=skip_diff_id,
            work=Work(
                platform=parse_platform(platform),
                all_images=all_images,
                budget=budget,
                on_size=bar.add,
                on_progress=bar.show,
            ),
        )
        written = sink.name
    say_entries_left_out(done.left_out)
    actions = (LayerAction.DECRYPTED, LayerAction.SHARED)
    opened = done.count(*actions)
    # What did not pass here, because the destination has it, was looked at by nobody.
    looked_at = sum(
        layer.moved or layer.action is LayerAction.SHARED
        for _, one in done.images
        for layer in one.layers
    )
    by_diff_id = 0 if skip_diff_id else opened
    Report(
        written,
        done,
        "decrypted",
        actions,
        time.perf_counter() - start,
        is_index=all_images,
        facts={"checked": {"digest": looked_at, "diff_id": by_diff_id}},
        lines=[f"checked size and digest of {looked_at} layers, diff_id of {by_diff_id}"],
    ).print(as_json=as_json)
