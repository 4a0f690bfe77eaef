# SPDX-License-Identifier: Apache-2.0
"""Keys on PKCS11 tokens, by `python-pkcs11`: found by the entry point `pkcs11`.

    PKCS11Tokens().open_key(TokenReference(token="imagers", object="layers", ...), private=True)

The shared library of a token is loaded into this process, once for all keys on it. Variables
that a key file names are set for this process when its library is loaded for the first time;
libraries read them then.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.mechanisms import MGF
from pkcs11.util.rsa import encode_rsa_public_key

from imagers.errors import KeyUnavailable, LocalError, Unsupported
from imagers.model.keys import SecretKey

if TYPE_CHECKING:
    from imagers.model.token import TokenKey, TokenProvider, TokenReference

__all__ = ["PKCS11Tokens"]

# Where distributions put these libraries (ocicrypt: crypto/pkcs11, GetDefaultModuleDirectories).
_DIRECTORIES = (
    "/usr/lib64/pkcs11",
    "/usr/lib/pkcs11",
    "/usr/lib/x86_64-linux-gnu/pkcs11",
    "/usr/lib/aarch64-linux-gnu/pkcs11",
    "/usr/lib/softhsm",
    "/usr/lib/x86_64-linux-gnu/softhsm",
    "/usr/lib/aarch64-linux-gnu/softhsm",
)
_OAEP = {
    "sha1": (Mechanism.SHA_1, MGF.SHA1, None),
    "sha256": (Mechanism.SHA256, MGF.SHA256, None),
}
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")  # RFC 3279 section 2.3.1
# "This is not for me, or was changed" of tokens; the others are faults.
_WRONG = (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange)
_NOT_DONE = (pkcs11.MechanismInvalid, pkcs11.MechanismParamInvalid, pkcs11.ArgumentsBad)

_lock = threading.Lock()
_libraries: dict[str, Any] = {}


class PKCS11Tokens:
    """Opens keys on tokens.

    Threads: safe; each key is for one thread at a time.
    """

    def open_key(self, reference: TokenReference, *, private: bool) -> TokenKey:
        """See `imagers.model.token.TokenProvider`."""
        library = _load(reference)
        token = _find_token(library, reference)
        pin = None
        if reference.pin is not None:
            with reference.pin.view() as data:
                # `str` for python-pkcs11: an immutable copy until this function returns.
                pin = bytes(data).decode("utf-8", "replace")
        try:
            session = token.open(user_pin=pin) if pin is not None else token.open()
        except pkcs11.PKCS11Error as error:
            raise KeyUnavailable(
                f"token {token.label!r}: does not let us in: {type(error).__name__}"
            ) from error
        try:
            return _Key(session, _find_key(session, reference, private=private))
        except BaseException:
            session.close()
            raise


def _load(reference: TokenReference) -> Any:  # python-pkcs11 has no types
    path = reference.module_path or _find_module(reference.module_name)
    with _lock:
        if path in _libraries:
            library = _libraries[path]
            library.reinitialize()  # sees tokens that are new
            return library
        os.environ.update(reference.environment)
        try:
            _libraries[path] = pkcs11.lib(path)
        except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
            raise LocalError("cannot be loaded as a PKCS11 library", path=path) from error
        return _libraries[path]


def _find_module(name: str) -> str:
    if not name or "/" in name:
        raise LocalError(
            f"expected module-name, or module-path, in the URI of the key, got {name[:80]!r}",
            hint="such as pkcs11:token=T;object=O?module-name=softhsm2",
        )
    for directory in _DIRECTORIES:
        for file in (f"lib{name}.so", f"{name}.so", f"{name}-pkcs11.so", f"lib{name}-pkcs11.so"):
            path = os.path.join(directory, file)
            if os.path.exists(path):
                return path
    raise LocalError(f"no PKCS11 library {name[:80]!r} in {', '.join(_DIRECTORIES)}")


def _find_token(library: Any, reference: TokenReference) -> Any:  # as above
    try:
        tokens = [
            slot.get_token()
            for slot in library.get_slots(token_present=True)
            if reference.slot_id is None or slot.slot_id == reference.slot_id
        ]
        found = [
            token
            for token in tokens
            if (not reference.token or token.label == reference.token)
            and (not reference.serial or _text(token.serial) == reference.serial)
        ]
    except pkcs11.PKCS11Error as error:
        raise KeyUnavailable(f"the tokens cannot be listed: {type(error).__name__}") from error
    if len(found) != 1:
        raise KeyUnavailable(
            f"expected one token {reference.token!r}, got {len(found)} of {len(tokens)}"
        )
    return found[0]


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else value.strip()


def _find_key(session: Any, reference: TokenReference, *, private: bool) -> Any:  # as above
    wanted: dict[Any, Any] = {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY if private else ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
    }
    if reference.object:
        wanted[Attribute.LABEL] = reference.object
    if reference.id:
        wanted[Attribute.ID] = reference.id
    try:
        found = list(session.get_objects(wanted))
    except pkcs11.PKCS11Error as error:
        raise KeyUnavailable(f"the keys cannot be listed: {type(error).__name__}") from error
    if len(found) != 1:
        half = "private" if private else "public"
        raise KeyUnavailable(
            f"expected one {half} RSA key {reference.object!r} on the token, got {len(found)}"
        )
    return found[0]


class _Key:
    def __init__(self, session: Any, key: Any) -> None:  # as above
        self._session = session
        self._key = key
        self._closed = False

    def public_key(self) -> bytes:
        """See `imagers.model.token.TokenKey`."""
        try:
            key = encode_rsa_public_key(self._key)
        except pkcs11.PKCS11Error as error:
            raise KeyUnavailable("the token does not tell its public key") from error
        bits = b"\x03" + _length(len(key) + 1) + b"\x00" + key
        return b"\x30" + _length(len(_RSA_ALGORITHM) + len(bits)) + _RSA_ALGORITHM + bits

    def decrypt_oaep(self, ciphertext: bytes, hash_name: str) -> SecretKey | None:
        """See `imagers.model.token.TokenKey`."""
        try:
            # `bytes` of python-pkcs11: an immutable copy until this function returns.
            return SecretKey(
                self._key.decrypt(
                    ciphertext,
                    mechanism=Mechanism.RSA_PKCS_OAEP,
                    mechanism_param=_OAEP[hash_name],
                )
            )
        except _WRONG:
            return None
        except _NOT_DONE as error:
            raise Unsupported(
                f"the token does not do RSAES-OAEP with {hash_name}",
                hint="encrypt for it with OCICRYPT_OAEP_HASHALG=sha1",
            ) from error
        except pkcs11.GeneralError:
            return None  # what SoftHSM says of a padding that is not right
        except pkcs11.PKCS11Error as error:
            raise KeyUnavailable(f"the token refuses: {type(error).__name__}") from error

    def close(self) -> None:
        """See `imagers.model.token.TokenKey`."""
        if not self._closed:
            self._closed = True
            self._session.close()


def _length(count: int) -> bytes:
    """The length of a DER element."""
    if count < 0x80:
        return bytes((count,))
    data = count.to_bytes((count.bit_length() + 7) // 8)
    return bytes((0x80 | len(data),)) + data


if TYPE_CHECKING:
    _provider: type[TokenProvider] = PKCS11Tokens
    _key: type[TokenKey] = _Key
