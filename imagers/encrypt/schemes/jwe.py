# SPDX-License-Identifier: Apache-2.0
"""Recipients with an RSA or EC key: private options in a JSON Web Encryption.

    one recipient   {"protected","encrypted_key","iv","ciphertext","tag"}
    two or more     {"protected","recipients":[{"header","encrypted_key"},...],
                     "encrypted_key","iv","ciphertext","tag"}

RSA keys get RSA-OAEP, EC keys ECDH-ES+A256KW, unless a JWK asks for another algorithm of
the list; the content is always A256GCM. Written by hand on `cryptography`, because the
shape is go-jose's to the member: the header of a single recipient is protected as a whole,
and with several there is a top-level `encrypted_key` (the first one's), which RFC 7516
forbids and the peers write and expect.

Read through `jwcrypto`, one candidate recipient at a time, behind checks of our own: the
JSON is bounded and strict, algorithms are from a list, `zip` and `crit` are refused (a
decompression bomb, and nothing that we know). Compact, flattened and general form.

Spec: RFC 7516, RFC 7518 sections 4 and 5; containers/ocicrypt v1.3.2, keywrap/jwe.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from imagers.encrypt.keyfiles import PrivateKey, PublicKey, load_public_key
from imagers.encrypt.schemes.scheme import Scheme
from imagers.errors import FormatError, Unsupported
from imagers.model.base64 import encode_base64url
from imagers.model.keys import KeyUnwrapper, KeyWrapper, NotMine, SecretKey
from imagers.model.strict_json import JSONObject, View, dump_json
from imagers.pki.jose import derive_kek
from imagers.pki.jwk import KEY_ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import ExitStack

    from jwcrypto import jwk

    from imagers.encrypt.keyfiles import DecryptionFile
    from imagers.encrypt.schemes.scheme import ProviderSettings, Target
    from imagers.model.keys import UnwrapContext, WrapContext, WrappedKey

__all__ = [
    "JWE_SCHEME",
    "SCHEME",
    "JWETarget",
    "JWEUnwrapper",
    "JWEWrapper",
    "ParsedJWE",
    "check_lengths",
    "key_id",
    "parse_jwe",
]

JWE_SCHEME = "jwe"

# RFC 7518 section 5: all of it, as go-jose reads. Lengths of iv and tag, sections 5.2 and 5.3.
_CONTENT_ALGORITHMS = {
    "A128GCM": (12, 16),
    "A192GCM": (12, 16),
    "A256GCM": (12, 16),
    "A128CBC-HS256": (16, 16),
    "A192CBC-HS384": (16, 24),
    "A256CBC-HS512": (16, 32),
}
_WHAT = "JWE"
_MAX_BYTES = 256 * 1024
_MAX_RECIPIENTS = 300  # as many RSA-4096 ones as fit the bytes
_CEK_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16
_COMPACT_PARTS = 5  # RFC 7516 section 3.1
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class JWEWrapper:
    """Wraps for RSA and EC keys, all in one JWE.

    Args:
        keys: of the recipients, at least one.
    """

    scheme = JWE_SCHEME

    def __init__(self, keys: Sequence[PublicKey]) -> None:
        if not keys:
            raise ValueError("a JWE needs a recipient")
        if len(keys) > _MAX_RECIPIENTS:
            raise Unsupported(f"expected at most {_MAX_RECIPIENTS} recipients, got {len(keys)}")
        self._keys = tuple(keys)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The key files."""
        return tuple(f"jwe:{key.name}" for key in self._keys)

    def wrap(self, private_options: SecretKey, context: WrapContext) -> bytes:
        """One JWE, as go-jose writes it."""
        del context  # the format binds a packet to nothing
        # `bytes` for `cryptography`: an immutable copy until this function returns.
        cek = os.urandom(_CEK_BYTES)
        wrapped = [_wrap_cek(key, cek) for key in self._keys]
        document: JSONObject = {}
        if len(wrapped) == 1:
            # Sorted as a Go map: alg, enc, epk, kid.
            joined: JSONObject = {**wrapped[0][0], "enc": "A256GCM"}
            document["protected"] = encode_base64url(
                dump_json({name: joined[name] for name in sorted(joined)})
            )
        else:
            document["protected"] = encode_base64url(b'{"enc":"A256GCM"}')
            document["recipients"] = [
                {"header": header, "encrypted_key": encode_base64url(encrypted_key)}
                for header, encrypted_key in wrapped
            ]
        iv = os.urandom(_IV_BYTES)
        with private_options.view() as data:
            sealed = AESGCM(cek).encrypt(iv, data, str(document["protected"]).encode("ascii"))
        document["encrypted_key"] = encode_base64url(wrapped[0][1])
        document["iv"] = encode_base64url(iv)
        document["ciphertext"] = encode_base64url(sealed[:-_TAG_BYTES])
        document["tag"] = encode_base64url(sealed[-_TAG_BYTES:])
        return dump_json(document)


def _wrap_cek(recipient: PublicKey, cek: bytes) -> tuple[JSONObject, bytes]:
    """The recipient's header, sorted, and its encrypted key."""
    header: JSONObject
    if isinstance(recipient.key, rsa.RSAPublicKey):
        algorithm = recipient.algorithm or "RSA-OAEP"
        digest = hashes.SHA256() if algorithm == "RSA-OAEP-256" else hashes.SHA1()  # noqa: S303  # RFC 7518 section 4.3; OAEP does not need collision resistance
        oaep = padding.OAEP(padding.MGF1(digest), digest, None)
        header, encrypted_key = {"alg": algorithm}, recipient.key.encrypt(cek, oaep)
    else:
        algorithm = recipient.algorithm or "ECDH-ES+A256KW"
        ephemeral = ec.generate_private_key(recipient.key.curve)
        secret = ephemeral.exchange(ec.ECDH(), recipient.key)
        encrypted_key = aes_key_wrap(derive_kek(secret, algorithm), cek)
        header = {"alg": algorithm, "epk": _public_jwk(ephemeral.public_key())}
    header["kid"] = key_id(recipient)
    return header, encrypted_key


def key_id(key: PublicKey) -> str:
    """What the key is called in headers: its own kid, or the thumbprint of RFC 7638.

    ocicrypt writes only the first. Readers look at neither; who inspects an image or removes
    a recipient has nothing else to tell recipients apart by.
    """
    if key.kid:
        return key.kid
    if isinstance(key.key, rsa.RSAPublicKey):
        numbers = key.key.public_numbers()
        members: JSONObject = {
            "e": encode_base64url(_big_endian(numbers.e)),
            "kty": "RSA",
            "n": encode_base64url(_big_endian(numbers.n)),
        }
    else:
        public = _public_jwk(key.key)
        members = {name: public[name] for name in ("crv", "kty", "x", "y")}
    digest = hashes.Hash(hashes.SHA256())
    digest.update(dump_json(members))
    return encode_base64url(digest.finalize())


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _public_jwk(key: ec.EllipticCurvePublicKey) -> JSONObject:
    numbers = key.public_numbers()
    length = (key.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": _CURVE_NAMES[key.curve.name],
        "x": encode_base64url(numbers.x.to_bytes(length)),
        "y": encode_base64url(numbers.y.to_bytes(length)),
    }


@dataclass(frozen=True, slots=True)
class ParsedJWE:
    """A JWE, split and checked in form; nothing is decrypted.

    Attributes:
        document: the members that all recipients share.
        recipients: one object each, with `header` and `encrypted_key` where they are there.
        headers: one a recipient: all that holds for it, from the three places.
    """

    document: JSONObject
    recipients: tuple[JSONObject, ...]
    headers: tuple[JSONObject, ...]


def parse_jwe(packet: bytes) -> ParsedJWE:
    """The JWE in `packet`, of any of the three forms.

    Raises:
        FormatError: it is none, or beyond a bound.
    """
    document = _parse_document(packet)
    for name in ("iv", "ciphertext", "tag"):
        document.bytes64url(name)
    if document.value.get("aad") is not None:
        document.bytes64url("aad")
    # A top-level encrypted_key beside recipients is what go-jose writes: not looked at.
    recipients: Sequence[View] = [document]
    if document.value.get("recipients") is not None:
        recipients = document.objects("recipients", most=_MAX_RECIPIENTS, non_empty=True)
    protected = _parse_protected(document)
    checked: list[JSONObject] = []
    headers: list[JSONObject] = []
    for recipient in recipients:
        if recipient.value.get("encrypted_key") is not None:
            recipient.bytes64url("encrypted_key")
        checked.append(_some(recipient, "header", "encrypted_key"))
        parts = (document.optional_object("unprotected"), recipient.optional_object("header"))
        headers.append(_join(protected, *parts))
    shared = _some(document, "protected", "unprotected", "aad", "iv", "ciphertext", "tag")
    return ParsedJWE(shared, tuple(checked), tuple(headers))


def _some(view: View, *names: str) -> JSONObject:
    return {name: view.value[name] for name in names if name in view}


def check_lengths(parsed: ParsedJWE) -> None:
    """Raise unless a recipient could open it: iv and tag are as long as its algorithm has them.

    Raises:
        FormatError: they are not; or no recipient says what its key is.
    """
    if not any(isinstance(one.get("alg"), str) for one in parsed.headers):
        raise FormatError("is missing", what=_WHAT, where="alg")
    name = parsed.headers[0].get("enc")
    if not isinstance(name, str):
        raise FormatError("is missing", what=_WHAT, where="enc")
    document = View(parsed.document, what=_WHAT)
    for member, size in zip(("iv", "tag"), _CONTENT_ALGORITHMS.get(name, ()), strict=False):
        document.bytes64url(member, size=size)


def _parse_document(packet: bytes) -> View:
    if packet.lstrip().startswith(b"{"):
        return View.parse(packet, what=_WHAT, max_bytes=_MAX_BYTES)
    parts = packet.strip().split(b".") if len(packet) <= _MAX_BYTES else []
    if len(parts) != _COMPACT_PARTS or not packet.isascii():
        raise FormatError("expected JSON or five parts with dots", what=_WHAT)
    names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    values = {name: part.decode("ascii") for name, part in zip(names, parts, strict=True)}
    return View(values, what=_WHAT)


def _parse_protected(document: View) -> View | None:
    if not document.optional_text("protected"):
        return None
    return View.parse(
        document.bytes64url("protected"), what=f"{_WHAT} protected header", max_bytes=_MAX_BYTES
    )


def _join(*parts: View | None) -> JSONObject:
    joined: JSONObject = {}
    for part in parts:
        if part is None:
            continue
        if joined.keys() & part.value.keys():  # RFC 7516 section 4: names are disjoint
            raise FormatError("has one header name in two places", what=_WHAT)
        joined.update(part.value)
    return joined


class JWEUnwrapper:
    """Opens JWEs with one private key."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key.key
        self._name = key.name
        self._kind = "RSA" if isinstance(key.key, rsa.RSAPrivateKey) else "EC"
        self._jwk: jwk.JWK | None = None

    @property
    def key_id(self) -> str:
        """What packets of ours call the key: the thumbprint of RFC 7638."""
        return key_id(PublicKey(self._key.public_key(), self._name))

    @property
    def description(self) -> str:
        """The key file."""
        return f"key file {self._name!r}"

    def unwrap(self, wrapped: WrappedKey, context: UnwrapContext) -> SecretKey:
        """The private options in the JWE; the caller closes them.

        Raises:
            NotMine: another scheme, no JWE, for another key, or changed: an attacker who
                breaks one element of a list must not hide the others.
            Unsupported: for a key like this one, by an algorithm that is not on the list.
        """
        if wrapped.scheme != JWE_SCHEME:
            raise NotMine(f"the scheme is {wrapped.scheme[:80]!r}")
        try:
            parsed = parse_jwe(wrapped.packet)
        except FormatError as error:
            raise NotMine(str(error)) from error
        refused = ""
        tried = 0
        for recipient, header in zip(parsed.recipients, parsed.headers, strict=True):
            algorithm = header.get("alg")
            if (
                not isinstance(algorithm, str)
                or KEY_ALGORITHMS.get(algorithm, self._kind) != self._kind
            ):
                continue
            reason = _why_refused(header)
            if reason:
                refused = reason
                continue
            tried += 1
            opened = self._open({**parsed.document, **recipient}, header)
            if opened is not None:
                return opened
        if refused and not tried:
            raise Unsupported(f"{context.what}: JWE: {refused}")
        raise NotMine(
            "the JWE is for another key, or was changed"
            if tried
            else f"no recipient of the JWE has an {self._kind} key"
        )

    def _open(self, document: JSONObject, header: JSONObject) -> SecretKey | None:
        """The content, or None if this recipient is another one or the JWE was changed."""
        from jwcrypto import jwe, jwk

        if self._jwk is None:
            self._jwk = jwk.JWK.from_pyca(self._key)
            # The numbers of a key that was checked when it was loaded: 25 ms, for RSA.
            self._jwk.unsafe_skip_rsa_key_validation = True
        token = jwe.JWE(algs=[str(header["alg"]), str(header["enc"])])
        try:
            token.deserialize(dump_json(document).decode())
            token.decrypt(self._jwk)
            # `bytes` of jwcrypto: an immutable copy until the token is gone.
            return SecretKey(token.payload)
        except Exception:  # noqa: BLE001  # whatever changed bytes provoke in jwcrypto means "no"
            return None


def _why_refused(header: JSONObject) -> str:
    """Why a recipient with this header is not tried; "" where it is."""
    for name, allowed in (("alg", tuple(KEY_ALGORITHMS)), ("enc", tuple(_CONTENT_ALGORITHMS))):
        value = header.get(name)
        if value not in allowed:
            return f"expected {name} to be one of {', '.join(allowed)}, got {str(value)[:40]!r}"
    for name in ("zip", "crit"):
        if name in header:
            return f"has the header {name!r}, which is not accepted"
    return ""


_wrapper: type[KeyWrapper] = JWEWrapper
_unwrapper: type[KeyUnwrapper] = JWEUnwrapper


@dataclass(frozen=True, slots=True)
class JWETarget:
    """Whoever has the key with this id.

    Attributes:
        kid: as the header of the JWE has it.
        name: in messages.
    """

    kid: str
    name: str

    def may_have(self, wrapped: WrappedKey) -> bool:
        """Whether the packet does not say for whom it is, as JWEs of other tools do not."""
        try:
            headers = parse_jwe(wrapped.packet).headers if wrapped.scheme == "jwe" else ()
        except FormatError:
            return False
        return any("kid" not in header for header in headers)

    def drop_from(self, wrapped: WrappedKey, number: int) -> bytes | None:
        """The packet without them; None if nobody is left in it."""
        del number
        if wrapped.scheme != "jwe":
            return wrapped.packet
        try:
            headers = parse_jwe(wrapped.packet).headers
        except FormatError:
            return wrapped.packet
        stay = [header.get("kid") != self.kid for header in headers]
        if all(stay):
            return wrapped.packet
        if not any(stay):
            return None
        document = View.parse(wrapped.packet, what=_WHAT, max_bytes=_MAX_BYTES).value
        recipients = document["recipients"]
        assert isinstance(recipients, list)  # parsed before, and more than one
        left = [one for one, keep in zip(recipients, stay, strict=True) if keep]
        document["recipients"] = left
        if "encrypted_key" in document:  # go-jose repeats the first one's at the top
            assert isinstance(left[0], dict)
            document["encrypted_key"] = left[0].get("encrypted_key")
        return dump_json(document)


class _JWE(Scheme):
    """`jwe:FILE`, the path of a public key."""

    def open_wrappers(
        self, values: Sequence[str], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyWrapper]:
        """See `Scheme`."""
        del settings, stack
        return [JWEWrapper([load_public_key(path) for path in values])]

    def open_unwrappers(
        self, files: Sequence[DecryptionFile], settings: ProviderSettings, stack: ExitStack
    ) -> Iterable[KeyUnwrapper]:
        """See `Scheme`."""
        del settings, stack
        return [JWEUnwrapper(one) for one in files if isinstance(one, PrivateKey)]

    def load_target(self, value: str, settings: ProviderSettings) -> Target:
        """See `Scheme`."""
        del settings
        return JWETarget(key_id(load_public_key(value)), f"jwe:{value}")

    def list_recipients(self, wrapped: WrappedKey) -> list[tuple[str, str]]:
        """See `Scheme`."""
        headers = parse_jwe(wrapped.packet).headers
        return [(str(one.get("alg", "?")), str(one.get("kid") or "")) for one in headers]

    def check_packet(self, wrapped: WrappedKey) -> None:
        """See `Scheme`."""
        check_lengths(parse_jwe(wrapped.packet))


SCHEME = _JWE()
