# SPDX-License-Identifier: Apache-2.0
"""What a sigstore signature in cosign's format brings along, read from its annotations.

| annotation                          | what it holds                                    |
|-------------------------------------|--------------------------------------------------|
| `dev.cosignproject.cosign/signature`| base64 of the signature                          |
| `dev.sigstore.cosign/certificate`   | PEM of the signer's certificate                  |
| `dev.sigstore.cosign/chain`         | PEM of what leads to a root; the last is the root|
| `dev.sigstore.cosign/bundle`        | entry of the log Rekor                           |

Only what a requirement asks for is read: a key alone needs no certificate and no log, and
whatever stands in those annotations then says nothing. The annotation with a time stamp is not
read: no requirement about this signature format can ask for one.

Spec: cosign SIGNATURE_SPEC.md; containers/image df7e80d2, internal/signature/sigstore.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import FormatError
from imagers.pki.chain import parse_certificates
from imagers.sign.certified.rekor import check_hashedrekord, parse_bundle
from imagers.sign.certified.signer import Evidence
from imagers.sign.formats.sigstore import (
    CERTIFICATE_ANNOTATION,
    CHAIN_ANNOTATION,
    decode_signature,
)

if TYPE_CHECKING:
    from cryptography import x509

    from imagers.sign.found import SigstoreSignature

__all__ = ["read_evidence"]

_BUNDLE = "dev.sigstore.cosign/bundle"


def read_evidence(
    signature: SigstoreSignature, *, with_certificate: bool, with_entry: bool
) -> Evidence:
    """The parts of a signature; nothing of it is verified.

    Args:
        with_certificate: whether certificate and chain are wanted.
        with_entry: whether the entry of the log is wanted.

    Raises:
        FormatError: one of them cannot be read.
    """
    notes = signature.annotations
    certificate: x509.Certificate | None = None
    chain: tuple[x509.Certificate, ...] = ()
    if with_certificate and CERTIFICATE_ANNOTATION in notes:
        found = parse_certificates(_bytes(notes[CERTIFICATE_ANNOTATION]), what="certificate")
        if len(found) != 1:
            raise FormatError(f"expected one certificate, got {len(found)}", what="certificate")
        certificate = found[0]
        if notes.get(CHAIN_ANNOTATION):
            # The last one is a root by the word of the signer: it is never used.
            chain = parse_certificates(_bytes(notes[CHAIN_ANNOTATION]), what="chain")[:-1]
    return Evidence(
        data=signature.payload,
        signature=decode_signature(notes),
        payload=signature.payload,
        check_log=check_hashedrekord,
        certificate=certificate,
        chain=chain,
        entries=(parse_bundle(notes[_BUNDLE]),) if with_entry and _BUNDLE in notes else (),
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
