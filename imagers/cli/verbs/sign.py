"""usage: imagers sign [OPTION]... REF --sign-by-sigstore-private-key FILE

Signs an image in its registry, as cosign and podman do: the signature is kept
in the same repository under the tag sha256-HEX.sig, beside those that are
there. Of an index, every image in it is signed, and the index.

  --sign-by-sigstore-private-key FILE
                              key in cosign's format ("imagers key generate
                              cosign")
  --passphrase-file FILE      its passphrase: the first line; without it, empty
  --expected-digest DIGEST    fail unless REF is this manifest or index, as
                              "imagers encrypt" printed it: a registry may serve
                              another image under a tag
  --identity REFERENCE        the name to sign, where those who verify use
                              another one
  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE
                              as of "imagers copy"
  --json                      the result as JSON
  --help                      this text

example:
  imagers sign registry.example.org/app:v1 \\
    --sign-by-sigstore-private-key release.key
"""

from __future__ import annotations

import time

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.images import RegistryOptions, opened_sink, opened_source, registry_options
from imagers.cli.output import print_json
from imagers.cli.passphrases import read_passphrase
from imagers.errors import Unsupported, UsageError
from imagers.model.digest import parse_digest

__all__ = ["command"]


@click.command("sign", cls=VerbCommand, help=__doc__)
@click.argument("ref")
@click.option("--sign-by-sigstore-private-key", "key_file", metavar="FILE")
@click.option("--passphrase-file", metavar="FILE")
@click.option("--expected-digest", metavar="DIGEST")
@click.option("--identity", metavar="REFERENCE")
@registry_options
@json_option
def command(
    *,
    ref: str,
    key_file: str | None,
    passphrase_file: str | None,
    expected_digest: str | None,
    identity: str | None,
    registry: RegistryOptions,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.registry.sink import RegistrySink  # noqa: PLC0415
    from imagers.registry.source import RegistrySource  # noqa: PLC0415
    from imagers.sign.image import sign_image  # noqa: PLC0415
    from imagers.sign.keyfiles import load_private_key  # noqa: PLC0415
    from imagers.transport.names import parse_image_name  # noqa: PLC0415

    if key_file is None:
        raise UsageError(
            "expected --sign-by-sigstore-private-key FILE, got none",
            hint='"imagers key generate cosign --output NAME" makes one',
        )
    name = parse_image_name(ref)
    if name.reference is None:
        raise Unsupported(
            f"signatures of {name} are not supported: expected an image in a registry",
            hint="push it first, and sign docker://REGISTRY/NAME:TAG",
        )
    expected = None
    if expected_digest is not None:
        expected = parse_digest(expected_digest, what="--expected-digest")
    with read_passphrase(passphrase_file) as passphrase:
        key = load_private_key(key_file, passphrase)
    with opened_source(ref, registry) as source, opened_sink(ref, registry) as sink:
        assert isinstance(source, RegistrySource)
        assert isinstance(sink, RegistrySink)
        signed = sign_image(
            source,
            sink,
            name.reference,
            key,
            expected_digest=expected,
            identity=identity,
            timestamp=int(time.time()),
        )
    fingerprint = f"sha256:{key.public_key.fingerprint}"
    if as_json:
        print_json(
            {
                "key": fingerprint,
                "signed": [
                    {
                        "digest": str(one.digest),
                        "tag": one.tag,
                        "identity": one.identity,
                        "added": one.added,
                        "signatures": one.count,
                    }
                    for one in signed
                ],
            }
        )
        return
    for one in signed:
        verb = "signed" if one.added else "was signed already:"
        click.echo(f"{verb} {one.digest}")
        click.echo(f"  as {one.identity}, by key {fingerprint}, in tag {one.tag}")
