# SPDX-License-Identifier: Apache-2.0
"""Whether a quote of Intel SGX (DCAP) is genuine, for this handshake, of a closed enclave. No IO.

    verifier = SGXVerifier()
    evidence = verifier.parse(body)
    collateral = {name: read(name) for name in verifier.wanted(evidence)}
    claims = verifier.verify(evidence, bound=bound, collateral=collateral, now=now, note=print)

1 to 9. As `imagers.evidence.intel.engine` has them: chain, revocation, TCB info, QE identity, QE
   report, attestation key, quoting enclave, signature, TCB.
10. *Enclave.* Initialised; no debugging, unless allowed; no attribute that is unknown here, and
   nothing in reserved fields.
11. *Bound.* Report data, and init data in CONFIGID, are the expected ones, padded with zeros.

An enclave is known by its MRENCLAVE, or by who signed it (MRSIGNER), which product of his it is and
in which version. That it is *somebody's own* is for reference values to say.

Spec: Intel SDM volume 3D, sections 34.7 (ATTRIBUTES, MISCSELECT) and 34.16 (REPORT).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import EvidenceRejected
from imagers.evidence.intel.claims import header_values, instance_of, tcb_values
from imagers.evidence.intel.engine import establish, root_of, wanted
from imagers.evidence.intel.quote import MAX_QUOTE, SGX, Quote, parse_quote
from imagers.evidence.steps import check_bound, is_crl_optional, mismatch, step
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.model.evidence import Bound, Verifier
    from imagers.model.strict_json import JSON

__all__ = ["Allowed", "SGXVerifier", "parse", "parse_file"]

_WHAT = "SGX evidence"
_MAX_JSON = 128 * 1024
_INIT, _DEBUG = 1 << 0, 1 << 1
# INIT, DEBUG, MODE64BIT, PROVISIONKEY, EINITTOKENKEY, CET, KSS, AEXNOTIFY
_KNOWN = sum(1 << bit for bit in (0, 1, 2, 4, 5, 6, 7, 10))
_RESERVED = ("reserved1", "reserved2", "reserved3", "reserved4")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is not refused although it makes an enclave weaker.

    Attributes:
        without_crl: no lists of revoked certificates are needed; those that are there count.
    """

    debug: bool = False
    without_crl: bool = False

    @classmethod
    def parse(cls, settings: View) -> Self:
        """From the settings of an appraisal.

            {"debug": true, "crl": "optional"}

        Raises:
            FormatError: it has another member, or one has no such value.
        """
        settings.only("debug", "crl")
        return cls(debug=settings.flag("debug"), without_crl=is_crl_optional(settings))


def parse(body: JSON) -> Quote:
    """The evidence in the JSON of the protocol.

        {"quote": "base64"}

    Raises:
        FormatError: it is none.
    """
    return parse_quote(View(body, what=_WHAT).bytes64("quote", max_size=MAX_QUOTE), tee=SGX)


def parse_file(data: bytes) -> Quote:
    """The evidence in a file: a quote as the enclave gets it, or the protocol's JSON.

    Raises:
        FormatError: it is neither.
    """
    if data.lstrip()[:1] == b"{":
        return parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))
    return parse_quote(data, tee=SGX)


@dataclass(frozen=True, slots=True)
class SGXVerifier:
    """Judges quotes of Intel SGX, by the steps of the module.

    Attributes:
        roots: one certificate in PEM, in place of Intel's root: for tests only.
    """

    allowed: Allowed = field(default_factory=Allowed)
    roots: bytes | None = None
    tee: ClassVar[str] = "sgx"
    references: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("sgx_mr_enclave",),
        ("sgx_mr_signer", "sgx_isv_prod_id", "sgx_isv_svn"),
    )

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal; see `Allowed.parse`."""
        root_of(roots)  # a faulty file is told at the start
        return cls(Allowed.parse(settings), roots)

    def parse(self, body: JSON) -> Quote:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: Quote) -> tuple[str, ...]:
        """See `Verifier`."""
        return wanted(evidence, "sgx")

    def verify(
        self,
        evidence: Quote,
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
        established = establish(
            evidence,
            tee="sgx",
            collateral=collateral,
            root=root_of(self.roots),
            without_crl=self.allowed.without_crl,
            now=now,
            note=note,
        )
        with step("10, enclave"):
            told = _check_enclave(evidence, self.allowed)
        note(f"step 10, enclave: {told}")
        with step("11, bound"):
            told = check_bound(
                bound,
                report_data=evidence.octets("report_data"),
                init_data=evidence.octets("config_id"),
                field="config_id",
            )
        note(f"step 11, bound: {told}")
        return Claims(
            tee=self.tee,
            tee_class="cpu",
            maker=f"Intel, PCK below the {established.pck.ca.capitalize()} CA",
            measured=(
                {"sgx_mr_enclave": evidence.octets("mr_enclave").hex()},
                {
                    "sgx_mr_signer": evidence.octets("mr_signer").hex(),
                    "sgx_isv_prod_id": evidence.number("isv_prod_id"),
                    "sgx_isv_svn": evidence.number("isv_svn"),
                },
            ),
            configured={
                "sgx_attributes": evidence.octets("attributes.flags").hex(),
                "sgx_xfrm": evidence.octets("attributes.xfrm").hex(),
                "sgx_misc_select": evidence.octets("misc_select").hex(),
                "sgx_config_id": evidence.octets("config_id").hex(),
                "sgx_config_svn": evidence.number("config_svn"),
                "sgx_isv_family_id": evidence.octets("isv_family_id").hex(),
                "sgx_isv_ext_prod_id": evidence.octets("isv_ext_prod_id").hex(),
            },
            tcb_status=established.status,
            advisories=established.advisories,
            debug=bool(evidence.number("attributes.flags") & _DEBUG),
            report_data=evidence.octets("report_data").hex(),
            init_data=evidence.octets("config_id").hex(),
            values=claims_of(evidence) | tcb_values(established),
            collateral=established.collateral,
            established_at=now,
            instance=instance_of(established),
            test_root=self.roots is not None,
        )


def _check_enclave(quote: Quote, rules: Allowed) -> str:
    """Step 10: what it is."""
    flags = quote.number("attributes.flags")
    if not flags & _INIT:
        raise mismatch("INIT in the enclave's attributes", 1, 0)
    if flags & _DEBUG and not rules.debug:
        raise mismatch("debugging", "forbidden by the enclave's attributes", "allowed")
    if unknown := flags & ~_KNOWN:
        raise EvidenceRejected(f"the enclave has attributes that are unknown here: {unknown:#x}")
    for name in _RESERVED:
        if any(quote.octets(name)):
            raise mismatch(f"{name} of the report", "zeros", quote.octets(name).hex())
    return "under debug" if flags & _DEBUG else "closed"


def claims_of(quote: Quote) -> dict[str, JSON]:
    """What a quote says, as Trustee names it. Nothing of it is verified."""
    header = header_values(quote)
    reserved = quote.header("reserved")
    if quote.version == 3:  # where later ones have the TEE, and nothing
        header["att_key_data_0"] = header.pop("tee_type")
        header["qe_svn"], header["pce_svn"] = reserved[:2].hex(), reserved[2:].hex()
        del header["reserved"]
    return {
        "header": header,
        "body": {name: quote.octets(name).hex() for name in quote.fields},
        "report_data": quote.octets("report_data").hex(),
        "init_data": quote.octets("config_id").hex(),
    }


if TYPE_CHECKING:
    _verifier: Verifier[Quote] = SGXVerifier()
