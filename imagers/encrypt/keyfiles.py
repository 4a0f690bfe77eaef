# SPDX-License-Identifier: Apache-2.0
"""Keys in files: public ones of recipients, private ones that decrypt.

    public       PEM or DER SubjectPublicKeyInfo (a PEM block of any name), public JWK
    certificate  PEM or DER
    private      PEM or DER of PKCS8, PKCS1 and SEC1, each also with a password; private JWK;
                 OpenPGP secret keyrings, binary or armored; PKCS11 key files in YAML

What a file holds is told from its content. A file of the other half, a certificate or a
signing key gives an error that says so. `parse_*` work on bytes, `load_*` read files.

A private key lives in an object of `cryptography` or `jwcrypto` and cannot be wiped there;
the bytes of its file are wiped where we hold them.

Spec: RFC 5208, 5915, 7517, 7518 section 6, 8017; containers/ocicrypt v1.3.2, utils/utils.go
(what it reads; this reads all of it, and PEM SEC1 and encrypted PKCS8 besides).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from imagers.errors import FormatError, KeyUnavailable, Unsupported, UsageError
from imagers.files import local_errors
from imagers.model.keys import SecretKey
from imagers.model.strict_json import View
from imagers.pki.jwk import (
    is_private_jwk,
    jwk_algorithm,
    jwk_private_key,
    jwk_public_key,
)
from imagers.waiting import wait_to_read

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "Certificate",
    "DecryptionFile",
    "PGPKeyring",
    "Password",
    "PrivateKey",
    "PublicKey",
    "TokenFile",
    "holds_private_key",
    "load_certificate",
    "load_decryption_file",
    "load_private_key",
    "load_public_key",
    "load_public_key_or_token_file",
    "parse_certificate",
    "parse_private_key",
    "parse_public_key",
    "read_password",
    "read_small_file",
]

_MAX_KEY_BYTES = 128 * 1024  # an RSA-16384 private JWK has 13 KiB
_MAX_PASSWORD_BYTES = 4096
_MIN_RSA_BITS = 2048  # NIST SP 800-131A; peers write nothing smaller
_MAX_RSA_BITS = 16384  # above it one operation takes seconds
_MAX_KID = 256
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----")
_TOKEN_FILE = re.compile(rb"(?:\s*(?:#[^\n]*|---)\n)*\s*pkcs11\s*:")
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A recipient's key.

    Attributes:
        name: of its file, for messages.
        algorithm: what a JWK asks for; "" where the kind of key decides.
        kid: of a JWK; "" for others.
    """

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    name: str
    algorithm: str = ""
    kid: str = ""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key that decrypts.

    Attributes:
        name: of its file, for messages.
        kid: of a JWK; "" for others.
    """

    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)
    name: str
    kid: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, of which only the key and the names count here; nothing is verified.

    Attributes:
        der: all of it.
        key: of its subject; kinds that are no use are refused where they would be used.
        name: of its file, for messages.
    """

    der: bytes = field(repr=False)
    key: PublicKeyTypes
    name: str


@dataclass(frozen=True, slots=True)
class PGPKeyring:
    """OpenPGP secret keys, as they stand in a file.

    Attributes:
        content: binary or armored; wiped by `close`.
        passphrase: None where none was given.
        name: of its file, for messages.
    """

    content: SecretKey
    passphrase: SecretKey | None
    name: str

    def close(self) -> None:
        """Wipe keys and passphrase. Safe to call twice."""
        self.content.close()
        if self.passphrase is not None:
            self.passphrase.close()


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A PKCS11 key file, as it stands in a file: `imagers.encrypt.schemes.pkcs11` reads it.

    Attributes:
        content: YAML, perhaps with a PIN; wiped by `close`.
        name: of its file, for messages.
    """

    content: SecretKey
    name: str

    def close(self) -> None:
        """Wipe the content. Safe to call twice."""
        self.content.close()


DecryptionFile = PrivateKey | Certificate | PGPKeyring | TokenFile
"""What a file that is given for decryption may hold."""


@dataclass(frozen=True, slots=True)
class Password:
    """Where the password of a key is.

    Attributes:
        kind: `argument` (everybody on the machine could read it), `file` or `fd`.
        secret: the password itself, only for `argument`.
        path: only for `file`.
        descriptor: only for `fd`.
    """

    kind: Literal["argument", "file", "fd"]
    secret: SecretKey | None = None
    path: str = ""
    descriptor: int = -1


def load_public_key(path: str) -> PublicKey:
    """The public key in the file at `path`.

    Raises:
        LocalError: it cannot be read.
        FormatError: it holds something else.
        Unsupported: a key of another kind or size.
    """
    with _read(path, _MAX_KEY_BYTES) as content, content.view() as data:
        return parse_public_key(bytes(data), name=path)


def load_private_key(path: str, password: Password | None = None) -> PrivateKey:
    """The private key in the file at `path`.

    Raises:
        KeyUnavailable: the password is missing or does not open it.
        LocalError, FormatError, Unsupported: as for `load_public_key`.
    """
    with _read(path, _MAX_KEY_BYTES) as content:
        if password is None:
            return parse_private_key(content, name=path)
        with read_password(password) as secret:
            return parse_private_key(content, name=path, password=secret)


def load_certificate(path: str) -> Certificate:
    """The first certificate in the file at `path`; errors as for `load_public_key`."""
    with _read(path, _MAX_KEY_BYTES) as content, content.view() as data:
        return parse_certificate(bytes(data), name=path)


def load_public_key_or_token_file(path: str) -> PublicKey | TokenFile:
    """The public key or the PKCS11 key file at `path`; errors as for `load_public_key`."""
    content = _read(path, _MAX_KEY_BYTES)
    with content.view() as data:
        if _TOKEN_FILE.match(bytes(data)):
            return TokenFile(content, path)
    with content, content.view() as data:
        return parse_public_key(bytes(data), name=path)


def load_decryption_file(path: str, password: Password | None = None) -> DecryptionFile:
    """What the file at `path` holds, told from its content; the caller closes what can be.

    A word after a file's name may also be the name of a certificate, FILE:CERT, which is
    for the caller to try before a password is made of it.

    Raises:
        UsageError: a password for something that has none.
        KeyUnavailable, LocalError, FormatError, Unsupported: as for `load_private_key`.
    """
    content = _read(path, _MAX_KEY_BYTES)
    try:
        with content.view() as view:
            data = bytes(view)
        if _is_pgp_keyring(data):
            passphrase = None if password is None else read_password(password)
            return PGPKeyring(content, passphrase, path)
        if _TOKEN_FILE.match(data):
            _refuse_password(password, path)
            return TokenFile(content, path)
        if is_certificate(data):
            _refuse_password(password, path)
            content.close()
            return parse_certificate(data, name=path)
        with content:
            if password is None:
                return parse_private_key(content, name=path)
            with read_password(password) as secret:
                return parse_private_key(content, name=path, password=secret)
    except BaseException:
        content.close()
        raise


def _is_pgp_keyring(data: bytes) -> bool:
    """Whether the first packet is a secret or a public key, or the armor says so."""
    if data[:1] > b"\x7f":  # DER and text are below
        first = data[0]
        tag = first & 0x3F if first & 0x40 else first >> 2 & 0x0F
        return tag in (5, 6)  # RFC 4880 section 4.3
    return data.lstrip().startswith(b"-----BEGIN PGP ")


def is_certificate(data: bytes) -> bool:
    """Whether `data` is a certificate in PEM or DER, and no private key is beside it."""
    labels = _PEM.findall(data)
    if labels:
        return any(_is_certificate_label(one) for one in labels) and not any(
            b"PRIVATE KEY" in one for one in labels
        )
    return _certificate_key(data) is not None


def _is_certificate_label(label: bytes) -> bool:
    return label in (b"CERTIFICATE", b"X509 CERTIFICATE")


def _certificate_key(der: bytes) -> bytes | None:
    """The key in a certificate, as DER; None for other DER.

    By asn1crypto: `cryptography` refuses real certificates for faults that do not matter
    here, such as a serial number of 0.
    """
    from asn1crypto import x509

    try:
        certificate = x509.Certificate.load(der, strict=True)
        certificate.serial_number, certificate.issuer.dump()  # parsed when first looked at
        return bytes(certificate.public_key.dump())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def parse_certificate(data: bytes, *, name: str) -> Certificate:
    """The first certificate in `data`; arguments and errors as for `load_certificate`."""
    der = data
    for pem in _PEM.finditer(data):
        if _is_certificate_label(pem[1]):
            try:
                der = _pem_body(data, pem)
            except ValueError as error:
                raise FormatError("is not a certificate", what=name) from error
            break
    spki = _certificate_key(der)
    if spki is None:
        found = _PEM.search(data)
        raise FormatError(
            "expected a certificate (PEM or DER)"
            + (f", got PEM '{found[1].decode()}'" if found else ""),
            what=name,
        )
    try:
        return Certificate(der, load_der_public_key(spki), name)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unsupported(f"{name}: the certificate has a key that is not supported") from error


def read_small_file(path: str) -> SecretKey:
    """A file of at most 128 KiB, such as a key or a configuration; the caller closes it.

    Raises:
        LocalError, FormatError: it cannot be read, or is larger.
    """
    return _read(path, _MAX_KEY_BYTES)


def read_password(password: Password) -> SecretKey:
    """The password; the caller closes it. One line end after it is no part of it.

    Raises:
        LocalError: its file or descriptor cannot be read.
        UsageError: it is empty.
    """
    if password.kind == "argument" and password.secret is not None:
        with password.secret.view() as data:
            return SecretKey(data)
    if password.kind == "file":
        content = _read(password.path, _MAX_PASSWORD_BYTES)
    else:
        content = _read_descriptor(
            password.descriptor, f"file descriptor {password.descriptor}", _MAX_PASSWORD_BYTES
        )
    with content, content.view() as data:
        end = len(data)
        if end and data[end - 1] == ord("\n"):
            end -= 1
            if end and data[end - 1] == ord("\r"):
                end -= 1
        if not end:
            raise UsageError(f"the password in {password.path or 'the descriptor'} is empty")
        return SecretKey(data[:end])


def _read(path: str, max_bytes: int) -> SecretKey:
    with local_errors(path, "cannot be read"):
        # A pipe may have nobody who writes yet: that is waited for below.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _read_descriptor(descriptor, path, max_bytes)
    finally:
        os.close(descriptor)


def _read_descriptor(descriptor: int, name: str, max_bytes: int) -> SecretKey:
    content = bytearray(max_bytes + 1)
    view = memoryview(content)
    size = 0
    try:
        # Until the end: pipes and `<(command)` give pieces.
        with local_errors(name, "cannot be read"):
            while size <= max_bytes:
                wait_to_read(descriptor, f"'{name}'")
                count = os.readv(descriptor, [view[size:]])
                if not count:
                    break
                size += count
        if size > max_bytes:
            raise FormatError(f"expected at most {max_bytes} bytes, got more", what=name)
        return SecretKey(view[:size])
    finally:
        view.release()
        content[:] = bytes(len(content))


def holds_private_key(data: bytes, *, name: str) -> bool:
    """Whether a file has a private key in it, with a password or without; what it is of, is open.

    Raises:
        FormatError: it is JSON, and malformed.
    """
    if data.lstrip().startswith(b"{"):
        return is_private_jwk(View.parse(data, what=name, max_bytes=_MAX_KEY_BYTES))
    labels = _PEM.findall(data)
    return any(b"PRIVATE KEY" in one for one in labels) if labels else _is_private_der(data)


def parse_public_key(data: bytes, *, name: str) -> PublicKey:
    """The public key in `data`; arguments and errors as for `load_public_key`."""
    if data.lstrip().startswith(b"{"):
        document = View.parse(data, what=name, max_bytes=_MAX_KEY_BYTES)
        if is_private_jwk(document):
            raise _wrong_half(name)
        return PublicKey(
            _check_public(jwk_public_key(document), name),
            name,
            algorithm=jwk_algorithm(document),
            kid=_get_kid(document),
        )
    pem = _PEM.search(data)
    if pem is None:
        try:
            return PublicKey(_check_public(load_der_public_key(data), name), name)
        except (ValueError, UnsupportedAlgorithm):
            pass
        if _is_private_der(data):
            raise _wrong_half(name)
        raise _not_a_key("public", name)
    label = pem[1].decode("ascii")
    # Any block: `openssl ecparam -genkey` puts the curve before the key.
    labels = _PEM.findall(data)
    if any(b"SIGSTORE PRIVATE KEY" in one for one in labels):
        raise _wrong_half(name, "the file NAME.pub beside it")
    if any(b"PRIVATE KEY" in one for one in labels):
        raise _wrong_half(name)
    if "CERTIFICATE" in label:
        raise FormatError(
            "is a certificate, expected a public key",
            what=name,
            hint=f"take the key out of it: openssl x509 -in {name} -pubkey -noout",
        )
    try:
        return PublicKey(_check_public(load_der_public_key(_pem_body(data, pem)), name), name)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _not_a_key("public", name, label) from error


def _pem_body(data: bytes, begin: re.Match[bytes]) -> bytes:
    """The DER in a PEM block of any name."""
    import binascii

    end = data.find(b"-----END " + begin[1] + b"-----", begin.end())
    if end < 0:
        raise ValueError("the PEM block has no end")
    return binascii.a2b_base64(data[begin.end() : end])


def parse_private_key(
    content: SecretKey, *, name: str, password: SecretKey | None = None
) -> PrivateKey:
    """The private key in `content`, which stays the caller's; errors as for `load_private_key`."""
    with content.view() as view:
        # The parsers take `bytes`: an immutable copy until this function returns.
        data = bytes(view)
    if data.lstrip().startswith(b"{"):
        document = View.parse(data, what=name, max_bytes=_MAX_KEY_BYTES)
        if not is_private_jwk(document):
            # Any JSON may be here by mistake, such as a policy.
            raise _not_private(name) if "kty" in document else _not_a_key("private", name)
        _refuse_password(password, name)
        return PrivateKey(
            _check_private(jwk_private_key(document), name), name, kid=_get_kid(document)
        )
    pem = _PEM.search(data)
    if pem is None:
        return _load_private(load_der_private_key, data, name, "", password)
    label = pem[1].decode("ascii")
    if "COSIGN" in label or "SIGSTORE" in label:
        raise Unsupported(f"{name}: is a signing key ({label}), expected an RSA or EC key")
    if "PUBLIC KEY" in label:
        raise _not_private(name)
    return _load_private(load_pem_private_key, data, name, label, password)


def _load_private(
    load: Callable[[bytes, bytes | None], object],
    data: bytes,
    name: str,
    label: str,
    password: SecretKey | None,
) -> PrivateKey:
    secret: bytes | None = None
    if password is not None:
        with password.view() as view:
            secret = bytes(view)
    try:
        return PrivateKey(_check_private(load(data, secret), name), name)
    except TypeError as error:  # how `cryptography` says both of these
        if secret is None:
            raise KeyUnavailable(
                f"{name}: the key has a password, and none was given",
                hint=f"give it as --decryption-key {name}:file=PASSWORDFILE or {name}:fd=N; on a "
                "terminal it is asked for",
            ) from error
        raise _needless_password(name) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # A wrong password can leave padding that looks right, and then a "wrong key format".
        if secret is not None and (
            "ENCRYPTED" in label or b"DEK-Info" in data or "assword" in str(error)
        ):
            raise KeyUnavailable(f"{name}: the password does not open the key") from error
        if not label and _is_public_der(data):
            raise _not_private(name) from error
        raise _not_a_key("private", name, label) from error


def _refuse_password(password: SecretKey | Password | None, name: str) -> None:
    if password is not None:
        raise _needless_password(name)


def _get_kid(jwk: View) -> str:
    kid = jwk.optional_text("kid") or ""
    # It is written into each packet, and the message about it to a terminal.
    if len(kid) > _MAX_KID or not kid.isprintable():
        raise jwk.error(f"expected at most {_MAX_KID} printable characters", "kid")
    return kid


def _check_public(key: object, name: str) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    if isinstance(key, rsa.RSAPublicKey):
        _check_bits(key.key_size, name, _MIN_RSA_BITS)
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise _wrong_kind(key, name)


def _check_private(key: object, name: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if isinstance(key, rsa.RSAPrivateKey):
        # No lower bound: an old image must stay readable.
        _check_bits(key.key_size, name, 0)
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES):
        return key
    raise _wrong_kind(key, name)


def _check_bits(bits: int, name: str, least: int) -> None:
    if not least <= bits <= _MAX_RSA_BITS:
        raise Unsupported(
            f"{name}: expected an RSA key of {least} to {_MAX_RSA_BITS} bits, got {bits}"
        )


def _wrong_kind(key: object, name: str) -> Unsupported:
    curve = getattr(getattr(key, "curve", None), "name", None)
    found = f"EC {curve}" if curve else type(key).__name__.removesuffix("Key")
    return Unsupported(f"{name}: expected an RSA or EC (P-256, P-384, P-521) key, got {found}")


def _wrong_half(name: str, public: str = "") -> FormatError:
    show = f"'imagers key show --public {name}' prints it"
    return FormatError(
        "is a private key, expected a public one",
        what=name,
        hint=f"give the public half: {public or show}",
    )


def _not_private(name: str) -> FormatError:
    return FormatError(
        "is a public key, expected a private one",
        what=name,
        hint="the private half is often beside it, as NAME.key",
    )


def _needless_password(name: str) -> UsageError:
    return UsageError(
        f"{name}: a password was given, and the key has none",
        hint="leave the password away, or check that this is the right file",
    )


def _not_a_key(half: str, name: str, label: str = "") -> FormatError:
    found = f", got PEM '{label}'" if label else ""
    hint = None if label else "of a file of gpg, 'gpg --show-keys FILE' says what it holds"
    return FormatError(f"expected a {half} key (PEM, DER or JWK){found}", what=name, hint=hint)


def _is_private_der(data: bytes) -> bool:
    try:
        load_der_private_key(data, None)
    except TypeError:
        return True  # it wants a password
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _is_public_der(data: bytes) -> bool:
    try:
        load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
