# SPDX-License-Identifier: Apache-2.0
"""That an attestation key is in a genuine TPM and does not leave it: credential activation. No IO.

    machine     request      certificate of the endorsement key, public part of the attestation key
    operator    challenge    a secret for both, which only that TPM opens
    machine     answer       the secret
    operator    accept       the key as a reference value

1. *Certificate.* It is of an endorsement key, by an authority that the operator names, valid now.
2. *Key.* It is restricted, signs and does not decrypt, was made in its TPM and is fixed to it, and
   signs as quotes have to be signed.
3. *Secret.* The answer has it. The TPM opens it by the endorsement key, and only where a key with
   this very name is loaded: one with this public part and these attributes.

After that quotes of the key are quotes of that TPM. Which machine it is in, nothing here says: the
request has to come from the machine itself.

Spec: TCG TPM 2.0 Library 1.59, part 1, 24; TCG EK Credential Profile 2.5.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from imagers.errors import EvidenceRejected, SignatureInvalid
from imagers.evidence.steps import mismatch, step
from imagers.evidence.tpm.credential import (
    EK_TEMPLATES,
    RSA_SEED_BYTES,
    SECRET_BYTES,
    make_credential,
)
from imagers.evidence.tpm.structures import (
    DECRYPT,
    ECDSA,
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    RSASSA,
    SENSITIVE_DATA_ORIGIN,
    SHA256,
    SIGN,
    Public,
    parse_public,
    spki_of,
)
from imagers.model.base64 import encode_base64
from imagers.model.strict_json import View, dump_json
from imagers.pki.chain import Purpose, check_chain, describe, load_certificate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

__all__ = [
    "MAX_FILE",
    "Challenge",
    "Request",
    "accept",
    "answer_to_json",
    "make_challenge",
    "parse_challenge",
    "parse_request",
]

MAX_FILE = 64 * 1024
_EK = "endorsement key"
_MAX_CERTIFICATE = 16 * 1024
_MAX_PART = 2048
_MUST = {
    "restricted": RESTRICTED,
    "sign": SIGN,
    "fixedTPM": FIXED_TPM,
    "fixedParent": FIXED_PARENT,
    "sensitiveDataOrigin": SENSITIVE_DATA_ORIGIN,
}
_SCHEMES = {
    "rsa": (RSASSA, SHA256),
    "secp256r1": (ECDSA, SHA256),
    "secp384r1": (ECDSA, 0x000C),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a machine asks with. Nothing of it is verified.

    Attributes:
        certificate: of the endorsement key, DER.
        ak: public part of the attestation key.
    """

    certificate: bytes = field(repr=False)
    ak: Public

    def to_json(self) -> bytes:
        """What `parse_request` reads."""
        return dump_json(
            {
                "ek_certificate": encode_base64(self.certificate),
                "ak": encode_base64(self.ak.raw),
            }
        )


def parse_request(data: bytes) -> Request:
    """What a machine wrote.

    Raises:
        FormatError: it is something else.
    """
    view = View.parse(data, what="request", max_bytes=MAX_FILE)
    view.exactly("ek_certificate", "ak")
    certificate = view.bytes64("ek_certificate", max_size=_MAX_CERTIFICATE)
    return Request(certificate, parse_public(view.bytes64("ak", max_size=_MAX_PART)))


@dataclass(frozen=True, slots=True)
class Challenge:
    """A secret for a TPM.

    Attributes:
        blob, seed: as TPM2_ActivateCredential takes them.
    """

    blob: bytes = field(repr=False)
    seed: bytes = field(repr=False)

    @property
    def template(self) -> bytes:
        """Of the endorsement key that it is for: an encrypted seed of RSA is as long as the key."""
        return EK_TEMPLATES["rsa" if len(self.seed) == RSA_SEED_BYTES else "ecc"]

    def to_json(self) -> bytes:
        """What `parse_challenge` reads."""
        return dump_json({"credential": encode_base64(self.blob), "seed": encode_base64(self.seed)})


def parse_challenge(data: bytes) -> Challenge:
    """What an operator wrote for a machine.

    Raises:
        FormatError: it is something else.
    """
    view = View.parse(data, what="challenge", max_bytes=MAX_FILE)
    view.exactly("credential", "seed")
    blob, seed = (view.bytes64(name, max_size=_MAX_PART) for name in ("credential", "seed"))
    return Challenge(blob, seed)


def make_challenge(
    request: Request, authorities: Sequence[x509.Certificate], *, now: datetime
) -> tuple[Challenge, bytes]:
    """A challenge for a machine, and what the operator keeps to himself until it answers.

    Args:
        authorities: whose endorsement certificates count: roots, or authorities below them.
        now: aware.

    Raises:
        EvidenceRejected: step 1 or 2 says no.
        FormatError: the certificate cannot be read.
        Unsupported: the endorsement key is of another kind than RSA with 2048 bits or P-256.
    """
    certificate = load_certificate(request.certificate, what=f"certificate of the {_EK}")
    with step("1, certificate"):
        try:
            check_chain(
                certificate,
                (),
                authorities,
                at=now,
                purpose=Purpose.TPM_ENDORSEMENT,
                purpose_is_optional=True,
                what=_EK,
            )
        except SignatureInvalid as error:
            # Without the name in it, which may be the TPM's alone.
            why = str(error).removeprefix(f"{_EK} of {describe(certificate)}: ")
            raise EvidenceRejected(f"{_EK}: {why}", hint=error.hint) from None
    with step("2, key"):
        _check_ak(request.ak)
    secret = os.urandom(SECRET_BYTES)
    blob, seed = make_credential(certificate.public_key(), request.ak.name, secret)
    kept = {"secret": encode_base64(secret), "trusted_aks": encode_base64(spki_of(request.ak.key))}
    return Challenge(blob, seed), dump_json(kept)


def _check_ak(ak: Public) -> None:
    """Step 2."""
    for name, bit in _MUST.items():
        if not ak.attributes & bit:
            raise mismatch(f"attribute {name}", "set", "clear")
    if ak.attributes & DECRYPT:
        raise mismatch("attribute decrypt", "clear", "set")
    if ak.name_hash != SHA256:
        raise mismatch("hash of its name", f"{SHA256:#06x} (SHA-256)", f"{ak.name_hash:#06x}")
    kind = "rsa" if isinstance(ak.key, rsa.RSAPublicKey) else ak.key.curve.name
    if ak.scheme != _SCHEMES[kind]:
        wanted, found = (f"{one:#06x} with {two:#06x}" for one, two in (_SCHEMES[kind], ak.scheme))
        raise mismatch("scheme", wanted, found)


def answer_to_json(secret: bytes) -> bytes:
    """What a machine answers with the secret that its TPM gave out."""
    return dump_json({"secret": encode_base64(secret)})


def accept(answer: bytes, kept: bytes) -> str:
    """The key as the reference value `trusted_aks`.

    Args:
        answer: of the machine.
        kept: what `make_challenge` gave.

    Raises:
        EvidenceRejected: step 3 says no.
        FormatError: one of them is something else.
    """
    told = View.parse(answer, what="answer", max_bytes=MAX_FILE)
    told.exactly("secret")
    own = View.parse(kept, what="secret of the challenge", max_bytes=MAX_FILE)
    own.exactly("secret", "trusted_aks")
    wanted = own.bytes64("secret", size=SECRET_BYTES)
    with step("3, secret"):
        if not compare_digest(told.bytes64("secret", max_size=_MAX_PART), wanted):
            raise EvidenceRejected("it is not the one of this challenge")
    return own.text("trusted_aks")
