# SPDX-License-Identifier: Apache-2.0
"""Challenges that nobody has to remember: what `auth` gives away, and how `attest` knows it.

    nonce     16 random ‖ the first 16 of HMAC-SHA-256(nonce key, fields)
              fields: label, store id, protocol version, TEE, hash algorithm, session id,
              expiry, the 16 random
    cookie    base64url of: session id (16) ‖ expiry (8) ‖ TEE ‖ hash algorithm ‖ MAC (32)
              MAC: HMAC-SHA-256(cookie key, label, store id, protocol version, session id,
              expiry, TEE, hash algorithm); a name has its length in one byte before it

In what a MAC is computed over, each field has its length in four bytes before it: no two lists
of fields are one text. Expiry is milliseconds since 1970, 8 bytes, big-endian.

So whoever floods `auth` fills nothing, and each broker of one store takes the challenges of the
others. A nonce is good for one session, TEE, algorithm and time; only a store with this id takes
it. That it is taken once is the business of the store, which writes a row for it.

No IO and no clock here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass

from imagers.broker.sealing import derive_key
from imagers.errors import FormatError
from imagers.kbs.messages import PROTOCOL_VERSION
from imagers.model.base64 import decode_base64, decode_base64url, encode_base64, encode_base64url

__all__ = ["Challenges", "Ticket"]

_NONCE_LABEL = "imagers-broker nonce v1"
_COOKIE_LABEL = "imagers-broker cookie v1"
_ID_BYTES = 16
_RANDOM_BYTES = 16
_NONCE_MAC_BYTES = 16
_EXPIRY_BYTES = 8
_COOKIE_MAC_BYTES = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the cookie of a handshake says: true, if `Challenges` gave it.

    Attributes:
        session_id: 16 random bytes.
        tee: whose evidence the guest has announced.
        algorithm: of the report data.
        expires_ms: when session, nonce and token are over.
    """

    session_id: bytes
    tee: str
    algorithm: str
    expires_ms: int

    def __repr__(self) -> str:
        return f"Ticket({self.name[:12]}, tee={self.tee!r})"

    @property
    def name(self) -> str:
        """Names the session in rows and logs, and does not open it."""
        return hashlib.sha256(self.session_id).hexdigest()


class Challenges:
    """Makes and knows the challenges of one store.

    Args:
        secret: of the store; two keys are derived from it.
        store_id: of the database.

    Threads: safe.
    """

    def __init__(self, secret: bytes, store_id: bytes) -> None:
        self.store_id = store_id
        self._nonce_key = derive_key(secret, purpose=_NONCE_LABEL)
        self._cookie_key = derive_key(secret, purpose=_COOKIE_LABEL)

    def issue(self, tee: str, *, algorithm: str, expires_ms: int) -> tuple[str, str]:
        """A fresh cookie and its nonce, both as text for the wire."""
        ticket = Ticket(os.urandom(_ID_BYTES), tee, algorithm, expires_ms)
        random = os.urandom(_RANDOM_BYTES)
        nonce = random + self._nonce_mac(ticket, random)
        return self._seal(ticket), encode_base64(nonce)

    def open_cookie(self, cookie: str) -> Ticket | None:
        """What a cookie of ours says, whether it is over or not; None if it is not ours."""
        try:
            data = decode_base64url(cookie, what="cookie")
        except FormatError:
            return None
        said, mac = data[:-_COOKIE_MAC_BYTES], data[-_COOKIE_MAC_BYTES:]
        ticket = _parse_ticket(said)
        if ticket is None or not hmac.compare_digest(mac, self._cookie_mac(ticket)):
            return None
        return ticket

    def is_nonce_of(self, ticket: Ticket, nonce: str) -> bool:
        """Whether the nonce was given with the cookie of this ticket, and to no other."""
        try:
            # One spelling only, since rows are unique by the text.
            data = decode_base64(nonce, what="nonce", size=_RANDOM_BYTES + _NONCE_MAC_BYTES)
        except FormatError:
            return False
        random, mac = data[:_RANDOM_BYTES], data[_RANDOM_BYTES:]
        return hmac.compare_digest(mac, self._nonce_mac(ticket, random))

    def _nonce_mac(self, ticket: Ticket, random: bytes) -> bytes:
        fields = (
            _NONCE_LABEL.encode(),
            self.store_id,
            PROTOCOL_VERSION.encode(),
            ticket.tee.encode(),
            ticket.algorithm.encode(),
            ticket.session_id,
            ticket.expires_ms.to_bytes(_EXPIRY_BYTES),
            random,
        )
        return _mac(self._nonce_key, fields)[:_NONCE_MAC_BYTES]

    def _cookie_mac(self, ticket: Ticket) -> bytes:
        fields = (
            _COOKIE_LABEL.encode(),
            self.store_id,
            PROTOCOL_VERSION.encode(),
            ticket.session_id,
            ticket.expires_ms.to_bytes(_EXPIRY_BYTES),
            ticket.tee.encode(),
            ticket.algorithm.encode(),
        )
        return _mac(self._cookie_key, fields)

    def _seal(self, ticket: Ticket) -> str:
        names = (ticket.tee.encode(), ticket.algorithm.encode())
        said = b"".join(
            (
                ticket.session_id,
                ticket.expires_ms.to_bytes(_EXPIRY_BYTES),
                *(len(name).to_bytes(1) + name for name in names),
            )
        )
        return encode_base64url(said + self._cookie_mac(ticket))


def _parse_ticket(said: bytes) -> Ticket | None:
    """What was written, not yet believed; None if it is nothing that we write."""
    fixed, rest = said[: _ID_BYTES + _EXPIRY_BYTES], said[_ID_BYTES + _EXPIRY_BYTES :]
    if len(fixed) != _ID_BYTES + _EXPIRY_BYTES:
        return None
    names = []
    for _ in range(2):
        if not rest or len(rest) <= rest[0]:
            return None
        name, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        names.append(name)
    if rest:
        return None
    try:
        tee, algorithm = (name.decode("ascii") for name in names)
    except UnicodeDecodeError:
        return None
    return Ticket(fixed[:_ID_BYTES], tee, algorithm, int.from_bytes(fixed[_ID_BYTES:]))


def _mac(key: bytes, fields: tuple[bytes, ...]) -> bytes:
    text = b"".join(len(field).to_bytes(4) + field for field in fields)
    return hmac.digest(key, text, "sha256")
