# SPDX-License-Identifier: Apache-2.0
"""Claims by Trustee's names, as claims here: what its verifier said of a machine, to be appraised.

    claims = claims_from_trustee("snp", evidence, established_at=issued)

    snp   measurement, reported_tcb_*, policy_*, platform_*
    tdx   quote.body.*, tcb_status, collateral_expiration_status

A claim that Trustee does not name equals no reference value. What a verifier here refuses by
default, and Trustee lets pass, is refused: debugging, migration, collateral that is out of date.
That the evidence is genuine is the word of who says it.

No IO and no clock here.

Spec: Trustee at 78962cd, deps/verifier/src/snp and deps/verifier/src/intel_dcap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagers.errors import EvidenceRejected, Unsupported
from imagers.evidence.steps import mismatch
from imagers.evidence.tdx.verify import Allowed, check_attributes
from imagers.model.evidence import Claims

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from imagers.model.strict_json import JSON, View

__all__ = ["claims_from_trustee"]

_BYTE = 255
_MAKER = "as another verifier says"


def claims_from_trustee(tee: str, evidence: View, *, established_at: datetime) -> Claims:
    """The claims that a verifier of Trustee's makes of evidence that is genuine.

    Args:
        evidence: the annotated evidence of a submod, in which the claims stand below the name
            of the TEE, and what it binds beside that.

    Raises:
        FormatError: a claim is missing, or of another kind.
        EvidenceRejected: a verifier here refuses such a machine.
        Unsupported: what Trustee says of this TEE is not known here.
    """
    if tee not in _READERS:
        raise Unsupported(
            f"claims of the TEE {tee[:40]!r} by Trustee's names: expected one of "
            f"{', '.join(_READERS)}"
        )
    return _READERS[tee](evidence, established_at)


def _snp(evidence: View, established_at: datetime) -> Claims:
    told = evidence.object("snp")
    _refuse_flag(told, "policy_debug_allowed", "debugging")
    _refuse_flag(told, "policy_migrate_ma", "migration")
    host_data = evidence.hex("init_data", size=32).hex()
    return Claims(
        tee="snp",
        tee_class="cpu",
        maker=_MAKER,
        measured=({"snp_launch_measurement": told.hex("measurement", size=48).hex()},),
        firmware={
            f"snp_{name}": told.integer(f"reported_tcb_{part}", maximum=_BYTE)
            for name, part in (
                ("bootloader", "bootloader"),
                ("microcode", "microcode"),
                ("snp_svn", "snp"),
                ("tee_svn", "tee"),
            )
        },
        configured={
            "snp_host_data": host_data,
            "snp_id_key_digest": "",
            "snp_author_key_digest": "",
            "snp_smt_enabled": _flag(told, "platform_smt_enabled"),
            "snp_tsme_enabled": _flag(told, "platform_tsme_enabled"),
            "snp_guest_abi_major": told.integer("policy_abi_major", maximum=_BYTE),
            "snp_guest_abi_minor": told.integer("policy_abi_minor", maximum=_BYTE),
            "snp_single_socket": _flag(told, "policy_single_socket"),
            "snp_smt_allowed": _flag(told, "policy_smt_allowed"),
        },
        debug=False,
        report_data=evidence.text("report_data"),
        init_data=host_data,
        values={},
        established_at=established_at,
    )


def _tdx(evidence: View, established_at: datetime) -> Claims:
    told = evidence.object("tdx")
    body = told.object("quote").object("body")
    attributes = int.from_bytes(body.hex("td_attributes", size=8), "little")
    check_attributes(attributes, Allowed())
    expired = told.text("collateral_expiration_status")
    if expired != "0":
        raise mismatch("collateral_expiration_status", "'0'", repr(expired[:40]))

    def register(name: str, size: int = 48) -> JSON:
        return body.hex(name, size=size).hex()

    configured: Mapping[str, JSON] = {
        "xfam": register("xfam", 8),
        "rtmr_0": register("rtmr_0"),
        "rtmr_3": register("rtmr_3"),
        "mr_config_id": register("mr_config_id"),
        "mr_owner": register("mr_owner"),
        "mr_owner_config": register("mr_owner_config"),
        # Quotes of TDX 1.0 have none.
        "mr_servicetd": register("mr_servicetd") if "mr_servicetd" in body else "",
    }
    return Claims(
        tee="tdx",
        tee_class="cpu",
        maker=_MAKER,
        measured=({name: register(name) for name in ("mr_td", "rtmr_1", "rtmr_2")},),
        firmware={"mr_seam": register("mr_seam")},
        configured=configured,
        tcb_status=_non_empty(told, "tcb_status"),
        advisories=told.texts("advisory_ids", null_is_empty=True),
        debug=False,
        report_data=body.hex("report_data", size=64).hex(),
        init_data=body.hex("mr_config_id", size=48).hex(),
        values={},
        established_at=established_at,
    )


def _flag(told: View, name: str) -> bool:
    """A boolean that has to be there: one that is absent is no `false`."""
    if not isinstance(told.value.get(name), bool):
        raise told.error("expected true or false", name)
    return told.flag(name)


def _refuse_flag(told: View, name: str, what: str) -> None:
    if _flag(told, name):
        raise EvidenceRejected(f"{what}: expected forbidden by the guest's policy, got allowed")


def _non_empty(told: View, name: str) -> str:
    # An empty status is one of a TEE that has none, and is not compared.
    if not (text := told.text(name)):
        raise told.error("expected a status", name)
    return text


_READERS: Mapping[str, Callable[[View, datetime], Claims]] = {"snp": _snp, "tdx": _tdx}
