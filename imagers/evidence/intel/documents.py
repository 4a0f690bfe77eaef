# SPDX-License-Identifier: Apache-2.0
"""TCB info and QE identity: what Intel says of versions of firmware, under its signature.

    {"tcbInfo":{...},"signature":"hex, r and s"}         version 3, of SGX and of TDX
    {"enclaveIdentity":{...},"signature":"..."}          version 2, of QE and of TD_QE

The signature is over the text of the inner object as it stands there. Both list levels, the newest
first: the first that a machine reaches in all parts is its status.

A document is cached by its bytes once its signature was verified. Dates are looked at each time.

Spec: Intel PCS API version 4, TCB Info V3 and Enclave Identity V2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.intel.certificates import is_signed, key_of
from imagers.evidence.steps import FETCH_NEWEST
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from imagers.evidence.intel.certificates import Issued

__all__ = [
    "STATUSES",
    "EnclaveLevel",
    "Identity",
    "Level",
    "Module",
    "Period",
    "TCBInfo",
    "read_identity",
    "read_tcb_info",
]

STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)
_MAX_BYTES = 256 * 1024
_MAX_LEVELS = 256
_MAX_ADVISORIES = 256
_CACHED = 256
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_SIGNED = {
    name: re.compile(
        rb'\s*\{\s*"%s"\s*:\s*(\{.*\})\s*,\s*"signature"\s*:\s*"([0-9A-Fa-f]{128})"\s*\}\s*'
        % name.encode(),
        re.DOTALL,
    )
    for name in ("tcbInfo", "enclaveIdentity")
}
_COMPONENTS = 16


@dataclass(frozen=True, slots=True)
class Period:
    """When a document counts.

    Attributes:
        evaluation: number of Intel's evaluation that it rests on; grows.
    """

    what: str
    begin: datetime
    end: datetime
    evaluation: int

    def check(self, now: datetime) -> None:
        """Raise unless it counts now.

        Raises:
            CouldNotVerify: it does not.
        """
        if not self.begin <= now <= self.end:
            raise CouldNotVerify(
                f"the {self.what} is not valid at {now:%Y-%m-%dT%H:%M:%SZ}: expected "
                f"{self.begin:%Y-%m-%dT%H:%M:%SZ} to {self.end:%Y-%m-%dT%H:%M:%SZ}",
                hint=FETCH_NEWEST,
            )


@dataclass(frozen=True, slots=True)
class Level:
    """A state of a machine's firmware.

    Attributes:
        sgx, tdx: least versions of the components; `tdx` is empty in TCB info of SGX.
    """

    sgx: tuple[int, ...]
    pce_svn: int
    tdx: tuple[int, ...]
    status: str
    date: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnclaveLevel:
    """A state of an enclave or of the TDX module: from which version on."""

    isv_svn: int
    status: str
    date: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """Who signed the TDX module, and its states."""

    signer: bytes
    attributes: bytes
    mask: bytes
    levels: tuple[EnclaveLevel, ...]


@dataclass(frozen=True, slots=True)
class TCBInfo:
    """What Intel says of a kind of machine.

    Attributes:
        module: the TDX module of version 0; None in TCB info of SGX.
        modules: those of other versions, by `TDX_` and the version in two hex digits.
    """

    period: Period
    fmspc: bytes
    pce_id: bytes
    levels: tuple[Level, ...]
    module: Module | None
    modules: dict[str, Module] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """What Intel says of its quoting enclave."""

    period: Period
    misc_select: bytes
    misc_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    signer: bytes
    product: int
    levels: tuple[EnclaveLevel, ...]


def _signed_object(data: bytes, member: str, signer: Issued, what: str) -> View:
    """The object that Intel signed, once its signature was verified."""
    if len(data) > _MAX_BYTES:
        raise FormatError(f"expected at most {_MAX_BYTES} bytes, got {len(data)}", what=what)
    found = _SIGNED[member].fullmatch(data)
    if found is None:
        raise FormatError(f"expected an object of '{member}' and 'signature'", what=what)
    if not is_signed(bytes.fromhex(found[2].decode()), key_of(signer.certificate, what), found[1]):
        raise EvidenceRejected(f"the signature of the {what} is not by Intel's key over its text")
    return View.parse(found[1], what=what, max_bytes=_MAX_BYTES)


@lru_cache(_CACHED)
def read_tcb_info(data: bytes, signer: Issued, tee: Literal["tdx", "sgx"]) -> TCBInfo:
    """TCB info of this signer. Dates are not looked at.

    Raises:
        EvidenceRejected: it is not.
        FormatError: it is none of this TEE.
    """
    what = f"TCB info of {tee.upper()}"
    view = _signed_object(data, "tcbInfo", signer, what)
    _expect(view, "id", tee.upper())
    _expect(view, "version", 3)
    _expect(view, "tcbType", 0)
    is_tdx = tee == "tdx"
    module, modules = None, {}
    if is_tdx:
        module = _module(view.object("tdxModule"), ())
        for one in view.objects("tdxModuleIdentities", most=_MAX_LEVELS, null_is_empty=True):
            name = one.text("id").upper()
            if name in modules:
                raise one.error(f"expected one module {name[:40]!r}, got two", "id")
            modules[name] = _module(one, _enclave_levels(one))
    return TCBInfo(
        period=_period(view, what),
        fmspc=view.hex("fmspc", size=6),
        pce_id=view.hex("pceId", size=2),
        levels=tuple(
            _level(one, is_tdx=is_tdx)
            for one in view.objects("tcbLevels", most=_MAX_LEVELS, non_empty=True)
        ),
        module=module,
        modules=modules,
    )


@lru_cache(_CACHED)
def read_identity(data: bytes, signer: Issued, tee: Literal["tdx", "sgx"]) -> Identity:
    """A QE identity of this signer. Dates are not looked at.

    Raises:
        EvidenceRejected: it is not.
        FormatError: it is none of this TEE.
    """
    what = f"QE identity of {tee.upper()}"
    view = _signed_object(data, "enclaveIdentity", signer, what)
    _expect(view, "id", "TD_QE" if tee == "tdx" else "QE")
    _expect(view, "version", 2)
    return Identity(
        period=_period(view, what),
        misc_select=view.hex("miscselect", size=4),
        misc_mask=view.hex("miscselectMask", size=4),
        attributes=view.hex("attributes", size=16),
        attributes_mask=view.hex("attributesMask", size=16),
        signer=view.hex("mrsigner", size=32),
        product=view.integer("isvprodid", maximum=65535),
        levels=_enclave_levels(view),
    )


def _expect(view: View, name: str, value: str | int) -> None:
    found = view.text(name) if isinstance(value, str) else view.integer(name)
    if found != value:
        raise view.error(f"expected {value!r}, got {str(found)[:40]!r}", name)


def _period(view: View, what: str) -> Period:
    begin, end = (_time(view, name) for name in ("issueDate", "nextUpdate"))
    return Period(what, begin, end, view.integer("tcbEvaluationDataNumber", maximum=2**31 - 1))


def _time(view: View, name: str) -> datetime:
    text = view.text(name)
    try:
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise view.error(f"expected a time such as 2026-01-31T00:00:00Z, got {text[:40]!r}", name)


def _status(view: View) -> tuple[str, str, tuple[str, ...]]:
    status, date = view.text("tcbStatus"), view.text("tcbDate")
    if status not in STATUSES:
        raise view.error(f"expected one of {', '.join(STATUSES)}, got {status[:40]!r}", "tcbStatus")
    _time(view, "tcbDate")
    return status, date, view.texts("advisoryIDs", most=_MAX_ADVISORIES, null_is_empty=True)


def _level(view: View, *, is_tdx: bool) -> Level:
    tcb = view.object("tcb")
    return Level(
        _components(tcb, "sgxtcbcomponents"),
        tcb.integer("pcesvn", maximum=65535),
        _components(tcb, "tdxtcbcomponents") if is_tdx else (),
        *_status(view),
    )


def _components(tcb: View, name: str) -> tuple[int, ...]:
    found = tcb.objects(name, most=_COMPONENTS)
    if len(found) != _COMPONENTS:
        raise tcb.error(f"expected {_COMPONENTS} components, got {len(found)}", name)
    # One above 255 is what no machine reaches; Intel's own samples have such.
    return tuple(one.integer("svn", maximum=65535) for one in found)


def _enclave_levels(view: View) -> tuple[EnclaveLevel, ...]:
    return tuple(
        EnclaveLevel(one.object("tcb").integer("isvsvn", maximum=65535), *_status(one))
        for one in view.objects("tcbLevels", most=_MAX_LEVELS, non_empty=True)
    )


def _module(view: View, levels: tuple[EnclaveLevel, ...]) -> Module:
    return Module(
        view.hex("mrsigner", size=48),
        view.hex("attributes", size=8),
        view.hex("attributesMask", size=8),
        levels,
    )
