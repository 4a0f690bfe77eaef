# SPDX-License-Identifier: Apache-2.0
"""Whether a report of AMD SEV-SNP is genuine, for this handshake, of a closed guest. No IO.

    verifier = SNPVerifier()
    evidence = verifier.parse(body)
    collateral = {name: read(name) for name in verifier.wanted(evidence)}
    claims = verifier.verify(evidence, bound=bound, collateral=collateral, now=now, note=print)

1. *Product.* Milan, Genoa or Turin: what the report says of its processor (version 3 on), and what
   the certificate says; both, where both do.
2. *Chain.* The certificate is signed by AMD's ASK (of a chip, VCEK) or ASVK (of a provider, VLEK)
   of that product, that one and the ARK by the ARK, with the keys and the padding that AMD
   names. All three are valid now. Certificates of authorities that a guest sends are not used.
3. *Revocation.* The list for this kind of key (each product has one for VCEKs and one for VLEKs) is
   signed by the ARK, valid now, complete, and has neither the issuer of the certificate nor the ARK
   in it. Without a list nobody could look.
4. *Which key.* The report says that it was signed with a key of this kind (key_info), and a VCEK is
   of this chip, unless the host hides the chip's id.
5. *Version.* The certificate is for exactly the version of the firmware that the report gives.
   Committed and launch version are not above the current one, and the reported one is not above
   the committed one: the host cannot speak of a firmware that it may leave again.
6. *Signature*: ECDSA on P-384 with SHA-384 over the report.
7. *Guest.* VMPL 0; the reserved bit of its policy is set; no debugging and no migration agent,
   unless allowed; not older than the least version that is wanted.
8. *Bound.* Report data, and init data in host_data, are the expected ones, padded with zeros.

What was measured, `measurement` above all, is in the claims; that it is *somebody's own* guest
is for reference values to say: a genuine machine is anybody's who rents one.

Not looked at: whether the id block was signed by somebody in particular (its digests are claims).

Spec: AMD SEV-SNP Firmware ABI Specification (56860) 1.58, sections 3 and 7.3; VCEK Certificate and
KDS Interface Specification (57230) 1.00.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.snp.certificates import (
    Authority,
    Leaf,
    built_in,
    parse_authority,
    parse_leaf,
    vcek_name,
)
from imagers.evidence.snp.report import (
    MILAN,
    REPORT_BYTES,
    TCB,
    Product,
    Report,
    parse_report,
    report_of_json,
)
from imagers.evidence.snp.revocation import check_crl, crl_name, name_of_crl
from imagers.evidence.steps import check_bound, is_crl_optional, mismatch, step
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.model.evidence import Bound, Verifier
    from imagers.model.strict_json import JSON

__all__ = ["Allowed", "SNPEvidence", "SNPVerifier", "parse", "parse_file"]

_WHAT = "SNP evidence"
_MAX_CERTIFICATES = 8
_MAX_JSON = 256 * 1024
_ECDSA_P384 = 1
_VCEK, _VLEK = 0, 1
_MASK_CHIP_KEY = 1 << 1
_DEBUG = 1 << 19
_MIGRATION = 1 << 18
_RESERVED_ONE = 1 << 17
_MEASUREMENT = "snp_launch_measurement"  # the reference value of Trustee
_FETCH = "'imagers attest collateral fetch' asks AMD for it"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is not refused although it makes a guest weaker, and how old a firmware may be.

    Attributes:
        without_crl: no list of revoked certificates is needed; one that is there counts.
        minimum: the oldest firmware; None: any.
    """

    debug: bool = False
    migration_agent: bool = False
    without_crl: bool = False
    minimum: TCB | None = None

    @classmethod
    def parse(cls, settings: View) -> Self:
        """From the settings of an appraisal.

            {"debug": true, "migration_agent": true, "crl": "optional",
             "minimum_tcb": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}}

        Raises:
            FormatError: something else stands there.
        """
        settings.only("debug", "migration_agent", "crl", "minimum_tcb")
        minimum = settings.optional_object("minimum_tcb")
        if minimum is not None:
            minimum.only("fmc", "bootloader", "tee", "snp", "microcode")
        return cls(
            debug=settings.flag("debug"),
            migration_agent=settings.flag("migration_agent"),
            without_crl=is_crl_optional(settings),
            minimum=None if minimum is None else _parse_minimum(minimum),
        )


@dataclass(frozen=True, slots=True)
class SNPEvidence:
    """What a guest sent, read and not verified.

    Attributes:
        leaf: the certificate of the key that signed; None: it was not sent.
    """

    report: Report
    leaf: Leaf | None

    @property
    def is_vlek(self) -> bool:
        """Whether the key that signed is a provider's: by its certificate, else by the report."""
        if self.leaf is None:
            return _signing_key(self.report) == _VLEK
        return self.leaf.is_vlek

    @property
    def product(self) -> Product:
        """Step 1.

        Raises:
            EvidenceRejected: report and certificate are of different products.
            FormatError: neither says which one, or an unknown one.
        """
        told = self.report.product
        if self.report.number("version") >= 3 and told is None:
            family, model = (self.report.number(one) for one in ("cpuid_fam_id", "cpuid_mod_id"))
            raise FormatError(
                f"expected a processor Milan, Genoa or Turin, got family {family:#x} "
                f"model {model:#x}",
                what=_WHAT,
            )
        if self.leaf is None:
            if told is None:
                raise FormatError("a report of version 2 needs its certificate", what=_WHAT)
            return told
        named = self.leaf.made_for
        if told is not None and told is not named:
            with step("1, product"):
                raise mismatch("certificate", f"one for {told.name}", f"one for {named.name}")
        return named


def _parse_minimum(tcb: View) -> TCB:
    fmc = tcb.integer("fmc", maximum=255) if "fmc" in tcb else None
    names = ("bootloader", "tee", "snp", "microcode")
    return TCB(fmc, *(tcb.integer(name, maximum=255) for name in names))


def parse(body: JSON) -> SNPEvidence:
    """The evidence in the JSON of the protocol.

    Raises:
        FormatError: it is none.
    """
    view = View(body, what=_WHAT)
    report = report_of_json(view.value.get("attestation_report"), where="$.attestation_report")
    found: dict[str, View] = {}
    for one in view.objects("cert_chain", most=_MAX_CERTIFICATES, null_is_empty=True):
        kind = one.value.get("cert_type")
        if kind not in ("VCEK", "VLEK"):
            continue  # authorities are those that we have; a host adds what it likes, by a GUID
        if kind in found:
            raise view.error(f"expected one certificate {kind}, got several", "cert_chain")
        found[str(kind)] = one
    return SNPEvidence(report, _leaf_among(found, report))


def _leaf_among(found: dict[str, View], report: Report) -> Leaf | None:
    """The certificate of the key that signed; a host may send that of the other kind too."""
    if not found:
        return None
    signer = "VLEK" if _signing_key(report) == _VLEK else "VCEK"
    kind = signer if signer in found else next(iter(found))
    leaf = parse_leaf(found[kind].octets("data"), what=kind)
    if leaf.kind != kind:
        raise found[kind].error(f"expected a {kind}, got a {leaf.kind}", "data")
    return leaf


def parse_file(data: bytes, certificate: bytes | None = None) -> SNPEvidence:
    """The evidence in a file: a report as the guest's device gives it, or the protocol's JSON.

    Args:
        certificate: VCEK or VLEK in DER or PEM, which counts in place of one in the JSON.

    Raises:
        FormatError: it is neither.
    """
    if len(data) == REPORT_BYTES:
        evidence = SNPEvidence(parse_report(data), None)
    elif data.lstrip()[:1] == b"{":
        evidence = parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))
    else:
        raise FormatError(
            f"expected a report of {REPORT_BYTES} bytes, or the protocol's JSON, got {len(data)} "
            "bytes that are neither",
            what=_WHAT,
        )
    if certificate is None:
        return evidence
    return SNPEvidence(evidence.report, parse_leaf(certificate, what="certificate"))


@dataclass(frozen=True, slots=True)
class SNPVerifier:
    """Judges reports of AMD SEV-SNP, by the steps of the module.

    Attributes:
        roots: ASK, ARK and ASVK of one product in PEM, in place of AMD's: for tests only.
    """

    allowed: Allowed = field(default_factory=Allowed)
    roots: bytes | None = None
    tee: ClassVar[str] = "snp"
    references: ClassVar[tuple[tuple[str, ...], ...]] = ((_MEASUREMENT,),)

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier with the settings of an appraisal; see `Allowed.parse`."""
        if roots is not None:
            parse_authority(roots, MILAN, what="test root")  # a faulty file is told at the start
        return cls(Allowed.parse(settings), roots)

    def parse(self, body: JSON) -> SNPEvidence:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: SNPEvidence) -> tuple[str, ...]:
        """See `Verifier`: a list of revoked certificates, and the certificate if it was not sent.

        The certificates name two lists for each product: the ASK's is another than the ASVK's.
        """
        product = evidence.product
        crl = crl_name(product, is_vlek=evidence.is_vlek)
        name = leaf_name(evidence.report, product)
        if evidence.leaf is not None or evidence.is_vlek or name is None:
            return (crl,)
        return crl, name

    def verify(
        self,
        evidence: SNPEvidence,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
            CouldNotVerify: the certificate, or a list of revoked ones, is missing or out of date.
            FormatError: a part cannot be read.
        """
        report = evidence.report
        leaf = _leaf_of(evidence, collateral)
        product = SNPEvidence(report, leaf).product
        note(f"step 1, product: {product.name}")
        with step("2, chain"):
            authority = self._authority(product)
            leaf.check(authority, now)
        note(f"step 2, chain: {leaf.kind}, valid to {leaf.not_after:%Y-%m-%d}")
        name = crl_name(product, is_vlek=leaf.is_vlek)
        with step("3, revocation"):
            seen = self._check_revocation(collateral.get(name), authority, leaf, now)
        state = "not checked" if seen is None else f"the issuer of this {leaf.kind} is not revoked"
        note(f"step 3, revocation: {state}")
        with step("4, key"):
            _check_key(report, leaf)
        note(f"step 4, key: of a {leaf.kind}")
        with step("5, version"):
            tcb = _check_versions(report, leaf, product)
        note(f"step 5, version: {tcb}")
        with step("6, signature"):
            _check_signature(report, leaf)
        note("step 6, signature: good")
        with step("7, guest"):
            _check_guest(report, tcb, self.allowed)
        note("step 7, guest: VMPL 0")
        with step("8, bound"):
            told = check_bound(
                bound,
                report_data=report.octets("report_data"),
                init_data=report.octets("host_data"),
                field="host_data",
            )
        note(f"step 8, bound: {told}")
        chip = report.octets("chip_id")
        return Claims(
            tee=self.tee,
            tee_class="cpu",
            maker=f"AMD, {leaf.kind} of a {product.name}",
            measured=({_MEASUREMENT: report.octets("measurement").hex()},),
            firmware=_firmware(tcb),
            configured=_configured(report),
            debug=bool(report.number("policy") & _DEBUG),
            report_data=report.octets("report_data").hex(),
            init_data=report.octets("host_data").hex(),
            values=_values(report, tcb, is_revocation_checked=seen is not None),
            collateral=seen or {},
            established_at=now,
            instance=sha256(chip).hexdigest() if any(chip) else "",
            test_root=self.roots is not None,
        )

    def _authority(self, product: Product) -> Authority:
        if self.roots is None:
            return built_in(product.name)
        return parse_authority(self.roots, product, what="test root")

    def _check_revocation(
        self, crl: bytes | None, authority: Authority, leaf: Leaf, now: datetime
    ) -> dict[str, int] | None:
        """What the list says of itself, or None: there is none, and none has to be."""
        if crl is not None:
            return check_crl(crl, authority, is_vlek=leaf.is_vlek, now=now)
        if self.allowed.without_crl:
            return None
        name = name_of_crl(authority.product, is_vlek=leaf.is_vlek)
        raise CouldNotVerify(f"there is no {name}", hint=_FETCH)


def _leaf_of(evidence: SNPEvidence, collateral: Mapping[str, bytes]) -> Leaf:
    if evidence.leaf is not None:
        return evidence.leaf
    name = leaf_name(evidence.report, evidence.product)
    found = None if name is None else collateral.get(name)
    if found is None:
        with step("2, chain"):
            raise CouldNotVerify("there is no certificate of the key that signed", hint=_FETCH)
    leaf = parse_leaf(found, what="certificate")
    if leaf.is_vlek:
        raise FormatError("expected a VCEK, got a VLEK", what="certificate")
    return leaf


def leaf_name(report: Report, product: Product) -> str | None:
    """How the certificate of the chip is called among the collateral; None: the chip is hidden."""
    chip = report.octets("chip_id")
    return vcek_name(product, chip, report.tcb("reported_tcb", product)) if any(chip) else None


def _signing_key(report: Report) -> int:
    return report.number("key_info") >> 2 & 0b111


def _check_key(report: Report, leaf: Leaf) -> None:
    """Step 4."""
    info = report.number("key_info")
    kind = _signing_key(report)
    if kind != (_VLEK if leaf.is_vlek else _VCEK):
        raise mismatch("key_info names the kind of the signing key", leaf.kind, kind)
    if info & _MASK_CHIP_KEY:
        raise mismatch("use of the chip's key, by key_info", "allowed", "forbidden by the host")
    chip = report.octets("chip_id")
    # A host may hide the chip's id, which is zero then; of a Turin eight bytes count.
    if leaf.chip_id is not None and chip not in (
        bytes(len(chip)),
        leaf.chip_id.ljust(len(chip), b"\0"),
    ):
        raise EvidenceRejected("the certificate is of another chip than the report")


def _check_versions(report: Report, leaf: Leaf, product: Product) -> TCB:
    """Step 5: the reported version."""
    names = ("reported_tcb", "committed_tcb", "launch_tcb", "current_tcb")
    reported, committed, launch, current = (report.tcb(one, product) for one in names)
    if leaf.tcb != reported:
        raise mismatch("the certificate's version of the firmware", reported, leaf.tcb)
    for lower, upper, text in (
        (reported, committed, "reported and committed version"),
        (committed, current, "committed and current version"),
        (launch, current, "launch and current version"),
    ):
        if part := upper.is_below(lower):
            raise mismatch(f"{text}, {part}", f"at least {lower}", upper)
    if report.firmware("committed") > report.firmware("current"):
        raise mismatch(
            "committed firmware",
            f"at most {report.firmware('current')}",
            report.firmware("committed"),
        )
    return reported


def _check_signature(report: Report, leaf: Leaf) -> None:
    """Step 6."""
    algorithm = report.number("sig_algo")
    if algorithm != _ECDSA_P384:
        raise mismatch("algorithm", f"{_ECDSA_P384} (ECDSA P-384)", algorithm)
    signature = utils.encode_dss_signature(*report.signature)
    try:
        leaf.key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise EvidenceRejected(f"it is not by the key of this {leaf.kind}") from None


def _check_guest(report: Report, tcb: TCB, rules: Allowed) -> None:
    """Step 7."""
    vmpl, policy = report.number("vmpl"), report.number("policy")
    if vmpl != 0:
        raise mismatch("VMPL", 0, vmpl)
    if not policy & _RESERVED_ONE:
        raise mismatch("bit 17 of the guest's policy", 1, 0)
    if policy & _DEBUG and not rules.debug:
        raise mismatch("debugging", "forbidden by the guest's policy", "allowed")
    if policy & _MIGRATION and not rules.migration_agent:
        raise mismatch("migration agent", "forbidden by the guest's policy", "allowed")
    if rules.minimum is not None and (part := tcb.is_below(rules.minimum)):
        raise mismatch(f"firmware, {part}", f"at least {rules.minimum}", tcb)


def _firmware(tcb: TCB) -> dict[str, JSON]:
    return {
        "snp_bootloader": tcb.bootloader,
        "snp_microcode": tcb.microcode,
        "snp_snp_svn": tcb.snp,
        "snp_tee_svn": tcb.tee,
    }


def _configured(report: Report) -> dict[str, JSON]:
    policy, platform = report.number("policy"), report.number("plat_info")
    return {
        "snp_host_data": report.octets("host_data").hex(),
        "snp_id_key_digest": report.octets("id_key_digest").hex(),
        "snp_author_key_digest": report.octets("author_key_digest").hex(),
        "snp_smt_enabled": bool(platform & 1),
        "snp_tsme_enabled": bool(platform & 2),
        "snp_guest_abi_major": policy >> 8 & 0xFF,
        "snp_guest_abi_minor": policy & 0xFF,
        "snp_single_socket": bool(policy & 1 << 20),
        "snp_smt_allowed": bool(policy & 1 << 16),
    }


def _values(report: Report, tcb: TCB, *, is_revocation_checked: bool) -> dict[str, JSON]:
    """The claims as Trustee names them, and more."""
    policy, platform = report.number("policy"), report.number("plat_info")
    return {
        "measurement": report.octets("measurement").hex(),
        "report_data": report.octets("report_data").hex(),
        "init_data": report.octets("host_data").hex(),
        "policy_abi_major": policy >> 8 & 0xFF,
        "policy_abi_minor": policy & 0xFF,
        "policy_smt_allowed": bool(policy & 1 << 16),
        "policy_migrate_ma": bool(policy & _MIGRATION),
        "policy_debug_allowed": bool(policy & _DEBUG),
        "policy_single_socket": bool(policy & 1 << 20),
        "platform_smt_enabled": bool(platform & 1),
        "platform_tsme_enabled": bool(platform & 2),
        "reported_tcb_fmc": tcb.fmc,
        "reported_tcb_bootloader": tcb.bootloader,
        "reported_tcb_tee": tcb.tee,
        "reported_tcb_snp": tcb.snp,
        "reported_tcb_microcode": tcb.microcode,
        "id_key_digest": report.octets("id_key_digest").hex(),
        "author_key_digest": report.octets("author_key_digest").hex(),
        "crl": "checked" if is_revocation_checked else "not checked",
    }


if TYPE_CHECKING:
    _verifier: Verifier[SNPEvidence] = SNPVerifier()
