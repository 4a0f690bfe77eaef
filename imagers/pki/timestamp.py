# SPDX-License-Identifier: Apache-2.0
"""Time stamps of RFC 3161, verified offline against given authorities.

    when = check_timestamp(stamp, signature, certificates, what="signature 1 of 1")

A stamp says that an authority has seen the hash of some bytes at a time. Steps:

1. A response grants, or there is the token alone; its content is a TSTInfo of version 1.
2. Exactly one signer; his certificate is in the token or was given.
3. The signed attributes name the content's type, its hash and the signer's certificate.
4. The signer's key verifies the signed attributes, with a hash of SHA-2.
5. His certificate is for time stamps and nothing else, critically, and leads to a given
   authority, all valid at the time in the stamp.
6. The hash in the stamp is that of the bytes, by SHA-2.

Spec: RFC 3161 sections 2.3 and 2.4.2; RFC 5652 section 5; RFC 5816.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from imagers.errors import FormatError, SignatureInvalid
from imagers.pki.chain import (
    MAX_CERTIFICATES,
    Purpose,
    check_chain,
    describe,
    load_certificate,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["check_timestamp"]

_MAX_BYTES = 256 * 1024
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_GRANTED = ("granted", "granted_with_mods")
_SEQUENCE = 0x30
_DER = serialization.Encoding.DER


def check_timestamp(
    stamp: bytes, signed: bytes, certificates: Sequence[x509.Certificate], *, what: str
) -> datetime:
    """When one of the authorities in `certificates` has seen `signed`.

    Args:
        stamp: DER of a TimeStampResp or of its token.
        certificates: authorities that are trusted, and what leads to them.

    Raises:
        SignatureInvalid: it is no such stamp, or for other bytes.
    """
    what = f"{what}: time stamp"
    if len(stamp) > _MAX_BYTES:
        raise SignatureInvalid(f"{what}: expected at most {_MAX_BYTES} bytes, got {len(stamp)}")
    try:
        return _check(stamp, signed, certificates, what)
    except FormatError as error:
        raise SignatureInvalid(str(error)) from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        # asn1crypto parses lazily, and says in these that something is not what it should be.
        raise SignatureInvalid(f"{what}: cannot be read") from error


def _check(
    stamp: bytes, signed: bytes, certificates: Sequence[x509.Certificate], what: str
) -> datetime:
    from asn1crypto import cms, tsp

    if _inner_tag(stamp) == _SEQUENCE:  # step 1
        response = tsp.TimeStampResp.load(stamp, strict=True)
        status = response["status"]["status"].native
        if status not in _GRANTED:
            raise SignatureInvalid(f"{what}: the authority did not grant it: {str(status)[:40]!r}")
        token = response["time_stamp_token"]
    else:
        token = cms.ContentInfo.load(stamp, strict=True)
    if token["content_type"].native != "signed_data":
        raise SignatureInvalid(f"{what}: expected signed data")
    data = token["content"]
    content = data["encap_content_info"]
    if content["content_type"].native != "tst_info":
        raise SignatureInvalid(f"{what}: expected a TSTInfo")
    raw = bytes(content["content"])
    info = tsp.TSTInfo.load(raw, strict=True)
    if info["version"].native != "v1":
        raise SignatureInvalid(f"{what}: expected version 1")
    signers = list(data["signer_infos"])
    if len(signers) != 1:  # step 2
        raise SignatureInvalid(f"{what}: expected one signer, got {len(signers)}")
    embedded = _embedded(data, what)
    leaf = _signer_certificate(signers[0], [*embedded, *certificates], what)
    _check_attributes(signers[0], raw, leaf, what)  # step 3
    _check_signature(signers[0], leaf, what)  # step 4
    when: datetime = info["gen_time"].native
    _check_purpose(leaf, what)  # step 5
    check_chain(
        leaf,
        [*embedded, *certificates][:MAX_CERTIFICATES],
        certificates,
        at=when,
        purpose=Purpose.TIME_STAMPING,
        what=what,
    )
    imprint = info["message_imprint"]  # step 6
    algorithm = str(imprint["hash_algorithm"]["algorithm"].native)
    if algorithm not in _HASHES:
        raise SignatureInvalid(f"{what}: expected a hash of SHA-2, got {algorithm[:40]!r}")
    if imprint["hashed_message"].native != hashlib.new(algorithm, signed).digest():
        raise SignatureInvalid(f"{what}: it is for another signature")
    return when


def _inner_tag(der: bytes) -> int:
    """The tag of the first member of a DER sequence."""
    if len(der) < 4 or der[0] != _SEQUENCE:
        raise ValueError("no sequence")
    header = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
    return der[header]


def _embedded(data: Any, what: str) -> list[x509.Certificate]:
    found = data["certificates"]
    count = len(found) if found.native is not None else 0
    if count > MAX_CERTIFICATES:
        raise SignatureInvalid(f"{what}: expected at most {MAX_CERTIFICATES} certificates")
    return [
        load_certificate(one.chosen.dump(), what=what)
        for one in (found if count else ())
        if one.name == "certificate"
    ]


def _signer_certificate(
    signer: Any, candidates: Sequence[x509.Certificate], what: str
) -> x509.Certificate:
    sid = signer["sid"]
    for one in candidates:
        if sid.name == "issuer_and_serial_number":
            serial = sid.chosen["serial_number"].native
            if (
                serial == one.serial_number
                and sid.chosen["issuer"].dump() == one.issuer.public_bytes()
            ):
                return one
        elif sid.chosen.native == _key_id(one):
            return one
    raise SignatureInvalid(f"{what}: the certificate of its signer is neither in it nor given")


def _key_id(certificate: x509.Certificate) -> bytes | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    return found.value.digest


def _check_attributes(signer: Any, raw: bytes, leaf: x509.Certificate, what: str) -> None:
    attributes: dict[str, Any] = {}
    for one in signer["signed_attrs"]:
        name = str(one["type"].native)
        if name in attributes or len(one["values"]) != 1:
            raise SignatureInvalid(f"{what}: has attribute {name[:40]!r} twice")
        attributes[name] = one["values"][0]
    algorithm = str(signer["digest_algorithm"]["algorithm"].native)
    if algorithm not in _HASHES:
        raise SignatureInvalid(f"{what}: expected a hash of SHA-2, got {algorithm[:40]!r}")
    if attributes["content_type"].native != "tst_info":
        raise SignatureInvalid(f"{what}: it is signed as something else")
    if attributes["message_digest"].native != hashlib.new(algorithm, raw).digest():
        raise SignatureInvalid(f"{what}: its content was changed")
    # RFC 3161 2.4.1: without it, another certificate of the same key could be put in its place.
    der = leaf.public_bytes(_DER)
    if "signing_certificate_v2" in attributes:
        first = attributes["signing_certificate_v2"]["certs"][0]
        named = str(first["hash_algorithm"]["algorithm"].native)
        good = named in _HASHES and (first["cert_hash"].native == hashlib.new(named, der).digest())
    else:
        first = attributes["signing_certificate"]["certs"][0]
        good = first["cert_hash"].native == hashlib.sha1(der).digest()  # noqa: S324  # RFC 2634
    if not good:
        raise SignatureInvalid(f"{what}: it names another certificate than its signer's")


def _check_signature(signer: Any, leaf: x509.Certificate, what: str) -> None:
    algorithm = _HASHES[str(signer["digest_algorithm"]["algorithm"].native)]()
    kind = signer["signature_algorithm"].signature_algo
    signature = bytes(signer["signature"].native)
    # RFC 5652 5.4: what is signed is the SET itself, not its implicit tag in the message.
    signed = signer["signed_attrs"].untag().dump()
    key = leaf.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey) and kind == "rsassa_pkcs1v15":
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and kind == "ecdsa":
            key.verify(signature, signed, ec.ECDSA(algorithm))
        else:
            raise SignatureInvalid(f"{what}: expected RSA PKCS#1 or ECDSA, got {str(kind)[:40]!r}")
    except (InvalidSignature, UnsupportedAlgorithm):
        raise SignatureInvalid(f"{what}: its signature does not verify") from None


def _check_purpose(leaf: x509.Certificate, what: str) -> None:
    try:
        found = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        found = None
    if found is None or not found.critical or list(found.value) != [Purpose.TIME_STAMPING.value]:
        raise SignatureInvalid(
            f"{what}: the certificate of {describe(leaf)} is not for time stamps alone"
        )
