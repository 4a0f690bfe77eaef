# SPDX-License-Identifier: Apache-2.0
"""The four messages of the handshake, both directions, and the report data.

    guest                                             broker
      Request      {version, tee, extra-params}    ->          POST auth
                                                   <- Challenge {nonce, extra-params}
      Attestation  {init-data, runtime-data{nonce, tee-pubkey},
                    tee-evidence{primary_evidence, additional_evidence}}  ->   POST attest
                                                   <- Response {token}

Members are kebab-case except the two inside `tee-evidence`. Unknown members are ignored,
as the protocol asks; known ones are strict and bounded. A public key goes through its
typed form, so that both sides hash the same members.

Spec: Trustee key broker protocol 0.4.0; RFC 8785 (JCS) for the report data.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagers.errors import FormatError, Unsupported
from imagers.model.evidence import ReportData
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.model.strict_json import JSON, JSONObject

__all__ = [
    "DEFAULT_HASH",
    "ECDH_ES_A256KW",
    "EC_CURVES",
    "MAX_ATTESTATION_BYTES",
    "MAX_MESSAGE_BYTES",
    "ML_KEM_768_A192KW",
    "PROTOCOL_VERSION",
    "RSA_OAEP_256",
    "Attestation",
    "Challenge",
    "ECPublicKey",
    "InitData",
    "MLKEMPublicKey",
    "RSAPublicKey",
    "Request",
    "Response",
    "TEEPublicKey",
    "hash_device_data",
    "hash_report_data",
    "parse_additional",
    "parse_attestation",
    "parse_challenge",
    "parse_public_key",
    "parse_request",
    "parse_response",
    "parse_tee_name",
]

PROTOCOL_VERSION = "0.4.0"  # peers compare for equality; there is no negotiation
MAX_MESSAGE_BYTES = 64 * 1024  # request, challenge and response: some hundred bytes to a few KiB
MAX_ATTESTATION_BYTES = 2 * 1024 * 1024  # evidence with event logs; the default limit of Trustee

DEFAULT_HASH = "sha384"  # of the report data, for all TEEs but Secure Execution
ECDH_ES_A256KW = "ECDH-ES+A256KW"
RSA_OAEP_256 = "RSA-OAEP-256"
ML_KEM_768_A192KW = "ML-KEM-768+A192KW"
EC_CURVES = {"P-256": 32, "P-521": 66}  # name -> bytes of a coordinate

_MAX_DEVICE_KINDS = 8
_MAX_NONCE = 4096  # characters; 44 for all but Secure Execution, whose nonce is a document
_MAX_TOKEN = 128 * 1024  # the limit of the Rust server for a request head
_ML_KEM_768_BYTES = 1184  # of an encapsulation key
_MODULUS_BITS = (2048, 8192)
_EXPONENT_BITS = (2, 32)  # a long one costs the sender time
_ADDITIONAL = "evidence of devices"
_TEE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
# Older guests leave the dashes out.
_TEE_ALIASES = {"azsnpvtpm": "az-snp-vtpm", "aztdxvtpm": "az-tdx-vtpm"}
_REPORT_HASHES = ("sha256", "sha384", "sha512")
_OFFERED_HASHES: tuple[JSON, ...] = _REPORT_HASHES


def parse_tee_name(text: str, *, what: str, where: str = "$.tee") -> str:
    """A TEE name in the spelling of Trustee; any name of the right form is accepted here.

    Raises:
        FormatError: not lower-case letters, digits and dashes.
    """
    if not _TEE_NAME.match(text):
        raise FormatError(
            f"expected a TEE name in lower case, got {text[:80]!r}", what=what, where=where
        )
    return _TEE_ALIASES.get(text, text)


@dataclass(frozen=True, slots=True)
class Request:
    """Opens a handshake.

    Attributes:
        version: as sent; a broker compares it.
        tee: name of the primary TEE.
        extra_params: any JSON; an object offers hash algorithms.
    """

    tee: str
    version: str = PROTOCOL_VERSION
    extra_params: JSON = ""

    @classmethod
    def offering_hashes(cls, tee: str) -> Request:
        """The request that our client sends."""
        return cls(tee=tee, extra_params={"supported-hash-algorithms": list(_OFFERED_HASHES)})

    def to_bytes(self) -> bytes:
        """The message on the wire."""
        return dump_json(
            {"version": self.version, "tee": self.tee, "extra-params": self.extra_params}
        )


def parse_request(data: bytes) -> Request:
    """A `Request` from its bytes. The version is not compared here.

    Raises:
        FormatError: not such a message.
    """
    message = View.parse(data, what="request", max_bytes=MAX_MESSAGE_BYTES)
    return Request(
        version=message.text("version")[:80],
        tee=parse_tee_name(message.text("tee"), what=message.what),
        extra_params=_any(message, "extra-params"),
    )


def _any(message: View, name: str) -> JSON:
    """A member that may be null, and must be there."""
    if name not in message:
        raise message.error("is missing, expected any value", name)
    return message.value[name]


@dataclass(frozen=True, slots=True)
class Challenge:
    """A broker's answer to a request.

    Attributes:
        nonce: is repeated as it came; base64 of 32 bytes for most TEEs.
        report_hash: `sha256`, `sha384` or `sha512`; the default is sha384.
    """

    nonce: str
    report_hash: str = DEFAULT_HASH

    def to_bytes(self) -> bytes:
        """The message on the wire."""
        extra: JSON = ""
        if self.report_hash != DEFAULT_HASH:
            extra = {"selected-hash-algorithm": self.report_hash}
        return dump_json({"nonce": self.nonce, "extra-params": extra})


def parse_challenge(data: bytes) -> Challenge:
    """A `Challenge` from its bytes.

    Raises:
        FormatError: not such a message.
        Unsupported: the broker selects a hash that we did not offer.
    """
    message = View.parse(data, what="challenge", max_bytes=MAX_MESSAGE_BYTES)
    nonce = _nonce(message)
    report_hash = DEFAULT_HASH
    if isinstance(message.value.get("extra-params"), dict):  # else it selects nothing
        extra = message.object("extra-params")
        selected = extra.optional_text("selected-hash-algorithm")
        report_hash = report_hash if selected is None else selected.lower()
    if report_hash not in _REPORT_HASHES:
        raise Unsupported(
            f"challenge: expected one of the hashes {', '.join(_REPORT_HASHES)}, "
            f"got {report_hash[:40]!r}"
        )
    return Challenge(nonce=nonce, report_hash=report_hash)


def _nonce(message: View) -> str:
    nonce = message.text("nonce")
    if not nonce or len(nonce) > _MAX_NONCE or not nonce.isascii() or not nonce.isprintable():
        raise message.error(f"expected 1 to {_MAX_NONCE} printable characters", "nonce")
    return nonce


@dataclass(frozen=True, slots=True)
class ECPublicKey:
    """A guest's public key on a curve, as JWK; `x` and `y` are checked text, not yet a point."""

    crv: str
    x: str
    y: str
    alg: str = ECDH_ES_A256KW

    def to_json(self) -> JSONObject:
        """The members that take part in the report data, and no others."""
        return {"kty": "EC", "crv": self.crv, "alg": self.alg, "x": self.x, "y": self.y}


@dataclass(frozen=True, slots=True)
class RSAPublicKey:
    """A guest's RSA public key, as JWK."""

    n: str
    e: str
    alg: str = RSA_OAEP_256

    def to_json(self) -> JSONObject:
        """The members that take part in the report data, and no others."""
        return {"kty": "RSA", "alg": self.alg, "n": self.n, "e": self.e}


@dataclass(frozen=True, slots=True)
class MLKEMPublicKey:
    """A guest's encapsulation key of ML-KEM-768, as JWK; `pub` is checked text, not yet a key."""

    pub: str
    alg: str = ML_KEM_768_A192KW

    def to_json(self) -> JSONObject:
        """The members that take part in the report data, and no others."""
        return {"kty": "AKP", "alg": self.alg, "pub": self.pub}


TEEPublicKey = ECPublicKey | MLKEMPublicKey | RSAPublicKey


def parse_public_key(key: View) -> TEEPublicKey:
    """A guest's public key from its JWK; other members are dropped.

    Whether it is a key, such as a point on its curve, is checked where it is used (`jwe`).

    Raises:
        FormatError: a member is missing or of the wrong length.
        Unsupported: another kind of key, curve or algorithm.
    """
    kty, alg = key.text("kty"), key.text("alg")
    if kty == "EC" and alg == ECDH_ES_A256KW:
        crv = key.text("crv")
        if crv not in EC_CURVES:
            raise Unsupported(
                f"{key.what} at {key.at('crv')}: expected 'P-256' or 'P-521', got {crv[:40]!r}"
            )
        for name in ("x", "y"):
            key.bytes64url(name, size=EC_CURVES[crv])
        return ECPublicKey(crv=crv, x=key.text("x"), y=key.text("y"))
    if kty == "RSA" and alg == RSA_OAEP_256:
        return RSAPublicKey(
            n=_parse_number(key, "n", _MODULUS_BITS), e=_parse_number(key, "e", _EXPONENT_BITS)
        )
    if kty == "AKP" and alg == ML_KEM_768_A192KW:
        key.bytes64url("pub", size=_ML_KEM_768_BYTES)
        return MLKEMPublicKey(key.text("pub"))
    # RSA1_5 is left out on purpose: deprecated, and no client defaults to it.
    raise Unsupported(
        f"{key.what} at {key.where}: expected a key for {ECDH_ES_A256KW!r}, {ML_KEM_768_A192KW!r} "
        f"or {RSA_OAEP_256!r}, got kty {kty[:40]!r} with alg {alg[:40]!r}"
    )


def _parse_number(key: View, name: str, bits: tuple[int, int]) -> str:
    """A positive number in base64url, as text, of so many bits.

    Its bytes are not its length: zeros in front made 256 bytes of a modulus of 784 bits, and
    the specification allows none.

    Spec: RFC 7518 sections 2 (Base64urlUInt) and 6.3.1.
    """
    least, most = bits
    data = key.bytes64url(name)
    if data[:1] == b"\0":
        raise key.error("expected a number without zero bytes in front", name)
    size = int.from_bytes(data).bit_length()
    if not least <= size <= most:
        raise key.error(f"expected {least} to {most} bits, got {size}", name)
    return key.text(name)


@dataclass(frozen=True, slots=True)
class InitData:
    """The document that a guest was started with, as it sends it."""

    format: str
    body: str


@dataclass(frozen=True, slots=True)
class Attestation:
    """Evidence, and what it binds.

    Attributes:
        nonce: of the challenge, as it came.
        tee_pubkey: what answers are encrypted to.
        primary_evidence: JSON of the TEE's own kind; nothing of it is checked here.
        additional_evidence: "" or the JSON text of an object of device evidence.
        init_data: not bound by the report data; TEEs have a field of their own for it.
    """

    nonce: str
    tee_pubkey: TEEPublicKey
    primary_evidence: JSON
    additional_evidence: str = ""
    init_data: InitData | None = None

    def to_bytes(self) -> bytes:
        """The message on the wire."""
        init: JSON = None
        if self.init_data is not None:
            init = {"format": self.init_data.format, "body": self.init_data.body}
        return dump_json(
            {
                "init-data": init,
                "runtime-data": _runtime_data(self.nonce, self.tee_pubkey),
                "tee-evidence": {
                    "primary_evidence": self.primary_evidence,
                    "additional_evidence": self.additional_evidence,
                },
            }
        )


def parse_attestation(data: bytes) -> Attestation:
    """An `Attestation` from its bytes: its form only, nothing is verified.

    Raises:
        FormatError: not such a message.
        Unsupported: a public key of another kind.
    """
    message = View.parse(data, what="attestation", max_bytes=MAX_ATTESTATION_BYTES)
    runtime, evidence = message.object("runtime-data"), message.object("tee-evidence")
    primary = _any(evidence, "primary_evidence")
    init = message.optional_object("init-data")
    return Attestation(
        nonce=_nonce(runtime),
        tee_pubkey=parse_public_key(runtime.object("tee-pubkey")),
        primary_evidence=primary,
        additional_evidence=evidence.optional_text("additional_evidence") or "",
        init_data=None if init is None else InitData(init.text("format"), init.text("body")),
    )


def parse_additional(text: str) -> Mapping[str, JSON]:
    """Evidence of devices by the names of their TEEs, from `Attestation.additional_evidence`.

    Raises:
        FormatError: it is no JSON object, or has too many members.
    """
    if not text:
        return {}
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise FormatError("is not text", what=_ADDITIONAL) from None
    devices = View.parse(data, what=_ADDITIONAL, max_bytes=MAX_ATTESTATION_BYTES)
    if len(devices.value) > _MAX_DEVICE_KINDS:
        raise devices.error(
            f"expected at most {_MAX_DEVICE_KINDS} kinds of devices, got {len(devices.value)}"
        )
    return {parse_tee_name(name, what=_ADDITIONAL): devices.value[name] for name in devices.value}


@dataclass(frozen=True, slots=True)
class Response:
    """A broker's answer to good evidence.

    Attributes:
        token: a JWT. A guest carries it and does not trust it.
    """

    token: str

    def __repr__(self) -> str:
        return f"Response(token of {len(self.token)} characters)"

    def to_bytes(self) -> bytes:
        """The message on the wire."""
        return dump_json({"token": self.token})


def parse_response(data: bytes) -> Response:
    """A `Response` from its bytes; the token is safe to stand in a header.

    Raises:
        FormatError: not such a message.
    """
    message = View.parse(
        data, what="attestation response", max_bytes=_MAX_TOKEN + MAX_MESSAGE_BYTES
    )
    token = message.text("token")
    if len(token) > _MAX_TOKEN or not _TOKEN.match(token):
        raise message.error("expected a JWT", "token")
    return Response(token)


def hash_report_data(
    *,
    nonce: str,
    tee_pubkey: TEEPublicKey,
    additional_evidence: str = "",
    report_hash: str = DEFAULT_HASH,
) -> ReportData:
    """What primary evidence must bind: nonce, public key and devices, in one hash.

    The member `additional-evidence` takes part even when it is empty.

    Raises:
        FormatError: `additional_evidence` is not text that UTF-8 can carry.

    Spec: RFC 8785 over {additional-evidence, nonce, tee-pubkey}.
    """
    bound: JSONObject = {"additional-evidence": additional_evidence}
    return _hash_canonical(bound | _runtime_data(nonce, tee_pubkey), report_hash)


def hash_device_data(
    *, nonce: str, tee_pubkey: TEEPublicKey, report_hash: str = DEFAULT_HASH
) -> ReportData:
    """What the evidence of a device must bind: nonce and public key.

    Spec: RFC 8785 over {nonce, tee-pubkey}.
    """
    return _hash_canonical(_runtime_data(nonce, tee_pubkey), report_hash)


def _runtime_data(nonce: str, tee_pubkey: TEEPublicKey) -> JSONObject:
    return {"nonce": nonce, "tee-pubkey": tee_pubkey.to_json()}


def _hash_canonical(bound: JSONObject, report_hash: str) -> ReportData:
    import rfc8785  # used once a handshake

    try:
        canonical = rfc8785.dumps(bound)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        # A lone surrogate, which JSON's escapes can spell.
        raise FormatError(
            "is not text", what="attestation", where="$.tee-evidence.additional_evidence"
        ) from None
    return ReportData(hashlib.new(report_hash, canonical).digest())
