# SPDX-License-Identifier: Apache-2.0
"""Recipients with an RSA key on a token: private options under RSA-OAEP, without more.

    {"version":0,"recipients":[{"version":0,"blob":"<base64>","hash":"sha256"},...]}

No key is between: the 193 bytes of private options are the content of the OAEP block. They
fit RSA-3072 with SHA-256; for RSA-2048 only SHA-1 leaves room (214 bytes, and 190 with
SHA-256), so that is what such a key gets; OAEP does not rest on the hash being free of
collisions. On reading, no hash means SHA-1.

A recipient is a public key file, or a key file in YAML that names a key on a token:

    pkcs11:
      uri: pkcs11:token=imagers;object=layers?module-name=softhsm2&pin-value=1234
    module:
      env:
        SOFTHSM2_CONF: /etc/softhsm2.conf

Tokens are used through a plugin (`plugins/pkcs11`); a private key in a file opens these
packets too, which ocicrypt cannot.

Spec: containers/ocicrypt v1.3.2, keywrap/pkcs11 and crypto/pkcs11; RFC 7512; RFC 8017 7.1.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from imagers.encrypt.keyfiles import (
    Password,
    PrivateKey,
    PublicKey,
    TokenFile,
    load_public_key_or_token_file,
    parse_public_key,
    read_password,
)
from imagers.encrypt.schemes.scheme import Scheme
from imagers.errors import (
    FormatError,
    ImagersError,
    PluginBroken,
    PluginNotFound,
    Unsupported,
    UsageError,
)
from imagers.model.base64 import encode_base64
from imagers.model.closing import Closing
from imagers.model.keys import KeyUnwrapper, KeyWrapper, NotMine, SecretKey
from imagers.model.strict_json import View, dump_json
from imagers.model.token import TOKEN_GROUP, TokenKey, TokenProvider, TokenReference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import ExitStack

    from imagers.encrypt.keyfiles import DecryptionFile
    from imagers.encrypt.schemes.scheme import ProviderSettings, Target
    from imagers.model.keys import UnwrapContext, WrapContext, WrappedKey
    from imagers.model.strict_json import JSON

__all__ = [
    "PKCS11_SCHEME",
    "SCHEME",
    "PKCS11Unwrapper",
    "PKCS11Wrapper",
    "TokenUnwrapper",
    "load_token_public_key",
    "open_token_key",
    "parse_token_file",
    "parse_token_uri",
]

PKCS11_SCHEME = "pkcs11"

_MAX_BYTES = 256 * 1024
_MAX_RECIPIENTS = 300
_PLUGIN = "pkcs11"
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {"sha256": hashes.SHA256, "sha1": hashes.SHA1}
_PART = re.compile(r"([a-z0-9-]+)=(.*)\Z", re.DOTALL)


class PKCS11Wrapper:
    """Wraps for RSA keys, each on its own in one document.

    Args:
        keys: of the recipients, at least one.
        hash_name: `sha256`, or `sha1` for readers that know nothing else. None: the first
            that fits each key.

    Raises:
        Unsupported: a key of another kind, or an unknown hash.
    """

    scheme = PKCS11_SCHEME

    def __init__(self, keys: Sequence[PublicKey], *, hash_name: str | None = None) -> None:
        if not keys:
            raise ValueError("a PKCS11 document needs a recipient")
        if len(keys) > _MAX_RECIPIENTS:
            raise Unsupported(f"expected at most {_MAX_RECIPIENTS} recipients, got {len(keys)}")
        if hash_name is not None and hash_name not in _HASHES:
            raise Unsupported(f"OAEP: expected hash {' or '.join(_HASHES)}, got {hash_name[:40]!r}")
        self._keys = tuple((_rsa_key_of(key), key.name) for key in keys)
        self._hash_name = hash_name

    @property
    def recipients(self) -> tuple[str, ...]:
        """The key files."""
        return tuple(f"pkcs11:{name}" for _, name in self._keys)

    def wrap(self, private_options: SecretKey, context: WrapContext) -> bytes:
        """One document for all of them.

        Raises:
            Unsupported: a key is too short for private options.
        """
        recipients: list[JSON] = []
        with private_options.view() as data:
            for key, name in self._keys:
                chosen = self._choose_hash(key, len(data))
                if chosen is None:
                    raise Unsupported(
                        f"{context.what}: {name}: an RSA key of {key.key_size} bits has no room "
                        f"for {len(data)} bytes under OAEP with {self._hash_name or 'sha1'}",
                        hint="take a key of 3072 bits or more, or another hash",
                    )
                blob = key.encrypt(bytes(data), _oaep(chosen))
                recipients.append({"version": 0, "blob": encode_base64(blob), "hash": chosen})
        return dump_json({"version": 0, "recipients": recipients})

    def _choose_hash(self, key: rsa.RSAPublicKey, length: int) -> str | None:
        for name, algorithm in _HASHES.items():
            room = (key.key_size + 7) // 8 - 2 * algorithm().digest_size - 2  # RFC 8017 7.1.1
            if self._hash_name in (None, name) and length <= room:
                return name
        return None


def _rsa_key_of(key: PublicKey) -> rsa.RSAPublicKey:
    if not isinstance(key.key, rsa.RSAPublicKey):
        raise Unsupported(
            f"{key.name}: expected an RSA key for pkcs11:, got an EC key",
            hint="jwe: takes EC keys",
        )
    return key.key


def _oaep(name: str) -> padding.OAEP:
    algorithm = _HASHES[name]
    return padding.OAEP(padding.MGF1(algorithm()), algorithm(), None)


def parse_pkcs11(packet: bytes) -> list[tuple[bytes, str]]:
    """Blob and hash of each recipient.

    Raises:
        FormatError: no such document.
        Unsupported: another version, or a hash that is not done here.
    """
    document = View.parse(packet, what="PKCS11 packet", max_bytes=_MAX_BYTES)
    _check_version(document)
    found = []
    for recipient in document.objects("recipients", most=_MAX_RECIPIENTS):
        _check_version(recipient)
        name = recipient.optional_text("hash") or "sha1"
        found.append((recipient.bytes64("blob"), name))
    return found


def _check_version(document: View) -> None:
    if document.value.get("version") is None:
        return  # Go leaves it 0
    version = document.integer("version")
    if version != 0:
        raise Unsupported(f"{document.what}: expected version 0, got {version}")


class _Unwrapper:
    """What both kinds of unwrappers share: reading the document, trying each recipient."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def description(self) -> str:
        """The key file."""
        return f"key file {self._name!r}"

    def unwrap(self, wrapped: WrappedKey, context: UnwrapContext) -> SecretKey:
        """The private options; the caller closes them.

        Raises:
            NotMine: another scheme, no such document, for other keys, or changed.
            KeyUnavailable, Unsupported: the token refuses.
        """
        del context
        if wrapped.scheme != PKCS11_SCHEME:
            raise NotMine(f"the scheme is {wrapped.scheme[:80]!r}")
        try:
            recipients = parse_pkcs11(wrapped.packet)
        except (FormatError, Unsupported) as error:
            raise NotMine(str(error)) from error
        for blob, name in recipients:
            opened = self._open(blob, name) if name in _HASHES else None
            if opened is not None:
                return opened
        raise NotMine("the packet is for other keys, or was changed")

    def _open(self, blob: bytes, name: str) -> SecretKey | None:
        raise NotImplementedError  # each kind has its own


class PKCS11Unwrapper(_Unwrapper):
    """Opens documents with a private key from a file.

    Args:
        key: RSA.
    """

    def __init__(self, key: PrivateKey) -> None:
        if not isinstance(key.key, rsa.RSAPrivateKey):
            raise Unsupported(f"{key.name}: expected an RSA key for pkcs11:")
        super().__init__(key.name)
        self._key = key.key

    def _open(self, blob: bytes, name: str) -> SecretKey | None:
        try:
            # `bytes` of cryptography: an immutable copy until this function returns.
            return SecretKey(self._key.decrypt(blob, _oaep(name)))
        except ValueError:
            return None


class TokenUnwrapper(_Unwrapper, Closing):
    """Opens documents with a key on a token.

    Args:
        key: open; closed with this.
        name: of the key file, for messages.
    """

    def __init__(self, key: TokenKey, name: str) -> None:
        super().__init__(name)
        self._key = key

    def _open(self, blob: bytes, name: str) -> SecretKey | None:
        return self._key.decrypt_oaep(blob, name)

    def close(self) -> None:
        """End the session. Safe to call twice."""
        self._key.close()


def open_token_key(file: TokenFile, *, private: bool) -> TokenKey:
    """The key on a token that a key file names; the caller closes it.

    Raises:
        FormatError: the file is not right.
        PluginNotFound, PluginBroken: the plugin.
        KeyUnavailable, LocalError: the token.
    """
    reference = parse_token_file(file)
    try:
        return _load_plugin().open_key(reference, private=private)
    finally:
        if reference.pin is not None:
            reference.pin.close()


def load_token_public_key(file: TokenFile) -> PublicKey:
    """The public half of the key that a key file names; errors as for `open_token_key`."""
    key = open_token_key(file, private=False)
    try:
        return parse_public_key(key.public_key(), name=file.name)
    finally:
        key.close()


def _load_plugin() -> TokenProvider:
    from importlib.metadata import entry_points

    points = {one.value: one for one in entry_points(group=TOKEN_GROUP, name=_PLUGIN)}
    if not points:
        raise PluginNotFound(
            "keys on tokens need it, and it is not installed",
            name=_PLUGIN,
            hint="in the clone of imagers: pip install ./plugins/pkcs11",
        )
    if len(points) > 1:
        raise PluginBroken(f"is installed twice: {', '.join(sorted(points))}", name=_PLUGIN)
    (point,) = points.values()
    try:
        provider = point.load()()
    except ImagersError:
        raise
    except Exception as error:
        raise PluginBroken(f"does not load: {type(error).__name__}", name=_PLUGIN) from error
    if not isinstance(provider, TokenProvider):
        raise PluginBroken("is no token provider", name=_PLUGIN)
    return provider


def parse_token_file(file: TokenFile) -> TokenReference:
    """What a key file says; the caller closes its PIN.

    Raises:
        FormatError: not a key file.
        LocalError: the file of the PIN cannot be read.
    """
    import yaml

    with file.content.view() as data:
        try:
            document = View(yaml.safe_load(bytes(data)), what=file.name)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise FormatError("is not YAML", what=file.name) from error
    uri = document.object("pkcs11").text("uri")
    module = document.object("module", null_is_empty=True)
    environment = module.string_map("env")
    if not all(
        isinstance(one, str) and one and "\0" not in one and "=" not in str(name)  # type: ignore[redundant-expr]  # YAML has names of other types
        for name, value in environment.items()
        for one in (name, value)
    ):
        raise module.error("expected names with texts", "env")
    return replace(parse_token_uri(uri, what=file.name), environment=environment)


def parse_token_uri(uri: str, *, what: str) -> TokenReference:
    """The key that a PKCS11 URI names. No message repeats a value: one may be the PIN.

    A part that is not known is refused: without it another key could be taken.

    Raises:
        FormatError: not such a URI.
        LocalError: the file of the PIN cannot be read.
    """
    scheme, _, rest = uri.partition(":")
    path, _, query = rest.partition("?")
    if scheme != "pkcs11":
        raise FormatError("expected a URI that starts with pkcs11:", what=what)
    found: dict[str, bytes] = {}
    for part in (*path.split(";"), *query.split("&")):
        if not part:
            continue
        match = _PART.match(part)
        if match is None or match[1] in found:
            raise FormatError("expected each part once, as name=value", what=what)
        found[match[1]] = unquote_to_bytes(match[2])
    found.pop("type", None)  # of the object: which half is wanted is known
    key_id = found.pop("id", b"")
    pin = found.pop("pin-value", None)
    source = found.pop("pin-source", None)
    known = {"token", "serial", "object", "slot-id", "module-path", "module-name"}
    if unknown := sorted(found.keys() - known):
        raise FormatError(f"has the part {unknown[0][:40]!r}, which is not known here", what=what)
    try:
        texts = {name: value.decode("utf-8") for name, value in found.items()}
    except UnicodeDecodeError as error:
        raise FormatError("has a part that is not UTF-8", what=what) from error
    slot = texts.get("slot-id")
    if slot is not None and not (slot.isascii() and slot.isdigit() and len(slot) < 20):
        raise FormatError("expected a number as slot-id", what=what)
    if not key_id and not texts.get("object"):
        raise FormatError("expected an object or an id, which name the key", what=what)
    return TokenReference(
        token=texts.get("token", ""),
        serial=texts.get("serial", ""),
        slot_id=None if slot is None else int(slot),
        object=texts.get("object", ""),
        id=key_id,
        pin=_read_pin(pin, source, what),
        module_path=texts.get("module-path", ""),
        module_name=texts.get("module-name", ""),
    )


def _read_pin(value: bytes | None, source: bytes | None, what: str) -> SecretKey | None:
    if value is not None and source is not None:
        raise FormatError("expected pin-value or pin-source, got both", what=what)
    if value is not None:
        return SecretKey(value)
    if source is None:
        return None
    path = source.decode("utf-8", "surrogateescape")
    if path.startswith("|"):
        raise FormatError("has a program as pin-source, which is not started here", what=what)
    return read_password(Password("file", path=path.removeprefix("file:")))


_wrapper: type[KeyWrapper] = PKCS11Wrapper
_unwrappers: tuple[type[KeyUnwrapper], ...] = (PKCS11Unwrapper, TokenUnwrapper)


class _PKCS11(Scheme):
    """`pkcs11:FILE`, the path of a public key, or of a file that names a key on a token."""

    def open_wrappers(
        self, values: Sequence[str], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyWrapper]:
        """See `Scheme`."""
        del stack
        keys = [_load_key(path) for path in values]
        return [PKCS11Wrapper(keys, hash_name=settings.oaep_hash)]

    def open_unwrappers(
        self, files: Sequence[DecryptionFile], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyUnwrapper]:
        """See `Scheme`."""
        del settings
        unwrappers: list[KeyUnwrapper] = [
            PKCS11Unwrapper(one)
            for one in files
            if isinstance(one, PrivateKey) and isinstance(one.key, rsa.RSAPrivateKey)
        ]
        for one in files:
            if isinstance(one, TokenFile):
                key = open_token_key(one, private=True)
                unwrappers.append(stack.enter_context(TokenUnwrapper(key, one.name)))
        return unwrappers

    def load_target(self, value: str, settings: ProviderSettings) -> Target:
        """See `Scheme`."""
        del value, settings
        raise UsageError(
            "a PKCS11 packet does not say for whom it is",
            hint='give its number, as "imagers inspect" shows it: pkcs11#1',
        )

    def list_recipients(self, wrapped: WrappedKey) -> list[tuple[str, str]]:
        """See `Scheme`."""
        document = View.parse(wrapped.packet, what="", max_bytes=_MAX_BYTES)
        return [
            (f"RSA-OAEP with {one.value.get('hash') or 'sha1'}", "")
            for one in document.objects("recipients", null_is_empty=True)
        ]

    def check_packet(self, wrapped: WrappedKey) -> None:
        """See `Scheme`."""
        parse_pkcs11(wrapped.packet)


def _load_key(path: str) -> PublicKey:
    found = load_public_key_or_token_file(path)
    if isinstance(found, PublicKey):
        return found
    try:
        return load_token_public_key(found)
    finally:
        found.close()


SCHEME = _PKCS11()
