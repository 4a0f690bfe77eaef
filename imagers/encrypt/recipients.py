"""The texts of `--encryption-key` and `--decryption-key`, parsed to values.

    jwe:FILE                        an RSA or EC public key
    pkcs7:FILE                      a certificate with an RSA key
    pgp:NAME|EMAIL|FINGERPRINT      a key of the user's gpg
    pkcs11:FILE                     an RSA public key, or a key file that names a token
    provider:NAME[:PARAMETERS]      a key provider of the configuration
    broker:kbs:///repo/type/        a fresh key in the broker, for this image only
    broker:kbs:///repo/type/tag     a key of that name, which must not exist yet

    FILE                            a private key without a password
    FILE:PASSWORD  FILE:pass=PASSWORD  FILE:file=PASSWORDFILE  FILE:fd=N
    FILE:CERT                       a private key with its certificate, for pkcs7
    provider:NAME[:PARAMETERS]

As skopeo writes them: several recipients may stand in one text with commas, and a key
file's name has no colon. Nothing is opened here.

Spec: skopeo-copy(1); containers/ocicrypt v1.3.2, helpers/parse_helpers.go.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.encrypt.schemes.broker import check_kid
from imagers.encrypt.schemes.providers.config import check_provider_name
from imagers.errors import UsageError
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.encrypt.keyfiles import Password

__all__ = [
    "BrokerRecipient",
    "DecryptionKey",
    "JWERecipient",
    "PGPRecipient",
    "PKCS7Recipient",
    "PKCS11Recipient",
    "PacketNumber",
    "ProviderKey",
    "ProviderRecipient",
    "Recipient",
    "parse_decryption_key",
    "parse_recipient",
    "parse_recipients",
    "parse_removals",
]

_WHERE = "recipient"
_PACKET = re.compile(r"(jwe|pkcs7|pgp|pkcs11|provider\.[A-Za-z0-9._-]+)#([0-9]{1,4})\Z", re.ASCII)
_SCHEMES = "jwe:FILE, pkcs7:FILE, pgp:ID, pkcs11:FILE, provider:NAME or broker:URI"


@dataclass(frozen=True, slots=True)
class JWERecipient:
    """`jwe:FILE`.

    Attributes:
        path: of the public key.
    """

    path: str


@dataclass(frozen=True, slots=True)
class PKCS7Recipient:
    """`pkcs7:FILE`.

    Attributes:
        path: of the certificate.
    """

    path: str


@dataclass(frozen=True, slots=True)
class PGPRecipient:
    """`pgp:ID`.

    Attributes:
        name: exact name, e-mail or fingerprint.
    """

    name: str


@dataclass(frozen=True, slots=True)
class PKCS11Recipient:
    """`pkcs11:FILE`.

    Attributes:
        path: of the public key, or of a key file that names a key on a token.
    """

    path: str


@dataclass(frozen=True, slots=True)
class ProviderRecipient:
    """`provider:NAME[:PARAMETERS]`.

    Attributes:
        name: of the provider.
        parameters: for the provider to read; "" for none.
    """

    name: str
    parameters: str = field(default="", repr=False)


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


Recipient = (
    JWERecipient
    | PKCS7Recipient
    | PGPRecipient
    | PKCS11Recipient
    | ProviderRecipient
    | BrokerRecipient
)
"""One text of `--encryption-key`."""


@dataclass(frozen=True, slots=True)
class PacketNumber:
    """`SCHEME#N`: all recipients of one packet, for removing them.

    Attributes:
        scheme: as in the annotation: `jwe`, `provider.NAME`, ...
        number: from 1, among the packets of the scheme.
    """

    scheme: str
    number: int


@dataclass(frozen=True, slots=True)
class DecryptionKey:
    """A key file, and where its password is.

    Attributes:
        path: of the private key, certificate, keyring or PKCS11 key file.
        password: None for a key without one.
        certificate: what stands after a single colon, which may name a certificate; it is
            the password too until somebody has looked. "" where it cannot.
    """

    path: str
    password: Password | None = None
    certificate: str = field(default="", repr=False)

    @property
    def has_password_in_argument(self) -> bool:
        """Whether everybody on the machine could read the password: worth a warning."""
        return self.password is not None and self.password.kind == "argument"


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """`provider:NAME[:PARAMETERS]` among the keys that decrypt.

    Attributes:
        name: of the provider.
        parameters: for the provider to read; "" for none.
    """

    name: str
    parameters: str = field(default="", repr=False)


def parse_recipients(texts: Iterable[str]) -> tuple[Recipient, ...]:
    """All recipients of several texts, each one or more with commas; errors as below."""
    return tuple(parse_recipient(one) for text in texts for one in text.split(","))


def parse_recipient(text: str) -> Recipient:
    """One recipient.

    Raises:
        UsageError: not a recipient.
        FormatError: the name of a provider, or of a key at the broker, is none.
    """
    scheme, colon, value = text.partition(":")
    if not colon or not value:
        raise UsageError(
            f"{_WHERE}: expected {_SCHEMES}, got {text[:160]!r}",
            hint=f"for the public key in a file: jwe:{value or text[:160]}",
        )
    if scheme == "broker":
        check_kid(f"{value}tag" if value.endswith("/") else value, what=_WHERE)
        return BrokerRecipient(value)
    if scheme == "provider":
        name, _, parameters = value.partition(":")
        return ProviderRecipient(check_provider_name(name, what=_WHERE), parameters)
    kinds: dict[str, Callable[[str], Recipient]] = {
        "jwe": JWERecipient,
        "pkcs7": PKCS7Recipient,
        "pgp": PGPRecipient,
        "pkcs11": PKCS11Recipient,
    }
    if scheme not in kinds:
        raise UsageError(f"{_WHERE}: expected {_SCHEMES}, got scheme {scheme[:80]!r}")
    return kinds[scheme](value)


def parse_removals(texts: Iterable[str]) -> tuple[Recipient | PacketNumber, ...]:
    """Recipients to remove: as they were given, or `SCHEME#N`; errors as of a recipient."""
    found: list[Recipient | PacketNumber] = []
    for text in texts:
        for one in text.split(","):
            match = _PACKET.match(one)
            if match is not None:
                found.append(PacketNumber(match[1], int(match[2])))
            else:
                found.append(parse_recipient(one))
    return tuple(found)


def parse_decryption_key(text: str) -> DecryptionKey | ProviderKey:
    """One key that decrypts. No message repeats anything after the first colon.

    Raises:
        UsageError: not a key.
        FormatError: not the name of a provider.
    """
    from imagers.encrypt.keyfiles import Password

    path, colon, rest = text.partition(":")
    if path == "provider" and colon:
        name, _, parameters = rest.partition(":")
        return ProviderKey(check_provider_name(name, what="decryption key"), parameters)
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
    certificate = rest if not (equals and kind == "pass") and "\0" not in rest else ""
    return DecryptionKey(path, Password("argument", secret=SecretKey(data)), certificate)
