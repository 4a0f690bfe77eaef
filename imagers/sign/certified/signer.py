# SPDX-License-Identifier: Apache-2.0
"""Who made a sigstore signature: a given key, or the owner of a certificate that is trusted.

    signer = check_signer(evidence, demands, now=now, what="signature 1 of 1", note=print)

One order for both forms of sigstore signatures, so that none of them forgets a step:

1. *Key.* One of the keys verifies the signed bytes; or there is a certificate.
2. *Log.* Where keys of logs are given, one of them has promised an entry about exactly this
   payload, signature and key or certificate. Its time counts from here.
3. *Stamp.* Where time-stamp authorities are given, one of them has stamped this signature.
4. *Chain.* The certificate leads to a given root: at the time of the log or of the stamp for
   fulcio, whose certificates last ten minutes; now for an own PKI.
5. *Certificate's key* verifies the signed bytes.
6. *Subject* and issuer are those that the policy names.

Spec: containers/image df7e80d2, signature/policy_eval_sigstore.go and fulcio_cert.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization

from imagers.errors import (
    CouldNotVerify,
    FormatError,
    SignatureInvalid,
    Unsupported,
)
from imagers.pki.chain import (
    Purpose,
    check_chain,
    describe,
)
from imagers.pki.timestamp import check_timestamp
from imagers.sign.certified.rekor import LogEntry, check_entry
from imagers.sign.certified.subject import check_issuer, check_subject
from imagers.sign.public_key import public_key_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from cryptography import x509

    from imagers.sign.materials import SignerMaterial
    from imagers.sign.public_key import PublicKey
    from imagers.sign.requirements import PKI, Fulcio

__all__ = ["Evidence", "Who", "check_signer"]

_DER = serialization.Encoding.DER
_MOST_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a signature brings along. Nothing of it is verified.

    Attributes:
        data: the bytes that were signed.
        signature: over `data`.
        payload: what logs have seen: `data`, or what an envelope holds.
        check_log: compares an entry with payload, signature and signer, see `rekor`.
        certificate: of the signer.
        chain: certificates beside it, in any order.
        entries: of logs.
        stamps: DER.
    """

    data: bytes
    signature: bytes
    payload: bytes
    check_log: Callable[..., None]
    certificate: x509.Certificate | None = None
    chain: tuple[x509.Certificate, ...] = ()
    entries: tuple[LogEntry, ...] = ()
    stamps: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Who:
    """The signer, as verified.

    Attributes:
        fingerprint: SHA-256 of the DER SubjectPublicKeyInfo, hex.
        subject: by the certificate; "" for a given key.
    """

    fingerprint: str
    subject: str = ""


def check_signer(
    evidence: Evidence,
    material: SignerMaterial,
    *,
    fulcio: Fulcio | None,
    pki: PKI | None,
    now: datetime | None,
    what: str,
    note: Callable[[str], None],
) -> Who:
    """Who made the signature, if it is somebody whom the requirement trusts.

    Args:
        material: keys and certificates of the requirement.
        now: aware; needed for `pki` only.
        note: gets a line for each check that holds.

    Raises:
        SignatureInvalid: nobody of them.
        UntrustedSigner: somebody with a good certificate, and another than the policy names.
        CouldNotVerify: a time is needed and none was given.
    """
    certificate = evidence.certificate
    if fulcio is None and pki is None:
        key = _check_keys(evidence, material.keys, what, note)
        times = _check_time(evidence, material, key.spki, what, note)
        del times  # a key is good at any time
        return Who(key.fingerprint)
    if certificate is None:
        raise SignatureInvalid(
            f"{what} has no certificate",
            hint="it was made with a key alone; the policy demands a certificate",
        )
    der = certificate.public_bytes(_DER)
    times = _check_time(evidence, material, der, what, note)
    if fulcio is not None:
        if not times:
            raise SignatureInvalid(
                f"{what}: nobody witnessed the time of signing: expected the entry of a given "
                "log or the stamp of a given authority"
            )
    else:
        if now is None:
            raise CouldNotVerify(f"{what}: the time is not known, and certificates need it")
        times = (now,)
    for when in times:  # step 4; every witness must have seen it within those ten minutes
        check_chain(
            certificate,
            (*evidence.chain, *material.intermediates),
            material.roots,
            at=when,
            purpose=Purpose.CODE_SIGNING,
            what=f"{what}: certificate",
        )
    note(f"certificate of {describe(certificate)} leads to a given root")
    try:
        key = public_key_of(certificate.public_key(), what=f"{what}: certificate")
    except (Unsupported, ValueError) as error:
        raise SignatureInvalid(f"{what}: certificate with a key that is not used here") from error
    if not key.is_good(evidence.signature, evidence.data):  # step 5
        raise SignatureInvalid(f"{what} does not verify with the key in its certificate")
    note("verifies with the key in the certificate")
    if fulcio is not None:  # step 6
        check_issuer(certificate, fulcio.issuer, what=what)
        check_subject(certificate, fulcio.subject, what=what)
        note(f"the login was at '{fulcio.issuer}'")
    elif pki is not None:
        check_subject(certificate, pki.subject, what=what)
    return Who(key.fingerprint, describe(certificate))


def _check_keys(
    evidence: Evidence,
    keys: tuple[PublicKey, ...],
    what: str,
    note: Callable[[str], None],
) -> PublicKey:
    """Step 1."""
    key = next((one for one in keys if one.is_good(evidence.signature, evidence.data)), None)
    if key is None:
        raise SignatureInvalid(
            f"{what} verifies with none of the trusted keys: expected SHA-256 "
            + " or ".join(one.fingerprint for one in keys[:_MOST_SHOWN]),
            hint="another key made it, or it was changed; 'imagers key show' prints the "
            "SHA-256 of a key",
        )
    note(f"verifies with key sha256:{key.fingerprint}")
    return key


def _check_time(
    evidence: Evidence,
    material: SignerMaterial,
    signer_der: bytes,
    what: str,
    note: Callable[[str], None],
) -> tuple[datetime, ...]:
    """Steps 2 and 3: what the demanded witnesses say; empty where none is demanded."""
    times: list[datetime] = []
    # With one_witness a log or a stamp will do, and what is there has to be good.
    both = not material.one_witness
    if material.rekor and (both or evidence.entries):
        if not evidence.entries:
            raise SignatureInvalid(
                f"{what} has no entry of a transparency log, and the policy demands one",
                hint="it was made without an upload to the log",
            )
        when = _first_good(
            [
                partial(_check_log, one, evidence, material, signer_der, what)
                for one in evidence.entries
            ]
        )
        note(f"a given log has seen it at {when:%Y-%m-%dT%H:%M:%SZ}")
        times.append(when)
    if material.tsa and (both or evidence.stamps):
        if not evidence.stamps:
            raise SignatureInvalid(f"{what} has no time stamp, and the policy demands one")
        when = _first_good(
            [
                partial(check_timestamp, one, evidence.signature, material.tsa, what=what)
                for one in evidence.stamps
            ]
        )
        note(f"a given authority has stamped it at {when:%Y-%m-%dT%H:%M:%SZ}")
        times.append(when)
    return tuple(times)


def _check_log(
    entry: LogEntry, evidence: Evidence, material: SignerMaterial, signer_der: bytes, what: str
) -> datetime:
    when = check_entry(entry, material.rekor, what=what)
    evidence.check_log(
        entry,
        payload=evidence.payload,
        signature=evidence.signature,
        signer_der=signer_der,
        what=what,
    )
    return when


def _first_good(checks: list[Callable[[], datetime]]) -> datetime:
    error: SignatureInvalid | FormatError | None = None
    for check in checks:
        try:
            return check()
        except (SignatureInvalid, FormatError) as refusal:
            error = error or refusal
    assert error is not None
    raise error
