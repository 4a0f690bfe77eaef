# SPDX-License-Identifier: Apache-2.0
"""Evidence of a GPU of NVIDIA's with one thing wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding

from imagers.evidence.nvidia.report import FIELDS
from imagers.model.evidence import Bound
from imagers.testing.evidence.nvidia import CHAIN
from imagers.testing.evidence.wrongs.wrong import MALFORMED, NO, REPORT_DATA, Wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography import x509

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.nvidia import NVIDIAWorld

__all__ = ["CLAIMS", "wrongs"]

_CHAIN, _FIRMWARE, _SIGNATURE, _BOUND = "1, chain", "2, firmware", "3, signature", "4, bound"
_BOUND_ONLY = Bound(REPORT_DATA)
_RECORD = 37 + 8  # begin of the measurements

CLAIMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a measurement", {"blocks": {10: b"x" * 48}}),
    ("a measurement that is zero", {"blocks": {10: bytes(48)}}),
    ("another driver", {"opaque": {FIELDS["driver_version"]: b"550.1\0"}}),
    ("another vbios", {"opaque": {FIELDS["vbios_version"]: bytes(8)}}),
    ("NVDEC0 enabled", {"opaque": {FIELDS["nvdec0_status"]: b"E"}}),
    ("a field that is unknown", {"opaque": {999: b"x"}}),
)
"""What a genuine report may have so, signed: which of it is good is for others to say."""


class _Maker:
    """Makes evidence of a world that is good but for what it is told."""

    def __init__(self, world: NVIDIAWorld) -> None:
        self._world = world

    def __call__(
        self,
        name: str,
        step: str,
        error: type[ImagersError] = NO,
        *,
        body: JSON = None,
        roots: bytes | None = None,
        bound: Bound = _BOUND_ONLY,
        **fields: Any,
    ) -> Wrong:
        if body is None:
            body = self._world.evidence(**{"report_data": REPORT_DATA, **fields})
        return Wrong(name, step, body, {}, roots or self._world.roots, error, bound)

    def changed(self, at: int) -> bytes:
        """A good report, in which the lowest bit of a byte is another one."""
        raw = bytearray(self._world.report(nonce=REPORT_DATA))
        raw[at] ^= 1
        return bytes(raw)


def wrongs(world: NVIDIAWorld) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of `imagers.evidence.nvidia.verify`."""
    make = _Maker(world)
    yield from _reports(world, make)
    yield from _chains(world, make)
    yield from _bodies(world, make)


def _reports(world: NVIDIAWorld, make: _Maker) -> Iterator[Wrong]:
    good = world.report(nonce=REPORT_DATA)
    after = _RECORD + 64 * 55
    for name, at, step, error in (
        ("version of the request", 0, "", MALFORMED),
        ("code of the request", 1, "", MALFORMED),
        ("attributes of the request", 2, "", MALFORMED),
        ("measurements that are asked for", 3, "", MALFORMED),
        ("nonce", 4, _SIGNATURE, NO),
        ("slot", 36, _SIGNATURE, NO),
        ("version of the answer", 37, "", MALFORMED),
        ("code of the answer", 38, "", MALFORMED),
        ("slot of the answer", 40, _SIGNATURE, NO),
        ("number of blocks", 41, "", MALFORMED),
        ("length of the record", 42, "", MALFORMED),
        ("number of a block", _RECORD, "", MALFORMED),
        ("kind of a block", _RECORD + 4, "", MALFORMED),
        ("measurement", _RECORD + 7, _SIGNATURE, NO),
        ("last measurement", after - 1, _SIGNATURE, NO),
        ("nonce of the answer", after, _SIGNATURE, NO),
        ("length of the opaque data", after + 32, "", MALFORMED),
        ("r of the signature", len(good) - 96, _SIGNATURE, NO),
        ("s of the signature", len(good) - 1, _SIGNATURE, NO),
    ):
        yield make(f"{name}, changed after signing", step, error, report=make.changed(at))
    yield make("report that is cut off", "", MALFORMED, report=good[:-1])
    yield make("something behind it", "", MALFORMED, report=good + b"\1")
    yield make("signed by another GPU", _SIGNATURE, key="nobody")
    yield make("signed by its device key", _SIGNATURE, key="device")
    yield make("id of another firmware", _FIRMWARE, opaque={FIELDS["fwid"]: b"x" * 48})
    for name, kind in FIELDS.items():
        yield make(f"no {name}", "", MALFORMED, opaque={kind: None})
    yield make("a driver version of bytes", "", MALFORMED, opaque={3: b"\xff"})
    yield make("a block more", "", MALFORMED, blocks={65: bytes(48)})
    yield make("nonce of another handshake", _BOUND, report_data=b"x" * 48)
    yield make("init data, which it binds none of", _BOUND, bound=Bound(REPORT_DATA, b"i" * 32))


def _chains(world: NVIDIAWorld, make: _Maker) -> Iterator[Wrong]:
    def chained(role: str, **changes: Any) -> bytes:
        return world.chain(**{role: world.issue(role, **changes)})

    for role in CHAIN[:-1]:
        yield make(f"{role} signed by nobody", _CHAIN, chain=chained(role, signer="nobody"))
        old = world.now - timedelta(days=400)
        yield make(f"{role} expired", _CHAIN, chain=chained(role, begin=old, days=30))
        future = world.now + timedelta(days=3)
        yield make(f"{role} of the future", _CHAIN, chain=chained(role, begin=future))
    for role in ("device", "provisioner", "line"):
        plain = chained(role, is_authority=False)
        yield make(f"{role} that is no authority", _CHAIN, chain=plain)
    yield make("leaf that is an authority", _CHAIN, chain=chained("firmware", is_authority=True))
    yield make("leaf of another key", _SIGNATURE, chain=chained("firmware", key="nobody"))
    yield make("leaf for no firmware", _FIRMWARE, chain=chained("firmware", fwid=None))
    yield make("leaf for another firmware", _FIRMWARE, chain=chained("firmware", fwid=b"x" * 48))
    short = chained("firmware", fwid=b"x" * 47)
    yield make("leaf for an id that is too short", _FIRMWARE, chain=short)
    switch = "NVIDIA LS10 Identity"
    other: dict[str, x509.Certificate] = {
        "line": world.issue("line", name=switch),
        "provisioner": world.issue("provisioner", issuer=switch),
    }
    yield make("a switch", _CHAIN, chain=world.chain(**other))
    foreign = world.issue("root", key="nobody", signer="nobody")
    yield make("another root", _CHAIN, roots=_pem(foreign))
    whole = world.chain()
    end = b"-----END CERTIFICATE-----\n"
    parts = [one + end for one in whole.split(end)[:-1]]
    yield make("the root alone", "", MALFORMED, chain=parts[-1])
    yield make("no authority in between", _CHAIN, chain=parts[0] + parts[-1])
    yield make("the device in place of its firmware", _FIRMWARE, chain=_leaf_below(world, parts))
    yield make("nine certificates", "", MALFORMED, chain=whole + parts[1] * 4)
    yield make("certificates of bytes", "", MALFORMED, chain=b"\x30\x00")


def _leaf_below(world: NVIDIAWorld, parts: list[bytes]) -> bytes:
    """A leaf that the provisioner signed, without a firmware: as if for the device itself."""
    leaf = world.issue(
        "firmware", signer="provisioner", issuer="NVIDIA GH100 Provisioner ICA 1", fwid=None
    )
    return _pem(leaf) + b"".join(parts[2:])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _bodies(world: NVIDIAWorld, make: _Maker) -> Iterator[Wrong]:
    good = world.evidence(report_data=REPORT_DATA)
    devices = good["device_evidence_list"]
    assert isinstance(devices, list)
    assert isinstance(devices[0], dict)
    for name, change in (
        ("a Blackwell", {"arch": "BLACKWELL"}),
        ("a switch, as it says itself", {"arch": "LS10"}),
        ("evidence that is no base64", {"evidence": "!"}),
        ("evidence that is empty", {"evidence": ""}),
        ("no certificates", {"certificate": ""}),
    ):
        one: dict[str, JSON] = {**devices[0], **change}
        yield make(name, "", MALFORMED, body={"device_evidence_list": [one]})
    yield make("no device", "", MALFORMED, body={"device_evidence_list": []})
    yield make("two devices at once", "", MALFORMED, body={"device_evidence_list": devices * 2})
    yield make("no list", "", MALFORMED, body={})
