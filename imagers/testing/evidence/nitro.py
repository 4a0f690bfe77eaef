# SPDX-License-Identifier: Apache-2.0
"""AWS Nitro Enclaves for tests: a root, the authorities below it, and one module.

    world = NitroWorld(seed)
    body = world.evidence(measurement=pcr0, report_data=digest)

The same each time for a seed: all keys, the id of the module, the default registers. Signatures are
not, as those of ECDSA are random, and dates go by `now`.

Spec: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, section 3.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.model.base64 import encode_base64
from imagers.model.strict_json import View
from imagers.pki.algorithms import algorithm_of, sign
from imagers.pki.cose import ALG, build_sign1
from imagers.testing.evidence.authorities import BEFORE, usage
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import ec_key, octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["CHAIN", "NitroWorld"]

CHAIN = ("root", "region", "zone", "instance", "enclave")
"""Roles of certificates, each issued by the one before; the last one's key signs documents."""
_DAYS = {"root": 30 * 365, "region": 20, "zone": 6, "instance": 2, "enclave": 2}
_PATH_LENGTH: Mapping[str, int | None] = {"root": None, "region": 2, "zone": 1, "instance": 0}
_USER_DATA = 64
_ROOT_SINCE = datetime(2019, 10, 28, tzinfo=UTC)


class NitroWorld(Vendor):
    """AWS, and one enclave on a machine of it.

    Args:
        seed: 32 bytes.
        now: aware; certificates are valid then. None: the current time.

    Attributes:
        measurement: PCR 0 of the enclave whose document names no other.
        module_id: of the enclave on its machine.
    """

    tee: ClassVar[str] = "nitro"

    def __init__(self, seed: bytes, *, now: datetime | None = None) -> None:
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.measurement = octets(seed, "AWS Nitro PCR 0", 48)
        instance = octets(seed, "AWS Nitro instance", 8).hex()
        self.module_id = f"i-{instance}-enc{octets(seed, 'AWS Nitro enclave', 8).hex()}"
        self._seed = seed

    def key(
        self, role: str, curve: type[ec.EllipticCurve] = ec.SECP384R1
    ) -> ec.EllipticCurvePrivateKey:
        """The key of a role of `CHAIN`; or, by any other word, of nobody known."""
        return ec_key(self._seed, f"AWS Nitro {role}", curve)

    @property
    def roots(self) -> bytes:
        """The root's certificate in PEM, as a verifier takes it in place of AWS's."""
        return x509.load_der_x509_certificate(self.issue("root")).public_bytes(Encoding.PEM)

    def issue(
        self,
        role: str,
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        signer: str | None = None,
        begin: datetime | None = None,
        constraints: x509.BasicConstraints | None = None,
        key_usage: x509.KeyUsage | None = None,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """The certificate of a role in DER.

        Args:
            key: another one in it.
            signer: role of the key that issues it; None: the right one.
            begin: it is valid from the day before on; None: `now`, and the root since 2019: a
                verifier knows it by its bytes.
            constraints, key_usage: in place of the right ones.
            extensions: more, and whether they are critical.
        """
        begin = begin or (_ROOT_SINCE if role == "root" else self.now)
        issuer = CHAIN[max(CHAIN.index(role) - 1, 0)]
        is_leaf = role == CHAIN[-1]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(role))
            .issuer_name(_name(issuer))
            .public_key((key or self.key(role)).public_key())
            .serial_number(int.from_bytes(octets(self._seed, f"AWS Nitro serial {role}", 8)) | 1)
            .not_valid_before(begin - BEFORE)
            .not_valid_after(begin + timedelta(days=_DAYS[role]))
            .add_extension(
                constraints
                or x509.BasicConstraints(ca=not is_leaf, path_length=_PATH_LENGTH.get(role)),
                critical=True,
            )
            .add_extension(key_usage or usage(leaf=is_leaf), critical=True)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        signing = self.key(signer or issuer)
        return builder.sign(signing, hashes.SHA384(), ecdsa_deterministic=True).public_bytes(
            Encoding.DER
        )

    def collateral(self) -> dict[str, bytes]:
        """See `World`: there is none."""
        return {}

    def payload(self) -> dict[str, Any]:
        """What the module says of the enclave whose document names nothing else."""
        *authorities, leaf = (self.issue(role) for role in CHAIN)
        pcrs = {number: bytes(48) for number in range(16)}
        for number in (1, 2, 4):
            pcrs[number] = octets(self._seed, f"AWS Nitro PCR {number}", 48)
        pcrs[0] = self.measurement
        return {
            "module_id": self.module_id,
            "digest": "SHA384",
            "timestamp": int(self.now.timestamp() * 1000),
            "pcrs": pcrs,
            "certificate": leaf,
            "cabundle": authorities,
            "public_key": None,
            "user_data": bytes(_USER_DATA),
            "nonce": None,
        }

    def document(
        self,
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        pcrs: Mapping[int, object] | None = None,
        protected: Mapping[int | str, object] | None = None,
        unprotected: Mapping[int | str, object] | None = None,
        **members: object,
    ) -> bytes:
        """A good document with these members changed, and then signed.

        Args:
            key: what signs; None: the enclave's.
            pcrs: registers by number; None: it is left out.
            protected, unprotected: headers, beside the algorithm.
            members: by their names; `...`: it is left out.
        """
        told = self.payload()
        told["pcrs"] = {
            number: one for number, one in {**told["pcrs"], **(pcrs or {})}.items()
            if one is not None
        }  # fmt: skip
        told = {name: one for name, one in {**told, **members}.items() if one is not ...}
        signing = key or self.key("enclave")
        tagged = build_sign1(
            {ALG: algorithm_of(signing.public_key()).cose, **(protected or {})},
            unprotected or {},
            open_ended(told),
            lambda data: sign(signing, data),
        )
        return tagged[1:]  # AWS has no tag

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",  # noqa: ARG002  # of the Protocol
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in JSON: a fresh document.

        Args:
            measurement: PCR 0; None: the world's.
            init_data: has no place in a document, and is not in it.
            fields: as in `document`.
        """
        told = {"user_data": report_data.ljust(_USER_DATA, b"\0"), **fields}
        told["pcrs"] = {0: measurement or self.measurement, **fields.get("pcrs", {})}
        return {"document": encode_base64(self.document(**told))}

    def wrongs(self) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing."""
        from imagers.testing.evidence.wrongs.nitro import wrongs

        return wrongs(self)

    def raw_files(self, evidence: JSON) -> dict[str, bytes]:
        """Evidence as the module gives it: the document."""
        return {"document.cbor": View(evidence, what="Nitro evidence").bytes64("document")}


def open_ended(members: Mapping[str, object]) -> bytes:
    """A map without its length, as the module writes it."""
    parts = (cbor2.dumps(name) + cbor2.dumps(one) for name, one in members.items())
    return b"\xbf" + b"".join(parts) + b"\xff"


def _name(role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Amazon"),
            x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "AWS"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{role}.aws.nitro-enclaves"),
        ]
    )


if TYPE_CHECKING:
    _world: World = NitroWorld(bytes(32))
