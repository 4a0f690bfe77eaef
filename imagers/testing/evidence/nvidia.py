# SPDX-License-Identifier: Apache-2.0
"""NVIDIA for tests: its authorities, one Hopper GPU, and the reports that its firmware signs.

    world = NVIDIAWorld(seed)
    body = world.evidence(report_data=digest)
    body = world.evidence(blocks={10: b"x" * 48}, opaque={3: b"550.54.15"})

The same each time for a seed: all keys, and the default measurement, which is that of block 2.

Spec: DMTF DSP0274 1.1.0; NVIDIA's verifier (nvtrust).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import pack
from typing import TYPE_CHECKING, ClassVar

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.evidence.nvidia.report import BLOCKS, FIELDS
from imagers.model.base64 import encode_base64
from imagers.testing.evidence.authorities import BEFORE, usage
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import ec_key, octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["CHAIN", "NVIDIAWorld", "several"]

_NAMES = {
    "root": "NVIDIA Device Identity CA",
    "line": "NVIDIA GH100 Identity",
    "provisioner": "NVIDIA GH100 Provisioner ICA 1",
    "device": "GH100 A01 GSP BROM",
    "firmware": "GH100 A01 GSP FMC LF",
}
CHAIN = ("firmware", "device", "provisioner", "line", "root")
"""The roles, each signed by the next."""
_FWID = x509.ObjectIdentifier("2.23.133.5.4.1")
_SHA384 = "2.16.840.1.101.3.4.2.2"
_EMPTY = (1, 9, 11, *range(13, 22), 24, 25, 29, *range(42, 65))  # as on a real one


class NVIDIAWorld(Vendor):
    """See `World`.

    Args:
        now: a time at which all is valid; None: the current time.
        number: of the GPU; each has keys of its own.
    """

    tee: ClassVar[str] = "nvidia"

    def __init__(self, seed: bytes, *, now: datetime | None = None, number: int = 0) -> None:
        self._seed = seed
        self._number = number
        self.now = now or datetime.now(UTC)
        self.measurement = octets(seed, "NVIDIA block 2", 48)
        self.fwid = octets(seed, "NVIDIA firmware", 48)

    def key(self, role: str) -> ec.EllipticCurvePrivateKey:
        """The key of a role, or of `nobody`."""
        own = f" {self._number}" if role in ("firmware", "device") else ""
        return ec_key(self._seed, f"NVIDIA {role}{own}", ec.SECP384R1)

    def issue(
        self,
        role: str,
        *,
        key: str | None = None,
        signer: str | None = None,
        name: str | None = None,
        issuer: str | None = None,
        begin: datetime | None = None,
        days: int = 36500,
        is_authority: bool | None = None,
        fwid: bytes | None = b"",
    ) -> x509.Certificate:
        """A certificate.

        Args:
            key, signer: roles, or `nobody`; None: its own, and who has to.
            name, issuer: None: those that they have.
            fwid: of the firmware; empty: the GPU's; None: it names none.
        """
        above = CHAIN[min(CHAIN.index(role) + 1, len(CHAIN) - 1)]
        start = self.now - BEFORE if begin is None else begin
        is_leaf = role == "firmware"
        if is_authority is None:
            is_authority = not is_leaf
        # The serial number goes by what is in it, so that all is the same each time.
        told = f"{role}{key}{signer}{name}{issuer}{start}{days}{is_authority}{fwid!r}"
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name or _NAMES[role]))
            .issuer_name(_name(issuer or _NAMES[above]))
            .not_valid_before(start)
            .not_valid_after(min(start + timedelta(days=days), datetime(9999, 12, 31, tzinfo=UTC)))
            .serial_number(int.from_bytes(octets(self._seed, told, 16)) >> 1 | 1)
            .public_key(self.key(key or role).public_key())
            .add_extension(usage(leaf=is_leaf), critical=True)
        )
        if is_authority:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        if is_leaf and fwid is not None:
            extension = x509.UnrecognizedExtension(_FWID, _composite(fwid or self.fwid))
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key(signer or above), hashes.SHA384())

    def chain(self, **changes: x509.Certificate) -> bytes:
        """The certificates in PEM, the GPU's first.

        Args:
            changes: other ones, by role.
        """
        certificates = [changes.get(role) or self.issue(role) for role in CHAIN]
        return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)

    @property
    def roots(self) -> bytes:
        """The root in PEM."""
        return self.issue("root").public_bytes(Encoding.PEM)

    def collateral(self) -> dict[str, bytes]:
        """See `World`: none."""
        return {}

    def report(
        self,
        *,
        nonce: bytes = b"",
        blocks: Mapping[int, bytes] | None = None,
        opaque: Mapping[int, bytes | None] | None = None,
        key: str = "firmware",
    ) -> bytes:
        """A report.

        Args:
            nonce: 32 bytes of it count.
            blocks: measurements by number, in place of the world's.
            opaque: fields by type, in place of the world's; None: it is left out.
            key: whose signs it.
        """
        measured = {
            number: bytes(48)
            if number in _EMPTY
            else octets(self._seed, f"NVIDIA block {number}", 48)
            for number in range(1, BLOCKS + 1)
        }
        measured |= blocks or {}
        record = b"".join(
            pack("<BBHBH", number, 1, 51, 1, 48) + digest for number, digest in measured.items()
        )
        fields: dict[int, bytes | None] = {**self._opaque(), **(opaque or {})}
        data = b"".join(
            pack("<HH", kind, len(value)) + value
            for kind, value in fields.items()
            if value is not None
        )
        own = octets(self._seed, "NVIDIA nonce", 32)
        signed = b"\x11\xe0\x01\xff" + nonce[:32].ljust(32, b"\0") + b"\0"
        signed += b"\x11\x60\0\0" + bytes((len(measured),)) + len(record).to_bytes(3, "little")
        signed += record + own + len(data).to_bytes(2, "little") + data
        r, s = utils.decode_dss_signature(self.key(key).sign(signed, ec.ECDSA(hashes.SHA384())))
        return signed + r.to_bytes(48) + s.to_bytes(48)

    def _opaque(self) -> dict[int, bytes]:
        values = {
            "vbios_version": bytes.fromhex("009f009601000000"),
            "board_id": bytes.fromhex("b1030000"),
            "chip_sku": b"882\0\0\0\0\0\0",
            "chip_sku_mod": b"0\0\0\0\0",
            "project": b"1010\0",
            "project_sku": b"0200\0",
            "project_sku_mod": b"\0\0",
            "driver_version": b"550.90.07\0",
            "gpu_info": bytes.fromhex("8001000000000000"),
            "measurement_count": bytes(256),
            "cpr_info": bytes.fromhex("00c00100"),
            "nvdec0_status": b"U",
            "fwid": self.fwid,
            "protected_pcie_status": b"U",
        }
        return {FIELDS[name]: value for name, value in values.items()}

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        chain: bytes | None = None,
        report: bytes | None = None,
        **fields: Any,
    ) -> dict[str, JSON]:
        """See `World`; of one GPU.

        Args:
            chain: None: the GPU's.
            report: as it is; None: made of `fields`, those of `report`.

        Raises:
            ValueError: there is init data.
        """
        if init_data:
            raise ValueError("a GPU binds no init data")
        if measurement is not None:
            fields["blocks"] = {**(fields.get("blocks") or {}), 2: measurement}
        raw = self.report(nonce=report_data, **fields) if report is None else report
        device: dict[str, JSON] = {
            "arch": "HOPPER",
            "uuid": "GPU-" + sha256(str(self._number).encode()).hexdigest()[:32],
            "evidence": encode_base64(raw),
            "certificate": encode_base64(self.chain() if chain is None else chain),
        }
        return {"device_evidence_list": [device]}

    def wrongs(self) -> Iterator[Wrong]:
        """See `World`."""
        from imagers.testing.evidence.wrongs.nvidia import wrongs

        return wrongs(self)

    def raw_files(self, evidence: JSON) -> Mapping[str, bytes]:
        """Nothing: a report alone has no certificates."""
        del evidence
        return {}


def several(worlds: Sequence[NVIDIAWorld], report_data: bytes) -> dict[str, JSON]:
    """Evidence of several GPUs of one machine."""
    devices: list[JSON] = []
    for world in worlds:
        one = world.evidence(report_data=report_data)["device_evidence_list"]
        assert isinstance(one, list)
        devices += one
    return {"device_evidence_list": devices}


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "NVIDIA Corporation"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common),
        ]
    )


class _FWIDs(core.Sequence):  # type: ignore[misc]  # asn1crypto has no types
    _fields = [("algorithm", core.ObjectIdentifier), ("fwid", core.OctetString)]  # noqa: RUF012


def _composite(fwid: bytes) -> bytes:
    """The extension, which ends with the id."""
    return bytes(_FWIDs({"algorithm": _SHA384, "fwid": fwid}).dump())


if TYPE_CHECKING:
    _world: World = NVIDIAWorld(bytes(32))
