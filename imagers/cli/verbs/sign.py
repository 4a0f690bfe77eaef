# SPDX-License-Identifier: Apache-2.0
"""usage: imagers sign [OPTION]... REF --key FILE
       imagers sign [OPTION]... REF --sign-by FINGERPRINT
       imagers sign [OPTION]... REF --notation-key FILE --notation-chain FILE

Signs an image in its registry. Of an index, every image in it is signed, and
the index. Signatures that are there stay; the same one is not added twice.

  --key FILE, --sign-by-sigstore-private-key FILE
                              with a key in cosign's format ("imagers key
                              generate cosign"), as cosign and podman do: under
                              the tag sha256-HEX.sig of the repository
  --new-bundle-format         and also as a bundle that refers to the image, the
                              form of cosign 3; it names no image
  --certificate-chain FILE    the certificates of that key's owner in PEM, leaf
                              first and root last, for requirements with a pki
  --sign-by FINGERPRINT       with a key of gpg, as podman and skopeo do: kept
                              by the registry if it says that it does, else in
                              the lookaside-staging of registries.d, a file://
                              URL
  --notation-key FILE         with a private key in PEM, as notation does: an
                              envelope that refers to the image
  --notation-chain FILE       the certificates of its owner in PEM, leaf first
  --signature-format WORD     of the envelope: jws (the default) or cose
  --registries.d DIR          else ~/.config/containers/registries.d, else
                              /etc/containers/registries.d
  --passphrase-file FILE      of the key: the first line; without it,
                              COSIGN_PASSWORD for a key in cosign's format,
                              else what is typed on a terminal; gpg asks itself
  --expected-digest DIGEST    fail unless REF is this manifest or index, as
                              "imagers encrypt" printed it: a registry may serve
                              another image under a tag
  --identity REFERENCE        the name to sign, where those who verify use
                              another one
  --creds USER:PASSWORD, --tls-verify BOOL, --registry-ca FILE, --cert-dir DIR,
  --authfile FILE, --daemon-host URL, --image-rs-registries FILE
                              as for "imagers copy"
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers sign registry.example.org/app:v1 --key release.key
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, blamed_on, json_option
from imagers.cli.images import (
    RegistryOptions,
    name_of,
    registry_options,
)
from imagers.cli.output import print_json
from imagers.cli.passphrases import open_with_passphrase, read_passphrase
from imagers.cli.signatures import registries_d_option
from imagers.errors import UsageError
from imagers.model.digest import parse_digest
from imagers.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imagers.build.signers import Signer
    from imagers.sign.image import SignedManifest

__all__ = ["command"]


@click.command("sign", cls=VerbCommand, help=__doc__)
@click.argument("ref")
@click.option("--key", "--sign-by-sigstore-private-key", "key_file", metavar="FILE")
@click.option("--new-bundle-format", "bundle", is_flag=True)
@click.option("--certificate-chain", "chain_file", metavar="FILE")
@click.option("--sign-by", "gpg_key", metavar="FINGERPRINT")
@click.option("--notation-key", metavar="FILE")
@click.option("--notation-chain", metavar="FILE")
@click.option("--signature-format", type=click.Choice(["jws", "cose"]), default="jws")
@registries_d_option
@click.option("--passphrase-file", metavar="FILE")
@click.option("--expected-digest", metavar="DIGEST")
@click.option("--identity", metavar="REFERENCE")
@registry_options
@json_option
def command(
    *,
    ref: str,
    key_file: str | None,
    bundle: bool,
    chain_file: str | None,
    gpg_key: str | None,
    notation_key: str | None,
    notation_chain: str | None,
    signature_format: str,
    registries_d: str | None,
    passphrase_file: str | None,
    expected_digest: str | None,
    identity: str | None,
    registry: RegistryOptions,
    as_json: bool,
) -> None:
    """See the module."""
    from imagers.build.signers import check_can_be_signed, sign

    if sum(one is not None for one in (key_file, gpg_key, notation_key)) != 1:
        raise UsageError(
            "expected one of --key FILE, --sign-by FINGERPRINT and --notation-key FILE",
            hint='"imagers key generate cosign --output NAME" makes a key',
        )
    if bundle and (key_file is None or identity is not None):
        raise UsageError(
            "--new-bundle-format goes with --key, and a bundle has no identity",
        )
    if chain_file is not None and key_file is None:
        raise UsageError("--certificate-chain goes with --key")
    if (notation_key is None) != (notation_chain is None) or (notation_key and identity):
        raise UsageError(
            "--notation-key goes with --notation-chain, and what notation signs has no identity"
        )
    name = name_of(ref)
    check_can_be_signed(name)
    expected = None
    if expected_digest is not None:
        expected = parse_digest(expected_digest, what="--expected-digest")
    with ExitStack() as stack:
        # Before anything is asked of the registry: a passphrase may have to be typed.
        if key_file is not None:
            signer = _sigstore_signer(key_file, chain_file, passphrase_file, bundle=bundle)
        elif notation_key is not None:
            signer = _notation_signer(
                notation_key, str(notation_chain), passphrase_file, signature_format
            )
        else:
            signer = _gpg_signer(str(gpg_key), passphrase_file, stack)
        signed = sign(
            name,
            signer,
            transport=registry.transport(),
            # Read for gpg alone: a registries.d that is wrong keeps nobody from the other forms.
            lookasides=None if gpg_key is None else read_settings().lookasides(registries_d),
            expected_digest=expected,
            identity=identity,
            now=datetime.now(UTC),
        )
    _print(str(name), signed, signer.key, as_json=as_json)


def _sigstore_signer(
    key_file: str, chain_file: str | None, passphrase_file: str | None, *, bundle: bool
) -> Signer:
    from imagers.build.signers import SigstoreSigner
    from imagers.sign.keyfiles import load_certificate_chain, load_private_key

    with blamed_on("--key"):
        key = open_with_passphrase(
            lambda secret: load_private_key(key_file, secret),
            passphrase_file,
            what=f"--key '{key_file}'",
            has_variable=True,
        )
    if chain_file is not None:
        with blamed_on("--certificate-chain"):
            key = key.with_certificates(load_certificate_chain(chain_file))
    return SigstoreSigner(key, bundle)


def _notation_signer(
    key_file: str, chain_file: str, passphrase_file: str | None, signature_format: str | None
) -> Signer:
    from imagers.build.signers import NotationSigner
    from imagers.sign.formats.notation.envelope import COSE_TYPE, JWS_TYPE
    from imagers.sign.keyfiles import load_notation_key

    with blamed_on("--notation-key and --notation-chain"):
        key = open_with_passphrase(
            lambda secret: load_notation_key(key_file, chain_file, secret),
            passphrase_file,
            what=f"--notation-key '{key_file}'",
            has_variable=False,
        )
    return NotationSigner(key, COSE_TYPE if signature_format == "cose" else JWS_TYPE)


def _gpg_signer(fingerprint: str, passphrase_file: str | None, stack: ExitStack) -> Signer:
    from imagers.build.signers import GPGSigner
    from imagers.sign.formats.gpg import parse_fingerprint

    with blamed_on("--sign-by"):
        parsed = parse_fingerprint(fingerprint)
    if passphrase_file is None:
        return GPGSigner(parsed)
    return GPGSigner(parsed, stack.enter_context(read_passphrase(passphrase_file)))


def _print(name: str, signed: Sequence[SignedManifest], key: str, *, as_json: bool) -> None:
    from imagers.sign.image import PlaceKind

    if as_json:
        print_json(
            {
                "reference": name,
                "key": key,
                "signed": [
                    {
                        "digest": str(one.digest),
                        "place": one.place.text,
                        "identity": one.identity,
                        "added": one.added,
                        "signatures": one.count,
                    }
                    for one in signed
                ],
            }
        )
        return
    where = {
        PlaceKind.TAG: "in tag",
        PlaceKind.REFERRERS: "in",
        PlaceKind.EXTENSION: "at",
        PlaceKind.LOOKASIDE: "at",
    }
    for one in signed:
        verb = "signed" if one.added else "was signed already:"
        name = f"as {one.identity}, " if one.identity else ""
        click.echo(f"{verb} {one.digest}")
        click.echo(f"  {name}by key {key}, {where[one.place.kind]} {one.place.text}")
