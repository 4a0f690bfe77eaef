# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest ratls CERTIFICATE KEY [OPTION]...

Makes a key, and a certificate for it that has evidence of this machine in it,
for a server with RA-TLS: clients that know what the machine runs need no CA. A
key broker in an enclave or a trust domain takes them as "imagers broker serve
--certificate CERTIFICATE --certificate-key KEY"; its guests say
"--broker-reference FILE" in place of "--broker-ca FILE".

The evidence is as old as the certificate. KEY must stay in this machine's
memory: write it to a file system that is there, such as /run. "imagers attest
verify CERTIFICATE" looks at the evidence, and that it is for this key.

  CERTIFICATE, KEY            files to make, in PEM; KEY for their owner only
  --tee NAME                  sgx or tdx; default: the one that this machine is
  --days N                    the certificate is valid for; default: 365
  --json                      what was made, as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest ratls /run/broker.pem /run/broker.key
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import click

from imagers.cli.command import VerbCommand, json_option
from imagers.cli.output import print_json, print_line
from imagers.errors import UsageError

__all__ = ["command"]

_MAX_DAYS = 3650
_SECRET, _PUBLIC = 0o600, 0o644


@click.command("ratls", cls=VerbCommand, help=__doc__)
@click.argument("certificate")
@click.argument("key")
@click.option("--tee", metavar="NAME")
@click.option("--days", type=click.IntRange(1, _MAX_DAYS), default=365, metavar="N")
@json_option
def command(*, certificate: str, key: str, tee: str | None, days: int, as_json: bool) -> None:
    """Make a key and its certificate with evidence."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from imagers.cli.machine import attester_of_machine
    from imagers.evidence.ratls import make_ratls
    from imagers.files import write_new

    if os.path.realpath(certificate) == os.path.realpath(key):
        raise UsageError(f"expected a file for each of CERTIFICATE and KEY, got {key!r} twice")
    attester = attester_of_machine(tee)
    private = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = x509.load_der_x509_certificate(
        make_ratls(private, attester, now=now, lifetime=timedelta(days=days))
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_new(key, pem, mode=_SECRET)
    try:
        write_new(certificate, made.public_bytes(serialization.Encoding.PEM), mode=_PUBLIC)
    except BaseException:
        with suppress(OSError):
            os.unlink(key)  # a key without its certificate is of no use
        raise
    if as_json:
        print_json(
            {
                "certificate": certificate,
                "key": key,
                "tee": attester.tee,
                "not_after": made.not_valid_after_utc.isoformat(),
            }
        )
    else:
        print_line(
            f"{certificate}: evidence of the TEE {attester.tee}, for the key {key}, valid to "
            f"{made.not_valid_after_utc:%Y-%m-%d}"
        )
