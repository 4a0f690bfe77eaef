# SPDX-License-Identifier: Apache-2.0
"""Machines of Azure for tests: a vTPM in a guest of AMD's or Intel's world, and the HCL report.

    world = AzureSNPWorld(seed)
    body = world.evidence(measurement=pcr_11, report_data=digest)
    judge_evidence(load_verifier("az-snp-vtpm", roots=world.roots), body, bound=Bound(digest),
                   read=world.collateral().get, now=world.now)

What the hardware measures is the paravisor, `world.paravisor`; what the guest started is in the
registers.

Spec: Trustee, `az-snp-vtpm` and `az-tdx-vtpm`, versions 1 and 2, and the one before.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import urlsafe_b64encode
from hashlib import sha256
from struct import pack
from typing import TYPE_CHECKING, ClassVar

from asn1crypto import pem

from imagers.model.base64 import encode_base64url
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import octets, rsa_key
from imagers.testing.evidence.snp import SNPWorld
from imagers.testing.evidence.tdx import TDXWorld
from imagers.testing.evidence.tpm import PCR_BOOT, attest, registers, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Any

    from cryptography.hazmat.primitives.asymmetric import rsa

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.eventlog import Event
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["AzureSNPWorld", "AzureTDXWorld", "AzureWorld"]

_HARDWARE_BYTES = 1184
_NV_BYTES = 2600
_SIGNATURE = 6  # behind scheme, hash and size


def _jwk(kid: str, key: rsa.RSAPrivateKey, use: str) -> dict[str, JSON]:
    n = key.public_key().public_numbers().n
    return {
        "kid": kid,
        "key_ops": [use],
        "kty": "RSA",
        "e": "AQAB",
        "n": encode_base64url(n.to_bytes(key.key_size // 8)),
    }


class AzureWorld(Vendor, ABC):
    """What both have.

    Attributes:
        hardware: the world of its vendor.
        measurement: register 11, of the machine whose evidence names no other.
    """

    tee: ClassVar[str]
    kind: ClassVar[int]

    def __init__(self, seed: bytes, hardware: SNPWorld | TDXWorld) -> None:
        self._seed = seed
        self.hardware = hardware
        self.now = hardware.now
        self.measurement = octets(seed, "Azure register 11", 32)

    @property
    def paravisor(self) -> bytes:
        """What the hardware measures."""
        return self.hardware.measurement

    @property
    def roots(self) -> bytes:
        """Of the vendor of the hardware."""
        return self.hardware.roots

    def collateral(self) -> dict[str, bytes]:
        """What the hardware's evidence needs."""
        return self.hardware.collateral()

    def key(self, label: str = "Azure attestation key") -> rsa.RSAPrivateKey:
        """The vTPM's attestation key; or, by any other word, of nobody known."""
        return rsa_key(self._seed, label, 2048)

    def variable_data(
        self, *, user_data: bytes = b"", members: Mapping[str, JSON] | None = None
    ) -> bytes:
        """The JSON whose hash the hardware reports.

        Args:
            user_data: padded with zeros.
            members: in place of others.
        """
        document: dict[str, JSON] = {
            "keys": [
                _jwk("HCLAkPub", self.key(), "sign"),
                _jwk("HCLEkPub", self.key("Azure endorsement key"), "encrypt"),
            ],
            "vm-configuration": {
                "console-enabled": True,
                "secure-boot": True,
                "tpm-enabled": True,
                "vmUniqueId": "00000000-0000-0000-0000-000000000000",
            },
            "user-data": user_data.ljust(64, b"\0").hex().upper(),
        }
        return json.dumps({**document, **(members or {})}, separators=(",", ":")).encode()

    def hcl_report(self, hardware: bytes, data: bytes, **fields: int) -> bytes:
        """The paravisor's report.

        Args:
            hardware: the hardware's report.
            data: variable data.
            fields: of the head: `version`, `request`, `status`, `kind`, `hash`, `spare`.
        """
        told = {"version": 1, "request": 2, "status": 0, "kind": self.kind, "hash": 1, "spare": 0}
        told |= fields
        end = 1236 + len(data)
        head = pack(
            "<4s7I", b"HCLA", told["version"], end, told["request"], told["status"],
            0, 0, told["spare"],
        )  # fmt: skip
        runtime = pack("<5I", 20 + len(data), 1, told["kind"], told["hash"], len(data))
        return (head + hardware.ljust(_HARDWARE_BYTES, b"\0") + runtime + data).ljust(
            _NV_BYTES, b"\0"
        )

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        version: int = 1,
        events: Sequence[Event] = PCR_BOOT,
        shown: Mapping[int, bytes] | None = None,
        signer: rsa.RSAPrivateKey | None = None,
        data: bytes | None = None,
        hcl: Mapping[str, int] | None = None,
        quote: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in the JSON of the protocol, made anew.

        Args:
            measurement: register 11; None: the world's.
            init_data: digest of the init data, which register 8 is extended with; b"": it is not.
            version: 0, 1 or 2.
            events: of the registers.
            shown: values of registers beside the quote, in place of those in it.
            signer: in place of the key.
            data: variable data; None: the right ones.
            hcl: fields of the head, as in `hcl_report`.
            quote: fields of the quote, as in `attest`.
            fields: of the hardware's evidence.
        """
        more = {11: measurement or self.measurement}
        if init_data:
            more[8] = sha256(bytes(32) + init_data[:32].ljust(32, b"\0")).digest()
        values = registers(events, more)
        message = attest(values, **{"extra_data": report_data, **(quote or {})})
        signature = signed(signer or self.key(), message)[_SIGNATURE:]
        for register, value in (shown or {}).items():
            values[register] = value
        if data is None:
            data = self.variable_data(user_data=report_data if version >= 2 else b"")
        hardware, part = self._report(sha256(data).digest(), **fields)
        report = self.hcl_report(hardware, data, **(hcl or {}))
        first, second, third = self._names(version)
        if version == 0:
            old: JSON = {
                "signature": [*signature],
                "message": [*message],
                "pcrs": [[*one] for one in values],
            }
            return {first: old, second: [*report], third: self._old(part)}
        return {
            "version": version,
            first: {
                "signature": signature.hex(),
                "message": message.hex(),
                "pcrs": [one.hex() for one in values],
            },
            second: urlsafe_b64encode(report).decode(),
            third: urlsafe_b64encode(part).decode(),
        }

    @abstractmethod
    def _report(self, report_data: bytes, **fields: Any) -> tuple[bytes, bytes]:
        """The hardware's report, and what stands beside it."""

    @abstractmethod
    def _names(self, version: int) -> tuple[str, str, str]:
        """Of the parts."""

    def _old(self, part: bytes) -> JSON:
        return [*part]

    def wrongs(self) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing."""
        from imagers.testing.evidence.wrongs.azure import wrongs

        return wrongs(self)

    def raw_files(self, evidence: JSON) -> dict[str, bytes]:
        """None: the parts are of several places, and are in the JSON."""
        del evidence
        return {}


class AzureSNPWorld(AzureWorld):
    """Azure, with a machine on AMD SEV-SNP.

    Args:
        seed: 32 bytes.
        now: aware. None: the current time.
    """

    tee = "az-snp-vtpm"
    kind = 2

    def __init__(self, seed: bytes, *, now: datetime | None = None) -> None:
        self.amd = SNPWorld(seed, "Milan", now=now)
        super().__init__(seed, self.amd)

    def _report(self, report_data: bytes, **fields: Any) -> tuple[bytes, bytes]:
        leaf = fields.pop("leaf", None) or self.amd.leaf()
        told = {"measurement": self.paravisor, "report_data": report_data, **fields}
        return self.amd.report(**told), leaf

    def _names(self, version: int) -> tuple[str, str, str]:
        return ("tpm_quote", "hcl_report", "vcek") if version else ("quote", "report", "vcek")

    def _old(self, part: bytes) -> JSON:
        return bytes(pem.armor("CERTIFICATE", part)).decode()


class AzureTDXWorld(AzureWorld):
    """Azure, with a machine on Intel TDX.

    Args:
        seed: 32 bytes.
        now: aware. None: the current time.
    """

    tee = "az-tdx-vtpm"
    kind = 4

    def __init__(self, seed: bytes, *, now: datetime | None = None) -> None:
        self.intel = TDXWorld(seed, now=now)
        super().__init__(seed, self.intel)

    def _report(self, report_data: bytes, **fields: Any) -> tuple[bytes, bytes]:
        inner = fields.pop("inner", report_data)  # of the TDREPORT
        report = pack("<B127x", 0x81) + inner.ljust(64, b"\0")
        told = {"events": (), "report_data": report_data, **fields}
        return report.ljust(1024, b"\0"), self.intel.quote(**told)

    def _names(self, version: int) -> tuple[str, str, str]:
        del version
        return "tpm_quote", "hcl_report", "td_quote"


if TYPE_CHECKING:
    _worlds: tuple[World, ...] = (AzureSNPWorld(bytes(32)), AzureTDXWorld(bytes(32)))
