# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest token FILE [OPTION]...

Says whether an attestation result (EAR) of another verifier is genuine, in time
and for whom it is to be, and what it says of each part of the machine: tokens
of Trustee's attestation service, of OpenAnolis' and of Veraison. The exit code
is 0 if all of it is affirming, 40 if not.

What a verifier found is his word, by his reference values. A key that a token
brings along is never a reason to believe it: name the verifier's key, or the
root of his certificates.

  FILE                        the token, a JWT
  --key FILE                  public key of the verifier: PEM, JWK, JWKS, or
                              Veraison's answer to discovery (repeat it)
  --ca FILE                   certificates in PEM, one of which has to lead to
                              that in the token
  --issuer TEXT               who has to have issued it; default: not compared
  --audience TEXT             whom it has to be for; default: nobody named
  --nonce HEX                 that it was asked for with; default: not compared
  --at TIME                   RFC 3339; default: now
  --json                      the result as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest token result.jwt --ca trustee-ca.pem
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagers.cli.command import VerbCommand, blamed_on, json_option
from imagers.cli.output import print_json, print_line
from imagers.errors import EvidenceRejected, FormatError, UsageError

if TYPE_CHECKING:
    from imagers.evidence.ear import EAR
    from imagers.model.strict_json import JSONObject

__all__ = ["command"]

_MAX_KEY, _MAX_NONCE = 256 * 1024, 64


@click.command("token", cls=VerbCommand, help=__doc__)
@click.argument("file")
@click.option("--key", "keys", multiple=True, metavar="FILE")
@click.option("--ca", metavar="FILE")
@click.option("--issuer", metavar="TEXT")
@click.option("--audience", metavar="TEXT")
@click.option("--nonce", metavar="HEX")
@click.option("--at", metavar="TIME")
@json_option
def command(
    *,
    file: str,
    keys: tuple[str, ...],
    ca: str | None,
    issuer: str | None,
    audience: str | None,
    nonce: str | None,
    at: str | None,
    as_json: bool,
) -> None:
    """Say whether a result is genuine, and what it says."""
    from imagers.cli.evidence import parse_hex, parse_time
    from imagers.evidence.ear import MAX_EAR, EARTrust, parse_keys, read_ear
    from imagers.files import read_bounded
    from imagers.pki.chain import parse_certificates

    if not keys and ca is None:
        raise UsageError("expected --key or --ca: whose results are believed")
    trust = EARTrust(
        keys=tuple(
            key
            for one in keys
            for key in parse_keys(read_bounded(one, max_bytes=_MAX_KEY), what=one)
        ),
        roots=()
        if ca is None
        else parse_certificates(read_bounded(ca, max_bytes=_MAX_KEY), what=ca),
        issuer=issuer,
        audience=audience,
    )
    asked = parse_hex("--nonce", nonce, _MAX_NONCE)
    now = parse_time("--at", at)
    with blamed_on(file):
        text = read_bounded(file, max_bytes=MAX_EAR + 2).strip()
        try:
            token = text.decode("ascii")
        except UnicodeDecodeError:
            raise FormatError("expected a JWT") from None
        found = read_ear(token, trust=trust, nonce=asked, now=now)
    if as_json:
        print_json(_facts(found))
    else:
        print_line(f"genuine, by {found.verifier}, valid to {found.expires:%Y-%m-%dT%H:%M:%SZ}")
        for name, part in found.submods.items():
            vector = ", ".join(f"{member} {value}" for member, value in part.vector.items())
            print_line(f"{name}: {part.status}" + (f": {vector}" if vector else ""))
    if found.status != "affirming":
        raise EvidenceRejected(f"the result is genuine, and not affirming: {found.status}")


def _facts(found: EAR) -> JSONObject:
    return {
        "status": found.status,
        "profile": found.profile,
        "issuer": found.issuer,
        "verifier": found.verifier,
        "issued_at": found.issued_at.isoformat(),
        "expires": found.expires.isoformat(),
        "submods": [
            {
                "name": name,
                "status": part.status,
                "vector": dict(part.vector),
                "policy": part.policy,
                "evidence": part.evidence,
            }
            for name, part in found.submods.items()
        ],
    }
