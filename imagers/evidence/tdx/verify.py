# SPDX-License-Identifier: Apache-2.0
"""Whether a quote of Intel TDX is genuine, for this handshake, of a closed guest. No IO.

    verifier = TDXVerifier()
    evidence = verifier.parse(body)
    collateral = {name: read(name) for name in verifier.wanted(evidence)}
    claims = verifier.verify(evidence, bound=bound, collateral=collateral, now=now, note=print)

1 to 9. As `imagers.evidence.intel.engine` has them: chain, revocation, TCB info, QE identity, QE
   report, attestation key, quoting enclave, signature, TCB.
10. *Guest.* No debugging and no migration, unless allowed; SEPT_VE_DISABLE, without which the host
   can make the guest run on pages of its choice; no attribute that is unknown here.
11. *Event log.* A log that comes along gives RTMR 0 to 3 when it is replayed. Without one there
   are no claims of it.
12. *Bound.* Report data, and init data in MRCONFIGID, are the expected ones, padded with zeros.

What was measured is in the claims; that it is *somebody's own* guest is for reference values to
say: a genuine machine is anybody's who rents one. A status of the TCB other than `UpToDate` is a
claim too, with Intel's advisories; revoked ones are refused.

Not looked at: MROWNER, MROWNERCONFIG, and which service TD is bound (MRSERVICETD): they are claims.

Spec: Intel TDX Module ABI, TD_ATTRIBUTES and TDREPORT_STRUCT.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import EvidenceRejected
from imagers.evidence.ccel import (
    MAX_LOG,
    Event,
    check_replay,
    events_as_json,
    parse_event_log,
)
from imagers.evidence.intel.claims import header_values, instance_of, tcb_values
from imagers.evidence.intel.engine import establish, root_of, wanted
from imagers.evidence.intel.quote import MAX_QUOTE, TDX, Quote, parse_quote
from imagers.evidence.steps import check_bound, is_crl_optional, mismatch, step
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.model.evidence import Bound, Verifier
    from imagers.model.strict_json import JSON

__all__ = ["Allowed", "TDXEvidence", "TDXVerifier", "check_attributes", "parse", "parse_file"]

_WHAT = "TDX evidence"
_MAX_JSON = 6 * 1024 * 1024  # a quote and a log in base64
_DEBUG = 0xFF  # the whole first byte: with any bit of it others can look into the guest
_SEPT_VE_DISABLE = 1 << 28
_MIGRATABLE = 1 << 29
_ATTRIBUTES = {
    "icssd": 1 << 16,
    "lass": 1 << 27,
    "septve_disable": _SEPT_VE_DISABLE,
    "migratable": _MIGRATABLE,
    "protection_keys": 1 << 30,
    "key_locker": 1 << 31,
    "perfmon": 1 << 63,
}
_KNOWN = sum(_ATTRIBUTES.values()) | _DEBUG
_MEASURED = ("mr_td", "rtmr_1", "rtmr_2")
_CONFIGURED = ("xfam", "rtmr_0", "rtmr_3", "mr_config_id", "mr_owner", "mr_owner_config")
_RTMRS = ("rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is not refused although it makes a guest weaker.

    Attributes:
        migration: another TD may move the guest to another machine.
        without_crl: no lists of revoked certificates are needed; those that are there count.
    """

    debug: bool = False
    migration: bool = False
    without_crl: bool = False

    @classmethod
    def parse(cls, settings: View) -> Self:
        """From the settings of an appraisal.

            {"debug": true, "migration": true, "crl": "optional"}

        Raises:
            FormatError: it has another member, or one has no such value.
        """
        settings.only("debug", "migration", "crl")
        return cls(
            debug=settings.flag("debug"),
            migration=settings.flag("migration"),
            without_crl=is_crl_optional(settings),
        )


@dataclass(frozen=True, slots=True)
class TDXEvidence:
    """A quote and the log beside it. Nothing of it is verified.

    Attributes:
        events: None: no log came along.
    """

    quote: Quote
    events: tuple[Event, ...] | None = field(default=None, repr=False)


def parse(body: JSON) -> TDXEvidence:
    """The evidence in the JSON of the protocol.

        {"quote": "base64", "cc_eventlog": "base64" or null}

    Raises:
        FormatError: it is none.
    """
    view = View(body, what=_WHAT)
    quote = parse_quote(view.bytes64("quote", max_size=MAX_QUOTE), tee=TDX)
    if view.optional_text("cc_eventlog") is None:
        return TDXEvidence(quote)
    return TDXEvidence(quote, parse_event_log(view.bytes64("cc_eventlog", max_size=MAX_LOG)))


def parse_file(data: bytes) -> TDXEvidence:
    """The evidence in a file: a quote as the guest's device gives it, or the protocol's JSON.

    Raises:
        FormatError: it is neither.
    """
    if data.lstrip()[:1] == b"{":
        return parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))
    return TDXEvidence(parse_quote(data, tee=TDX))


@dataclass(frozen=True, slots=True)
class TDXVerifier:
    """Judges quotes of Intel TDX, by the steps of the module.

    Attributes:
        roots: one certificate in PEM, in place of Intel's root: for tests only.
    """

    allowed: Allowed = field(default_factory=Allowed)
    roots: bytes | None = None
    tee: ClassVar[str] = "tdx"
    references: ClassVar[tuple[tuple[str, ...], ...]] = (_MEASURED,)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal; see `Allowed.parse`."""
        root_of(roots)  # a faulty file is told at the start
        return cls(Allowed.parse(settings), roots)

    def parse(self, body: JSON) -> TDXEvidence:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: TDXEvidence) -> tuple[str, ...]:
        """See `Verifier`."""
        return wanted(evidence.quote, "tdx")

    def verify(
        self,
        evidence: TDXEvidence,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
            CouldNotVerify: a document is missing or out of date.
            FormatError: a document cannot be read.
        """
        quote = evidence.quote
        established = establish(
            quote,
            tee="tdx",
            collateral=collateral,
            root=root_of(self.roots),
            without_crl=self.allowed.without_crl,
            now=now,
            note=note,
        )
        with step("10, guest"):
            told = check_attributes(quote.number("td_attributes"), self.allowed)
        note(f"step 10, guest: {told}")
        with step("11, event log"):
            told = _check_log(evidence)
        note(f"step 11, event log: {told}")
        with step("12, bound"):
            told = check_bound(
                bound,
                report_data=quote.octets("report_data"),
                init_data=quote.octets("mr_config_id"),
                field="mr_config_id",
            )
        note(f"step 12, bound: {told}")
        configured = {name: quote.octets(name).hex() for name in _CONFIGURED}
        # Quotes of TDX 1.0 have no field for it: they equal no value that one has to have.
        has_service = "mr_servicetd" in quote.fields
        configured["mr_servicetd"] = quote.octets("mr_servicetd").hex() if has_service else ""
        return Claims(
            tee=self.tee,
            tee_class="cpu",
            maker=f"Intel, PCK below the {established.pck.ca.capitalize()} CA",
            measured=({name: quote.octets(name).hex() for name in _MEASURED},),
            firmware={"mr_seam": quote.octets("mr_seam").hex()},
            configured=configured,
            tcb_status=established.status,
            advisories=established.advisories,
            debug=bool(quote.number("td_attributes") & _DEBUG),
            report_data=quote.octets("report_data").hex(),
            init_data=quote.octets("mr_config_id").hex(),
            values=claims_of(evidence) | tcb_values(established),
            collateral=established.collateral,
            established_at=now,
            instance=instance_of(established),
            test_root=self.roots is not None,
        )


def check_attributes(attributes: int, rules: Allowed) -> str:
    """Step 10: what kind of guest it is, by the attributes of the TD.

    Raises:
        EvidenceRejected: one that is not let pass.
    """
    if attributes & _DEBUG and not rules.debug:
        raise mismatch("debugging", "forbidden by the TD's attributes", "allowed")
    if attributes & _MIGRATABLE and not rules.migration:
        raise mismatch("migration", "forbidden by the TD's attributes", "allowed")
    if not attributes & _SEPT_VE_DISABLE:
        raise mismatch("SEPT_VE_DISABLE in the TD's attributes", 1, 0)
    if unknown := attributes & ~_KNOWN:
        raise EvidenceRejected(f"the TD has attributes that are unknown here: {unknown:#x}")
    return "under debug" if attributes & _DEBUG else "closed"


def _check_log(evidence: TDXEvidence) -> str:
    """Step 11: what came along."""
    if evidence.events is None:
        return "none came along"
    registers = {
        number: (name, evidence.quote.octets(name)) for number, name in enumerate(_RTMRS, 1)
    }
    check_replay(evidence.events, registers, algorithm="SHA-384")
    return f"{len(evidence.events)} events"


def claims_of(evidence: TDXEvidence) -> dict[str, JSON]:
    """What quote and log say, as Trustee names it. Nothing of it is verified."""
    quote = evidence.quote
    attributes = quote.number("td_attributes")
    parts: dict[str, JSON] = {
        "header": header_values(quote),
        "body": {name: quote.octets(name).hex() for name in quote.fields},
    }
    if quote.version == 5:
        parts["type"], parts["size"] = quote.signed[48:50].hex(), quote.signed[50:54].hex()
    claims: dict[str, JSON] = {
        "quote": parts,
        "td_attributes": {
            "debug": bool(attributes & 1),
            **{name: bool(attributes & bit) for name, bit in _ATTRIBUTES.items()},
        },
        "report_data": quote.octets("report_data").hex(),
        "init_data": quote.octets("mr_config_id").hex(),
    }
    if evidence.events is not None:
        claims["uefi_event_logs"] = events_as_json(
            [one for one in evidence.events if 1 <= one.register <= len(_RTMRS)]  # others bind none
        )
    return claims


if TYPE_CHECKING:
    _verifier: Verifier[TDXEvidence] = TDXVerifier()
