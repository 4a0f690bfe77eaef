# SPDX-License-Identifier: Apache-2.0
"""The checks of a quote that all TPMs share: whose it is, and of which values. No IO.

    check_form(attest)
    check_signature(attest, signature, key)
    check_values(attest, values, signature.hash)

`ways` says which registers know a machine as one's own.

    0, 2, 4, 7       firmware, its drivers, what it started (boot loader or unified kernel), and
                     whose signatures it demands
    8, 9             of GRUB and Linux: commands and the kernel's command line; files, initrd
    11, 12, 13       of systemd's stub: kernel and initrd in one file; command line and credentials
                     beside it; extensions of the initrd

are those by default. Not 1, 3, 5, 6, which differ from machine to machine (order of boot, serial
numbers, disks); not 10 and 15, which grow while a machine runs; not 14, since what it let start is
in 4 and 9; not 17 to 22, of a late launch. 16 and 23 can be reset by anybody and know nothing.

Spec: TCG PC Client Platform Firmware Profile 1.06, section 2.3.4; the UAPI Group's list of PCRs.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.init_data import digest_for
from imagers.evidence.steps import check_bound, mismatch
from imagers.evidence.tpm.structures import (
    ECDSA,
    GENERATED,
    HASHES,
    PCRS,
    QUOTE,
    RSASSA,
    SHA256,
    Attest,
    Selection,
    Signature,
    hashed,
)
from imagers.model.evidence import Bound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imagers.model.strict_json import JSON, View

__all__ = [
    "BOOT_CHAIN",
    "INIT_DATA_PCR",
    "attest_values",
    "check_bound_to",
    "check_form",
    "check_signature",
    "check_values",
    "parse_pcr_settings",
    "parse_values",
    "values_by_name",
]

BOOT_CHAIN = (0, 2, 4, 7, 8, 9, 11, 12, 13)
INIT_DATA_PCR = 8
_RESETTABLE = {16, 23}
_ALL = Selection(SHA256, tuple(range(PCRS)))
_DIGEST = sha256().digest_size
# What a key signs with: RSA with SHA-256, and each curve with the hash of its size.
_CURVES = {"secp256r1": (SHA256, hashes.SHA256()), "secp384r1": (0x000C, hashes.SHA384())}


def parse_values(values: Sequence[JSON], error: FormatError) -> tuple[bytes, ...]:
    """The values of all registers, from hex.

    Args:
        error: raised where they are something else.
    """
    found = []
    for value in values:
        try:
            found.append(bytes.fromhex(value) if isinstance(value, str) else b"")
        except ValueError:
            raise error from None
    if len(found) != PCRS or any(len(one) != _DIGEST for one in found):
        raise error
    return tuple(found)


def parse_pcr_settings(settings: View) -> tuple[int, ...]:
    """The registers that know a machine, from the settings of an appraisal: `{"pcrs": [4, 11]}`.

    Raises:
        FormatError: they are none, or those that anybody can reset.
    """
    if "pcrs" not in settings:
        return BOOT_CHAIN
    value = settings.value["pcrs"]
    listed = value if isinstance(value, list) else []
    registers = {one for one in listed if type(one) is int and 0 <= one < PCRS}
    if not listed or len(registers) != len(listed):
        raise settings.error(f"expected one or more registers, 0 to {PCRS - 1}, each once", "pcrs")
    if found := registers.intersection(_RESETTABLE):
        raise settings.error(f"register {min(found)} can be reset by anybody", "pcrs")
    return tuple(sorted(registers))


def check_form(attest: Attest) -> None:
    """Raise unless it is a quote that a TPM made."""
    if attest.magic != GENERATED:
        raise mismatch("magic", f"{GENERATED:#x}, which a TPM alone makes", f"{attest.magic:#x}")
    if attest.kind != QUOTE:
        raise mismatch("type", f"{QUOTE:#x} (quote)", f"{attest.kind:#x}")


def check_signature(
    attest: Attest, signature: Signature, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
) -> str:
    """Raise unless the key signed it; how it did, for a note."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            _check_scheme(signature, RSASSA, SHA256)
            key.verify(signature.value, attest.raw, padding.PKCS1v15(), hashes.SHA256())
            return f"RSASSA, {key.key_size} bits"
        number, digest = _CURVES[key.curve.name]
        _check_scheme(signature, ECDSA, number)
        pair = utils.encode_dss_signature(signature.r, signature.s)
        key.verify(pair, attest.raw, ec.ECDSA(digest))
    except InvalidSignature:
        raise EvidenceRejected("it is not by the attestation key") from None
    return f"ECDSA, {key.curve.name}"


def _check_scheme(signature: Signature, scheme: int, digest: int) -> None:
    names = {RSASSA: "RSASSA", ECDSA: "ECDSA"}
    wanted, found = (
        f"{names[one]} with {HASHES.get(two, f'{two:#06x}')}"
        for one, two in ((scheme, digest), (signature.scheme, signature.hash))
    )
    if wanted != found:
        raise mismatch("scheme", wanted, found)


def check_values(attest: Attest, values: Sequence[bytes], digest: int) -> None:
    """Raise unless it is of all registers of the SHA-256 bank, and of these values.

    Args:
        digest: the hash that the key signs with, which the digest in the quote is by.
    """
    if attest.selections != (_ALL,):
        found = "; ".join(map(str, attest.selections)) or "none"
        raise mismatch("selection", f"all {PCRS} of SHA-256, and no others", found)
    expected = hashed(digest, b"".join(values))
    if not compare_digest(expected, attest.pcr_digest):
        raise mismatch("digest of the registers", attest.pcr_digest.hex(), expected.hex())


def check_bound_to(
    bound: Bound, attest: Attest, values: Sequence[bytes], *, size: int | None
) -> str:
    """Raise unless the nonce and register 8 are what they have to be; what was compared.

    Args:
        size: of the nonce, to which report data is cut or padded; None: that of report data. A
            nonce is compared in full: one of another length would be compared in part.
    """
    expected = bound.report_data
    if size is None and expected is not None:
        size = len(expected)
    if size is not None and len(attest.extra_data) != size:
        raise mismatch("length of the nonce", size, len(attest.extra_data))
    init = None if bound.init_data is None else digest_for("tpm", bound.init_data)
    return check_bound(
        Bound(expected, init),
        report_data=attest.extra_data,
        init_data=values[INIT_DATA_PCR],
        field=f"PCR {INIT_DATA_PCR}",
    )


def attest_values(attest: Attest) -> dict[str, JSON]:
    """What a quote says beside its registers, as claims."""
    return {
        "clock": attest.clock,
        "reset_count": attest.reset_count,
        "restart_count": attest.restart_count,
        "clock_safe": attest.safe,
        "firmware_version": f"{attest.firmware_version:016x}",
    }


def values_by_name(
    values: Sequence[bytes], prefix: str, registers: Iterable[int]
) -> dict[str, JSON]:
    """The claims of some registers, by the names of their reference values."""
    return {f"{prefix}{at:02}": values[at].hex() for at in registers}
