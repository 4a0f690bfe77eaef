# SPDX-License-Identifier: Apache-2.0
"""Certificates of AMD's chips, and what they say of a chip.

    ARK, AMD's root         RSA 4096, signs itself
      ASK    for VCEKs      RSA 4096
        VCEK                P-384: this chip, at this version of its firmware
      ASVK   for VLEKs      RSA 4096
        VLEK                P-384: a cloud provider, at this version of the firmware

All are signed with RSA-PSS, SHA-384, a salt of 48 bytes. Of a VCEK the serial number is 0, which
RFC 5280 forbids and strict parsers refuse: leaves are read by asn1crypto.

What was parsed, and which signatures are good, is cached by the bytes: they do not change. Dates
and lists of revoked certificates are looked at each time.

| extension 1.3.6.1.4.1.3704.1 | what it holds |
|---|---|
| .2 | name of the product, IA5String: `Milan-B0`, `Genoa`, `Turin` |
| .3.1, .3.2, .3.3, .3.8 | INTEGER: versions of bootloader, tee, snp, microcode |
| .3.9 | INTEGER: version of the fmc, of Turin only |
| .4 | id of the chip, as it is or in an OCTET STRING; in a VCEK only |

Spec: AMD VCEK Certificate and KDS Interface Specification (57230) 1.00, tables 8 to 10.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from asn1crypto import core, pem
from asn1crypto import x509 as asn1_x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.roots import read_root
from imagers.evidence.snp.report import PRODUCTS, TCB, Product
from imagers.pki.chain import parse_certificates

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

__all__ = [
    "Authority",
    "Leaf",
    "built_in",
    "is_signed_by",
    "parse_authority",
    "parse_leaf",
    "vcek_name",
]

_MAX_BYTES = 16 * 1024
_CACHED = 256
_ARC = "1.3.6.1.4.1.3704.1."
_PARTS = {"3.1": "bootloader", "3.2": "tee", "3.3": "snp", "3.8": "microcode", "3.9": "fmc"}
_RSA_BITS = 4096
_SALT = 48
_PADDING = padding.PSS(padding.MGF1(hashes.SHA384()), _SALT)
_KINDS = {"SEV-VCEK": False, "SEV-VLEK": True}
_GENOAS = {"Siena": "Genoa"}  # a product in certificates, issued by Genoa's ASK
_CHIP_ID_BYTES = 64  # in a report, of which 8 count on a Turin


@dataclass(frozen=True, slots=True)
class Authority:
    """AMD's certificates for one product, in the roles that they were given.

    Attributes:
        ark: the root.
        ask: signs certificates of chips; `asvk` those of providers.
    """

    product: Product
    ark: x509.Certificate
    ask: x509.Certificate
    asvk: x509.Certificate

    def issuer(self, *, is_vlek: bool) -> x509.Certificate:
        """Who issues leaves of this kind."""
        return self.asvk if is_vlek else self.ask

    def check(self, *, is_vlek: bool, now: datetime) -> None:
        """Raise unless the root signed itself and the issuer of leaves, and both are valid.

        Raises:
            EvidenceRejected: one of them is not what its role says.
        """
        for name, one in (
            ("ARK", self.ark),
            ("ASVK" if is_vlek else "ASK", self.issuer(is_vlek=is_vlek)),
        ):
            if not is_signed_by(self.ark, one.signature, one.tbs_certificate_bytes):
                raise EvidenceRejected(
                    f"the certificate {name} of {self.product.name} is not signed by the ARK"
                )
            _check_dates(name, one.not_valid_before_utc, one.not_valid_after_utc, now)


@cache
def built_in(product: str) -> Authority:
    """The certificates of AMD that come with imagers.

    Args:
        product: `Milan`, `Genoa` or `Turin`.
    """
    name = f"{product.lower()}.pem"
    return parse_authority(read_root("snp", name), PRODUCTS[product], what=name)


def parse_authority(certificates: bytes, product: Product, *, what: str) -> Authority:
    """ASK, ARK and ASVK in a PEM file, in this order. Nothing of it is verified.

    Raises:
        FormatError: it does not have three certificates.
    """
    found = _parse_certificates(certificates, what)
    if len(found) != 3:
        raise FormatError(f"expected ASK, ARK and ASVK, got {len(found)} certificates", what=what)
    ask, ark, asvk = found
    return Authority(product, ark, ask, asvk)


@lru_cache(_CACHED)
def _parse_certificates(certificates: bytes, what: str) -> tuple[x509.Certificate, ...]:
    return parse_certificates(certificates, what=what)


@dataclass(frozen=True, slots=True)
class Leaf:
    """The certificate of a chip or of a provider. Nothing of it is verified.

    Attributes:
        tbs: what its signature is over.
        product: as it stands there, `Milan-B0` for one.
        chip_id: None in a VLEK.
        tcb: the version of the firmware that it is for.
    """

    is_vlek: bool
    tbs: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    product: str
    chip_id: bytes | None = field(repr=False)
    tcb: TCB
    key: ec.EllipticCurvePublicKey

    @property
    def kind(self) -> str:
        """VCEK or VLEK."""
        return "VLEK" if self.is_vlek else "VCEK"

    @property
    def made_for(self) -> Product:
        """The product whose authority issues such certificates.

        Raises:
            FormatError: it is for none that is known.
        """
        name = self.product.partition("-")[0]
        found = PRODUCTS.get(_GENOAS.get(name, name))
        if found is None:
            raise FormatError(
                f"expected a certificate for Milan, Genoa or Turin, got '{self.product[:40]}'",
                what=self.kind,
            )
        return found

    def check_issuer(self, authority: Authority) -> None:
        """Raise unless the authority issued it; whether it is valid is not looked at.

        Raises:
            EvidenceRejected: it did not.
        """
        issuer = authority.issuer(is_vlek=self.is_vlek)
        if not is_signed_by(issuer, self.signature, self.tbs):
            raise EvidenceRejected(
                f"the certificate {self.kind} is not signed by AMD for {authority.product.name}"
            )

    def check(self, authority: Authority, now: datetime) -> None:
        """Raise unless the authority issued it, and it is valid.

        Raises:
            EvidenceRejected: it did not, or it is not.
        """
        authority.check(is_vlek=self.is_vlek, now=now)
        self.check_issuer(authority)
        _check_dates(self.kind, self.not_before, self.not_after, now)


def vcek_name(product: Product, chip_id: bytes, tcb: TCB) -> str:
    """How the certificate of a chip is called among the collateral.

    Names reach logs, and the id of a chip does not: it stands there as a part of a hash.

    Args:
        chip_id: as in a report or in a certificate.
        tcb: that it is for.
    """
    digest = sha256(chip_id.ljust(_CHIP_ID_BYTES, b"\0") + str(tcb).encode()).hexdigest()
    return f"snp/{product.name}/{digest[:32]}.vcek"


@lru_cache(_CACHED)
def parse_leaf(data: bytes, *, what: str) -> Leaf:
    """A VCEK or VLEK in DER or PEM.

    Raises:
        FormatError: it is none, or lacks what such a certificate says.
    """
    if len(data) > _MAX_BYTES:
        raise FormatError(f"expected at most {_MAX_BYTES} bytes, got {len(data)}", what=what)
    if data.count(b"-----BEGIN ") > 1:
        raise FormatError("expected one certificate", what=what)
    try:
        if pem.detect(data):
            _, _, data = pem.unarmor(data)
        certificate = asn1_x509.Certificate.load(data, strict=True)
        leaf = _read_leaf(certificate, what)
        is_der = certificate.dump() == data and certificate.contents.startswith(leaf.tbs)
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm) as error:
        # AttributeError: asn1crypto's, of types that it knows by name alone
        raise FormatError("is not a certificate of a chip that can be read", what=what) from error
    if not is_der:
        # asn1crypto writes indefinite lengths anew: the bytes verified would not be those read.
        raise FormatError("is not DER", what=what)
    return leaf


def _read_leaf(certificate: asn1_x509.Certificate, what: str) -> Leaf:
    body = certificate["tbs_certificate"]
    algorithms = (certificate["signature_algorithm"], body["signature"])
    if any(not _is_pss(one) for one in algorithms):
        raise FormatError("expected a signature by RSA-PSS with SHA-384, salt 48", what=what)
    name = body["subject"].native.get("common_name")
    if name not in _KINDS:
        raise FormatError(f"expected CN SEV-VCEK or SEV-VLEK, got {str(name)[:80]!r}", what=what)
    key = serialization.load_der_public_key(body["subject_public_key_info"].dump())
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise FormatError("expected a key on P-384", what=what)
    values: dict[str, bytes] = {}
    for extension in body["extensions"]:
        oid = extension["extn_id"].dotted
        if oid.startswith(_ARC):
            if oid in values:
                raise FormatError(f"has the extension {oid} twice", what=what)
            values[oid.removeprefix(_ARC)] = extension["extn_value"].native
        elif extension["critical"].native:
            raise FormatError(f"has the critical extension {oid}", what=what)
    parts = {part: _number(values[at], what) for at, part in _PARTS.items() if at in values}
    is_vlek = _KINDS[name]
    validity = body["validity"]
    return Leaf(
        is_vlek=is_vlek,
        tbs=body.dump(),
        signature=certificate["signature_value"].native,
        not_before=validity["not_before"].native,
        not_after=validity["not_after"].native,
        product=core.IA5String.load(values["2"], strict=True).native,
        chip_id=None if is_vlek else _chip_id(values["4"], what),
        tcb=TCB(
            parts.get("fmc"), parts["bootloader"], parts["tee"], parts["snp"], parts["microcode"]
        ),
        key=key,
    )


def _number(der: bytes, what: str) -> int:
    value = core.Integer.load(der, strict=True).native
    if not 0 <= value <= 255:
        raise FormatError(f"expected a version of a byte, got {str(value)[:20]}", what=what)
    return int(value)


def _chip_id(value: bytes, what: str) -> bytes:
    # 64 bytes or 8; as an OCTET STRING there are two more.
    if len(value) in (66, 10) and value[:2] == bytes((0x04, len(value) - 2)):
        value = value[2:]
    if len(value) not in (64, 8):
        raise FormatError(f"expected a chip id of 64 or 8 bytes, got {len(value)}", what=what)
    return value


def _is_pss(algorithm: asn1_x509.SignedDigestAlgorithm) -> bool:
    if algorithm["algorithm"].native != "rsassa_pss":
        return False
    parameters = algorithm["parameters"]
    mask = parameters["mask_gen_algorithm"]
    return bool(
        parameters["hash_algorithm"]["algorithm"].native == "sha384"
        and mask["algorithm"].native == "mgf1"
        and mask["parameters"]["algorithm"].native == "sha384"
        and parameters["salt_length"].native == _SALT
    )


@lru_cache(_CACHED)
def is_signed_by(issuer: x509.Certificate, signature: bytes, body: bytes) -> bool:
    """Whether an authority of AMD signed these bytes."""
    try:
        key = issuer.public_key()
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _RSA_BITS:
            return False
        key.verify(signature, body, _PADDING, hashes.SHA384())
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _check_dates(name: str, begin: datetime, end: datetime, now: datetime) -> None:
    if not begin <= now <= end:
        raise EvidenceRejected(
            f"the certificate {name} is not valid at {now:%Y-%m-%dT%H:%M:%SZ}: expected "
            f"{begin:%Y-%m-%dT%H:%M:%SZ} to {end:%Y-%m-%dT%H:%M:%SZ}"
        )
