# SPDX-License-Identifier: Apache-2.0
"""Hygon for tests: its authorities, one chip, and what its firmware signs, of both versions.

    world = CSVWorld(seed)
    body = world.evidence(measurement=measure, report_data=digest)
    body = world.evidence(version=1, policy=0)    # debugging, signed so

The same each time for a seed: all keys, the chip's number, the default measurement, and with the
same fields all bytes. No machine that gives version 2 was there to compare with: its layout is that
of csv-rs.

Spec: Hygon CSV API; openanolis/csv-rs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from asn1crypto import pem

from imagers.core.plain_sm2 import N, public_key_of, sign
from imagers.evidence.csv.certificates import (
    CHIP,
    ROLES,
    ROOT_LABEL,
    Certificate,
    certificate_to_json,
)
from imagers.evidence.csv.report import (
    PAGE,
    mac_of,
    masked,
    parse_report,
    report_to_json,
)
from imagers.evidence.csv.verify import issuers_name, parse
from imagers.model.base64 import encode_base64
from imagers.testing.evidence.eventlog import BOOT, event_log, replay
from imagers.testing.evidence.guests import Vendor
from imagers.testing.evidence.keys import octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.eventlog import Event
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["CSVWorld", "remask"]

CLOSED = 0b1111
"""A policy without debugging, key sharing and sending, with encrypted registers."""
_SM2, _SM2_SIGNATURES, _NO_USAGE, _OWNER = 3, 4, 0x1000, 0x1001
_HEAD = {
    "user_pubkey_digest": (0, 32),
    "vm_id": (32, 16),
    "vm_version": (48, 16),
    "report_data": (64, 64),
    "mnonce": (128, 16),
    "measure": (144, 32),
    "policy": (176, 4),
    "sig_usage": (180, 4),
    "sig_algo": (184, 4),
}
_MORE = {
    "build": (188, 4),
    "rtmr_version": (192, 2),
    **{f"rtmr{number}": (208 + 32 * number, 32) for number in range(5)},
}
LAYOUTS = {1: (_HEAD, 188), 2: ({**_HEAD, **_MORE}, 1024)}
"""Fields of a report by its version, and where they end."""


class CSVWorld(Vendor):
    """See `World`.

    Args:
        now: a time at which all is valid, which it always is; None: the current time.
    """

    tee: ClassVar[str] = "csv"

    def __init__(self, seed: bytes, *, now: datetime | None = None) -> None:
        self._seed = seed
        self.now = now or datetime.now(UTC)
        self.serial = "T" + octets(seed, "Hygon chip", 6).hex().upper()
        self.measurement = octets(seed, "Hygon measure", 32)

    def key(self, name: str) -> int:
        """The private key of a role, or of `nobody`."""
        return int.from_bytes(octets(self._seed, f"Hygon {name}", 40)) % (N - 2) + 1

    def sign(self, signer: str, data: bytes, *, user_id: bytes | None = None) -> bytes:
        """A signature, the same each time."""
        user_id = b"HYGON-SSD-" + signer.encode() if user_id is None else user_id
        return _sign(self.key(signer), data, user_id)

    @property
    def roots(self) -> bytes:
        """The HRK, armored."""
        return armored(self.certificate("HRK"))

    def certificate(
        self,
        role: str,
        *,
        signer: str | None = None,
        key: str | None = None,
        signer_id: bytes | None = None,
        signed_as: int | None = None,
        **fields: int | bytes,
    ) -> bytes:
        """A certificate.

        Args:
            signer: None: who has to.
            key: of another; None: its own.
            signer_id: user id that the signature is made under; None: the signer's.
            signed_as: usage that is named beside the signature; None: the signer's.
            fields: by the last part of their path, before it is signed: `usage`, `user_id`.
        """
        kind = ROLES[role]
        layout = kind.layout
        above = signer or {"HRK": "HRK", "HSK": "HRK", "CEK": "HSK", "PEK": "CEK"}[role]
        raw = bytearray(layout.size)
        public = _public(self.key(key or role))
        values: dict[str, int | bytes] = {
            "ver": 1,
            "usage": kind.usage,
            "algo": _SM2_SIGNATURES,
            "g": _SM2,
            "x": public[:32][::-1],
            "y": public[32:][::-1],
            "uid_size": len(kind.user_id),
            "user_id": kind.user_id,
            "major": 1,
            "minor": 4,
            **fields,
        }
        for path, (offset, size) in layout.fields.items():
            name = path.rpartition(".")[2]
            if offset < layout.body and name in values:
                _put(raw, offset, size, values[name])
        signature = self.sign(above, bytes(raw[: layout.body]), user_id=signer_id)
        r, s = signature[:32][::-1], signature[32:][::-1]
        at = layout.body
        if layout is CHIP:
            usage = ROLES[above].usage if above in ROLES else 0
            head = usage if signed_as is None else signed_as
            _put(raw, at, 4, head)
            _put(raw, at + 4, 4, _SM2_SIGNATURES)
            _put(raw, at + 520, 4, _OWNER if role == "PEK" else _NO_USAGE)
            at += 8
        _put(raw, at, 32, r)
        _put(raw, at + 72, 32, s)
        return bytes(raw)

    def issuers(self, **changes: bytes) -> bytes:
        """HSK and CEK, as Hygon's service gives them.

        Args:
            changes: `HSK` or `CEK`, of another form.
        """
        return b"".join(changes.get(role) or self.certificate(role) for role in ("HSK", "CEK"))

    def collateral(self) -> dict[str, bytes]:
        """See `World`."""
        return {issuers_name(self.serial): self.issuers()}

    def report(
        self,
        *,
        version: int = 2,
        anonce: bytes = b"\x9b\x42\x91\x12",
        pek: bytes | None = None,
        signer: str = "PEK",
        **fields: int | bytes,
    ) -> bytes:
        """A report as the device gives it.

        Args:
            anonce: of version 1.
            pek: None: the chip's.
            signer: whose key signs it.
            fields: by their names in `LAYOUTS`, before it is signed.
        """
        layout, end = LAYOUTS[version]
        values: dict[str, int | bytes] = {
            "mnonce": octets(self._seed, "Hygon mnonce", 16),
            "measure": self.measurement,
            "policy": CLOSED,
            "sig_usage": ROLES["PEK"].usage,
            "sig_algo": _SM2_SIGNATURES,
            "build": 2337,
            "rtmr_version": 1,
            **fields,
        }
        raw = bytearray(end)
        for name, (offset, size) in layout.items():
            _put(raw, offset, size, values.get(name, 0))
        mask = anonce if version == 1 else bytes(4)
        tee = masked(bytes(raw), mask)
        signed = tee[:180] if version == 1 else tee
        signature = self.sign(signer, signed, user_id=ROLES["PEK"].user_id)
        if version == 1:
            tee += anonce
        tee += signature[:32][::-1].ljust(72, b"\0") + signature[32:][::-1].ljust(72, b"\0")
        inside = self.certificate("PEK") if pek is None else pek
        behind = masked(inside + self.serial.encode().ljust(64, b"\0"), mask)
        behind += octets(self._seed, "Hygon spare", 32)  # anything: csv-rs makes zeros of it
        mnonce = values["mnonce"]
        assert isinstance(mnonce, bytes)
        return tee + behind + mac_of(mnonce, behind)

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        version: int = 2,
        events: Sequence[Event] = BOOT,
        with_issuers: bool = False,
        **fields: Any,
    ) -> dict[str, JSON]:
        """See `World`.

        Args:
            init_data: nothing: CSV binds none.
            events: of version 2, that lead to its registers.
            with_issuers: HSK and CEK come along.

        Raises:
            ValueError: there is init data.
        """
        if init_data:
            raise ValueError("CSV binds no init data")
        told: dict[str, Any] = {"report_data": report_data}
        if measurement is not None:
            told["measure"] = measurement
        if version == 2:
            told |= {
                f"rtmr{number}": value
                for number, value in enumerate(replay(events, algorithm="SM3"), 1)
            }
            told["rtmr0"] = told.get("measure", self.measurement)
        raw = self.report(version=version, **{**told, **fields})
        log = event_log(events, algorithm="SM3") if version == 2 else None
        return self.body(raw, log=log, issuers=self.issuers() if with_issuers else None)

    def body(
        self, raw: bytes, *, log: bytes | None = None, issuers: bytes | None = None
    ) -> dict[str, JSON]:
        """A report in the JSON of the protocol.

        Args:
            raw: as the device gives it.
            issuers: HSK and CEK; None: they are left out.
        """
        report = parse_report(raw)
        chain: dict[str, JSON] = {"pek": certificate_to_json(report.pek)}
        if issuers is not None:
            chain["hsk_cek"] = {
                "hsk": certificate_to_json(Certificate(ROLES["HSK"], issuers[:832])),
                "cek": certificate_to_json(Certificate(ROLES["CEK"], issuers[832:])),
            }
        return {
            "attestation_report": report_to_json(report),
            "cert_chain": chain,
            "serial_number": list(report.serial.encode().ljust(64, b"\0")),
            "cc_eventlog": None if log is None else encode_base64(log),
        }

    def wrongs(self, *, version: int = 2) -> Iterator[Wrong]:
        """See `World`.

        Args:
            version: of the reports.
        """
        from imagers.testing.evidence.wrongs.csv import wrongs

        return wrongs(self, version)

    def raw_files(self, evidence: JSON) -> Mapping[str, bytes]:
        """The report as the device gives it, a page."""
        found = parse(evidence).report
        # What csv-rs made zeros of is zeros now, with a MAC over that.
        signer = found.signer[:-32] + mac_of(found.octets("mnonce"), found.signer)
        return {"report.bin": (found.raw + signer).ljust(PAGE, b"\0")}


def remask(raw: bytes, pattern: bytes) -> bytes:
    """What anybody can make of a report of version 1 that he has: `anonce` is another one.

    Its signature holds, PEK and serial number and MAC too; all that it says is XORed with the
    pattern.

    Args:
        pattern: four bytes.
    """
    report = parse_report(raw)
    other = masked(report.anonce, pattern)
    behind = masked(report.signer[:2148], pattern) + report.signer[2148:2180]
    usage = masked(raw[180:188], pattern)
    mac = mac_of(masked(report.octets("mnonce"), pattern), behind)
    return raw[:180] + usage + other + raw[192:336] + behind + mac


def armored(certificate: bytes) -> bytes:
    """A root as `--insecure-test-root` takes it."""
    return bytes(pem.armor(ROOT_LABEL, certificate))


def _put(raw: bytearray, offset: int, size: int, value: int | bytes) -> None:
    data = value.to_bytes(size, "little") if isinstance(value, int) else value.ljust(size, b"\0")
    if len(data) > size:
        raise ValueError(f"expected at most {size} bytes, got {len(data)}")
    raw[offset : offset + size] = data


_public = lru_cache(64)(public_key_of)


@lru_cache(64)
def _sign(key: int, data: bytes, user_id: bytes) -> bytes:
    k = int.from_bytes(octets(data[-32:].rjust(32), f"k {key} {data.hex()}", 40)) % (N - 2) + 1
    return sign(key, data, user_id=user_id, k=k)


if TYPE_CHECKING:
    _world: World = CSVWorld(bytes(32))
