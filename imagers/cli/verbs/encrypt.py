"""usage: imagers encrypt [OPTION]... SRC DST --encryption-key RECIPIENT...

Encrypts the layers of an image, each with a key of its own, and wraps each key
for every RECIPIENT. The config stays readable to everybody: environment,
labels, history, diff_ids, and so do the number and sizes of layers. A signature
is lost by it: sign afterwards.

  --encryption-key RECIPIENT  jwe:FILE (RSA or EC public key), or broker:URI;
                              repeatable. broker:kbs:///repo/type/ makes a fresh
                              key-encryption key in the broker and binds it to
                              this image; with a name at its end that name is
                              created, and must be new
  --encrypt-layer N           only this layer, 0 is the base, -1 the last;
                              repeatable
  --platform OS/ARCH[/VAR]    which image of an index; default: this machine's
  --broker URL                the broker of broker: recipients; https, or http
                              on loopback
  --broker-ca FILE            PEM certificates to trust for it, and no others
  --broker-admin-key FILE     default: where a broker of this user writes it
  --insecure-broker-http      plain http to a broker that is not on loopback
  --replace                   overwrite an existing key of that name in the
                              broker
  --kek-file FILE             32 bytes, used in place of a key made in the
                              broker, which is then not asked: for brokers
                              filled by other means
  --allow-nothing             no error when no layer was to be encrypted
  --creds, --src-creds, --dest-creds, --tls-verify, --src-tls-verify,
  --dest-tls-verify, --registry-ca   as of "imagers copy"
  --json                      the result as JSON
  --help                      this text

example:
  imagers encrypt oci:app:v1 docker://registry.example.org/app:v1 \\
    --encryption-key jwe:recipient.pub
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from imagers.cli.brokers import BrokerOptions, admin_options
from imagers.cli.command import VerbCommand, json_option, platform_option
from imagers.cli.images import (
    TwoRegistries,
    opened_sink,
    opened_source,
    parse_platform,
    resolve_image,
    two_registries_options,
)
from imagers.cli.output import ProgressBar, human_bytes, print_json, say
from imagers.cli.recipients import ImageKeys
from imagers.cli.reports import layer_facts, print_layers
from imagers.errors import UsageError

if TYPE_CHECKING:
    from imagers.encrypt.image import EncryptedImage

__all__ = ["command"]


@click.command("encrypt", cls=VerbCommand, help=__doc__)
@click.argument("src")
@click.argument("dst")
@click.option("--encryption-key", "recipients", multiple=True, metavar="RECIPIENT")
@click.option("--encrypt-layer", "layers", type=int, multiple=True, metavar="N")
@platform_option
@admin_options
@click.option("--replace", is_flag=True)
@click.option("--kek-file", metavar="FILE")
@click.option("--allow-nothing", is_flag=True)
@two_registries_options
@json_option
def command(  # one parameter an option
    *,
    src: str,
    dst: str,
    recipients: tuple[str, ...],
    layers: tuple[int, ...],
    platform: str | None,
    broker: BrokerOptions,
    replace: bool,
    kek_file: str | None,
    allow_nothing: bool,
    registries: TwoRegistries,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.encrypt.image import encrypt_image  # noqa: PLC0415

    if not recipients:
        raise UsageError("expected at least one --encryption-key RECIPIENT, got none")
    start = time.perf_counter()
    with ExitStack() as stack:
        source = stack.enter_context(opened_source(src, registries.source))
        image = resolve_image(source, parse_platform(platform))
        keys = stack.enter_context(
            ImageKeys(recipients, broker, replace=replace, kek_file=kek_file)
        )
        sink = stack.enter_context(opened_sink(dst, registries.sink))
        bar = stack.enter_context(
            ProgressBar(sum(layer.size for layer in image.manifest.layers), "encrypt")
        )
        # The key-encryption key is in the broker before the first byte is published ...
        report = encrypt_image(
            image,
            sink,
            keys.wrappers,
            layers=layers or None,
            allow_nothing=allow_nothing,
            on_progress=lambda layer, progress: bar.show(layer.what, progress.bytes_in),
        )
        # ... and the manifest digest is registered with it when it is known.
        keys.bind(report.descriptor.digest)
    _print_report(report, keys.kid, time.perf_counter() - start, as_json=as_json)


def _print_report(
    report: EncryptedImage, kid: str | None, seconds: float, *, as_json: bool
) -> None:
    from imagers.encrypt.image import LayerAction  # noqa: PLC0415

    say("", "config, labels, history and sizes stay readable; sign the image now")
    if report.was_docker:
        say("", "the Docker manifest became an OCI manifest, the only kind that can be encrypted")
    if as_json:
        print_json(
            {
                "digest": str(report.descriptor.digest),
                "encrypted": report.count(LayerAction.ENCRYPTED),
                "key": kid,
                "seconds": round(seconds, 3),
                "layers": layer_facts(report.layers),
            }
        )
        return
    print_layers(report.layers)
    size = sum(layer.size for layer in report.layers)
    click.echo(
        f"encrypted {report.count(LayerAction.ENCRYPTED)} of {len(report.layers)} layers, "
        f"{human_bytes(size)} in {seconds:.2f} s"
    )
    if kid is not None:
        click.echo(f"key-encryption key {kid}")
    click.echo(f"manifest {report.descriptor.digest}")
