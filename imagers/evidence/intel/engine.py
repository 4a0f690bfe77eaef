# SPDX-License-Identifier: Apache-2.0
"""Whether a quote of TDX or SGX is genuine: the steps that both have. No IO.

    established = establish(quote, tee="tdx", collateral=collateral, root=root, now=now, note=print)

1. *Chain.* The certificate of the machine's key (PCK) is signed by Intel's Platform or Processor
   CA, and that one by the root; all three are valid now.
2. *Revocation.* The root's list and that CA's are signed by them and valid now; neither the CA nor
   the PCK is in them. Without a list nobody could look.
3. *TCB info.* Signed, over its exact text, by a TCB Signing certificate of the root that is valid
   and not revoked; valid now; of this kind of machine (FMSPC, PCE id).
4. *QE identity.* The same.
5. *QE report.* Signed with the PCK: the quoting enclave (QE) ran on this machine.
6. *Attestation key.* Report data of the QE is the SHA-256 of the key and its authentication data.
7. *Quoting enclave.* It is Intel's: signer, product, and miscselect and attributes under their
   masks, as the identity says. No version of it that is known is too low.
8. *Signature* of the quote, with the attestation key over header and body.
9. *TCB.* The first level that the machine reaches in every component, and in TDX the identity of
   its module. Revoked, and no level at all, are refused. Every other status is a claim: the worst
   of machine, module and QE, by the rules of Intel's library. A TD of TDX 1.5 that was started
   below a module which has been updated since is `TDRelaunchAdvised`.

Everything but the padding of the quote is looked at: parts outside of the signatures are compared
with the one form that they can have (see `quote` and `certificates`).

Chains, lists and documents are cached by their bytes; dates and serial numbers are looked at each
time. One verification takes 0.4 ms then, with what is read of the quote, 1 ms where the machine is
new, and 3 ms where the documents are: that is how long the interpreter's lock is held at most, so
no process of its own is needed.

Spec: Intel SGX-TDX DCAP Quote Verification Library, section 4.1.2.4; Intel TDX DCAP: Appraisal of
TD relaunch; docs/adr/0056 says why this is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from operator import ge
from typing import TYPE_CHECKING, Literal

from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import CouldNotVerify, EvidenceRejected
from imagers.evidence.intel.certificates import (
    Issued,
    built_in_root,
    is_signed,
    parse_pck,
    read_crl,
    read_signer,
    verified_pck,
)
from imagers.evidence.intel.collateral import (
    ROOT_CRL,
    chain_name,
    crl_name,
    identity_name,
    names,
    tcb_info_name,
)
from imagers.evidence.intel.documents import read_identity, read_tcb_info
from imagers.evidence.intel.quote import SGX_BODY
from imagers.evidence.steps import mismatch, step
from imagers.pki.chain import parse_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from cryptography import x509

    from imagers.evidence.intel.certificates import CRL, PCK
    from imagers.evidence.intel.documents import (
        EnclaveLevel,
        Identity,
        Level,
        Module,
        Period,
        TCBInfo,
    )
    from imagers.evidence.intel.quote import Quote

__all__ = ["Established", "establish", "judge_tcb", "root_of", "wanted"]

_FETCH = "'imagers attest collateral fetch' asks Intel for it"
_P256 = ec.SECP256R1()
_GOOD = ("UpToDate", "SWHardeningNeeded")
_TO_CONFIGURE = ("ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
_TDX_15 = 3


@dataclass(frozen=True, slots=True)
class Established:
    """What the steps established of the machine.

    Attributes:
        root: that the chains lead to.
        status: Intel's word; `date`: that of the level.
        collateral: as `Claims.collateral`.
        crls: number of the PCK's list and of the root's; None: not checked.
        begins, ends: when the documents were issued, and when they have to be renewed.
        evaluation: the lower number of TCB info and QE identity.
    """

    pck: PCK = field(repr=False)
    root: x509.Certificate = field(repr=False)
    status: str
    date: str
    advisories: tuple[str, ...]
    collateral: Mapping[str, int]
    crls: tuple[int | None, int | None] | None
    begins: tuple[datetime, ...]
    ends: tuple[datetime, ...]
    evaluation: int


def root_of(pem: bytes | None) -> x509.Certificate:
    """Intel's root, or the one for tests in its place."""
    return built_in_root() if pem is None else parse_root(pem, what="test root")


def wanted(quote: Quote, tee: Literal["tdx", "sgx"]) -> tuple[str, ...]:
    """The names of the documents that a quote needs.

    Raises:
        FormatError: its certificates do not say.
    """
    pck = parse_pck(quote.chain)
    return names(tee, pck.fmspc.hex(), pck.ca)


def establish(
    quote: Quote,
    *,
    tee: Literal["tdx", "sgx"],
    collateral: Mapping[str, bytes],
    root: x509.Certificate,
    without_crl: bool,
    now: datetime,
    note: Callable[[str], None],
) -> Established:
    """Steps 1 to 9.

    Args:
        without_crl: no lists of revoked certificates are needed; those that are there count.

    Raises:
        EvidenceRejected: a step says no.
        CouldNotVerify: a document is missing, or not valid now.
        FormatError: a document is none.
    """
    with step("1, chain"):
        pck = verified_pck(quote.chain, root)
        for one in (Issued.read(root), pck.issuer, pck.leaf):
            one.check_dates(now, EvidenceRejected)
    note(f"step 1, chain: PCK, valid to {pck.leaf.end:%Y-%m-%d}")
    documents = _Documents(collateral, root, now)
    with step("2, revocation"):
        root_crl, crl = documents.crls(pck, without_crl=without_crl)
        if root_crl is not None:
            root_crl.check(now, pck.issuer)
        if crl is not None:
            crl.check(now, pck.leaf)
    is_checked = root_crl is not None and crl is not None
    note(f"step 2, revocation: {'not revoked' if is_checked else 'not checked'}")
    with step("3, TCB info"):
        name = tcb_info_name(tee, pck.fmspc.hex())
        signer = documents.signer(name, root_crl)
        info = read_tcb_info(documents.get(name, "TCB info"), signer, tee)
        info.period.check(now)
        _check_machine(info, pck)
    note(f"step 3, TCB info: evaluation {info.period.evaluation}")
    with step("4, QE identity"):
        identity_at = identity_name(tee)
        signer = documents.signer(identity_at, root_crl)
        data = documents.get(identity_at, "QE identity")
        identity = read_identity(data, signer, tee)
        identity.period.check(now)
    note(f"step 4, QE identity: evaluation {identity.period.evaluation}")
    with step("5, QE report"):
        if not is_signed(quote.qe_signature, pck.key, quote.qe_report):
            raise EvidenceRejected("it is not signed with the key of this PCK")
    note("step 5, QE report: signed by the PCK")
    with step("6, attestation key"):
        _check_key(quote)
    note("step 6, attestation key: that of the QE")
    with step("7, quoting enclave"):
        qe_level = _check_enclave(quote.qe_report, identity)
    note(f"step 7, quoting enclave: {qe_level.status}")
    with step("8, signature"):
        _check_signature(quote)
    note("step 8, signature: good")
    with step("9, TCB"):
        level, status, advisories = judge_tcb(quote, pck, info, qe_level)
    note(f"step 9, TCB: {status}")
    periods = {name: info.period, identity_at: identity.period}
    lists = {
        name: one
        for name, one in ((ROOT_CRL, root_crl), (crl_name(pck.ca), crl))
        if one is not None
    }
    dated: tuple[Period | CRL | Issued, ...] = (
        *periods.values(),
        *lists.values(),
        pck.leaf,
        pck.issuer,
        Issued.read(root),
    )
    return Established(
        pck=pck,
        root=root,
        status=status,
        date=level.date,
        advisories=advisories,
        collateral=_numbers(periods, lists),
        crls=(crl.number, root_crl.number) if crl is not None and root_crl is not None else None,
        begins=tuple(one.begin for one in dated),
        ends=tuple(one.end for one in dated),
        evaluation=min(one.evaluation for one in periods.values()),
    )


class _Documents:
    """The collateral of one verification."""

    def __init__(
        self, collateral: Mapping[str, bytes], root: x509.Certificate, now: datetime
    ) -> None:
        self._collateral = collateral
        self._root = root
        self._now = now

    def get(self, name: str, what: str) -> bytes:
        """A document that has to be there."""
        found = self._collateral.get(name)
        if found is None:
            raise CouldNotVerify(f"there is no {what} ({name})", hint=_FETCH)
        return found

    def crls(self, pck: PCK, *, without_crl: bool) -> tuple[CRL | None, CRL | None]:
        """The lists of the root and of the issuer of the PCK."""
        found: list[CRL | None] = []
        for name, issuer in ((ROOT_CRL, self._root), (crl_name(pck.ca), pck.issuer.certificate)):
            what = "list of revoked certificates"
            if without_crl and name not in self._collateral:
                found.append(None)
            else:
                found.append(read_crl(self.get(name, what), issuer, f"{what} {name}"))
        return found[0], found[1]

    def signer(self, document: str, root_crl: CRL | None) -> Issued:
        """Who signed a document; its certificate is valid and not revoked."""
        name = chain_name(document)
        signer = read_signer(self.get(name, "chain of its signer"), self._root, name)
        signer.check_dates(self._now, CouldNotVerify)
        if root_crl is not None:
            root_crl.check(self._now, signer)
        return signer


def _check_machine(info: TCBInfo, pck: PCK) -> None:
    if info.fmspc != pck.fmspc:
        raise mismatch("FMSPC of the TCB info", pck.fmspc.hex(), info.fmspc.hex())
    if info.pce_id != pck.pce_id:
        raise mismatch("PCE id of the TCB info", pck.pce_id.hex(), info.pce_id.hex())


def _check_key(quote: Quote) -> None:
    """Step 6."""
    at, _ = SGX_BODY["report_data"]
    expected = sha256(quote.key + quote.qe_data).digest() + bytes(32)
    found = quote.qe_report[at:]
    if not compare_digest(found, expected):
        raise mismatch("report data of the QE", expected.hex(), found.hex())


def _check_enclave(report: bytes, identity: Identity) -> EnclaveLevel:
    """Step 7: the level of the quoting enclave."""

    def octets(name: str) -> bytes:
        at, size = SGX_BODY[name]
        return report[at : at + size]

    if octets("mr_signer") != identity.signer:
        raise mismatch("signer of the QE", identity.signer.hex(), octets("mr_signer").hex())
    product = int.from_bytes(octets("isv_prod_id"), "little")
    if product != identity.product:
        raise mismatch("product of the QE", identity.product, product)
    misc = octets("misc_select")  # in the identity too as it stands in memory
    if _masked(misc, identity.misc_mask) != identity.misc_select:
        raise mismatch("miscselect of the QE", identity.misc_select.hex(), misc.hex())
    attributes = octets("attributes.flags") + octets("attributes.xfrm")
    if _masked(attributes, identity.attributes_mask) != identity.attributes:
        raise mismatch("attributes of the QE", identity.attributes.hex(), attributes.hex())
    svn = int.from_bytes(octets("isv_svn"), "little")
    return _enclave_level("QE", identity.levels, svn)


def _masked(value: bytes, mask: bytes) -> bytes:
    return (int.from_bytes(value) & int.from_bytes(mask)).to_bytes(len(value))


def _enclave_level(what: str, levels: tuple[EnclaveLevel, ...], svn: int) -> EnclaveLevel:
    for level in levels:
        if svn >= level.isv_svn:
            if level.status == "Revoked":
                raise EvidenceRejected(f"version {svn} of the {what} is revoked by Intel")
            return level
    raise mismatch(f"version of the {what}", f"at least {levels[-1].isv_svn}", svn)


def _check_signature(quote: Quote) -> None:
    """Step 8."""
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(_P256, b"\x04" + quote.key)
    except ValueError:
        raise EvidenceRejected("the attestation key is no point of P-256") from None
    if not is_signed(quote.signature, key, quote.signed):
        raise EvidenceRejected("it is not by the attestation key over header and body")


def judge_tcb(
    quote: Quote, pck: PCK, info: TCBInfo, qe: EnclaveLevel
) -> tuple[Level, str, tuple[str, ...]]:
    """Step 9: the level that the machine reaches, the status of all, and their advisories.

    Raises:
        EvidenceRejected: it reaches none, or a revoked one, or its module is not Intel's.
    """
    reached = [
        one
        for one in info.levels
        if pck.pce_svn >= one.pce_svn and _is_at_least(pck.components, one.sgx)
    ]
    if not reached:
        raise EvidenceRejected("this version of the firmware reaches no level of the TCB info")
    if info.module is None:
        level, status, levels = reached[0], reached[0].status, [qe]
    else:
        level, status, levels = _judge_tdx(quote, info, reached, qe)
    if level.status == "Revoked" or reached[0].status == "Revoked":
        raise EvidenceRejected("this version of the firmware is revoked by Intel")
    if qe.status != "UpToDate":
        status = _out_of_date(status)
    advisories = [*level.advisories, *(each for one in levels for each in one.advisories)]
    return level, status, tuple(dict.fromkeys(advisories))


def _judge_tdx(
    quote: Quote, info: TCBInfo, reached: list[Level], qe: EnclaveLevel
) -> tuple[Level, str, list[EnclaveLevel]]:
    svn = quote.octets("tcb_svn")
    version = svn[1]
    module = _module_of(info, version)
    for claim, found, expected in (
        ("signer of the TDX module", quote.octets("mrsigner_seam"), module.signer),
        (
            "attributes of the TDX module",
            _masked(quote.octets("seam_attributes"), module.mask),
            module.attributes,
        ),
        ("attributes of the TDX module", quote.octets("seam_attributes"), bytes(8)),
    ):
        if found != expected:
            raise mismatch(claim, expected.hex(), found.hex())
    # From version 1 of the module on its first two components are in its identity.
    skipped = 2 if version else 0
    level = next((one for one in reached if _is_at_least(svn[skipped:], one.tdx[skipped:])), None)
    if level is None:
        raise EvidenceRejected("this version of the TDX module reaches no level of the TCB info")
    if not version:
        return level, level.status, [qe]
    state = _enclave_level("TDX module", module.levels, svn[0])
    if state.status == "UpToDate":
        return level, level.status, [state, qe]
    status = _out_of_date(level.status)
    if quote.kind == _TDX_15 and qe.status == "UpToDate":
        status = _relaunch(quote.octets("tee_tcb_svn2"), info, reached[0], status)
    return level, status, [state, qe]


def _module_of(info: TCBInfo, version: int) -> Module:
    if not version:
        assert info.module is not None  # TCB info of TDX
        return info.module
    name = f"TDX_{version:02X}"
    if name not in info.modules:
        known = ", ".join(info.modules) or "none"
        raise mismatch("identity of the TDX module", f"one of the TCB info ({known})", name)
    return info.modules[name]


def _relaunch(current: bytes, info: TCBInfo, machine: Level, status: str) -> str:
    """The status of a TD whose own module is out of date, where the one that runs now is not.

    Args:
        current: `tee_tcb_svn2`, the versions that run now.
        machine: the level that the machine reaches without TDX.
    """
    if machine.status not in (*_GOOD, *_TO_CONFIGURE):
        return status
    newest, least = info.levels[0].tdx, info.levels[0].tdx[0]
    if current[1]:
        least = _module_of(info, current[1]).levels[0].isv_svn
    if current[0] < least or current[2] < newest[2]:
        return status
    needs = status == "OutOfDateConfigurationNeeded" or machine.status in _TO_CONFIGURE
    return f"TDRelaunchAdvised{'ConfigurationNeeded' if needs else ''}"


def _is_at_least(found: Iterable[int], least: Iterable[int]) -> bool:
    return all(map(ge, found, least))


def _out_of_date(status: str) -> str:
    """The status of a machine of which a part is out of date."""
    if status in _GOOD:
        return "OutOfDate"
    return "OutOfDateConfigurationNeeded" if status in _TO_CONFIGURE else status


def _numbers(periods: Mapping[str, Period], lists: Mapping[str, CRL]) -> dict[str, int]:
    told: dict[str, int] = {}
    for name, period in periods.items():
        told[f"{name} evaluation"] = period.evaluation
        told[f"{name} time"] = int(period.begin.timestamp())
    for name, crl in lists.items():
        told[f"{name} time"] = int(crl.begin.timestamp())
        if crl.number is not None:
            told[f"{name} number"] = crl.number
    return told
