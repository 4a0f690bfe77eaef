# SPDX-License-Identifier: Apache-2.0
"""COSE_Sign1: one signer's signature over bytes, in CBOR.

    message = parse_sign1(raw, what="envelope", max_bytes=65536)
    message.check_signature(key)        # whether the key is a good one is the caller's to know
    message.payload

    18([protected: bytes of a map, unprotected: map, payload: bytes, signature: bytes])

What a header means is its reader's to say, critical ones included.

Spec: RFC 9052 sections 3, 4.2 and 4.4; RFC 9360 section 2 (x5chain).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.pki.algorithms import algorithm_of, verify

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALG", "CONTENT_TYPE", "CRIT", "X5CHAIN", "Sign1", "build_sign1", "parse_sign1"]

ALG, CRIT, CONTENT_TYPE, X5CHAIN = 1, 2, 3, 33  # labels of headers
_TAG = 18
_MAP = 5  # the major type
# How many bytes of a count stand behind a head; the other heads have no count of their own.
_COUNT_BYTES = {24: 1, 25: 2, 26: 4}


@dataclass(frozen=True, slots=True)
class Sign1:
    """One message. Nothing of it is verified.

    Attributes:
        what: name of the message in errors.
        protected: headers that are signed, by number or name.
        unprotected: headers that anybody may have written.
        payload: what was signed; read it after the check.
        to_be_signed: the bytes that the signature is over.
    """

    what: str
    protected: Mapping[int | str, Any]
    unprotected: Mapping[int | str, Any]
    payload: bytes
    signature: bytes
    to_be_signed: bytes

    def certificates(self) -> list[bytes]:
        """DER of the certificates in x5chain, leaf first; they are not signed.

        Raises:
            FormatError: there are none.
        """
        chain = self.unprotected.get(X5CHAIN)
        if isinstance(chain, bytes):  # one certificate needs no array
            return [chain]
        if not isinstance(chain, list | tuple) or not all(isinstance(one, bytes) for one in chain):
            raise FormatError("expected certificates in label 33", what=self.what)
        return list(chain)

    def check_signature(self, key: object) -> None:
        """Raise unless `key` made the signature, by its one algorithm, which the header names.

        Raises:
            SignatureInvalid: it did not.
        """
        try:
            expected = algorithm_of(key)
        except Unsupported as error:
            raise SignatureInvalid(f"{self.what}: {error}") from error
        told = self.protected.get(ALG)
        if told != expected.cose or isinstance(told, bool):
            raise SignatureInvalid(
                f"{self.what}: expected algorithm {expected.cose} ({expected.jws}) for this key, "
                f"got '{str(told)[:40]}'"
            )
        verify(key, self.signature, self.to_be_signed, what=self.what)


def parse_sign1(raw: bytes, *, what: str, max_bytes: int) -> Sign1:
    """The tagged COSE_Sign1 in `raw`, with its payload inside.

    Raises:
        FormatError: it is none, or longer than `max_bytes`, or has a protected header twice.
    """
    if len(raw) > max_bytes:
        raise FormatError(f"expected at most {max_bytes} bytes, got {len(raw)}", what=what)
    message = _decode(raw, what)
    parts = getattr(message, "value", None)
    if getattr(message, "tag", None) != _TAG or not isinstance(parts, list | tuple):
        raise FormatError("expected a tagged COSE_Sign1", what=what)
    if len(parts) != 4:
        raise FormatError(f"expected 4 parts of a COSE_Sign1, got {len(parts)}", what=what)
    protected_raw, unprotected, payload, signature = parts
    if not (
        isinstance(protected_raw, bytes)
        and isinstance(payload, bytes)
        and isinstance(signature, bytes)
        and _is_headers(unprotected)
    ):
        raise FormatError("is not a COSE_Sign1 with its payload inside", what=what)
    protected = _decode(protected_raw, what) if protected_raw else {}
    if not _is_headers(protected) or len(protected) != _count(protected_raw):
        # Of a label that is there twice one reader takes the first and another one the last.
        raise FormatError("expected a map of protected headers, each there once", what=what)
    return Sign1(
        what=what,
        protected=protected,
        unprotected=unprotected,
        payload=payload,
        signature=signature,
        to_be_signed=_to_be_signed(protected_raw, payload),
    )


def build_sign1(
    protected: Mapping[int | str, Any],
    unprotected: Mapping[int | str, Any],
    payload: bytes,
    sign: Callable[[bytes], bytes],
) -> bytes:
    """A tagged COSE_Sign1; `sign` makes the signature over the bytes that it gets."""
    import cbor2

    head = cbor2.dumps(protected, canonical=True)
    signature = sign(_to_be_signed(head, payload))
    return cbor2.dumps(cbor2.CBORTag(_TAG, [head, unprotected, payload, signature]))


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052, section 4.4, without external data."""
    import cbor2

    return cbor2.dumps(["Signature1", protected, b"", payload])


def _decode(raw: bytes, what: str) -> Any:
    import cbor2

    stream = io.BytesIO(raw)
    try:
        value = cbor2.load(stream)
    except Exception as error:  # the library raises many kinds for bad bytes
        raise FormatError("is not CBOR", what=what) from error
    if stream.tell() != len(raw):
        raise FormatError("has bytes behind its end", what=what)
    return value


def _is_headers(value: object) -> bool:
    # A map inside of a tag comes as an immutable one.
    return isinstance(value, Mapping) and all(isinstance(label, str | int) for label in value)


def _count(raw: bytes) -> int | None:
    """How many pairs the map in `raw` has by its head; None for one of no definite length."""
    if not raw:
        return 0
    major, low = raw[0] >> 5, raw[0] & 0x1F
    if major != _MAP or (low > 23 and low not in _COUNT_BYTES):
        return None
    return low if low <= 23 else int.from_bytes(raw[1 : 1 + _COUNT_BYTES[low]])
