# SPDX-License-Identifier: Apache-2.0
"""Evidence of Hygon CSV with one thing wrong.

A field of the report is changed after it was signed, which the signature has to show if no earlier
step does; or before, so that the field itself is judged. That of version 1 all values can be
changed together, is in the tests of the appraisal: no step of a verifier can see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from imagers.evidence.csv.verify import issuers_name
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Bound
from imagers.testing.evidence.csv import CLOSED, LAYOUTS, armored
from imagers.testing.evidence.eventlog import BOOT, EV_IPL, Event, event_log
from imagers.testing.evidence.wrongs.wrong import (
    BOUND_ALONE,
    COULD_NOT_LOOK,
    MALFORMED,
    NO,
    REPORT_DATA,
    Wrong,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.csv import CSVWorld

__all__ = ["CLAIMS", "wrongs"]

_CHAIN, _PEK, _SIGNATURE = "1, chain", "2, PEK", "3, signature"
_GUEST, _LOG, _BOUND = "5, guest", "6, event log", "7, bound"

CLAIMS = (
    ("user_pubkey_digest", b"u" * 32),
    ("vm_id", b"i" * 16),
    ("vm_version", b"v" * 16),
    ("mnonce", b"n" * 16),
    ("measure", b"m" * 32),
    ("policy", 0xFFFFFFFF),
    ("build", 7),
    ("rtmr_version", 7),
    ("rtmr0", b"r" * 32),
)
"""Fields that a genuine report may have so, signed: which of them are good is for others to say."""


class _Maker:
    """Makes evidence of a world that is good but for what it is told."""

    def __init__(self, world: CSVWorld, version: int) -> None:
        self._world = world
        self.version = version

    def __call__(
        self,
        name: str,
        step: str,
        error: type[ImagersError] = NO,
        *,
        body: JSON = None,
        issuers: bytes | None = None,
        has_issuers: bool = True,
        roots: bytes | None = None,
        bound: Bound = BOUND_ALONE,
        **fields: object,
    ) -> Wrong:
        if body is None:
            body = self.good(**fields)
        given = self._world.issuers() if issuers is None else issuers
        documents = {issuers_name(self._world.serial): given} if has_issuers else {}
        return Wrong(name, step, body, documents, roots or self._world.roots, error, bound)

    def good(self, **fields: object) -> dict[str, JSON]:
        values = {"report_data": REPORT_DATA, "version": self.version, **fields}
        return self._world.evidence(**values)  # type: ignore[arg-type]  # by names of fields

    def changed(self, at: int) -> dict[str, JSON]:
        """The lowest bit of a byte of the page is another one."""
        body = self.good()
        report = body["attestation_report"]
        assert isinstance(report, dict)
        data = report["data"]
        assert isinstance(data, list)
        byte = data[at]
        assert isinstance(byte, int)
        new: list[JSON] = [*data[:at], byte ^ 1, *data[at + 1 :]]
        return {**body, "attestation_report": {**report, "data": new}}


def wrongs(world: CSVWorld, version: int) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of `imagers.evidence.csv.verify`."""
    make = _Maker(world, version)
    yield from _changed_after(make)
    yield from _signed_so(make)
    yield from _peks(world, make)
    yield from _issuers(world, make)
    if version == 2:
        yield from _logs(make)


def _changed_after(make: _Maker) -> Iterator[Wrong]:
    layout, _ = LAYOUTS[make.version]
    for name, (at, _) in layout.items():
        yield make(f"{name}, changed after signing", _SIGNATURE, body=make.changed(at))
    r = 192 if make.version == 1 else 1024
    for part, at in (("r", r), ("s", r + 72)):
        yield make(f"{part} of the signature", _SIGNATURE, body=make.changed(at))
        yield make(f"{part}, behind it", "", MALFORMED, body=make.changed(at + 32))
    behind = r + 144
    yield make("PEK in the report", "", MALFORMED, body=make.changed(behind + 20))
    yield make("serial number in the report", "", MALFORMED, body=make.changed(behind + 2084))
    yield make("something behind the report", "", MALFORMED, body=make.changed(4095))
    if make.version == 1:
        yield make("anonce alone", _SIGNATURE, body=make.changed(188))
    body = make.good()
    yield make("another serial number beside it", "", MALFORMED, body=_at(body, [65] * 64))
    yield make("a serial number that is cut off", "", MALFORMED, body=_at(body, [65]))


def _at(body: dict[str, JSON], serial: list[JSON] | list[int]) -> dict[str, JSON]:
    return {**body, "serial_number": list(serial)}


def _signed_so(make: _Maker) -> Iterator[Wrong]:
    yield make("key of another chip", _SIGNATURE, signer="nobody")
    yield make("usage of a CEK", _SIGNATURE, sig_usage=0x1004)
    yield make("algorithm that is unknown", _SIGNATURE, sig_algo=5)
    yield make("debugging allowed", _GUEST, policy=CLOSED & ~1)
    yield make("key sharing allowed", _GUEST, policy=CLOSED & ~2)
    yield make("sending allowed", _GUEST, policy=CLOSED & ~8)
    yield make("report data of another handshake", _BOUND, report_data=b"x" * 48)
    yield make("report data with something behind it", _BOUND, report_data=REPORT_DATA + b"x")
    yield make("init data, which it binds none of", _BOUND, bound=Bound(REPORT_DATA, b"i" * 32))


def _peks(world: CSVWorld, make: _Maker) -> Iterator[Wrong]:
    peks: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("signed by the HSK", _PEK, {"signer": "HSK"}),
        ("signed by the HSK, as if by the CEK", _PEK, {"signer": "HSK", "signed_as": 0x1004}),
        ("signed by nobody", _PEK, {"signer": "nobody", "signed_as": 0x1004}),
        ("signed under another user id", _PEK, {"signer_id": b"HYGON-SSD-PEK"}),
        ("of another usage", _PEK, {"usage": 0x1003}),
        ("of another user id", _PEK, {"user_id": b"HYGON-SSD-CEK"}),
        ("of another length of the user id", _PEK, {"uid_size": 12}),
        ("of another key", _SIGNATURE, {"key": "nobody"}),
    )
    for name, step, changes in peks:
        pek = world.certificate("PEK", **changes)
        yield make(f"PEK {name}", step, pek=pek)


def _issuers(world: CSVWorld, make: _Maker) -> Iterator[Wrong]:
    yield make("no HSK and CEK", _CHAIN, COULD_NOT_LOOK, has_issuers=False)
    yield make("HSK and CEK, cut off", "", MALFORMED, issuers=world.issuers()[:-1])
    changes: dict[str, Any]
    for role, other in (("HSK", "CEK"), ("CEK", "HRK")):
        for name, changes in (
            (f"signed by the {other}", {"signer": other, "signed_as": 0x13}),
            ("signed by nobody", {"signer": "nobody", "signed_as": 0x13}),
            ("signed under another user id", {"signer_id": b"HYGON-SSD-PEK"}),
            ("of another usage", {"usage": 7}),
            ("of another user id", {"user_id": b"HYGON-SSD-PEK"}),
        ):
            if role == "HSK":
                changes.pop("signed_as", None)
            changed = world.certificate(role, **changes)
            yield make(f"{role} {name}", _CHAIN, issuers=world.issuers(**{role: changed}))
    foreign = world.certificate("CEK", key="nobody")
    yield make("CEK of another chip", _PEK, issuers=world.issuers(CEK=foreign))
    curve = world.certificate("CEK", g=2)
    yield make("CEK on another curve", "", MALFORMED, issuers=world.issuers(CEK=curve))
    point = world.certificate("CEK", y=b"\x01" * 32)
    yield make("CEK off the curve", _PEK, issuers=world.issuers(CEK=point))
    for name, key in (("of nobody known", "nobody"), ("that another signed", None)):
        root = world.certificate("HRK", key=key, signer="nobody")
        yield make(f"HRK {name}", _CHAIN, roots=armored(root))


def _logs(make: _Maker) -> Iterator[Wrong]:
    for number in range(4):
        extra = Event(number, EV_IPL, b"another one")
        log = event_log([*BOOT, extra], algorithm="SM3")
        yield make(f"event of rtmr{number + 1} added", _LOG, body=_with_log(make.good(), log))
    log = event_log([], algorithm="SM3")
    yield make("no events", _LOG, body=_with_log(make.good(), log))
    other = event_log(BOOT)
    yield make("events without SM3", _LOG, body=_with_log(make.good(), other))
    cut = event_log(BOOT, algorithm="SM3")[:-20]
    yield make("log that is cut off", "", MALFORMED, body=_with_log(make.good(), cut))


def _with_log(body: dict[str, JSON], log: bytes) -> dict[str, JSON]:
    return {**body, "cc_eventlog": encode_base64(log)}
