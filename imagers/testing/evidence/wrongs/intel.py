# SPDX-License-Identifier: Apache-2.0
"""Evidence of Intel TDX and SGX with one thing wrong.

A field of the quote is changed after it was signed, which the signature has to show; or before, so
that the field itself is judged. So what vouches for the signature, and each document.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.evidence.intel import collateral as names
from imagers.model.base64 import encode_base64
from imagers.testing.evidence.eventlog import BOOT, EV_SEPARATOR, Event, event_log
from imagers.testing.evidence.intel import HEADER, SGX_BODY, SGX_BODY_BYTES
from imagers.testing.evidence.tdx import TDXWorld
from imagers.testing.evidence.wrongs.wrong import (
    COULD_NOT_LOOK,
    INIT_DATA,
    MALFORMED,
    NO,
    REPORT_DATA,
    Wrong,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.intel import IntelWorld
    from imagers.testing.evidence.sgx import SGXWorld

__all__ = ["CLAIMS", "wrongs"]

_CHAIN, _LISTS, _INFO, _IDENTITY = "1, chain", "2, revocation", "3, TCB info", "4, QE identity"
_QE_REPORT, _KEY, _QE = "5, QE report", "6, attestation key", "7, quoting enclave"
_SIGNATURE, _TCB = "8, signature", "9, TCB"
_LOG = "11, event log"
_GUEST = {"tdx": "10, guest", "sgx": "10, enclave"}
_BOUND = {"tdx": "12, bound", "sgx": "11, bound"}
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_PARSED = ("version", "att_key_type", "tee_type", "vendor_id")
_HEADER_BYTES = 48
_UNTIL_QE = 4 + 64 + 64  # length, signature, attestation key
_NESTED = 6  # type and length of what vouches, from version 4 on

CLAIMS: Mapping[str, tuple[tuple[str, int | bytes], ...]] = {
    "tdx": (
        ("mr_seam", b"s" * 48),
        ("xfam", 0x602E3),
        ("mr_td", b"m" * 48),
        ("mr_owner", b"o" * 48),
        ("mr_owner_config", b"o" * 48),
        ("mr_servicetd", b"s" * 48),
    ),
    "sgx": (
        ("cpu_svn", b"c" * 16),
        ("isv_ext_prod_id", b"p" * 16),
        ("mr_enclave", b"m" * 32),
        ("mr_signer", b"s" * 32),
        ("isv_prod_id", 7),
        ("isv_svn", 7),
        ("config_svn", 7),
        ("isv_family_id", b"f" * 16),
    ),
}
"""Fields that a genuine quote may have so, signed: which of them are good is for others to say."""


class _Maker:
    """Makes evidence of a world that is good but for what it is told."""

    def __init__(self, world: TDXWorld | SGXWorld, version: int) -> None:
        self._world = world
        self.form: dict[str, int] = {}
        self.begin = _HEADER_BYTES
        self.layout, self.size = SGX_BODY, SGX_BODY_BYTES
        if isinstance(world, TDXWorld):
            self.form = {"version": version, "kind": 3 if version == 5 else 2}
            self.layout, self.size = world.layout(self.form["kind"])
            self.begin += 6 if version == 5 else 0
        self.collateral = world.collateral()
        self.info = names.tcb_info_name(world.tee, world.fmspc.hex())
        self.identity = names.identity_name(world.tee)
        self.crl = names.crl_name(world.ca)
        self.is_tdx = isinstance(world, TDXWorld)
        self.bound = "mr_config_id" if self.is_tdx else "config_id"

    def good(self, **fields: Any) -> bytes:
        """A quote that is good but for these fields."""
        fields = {**self.form, **fields}
        return self._world.quote(**{"report_data": REPORT_DATA, self.bound: INIT_DATA, **fields})

    def __call__(
        self,
        name: str,
        step: str,
        error: type[ImagersError] = NO,
        *,
        quote: bytes | None = None,
        log: bytes | None = None,
        documents: Mapping[str, bytes | None] | None = None,
        roots: bytes | None = None,
        **fields: Any,
    ) -> Wrong:
        raw = self.good(**fields) if quote is None else quote
        body: dict[str, JSON] = {"quote": encode_base64(raw)}
        if self.is_tdx:
            body["cc_eventlog"] = encode_base64(event_log(BOOT) if log is None else log)
        changed = {**self.collateral, **(documents or {})}
        collateral = {one: data for one, data in changed.items() if data is not None}
        return Wrong(name, step, body, collateral, roots or self._world.roots, error)


def wrongs(world: TDXWorld | SGXWorld, version: int = 5) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of the verifiers of `imagers.evidence`.

    Args:
        version: of quotes of TDX: 4, or 5 with a body of TDX 1.5.
    """
    make = _Maker(world, version)
    yield from _changed_after(make)
    yield from _signed_so(make, world)
    if isinstance(world, TDXWorld):
        yield from _td(make, world)
    else:
        yield from _enclave(make)
    yield from _vouching(make, world)
    yield from _certificates(make, world)
    yield from _lists(make, world)
    for step, name, sign in (
        (_INFO, make.info, world.tcb_info),
        (_IDENTITY, make.identity, world.identity),
    ):
        yield from _documents(make, world, step, name, sign)
    yield from _tcb_info(make, world)
    yield from _identity(make, world)


def _changed_after(make: _Maker) -> Iterator[Wrong]:
    good = make.good()
    begin, layout = make.begin, make.layout
    end = begin + make.size
    places = [(name, at, _SIGNATURE) for name, (at, _) in HEADER.items() if name not in _PARSED]
    places += [(name, begin + at, _SIGNATURE) for name, (at, _) in layout.items()]
    places += [("r of the signature", end + 4, _SIGNATURE), ("s of it", end + 36, _SIGNATURE)]
    places += [("attestation key", end + 68, _KEY)]
    report = end + _UNTIL_QE + (_NESTED if make.is_tdx else 0)
    places += [(f"{name} of the QE", report + at, _QE_REPORT) for name, (at, _) in SGX_BODY.items()]
    places += [("signature of the QE report", report + SGX_BODY_BYTES, _QE_REPORT)]
    places += [("authentication data", report + SGX_BODY_BYTES + 66, _KEY)]
    for name, at, step in places:
        yield make(f"{name}, changed after signing", step, quote=_flipped(good, at))
    for name in _PARSED:
        quote = _flipped(good, HEADER[name][0])
        yield make(f"{name} of the header", "", MALFORMED, quote=quote)
    for name, at in (
        ("length of the signature data", end),
        ("length of the authentication data", report + SGX_BODY_BYTES + 64),
        ("type of the certificates", report + SGX_BODY_BYTES + 66 + 32),
        ("length of the certificates", report + SGX_BODY_BYTES + 66 + 34),
    ):
        yield make(name, "", MALFORMED, quote=_flipped(good, at))
    yield make("end of the quote", "", MALFORMED, quote=good[:-1])


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def _signed_so(make: _Maker, world: IntelWorld) -> Iterator[Wrong]:
    step = _BOUND[world.tee]
    yield make("report data of another handshake", step, report_data=b"x" * 48)
    yield make("report data with something behind it", step, report_data=REPORT_DATA + b"x")
    other: dict[str, Any] = {make.bound: b"x" * 32}
    yield make("other init data", step, **other)
    for name, value in (("att_key_type", 3), ("vendor_id", b"v" * 16), ("version", 6)):
        header = {name: value}
        yield make(f"{name} of the header, signed so", "", MALFORMED, header=header)


def _td(make: _Maker, world: TDXWorld) -> Iterator[Wrong]:
    closed = 1 << 28
    step = _GUEST[world.tee]
    yield make("debugging allowed", step, td_attributes=closed | 1)
    yield make("migration allowed", step, td_attributes=closed | 1 << 29)
    yield make("SEPT_VE_DISABLE not set", step, td_attributes=0)
    yield make("attribute that is unknown", step, td_attributes=closed | 1 << 20)
    svn = world.tcb_svn
    yield make("TDX module that is too old", _TCB, tcb_svn=bytes((1, *svn[1:])))
    yield make("TDX module that is unknown", _TCB, tcb_svn=bytes((svn[0], 9, *svn[2:])))
    yield make("microcode that is too old", _TCB, tcb_svn=bytes((*svn[:2], 0, *svn[3:])))
    yield make("TDX module that somebody else signed", _TCB, mrsigner_seam=b"s" * 48)
    yield make("TDX module with attributes", _TCB, seam_attributes=1)
    for at in range(4):
        other: dict[str, Any] = {f"rtmr_{at}": b"r" * 48}
        yield make(f"RTMR {at} of another log", _LOG, **other)
    more = event_log((*BOOT, Event(3, EV_SEPARATOR, b"more")))
    yield make("event log with one event more", _LOG, log=more)
    yield make("event log with one event less", _LOG, log=event_log(BOOT[1:]))
    swapped = (BOOT[0], BOOT[2], BOOT[1], *BOOT[3:])
    yield make("event log with two events in the other order", _LOG, log=event_log(swapped))
    yield make("event log of bytes", "", MALFORMED, log=b"log")


def _enclave(make: _Maker) -> Iterator[Wrong]:
    step = _GUEST["sgx"]
    xfrm = bytes.fromhex("e700000000000000")
    for name, flags in (("debugging allowed", 7), ("not initialised", 4), ("unknown", 5 | 1 << 40)):
        attributes = flags.to_bytes(8, "little") + xfrm
        yield make(f"attributes of the enclave: {name}", step, attributes=attributes)


def _vouching(make: _Maker, world: IntelWorld) -> Iterator[Wrong]:
    def sealed(name: str, step: str, error: type[ImagersError] = NO, **changes: Any) -> Wrong:
        return make(name, step, error, sealed=changes)

    yield sealed("QE report signed by nobody known", _QE_REPORT, qe_key="nobody")
    yield sealed("QE report of another key", _KEY, qe={"report_data": b"x" * 32})
    for name, value in (
        ("mr_signer", b"s" * 32),
        ("isv_prod_id", world.qe_product + 1),
        ("misc_select", 1),
        ("attributes", bytes.fromhex("1700000000000000e700000000000000")),
        ("isv_svn", world.qe_svn - 2),
    ):
        yield sealed(f"{name} of another quoting enclave", _QE, qe={name: value})
    yield sealed("chain without an authority", "", MALFORMED, chain=world.chain("pck"))
    twice = world.chain("pck", world.ca, "root", "root")
    yield sealed("chain that is too long", "", MALFORMED, chain=twice)
    pem = world.chain("pck", world.ca, "root").replace(b"BEGIN", b"BEGUN")
    yield sealed("chain that is no PEM", "", MALFORMED, chain=pem)


def _certificates(make: _Maker, world: IntelWorld) -> Iterator[Wrong]:
    own = {role: world.issue(role) for role in ("pck", world.ca, "root")}

    def chain(
        name: str,
        step: str,
        changes: Mapping[str, x509.Certificate],
        error: type[ImagersError] = NO,
    ) -> Wrong:
        parts = {**own, **changes}.values()
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in parts)
        return make(name, step, error, sealed={"chain": pem})

    issue, ca = world.issue, world.ca
    yield chain("PCK signed by the root", _CHAIN, {"pck": issue("pck", signer="root")})
    by_nobody = {"pck": issue("pck", signer="nobody")}
    yield chain("PCK signed by nobody known", _CHAIN, by_nobody)
    yield chain("PCK of another key", _QE_REPORT, {"pck": issue("pck", key="nobody")})
    foreign = {**by_nobody, ca: issue(ca, key="nobody", signer="nobody")}
    yield chain("PCK and its authority of nobody known", _CHAIN, foreign)
    yield chain("authority signed by nobody known", _CHAIN, {ca: issue(ca, signer="nobody")})
    root = issue("root", key="nobody", signer="nobody")
    yield chain("another root", _CHAIN, {"root": root})
    yield make("root that is another", _CHAIN, roots=root.public_bytes(Encoding.PEM))
    long_ago, soon = world.now - timedelta(days=20 * 365), world.now + timedelta(days=3)
    for role, name in (("pck", "PCK"), (ca, "authority")):
        yield chain(f"{name} that is expired", _CHAIN, {role: issue(role, begin=long_ago)})
        yield chain(f"{name} of the future", _CHAIN, {role: issue(role, begin=soon)})
    older = tuple(max(0, one - 2) for one in world.components)
    for name, step, error, extension in (
        ("of another kind of machine", _INFO, COULD_NOT_LOOK, {"fmspc": b"fmspc!"}),
        ("of another PCE", _INFO, NO, {"pce_id": b"\1\0"}),
        ("with components that are too old", _TCB, NO, {"components": older}),
        ("with a PCE that is too old", _TCB, NO, {"pce_svn": 1}),
        ("of an unknown type", "", MALFORMED, {"sgx_type": 9}),
    ):
        value = world.pck_extension(**extension)
        yield chain(f"PCK {name}", step, {"pck": issue("pck", extension=value)}, error)
    silent = {"pck": issue("pck", extension=b"\x30\x00")}
    yield chain("PCK that says nothing", "", silent, MALFORMED)


def _lists(make: _Maker, world: IntelWorld) -> Iterator[Wrong]:
    yield from _list(make, world, "root", names.ROOT_CRL, revoked=world.serial(world.ca))
    yield from _list(make, world, world.ca, make.crl, revoked=world.serial("pck"))
    other = "processor" if world.ca == "platform" else "platform"
    yield make("list of the other authority", _LISTS, documents={make.crl: world.crl(other)})
    signer = world.crl("root", revoked=[world.serial("signing")])
    yield make("signer of the TCB info revoked", _INFO, documents={names.ROOT_CRL: signer})


def _list(
    make: _Maker, world: IntelWorld, issuer: str, path: str, *, revoked: int
) -> Iterator[Wrong]:
    def wrong(
        text: str, data: bytes | None, error: type[ImagersError] = NO, step: str = _LISTS
    ) -> Wrong:
        return make(f"list of the {issuer}, {text}", step, error, documents={path: data})

    yield wrong("missing", None, COULD_NOT_LOOK)
    yield wrong("signed by nobody known", world.crl(issuer, signer="nobody"))
    yield wrong("of bytes", b"\x30\x00", MALFORMED, "")
    begin = world.now - timedelta(days=40)
    yield wrong("expired", world.crl(issuer, begin=begin), COULD_NOT_LOOK)
    yield wrong("with one of the chain in it", world.crl(issuer, revoked=[revoked]))
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for word, extension in (("of changes", x509.DeltaCRLIndicator(1)), ("limited", unknown)):
        crl = world.crl(issuer, extensions=[(extension, True)])
        yield wrong(word, crl, COULD_NOT_LOOK)


def _documents(
    make: _Maker, world: IntelWorld, step: str, name: str, sign: Callable[..., bytes]
) -> Iterator[Wrong]:
    """What is wrong with either kind of document, and with who signed it."""
    what = step.partition(", ")[2]

    def wrong(
        text: str, data: bytes | None, error: type[ImagersError] = NO, at: str = step
    ) -> Wrong:
        return make(f"{what} {text}", at, error, documents={name: data})

    yield wrong("missing", None, COULD_NOT_LOOK)
    yield wrong("signed by nobody known", sign(signer="nobody"))
    yield wrong("signed by the root", sign(signer="root"))
    good = sign()
    changed = good.replace(b'"tcbEvaluationDataNumber":17', b'"tcbEvaluationDataNumber":18')
    yield wrong("changed after signing", changed)
    yield wrong("written anew", json.dumps(json.loads(good)).encode())
    yield wrong("of bytes", b"{}", MALFORMED, "")
    for days, word in ((-40, "expired"), (10, "of the future")):
        begin, end = (world.now + timedelta(days=days + more) for more in (0, 30))
        data = sign(issueDate=f"{begin:{_TIME}}", nextUpdate=f"{end:{_TIME}}")
        yield wrong(word, data, COULD_NOT_LOOK)
    for member, value in (("id", "OTHER"), ("version", 9), ("issueDate", "today")):
        yield wrong(f"with another {member}", sign(**{member: value}), MALFORMED, "")
    chain = names.chain_name(name)
    long_ago = world.now - timedelta(days=20 * 365)

    def signed_by(
        text: str, certificate: x509.Certificate | None, error: type[ImagersError] = NO
    ) -> Wrong:
        pem = None
        if certificate is not None:
            pem = certificate.public_bytes(Encoding.PEM) + world.chain("root")
        return make(f"signer of the {what} {text}", step, error, documents={chain: pem})

    yield signed_by("missing", None, COULD_NOT_LOOK)
    yield signed_by("that nobody known certified", world.issue("signing", signer="nobody"))
    yield signed_by("that is no signer", world.issue("pck", signer="root"))
    yield signed_by("of another key", world.issue("signing", key="nobody"))
    expired = world.issue("signing", begin=long_ago)
    yield signed_by("that is expired", expired, COULD_NOT_LOOK)


def _tcb_info(make: _Maker, world: IntelWorld) -> Iterator[Wrong]:
    def wrong(text: str, step: str, error: type[ImagersError] = NO, **changes: Any) -> Wrong:
        data = world.tcb_info(**changes)
        return make(f"TCB info {text}", step, error, documents={make.info: data})

    yield wrong("of another kind of machine", _INFO, fmspc="00" * 6)
    yield wrong("of another PCE", _INFO, pceId="0001")
    yield wrong("of an unknown type", "", MALFORMED, tcbType=9)
    yield wrong("with the machine revoked", _TCB, status="Revoked")
    yield wrong("with an unknown status", "", MALFORMED, status="Fine")
    yield wrong("without levels", "", MALFORMED, tcbLevels=[])
    tdx = (0,) * 16 if isinstance(world, TDXWorld) else None
    above = world.level("UpToDate", below=-1, tdx=tdx)
    yield wrong("with no level that the machine reaches", _TCB, tcbLevels=[above])
    if isinstance(world, TDXWorld):
        yield from _modules(make, world)


def _modules(make: _Maker, world: TDXWorld) -> Iterator[Wrong]:
    good = world.module("UpToDate")

    def wrong(text: str, step: str, error: type[ImagersError] = NO, **changes: JSON) -> Wrong:
        data = world.tcb_info(tdxModuleIdentities=[{**good, **changes}])
        return make(f"identity of the TDX module {text}", step, error, documents={make.info: data})

    yield wrong("of another version", _TCB, id="TDX_09")
    yield wrong("of another signer", _TCB, mrsigner="11" * 48)
    yield wrong("with other attributes", _TCB, attributes="01" + "00" * 7)
    yield wrong("that is revoked", _TCB, tcbLevels=world.module("Revoked")["tcbLevels"])
    newer: JSON = [
        {"tcb": {"isvsvn": 99}, "tcbDate": "2026-03-11T00:00:00Z", "tcbStatus": "UpToDate"}
    ]
    yield wrong("of a newer one alone", _TCB, tcbLevels=newer)
    yield wrong("without levels", "", MALFORMED, tcbLevels=[])


def _identity(make: _Maker, world: IntelWorld) -> Iterator[Wrong]:
    def wrong(text: str, step: str, error: type[ImagersError] = NO, **changes: Any) -> Wrong:
        data = world.identity(**changes)
        return make(f"QE identity {text}", step, error, documents={make.identity: data})

    yield wrong("of another signer", _QE, mrsigner="11" * 32)
    yield wrong("of another product", _QE, isvprodid=world.qe_product + 1)
    yield wrong("with another miscselect", _QE, miscselect="01000000")
    yield wrong("with other attributes", _QE, attributes="13" + "00" * 15)
    yield wrong("with the enclave revoked", _QE, status="Revoked")
    newer: JSON = [
        {"tcb": {"isvsvn": 99}, "tcbDate": "2026-03-11T00:00:00Z", "tcbStatus": "UpToDate"}
    ]
    yield wrong("of a newer one alone", _QE, tcbLevels=newer)
    yield wrong("without levels", "", MALFORMED, tcbLevels=[])
