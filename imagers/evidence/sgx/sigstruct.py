# SPDX-License-Identifier: Apache-2.0
"""SIGSTRUCT: who signed an enclave of SGX, and which one, as its builder has it in a file.

    for found in find_sigstructs(data):
        print(found.mr_enclave.hex(), found.mr_signer.hex())

It is a file of its own (Gramine's `.sig`), or inside a signed library (`.signed.so` of the SGX SDK,
Occlum's `libocclum-libos.signed.so`), or in one inside a jar (Teaclave Java). All numbers are
little-endian:

      0  header 16            24  header2 16           16  vendor 4, date 4 (BCD: year, month, day)
    128  modulus 384         512  exponent 4           516  signature 384
    900  misc_select 4, misc_mask 4                    928  attributes 16, attribute_mask 16
    960  enclave hash 32    1024  product 2, SVN 2    1040  q1 384, q2 384
   1808  end

The signature is RSA 3072, PKCS#1 v1.5, SHA-256, with the exponent 3, over bytes 0 to 127 and 900 to
1027. MRSIGNER is SHA-256 of the modulus. q1 and q2 only help the processor, and are not looked at.

Spec: Intel 64 and IA-32 Architectures Software Developer's Manual 3D, section 38.13.
"""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from imagers.errors import FormatError, SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_ENCLAVE", "Sigstruct", "find_sigstructs", "parse_sigstruct"]

MAX_ENCLAVE = 512 * 1024 * 1024
_SIZE = 1808
_HEADER = bytes.fromhex("06000000e10000000000010000000000")
_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
_EXPONENT = 3
_BITS = 3072
_DEBUG = 2
_MAX_FOUND = 16
_MAX_MEMBERS = 10_000
_WHAT = "SIGSTRUCT"
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Sigstruct:
    """What a builder signed; its signature is good, and whose it is nobody has said.

    Attributes:
        date: of the signature, as YYYY-MM-DD; "" where a tool wrote something else.
        debug: `forbidden`, `required`, or `allowed`: then the host chooses.
    """

    mr_enclave: bytes
    mr_signer: bytes
    product: int
    svn: int
    date: str
    debug: str


def find_sigstructs(data: bytes) -> tuple[Sigstruct, ...]:
    """Those in a file, each once: of its own, in a library, or in libraries in a jar.

    Raises:
        FormatError: there is none, there are too many, or a jar is damaged.
        SignatureInvalid: one is not by its own key.
    """
    found: dict[Sigstruct, None] = {}
    for part in _parts(data):
        at = -1
        while (at := part.find(_HEADER, at + 1)) >= 0:
            if part[at + 24 : at + 40] != _HEADER2:
                continue
            found[parse_sigstruct(part[at : at + _SIZE])] = None
            if len(found) > _MAX_FOUND:
                raise FormatError(f"expected at most {_MAX_FOUND}, got more", what=_WHAT)
    if not found:
        raise FormatError("there is none in this file", what=_WHAT)
    return tuple(found)


def parse_sigstruct(raw: bytes) -> Sigstruct:
    """A SIGSTRUCT, its signature verified with the key in it.

    Raises:
        FormatError: it is none.
        SignatureInvalid: its signature is not good.
    """
    if len(raw) != _SIZE or raw[:16] != _HEADER or raw[24:40] != _HEADER2:
        raise FormatError(f"expected {_SIZE} bytes with its headers", what=_WHAT)
    modulus = int.from_bytes(raw[128:512], "little")
    exponent = int.from_bytes(raw[512:516], "little")
    if exponent != _EXPONENT or modulus.bit_length() != _BITS:
        raise FormatError(
            f"expected a key RSA {_BITS} with exponent {_EXPONENT}, got {modulus.bit_length()} "
            f"bits and {exponent}",
            what=_WHAT,
        )
    try:
        rsa.RSAPublicNumbers(exponent, modulus).public_key().verify(
            raw[516:900][::-1], raw[:128] + raw[900:1028], padding.PKCS1v15(), hashes.SHA256()
        )
    except (InvalidSignature, ValueError):
        raise SignatureInvalid(f"the signature of a {_WHAT} is not by the key in it") from None
    flag, mask = raw[928] & _DEBUG, raw[944] & _DEBUG
    debug = "allowed" if not mask else ("required" if flag else "forbidden")
    date = raw[20:24][::-1].hex()
    return Sigstruct(
        mr_enclave=raw[960:992],
        mr_signer=sha256(raw[128:512]).digest(),
        product=int.from_bytes(raw[1024:1026], "little"),
        svn=int.from_bytes(raw[1026:1028], "little"),
        date=f"{date[:4]}-{date[4:6]}-{date[6:]}" if date.isdigit() else "",
        debug=debug,
    )


def _parts(data: bytes) -> Iterator[bytes]:
    """The file, or the members of a jar, which packs them."""
    if not data.startswith(b"PK\x03\x04"):
        yield data
        return
    left = MAX_ENCLAVE
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as jar:
            members = jar.infolist()
            if len(members) > _MAX_MEMBERS:
                raise FormatError(f"expected at most {_MAX_MEMBERS} members", what="jar")
            for member in members:
                with jar.open(member) as file:
                    part = file.read(left + 1)
                left -= len(part)
                if left < 0:
                    raise FormatError(f"expected at most {MAX_ENCLAVE} bytes in it", what="jar")
                yield part
    except _DAMAGED:
        raise FormatError("is damaged, or packed in a way that is not known", what="jar") from None
