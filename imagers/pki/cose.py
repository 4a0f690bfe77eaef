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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from imagers.errors import FormatError, SignatureInvalid, Unsupported
from imagers.model.strict_cbor import CBOR, CBORView, Tag, parse_cbor
from imagers.pki.algorithms import algorithm_of, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ALG", "CONTENT_TYPE", "CRIT", "X5CHAIN", "Sign1", "build_sign1", "parse_sign1"]

ALG, CRIT, CONTENT_TYPE, X5CHAIN = 1, 2, 3, 33  # labels of headers
_TAG = 18


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
    protected: Mapping[int | str, CBOR]
    unprotected: Mapping[int | str, CBOR]
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
        if not isinstance(chain, tuple) or not all(isinstance(one, bytes) for one in chain):
            raise FormatError("expected certificates in label 33", what=self.what)
        return cast("list[bytes]", list(chain))

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


def parse_sign1(
    raw: bytes,
    *,
    what: str,
    max_bytes: int,
    tagged: bool = True,
    empty_unprotected: bool = False,
) -> Sign1:
    """The COSE_Sign1 in `raw`, with its payload inside.

    Args:
        tagged: whether it stands in its tag; the other form is refused.
        empty_unprotected: refuse headers that are not signed: a reader that has no use for
            them has none for bytes that anybody may change.

    Raises:
        FormatError: it is none, or longer than `max_bytes`.
    """
    parts = parse_cbor(raw, what=what, max_bytes=max_bytes)
    if isinstance(parts, Tag) and tagged:
        if parts.number != _TAG:
            raise FormatError(f"expected the tag 18 of COSE_Sign1, got {parts.number}", what=what)
        parts = parts.value
    elif tagged:
        raise FormatError("expected a tagged COSE_Sign1", what=what)
    if not isinstance(parts, tuple):
        raise FormatError("expected the array of a COSE_Sign1", what=what)
    if len(parts) != 4:
        raise FormatError(f"expected 4 parts of a COSE_Sign1, got {len(parts)}", what=what)
    protected_raw, unprotected, payload, signature = parts
    if not (
        isinstance(protected_raw, bytes)
        and isinstance(payload, bytes)
        and isinstance(signature, bytes)
    ):
        raise FormatError("is not a COSE_Sign1 with its payload inside", what=what)
    outside = _headers(unprotected, f"{what}, unprotected headers")
    if empty_unprotected and outside:
        raise FormatError("expected no headers outside of the signature", what=what)
    where = f"{what}, protected headers"
    return Sign1(
        what=what,
        # Empty ones are written as no bytes at all (RFC 9052, section 3).
        protected=_headers(
            parse_cbor(protected_raw or b"\xa0", what=where, max_bytes=max_bytes), where
        ),
        unprotected=outside,
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


def _headers(value: CBOR, what: str) -> Mapping[int | str, CBOR]:
    headers = CBORView(value, what=what).value
    if any(isinstance(label, bytes) for label in headers):
        raise FormatError("expected numbers and text as labels, got bytes", what=what)
    return cast("Mapping[int | str, CBOR]", headers)
