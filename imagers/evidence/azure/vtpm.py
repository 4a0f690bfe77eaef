# SPDX-License-Identifier: Apache-2.0
"""What both kinds of Azure's machines share: the paravisor's report, a quote of its vTPM. No IO.

    0     HCLA, version u32, size u32, request u32 (2), status u32, 12 zeros
    32    the hardware's report, 1184 bytes: of SNP, or of TDX, 1024 and zeros
    1216  size u32, version u32 (1), kind u32 (2 SNP, 4 TDX), hash u32 (1: SHA-256), size u32
    1236  variable data: JSON; zeros behind it

The paravisor (HCL) runs below the guest, in the same confidential machine, and is the vTPM. It puts
the hash of the variable data into the hardware's report, and the vTPM's attestation key (AK) into
the variable data: whoever believes hardware and paravisor believes quotes of that key.

The steps of both verifiers:

1. *Form*, 2. *Signature* (RSASSA with SHA-256, by the key in the variable data), 3. *Registers*: as
   `imagers.evidence.tpm.verify` has them.
4. *Variable data.* The hardware's report has its hash, and zeros behind it, as report data.
5. *Hardware.* What the hardware reported is genuine, of a closed guest, by all steps of its own
   verifier, which are numbered 5.1, 5.2 and so on.
6. *Bound.* The nonce of the quote is the report data, of the same length; of evidence of version 2
   the user data of the variable data too, padded with zeros. Init data are in register 8.

What the hardware measured is the paravisor, which is Microsoft's and the same for all: it says that
this is a vTPM that may be believed. Whose machine it is say the registers.

Spec: Microsoft, "Azure confidential VMs: guest attestation, HCL report"; Trustee, `az-snp-vtpm`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from imagers.errors import FormatError
from imagers.evidence.steps import mismatch, step
from imagers.evidence.tpm.quote import (
    INIT_DATA_PCR,
    attest_values,
    check_bound_to,
    check_form,
    check_signature,
    check_values,
    parse_values,
    values_by_name,
)
from imagers.evidence.tpm.structures import (
    MAX_ATTEST,
    PCRS,
    RSASSA,
    SHA256,
    Attest,
    Signature,
    parse_attest,
)
from imagers.model.base64 import decode_base64, decode_base64url
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.evidence import Bound
    from imagers.model.strict_json import JSON

__all__ = [
    "HCL_SNP",
    "HCL_TDX",
    "MAX_JSON",
    "HCLReport",
    "VTPMQuote",
    "parse_hcl_report",
    "parse_parts",
]

HCL_SNP, HCL_TDX = 2, 4
MAX_JSON = 512 * 1024
_MAX_REPORT = 64 * 1024
_MAX_PART = 64 * 1024
_HEAD = struct.Struct("<4s7I")
_HARDWARE_BYTES = 1184
_RUNTIME = struct.Struct("<5I")
_BEGIN = _HEAD.size + _HARDWARE_BYTES + _RUNTIME.size
_VERSIONS = (1, 2)
_ATTESTATION = 2
_SHA256 = 1
_USER_DATA = 64
_AK = "HCLAkPub"
_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class HCLReport:
    """A report of the paravisor. Nothing of it is verified.

    Attributes:
        kind: `HCL_SNP` or `HCL_TDX`.
        hardware: the bytes of the hardware's report.
        bound: what that report has to have as report data.
        ak: the vTPM's attestation key.
        user_data: that the guest asked for; b"": there is none.
        configuration: of the machine, as far as it is yes or no.
    """

    kind: int
    hardware: bytes = field(repr=False)
    bound: bytes
    ak: rsa.RSAPublicKey = field(repr=False)
    user_data: bytes = field(repr=False)
    configuration: dict[str, JSON]


def parse_hcl_report(raw: bytes) -> HCLReport:
    """The report as the vTPM keeps it.

    Raises:
        FormatError: it is none, or has something where nothing may be.
    """
    what = "HCL report"
    if not _BEGIN <= len(raw) <= _MAX_REPORT:
        raise FormatError(f"expected {_BEGIN} to {_MAX_REPORT} bytes, got {len(raw)}", what=what)
    magic, version, size, request, status, *spare = _HEAD.unpack_from(raw)
    data_size, data_version, kind, algorithm, length = _RUNTIME.unpack_from(
        raw, _BEGIN - _RUNTIME.size
    )
    end = _BEGIN + length
    if (
        magic != b"HCLA"
        or version not in _VERSIONS
        or (request, status, data_version) != (_ATTESTATION, 0, 1)
        or any(spare)
        or (size, data_size) != (end, _RUNTIME.size + length)
        or end > len(raw)
        or any(raw[end:])
    ):
        raise FormatError("its head is not that of a report of Azure's paravisor", what=what)
    if kind not in (HCL_SNP, HCL_TDX):
        raise FormatError(f"expected a report of SNP (2) or TDX (4), got {kind}", what=what)
    if algorithm != _SHA256:
        raise FormatError(f"expected the hash SHA-256 (1), got {algorithm}", what=what)
    data = raw[_BEGIN:end]
    view = View.parse(data, what="variable data of the HCL report", max_bytes=_MAX_REPORT)
    configuration = view.object("vm-configuration").value
    return HCLReport(
        kind=kind,
        hardware=raw[_HEAD.size : _HEAD.size + _HARDWARE_BYTES],
        bound=sha256(data).digest().ljust(_USER_DATA, b"\0"),
        ak=_parse_ak(view),
        user_data=view.hex("user-data") if "user-data" in view else b"",
        configuration={
            name.replace("-", "_"): value
            for name, value in configuration.items()
            if isinstance(value, bool)
        },
    )


def _parse_ak(view: View) -> rsa.RSAPublicKey:
    found = [one for one in view.objects("keys", most=8) if one.value.get("kid") == _AK]
    if len(found) != 1:
        raise view.error(f"expected one key {_AK}, got {len(found)}", "keys")
    (jwk,) = found
    if jwk.text("kty") != "RSA":
        raise jwk.error("expected an RSA key", "kty")
    n, e = (
        int.from_bytes(decode_base64url(jwk.text(name), what=_AK, where=jwk.at(name), max_size=512))
        for name in ("n", "e")
    )
    if n.bit_length() < _RSA_BITS:
        raise jwk.error(f"expected at least {_RSA_BITS} bits, got {n.bit_length()}", "n")
    try:
        return rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        raise jwk.error("expected an RSA key", "n") from None


@dataclass(frozen=True, slots=True)
class VTPMQuote:
    """A quote of the vTPM, and the report that has its key. Nothing of it is verified.

    Attributes:
        version: of the evidence: 0, 1 or 2.
        values: of the registers.
    """

    version: int
    hcl: HCLReport
    attest: Attest
    signature: Signature = field(repr=False)
    values: tuple[bytes, ...] = field(repr=False)

    def check_quote(self, note: Callable[[str], None]) -> None:
        """Steps 1 to 3."""
        with step("1, form"):
            check_form(self.attest)
        note("step 1, form: a quote")
        with step("2, signature"):
            told = check_signature(self.attest, self.signature, self.hcl.ak)
        note(f"step 2, signature: {told}")
        with step("3, registers"):
            check_values(self.attest, self.values, SHA256)
        note(f"step 3, registers: all {PCRS} of SHA-256")

    def check_variable_data(self, *reports: bytes, note: Callable[[str], None]) -> None:
        """Step 4.

        Args:
            reports: report data of what the hardware reported.
        """
        with step("4, variable data"):
            for found in reports:
                if not compare_digest(found, self.hcl.bound):
                    raise mismatch(
                        "hash of the variable data, as report data",
                        self.hcl.bound.hex(),
                        found.hex(),
                    )
        note("step 4, variable data: the hardware has its hash")

    def check_bound(self, bound: Bound, note: Callable[[str], None]) -> None:
        """Step 6."""
        with step("6, bound"):
            told = check_bound_to(bound, self.attest, self.values, size=None)
            if self.version >= 2 and bound.report_data is not None:
                expected = bound.report_data.ljust(_USER_DATA, b"\0")
                if not compare_digest(self.hcl.user_data, expected):
                    raise mismatch("user data", expected.hex(), self.hcl.user_data.hex())
        note(f"step 6, bound: {told}")

    @property
    def report_data(self) -> str:
        """As it is a claim."""
        return self.attest.extra_data.hex()

    @property
    def init_data(self) -> str:
        """As it is a claim."""
        return self.values[INIT_DATA_PCR].hex()

    @property
    def claims(self) -> dict[str, JSON]:
        """What vTPM and paravisor say, as Trustee names it, and more."""
        return {
            "report_data": self.report_data,
            "init_data": self.init_data,
            "tpm": values_by_name(self.values, "pcr", range(PCRS)) | attest_values(self.attest),
            "vm_configuration": self.hcl.configuration,
        }


def parse_parts(body: JSON, names: tuple[str, str, str], *, what: str) -> tuple[VTPMQuote, bytes]:
    """A quote with its report, and the third part of the evidence.

        {"version": 1 or 2, "tpm_quote": {"signature": hex, "message": hex, "pcrs": [hex]},
         "hcl_report": base64url, ...: base64url}

    and without a version the same with lists of numbers, and names of its own.

    Args:
        names: of quote, report and third part in evidence without a version.

    Raises:
        FormatError: it is something else.
    """
    view = View(body, what=what)
    version = 0
    if "version" in view:
        version = view.integer("version", minimum=1, maximum=2)
        names = ("tpm_quote", "hcl_report", names[2])
    quote = view.object(names[0])
    pcrs = quote.value.get("pcrs")
    error = quote.error(f"expected {PCRS} values of 32 bytes", "pcrs")
    listed = pcrs if isinstance(pcrs, list) else []
    if version == 0:
        signature, message = (quote.octets(one) for one in ("signature", "message"))
        listed = [_as_hex(one, error) for one in listed]
        hcl = view.octets(names[1])
        third = view.value.get(names[2])
        part = third.encode() if isinstance(third, str) else view.octets(names[2])
    else:
        signature, message = (quote.hex(one) for one in ("signature", "message"))
        hcl, part = (_padded(view, one) for one in names[1:])
    if len(signature) > MAX_ATTEST:
        raise quote.error(f"expected at most {MAX_ATTEST} bytes", "signature")
    found = VTPMQuote(
        version=version,
        hcl=parse_hcl_report(hcl),
        attest=parse_attest(message),
        signature=Signature(RSASSA, SHA256, signature),
        values=parse_values(listed, error),
    )
    return found, part


def _as_hex(value: JSON, error: FormatError) -> str:
    try:
        return bytes(value).hex()  # type: ignore[arg-type]  # checked by bytes itself
    except (TypeError, ValueError):
        raise error from None


def _padded(view: View, name: str) -> bytes:
    """URL-safe base64 that has its padding, which no other format of ours has."""
    text = view.text(name)
    if {"+", "/"}.intersection(text):
        raise view.error("expected URL-safe base64", name)
    plain = text.replace("-", "+").replace("_", "/")
    return decode_base64(plain, what=view.what, where=view.at(name), max_size=_MAX_PART)
