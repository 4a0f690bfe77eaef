"""usage: imagers decrypt [OPTION]... SRC DST --decryption-key KEY...

Decrypts the layers of an image and writes the plain image. Every layer is
checked against its digest, its HMAC and its diff_id before the image appears.

There is no policy here and no signature is looked at: whoever can write SRC
decides what is decrypted. Use "imagers pull" where that matters. Keys at a
broker that are bound to an image are for "imagers pull" only.

  --decryption-key KEY        private key FILE, FILE:file=PASSWORDFILE,
                              FILE:fd=N; also FILE:PASSWORD and
                              FILE:pass=PASSWORD, with a warning; repeatable
  --require-encrypted         fail if a layer is not encrypted
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --creds, --src-creds, --dest-creds, --tls-verify, --src-tls-verify,
  --dest-tls-verify, --registry-ca   as of "imagers copy"
  --json                      the result as JSON
  --help                      this text

example:
  imagers decrypt docker://registry.example.org/app:v1 oci:app:v1 \\
    --decryption-key recipient.key
"""

from __future__ import annotations

import time

import click

from imagers.cli.command import VerbCommand, json_option, platform_option
from imagers.cli.images import (
    TwoRegistries,
    opened_sink,
    opened_source,
    parse_platform,
    resolve_image,
    two_registries_options,
)
from imagers.cli.output import ProgressBar, human_bytes, print_json
from imagers.cli.recipients import opened_unwrappers
from imagers.cli.reports import layer_facts, print_layers

__all__ = ["command"]


@click.command("decrypt", cls=VerbCommand, help=__doc__)
@click.argument("src")
@click.argument("dst")
@click.option("--decryption-key", "keys", multiple=True, metavar="KEY")
@click.option("--require-encrypted", is_flag=True)
@platform_option
@two_registries_options
@json_option
def command(
    *,
    src: str,
    dst: str,
    keys: tuple[str, ...],
    require_encrypted: bool,
    platform: str | None,
    registries: TwoRegistries,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.encrypt.image import LayerAction, decrypt_image  # noqa: PLC0415

    start = time.perf_counter()
    with (
        opened_unwrappers(keys) as unwrappers,
        opened_source(src, registries.source) as source,
    ):
        image = resolve_image(source, parse_platform(platform))
        total = sum(layer.size for layer in image.manifest.layers)
        with (
            opened_sink(dst, registries.sink) as sink,
            ProgressBar(total, "decrypt") as bar,
        ):
            report = decrypt_image(
                image,
                sink,
                unwrappers,
                require_encrypted=require_encrypted,
                on_progress=lambda layer, progress: bar.show(layer.what, progress.bytes_in),
            )
    seconds = time.perf_counter() - start
    if as_json:
        print_json(
            {
                "digest": str(report.descriptor.digest),
                "decrypted": report.count(LayerAction.DECRYPTED),
                "seconds": round(seconds, 3),
                "layers": layer_facts(report.layers),
            }
        )
        return
    print_layers(report.layers)
    size = sum(layer.size for layer in report.layers)
    click.echo(
        f"decrypted {report.count(LayerAction.DECRYPTED)} of {len(report.layers)} layers, "
        f"{human_bytes(size)} in {seconds:.2f} s"
    )
    click.echo(f"manifest {report.descriptor.digest}")
