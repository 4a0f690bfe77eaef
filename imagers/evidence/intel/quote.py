# SPDX-License-Identifier: Apache-2.0
"""A quote of Intel's quoting enclaves, of TDX and of SGX.

       0  header 48: version u16, key type u16 (2: ECDSA P-256), TEE u32 (0 SGX, 0x81 TDX),
          4 (SGX: versions of QE and PCE), vendor of the QE 16, user data 20
      48  version 5: kind of body u16 (1 SGX, 2 TDX 1.0, 3 TDX 1.5), its length u32
      48  body: SGX 384, TDX 1.0 584, TDX 1.5 648; in version 5 at 54
          length of what follows u32
          signature r and s, 32 each; attestation key x and y, 32 each
          versions 4 and 5: type u16 (6), length u32, and in it
          report of the QE 384, its signature 64, length u16 and authentication data,
          type u16 (5), length u32, certificates in PEM

Numbers are little-endian, coordinates and signatures big-endian. The signature is over header and
body; what follows is bound to it by the report of the QE, or is compared here with the one form
that it can have. Bytes after the end are padding, and nobody's.

Spec: Intel SGX ECDSA QuoteLibReference DCAP API, appendix A; Intel TDX DCAP Quoting Library API,
appendix A.3; Intel SDM volume 3D, REPORT; Intel TDX Module ABI, TDREPORT_STRUCT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import unpack_from
from typing import TYPE_CHECKING

from imagers.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HEADER_FIELDS", "MAX_QUOTE", "SGX", "SGX_BODY", "TDX", "Quote", "parse_quote"]

SGX, TDX = 0x00, 0x81
MAX_QUOTE = 64 * 1024
_WHAT = "quote"
_HEADER = 48
_INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_ECDSA_P256 = 2
_NESTED, _PEM_CHAIN = 6, 5  # types of certification data
_REPORT = 384

# Name as Trustee has it in claims: offset and length.
HEADER_FIELDS = {
    "version": (0, 2),
    "att_key_type": (2, 2),
    "tee_type": (4, 4),
    "reserved": (8, 4),
    "vendor_id": (12, 16),
    "user_data": (28, 20),
}
SGX_BODY = {
    "cpu_svn": (0, 16),
    "misc_select": (16, 4),
    "reserved1": (20, 12),
    "isv_ext_prod_id": (32, 16),
    "attributes.flags": (48, 8),
    "attributes.xfrm": (56, 8),
    "mr_enclave": (64, 32),
    "reserved2": (96, 32),
    "mr_signer": (128, 32),
    "reserved3": (160, 32),
    "config_id": (192, 64),
    "isv_prod_id": (256, 2),
    "isv_svn": (258, 2),
    "config_svn": (260, 2),
    "reserved4": (262, 42),
    "isv_family_id": (304, 16),
    "report_data": (320, 64),
}
_TDX_10 = {
    "tcb_svn": (0, 16),
    "mr_seam": (16, 48),
    "mrsigner_seam": (64, 48),
    "seam_attributes": (112, 8),
    "td_attributes": (120, 8),
    "xfam": (128, 8),
    "mr_td": (136, 48),
    "mr_config_id": (184, 48),
    "mr_owner": (232, 48),
    "mr_owner_config": (280, 48),
    "rtmr_0": (328, 48),
    "rtmr_1": (376, 48),
    "rtmr_2": (424, 48),
    "rtmr_3": (472, 48),
    "report_data": (520, 64),
}
_TDX_15 = {**_TDX_10, "tee_tcb_svn2": (584, 16), "mr_servicetd": (600, 48)}
_KINDS = {1: (SGX, SGX_BODY, 384), 2: (TDX, _TDX_10, 584), 3: (TDX, _TDX_15, 648)}


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote, read and not verified. It prints as its version.

    Attributes:
        kind: of the body, 1 SGX, 2 TDX 1.0, 3 TDX 1.5.
        signed: header and body.
        body: where the body begins in it.
        signature: r and s.
        key: x and y of the attestation key.
        qe_report: of the quoting enclave; `qe_signature` is over it.
        qe_data: what else is hashed with the key into that report.
        chain: certificates of the key that signed it, in PEM, padding included.
    """

    version: int
    kind: int = field(repr=False)
    signed: bytes = field(repr=False)
    body: int = field(repr=False)
    signature: bytes = field(repr=False)
    key: bytes = field(repr=False)
    qe_report: bytes = field(repr=False)
    qe_signature: bytes = field(repr=False)
    qe_data: bytes = field(repr=False)
    chain: bytes = field(repr=False)

    @property
    def tee(self) -> int:
        """`SGX` or `TDX`."""
        return _KINDS[self.kind][0]

    @property
    def fields(self) -> Mapping[str, tuple[int, int]]:
        """Names of the body's fields: offset in it, and length."""
        return _KINDS[self.kind][1]

    def octets(self, name: str) -> bytes:
        """A field of the body."""
        at, size = self.fields[name]
        at += self.body
        return self.signed[at : at + size]

    def number(self, name: str) -> int:
        """A field of the body that is a number."""
        return int.from_bytes(self.octets(name), "little")

    def header(self, name: str) -> bytes:
        """A field of the header."""
        at, size = HEADER_FIELDS[name]
        return self.signed[at : at + size]


class _Reader:
    """Parts one after another, none beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int, name: str) -> bytes:
        end = self._at + size
        if end > len(self._data):
            left = len(self._data) - self._at
            raise FormatError(f"expected {size} bytes of {name}, got {left}", what=_WHAT)
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, size: int, name: str) -> int:
        return int.from_bytes(self.take(size, name), "little")

    def block(self, expected: int, name: str) -> bytes:
        """Certification data of a type, which must be the last of what is there."""
        if (kind := self.number(2, f"the type of {name}")) != expected:
            raise FormatError(f"expected {name} of type {expected}, got {kind}", what=_WHAT)
        size, left = self.number(4, f"the length of {name}"), len(self._data) - self._at
        if size != left:
            raise FormatError(f"expected {left} bytes of {name}, got {size}", what=_WHAT)
        return self.take(size, name)


def parse_quote(data: bytes, *, tee: int) -> Quote:
    """The parts of a quote. Nothing of it is verified.

    Args:
        tee: which TEE's it must be, `SGX` or `TDX`.

    Raises:
        FormatError: it is none, of another TEE, or of a form that Intel's enclaves do not make.
    """
    if len(data) > MAX_QUOTE:
        raise FormatError(f"expected at most {MAX_QUOTE} bytes, got {len(data)}", what=_WHAT)
    if len(data) < _HEADER:
        raise FormatError(f"expected a header of {_HEADER} bytes, got {len(data)}", what=_WHAT)
    version, key_type, found = unpack_from("<HHI", data)
    versions = (3, 4, 5) if tee == SGX else (4, 5)
    if version not in versions:
        known = ", ".join(map(str, versions))
        raise FormatError(f"expected a version of {known}, got {version}", what=_WHAT)
    if found != tee:
        raise FormatError(f"expected TEE type {tee:#x}, got {found:#x}", what=_WHAT)
    if key_type != _ECDSA_P256:
        raise FormatError(
            f"expected attestation key type {_ECDSA_P256} (ECDSA P-256), got {key_type}", what=_WHAT
        )
    if data[12:28] != _INTEL:
        raise FormatError("expected a quoting enclave of Intel", what=_WHAT)
    reader = _Reader(data)
    reader.take(_HEADER, "header")
    kind, body = (1 if tee == SGX else 2), _HEADER
    if version == 5:
        kind, body = _body_kind(reader, tee), _HEADER + 6
    length = _KINDS[kind][2]
    reader.take(length, "body")
    inner = _Reader(reader.take(reader.number(4, "length"), "signature data"))
    signature, key = inner.take(64, "signature"), inner.take(64, "attestation key")
    if version > 3:
        inner = _Reader(inner.block(_NESTED, "certification data"))
    return Quote(
        version=version,
        kind=kind,
        signed=data[: body + length],
        body=body,
        signature=signature,
        key=key,
        qe_report=inner.take(_REPORT, "QE report"),
        qe_signature=inner.take(64, "signature of the QE report"),
        qe_data=inner.take(inner.number(2, "length"), "QE authentication data"),
        chain=inner.block(_PEM_CHAIN, "certificates"),
    )


def _body_kind(reader: _Reader, tee: int) -> int:
    kind, size = reader.number(2, "kind of body"), reader.number(4, "length of body")
    if kind not in _KINDS or _KINDS[kind][0] != tee:
        known = ", ".join(str(one) for one, (whose, _, _) in _KINDS.items() if whose == tee)
        raise FormatError(f"expected a body of kind {known}, got {kind}", what=_WHAT)
    if size != _KINDS[kind][2]:
        raise FormatError(f"expected a body of {_KINDS[kind][2]} bytes, got {size}", what=_WHAT)
    return kind
