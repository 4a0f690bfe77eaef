# SPDX-License-Identifier: Apache-2.0
"""usage: imagers attest ak request --output FILE [OPTION]...
       imagers attest ak challenge REQUEST --ek-root FILE --secret FILE
           --output FILE
       imagers attest ak answer CHALLENGE --output FILE [OPTION]...
       imagers attest ak accept ANSWER --secret FILE

Makes sure that the attestation key of a machine is in a genuine TPM, which is
what makes quotes of that key worth anything. Four files go between the two:

  machine    request     the certificate of its TPM and its attestation key,
                         which is made where there is none
  operator   challenge   a secret that only that TPM opens, for that key alone
  machine    answer      the secret
  operator   accept      the key, as the reference value "trusted_aks"

That the request came from the machine that you mean is for you to see to: a TPM
does not say which machine it is in. The exit code is 40 for no.

  --ek-root FILE              PEM: authorities of TPMs' vendors, roots or below,
                              that issue certificates of endorsement keys
  --secret FILE               of "challenge": a new file that stays with you
  --output FILE               a new file
  --device FILE               of the TPM; default: AA_TPM_DEVICE, else
                              /dev/tpmrm0
  --handle N                  of the attestation key; default: AA_TPM_AK_HANDLE,
                              else 0x81010002
  --ek-certificate FILE       DER, where the TPM has none in it
  --at TIME                   of "challenge": RFC 3339; default: now
  --json                      of "accept": the facts as JSON
  -q, -v, -h                  quiet, verbose, this text

example:
  imagers attest ak challenge request.json --ek-root vendor.pem \\
    --secret secret.json --output challenge.json
"""

from __future__ import annotations

import click

from imagers.cli.command import VerbCommand, VerbGroup, blamed_on, json_option
from imagers.cli.output import print_json, print_line

__all__ = ["command"]

_SECRET, _PUBLIC = 0o600, 0o644
_MAX_CERTIFICATE = 64 * 1024
_handle = click.option("--handle", metavar="N")
_device = click.option("--device", metavar="FILE")
_output = click.option("--output", metavar="FILE", required=True)
_secret = click.option("--secret", metavar="FILE", required=True)


@click.group("ak", cls=VerbGroup, help=__doc__)
def command() -> None:
    """Attestation keys of TPMs."""


@command.command("request", cls=VerbCommand, help=__doc__)
@click.option("--ek-certificate", metavar="FILE")
@_device
@_handle
@_output
def request(
    *, ek_certificate: str | None, device: str | None, handle: str | None, output: str
) -> None:
    """Write what an operator is asked with."""
    from imagers.cli.machine import find_machine
    from imagers.evidence.tpm.collect import AK_HANDLE, DEVICE, make_request, open_device
    from imagers.evidence.tpm.commands import TPM
    from imagers.files import read_bounded, write_new

    certificate = None
    if ek_certificate is not None:
        certificate = read_bounded(ek_certificate, max_bytes=_MAX_CERTIFICATE)
    place = find_machine(device, handle)
    with open_device(place.device or DEVICE) as transmit:
        found = make_request(TPM(transmit), place.handle or AK_HANDLE, certificate)
    write_new(output, found.to_json(), mode=_PUBLIC)


@command.command("challenge", cls=VerbCommand, help=__doc__)
@click.argument("request")
@click.option("--ek-root", metavar="FILE", required=True)
@_secret
@_output
@click.option("--at", metavar="TIME")
def challenge(*, request: str, ek_root: str, secret: str, output: str, at: str | None) -> None:
    """Write a secret for the TPM of a machine."""
    from imagers.cli.evidence import parse_time
    from imagers.evidence.tpm.enrol import MAX_FILE, make_challenge, parse_request
    from imagers.files import read_bounded, write_new
    from imagers.pki.chain import parse_certificates

    now = parse_time("--at", at)
    authorities = parse_certificates(read_bounded(ek_root, max_bytes=MAX_FILE), what=ek_root)
    data = read_bounded(request, max_bytes=MAX_FILE)
    with blamed_on(request):
        made, kept = make_challenge(parse_request(data), authorities, now=now)
    write_new(secret, kept, mode=_SECRET)
    write_new(output, made.to_json(), mode=_PUBLIC)


@command.command("answer", cls=VerbCommand, help=__doc__)
@click.argument("challenge")
@_device
@_handle
@_output
def answer(*, challenge: str, device: str | None, handle: str | None, output: str) -> None:
    """Write the secret that the TPM gives out."""
    from imagers.cli.machine import find_machine
    from imagers.evidence.tpm.collect import AK_HANDLE, DEVICE, answer_challenge, open_device
    from imagers.evidence.tpm.commands import TPM
    from imagers.evidence.tpm.enrol import MAX_FILE, answer_to_json, parse_challenge
    from imagers.files import read_bounded, write_new

    data = read_bounded(challenge, max_bytes=MAX_FILE)
    with blamed_on(challenge):
        asked = parse_challenge(data)
    place = find_machine(device, handle)
    with open_device(place.device or DEVICE) as transmit:
        secret = answer_challenge(TPM(transmit), asked, place.handle or AK_HANDLE)
    write_new(output, answer_to_json(secret), mode=_PUBLIC)


@command.command("accept", cls=VerbCommand, help=__doc__)
@click.argument("answer")
@_secret
@json_option
def accept(*, answer: str, secret: str, as_json: bool) -> None:
    """Tell the key as a reference value."""
    from imagers.evidence.tpm.enrol import MAX_FILE, accept
    from imagers.files import read_bounded

    told, kept = (read_bounded(path, max_bytes=MAX_FILE) for path in (answer, secret))
    with blamed_on(answer):
        key = accept(told, kept)
    if as_json:
        print_json({"trusted_aks": key})
    else:
        print_line(f"imagers broker reference-value set --add trusted_aks {key}")
