"""The texts of `--encryption-key` and `--decryption-key`, parsed to values.

    jwe:FILE                        an RSA or EC public key
    broker:kbs:///repo/type/        a fresh key in the broker, for this image only
    broker:kbs:///repo/type/tag     a key of that name, which must not exist yet

    FILE                            a private key without a password
    FILE:PASSWORD  FILE:pass=PASSWORD  FILE:file=PASSWORDFILE  FILE:fd=N

As skopeo writes them: several recipients may stand in one text with commas, and a key
file's name has no colon. Nothing is opened here.

Spec: skopeo-copy(1); containers/ocicrypt v1.3.2, helpers/parse_helpers.go.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.encrypt.packets import check_kid
from imagers.errors import Unsupported, UsageError
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imagers.encrypt.keyfiles import Password

__all__ = [
    "BrokerRecipient",
    "DecryptionKey",
    "JWERecipient",
    "parse_decryption_key",
    "parse_recipient",
    "parse_recipients",
]

# Schemes that the format knows and that are not done here yet.
_OTHERS = ("pkcs7", "pgp", "pkcs11", "provider")
_WHERE = "recipient"


@dataclass(frozen=True, slots=True)
class JWERecipient:
    """`jwe:FILE`.

    Attributes:
        path: of the public key.
    """

    path: str


@dataclass(frozen=True, slots=True)
class BrokerRecipient:
    """`broker:URI`.

    Attributes:
        uri: `kbs:///repository/type/tag`, or `kbs:///repository/type/` for a fresh name.
    """

    uri: str

    @property
    def is_fresh(self) -> bool:
        """Whether each run makes a name of its own."""
        return self.uri.endswith("/")

    def kid(self) -> str:
        """The name of the key; another one at each call where `is_fresh`."""
        return self.uri + secrets.token_hex(16) if self.is_fresh else self.uri


@dataclass(frozen=True, slots=True)
class DecryptionKey:
    """A key file, and where its password is.

    Attributes:
        path: of the private key.
        password: None for a key without one.
    """

    path: str
    password: Password | None = None

    @property
    def has_password_in_argument(self) -> bool:
        """Whether everybody on the machine could read the password: worth a warning."""
        return self.password is not None and self.password.kind == "argument"


def parse_recipients(texts: Iterable[str]) -> tuple[JWERecipient | BrokerRecipient, ...]:
    """All recipients of several texts, each one or more with commas; errors as below."""
    return tuple(parse_recipient(one) for text in texts for one in text.split(","))


def parse_recipient(text: str) -> JWERecipient | BrokerRecipient:
    """One recipient.

    Raises:
        UsageError: not a recipient.
        FormatError: the name of a key at the broker is none.
        Unsupported: a scheme of the format that is not done here.
    """
    scheme, colon, value = text.partition(":")
    if not colon or not value:
        raise UsageError(
            f"{_WHERE}: expected 'jwe:FILE' or 'broker:kbs:///REPOSITORY/TYPE/', got {text[:160]!r}"
        )
    if scheme == "jwe":
        return JWERecipient(value)
    if scheme == "broker":
        check_kid(f"{value}tag" if value.endswith("/") else value, what=_WHERE)
        return BrokerRecipient(value)
    if scheme in _OTHERS:
        raise Unsupported(f"{_WHERE}: scheme {scheme!r} is not supported: expected jwe or broker")
    raise UsageError(f"{_WHERE}: expected scheme jwe or broker, got {scheme[:80]!r}")


def parse_decryption_key(text: str) -> DecryptionKey:
    """One key that decrypts. No message repeats anything after the first colon.

    Raises:
        UsageError: not a key.
        Unsupported: a key provider.
    """
    from imagers.encrypt.keyfiles import Password  # noqa: PLC0415  # loads `cryptography`

    path, colon, rest = text.partition(":")
    if path == "provider" and colon:
        raise Unsupported("decryption key: key providers are not supported: expected a key file")
    if not path:
        raise UsageError("decryption key: expected FILE, or FILE:file=PASSWORDFILE")
    if not colon:
        return DecryptionKey(path)
    kind, equals, value = rest.partition("=")
    if equals and kind == "file" and value:
        return DecryptionKey(path, Password("file", path=value))
    if equals and kind == "fd":
        # int() would also take signs, blanks, underscores and other digits.
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise UsageError(f"decryption key: {path}: expected fd= and a number")
        return DecryptionKey(path, Password("fd", descriptor=int(value)))
    secret = value if equals and kind == "pass" else rest
    if not secret or (equals and kind == "file"):
        raise UsageError(
            f"decryption key: {path}: the password is empty",
            hint=f"for a key without a password give {path} alone",
        )
    # surrogateescape: as the bytes that stood in the argument, whatever they are.
    data = secret.encode("utf-8", "surrogateescape")
    return DecryptionKey(path, Password("argument", secret=SecretKey(data)))
