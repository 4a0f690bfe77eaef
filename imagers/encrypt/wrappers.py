# SPDX-License-Identifier: Apache-2.0
"""From the values of recipients and keys to what wraps and unwraps, opened and closed.

    with opened_wrappers(parse_recipients(["jwe:a.pem", "pgp:bob@example.com"])) as wrappers:
        encrypt_image(image, sink, wrappers)

    with opened_unwrappers([parse_decryption_key("a.key")]) as unwrappers:
        decrypt_image(image, sink, unwrappers)

All recipients of one scheme share one packet. One key may unwrap by several schemes: an RSA
key does for `jwe`, `pkcs11`, and with its certificate `pkcs7`. Whatever cannot be used is
refused here, before anything is read of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from imagers.encrypt.keyfiles import (
    DecryptionFile,
    Password,
    PGPKeyring,
    TokenFile,
    load_certificate,
    load_decryption_file,
)
from imagers.encrypt.recipients import DecryptionKey, PacketNumber, ProviderKey, Recipient
from imagers.encrypt.schemes.scheme import SCHEMES, ProviderSettings, Target, find_scheme
from imagers.errors import FormatError, KeyUnavailable, LocalError
from imagers.model.keys import KeyUnwrapper, KeyWrapper

__all__ = ["load_targets", "opened_unwrappers", "opened_wrappers"]


@contextmanager
def opened_wrappers(
    recipients: Sequence[Recipient], settings: ProviderSettings | None = None
) -> Iterator[tuple[KeyWrapper, ...]]:
    """The wrappers of all recipients but those of a broker, one a scheme.

    Raises:
        LocalError, FormatError, Unsupported, UsageError, KeyUnavailable, PluginError: a key,
            certificate, keyring, token or provider cannot be used.
    """
    settings = settings or ProviderSettings()
    wrappers: list[KeyWrapper] = []
    with ExitStack() as stack:
        for name in SCHEMES:
            if values := [one.value for one in recipients if one.scheme == name]:
                wrappers += find_scheme(name).open_wrappers(values, settings, stack)
        yield tuple(wrappers)


def load_targets(
    recipients: Sequence[Recipient | PacketNumber], settings: ProviderSettings | None = None
) -> tuple[Target, ...]:
    """Whom `rewrap_image` is to remove.

    Raises:
        UsageError: a recipient that no packet names.
        LocalError, FormatError, Unsupported, KeyUnavailable: a file or the keyring.
    """
    from imagers.encrypt.rewrap import PacketTarget

    known = settings or ProviderSettings()
    return tuple(
        PacketTarget(one.scheme, one.number)
        if isinstance(one, PacketNumber)
        else find_scheme(one.scheme).load_target(one.value, known)
        for one in recipients
    )


@contextmanager
def opened_unwrappers(
    keys: Sequence[DecryptionKey | ProviderKey], settings: ProviderSettings | None = None
) -> Iterator[tuple[KeyUnwrapper, ...]]:
    """The unwrappers of all keys: those that need no program first.

    Raises:
        UsageError: a certificate without its private key; a needless password.
        LocalError, FormatError, Unsupported, KeyUnavailable, PluginError: a key, keyring,
            token or provider cannot be used.
    """
    settings = settings or ProviderSettings()
    with ExitStack() as stack:
        files: list[DecryptionFile] = []
        for key in keys:
            if isinstance(key, DecryptionKey):
                files += _load(key, settings)
        for file in files:
            if isinstance(file, (PGPKeyring, TokenFile)):
                stack.callback(file.close)
        unwrappers: list[KeyUnwrapper] = []
        given = {type(file).__name__ for file in files}
        for name, row in SCHEMES.items():
            if given.intersection(row.opens):
                unwrappers += find_scheme(name).open_unwrappers(files, settings, stack)
        for key in keys:
            if isinstance(key, ProviderKey):
                from imagers.encrypt.schemes.provider import open_unwrapper

                unwrappers.append(open_unwrapper(key.name, key.parameters, settings))
        yield tuple(unwrappers)


def _load(key: DecryptionKey, settings: ProviderSettings) -> list[DecryptionFile]:
    """The key, and the certificate that FILE:CERT names."""
    if key.certificate:
        # A password that is the path of a certificate is less likely than FILE:CERT; such
        # a one can still be given as FILE:pass=PASSWORD.
        try:
            certificate = load_certificate(key.certificate)
        except (LocalError, FormatError):
            pass
        else:
            return [_load_file(key.path, None, settings), certificate]
    return [_load_file(key.path, key.password, settings)]


def _load_file(path: str, password: Password | None, settings: ProviderSettings) -> DecryptionFile:
    try:
        return load_decryption_file(path, password)
    except KeyUnavailable:
        # It has a password.
        typed = settings.ask(path) if password is None and settings.ask is not None else None
        if typed is None:
            raise
    with typed:
        return load_decryption_file(path, Password("argument", secret=typed))
