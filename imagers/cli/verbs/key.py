# SPDX-License-Identifier: Apache-2.0
"""usage: imagers key generate KIND --output NAME [--passphrase-file FILE] [--json]
       imagers key show FILE [--public] [--passphrase-file FILE] [--json]

Makes keys, and says what a key file holds, public or private, by its public
half: kind, SHA-256 of the key (SubjectPublicKeyInfo), and what "imagers
inspect" calls a recipient with it. Files appear as NAME.key (secret, for its
owner only) and NAME.pub, a kek as NAME.kek; nothing is ever overwritten.

  KIND is one of
    cosign     ECDSA P-256 for signatures, in cosign's encrypted file format
    rsa        RSA 3072 for encryption, for recipients jwe:NAME.pub
    ec         ECDH P-256 for encryption, for recipients jwe:NAME.pub
    admin      Ed25519 for who administrates a key broker, see "imagers broker"
    kek        32 random bytes, a key-encryption key for --kek-file

  --output NAME            where to write, without ending
  --passphrase-file FILE   passphrase of a key: the first line; without it
                           COSIGN_PASSWORD for a key in cosign's format, else it
                           is asked for on a terminal; a new one is else empty
  --public                 the public half in PEM, and nothing else
  --json                   the facts as JSON
  -q, -v, -h               quiet, verbose, this text

example:
  imagers key generate cosign --output release --passphrase-file passphrase.txt
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, VerbGroup, json_option
from imagers.cli.output import print_json, print_line
from imagers.cli.passphrases import new_passphrase, open_with_passphrase
from imagers.errors import UsageError

if TYPE_CHECKING:
    from imagers.build.key_file import KeyFacts

__all__ = ["command"]

_RSA_BITS = 3072
_KEK_BYTES = 32


@click.group("key", cls=VerbGroup, help=__doc__)
def command() -> None:
    """See the module."""


@command.command("generate", cls=VerbCommand, help=__doc__)
@click.argument("kind", type=click.Choice(["cosign", "rsa", "ec", "admin", "kek"]), metavar="KIND")
@click.option("--output", required=True, metavar="NAME")
@click.option("--passphrase-file", metavar="FILE")
@json_option
def generate(*, kind: str, output: str, passphrase_file: str | None, as_json: bool) -> None:
    """Make a key."""
    if passphrase_file is not None and kind != "cosign":
        raise UsageError("--passphrase-file is for keys of kind cosign")
    if kind == "cosign":
        lines = _generate_cosign(output, passphrase_file)
    elif kind == "kek":
        from imagers.files import write_new

        write_new(f"{output}.kek", os.urandom(_KEK_BYTES), mode=0o600)
        lines = [f"{output}.kek: 32 random bytes"]
    else:
        lines = _generate_pair(kind, output)
    if as_json:
        print_json({"files": _made(kind, output)})
    else:
        for line in lines:
            print_line(line)


def _made(kind: str, output: str) -> list[dict[str, object]]:
    """The files of a new key, as `show` says it."""
    from imagers.build.key_file import describe_key
    from imagers.encrypt.keyfiles import read_small_file
    from imagers.model.keys import SecretKey

    if kind == "kek":
        unknown = {"fingerprint": None, "key_id": None}
        return [{"file": f"{output}.kek", "half": "secret", "kind": "32 bytes", **unknown}]
    public = f"{output}.pub"
    with read_small_file(public) as content, SecretKey(b"") as nothing:
        facts = describe_key(content, name=public, passphrase=nothing)
    return [
        _facts(f"{output}.key", replace(facts, half="private")),
        _facts(public, facts),
    ]


def _facts(file: str, facts: KeyFacts) -> dict[str, object]:
    return {
        "file": file,
        "half": facts.half,
        "kind": facts.kind,
        "fingerprint": f"sha256:{facts.fingerprint}",
        "key_id": facts.key_id,
    }


def _generate_cosign(output: str, passphrase_file: str | None) -> list[str]:
    from imagers.sign.keyfiles import save_key_pair
    from imagers.sign.sigstore_key import generate_private_key

    key = generate_private_key()
    with new_passphrase(passphrase_file) as passphrase:
        save_key_pair(key, f"{output}.key", f"{output}.pub", passphrase)
    return [
        f"{output}.key: private, ECDSA P-256, cosign format",
        f"{output}.pub: public, SHA-256 {key.public_key.fingerprint}",
    ]


def _generate_pair(kind: str, output: str) -> list[str]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    from imagers.sign.keyfiles import write_pair

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    if kind == "rsa":
        key, shown = rsa.generate_private_key(65537, _RSA_BITS), f"RSA {_RSA_BITS}"
    elif kind == "admin":
        key, shown = ed25519.Ed25519PrivateKey.generate(), "Ed25519"
    else:
        key, shown = ec.generate_private_key(ec.SECP256R1()), "EC P-256"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    write_pair(f"{output}.key", secret, f"{output}.pub", public)
    return [f"{output}.key: private, {shown}, PKCS #8", f"{output}.pub: public, {shown}"]


@command.command("show", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--public", is_flag=True)
@click.option("--passphrase-file", metavar="FILE")
@json_option
def show(file: str, *, public: bool, passphrase_file: str | None, as_json: bool) -> None:
    """Say what a key file holds."""
    from imagers.build.key_file import describe_key, is_cosign_key
    from imagers.encrypt.keyfiles import read_small_file

    if public and as_json:
        raise UsageError("--public and --json exclude each other")
    with read_small_file(file) as content:
        facts = open_with_passphrase(
            lambda secret: describe_key(content, name=file, passphrase=secret),
            passphrase_file,
            what=f"'{file}'",
            has_variable=is_cosign_key(content),
        )
    if public:
        click.echo(facts.public_pem, nl=False)
    elif as_json:
        print_json(_facts(file, facts))
    else:
        print_line(f"{file}: {facts.half}, {facts.kind}, SHA-256 {facts.fingerprint}")
        if facts.key_id is not None:
            print_line(f"  as a recipient, jwe: {facts.key_id}")
