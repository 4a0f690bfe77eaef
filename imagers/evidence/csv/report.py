# SPDX-License-Identifier: Apache-2.0
"""The attestation report of Hygon CSV, as the guest's device gives it.

    0    user_pubkey_digest 32     32   vm_id 16           48   vm_version 16
    64   report_data 64            128  mnonce 16          144  measure 32
    176  policy 4                  180  sig_usage 4        184  sig_algo 4

    version 1                               version 2
    188  anonce 4                           188  build 4, rtmr_version 2, 14
    192  r 72, s 72                         208  rtmr0 to rtmr4, 32 each, 656
    336  PEK 2084, serial number 64         1024 r 72, s 72
    2484 32, MAC 32                         1168 PEK, serial number, 32, MAC

Zeros fill it up to 4096 bytes. Numbers are little-endian. Of version 1 all before `anonce` is there
XORed with it, and so are PEK and serial number; the signature is over the first 180 bytes as they
are there: **anonce is signed by nobody**. Of version 2 it is over the first 1024 bytes.

The MAC is HMAC-SM3 with `mnonce`, over the 2180 bytes before it. csv-rs, whose JSON the protocol
has, takes the XOR off PEK and serial number after it looked at the MAC, and puts zeros behind them:
what it gives has no MAC that can be looked at.

Spec: Hygon CSV API; openanolis/csv-rs, `api::guest`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, hmac

from imagers.errors import FormatError
from imagers.evidence.csv.certificates import Certificate, parse_certificate

if TYPE_CHECKING:
    from imagers.model.strict_json import JSON, View

__all__ = [
    "EXTENDED",
    "PAGE",
    "Report",
    "mac_of",
    "masked",
    "parse_report",
    "report_of_json",
    "report_to_json",
]

PAGE = 4096
EXTENDED = b"ATTESTATION_EXT\0"
_WHAT = "CSV report"
_NUMBER, _SLOT = 32, 72  # bytes of a number that count, and that it has
_HEAD = {
    "user_pubkey_digest": (0, 32),
    "vm_id": (32, 16),
    "vm_version": (48, 16),
    "report_data": (64, 64),
    "mnonce": (128, 16),
    "measure": (144, 32),
    "policy": (176, 4),
    "sig_usage": (180, 4),
    "sig_algo": (184, 4),
}
_TAIL = {
    "build": (188, 4),
    "rtmr_version": (192, 2),
    "reserved0": (194, 14),
    **{f"rtmr{number}": (208 + 32 * number, 32) for number in range(5)},
    "reserved1": (368, 656),
}
_FIELDS = {1: _HEAD, 2: _HEAD | _TAIL}
_ANONCE = slice(188, 192)
_SIGNATURE = {1: 192, 2: 1024}
_SIGNED = {1: 180, 2: 1024}
_PEK, _SERIAL, _SPARE, _MAC = (0, 2084), (2084, 2148), (2148, 2180), (2180, 2212)


@dataclass(frozen=True, slots=True)
class Report:
    """A report, and what stands behind it. Nothing of it is verified.

    It prints without its bytes, which have the chip's serial number.

    Attributes:
        version: 1 or 2.
        raw: up to the end of the signature, as it came.
        signer: PEK, serial number, 32 bytes and MAC, as the device gives them.
        is_whole: `signer` is as the device gave it, so that the MAC can be looked at.
    """

    version: int
    raw: bytes = field(repr=False)
    signer: bytes = field(repr=False)
    is_whole: bool

    @property
    def anonce(self) -> bytes:
        """What its values are XORed with; of version 2 zeros."""
        return self.raw[_ANONCE] if self.version == 1 else bytes(4)

    def octets(self, name: str) -> bytes:
        """A field as it is meant."""
        offset, size = _FIELDS[self.version][name]
        return masked(self.raw[offset : offset + size], self.anonce)

    def number(self, name: str) -> int:
        """A field that is a number."""
        return int.from_bytes(self.octets(name), "little")

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return self.raw[: _SIGNED[self.version]]

    @property
    def signature(self) -> bytes:
        """R and s, big-endian."""
        at = _SIGNATURE[self.version]
        r, s = (self.raw[one : one + _NUMBER][::-1] for one in (at, at + _SLOT))
        return r + s

    @property
    def pek(self) -> Certificate:
        """The certificate of the key that signed.

        Raises:
            FormatError: it is none.
        """
        return parse_certificate(masked(self.signer[slice(*_PEK)], self.anonce), "PEK")

    @property
    def serial(self) -> str:
        """The serial number of the chip, which nobody signed.

        Raises:
            FormatError: it is none.
        """
        data = masked(self.signer[slice(*_SERIAL)], self.anonce).rstrip(b"\0")
        text = data.decode("ascii", "replace")
        if not data or not text.isascii() or not text.isalnum():
            raise FormatError("expected a serial number of letters and digits", what=_WHAT)
        return text

    @property
    def mac(self) -> bytes:
        """As it is there."""
        return self.signer[slice(*_MAC)]


def masked(data: bytes, anonce: bytes) -> bytes:
    """Bytes XORed with the four of `anonce`, again and again; what has been, comes back.

    Raises:
        ValueError: there are not four bytes.
    """
    if len(anonce) != 4:
        raise ValueError(f"expected 4 bytes, got {len(anonce)}")
    mask = (anonce * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(len(data))


def mac_of(mnonce: bytes, signer: bytes) -> bytes:
    """The MAC over what stands behind a report.

    Args:
        signer: what stands there, with or without a MAC at its end.
    """
    code = hmac.HMAC(mnonce, hashes.SM3())
    code.update(signer[: _SPARE[1]])
    return code.finalize()


def parse_report(raw: bytes) -> Report:
    """The report in the bytes that a guest's device gave.

    Raises:
        FormatError: another length, or something in what nobody signed.
    """
    sizes = {version: at + 2 * _SLOT + _MAC[1] for version, at in _SIGNATURE.items()}
    if len(raw) > PAGE or len(raw) < sizes[1]:
        raise FormatError(
            f"expected {sizes[1]} bytes (version 1), {sizes[2]} (version 2) or {PAGE}, "
            f"got {len(raw)}",
            what=_WHAT,
        )
    version = 2 if any(raw[sizes[1] :]) else 1
    return _cut(raw, version, is_whole=True)


def _cut(raw: bytes, version: int, *, is_whole: bool) -> Report:
    end = _SIGNATURE[version] + 2 * _SLOT
    report = Report(version, bytes(raw[:end]), bytes(raw[end : end + _MAC[1]]), is_whole)
    if len(report.signer) != _MAC[1] or any(raw[end + _MAC[1] :]):
        raise FormatError(f"expected a report of version {version} and zeros", what=_WHAT)
    for at in (end - 2 * _SLOT, end - _SLOT):
        if any(raw[at + _NUMBER : at + _SLOT]):  # signed by nobody
            raise FormatError(f"expected numbers of {_NUMBER} bytes in its signature", what=_WHAT)
    return report


def report_of_json(view: View, *, pek: Certificate) -> Report:
    """The report in the JSON of the protocol.

    Args:
        view: `attestation_report`.
        pek: the certificate that stands beside it, which has to be the one in it.

    Raises:
        FormatError: a member is missing, of another type, or says what no report has.
    """
    magic = view.octets("magic", size=16) if "magic" in view else bytes(16)
    flags = view.integer("flags", maximum=2**32 - 1)
    if magic not in (bytes(16), EXTENDED):
        raise view.error("expected zeros, or 'ATTESTATION_EXT'", "magic")
    is_extended = magic == EXTENDED and flags != 0
    if is_extended and flags != 1:
        raise view.error(f"expected 0 or 1, got {flags}: its report is not known here", "flags")
    found = _cut(view.octets("data", size=PAGE), 2 if is_extended else 1, is_whole=False)
    inside = found.signer[slice(*_PEK)]
    if inside == pek.raw:  # as csv-rs leaves it
        signer = masked(found.signer[: _SERIAL[1]], found.anonce) + found.signer[_SERIAL[1] :]
        return Report(found.version, found.raw, signer, is_whole=False)
    if masked(inside, found.anonce) == pek.raw:  # as the device gives it
        return Report(found.version, found.raw, found.signer, is_whole=True)
    raise view.error("expected the PEK that stands beside it, got another", "data")


def report_to_json(report: Report) -> dict[str, JSON]:
    """The report in the JSON of the protocol, as csv-rs gives it."""
    plain = masked(report.signer[: _SERIAL[1]], report.anonce) + bytes(32) + report.mac
    data = (report.raw + plain).ljust(PAGE, b"\0")
    magic, flags = (bytes(16), 0) if report.version == 1 else (EXTENDED, 1)
    return {"magic": list(magic), "flags": flags, "data": list(data)}
