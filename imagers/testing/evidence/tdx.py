# SPDX-License-Identifier: Apache-2.0
"""Intel TDX for tests: quotes of version 4 and 5, with the event log that leads to their registers.

    world = TDXWorld(seed)
    body = world.evidence(measurement=mr_td, report_data=digest)
    body = world.evidence(version=5, kind=3, td_attributes=1)    # debugging, signed so

What else there is, and what is the same each time, is in `intel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from imagers.model.base64 import encode_base64
from imagers.model.strict_json import View
from imagers.testing.evidence.eventlog import BOOT, event_log, replay
from imagers.testing.evidence.intel import IntelWorld, filled
from imagers.testing.evidence.keys import octets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Literal

    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.eventlog import Event
    from imagers.testing.evidence.guests import World
    from imagers.testing.evidence.intel import Field, Layout
    from imagers.testing.evidence.wrongs.wrong import Wrong

__all__ = ["TDXWorld"]

_TEE_TYPE = 0x81
_SEPT_VE_DISABLE = 1 << 28
_XFAM = 0x602E7
_BODY_10: Layout = {
    "tcb_svn": (0, 16),
    "mr_seam": (16, 48),
    "mrsigner_seam": (64, 48),
    "seam_attributes": (112, 8),
    "td_attributes": (120, 8),
    "xfam": (128, 8),
    "mr_td": (136, 48),
    "mr_config_id": (184, 48),
    "mr_owner": (232, 48),
    "mr_owner_config": (280, 48),
    "rtmr_0": (328, 48),
    "rtmr_1": (376, 48),
    "rtmr_2": (424, 48),
    "rtmr_3": (472, 48),
    "report_data": (520, 64),
}
_BODY_15: Layout = {**_BODY_10, "tee_tcb_svn2": (584, 16), "mr_servicetd": (600, 48)}
_BODIES = {2: (_BODY_10, 584), 3: (_BODY_15, 648)}
_MODULE_SIGNER: Mapping[str, JSON] = {
    "mrsigner": "00" * 48,
    "attributes": "00" * 8,
    "attributesMask": "FF" * 8,
}


class TDXWorld(IntelWorld):
    """Intel, and one machine that runs trust domains.

    Attributes:
        tcb_svn: versions of the TDX module: its own, which module, and its microcode.
        measurement: MRTD.
    """

    tee: ClassVar[Literal["sgx", "tdx"]] = "tdx"
    qe_product: ClassVar[int] = 2
    qe_svn: ClassVar[int] = 4
    tcb_svn: ClassVar[bytes] = bytes((5, 1, 2, *(0,) * 13))
    _qe_id: ClassVar[str] = "TD_QE"
    _measurement_bytes: ClassVar[int] = 48

    def levels(self, status: str, advisories: tuple[str, ...]) -> list[JSON]:
        """See `IntelWorld`; of the module's version speaks its own identity."""
        least = (self.tcb_svn[0], 0, *self.tcb_svn[2:])
        older = (self.tcb_svn[0] - 1, 0, *(max(0, one - 1) for one in self.tcb_svn[2:]))
        return [
            self.level(status, advisories=advisories, tdx=least),
            self.level("OutOfDate", below=1, advisories=("INTEL-SA-00001",), tdx=older),
        ]

    def _modules(self) -> dict[str, JSON]:
        return {"tdxModule": {**_MODULE_SIGNER}, "tdxModuleIdentities": [self.module("UpToDate")]}

    def module(self, status: str) -> dict[str, JSON]:
        """What TCB info says of the TDX module of the machine: its identity."""
        current, older = self.tcb_svn[0], self.tcb_svn[0] - 1
        levels: list[JSON] = [
            {"tcb": {"isvsvn": svn}, "tcbDate": "2026-03-11T00:00:00Z", "tcbStatus": word}
            for svn, word in ((current, status), (older, "OutOfDate"))
        ]
        return {"id": f"TDX_{self.tcb_svn[1]:02X}", **_MODULE_SIGNER, "tcbLevels": levels}

    def layout(self, kind: int) -> tuple[Layout, int]:
        """The fields of a kind of body, 2 or 3: offset and length; and its size."""
        return _BODIES[kind]

    def wrongs(self, *, version: int = 5) -> Iterator[Wrong]:
        """Evidence with one thing wrong, for each thing.

        Args:
            version: of the quotes: 4, or 5 with a body of TDX 1.5.
        """
        from imagers.testing.evidence.wrongs.intel import wrongs

        return wrongs(self, version)

    def quote(
        self,
        *,
        version: int = 4,
        kind: int = 2,
        events: Sequence[Event] = BOOT,
        header: Mapping[str, Field] | None = None,
        sealed: Mapping[str, Any] | None = None,
        **fields: Field,
    ) -> bytes:
        """A good quote with these fields changed, and then signed.

        Args:
            version: 4 or 5.
            kind: of the body, in version 5: 2 of TDX 1.0, 3 of TDX 1.5.
            events: that the registers are of.
            header: fields of it: `tee_type`, `vendor_id`, `user_data` and others.
            sealed: what vouches for the signature, in place of the right things: `key`, `qe`,
                `qe_key`, `qe_data`, `chain` of `IntelWorld`.
            fields: of the body: numbers, or bytes, with zeros added.

        Raises:
            TypeError, ValueError, OverflowError: there is no such field, or a value does not fit.
        """
        registers = {f"rtmr_{at}": value for at, value in enumerate(replay(events))}
        values: dict[str, Field] = {
            "tcb_svn": self.tcb_svn,
            "mr_seam": octets(self._seed, "Intel TDX module", 48),
            "td_attributes": _SEPT_VE_DISABLE,
            "xfam": _XFAM,
            "mr_td": self.measurement,
            **registers,
        }
        if version == 5 and kind == 3:
            values["tee_tcb_svn2"] = self.tcb_svn
        layout, size = _BODIES[kind if version == 5 else 2]
        body = filled(layout, size, values | fields)
        if version == 5:
            body = kind.to_bytes(2, "little") + size.to_bytes(4, "little") + body
        told = {"version": version, "tee_type": _TEE_TYPE, **(header or {})}
        return self._sealed(told, body, is_nested=True, **(sealed or {}))

    def evidence(
        self,
        *,
        measurement: bytes | None = None,
        report_data: bytes = b"",
        init_data: bytes = b"",
        events: Sequence[Event] | None = BOOT,
        **fields: Any,
    ) -> dict[str, JSON]:
        """Good evidence in the JSON of the protocol: a fresh quote, and the event log.

        Args:
            measurement: MRTD; None: the world's.
            init_data: digest of the init data, for MRCONFIGID.
            events: None: those of the quote are `BOOT`, and no log is sent.
            fields: as in `quote`.
        """
        told: dict[str, Any] = {
            "events": BOOT if events is None else events,
            "mr_td": measurement or self.measurement,
            "report_data": report_data,
            "mr_config_id": init_data,
        }
        quote = self.quote(**{**told, **fields})
        log = None if events is None else encode_base64(event_log(events))
        return {"quote": encode_base64(quote), "cc_eventlog": log}

    def raw_files(self, evidence: JSON) -> dict[str, bytes]:
        """Evidence as the kernel gives it: the quote, and the event log."""
        view = View(evidence, what="TDX evidence")
        files = {"quote.bin": view.bytes64("quote")}
        if view.optional_text("cc_eventlog") is not None:
            files["ccel.bin"] = view.bytes64("cc_eventlog")
        return files


if TYPE_CHECKING:
    _world: World = TDXWorld(bytes(32))
