# SPDX-License-Identifier: Apache-2.0
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
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imagers.encrypt.schemes.providers.config import check_provider_name
from imagers.encrypt.schemes.scheme import expected_recipients, find_scheme, scheme_of
from imagers.errors import UsageError
from imagers.model.keys import SecretKey, WrappedKey

if TYPE_CHECKING:
    from imagers.encrypt.keyfiles import Password

__all__ = [
    "DecryptionKey",
    "PacketNumber",
    "ProviderKey",
    "Recipient",
    "parse_decryption_key",
    "parse_recipient",
    "parse_recipients",
    "parse_removals",
]

_PACKET = re.compile(r"([a-z0-9]+(?:\.[A-Za-z0-9._-]+)?)#([0-9]{1,4})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recipient:
    """One text of `--encryption-key`.

    Attributes:
        scheme: the kind, one of `imagers.encrypt.schemes.scheme.SCHEMES`.
        value: what follows; what it means is the scheme's to say. It may be secret: parameters of
            a provider stand in it.
    """

    scheme: str
    value: str = field(repr=False)


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
    name, colon, value = text.partition(":")
    if not colon or not value:
        raise UsageError(
            f"recipient: {expected_recipients()}, got {text[:160]!r}",
            hint=f"for the public key in a file: jwe:{value or text[:160]}",
        )
    try:
        scheme = find_scheme(name)
    except UsageError as error:
        raise UsageError(f"recipient: {error}") from None
    scheme.check(value)
    return Recipient(name, value)


def parse_removals(texts: Iterable[str]) -> tuple[Recipient | PacketNumber, ...]:
    """Recipients to remove: as they were given, or `SCHEME#N`; errors as for a recipient."""
    found: list[Recipient | PacketNumber] = []
    for text in texts:
        for one in text.split(","):
            match = _PACKET.match(one)
            if match is not None and scheme_of(WrappedKey(match[1], b"")) is not None:
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
