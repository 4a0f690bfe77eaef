# SPDX-License-Identifier: Apache-2.0
"""usage: imagers encrypt [OPTION]... SRC DST --encryption-key RECIPIENT...

Encrypts the layers of an image, each with a key of its own, and wraps each key
for every RECIPIENT. The config stays readable to everybody: environment,
labels, history, diff_ids, and so do the number and sizes of layers. A signature
is lost by it: sign afterwards.

  --encryption-key RECIPIENT  jwe:FILE (RSA or EC key), pkcs7:FILE, pgp:NAME|
                              EMAIL|FINGERPRINT, pkcs11:FILE, provider:NAME[:
                              PARAMETERS], or broker:URI; repeatable. A URI
                              kbs:///repo/type/ makes a fresh key in the broker
                              and binds it to this image; with a name at its
                              end that one is created, and must be new
  --encrypt-layer N|A..B      only these: 0 is the base, -1 the last; repeatable
  --skip-base N               all but the N lowest layers
  --cipher NAME               AES_256_CTR_HMAC_SHA256 (default; all tools), or
                              AES256_GCM_HKDF_1MB, which imagers alone opens
  --all                       all images of an index; shared layers once
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --allow-nothing             no error when no layer was to be encrypted
  --add-recipient RECIPIENT, --remove-recipient RECIPIENT|SCHEME#N
                              in place of --encryption-key, together or alone:
                              no byte of a layer changes. Whoever is removed
                              reads old copies, and all that they kept the keys
                              of: removal cannot undo that
  --rekey                     new layer keys, for --encryption-key only
  --decryption-key KEY        opens it now, for these; as for "imagers decrypt"
  --provider-timeout SECONDS  for one answer of a provider; default: 60
  --broker URL, --broker-ca FILE, --broker-reference FILE,
  --insecure-test-root TEE=FILE, --insecure-broker-http
                              of broker:URI; as for "imagers pull"
  --broker-admin-key FILE, --broker-admin-certificate FILE,
  --broker-admin-certificate-key FILE
                              as for "imagers broker"
  --replace                   overwrite an existing key of that name there
  --kek-file FILE             32 bytes in place of a key made in the broker
  --policy FILE, --registries.d DIR
                              what must let SRC pass; as for "imagers copy"
  --digestfile FILE           gets the digest of what was written
  --jobs N, --memory SIZE     layers at the same time, default: a layer a core;
                              and memory for all of them, default: 64MiB
  --creds, --tls-verify, --registry-ca, --cert-dir, --authfile, --daemon-host,
  their --src- and --dest- forms, --image-rs-registries, --ranges
                              as for "imagers copy"
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers encrypt oci:app:v1 docker://registry.example.org/app:v1 \\
    --encryption-key jwe:recipient.pub
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options
from imagers.cli.command import (
    VerbCommand,
    budget_options,
    json_option,
    option_group,
    platform_option,
)
from imagers.cli.images import (
    TwoRegistries,
    check_holds_encrypted,
    open_destination,
    open_named,
    parse_platform,
    two_registries_options,
)
from imagers.cli.output import ProgressBar, say, write_file
from imagers.cli.recipients import (
    opened_recipients,
    opened_unwrappers,
    provider_settings,
    timeout_option,
)
from imagers.cli.reports import Report, say_annotations_left_out, say_entries_left_out
from imagers.cli.signatures import has_policy, permitted, policy_option, registries_d_option
from imagers.errors import UsageError
from imagers.transport.resolve import this_platform

if TYPE_CHECKING:
    from imagers.build.change import Change, Changed
    from imagers.core import Budget

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Options:
    """What is to be done to each image: the options that say so."""

    recipients: tuple[str, ...]
    layers: tuple[str, ...]
    skip_base: int
    cipher: str | None
    added: tuple[str, ...]
    removed: tuple[str, ...]
    rekey: bool
    keys: tuple[str, ...]
    allow_nothing: bool

    @property
    def rewraps(self) -> bool:
        """Whether recipients change and no byte of a layer."""
        return bool(self.added or self.removed)

    def check(self) -> None:
        """Raise unless the options fit together.

        Raises:
            UsageError: they do not.
        """
        from imagers.encrypt.selection import parse_layer_selection

        for text in self.layers:
            parse_layer_selection(text)
        if self.rewraps and self.rekey:
            raise UsageError(
                "expected --rekey, or --add-recipient and --remove-recipient, got both",
                hint="who is to read what --rekey writes is said by --encryption-key",
            )
        if self.rewraps and self.recipients:
            raise UsageError(
                "--encryption-key encrypts anew: expected it without "
                "--add-recipient and --remove-recipient"
            )
        if (self.rewraps or self.rekey) and (self.layers or self.skip_base or self.allow_nothing):
            raise UsageError(
                "expected --encrypt-layer, --skip-base and --allow-nothing "
                "with --encryption-key only"
            )
        if self.rewraps and self.cipher:
            raise UsageError("--cipher encrypts anew: expected it with --encryption-key")
        if not (self.rewraps or self.recipients):
            raise UsageError("expected at least one --encryption-key RECIPIENT, got none")
        if (self.added or self.rekey) and not self.keys:
            raise UsageError("expected a --decryption-key that opens the image now, got none")
        if self.keys and not (self.rewraps or self.rekey):
            raise UsageError(
                "--decryption-key is for --add-recipient, --remove-recipient and --rekey",
                hint="to change nothing but who can read an image: --add-recipient",
            )

    def parse(self, timeout_s: float | None) -> Change:
        """The same for `imagers.build`.

        Raises:
            UsageError, LocalError, FormatError, KeyUnavailable: whom `--remove-recipient` means.
        """
        from imagers.build.change import Change, Kind
        from imagers.encrypt.options import AES_256_CTR_HMAC_SHA256
        from imagers.encrypt.recipients import parse_removals
        from imagers.encrypt.selection import parse_layer_selection
        from imagers.encrypt.wrappers import load_targets

        return Change(
            Kind.REWRAP if self.rewraps else Kind.REKEY if self.rekey else Kind.ENCRYPT,
            [parse_layer_selection(text) for text in self.layers],
            self.skip_base,
            self.cipher or AES_256_CTR_HMAC_SHA256,
            self.allow_nothing,
            load_targets(parse_removals(self.removed), provider_settings(timeout_s)),
        )


_change_options = option_group(
    "change",
    _Options,
    {
        "recipients": click.option(
            "--encryption-key", "recipients", multiple=True, metavar="RECIPIENT"
        ),
        "layers": click.option("--encrypt-layer", "layers", multiple=True, metavar="N|A..B"),
        "skip_base": click.option("--skip-base", type=click.IntRange(min=0), default=0),
        "cipher": click.option("--cipher", metavar="NAME"),
        "added": click.option("--add-recipient", "added", multiple=True, metavar="RECIPIENT"),
        "removed": click.option(
            "--remove-recipient", "removed", multiple=True, metavar="RECIPIENT|SCHEME#N"
        ),
        "rekey": click.option("--rekey", is_flag=True),
        "keys": click.option("--decryption-key", "keys", multiple=True, metavar="KEY"),
        "allow_nothing": click.option("--allow-nothing", is_flag=True),
    },
)


@click.command("encrypt", cls=VerbCommand, help=__doc__)
@click.argument("src")
@click.argument("dst")
@_change_options
@click.option("--all", "all_images", is_flag=True)
@platform_option
@timeout_option
@admin_options
@click.option("--replace", is_flag=True)
@click.option("--kek-file", metavar="FILE")
@policy_option
@registries_d_option
@click.option("--digestfile", metavar="FILE")
@budget_options
@two_registries_options
@json_option
def command(  # one parameter an option
    *,
    src: str,
    dst: str,
    change: _Options,
    all_images: bool,
    platform: str | None,
    timeout_s: float | None,
    broker: BrokerOptions,
    replace: bool,
    kek_file: str | None,
    policy: str | None,
    registries_d: str | None,
    digestfile: str | None,
    budget: Budget,
    registries: TwoRegistries,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.build.change import DONE, Work, encrypt

    change.check()
    if all_images and platform is not None:
        raise UsageError("expected --all or --platform, got both")
    check_holds_encrypted(dst)
    start, wanted = time.perf_counter(), parse_platform(platform)
    with ExitStack() as stack:
        asks = has_policy(policy)
        image = stack.enter_context(open_named(src, registries.source, registries_d, asks=asks))
        top = permitted(image, policy, None if all_images else wanted or this_platform())
        unwrappers = stack.enter_context(opened_unwrappers(change.keys, timeout_s))
        recipients = stack.enter_context(
            opened_recipients(
                change.recipients or change.added,
                broker,
                replace=replace,
                kek_file=kek_file,
                timeout_s=timeout_s,
            )
        )
        sink = stack.enter_context(open_destination(dst, registries.sink))
        bar = stack.enter_context(ProgressBar("encrypt"))
        done = encrypt(
            image.source,
            sink,
            recipients.wrappers,
            change.parse(timeout_s),
            unwrappers=unwrappers,
            broker_key=recipients.broker_key,
            work=Work(top, wanted, all_images, budget, bar.add, bar.show),
        )
        written = sink.name
    if digestfile is not None:
        write_file(digestfile, str(done.digest))
    _say_news(done, removes=bool(change.removed))
    kid = None if recipients.broker_key is None else recipients.broker_key.kid
    facts: dict[str, object] = {"kek": kid}
    lines = [] if kid is None else [f"key-encryption key {kid}"]
    if change.rewraps:
        opens = done.opens if change.keys else None
        facts |= {"added": done.added, "removed": done.removed, "opens": opens}
        lines = [
            *(f"added {one}" for one in done.added),
            *(f"removed {one}" for one in done.removed),
            *lines,
        ]
    Report(
        written,
        done,
        "rewrapped" if change.rewraps else "encrypted",
        DONE,
        time.perf_counter() - start,
        is_index=all_images,
        facts=facts,
        lines=lines,
        keys_only=change.rewraps,
    ).print(as_json=as_json)


def _say_news(done: Changed, *, removes: bool) -> None:
    """What there is to know beside the result."""
    from imagers.core import AES256_GCM_HKDF_1MB

    images = [image for _, image in done.images]
    say("", "config, labels, history and sizes stay readable; sign the image now")
    if any(image.was_docker for image in images):
        say("", "the Docker manifest became an OCI manifest, the only kind that can be encrypted")
    if any(layer.cipher == AES256_GCM_HKDF_1MB for image in images for layer in image.layers):
        say("", f"the cipher {AES256_GCM_HKDF_1MB} is read by imagers, and by no other tool")
    say_annotations_left_out(image.layers for image in images)
    say_entries_left_out(done.left_out)
    if not done.opens:
        say("", "the given --decryption-key does not open the new image")
    if removes:
        say(
            "",
            "whoever was removed still reads old copies, and what they kept the keys of; "
            "--rekey makes new keys for new copies",
        )
