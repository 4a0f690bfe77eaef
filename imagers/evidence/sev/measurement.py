# SPDX-License-Identifier: Apache-2.0
"""The launch measurement of a guest of AMD SEV or SEV-ES, as its owner checks it.

    check_measurement(answer, digest=digest, tik=tik, policy=0x7, api=(1, 55), build=21)

The owner made the keys of the session (TEK, TIK), which only the firmware of the chip can read. It
answers with a code that has one of them as its key, over what was measured and a nonce:

    measurement 32, nonce 16
    HMAC-SHA256(TIK, 0x04 ‖ API major ‖ API minor ‖ build ‖ policy 4 ‖ digest 32 ‖ nonce 16)

The host tells the firmware's version; what it tells is in the code, and a wrong word is no match.
Policy and digest are the owner's own, and never what the host says. Then he puts a secret into the
guest, which nobody else can. That the keys went to a genuine chip is to be checked before, with
the certificates of its PDH: not here.

Spec: AMD Secure Encrypted Virtualization API (55766) 3.24, section 6.5 (LAUNCH_MEASURE).
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, hmac

from imagers.errors import EvidenceRejected, FormatError

if TYPE_CHECKING:
    from imagers.model.keys import SecretKey

__all__ = ["MEASUREMENT_BYTES", "check_measurement"]

MEASUREMENT_BYTES = 48
_CODE, _DIGEST, _TIK = 32, 32, 16
_CONTEXT = 0x04
_WHAT = "SEV launch measurement"


def check_measurement(
    answer: bytes,
    *,
    digest: bytes,
    tik: SecretKey,
    policy: int,
    api: tuple[int, int],
    build: int,
) -> None:
    """Raise unless the firmware that has the owner's key measured what he means.

    Args:
        answer: measurement and nonce, as the host hands them on.
        digest: what `measure_launch` gives, 32 bytes.
        tik: transport integrity key of the session, 16 bytes.
        policy: that the owner started the guest with.
        api, build: of the firmware, as the host says.

    Raises:
        EvidenceRejected: something else was measured, or with another key, policy or firmware.
        FormatError: the answer has another length.
        ValueError: what is the caller's own has another length, or is out of range.

    Spec: AMD SEV API (55766) 3.24, section 6.5.2.
    """
    if len(answer) != MEASUREMENT_BYTES:
        raise FormatError(f"expected {MEASUREMENT_BYTES} bytes, got {len(answer)}", what=_WHAT)
    if len(digest) != _DIGEST or len(tik) != _TIK:
        raise ValueError(
            f"expected a digest of {_DIGEST} bytes and a key of {_TIK}, "
            f"got {len(digest)} and {len(tik)}"
        )
    try:
        head = bytes((_CONTEXT, *api, build)) + policy.to_bytes(4, "little")
    except OverflowError:
        raise ValueError(f"expected a policy of 32 bits, got {policy}") from None
    with tik.view() as key:
        code = hmac.HMAC(bytes(key), hashes.SHA256())  # `bytes` for `cryptography`
    code.update(head + digest + answer[_CODE:])
    if not compare_digest(code.finalize(), answer[:_CODE]):
        raise EvidenceRejected(
            "the launch measurement is not that of this guest: expected the owner's digest, "
            f"policy {policy:#x} and key, under firmware {api[0]}.{api[1]} build {build}",
            claim="measurement",
            hint="'imagers attest reference make --tee sev' computes the digest",
        )
