# SPDX-License-Identifier: Apache-2.0
"""Whether this very machine was started with an init data document.

    check_own_init_data(attester, document.digest)

A guest asks that of its own hardware before it believes a document that its host handed over. A
report of SNP comes sealed from the processor, and values of a TPM from its device: no signature is
needed here. A quote of TDX comes from the host, and what it says is the host's word until a
verifier has seen it: there the kernel is asked, which asks the TDX module.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from imagers.errors import Unsupported
from imagers.evidence.init_data import FIELDS, digest_for
from imagers.evidence.plugins import load_verifier
from imagers.evidence.steps import mismatch
from imagers.model.evidence import ReportData

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.evidence import Attester

__all__ = ["check_own_init_data"]

_PCR = 8


def _of_report(attester: Attester) -> bytes:
    found: bytes = _parsed(attester).report.octets("host_data")
    return found


def _of_module(attester: Attester) -> bytes:
    from imagers.evidence.tdx.collect import TDXAttester

    if not isinstance(attester, TDXAttester):
        raise Unsupported(
            "whether the init data is that of this machine cannot be told by a quote, which the "
            "host gives: expected the TEE 'tdx' itself"
        )
    return attester.read_config_id()


def _of_registers(attester: Attester) -> bytes:
    found: bytes = _parsed(attester).values[_PCR]
    return found


def _parsed(attester: Attester) -> Any:
    evidence = attester.collect(ReportData(bytes(64)))
    return load_verifier(attester.tee).parse(evidence.body)


_OF: dict[str, Callable[[Attester], bytes]] = {
    "snp": _of_report,
    "tdx": _of_module,
    "tpm": _of_registers,
}
"""Where the machine of a TEE has it."""


def check_own_init_data(attester: Attester, digest: bytes) -> None:
    """Raise unless this machine was started with this document.

    Args:
        attester: of this machine.
        digest: of the document, as `InitData` has it.

    Raises:
        Unsupported: it cannot be told for this TEE.
        EvidenceRejected: it was started with another one, or with none.
        As `Attester.collect`.
    """
    if attester.tee not in _OF:
        raise Unsupported(
            f"whether the init data is that of this machine cannot be told for the TEE "
            f"{attester.tee!r}: expected one of {', '.join(_OF)}"
        )
    found = _OF[attester.tee](attester)
    expected = digest_for(attester.tee, digest)
    if not compare_digest(expected, found):
        field, _ = FIELDS[attester.tee]
        raise mismatch(
            f"init data: {field} of this machine",
            expected.hex(),
            found.hex(),
            hint="the document is not the one that this machine was started with",
        )
