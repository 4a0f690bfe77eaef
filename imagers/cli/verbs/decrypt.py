"""usage: imagers decrypt [OPTION]... SRC DST --decryption-key KEY...

Decrypts the layers of an image and writes the plain image. Every layer is
checked against its digest, its HMAC and its diff_id before the image appears.

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
  --creds, --src-creds, --dest-creds, --tls-verify, --src-tls-verify,
  --dest-tls-verify, --registry-ca, --cert-dir, --authfile, --daemon-host,
  --image-rs-registries, --ranges
                              as of "imagers copy"
  --json                      the result as JSON
  --help                      this text

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
    name_of,
    opened_sink,
    opened_source,
    resolve_image,
    two_registries_options,
)
from imagers.cli.output import ProgressBar, human_bytes, print_json, print_line, say
from imagers.cli.recipients import opened_unwrappers, timeout_option
from imagers.cli.reports import layer_facts, print_layers
from imagers.errors import UsageError

if TYPE_CHECKING:
    from imagers.core import Budget, Progress
    from imagers.encrypt.image import DecryptedImage
    from imagers.encrypt.rewrite import RewrittenImage
    from imagers.encrypt.sealing import SharedLayers
    from imagers.model.digest import Digest
    from imagers.model.image import Image, Layer

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
    from imagers.encrypt.image import decrypt_image
    from imagers.encrypt.index import rewrite_index
    from imagers.encrypt.sealing import SharedLayers

    if all_images and platform is not None:
        raise UsageError("expected --all or --platform, got both")
    if skip_diff_id:
        say("warning", "diff_ids are not checked: layers may be other ones than the config names")
    start = time.perf_counter()
    with (
        opened_unwrappers(keys, timeout_s) as unwrappers,
        opened_source(name_of(src), registries.source) as source,
    ):
        top = source.read_manifest()
        image = None if all_images else resolve_image(source, top, platform)
        total = 0 if image is None else sum(layer.size for layer in image.manifest.layers)
        with (
            opened_sink(dst, registries.sink) as sink,
            ProgressBar(total, "decrypt") as bar,
        ):

            def decrypt(one: Image, shared: SharedLayers | None) -> DecryptedImage:
                prefix = "" if shared is None else f"{one.config.platform} "

                def show(layer: Layer, progress: Progress) -> None:
                    bar.show(prefix + layer.what, progress.bytes_in)

                return decrypt_image(
                    one,
                    sink,
                    unwrappers,
                    require_encrypted=require_encrypted,
                    skip_diff_id=skip_diff_id,
                    shared=shared,
                    by_name=shared is None,
                    budget=budget,
                    on_progress=show,
                )

            if image is None:
                shared = SharedLayers()
                index = rewrite_index(source, sink, lambda one: decrypt(one, shared), top=top)
                done, digest = index.images, index.descriptor.digest
                if index.left_out:
                    say("", f"{len(index.left_out)} entries of the index were no images: left out")
            else:
                rewritten = decrypt(image, None)
                done = ((str(image.config.platform), rewritten),)
                digest = rewritten.descriptor.digest
    _print_result(done, digest, time.perf_counter() - start, as_json=as_json, is_index=all_images)


def _count(image: RewrittenImage) -> int:
    from imagers.encrypt.rewrite import LayerAction

    return image.count(LayerAction.DECRYPTED) + image.count(LayerAction.SHARED)


def _print_result(
    images: tuple[tuple[str, RewrittenImage], ...],
    digest: Digest,
    seconds: float,
    *,
    as_json: bool,
    is_index: bool,
) -> None:
    done = sum(_count(image) for _, image in images)
    if as_json:
        facts: dict[str, object] = {
            "digest": str(digest),
            "decrypted": done,
            "seconds": round(seconds, 3),
        }
        if is_index:
            facts["images"] = [
                {
                    "platform": platform,
                    "digest": str(image.descriptor.digest),
                    "decrypted": _count(image),
                    "layers": layer_facts(image.layers),
                }
                for platform, image in images
            ]
        else:
            facts["layers"] = layer_facts(images[0][1].layers)
        print_json(facts)
        return
    for platform, image in images:
        if is_index:
            print_line(f"{platform} {image.descriptor.digest}")
        print_layers(image.layers)
    layers = [layer for _, image in images for layer in image.layers]
    size = sum(layer.size for layer in layers)
    click.echo(f"decrypted {done} of {len(layers)} layers, {human_bytes(size)} in {seconds:.2f} s")
    click.echo(f"{'index' if is_index else 'manifest'} {digest}")
