# SPDX-License-Identifier: Apache-2.0
"""The cookie of an admin who has shown a token: who he is and until when, and an HMAC over it.

    admin's id (64 hex digits) "." end in milliseconds "." HMAC-SHA-256 in hex

All brokers of a store share the key. The cookie says who somebody is and not what he may: that is
read anew for each page, so an admin who was removed sees none.

Spec: RFC 2104.
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256

from imagers.broker.sealing import derive_key
from imagers.model.keys import SecretKey

__all__ = ["COOKIE", "LIFETIME_MS", "Logins", "make_login_key"]

COOKIE = "imagers-ui"
LIFETIME_MS = 30 * 60 * 1000
_KEY_BYTES = 32
_PURPOSE = "imagers-broker ui login v1"
_FORM = re.compile(r"([0-9a-f]{64})\.([0-9]{1,15})\.([0-9a-f]{64})\Z")


def make_login_key() -> SecretKey:
    """A key for cookies."""
    return SecretKey(secrets.token_bytes(_KEY_BYTES))


class Logins:
    """Makes and checks cookies.

    Args:
        key: 32 bytes; the caller closes it.
    """

    def __init__(self, key: SecretKey) -> None:
        with key.view() as data:
            self._key = derive_key(bytearray(data), purpose=_PURPOSE)

    def issue(self, admin: str, *, now_ms: int) -> str:
        """The cookie of an admin, by the id of his key."""
        said = f"{admin}.{now_ms + LIFETIME_MS}"
        return f"{said}.{self._mac(said)}"

    def check(self, cookie: str | None, *, now_ms: int) -> str | None:
        """The id of the admin, or None: it is none of ours, or over."""
        found = _FORM.match(cookie or "")
        if found is None:
            return None
        admin, end_ms, mac = found.groups()
        if not hmac.compare_digest(self._mac(f"{admin}.{end_ms}"), mac):
            return None
        return admin if now_ms < int(end_ms) else None

    def _mac(self, said: str) -> str:
        return hmac.new(self._key, said.encode(), sha256).hexdigest()
