# SPDX-License-Identifier: Apache-2.0
"""The bytes of a TPM: what it attests, signs with, and what its keys are. Numbers are big-endian.

    TPMS_ATTEST     magic u32, type u16, qualified signer 2B, extra data 2B,
                    clock u64, resets u32, restarts u32, safe u8, firmware version u64, and of a
                    quote: number of selections u32, (bank u16, size u8, bits) each, digest 2B
    TPMT_SIGNATURE  RSASSA: 0014, hash u16, signature 2B;  ECDSA: 0018, hash u16, r 2B, s 2B
    TPMT_PUBLIC     type u16, hash of the name u16, attributes u32, policy 2B,
                    RSA: symmetric, scheme, bits u16, exponent u32, modulus 2B
                    ECC: symmetric, scheme, curve u16, KDF, x 2B, y 2B

`2B` is a size of two bytes and as many bytes. Everything is read to its last byte.

Spec: TCG TPM 2.0 Library 1.59, part 2: 10.12.8 (TPMS_ATTEST), 11.3.4 (TPMT_SIGNATURE), 12.2.4
(TPMT_PUBLIC); part 1: 16 (names).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import new
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ALG_NULL",
    "DECRYPT",
    "ECDSA",
    "FIXED_PARENT",
    "FIXED_TPM",
    "GENERATED",
    "HASHES",
    "MAX_ATTEST",
    "PCRS",
    "QUOTE",
    "RESTRICTED",
    "RSASSA",
    "SENSITIVE_DATA_ORIGIN",
    "SHA256",
    "SIGN",
    "Attest",
    "Public",
    "Reader",
    "Selection",
    "Signature",
    "hashed",
    "parse_attest",
    "parse_public",
    "parse_signature",
    "sized",
    "spki_of",
]

GENERATED, QUOTE = 0xFF544347, 0x8018
RSASSA, ECDSA, ALG_NULL = 0x0014, 0x0018, 0x0010
SHA256 = 0x000B
HASHES = {0x0004: "SHA-1", SHA256: "SHA-256", 0x000C: "SHA-384", 0x000D: "SHA-512"}
PCRS = 24
MAX_ATTEST = 2048
_MAX_SIGNATURE = 1024
_MAX_PUBLIC = 2048
_MAX_SELECTIONS = 16
_RSA, _ECC = 0x0001, 0x0023
_RSA_BITS = (2048, 3072, 4096)
_EXPONENT = 65537  # what 0 stands for
_CURVES: dict[int, ec.EllipticCurve] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}
_SCHEMES_WITH_HASH = (RSASSA, 0x0016, 0x0017, ECDSA, 0x0019, 0x001B, 0x001C)
_RSAES = 0x0015

FIXED_TPM, FIXED_PARENT, SENSITIVE_DATA_ORIGIN = 1 << 1, 1 << 4, 1 << 5
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18


class Reader:
    """Takes values from bytes, one after another.

    Args:
        what: the bytes are, for messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def take(self, size: int) -> bytes:
        """So many bytes.

        Raises:
            FormatError: there are fewer.
        """
        end = self._at + size
        if end > len(self._data):
            left = len(self._data) - self._at
            raise FormatError(
                f"expected {size} bytes at {self._at}, got {left}: it is cut off", what=self._what
            )
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self, size: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size))

    def sized(self, most: int) -> bytes:
        """A size of two bytes, and as many bytes."""
        size = self.number(2)
        if size > most:
            raise FormatError(f"expected at most {most} bytes, got {size}", what=self._what)
        return self.take(size)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        """Raise FormatError if anything is left."""
        if left := len(self._data) - self._at:
            raise FormatError(f"expected nothing behind it, got {left} bytes", what=self._what)


def sized(data: bytes) -> bytes:
    """Bytes behind their size."""
    return struct.pack(">H", len(data)) + data


@dataclass(frozen=True, slots=True)
class Selection:
    """Registers of a bank.

    Attributes:
        bank: the number of its hash.
        registers: in their order.
    """

    bank: int
    registers: tuple[int, ...]

    def __str__(self) -> str:
        bank = HASHES.get(self.bank, f"{self.bank:#06x}")
        return f"{bank} {', '.join(map(str, self.registers)) or 'none'}"

    def pack(self) -> bytes:
        """As it stands in a list."""
        bits = sum(1 << one for one in self.registers)
        return struct.pack(">HB", self.bank, PCRS // 8) + bits.to_bytes(PCRS // 8, "little")


@dataclass(frozen=True, slots=True)
class Attest:
    """What a TPM attests. Nothing of it is verified.

    Attributes:
        raw: what is signed.
        magic: `GENERATED`, of all that a TPM makes itself: a restricted key signs nothing else
            that begins so.
        kind: `QUOTE`, or another; then there are neither selections nor a digest.
        extra_data: the nonce.
        clock: milliseconds that the TPM was in use; then how often it was reset, and restarted,
            and whether no higher value was told before.
    """

    raw: bytes = field(repr=False)
    magic: int
    kind: int
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selections: tuple[Selection, ...] = ()
    pcr_digest: bytes = b""


def parse_attest(raw: bytes) -> Attest:
    """What is signed.

    Raises:
        FormatError: it is something else, or there is more.
    """
    what = "TPM attestation"
    if len(raw) > MAX_ATTEST:
        raise FormatError(f"expected at most {MAX_ATTEST} bytes, got {len(raw)}", what=what)
    reader = Reader(raw, what)
    magic, kind = reader.number(4), reader.number(2)
    reader.sized(68)  # qualified name of the key, which has no meaning without its parents
    extra_data = reader.sized(66)
    clock, resets, restarts = reader.number(8), reader.number(4), reader.number(4)
    safe = reader.number(1)
    if safe > 1:
        raise FormatError(f"expected yes (1) or no (0), got {safe}", what=what)
    version = reader.number(8)
    told = Attest(raw, magic, kind, extra_data, clock, resets, restarts, bool(safe), version)
    if (magic, kind) != (GENERATED, QUOTE):
        return told
    selections = tuple(_selections(reader, what))
    digest = reader.sized(64)
    reader.end()
    return Attest(
        raw, magic, kind, extra_data, clock, resets, restarts, bool(safe), version,
        selections, digest,
    )  # fmt: skip


def _selections(reader: Reader, what: str) -> Iterable[Selection]:
    count = reader.number(4)
    if count > _MAX_SELECTIONS:
        raise FormatError(f"expected at most {_MAX_SELECTIONS} selections, got {count}", what=what)
    for _ in range(count):
        bank, size = reader.number(2), reader.number(1)
        bits = int.from_bytes(reader.take(size), "little")
        yield Selection(bank, tuple(at for at in range(size * 8) if bits >> at & 1))


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of a TPM.

    Attributes:
        scheme: `RSASSA` or `ECDSA`.
        hash: the number of its hash.
        value: of RSASSA.
        r, s: of ECDSA.
    """

    scheme: int
    hash: int
    value: bytes = b""
    r: int = 0
    s: int = 0


def parse_signature(raw: bytes) -> Signature:
    """A TPMT_SIGNATURE.

    Raises:
        FormatError: it is none by RSASSA or ECDSA, or there is more.
    """
    what = "TPM signature"
    if len(raw) > _MAX_SIGNATURE:
        raise FormatError(f"expected at most {_MAX_SIGNATURE} bytes, got {len(raw)}", what=what)
    reader = Reader(raw, what)
    scheme = reader.number(2)
    if scheme not in (RSASSA, ECDSA):
        raise FormatError(f"expected RSASSA (0x14) or ECDSA (0x18), got {scheme:#x}", what=what)
    digest = reader.number(2)
    if scheme == RSASSA:
        found = Signature(scheme, digest, reader.sized(512))
    else:
        r, s = (int.from_bytes(reader.sized(66)) for _ in "rs")
        found = Signature(scheme, digest, r=r, s=s)
    reader.end()
    return found


@dataclass(frozen=True, slots=True)
class Public:
    """The public part of a key in a TPM. Nothing of it is verified.

    Attributes:
        raw: its bytes.
        attributes: bits, such as `FIXED_TPM`.
        scheme: that it signs with, and the hash; `ALG_NULL`: any.
    """

    raw: bytes = field(repr=False)
    name_hash: int
    attributes: int
    scheme: tuple[int, int]
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey = field(repr=False)

    @property
    def name(self) -> bytes:
        """By which a TPM knows the key: a hash over all that is here.

        Raises:
            FormatError: the hash is unknown.
        """
        return struct.pack(">H", self.name_hash) + hashed(self.name_hash, self.raw)


def hashed(number: int, data: bytes) -> bytes:
    """The digest by the number of a hash.

    Raises:
        FormatError: it is unknown.
    """
    if number not in HASHES:
        raise FormatError(f"expected a hash of {', '.join(HASHES.values())}, got {number:#06x}")
    return new(HASHES[number].replace("-", "").lower(), data).digest()


def parse_public(raw: bytes) -> Public:
    """A TPMT_PUBLIC.

    Raises:
        FormatError: it is no RSA key and none on P-256 or P-384, or there is more.
    """
    what = "public part of a TPM's key"
    if len(raw) > _MAX_PUBLIC:
        raise FormatError(f"expected at most {_MAX_PUBLIC} bytes, got {len(raw)}", what=what)
    reader = Reader(raw, what)
    kind, name_hash, attributes = reader.number(2), reader.number(2), reader.number(4)
    reader.sized(64)  # who may use it, which the name is over
    if kind not in (_RSA, _ECC):
        raise FormatError(f"expected RSA (0x1) or a curve (0x23), got {kind:#x}", what=what)
    if reader.number(2) != ALG_NULL:  # what it encrypts with; a key that signs has none
        reader.take(4)
    scheme = _scheme(reader, what)
    key = _rsa_key(reader, what) if kind == _RSA else _ec_key(reader, what)
    reader.end()
    return Public(raw, name_hash, attributes, scheme, key)


def _scheme(reader: Reader, what: str) -> tuple[int, int]:
    scheme = reader.number(2)
    if scheme in (ALG_NULL, _RSAES):
        return scheme, ALG_NULL
    if scheme not in _SCHEMES_WITH_HASH:
        raise FormatError(f"has an unknown scheme {scheme:#06x}", what=what)
    return scheme, reader.number(2)


def _rsa_key(reader: Reader, what: str) -> rsa.RSAPublicKey:
    bits, exponent = reader.number(2), reader.number(4) or _EXPONENT
    modulus = reader.sized(512)
    if bits not in _RSA_BITS or len(modulus) * 8 != bits or not modulus[0] & 0x80:
        found = int.from_bytes(modulus).bit_length()
        raise FormatError(f"expected a modulus of 2048, 3072 or 4096 bits, got {found}", what=what)
    try:
        return rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus)).public_key()
    except ValueError:
        raise FormatError("is no RSA key", what=what) from None


def _ec_key(reader: Reader, what: str) -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(reader.number(2))
    if curve is None:
        raise FormatError("expected a key on P-256 or P-384", what=what)
    if reader.number(2) != ALG_NULL:  # a function for keys, of ECDH
        reader.number(2)
    x, y = (int.from_bytes(reader.sized(66)) for _ in "xy")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("is no point on its curve", what=what) from None


def spki_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """A key as others name it: SubjectPublicKeyInfo in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
