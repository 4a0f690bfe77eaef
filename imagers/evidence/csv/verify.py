# SPDX-License-Identifier: Apache-2.0
"""Whether a report of Hygon CSV is genuine, for this handshake, of a closed guest. No IO.

    verifier = CSVVerifier()
    evidence = verifier.parse(body)
    collateral = {name: read(name) for name in verifier.wanted(evidence)}
    claims = verifier.verify(evidence, bound=bound, collateral=collateral, now=now, note=print)

1. *Chain.* HRK, which comes along, is signed by itself, HSK by HRK, CEK by HSK; each has the usage
   and the user id of its role.
2. *PEK.* It is signed by the CEK, and is the one in the report.
3. *Signature*: by the PEK over the report. Usage and algorithm, which nobody signed in version 1,
   have the only values that they can have.
4. *MAC*, where the evidence is as the device gave it. Its key stands in the report: it shows damage
   and no forgery.
5. *Guest.* Its policy forbids debugging, sharing its key with other guests, and sending it to other
   machines, unless allowed.
6. *Event log.* A log beside a report of version 2 gives RTMR 1 to 4 when it is replayed.
7. *Bound.* Report data are the expected ones, padded with zeros. CSV binds no init data.
8. *Measure*, of version 1, by whoever compares the claims with reference values. What a report of
   version 1 says is XORed with a number that nobody signed, four bytes again and again: whoever has
   a report makes one of it that says something else, report data and policy included, and the
   signature holds. Only the same four bytes would have to make of *his* measurement that of the
   guest that is wanted, and a digest does not let itself be found for that. So a report of
   version 1 counts if its measurement equals a reference value, and not at all if not:
   `Claims.counts_if_measured`; docs/adr/0065.

What was measured is in the claims; that it is *somebody's own* guest is for reference values to
say. Of version 1 that is the measurement at the launch, as `csv_v1_measure`: a name of its own, so
that nobody gets around the registers of version 2 by asking the firmware for version 1.

Not looked at: the signature of the owner in the PEK; whether Hygon took a chip back, which it does
not publish. There are no dates.

Spec: Hygon CSV API; openanolis/csv-rs; GB/T 32918, 32905.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, ClassVar

from imagers.core import verify_sm2
from imagers.errors import CouldNotVerify, EvidenceRejected, SignatureInvalid
from imagers.evidence.ccel import (
    MAX_LOG,
    Event,
    check_replay,
    events_as_json,
    parse_event_log,
)
from imagers.evidence.csv.certificates import (
    AUTHORITY,
    Certificate,
    certificate_of_json,
    parse_certificate,
    root_of,
)
from imagers.evidence.csv.report import Report, mac_of, parse_report, report_of_json
from imagers.evidence.steps import check_bound, mismatch, step
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.model.evidence import Bound, Verifier
    from imagers.model.strict_json import JSON

__all__ = [
    "Allowed",
    "CSVEvidence",
    "CSVVerifier",
    "check_issuers",
    "issuers_name",
    "parse",
    "parse_file",
    "parse_issuers",
]

_WHAT = "CSV evidence"
_MAX_JSON = 6 * 1024 * 1024  # a report, certificates, and a log in base64
_SERIAL = 64
_PEK_USAGE, _SM2_SIGNATURES = 0x1002, 4
_FETCH = "'imagers attest collateral fetch' asks Hygon for it"
_LOGGED = ("rtmr1", "rtmr2", "rtmr3", "rtmr4")
_V1 = "csv_v1_measure"
_V2 = ("csv_measure", "csv_rtmr1", "csv_rtmr2")
# Bits of a guest's policy; the first three forbid something.
_POLICY = {
    "nodbg": 1 << 0,
    "noks": 1 << 1,
    "nosend": 1 << 3,
    "es": 1 << 2,
    "domain": 1 << 4,
    "csv": 1 << 5,
    "csv3": 1 << 6,
    "asid_reuse": 1 << 7,
}
_VERSIONS = {
    "hsk_version": (8, 4),
    "cek_version": (12, 4),
    "api_major": (16, 8),
    "api_minor": (24, 8),
}


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is not refused although it makes a guest weaker.

    Attributes:
        debug: its host may look into it.
        key_sharing: its host may give its key to another guest, which then reads its memory.
        migration: its host may send it to another genuine machine.
    """

    debug: bool = False
    key_sharing: bool = False
    migration: bool = False

    @classmethod
    def parse(cls, settings: View) -> Self:
        """From the settings of an appraisal.

            {"debug": true, "key_sharing": true, "migration": true}

        Raises:
            FormatError: it has another member, or one has no such value.
        """
        settings.only("debug", "key_sharing", "migration")
        return cls(
            debug=settings.flag("debug"),
            key_sharing=settings.flag("key_sharing"),
            migration=settings.flag("migration"),
        )


@dataclass(frozen=True, slots=True)
class CSVEvidence:
    """What a guest sent, read and not verified.

    Attributes:
        issuers: HSK and CEK; None: they were not sent.
        events: None: no log came along.
    """

    report: Report
    pek: Certificate
    issuers: tuple[Certificate, Certificate] | None = None
    events: tuple[Event, ...] | None = field(default=None, repr=False)


def parse(body: JSON) -> CSVEvidence:
    """The evidence in the JSON of the protocol.

        {"attestation_report": {"magic": [...], "flags": 0, "data": [...]},
         "cert_chain": {"hsk_cek": {"hsk": {...}, "cek": {...}} or null, "pek": {...}},
         "serial_number": [...], "cc_eventlog": "base64" or null}

    Raises:
        FormatError: it is none.
    """
    view = View(body, what=_WHAT)
    chain = view.object("cert_chain")
    pek = certificate_of_json(chain.object("pek"), "PEK")
    report = report_of_json(view.object("attestation_report"), pek=pek)
    serial = view.octets("serial_number", size=_SERIAL).rstrip(b"\0")
    if serial != report.serial.encode():
        raise view.error("expected the one in the report", "serial_number")
    issuers = None
    if chain.value.get("hsk_cek") is not None:
        both = chain.object("hsk_cek")
        issuers = (
            certificate_of_json(both.object("hsk"), "HSK"),
            certificate_of_json(both.object("cek"), "CEK"),
        )
    events = None
    if view.optional_text("cc_eventlog") is not None:
        events = parse_event_log(view.bytes64("cc_eventlog", max_size=MAX_LOG))
    return CSVEvidence(report, pek, issuers, events)


def parse_file(data: bytes) -> CSVEvidence:
    """The evidence in a file: a report as the guest's device gives it, or the protocol's JSON.

    Raises:
        FormatError: it is neither.
    """
    if data.lstrip()[:1] == b"{":
        return parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))
    report = parse_report(data)
    report.serial  # noqa: B018  # which documents are wanted has to be told
    return CSVEvidence(report, report.pek)


def issuers_name(serial: str) -> str:
    """How HSK and CEK of a chip are called among the collateral.

    Names reach logs, and the number of a chip does not: it stands there as a part of a hash.
    """
    return f"csv/{sha256(b'csv ' + serial.encode()).hexdigest()[:32]}.hsk_cek"


def parse_issuers(data: bytes) -> tuple[Certificate, Certificate]:
    """HSK and CEK, one after the other, as Hygon's service gives them.

    Raises:
        FormatError: they are not.
    """
    return (
        parse_certificate(data[: AUTHORITY.size], "HSK"),
        parse_certificate(data[AUTHORITY.size :], "CEK"),
    )


def check_issuers(hrk: Certificate, hsk: Certificate, cek: Certificate) -> None:
    """Step 1: raise unless the root signed itself and the HSK, and that one the CEK.

    Raises:
        EvidenceRejected: one is not what its role says.
    """
    hrk.check(hrk)
    hsk.check(hrk)
    cek.check(hsk)


@dataclass(frozen=True, slots=True)
class CSVVerifier:
    """Judges reports of Hygon CSV, by the steps of the module.

    Attributes:
        roots: an HRK, armored, in place of Hygon's: for tests only.
    """

    allowed: Allowed = field(default_factory=Allowed)
    roots: bytes | None = None
    tee: ClassVar[str] = "csv"
    references: ClassVar[tuple[tuple[str, ...], ...]] = ((_V1,), _V2)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal; see `Allowed.parse`."""
        root_of(roots)  # a faulty file is told at the start
        return cls(Allowed.parse(settings), roots)

    def parse(self, body: JSON) -> CSVEvidence:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: CSVEvidence) -> tuple[str, ...]:
        """See `Verifier`: HSK and CEK, if they were not sent."""
        return () if evidence.issuers is not None else (issuers_name(evidence.report.serial),)

    def verify(
        self,
        evidence: CSVEvidence,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`. What a report of version 1 says counts with its measurement only.

        Raises:
            EvidenceRejected: a step says no.
            CouldNotVerify: HSK and CEK were not sent, and are not there.
            FormatError: a part cannot be read.
        """
        report, pek = evidence.report, evidence.pek
        with step("1, chain"):
            hsk, cek = self._issuers(evidence, collateral)
            check_issuers(root_of(self.roots), hsk, cek)
        note("step 1, chain: HRK, HSK, CEK")
        with step("2, PEK"):
            pek.check(cek)
            if report.pek.raw != pek.raw:
                raise EvidenceRejected("the PEK in the report is another one")
        note("step 2, PEK: of this chip")
        with step("3, signature"):
            _check_signature(report, pek)
        note(f"step 3, signature: good, of a report of version {report.version}")
        with step("4, MAC"):
            told = _check_mac(report)
        note(f"step 4, MAC: {told}")
        with step("5, guest"):
            told = _check_guest(report, self.allowed)
        note(f"step 5, guest: {told}")
        with step("6, event log"):
            told = _check_log(evidence)
        note(f"step 6, event log: {told}")
        with step("7, bound"):
            told = check_bound(bound, report_data=report.octets("report_data"))
        note(f"step 7, bound: {told}")
        return Claims(
            tee=self.tee,
            tee_class="cpu",
            maker=f"Hygon, PEK of a chip, report of version {report.version}",
            measured=(_measured(report),),
            firmware=_firmware(report, pek),
            configured=_configured(report),
            debug=not report.number("policy") & _POLICY["nodbg"],
            report_data=report.octets("report_data").hex(),
            values=claims_of(evidence),
            established_at=now,
            # What the report says of the chip is signed by nobody.
            instance=sha256(cek.public_key).hexdigest(),
            counts_if_measured=report.version == 1,
            test_root=self.roots is not None,
        )

    def _issuers(
        self, evidence: CSVEvidence, collateral: Mapping[str, bytes]
    ) -> tuple[Certificate, Certificate]:
        if evidence.issuers is not None:
            return evidence.issuers
        found = collateral.get(issuers_name(evidence.report.serial))
        if found is None:
            raise CouldNotVerify("there are no HSK and CEK of this chip", hint=_FETCH)
        return parse_issuers(found)


def _check_signature(report: Report, pek: Certificate) -> None:
    """Step 3."""
    for name, wanted in (("sig_usage", _PEK_USAGE), ("sig_algo", _SM2_SIGNATURES)):
        if report.number(name) != wanted:
            raise mismatch(name, f"{wanted:#x}", f"{report.number(name):#x}")
    try:
        verify_sm2(pek.public_key, report.signature, report.signed, user_id=pek.role.user_id)
    except SignatureInvalid:
        raise EvidenceRejected("it is not by the key of this PEK") from None


def _check_mac(report: Report) -> str:
    """Step 4: what was done."""
    if not report.is_whole:
        return "for the guest to look at, before it took off what hides the chip"
    expected = mac_of(report.octets("mnonce"), report.signer)
    if not compare_digest(expected, report.mac):
        raise mismatch("MAC", expected.hex(), report.mac.hex())
    return "good"


def _check_guest(report: Report, rules: Allowed) -> str:
    """Step 5: what it is."""
    policy = report.number("policy")
    for bit, what, allowed in (
        ("nodbg", "debugging", rules.debug),
        ("noks", "sharing of its key", rules.key_sharing),
        ("nosend", "sending to other machines", rules.migration),
    ):
        if not policy & _POLICY[bit] and not allowed:
            raise mismatch(
                f"{what} ({bit} of the guest's policy)",
                "forbidden",
                "allowed",
                hint="docs/tee/csv.md says which policy to start a guest with",
            )
    return "closed" if policy & _POLICY["nodbg"] else "under debug"


def _check_log(evidence: CSVEvidence) -> str:
    """Step 6: what came along."""
    if evidence.events is None:
        return "none came along"
    if evidence.report.version == 1:
        return "not used: a report of version 1 has no registers"
    registers = {
        number: (name, evidence.report.octets(name)) for number, name in enumerate(_LOGGED, 1)
    }
    check_replay(evidence.events, registers, algorithm="SM3")
    return f"{len(evidence.events)} events"


def _measured(report: Report) -> dict[str, JSON]:
    if report.version == 1:
        return {_V1: report.octets("measure").hex()}
    return {name: report.octets(name.removeprefix("csv_")).hex() for name in _V2}


def _firmware(report: Report, pek: Certificate) -> dict[str, JSON]:
    versions: dict[str, JSON] = {
        f"csv_firmware_{part}": pek.number(f"body.data.firmware.{part}")
        for part in ("major", "minor")
    }
    if report.version == 2:
        versions["csv_build"] = report.number("build")
    return versions


def _configured(report: Report) -> dict[str, JSON]:
    policy = report.number("policy")
    configured: dict[str, JSON] = {
        f"csv_{name}": report.octets(name).hex()
        for name in ("user_pubkey_digest", "vm_id", "vm_version")
    }
    configured |= {f"csv_policy_{name}": bool(policy & bit) for name, bit in _POLICY.items()}
    if report.version == 2:
        configured |= {f"csv_{name}": report.octets(name).hex() for name in ("rtmr3", "rtmr4")}
    return configured


def claims_of(evidence: CSVEvidence) -> dict[str, JSON]:
    """What report and log say, as Trustee names it; nothing of it is verified.

    The serial number of the chip is left out.
    """
    report = evidence.report
    policy = report.number("policy")
    bits: dict[str, JSON] = {name: int(bool(policy & bit)) for name, bit in _POLICY.items()}
    bits |= {name: policy >> at & (1 << size) - 1 for name, (at, size) in _VERSIONS.items()}
    claims: dict[str, JSON] = {"version": str(report.version), "policy": bits}
    names = ["user_pubkey_digest", "vm_id", "vm_version", "report_data", "mnonce", "measure"]
    names += ["sig_usage", "sig_algo"]
    if report.version == 1:
        claims["anonce"] = report.anonce.hex()
    else:
        claims |= {"build": report.number("build"), "rtmr_version": report.number("rtmr_version")}
        names += ["reserved0", "rtmr0", *_LOGGED, "reserved1"]
    claims |= {name: report.octets(name).hex() for name in names}
    if evidence.events is not None and report.version == 2:
        claims["uefi_event_logs"] = events_as_json(
            [
                one for one in evidence.events if 1 <= one.register <= len(_LOGGED)
            ]  # others bind none
        )
    return claims


if TYPE_CHECKING:
    _verifier: Verifier[CSVEvidence] = CSVVerifier()
