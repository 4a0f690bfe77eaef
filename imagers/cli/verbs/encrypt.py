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
                              in place of --encryption-key: no byte of a layer
                              changes. Who is removed still reads old copies,
                              and all that he kept the keys of: removal cannot
                              undo that
  --rekey                     new layer keys, for --encryption-key only
  --decryption-key KEY        opens it now, for these; as of "imagers decrypt"
  --provider-timeout SECONDS  for one answer of a provider; default: 60
  --broker URL                of broker:URI; https, or http on loopback
  --broker-ca FILE            PEM certificates to trust for it, and no others
  --broker-admin-key FILE     default: where a broker of this user writes it
  --insecure-broker-http      plain http to a broker that is not on loopback
  --replace                   overwrite an existing key of that name there
  --kek-file FILE             32 bytes in place of a key made in the broker
  --policy FILE, --registries.d DIR
                              what must let SRC pass; as of "imagers copy"
  --digestfile FILE           gets the digest of what was written
  --jobs N, --memory SIZE     layers at the same time, default: a layer a core;
                              and memory for all of them, default: 64MiB
  --creds, --src-creds, --dest-creds, --tls-verify, --src-tls-verify,
  --dest-tls-verify, --registry-ca, --cert-dir, --authfile, --daemon-host,
  --image-rs-registries, --ranges
                              as of "imagers copy"
  --json                      the result as JSON
  --help                      this text

example:
  imagers encrypt oci:app:v1 docker://registry.example.org/app:v1 \\
    --encryption-key jwe:recipient.pub
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
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
    name_of,
    opened_sink,
    opened_source,
    parse_platform,
    resolve_image,
    two_registries_options,
)
from imagers.cli.output import ProgressBar, human_bytes, print_json, print_line, say, write_file
from imagers.cli.recipients import (
    ImageKeys,
    opened_unwrappers,
    provider_settings,
    timeout_option,
)
from imagers.cli.reports import layer_facts, print_layers, say_left_out
from imagers.cli.signatures import permitted, policy_option, registries_d_option
from imagers.errors import UsageError

if TYPE_CHECKING:
    from imagers.core import Budget, Progress
    from imagers.encrypt.rewrite import RewrittenImage
    from imagers.encrypt.sealing import SharedLayers
    from imagers.model.digest import Digest
    from imagers.model.image import Image, ImageSink, Layer
    from imagers.model.keys import KeyUnwrapper, KeyWrapper

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Change:
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

    def check(self) -> None:
        """Nothing, if the options fit together.

        Raises:
            UsageError: they do not.
        """
        from imagers.encrypt.selection import parse_layer_selection

        for text in self.layers:
            parse_layer_selection(text)
        kinds = [bool(self.added), bool(self.removed), self.rekey]
        if sum(kinds) > 1:
            raise UsageError("expected one of --add-recipient, --remove-recipient and --rekey")
        if (self.added or self.removed) and self.recipients:
            raise UsageError(
                "--encryption-key encrypts anew: expected it without "
                "--add-recipient and --remove-recipient"
            )
        if any(kinds) and (self.layers or self.skip_base or self.allow_nothing):
            raise UsageError(
                "expected --encrypt-layer, --skip-base and --allow-nothing "
                "with --encryption-key only"
            )
        if (self.added or self.removed) and self.cipher:
            raise UsageError("--cipher encrypts anew: expected it with --encryption-key")
        if not (self.added or self.removed or self.recipients):
            raise UsageError("expected at least one --encryption-key RECIPIENT, got none")
        if (self.added or self.rekey) and not self.keys:
            raise UsageError("expected a --decryption-key that opens the image now, got none")
        if self.keys and not any(kinds):
            raise UsageError(
                "--decryption-key is for --add-recipient, --remove-recipient and --rekey",
                hint="to change nothing but who can read an image: --add-recipient",
            )


_change_options = option_group(
    "change",
    _Change,
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
    change: _Change,
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
    change.check()
    if all_images and platform is not None:
        raise UsageError("expected --all or --platform, got both")
    check_holds_encrypted(dst)
    start = time.perf_counter()
    with ExitStack() as stack:
        name = name_of(src)
        source = stack.enter_context(opened_source(name, registries.source))
        top = permitted(
            source,
            name,
            registries.source,
            policy=policy,
            registries_d=registries_d,
            platform=None if all_images else parse_platform(platform),
        )
        image = None if all_images else resolve_image(source, top, platform)
        unwrappers = stack.enter_context(opened_unwrappers(change.keys, timeout_s))
        # The key-encryption key is in the broker before the first byte is published ...
        keys = stack.enter_context(
            ImageKeys(
                change.recipients or change.added,
                broker,
                replace=replace,
                kek_file=kek_file,
                timeout_s=timeout_s,
            )
        )
        sink = stack.enter_context(opened_sink(dst, registries.sink))
        total = 0 if image is None else sum(layer.size for layer in image.manifest.layers)
        bar = stack.enter_context(ProgressBar(total, "encrypt"))
        work = _Work(change, sink, keys.wrappers, unwrappers, timeout_s, budget, bar)
        if image is None:
            from imagers.encrypt.index import rewrite_index
            from imagers.encrypt.sealing import SharedLayers

            shared = SharedLayers()
            index = rewrite_index(
                source,
                sink,
                lambda one: work.do(one, shared),
                top=top,
                check=work.check_all,
            )
            done, digest, left_out = index.images, index.descriptor.digest, len(index.left_out)
        else:
            rewritten = work.do(image, None)
            done, left_out = ((str(image.config.platform), rewritten),), 0
            digest = rewritten.descriptor.digest
        # ... and the manifest digests are registered with it when they are known.
        for _, one in done:
            keys.bind(one.descriptor.digest)
    if digestfile is not None:
        write_file(digestfile, str(digest))
    result = _Result(done, digest, keys.kid, left_out, time.perf_counter() - start)
    result.print(as_json=as_json, is_index=all_images, removes=bool(change.removed))


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done to each image, and where it goes."""

    change: _Change
    sink: ImageSink
    wrappers: tuple[KeyWrapper, ...]
    unwrappers: tuple[KeyUnwrapper, ...]
    timeout_s: float | None
    budget: Budget
    bar: ProgressBar
    sealed: set[Digest] = field(default_factory=set)
    clear: set[Digest] = field(default_factory=set)

    def do(self, image: Image, shared: SharedLayers | None) -> RewrittenImage:
        """One image; of an index if there is `shared`."""
        from imagers.encrypt.options import AES_256_CTR_HMAC_SHA256

        change, by_name = self.change, shared is None
        cipher = change.cipher or AES_256_CTR_HMAC_SHA256
        prefix = "" if by_name else f"{image.config.platform} "

        def show(layer: Layer, progress: Progress) -> None:
            self.bar.show(prefix + layer.what, progress.bytes_in)

        if change.added:
            from imagers.encrypt.rewrap import add_recipients

            return add_recipients(
                image,
                self.sink,
                self.wrappers,
                self.unwrappers,
                by_name=by_name,
                budget=self.budget,
                on_progress=show,
            )
        if change.removed:
            from imagers.encrypt.recipients import parse_removals
            from imagers.encrypt.rewrap import remove_recipients
            from imagers.encrypt.wrappers import load_targets

            targets = load_targets(
                parse_removals(change.removed), provider_settings(self.timeout_s)
            )
            return remove_recipients(
                image,
                self.sink,
                targets,
                self.unwrappers,
                by_name=by_name,
                budget=self.budget,
                on_progress=show,
            )
        if change.rekey:
            from imagers.encrypt.rekey import rekey_image

            return rekey_image(
                image,
                self.sink,
                self.wrappers,
                self.unwrappers,
                cipher=cipher,
                by_name=by_name,
                budget=self.budget,
                on_progress=show,
            )
        from imagers.encrypt.image import LayerAction, encrypt_image
        from imagers.encrypt.selection import parse_layer_selection

        done = encrypt_image(
            image,
            self.sink,
            self.wrappers,
            layers=[parse_layer_selection(text) for text in change.layers] or None,
            skip_base=change.skip_base,
            cipher=cipher,
            # One image of an index may be encrypted already: `check_all` looks at all.
            allow_nothing=change.allow_nothing or not by_name,
            shared=shared,
            by_name=by_name,
            budget=self.budget,
            on_progress=show,
        )
        for layer, report in zip(image.layers(), done.layers, strict=True):
            is_clear = report.action is LayerAction.COPIED
            (self.clear if is_clear else self.sealed).add(layer.diff_id)
        return done

    def check_all(self, images: tuple[RewrittenImage, ...]) -> None:
        """Nothing, if something was done to an index, and nothing undoes it.

        Raises:
            UsageError: nothing was, or a layer is encrypted here and in the clear there.
        """
        if both := self.sealed & self.clear:
            raise UsageError(
                f"the layer with diff_id {min(map(str, both))} is encrypted in one image of "
                "the index and in the clear in another",
                hint="choose the layers so that it is the same in all, or encrypt all of them",
            )
        if not self.change.allow_nothing and not any(map(_count_done, images)):
            raise UsageError(
                "there is nothing to encrypt: every selected layer of every image is "
                "encrypted already",
                hint="choose other layers, or say --allow-nothing: the images then stay",
            )


def _count_done(image: RewrittenImage) -> int:
    """Layers that are not simply what they were."""
    from imagers.encrypt.rewrite import LayerAction

    return sum(
        image.count(action)
        for action in (LayerAction.ENCRYPTED, LayerAction.SHARED, LayerAction.REWRAPPED)
    )


@dataclass(frozen=True, slots=True)
class _Result:
    """What was done, for people or for machines."""

    images: tuple[tuple[str, RewrittenImage], ...]
    digest: Digest
    kid: str | None
    left_out: int
    seconds: float

    def print(self, *, as_json: bool, is_index: bool, removes: bool) -> None:
        """Results on standard output, what else there is to know on standard error."""
        from imagers.core import AES256_GCM_HKDF_1MB

        say("", "config, labels, history and sizes stay readable; sign the image now")
        if any(image.was_docker for _, image in self.images):
            say(
                "",
                "the Docker manifest became an OCI manifest, the only kind that can be encrypted",
            )
        if any(
            layer.cipher == AES256_GCM_HKDF_1MB
            for _, image in self.images
            for layer in image.layers
        ):
            say("", f"the cipher {AES256_GCM_HKDF_1MB} is read by imagers, and by no other tool")
        say_left_out(image.layers for _, image in self.images)
        if self.left_out:
            say(
                "",
                f"{self.left_out} entries of the index were no images (attestations, "
                "artifacts) and were left out: they speak of the old digests",
            )
        if removes:
            say(
                "",
                "whoever was removed still reads old copies, and what he kept the keys of; "
                "--rekey makes new keys for new copies",
            )
        if as_json:
            print_json(self._facts(is_index=is_index))
        else:
            self._print_text(is_index=is_index)

    def _facts(self, *, is_index: bool) -> dict[str, object]:
        facts: dict[str, object] = {
            "digest": str(self.digest),
            "encrypted": sum(_count_done(image) for _, image in self.images),
            "key": self.kid,
            "seconds": round(self.seconds, 3),
        }
        if not is_index:
            return facts | {"layers": layer_facts(self.images[0][1].layers)}
        return facts | {
            "left_out": self.left_out,
            "images": [
                {
                    "platform": platform,
                    "digest": str(image.descriptor.digest),
                    "encrypted": _count_done(image),
                    "layers": layer_facts(image.layers),
                }
                for platform, image in self.images
            ],
        }

    def _print_text(self, *, is_index: bool) -> None:
        for platform, image in self.images:
            if is_index:
                print_line(f"{platform} {image.descriptor.digest}")
            print_layers(image.layers)
        layers = [layer for _, image in self.images for layer in image.layers]
        size = sum(layer.size for layer in layers)
        done = sum(_count_done(image) for _, image in self.images)
        click.echo(
            f"encrypted {done} of {len(layers)} layers, {human_bytes(size)} in {self.seconds:.2f} s"
        )
        if self.kid is not None:
            click.echo(f"key-encryption key {self.kid}")
        click.echo(f"{'index' if is_index else 'manifest'} {self.digest}")
