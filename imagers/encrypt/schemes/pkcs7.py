# SPDX-License-Identifier: Apache-2.0
"""Recipients with an RSA certificate: private options in CMS envelopedData.

    ContentInfo  30 { 1.2.840.113549.1.7.3, a0 { EnvelopedData } }
    EnvelopedData 30 { version 0, 31 { RecipientInfo... }, EncryptedContentInfo }
    RecipientInfo 30 { version 0, IssuerAndSerialNumber, rsaEncryption, 04 key }
    EncryptedContentInfo 30 { 1.2.840.113549.1.7.1, 30 { cipher, parameters }, 80 bytes }

Written is what both the standard (and so openssl) and ocicrypt read: AES-256-CBC under a
key by PKCS#1 v1.5. It has no tag of its own: a change leaves garbage, which is no private
options, or other options, which do not fit the layer's tag and diff_id. docs/adr/0010 says
why not AES-GCM, which ocicrypt writes in a form that is no CMS:

    10 13 30 11 84 0c NONCE 02 01 10     parameters in a SEQUENCE that is primitive, nonce [4]
    a0 { 04 BYTES }                      content constructed (until ocicrypt 1.2.0), or
    80 BYTES                             primitive (since 1.2.1)

Read are those, and the right forms: AES-128, -192 and -256 in CBC and GCM, DES and 3DES;
keys by PKCS#1 v1.5 or OAEP; recipients by issuer and serial number or by key identifier.
A certificate here names a recipient and nothing more: chain, dates and usage say nothing
about who can decrypt, and are not looked at.

Spec: RFC 5652 section 6, RFC 5084, RFC 8017; containers/ocicrypt v1.3.2, keywrap/pkcs7.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asn1crypto import algos, core, x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.encrypt.keyfiles import Certificate, PrivateKey, load_certificate
from imagers.encrypt.schemes.scheme import Scheme
from imagers.errors import FormatError, ImagersError, Unsupported, UsageError
from imagers.model.keys import KeyUnwrapper, KeyWrapper, NotMine, SecretKey
from imagers.pki.der import Element, encode, encode_oid, only, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import ExitStack

    from imagers.encrypt.keyfiles import DecryptionFile
    from imagers.encrypt.schemes.scheme import ProviderSettings, Target
    from imagers.model.keys import UnwrapContext, WrapContext, WrappedKey

__all__ = [
    "PKCS7_SCHEME",
    "SCHEME",
    "CertificateTarget",
    "PKCS7Unwrapper",
    "PKCS7Wrapper",
    "Recipient",
    "is_pair",
    "names_of",
    "parse_recipients_of",
]

PKCS7_SCHEME = "pkcs7"

_DATA = "1.2.840.113549.1.7.1"
_ENVELOPED = "1.2.840.113549.1.7.3"
_RSA = "1.2.840.113549.1.1.1"
_OAEP = "1.2.840.113549.1.1.7"
_AES_256_CBC = "2.16.840.1.101.3.4.1.42"
_CBC: dict[str, int] = {  # key bytes; AES has blocks of 16 bytes, the DES family of 8
    "2.16.840.1.101.3.4.1.2": 16,
    "2.16.840.1.101.3.4.1.22": 24,
    _AES_256_CBC: 32,
    "1.2.840.113549.3.7": 24,
    "1.3.14.3.2.7": 8,
}
_DES_FAMILY = {"1.2.840.113549.3.7", "1.3.14.3.2.7"}
_GCM = {
    "2.16.840.1.101.3.4.1.6": 16,
    "2.16.840.1.101.3.4.1.26": 24,
    "2.16.840.1.101.3.4.1.46": 32,
}
_NONCE_BYTES = 12
_TAG_BYTES = 16
_MAX_BYTES = 256 * 1024
_MAX_RECIPIENTS = 300
_WHAT = "PKCS7"
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}

# Tags, as their first byte stands in DER.
_INTEGER, _BYTES, _NULL, _OID, _SEQUENCE, _SET = 0x02, 0x04, b"\x05\x00", 0x06, 0x30, 0x31
_CONTEXT_0, _CONSTRUCTED_0 = 0x80, 0xA0


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a message.

    Attributes:
        issuer: DER of the issuer's name; empty where a key identifier names the certificate.
        serial: of the certificate, 0 where a key identifier does.
        key_id: subject key identifier, or empty.
        algorithm: of the key encryption, dotted.
        parameters: of it, DER.
        encrypted_key: under the certificate's key.
    """

    issuer: bytes
    serial: int
    key_id: bytes
    algorithm: str
    parameters: bytes
    encrypted_key: bytes

    @property
    def algorithm_name(self) -> str:
        """The key encryption, as people call it."""
        return {_RSA: "RSA PKCS#1 v1.5", _OAEP: "RSA-OAEP"}.get(self.algorithm, self.algorithm)

    @property
    def name(self) -> str:
        """How messages show it: the issuer's name and the serial number. Unauthenticated."""
        if self.key_id:
            return f"key identifier {self.key_id.hex()[:80]}"
        try:
            issuer = x509.Name.load(self.issuer).human_friendly
        except (ValueError, TypeError, KeyError):
            issuer = "?"
        return f"serial {self.serial:x} of {issuer[:120]}"


@dataclass(frozen=True, slots=True)
class _Message:
    recipients: tuple[Recipient, ...]
    algorithm: str
    parameters: tuple[Element, ...]
    content: bytes


class PKCS7Wrapper:
    """Wraps for the keys of RSA certificates, all in one message.

    Args:
        certificates: of the recipients, at least one.

    Raises:
        Unsupported: a certificate with another kind of key, of which ocicrypt crashes.
    """

    scheme = PKCS7_SCHEME

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        if not certificates:
            raise ValueError("a PKCS7 message needs a recipient")
        if len(certificates) > _MAX_RECIPIENTS:
            raise Unsupported(
                f"expected at most {_MAX_RECIPIENTS} recipients, got {len(certificates)}"
            )
        for one in certificates:
            _rsa_key_of(one)
        self._certificates = tuple(certificates)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The certificate files."""
        return tuple(f"pkcs7:{one.name}" for one in self._certificates)

    def wrap(self, private_options: SecretKey, context: WrapContext) -> bytes:
        """One message for all of them."""
        del context  # the format binds a packet to nothing
        # `bytes` for `cryptography`: an immutable copy until this function returns.
        key = os.urandom(32)
        infos = [_recipient_info(one, key) for one in self._certificates]
        iv = os.urandom(16)
        padder = PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
        with private_options.view() as data:
            padded = padder.update(bytes(data)) + padder.finalize()
        content = encryptor.update(padded) + encryptor.finalize()
        return encode(
            _SEQUENCE,
            encode_oid(_ENVELOPED),
            encode(
                _CONSTRUCTED_0,
                encode(
                    _SEQUENCE,
                    encode(_INTEGER, b"\x00"),
                    encode(_SET, *sorted(infos)),  # DER: a SET OF is sorted
                    encode(
                        _SEQUENCE,
                        encode_oid(_DATA),
                        encode(_SEQUENCE, encode_oid(_AES_256_CBC), encode(_BYTES, iv)),
                        encode(_CONTEXT_0, content),
                    ),
                ),
            ),
        )


def _rsa_key_of(certificate: Certificate) -> rsa.RSAPublicKey:
    if not isinstance(certificate.key, rsa.RSAPublicKey):
        raise Unsupported(
            f"{certificate.name}: expected a certificate with an RSA key, got another kind",
            hint="give the public key itself as jwe:FILE, which takes EC keys too",
        )
    return certificate.key


def _recipient_info(certificate: Certificate, key: bytes) -> bytes:
    parsed = _parse_certificate(certificate)
    return encode(
        _SEQUENCE,
        encode(_INTEGER, b"\x00"),
        encode(_SEQUENCE, parsed.issuer.dump(), core.Integer(parsed.serial_number).dump()),
        encode(_SEQUENCE, encode_oid(_RSA), _NULL),
        encode(_BYTES, _rsa_key_of(certificate).encrypt(key, padding.PKCS1v15())),
    )


def _parse_certificate(certificate: Certificate) -> x509.Certificate:
    return x509.Certificate.load(certificate.der)


class PKCS7Unwrapper:
    """Opens messages for one certificate with its private key.

    Args:
        key: RSA; the private half of the certificate's key.

    Raises:
        Unsupported: the certificate has another kind of key.
        ValueError: key and certificate are no pair.
    """

    def __init__(self, key: PrivateKey, certificate: Certificate) -> None:
        public = _rsa_key_of(certificate)
        if not isinstance(key.key, rsa.RSAPrivateKey) or not is_pair(key, certificate):
            raise ValueError("key and certificate are no pair")
        self._key = key.key
        self._bytes = (public.key_size + 7) // 8
        self._names = f"key file {key.name!r} with certificate {certificate.name!r}"
        self._issuer, self._serial = names_of(certificate)
        self._key_id = _parse_certificate(certificate).key_identifier or b""

    @property
    def description(self) -> str:
        """Key file and certificate."""
        return self._names

    def unwrap(self, wrapped: WrappedKey, context: UnwrapContext) -> SecretKey:
        """The private options in the message; the caller closes them.

        Raises:
            NotMine: another scheme, no such message, for another certificate, or changed.
            Unsupported: for this certificate, by an algorithm that is not done here.
        """
        if wrapped.scheme != PKCS7_SCHEME:
            raise NotMine(f"the scheme is {wrapped.scheme[:80]!r}")
        try:
            message = _parse(wrapped.packet)
        except FormatError as error:
            raise NotMine(str(error)) from error
        mine = [one for one in message.recipients if self._is_mine(one)]
        if not mine:
            raise NotMine("the message is for other certificates")
        # Whatever goes wrong from here means one thing: a padding that could be told from a
        # wrong content would be an oracle (RFC 8017 section 7.2, RFC 5652 section 14).
        refused: Unsupported | None = None
        for recipient in mine:
            try:
                return self._open(recipient, message)
            except Unsupported as error:
                refused = error
            except (ValueError, InvalidTag, UnsupportedAlgorithm, FormatError):
                continue
        if refused is not None:
            raise Unsupported(f"{context.what}: {refused}") from refused
        raise NotMine("the message was changed, or is for another key")

    def _is_mine(self, recipient: Recipient) -> bool:
        if recipient.key_id:
            return recipient.key_id == self._key_id
        return (recipient.issuer, recipient.serial) == (self._issuer, self._serial)

    def _open(self, recipient: Recipient, message: _Message) -> SecretKey:
        if len(recipient.encrypted_key) != self._bytes:
            raise ValueError("the encrypted key has another length than the key")
        key = self._key.decrypt(recipient.encrypted_key, _padding_of(recipient))
        # `bytes` of cryptography: immutable copies until this function returns.
        return SecretKey(_decrypt(message, key))


def is_pair(key: PrivateKey, certificate: Certificate) -> bool:
    """Whether the key is the private half of the certificate's."""
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return key.key.public_key().public_bytes(*form) == certificate.key.public_bytes(*form)


def names_of(certificate: Certificate) -> tuple[bytes, int]:
    """Issuer (DER) and serial number, which name a recipient in a message."""
    parsed = _parse_certificate(certificate)
    return parsed.issuer.dump(), parsed.serial_number


def _padding_of(recipient: Recipient) -> padding.AsymmetricPadding:
    if recipient.algorithm == _RSA:
        return padding.PKCS1v15()
    if recipient.algorithm != _OAEP:
        raise Unsupported(
            f"{_WHAT}: expected key encryption rsaEncryption or RSAES-OAEP, "
            f"got {recipient.algorithm[:80]}"
        )
    parameters = algos.RSAESOAEPParams.load(recipient.parameters or b"\x30\x00")
    name = parameters["hash_algorithm"]["algorithm"].native
    mgf = parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native
    label = parameters["p_source_algorithm"]["parameters"].native
    if name not in _HASHES or mgf not in _HASHES:
        raise Unsupported(f"{_WHAT}: OAEP with hash {str(name)[:40]!r} is not supported")
    return padding.OAEP(padding.MGF1(_HASHES[mgf]()), _HASHES[name](), label or None)


def _decrypt(message: _Message, key: bytes) -> bytes:
    if message.algorithm in _GCM:
        if len(key) != _GCM[message.algorithm]:
            raise ValueError("the key has another length")
        return AESGCM(key).decrypt(_gcm_nonce(message.parameters), message.content, None)
    if message.algorithm not in _CBC:
        raise Unsupported(f"{_WHAT}: cipher {message.algorithm[:80]} is not supported")
    if len(key) != _CBC[message.algorithm]:
        raise ValueError("the key has another length")
    if len(message.parameters) != 1 or message.parameters[0].tag != _BYTES:
        raise FormatError("expected an iv", what=_WHAT)
    iv = message.parameters[0].content
    cipher: TripleDES | algorithms.AES
    if message.algorithm in _DES_FAMILY:
        cipher = TripleDES(key * (24 // len(key)))  # three times one key is DES
    else:
        cipher = algorithms.AES(key)
    decryptor = Cipher(cipher, modes.CBC(iv)).decryptor()
    unpadder = PKCS7(cipher.block_size).unpadder()
    padded = decryptor.update(message.content) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def _gcm_nonce(parameters: tuple[Element, ...]) -> bytes:
    """The nonce, from the right form or from that of ocicrypt; the tag must have 16 bytes.

    Spec: RFC 5084 section 3.2, where a missing length of the tag means 12.
    """
    found = list(parameters)
    if len(found) == 1 and found[0].tag == 0x10:
        found = split(found[0].content, what=_WHAT)
    if len(found) == 1 and found[0].tag == _SEQUENCE:
        inner = split(found[0].content, what=_WHAT)
        if (
            len(inner) == 2
            and inner[0].tag in (_BYTES, 0x84)
            and len(inner[0].content) == _NONCE_BYTES
            and inner[1].tag == _INTEGER
            and inner[1].content == bytes((_TAG_BYTES,))
        ):
            return inner[0].content
    raise FormatError(
        f"expected a nonce of {_NONCE_BYTES} bytes and a tag of {_TAG_BYTES}", what=_WHAT
    )


def parse_recipients_of(packet: bytes) -> tuple[Recipient, ...]:
    """The recipients of a message; nothing is decrypted, nothing is authenticated.

    Raises:
        FormatError: it is no such message.
    """
    return _parse(packet).recipients


def _parse(packet: bytes) -> _Message:
    if len(packet) > _MAX_BYTES:
        raise FormatError(f"expected at most {_MAX_BYTES} bytes, got {len(packet)}", what=_WHAT)
    try:
        return _parse_content_info(packet)
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, ImagersError) as error:
        raise FormatError("is not CMS envelopedData", what=_WHAT) from error


def _parse_content_info(packet: bytes) -> _Message:
    outer = split(only(packet, _SEQUENCE, what=_WHAT), what=_WHAT)
    if len(outer) != 2 or outer[1].tag != _CONSTRUCTED_0 or _oid(outer[0]) != _ENVELOPED:
        raise FormatError("expected content of type envelopedData", what=_WHAT)
    parts = split(only(outer[1].content, _SEQUENCE, what=_WHAT), what=_WHAT)
    # version, [0] originatorInfo, recipients, content, [1] unprotectedAttrs
    inner = [part for part in parts if part.tag in (_SET, _SEQUENCE)]
    if [part.tag for part in inner] != [_SET, _SEQUENCE] or parts[0].tag != _INTEGER:
        raise FormatError("expected recipients and one content", what=_WHAT)
    content = split(inner[1].content, what=_WHAT)
    if len(content) != 3 or content[1].tag != _SEQUENCE:
        raise FormatError("expected an encrypted content", what=_WHAT)
    algorithm, *parameters = split(content[1].content, what=_WHAT)
    recipients = [
        _parse_recipient(one)
        for one in split(inner[0].content, what=_WHAT)
        if one.tag == _SEQUENCE  # others, such as [1] KeyAgreeRecipientInfo, are not RSA's
    ]
    if len(recipients) > _MAX_RECIPIENTS:
        raise FormatError(f"expected at most {_MAX_RECIPIENTS} recipients", what=_WHAT)
    return _Message(
        tuple(recipients), _oid(algorithm), tuple(parameters), _content_bytes(content[2])
    )


def _content_bytes(element: Element) -> bytes:
    """The encrypted bytes: in one piece, or in OCTET STRINGs below a constructed [0]."""
    if element.tag == _CONTEXT_0:
        return element.content
    if element.tag != _CONSTRUCTED_0:
        raise FormatError("expected encrypted bytes", what=_WHAT)
    pieces = split(element.content, what=_WHAT)
    if any(piece.tag != _BYTES for piece in pieces):
        raise FormatError("expected encrypted bytes in pieces", what=_WHAT)
    return b"".join(piece.content for piece in pieces)


def _parse_recipient(element: Element) -> Recipient:
    parts = split(element.content, what=_WHAT)
    if len(parts) != 4 or parts[2].tag != _SEQUENCE or parts[3].tag != _BYTES:
        raise FormatError("expected a recipient of four parts", what=_WHAT)
    algorithm, *parameters = split(parts[2].content, what=_WHAT)
    issuer, serial, key_id = b"", 0, b""
    if parts[1].tag == _CONTEXT_0:
        key_id = parts[1].content
        if not key_id:
            raise FormatError("expected a key identifier, got an empty one", what=_WHAT)
    else:
        name = split(only(parts[1].raw, _SEQUENCE, what=_WHAT), what=_WHAT)
        if len(name) != 2 or name[1].tag != _INTEGER:
            raise FormatError("expected an issuer and a serial number", what=_WHAT)
        issuer = name[0].raw
        serial = int.from_bytes(name[1].content[:64], signed=True)
    return Recipient(
        issuer,
        serial,
        key_id,
        _oid(algorithm),
        parameters[0].raw if parameters else b"",
        parts[3].content,
    )


def _oid(element: Element) -> str:
    if element.tag != _OID:
        raise FormatError("expected an object identifier", what=_WHAT)
    return str(core.ObjectIdentifier.load(element.raw).dotted)


_wrapper: type[KeyWrapper] = PKCS7Wrapper
_unwrapper: type[KeyUnwrapper] = PKCS7Unwrapper


@dataclass(frozen=True, slots=True)
class CertificateTarget:
    """Whoever has the key of this certificate.

    Attributes:
        issuer: DER of its name.
        serial: number of the certificate.
        name: in messages.
    """

    issuer: bytes
    serial: int
    name: str

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """The packet without them; None if nobody is left in it."""
        del number
        if wrapped.scheme != "pkcs7":
            return wrapped.packet
        try:
            recipients = parse_recipients_of(wrapped.packet)
        except FormatError:
            return wrapped.packet
        stay = [(one.issuer, one.serial) != (self.issuer, self.serial) for one in recipients]
        if all(stay):
            return wrapped.packet
        return self._cut(wrapped.packet, stay) if any(stay) else None

    @staticmethod
    def _cut(packet: bytes, stay: list[bool]) -> bytes:
        """The message without some of its recipients; it was parsed before."""
        what = "PKCS7"
        kind, content = split(split(packet, what=what)[0].content, what=what)
        parts = split(split(content.content, what=what)[0].content, what=what)
        keep = iter(stay)
        rebuilt = [
            encode(
                0x31,
                *(
                    one.raw
                    for one in split(part.content, what=what)
                    if one.tag != 0x30 or next(keep)
                ),
            )
            if part.tag == 0x31
            else part.raw
            for part in parts
        ]
        return encode(0x30, kind.raw, encode(0xA0, encode(0x30, *rebuilt)))


class _PKCS7(Scheme):
    """`pkcs7:FILE`, the path of a certificate."""

    def open_wrappers(
        self, values: Sequence[str], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyWrapper]:
        """See `Scheme`."""
        del settings, stack
        return [PKCS7Wrapper([load_certificate(path) for path in values])]

    def open_unwrappers(
        self, files: Sequence[DecryptionFile], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyUnwrapper]:
        """See `Scheme`."""
        del settings, stack
        keys = [one for one in files if isinstance(one, PrivateKey)]
        unwrappers = []
        for certificate in files:
            if not isinstance(certificate, Certificate):
                continue
            pairs = [key for key in keys if is_pair(key, certificate)]
            if not pairs:
                raise UsageError(
                    f"{certificate.name}: none of the given private keys is that of the "
                    "certificate",
                    hint="give both: --decryption-key KEY:CERT",
                )
            unwrappers.append(PKCS7Unwrapper(pairs[0], certificate))
        return unwrappers

    def load_target(self, value: str, settings: ProviderSettings) -> Target:
        """See `Scheme`."""
        del settings
        issuer, serial = names_of(load_certificate(value))
        return CertificateTarget(issuer, serial, f"pkcs7:{value}")

    def list_recipients(self, wrapped: WrappedKey) -> list[tuple[str, str]]:
        """See `Scheme`."""
        return [(one.algorithm_name, one.name) for one in parse_recipients_of(wrapped.packet)]


SCHEME = _PKCS7()
