# SPDX-License-Identifier: Apache-2.0
"""Signed heads of audit chains.

Each broker has a chain: every row's hash names all rows before it. Who can write the database can
make the chain anew behind a change, for no key is in it. So a broker signs now and then which hash
its last row had. A head that somebody keeps elsewhere says later whether that row, and with it each
one before, is what it was.

A head is a JWS in compact form by ES256, with a key that signs nothing else and is not derived from
the master key:

    header   {"typ": "imagers-audit-head+jwt", "alg": "ES256", "kid": ...}
    payload  {"iat": 1767225600, "broker": "broker", "number": 12, "hash": 64 hex digits}

Heads that are exported are a JSON object: `keys`, a JWKS, and `heads`.

Spec: RFC 7515; RFC 7517 section 5; RFC 7638.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from imagers.broker.keeping.transaction import Link
from imagers.broker.tokens import load_signing_key, published_jwk
from imagers.errors import SignatureInvalid
from imagers.model.strict_json import View, dump_json
from imagers.pki.jose import parse_token, sign_token, verify_token
from imagers.pki.jwk import jwk_public_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imagers.broker.keeping.transaction import Transaction
    from imagers.model.keys import SecretKey
    from imagers.model.strict_json import JSONObject

__all__ = ["MAX_HEADS", "AuditHeads", "Head", "Heads", "parse_heads"]

MAX_HEADS = 4 * 1024 * 1024
"""Bytes of heads that are exported: those of thousands of brokers."""

_WHAT = "head of an audit log"
_TYPE = "imagers-audit-head+jwt"
_LATEST = 253_402_300_799  # 9999-12-31T23:59:59Z, the last that datetime knows
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_SIGN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Head:
    """What a row of a chain was when it was signed.

    Attributes:
        at: RFC 3339, by the clock of the broker that signed.
    """

    link: Link
    at: str


@dataclass(frozen=True, slots=True)
class Heads:
    """Exported heads, and the keys that signed them.

    Attributes:
        keys: public ones, by `kid`.
    """

    keys: Mapping[str, object]
    heads: Sequence[Head]

    def verify(self, signed: str) -> Head:
        """A head that one of the keys signed.

        Raises:
            FormatError: it is none.
            SignatureInvalid: none of them did.
        """
        return _verify(signed, self.keys)


class AuditHeads:
    """Signs the heads of one broker's chain.

    Args:
        private_pem: the P-256 key for it.
        clock: gives the time.
    """

    def __init__(self, private_pem: SecretKey, *, clock: Callable[[], datetime]) -> None:
        self._key = load_signing_key(private_pem)
        self._jwk = published_jwk(self._key.public_key())
        self._clock = clock
        self._next = 0.0

    def keep(self, transaction: Transaction) -> None:
        """Sign now and then, at the end of a transaction that appended rows."""
        now = time.monotonic()
        if transaction.has_new_link and now >= self._next:
            self._next = now + _SIGN_SECONDS
            self.sign(transaction)

    def sign(self, transaction: Transaction) -> None:
        """Sign the last row, in its transaction."""
        link = transaction.last_link()
        payload: JSONObject = {
            "iat": int(self._clock().timestamp()),
            "broker": link.broker,
            "number": link.number,
            "hash": link.hash.hex(),
        }
        header: JSONObject = {"typ": _TYPE, "kid": self._jwk["kid"]}
        transaction.keep_audit_head(link, sign_token(payload, key=self._key, header=header))

    def to_bytes(self, heads: Sequence[str]) -> bytes:
        """The JSON of signed heads, to be exported."""
        return dump_json({"keys": {"keys": [self._jwk]}, "heads": list(heads)})


def parse_heads(data: bytes, *, what: str) -> Heads:
    """Exported heads, each of which a key beside it signed. Whose keys they are, nobody says.

    Raises:
        FormatError: they are none.
        SignatureInvalid: a head was changed.
    """
    document = View.parse(data, what=what, max_bytes=MAX_HEADS)
    document.only("keys", "heads")
    keys = {one.text("kid"): jwk_public_key(one) for one in document.object("keys").objects("keys")}
    return Heads(keys, [_verify(signed, keys, what) for signed in document.texts("heads")])


def _verify(signed: str, keys: Mapping[str, object], what: str = _WHAT) -> Head:
    header = parse_token(signed, what=what).header
    key = keys.get(header.text("kid"))
    if key is None or header.text("typ") != _TYPE:
        raise SignatureInvalid(f"{what}: is not signed by a key for heads that is known")
    said = verify_token(signed, key=key, what=what)
    hashed, second = said.text("hash"), said.integer("iat", maximum=_LATEST)
    if not _HASH.match(hashed):
        raise said.error("expected 64 hex digits", "hash")
    return Head(
        Link(said.text("broker"), said.integer("number"), bytes.fromhex(hashed)),
        datetime.fromtimestamp(second, UTC).isoformat(),
    )
