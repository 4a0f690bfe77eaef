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

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from imagers.encrypt.keyfiles import (
    Certificate,
    Password,
    PGPKeyring,
    PrivateKey,
    PublicKey,
    TokenFile,
    load_certificate,
    load_decryption_file,
    load_public_key,
    load_public_key_or_token_file,
)
from imagers.encrypt.recipients import (
    DecryptionKey,
    JWERecipient,
    PacketNumber,
    PGPRecipient,
    PKCS7Recipient,
    PKCS11Recipient,
    ProviderKey,
    ProviderRecipient,
    Recipient,
)
from imagers.encrypt.rewrap import (
    CertificateTarget,
    JWETarget,
    NameTarget,
    PacketTarget,
    PGPTarget,
)
from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper, key_id
from imagers.encrypt.schemes.provider import TIMEOUT_S, ProviderUnwrapper, ProviderWrapper
from imagers.encrypt.schemes.providers.config import (
    ProviderConfig,
    find_provider,
    load_provider_config,
)
from imagers.errors import FormatError, KeyUnavailable, LocalError, UsageError
from imagers.model.keys import KeyUnwrapper, KeyWrapper, SecretKey

if TYPE_CHECKING:
    from imagers.encrypt.keyfiles import DecryptionFile
    from imagers.encrypt.rewrap import Target

__all__ = ["ProviderSettings", "load_targets", "opened_unwrappers", "opened_wrappers"]


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Where key providers are, and what they may take.

    Attributes:
        config_path: of the ocicrypt key-provider configuration; None for no providers.
        timeout_s: for one answer.
        oaep_hash: of PKCS11 packets; None for the first that fits a key.
        gpg_home: of the user's keyring; None for gpg's default.
        ask: gets the passphrase of a key, of which it is told the file, from a person; gives
            None where there is nobody. The caller of it wipes what it gives.
    """

    config_path: str | None = None
    timeout_s: float = TIMEOUT_S
    oaep_hash: str | None = None
    gpg_home: str | None = field(default=None)
    ask: Callable[[str], SecretKey | None] | None = None

    def find(self, name: str) -> ProviderConfig:
        """The provider of that name.

        Raises:
            KeyUnavailable: there is none.
            LocalError, FormatError, Unsupported: its configuration.
        """
        if self.config_path is None:
            raise KeyUnavailable(
                f"key provider {name[:80]!r}: no provider is configured",
                hint="set OCICRYPT_KEYPROVIDER_CONFIG to the path of a configuration",
            )
        return find_provider(load_provider_config(self.config_path), name)


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
        if jwe := [one.path for one in recipients if isinstance(one, JWERecipient)]:
            wrappers.append(JWEWrapper([load_public_key(path) for path in jwe]))
        if pkcs7 := [one.path for one in recipients if isinstance(one, PKCS7Recipient)]:
            from imagers.encrypt.schemes.pkcs7 import PKCS7Wrapper

            wrappers.append(PKCS7Wrapper([load_certificate(path) for path in pkcs7]))
        if pgp := [one.name for one in recipients if isinstance(one, PGPRecipient)]:
            from imagers.encrypt.schemes.pgp import PGPWrapper

            wrappers.append(stack.enter_context(PGPWrapper(pgp, user_home=settings.gpg_home)))
        if pkcs11 := [one.path for one in recipients if isinstance(one, PKCS11Recipient)]:
            from imagers.encrypt.schemes.pkcs11 import PKCS11Wrapper

            keys = [_load_pkcs11_key(path) for path in pkcs11]
            wrappers.append(PKCS11Wrapper(keys, hash_name=settings.oaep_hash))
        providers: dict[str, list[str]] = {}
        for one in recipients:
            if isinstance(one, ProviderRecipient):
                providers.setdefault(one.name, []).append(one.parameters)
        wrappers += (
            ProviderWrapper(name, settings.find(name), parameters, timeout_s=settings.timeout_s)
            for name, parameters in providers.items()
        )
        yield tuple(wrappers)


def _load_pkcs11_key(path: str) -> PublicKey:
    found = load_public_key_or_token_file(path)
    if isinstance(found, PublicKey):
        return found
    from imagers.encrypt.schemes.pkcs11 import load_token_public_key

    try:
        return load_token_public_key(found)
    finally:
        found.close()


def load_targets(
    recipients: Sequence[Recipient | PacketNumber], settings: ProviderSettings | None = None
) -> tuple[Target, ...]:
    """Whom `remove_recipients` is to remove.

    Raises:
        UsageError: a recipient that no packet names.
        LocalError, FormatError, Unsupported, KeyUnavailable: a file or the keyring.
    """
    settings = settings or ProviderSettings()
    return tuple(_load_target(one, settings) for one in recipients)


def _load_target(recipient: Recipient | PacketNumber, settings: ProviderSettings) -> Target:
    if isinstance(recipient, PacketNumber):
        return PacketTarget(recipient.scheme, recipient.number)
    if isinstance(recipient, JWERecipient):
        return JWETarget(key_id(load_public_key(recipient.path)), f"jwe:{recipient.path}")
    if isinstance(recipient, PKCS7Recipient):
        from imagers.encrypt.schemes.pkcs7 import names_of

        issuer, serial = names_of(load_certificate(recipient.path))
        return CertificateTarget(issuer, serial, f"pkcs7:{recipient.path}")
    if isinstance(recipient, PGPRecipient):
        from imagers.encrypt.schemes.pgp import find_key_ids

        ids = find_key_ids(recipient.name, user_home=settings.gpg_home)
        return PGPTarget(ids, f"pgp:{recipient.name}")
    if isinstance(recipient, PKCS11Recipient):
        raise UsageError(
            "a PKCS11 packet does not say for whom it is",
            hint='give its number, as "imagers inspect" shows it: pkcs11#1',
        )
    if isinstance(recipient, ProviderRecipient):
        if recipient.parameters:
            raise UsageError(
                f"provider:{recipient.name}: only the provider can read its parameters",
                hint=f"give provider:{recipient.name}, or provider.{recipient.name}#NUMBER",
            )
        return NameTarget(f"provider.{recipient.name}", "", f"provider:{recipient.name}")
    if recipient.is_fresh:
        raise UsageError(f"expected the whole name of the key, got {recipient.uri!r}")
    return NameTarget("", recipient.uri, f"broker:{recipient.uri}")


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
        unwrappers = _file_unwrappers(files, settings, stack)
        unwrappers += (
            ProviderUnwrapper(
                key.name, settings.find(key.name), key.parameters, timeout_s=settings.timeout_s
            )
            for key in keys
            if isinstance(key, ProviderKey)
        )
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


def _file_unwrappers(
    files: Sequence[DecryptionFile], settings: ProviderSettings, stack: ExitStack
) -> list[KeyUnwrapper]:
    private = [one for one in files if isinstance(one, PrivateKey)]
    unwrappers: list[KeyUnwrapper] = [JWEUnwrapper(key) for key in private]
    unwrappers += _pkcs7_unwrappers(private, [one for one in files if isinstance(one, Certificate)])
    if rsa_keys := [key for key in private if isinstance(key.key, rsa.RSAPrivateKey)]:
        from imagers.encrypt.schemes.pkcs11 import PKCS11Unwrapper

        unwrappers += map(PKCS11Unwrapper, rsa_keys)
    for file in files:
        if isinstance(file, TokenFile):
            from imagers.encrypt.schemes.pkcs11 import (
                TokenUnwrapper,
                open_token_key,
            )

            key = open_token_key(file, private=True)
            unwrappers.append(stack.enter_context(TokenUnwrapper(key, file.name)))
        elif isinstance(file, PGPKeyring):
            from imagers.encrypt.schemes.pgp import PGPUnwrapper

            unwrappers.append(stack.enter_context(PGPUnwrapper(file, ask=settings.ask)))
    return unwrappers


def _pkcs7_unwrappers(
    keys: Sequence[PrivateKey], certificates: Sequence[Certificate]
) -> list[KeyUnwrapper]:
    if not certificates:
        return []
    from imagers.encrypt.schemes.pkcs7 import PKCS7Unwrapper, is_pair

    unwrappers: list[KeyUnwrapper] = []
    for certificate in certificates:
        pairs = [key for key in keys if is_pair(key, certificate)]
        if not pairs:
            raise UsageError(
                f"{certificate.name}: none of the given private keys is that of the certificate",
                hint="give both: --decryption-key KEY:CERT",
            )
        unwrappers.append(PKCS7Unwrapper(pairs[0], certificate))
    return unwrappers
