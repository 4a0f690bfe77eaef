# SPDX-License-Identifier: Apache-2.0
"""What logs in to a registry: a password, or a token. None of them shows in a text."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from imagers.errors import UsageError
from imagers.model.base64 import encode_base64
from imagers.model.keys import SecretKey

__all__ = ["Credentials", "IdentityToken", "Login", "RegistryToken"]

_TOKEN = re.compile(r"[!-~]+\Z")


class Credentials:
    """A user name and a password, which never show in texts.

    Args:
        password: a `SecretKey` stays the caller's; a `str` is copied into one.
    """

    __slots__ = ("_password", "username")

    def __init__(self, username: str, password: SecretKey | str) -> None:
        if ":" in username or not username.isprintable():
            raise UsageError("expected a user name without colon and control characters")
        self.username = username
        self._password = SecretKey(password.encode()) if isinstance(password, str) else password

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """The credentials in `user:password`, as `--creds` takes them.

        Raises:
            UsageError: there is no colon, or no user name.
        """
        username, colon, password = text.partition(":")
        if not colon or not username:
            raise UsageError("expected credentials as USER:PASSWORD")
        return cls(username, password)

    @property
    def password(self) -> SecretKey:
        """Stays the property of this object."""
        return self._password

    def authorization(self) -> str:
        """The value of the header for basic authentication."""
        # The copies of urllib3 and of http.client live as long as the request.
        with self._password.view() as password:
            pair = self.username.encode() + b":" + bytes(password)
        return "Basic " + encode_base64(pair)

    def __repr__(self) -> str:
        return f"Credentials({self.username!r})"


class IdentityToken:
    """What a token server gave in place of a password: exchanged there for other tokens."""

    __slots__ = ("_token",)

    def __init__(self, token: str) -> None:
        self._token = SecretKey(token.encode())

    def form(self, service: str, scope: str) -> bytes:
        """The body of the request for a token, as the OAuth 2 flow of registries has it."""
        with self._token.view() as token:
            pairs = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "imagers",
                "scope": scope,
                "refresh_token": bytes(token).decode(),
            }
        return urlencode(pairs).encode()

    def __repr__(self) -> str:
        return "IdentityToken()"


class RegistryToken:
    """A token that the registry itself takes, got somewhere else; sent where it asks for one.

    Args:
        token: of visible ASCII characters.
    """

    __slots__ = ("_token",)

    def __init__(self, token: str) -> None:
        # What is not visible would end or split the header.
        if not _TOKEN.match(token):
            raise UsageError("expected a token of visible ASCII characters")
        self._token = SecretKey(token.encode())

    def authorization(self) -> str:
        """The value of the header."""
        with self._token.view() as token:
            return f"Bearer {bytes(token).decode()}"

    def __repr__(self) -> str:
        return "RegistryToken()"


Login = Credentials | IdentityToken | RegistryToken
