# SPDX-License-Identifier: Apache-2.0
"""Whether the quote of a TPM is genuine, and for this handshake. No IO.

    verifier = TPMVerifier()
    evidence = verifier.parse(body)
    claims = verifier.verify(evidence, bound=bound, collateral={}, now=now, note=print)

1. *Form.* A TPM made it (magic), and it is a quote: a restricted key signs nothing that looks like
   one and was not made inside.
2. *Signature* of the key that came along: RSASSA or, on P-256, ECDSA with SHA-256; on P-384 with
   SHA-384.
3. *Registers.* The quote is of all 24 of the SHA-256 bank, and of no others, and its digest is that
   of the values that came along. There is no quote of a SHA-1 bank here.
4. *Event log.* A log that comes along gives registers 0 to 7 when it is replayed, and those with
   events of an agent; events of others are claims only where it gives those too. See `log`.
5. *Bound.* The nonce has 32 bytes, which are those of the report data, cut or padded with zeros.
   Register 8 was zero, and extended with the init data once, where there is some.

**Whose key it is, no step says.** Anybody has a key and signs what he likes with it: the key is a
claim, `trusted_aks`, and stands in each way to know a machine. Nothing of the evidence counts where
it is none that the operator trusts (`Claims.counts_if_measured`). He gets it by credential
activation (`enrol`), which proves that it is in a genuine TPM and does not leave it.

Not looked at: the qualified name of the key, and whether the clock went on: they are claims.

Spec: TCG TPM 2.0 Library 1.59, part 3, section 18.4 (TPM2_Quote); Trustee, TEE `tpm`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from imagers.errors import FormatError, UsageError
from imagers.evidence.ccel import MAX_LOG, Event, events_as_json, parse_event_log
from imagers.evidence.steps import step
from imagers.evidence.tpm.log import check_log
from imagers.evidence.tpm.quote import (
    BOOT_CHAIN,
    INIT_DATA_PCR,
    attest_values,
    check_bound_to,
    check_form,
    check_signature,
    check_values,
    parse_pcr_settings,
    parse_values,
    values_by_name,
)
from imagers.evidence.tpm.structures import (
    MAX_ATTEST,
    PCRS,
    Attest,
    Signature,
    parse_attest,
    parse_signature,
    spki_of,
)
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.model.evidence import Bound, Verifier
    from imagers.model.strict_json import JSON

__all__ = ["TPMEvidence", "TPMVerifier", "parse", "parse_file"]

_WHAT = "TPM evidence"
_MAX_JSON = 6 * 1024 * 1024  # a log in base64
_MAX_KEY = 1024
_RSA_BITS = range(2048, 4097)
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_NONCE_BYTES = 32
_KEY = "trusted_aks"  # the reference value of Trustee
_PREFIX = "tpm_pcr"

Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class TPMEvidence:
    """A quote, and what came along. Nothing of it is verified.

    Attributes:
        key: that is to have signed.
        ak_public: the same as reference values have it.
        values: of the registers.
        events: None: no log came along.
    """

    key: Key = field(repr=False)
    ak_public: str = field(repr=False)
    attest: Attest
    signature: Signature = field(repr=False)
    values: tuple[bytes, ...] = field(repr=False)
    events: tuple[Event, ...] | None = field(default=None, repr=False)


def parse(body: JSON) -> TPMEvidence:
    """The evidence in the JSON of the protocol.

        {"ak_public": base64, "tpm_quote": {"signature": base64, "message": base64,
         "pcrs": [hex]}, "event_log": base64 or null}

    Raises:
        FormatError: it is none.
    """
    view = View(body, what=_WHAT)
    key = _parse_key(view.bytes64("ak_public", max_size=_MAX_KEY))
    quote = view.object("tpm_quote")
    pcrs = quote.value.get("pcrs")
    error = quote.error(f"expected {PCRS} values of 32 bytes in hex", "pcrs")
    events = None
    if view.optional_text("event_log") is not None:
        events = parse_event_log(view.bytes64("event_log", max_size=MAX_LOG))
    return TPMEvidence(
        key=key,
        ak_public=view.text("ak_public"),
        attest=parse_attest(quote.bytes64("message", max_size=MAX_ATTEST)),
        signature=parse_signature(quote.bytes64("signature", max_size=MAX_ATTEST)),
        values=parse_values(pcrs if isinstance(pcrs, list) else (), error),
        events=events,
    )


def parse_file(data: bytes) -> TPMEvidence:
    """The evidence in a file: the protocol's JSON.

    Raises:
        FormatError: it is something else.
    """
    return parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))


def _parse_key(der: bytes) -> Key:
    what = "attestation key"
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("is no public key in DER", what=what) from None
    is_good = (isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)
    )
    if not is_good:
        raise FormatError("expected RSA of 2048 to 4096 bits, P-256 or P-384", what=what)
    assert isinstance(key, Key)
    if spki_of(key) != der:  # a key has one form, by which it is compared
        raise FormatError("is not written as DER has it", what=what)
    return key


@dataclass(frozen=True, slots=True)
class TPMVerifier:
    """Judges quotes of TPMs, by the steps of the module.

    Attributes:
        registers: that know a machine, beside its key.
    """

    registers: tuple[int, ...] = BOOT_CHAIN
    tee: ClassVar[str] = "tpm"

    @property
    def references(self) -> tuple[tuple[str, ...], ...]:
        """See `Verifier`."""
        return ((_KEY, *(f"{_PREFIX}{at:02}" for at in self.registers)),)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal: `{"pcrs": [0, 2, 4, 7, 11]}`.

        Raises:
            FormatError: something else stands there, or no registers.
            UsageError: roots: there are none for a key that the operator names.
        """
        settings.only("pcrs")
        if roots is not None:
            raise UsageError("the TEE 'tpm' takes no test roots: its keys are reference values")
        return cls(parse_pcr_settings(settings))

    def parse(self, body: JSON) -> TPMEvidence:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: TPMEvidence) -> tuple[str, ...]:
        """See `Verifier`: nothing."""
        del evidence
        return ()

    def verify(
        self,
        evidence: TPMEvidence,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
        """
        del collateral
        attest, values = evidence.attest, evidence.values
        with step("1, form"):
            check_form(attest)
        note("step 1, form: a quote")
        with step("2, signature"):
            told = check_signature(attest, evidence.signature, evidence.key)
        note(f"step 2, signature: {told}")
        with step("3, registers"):
            check_values(attest, values, evidence.signature.hash)
        note(f"step 3, registers: all {PCRS} of SHA-256")
        with step("4, event log"):
            told, log = _check_log(evidence)
        note(f"step 4, event log: {told}")
        with step("5, bound"):
            told = check_bound_to(bound, attest, values, size=_NONCE_BYTES)
        note(f"step 5, bound: {told}")
        key = evidence.ak_public
        others = [at for at in range(PCRS) if at not in self.registers]
        init_data, report_data = values[INIT_DATA_PCR].hex(), attest.extra_data.hex()
        return Claims(
            tee=self.tee,
            tee_class="cpu",
            maker="a TPM, if its key is one that you trust",
            measured=({_KEY: key} | values_by_name(values, _PREFIX, self.registers),),
            configured=values_by_name(values, _PREFIX, others),
            debug=False,
            report_data=report_data,
            init_data=init_data,
            values={
                "report_data": report_data,
                "init_data": init_data,
                "ak_public": key,
                **values_by_name(values, "pcr", range(PCRS)),
                **attest_values(attest),
                **log,
            },
            established_at=now,
            instance=sha256(key.encode()).hexdigest(),
            counts_if_measured=True,  # whoever has a key of his own chose all of it
        )


def _check_log(evidence: TPMEvidence) -> tuple[str, dict[str, JSON]]:
    """Step 4: what came along, and the claims of it."""
    if evidence.events is None:
        return "none came along", {}
    events = check_log(evidence.events, evidence.values)
    registers = ", ".join(map(str, sorted({one.register for one in events})))
    told = f"{len(events)} events, of PCR {registers}" if events else "no events"
    return told, {"uefi_event_logs": events_as_json(events)}


if TYPE_CHECKING:
    _verifier: Verifier[TPMEvidence] = TPMVerifier()
