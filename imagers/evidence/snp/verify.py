# SPDX-License-Identifier: Apache-2.0
"""Whether a report of AMD SEV-SNP is genuine, for this handshake, of a closed guest. No IO.

    evidence = parse(body)
    collateral = {name: read(name) for name in wanted(evidence)}
    values = verify(evidence, bound=bound, collateral=collateral, now=now)

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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.snp.certificates import Authority, Leaf, built_in, is_signed_by, parse_leaf
from imagers.evidence.snp.report import (
    PRODUCTS,
    REPORT_BYTES,
    TCB,
    Product,
    Report,
    octets,
    parse_report,
    report_of_json,
)
from imagers.model.strict_json import View, parse_json

if TYPE_CHECKING:
    from datetime import datetime

    from imagers.model.strict_json import JSON

__all__ = [
    "Allowed",
    "Bound",
    "SNPEvidence",
    "crl_name",
    "parse",
    "parse_file",
    "verify",
    "wanted",
]

_WHAT = "SNP evidence"
_MAX_CERTIFICATES = 8
_MAX_CRL = 1024 * 1024
_MAX_JSON = 256 * 1024
_ECDSA_P384 = 1
_VCEK, _VLEK = 0, 1
_MASK_CHIP_KEY = 1 << 1
_DEBUG = 1 << 19
_MIGRATION = 1 << 18
_RESERVED_ONE = 1 << 17
_GENOAS = {"Siena": "Genoa"}  # a product in certificates, issued by Genoa's ASK


@dataclass(frozen=True, slots=True)
class Bound:
    """What evidence has to bind.

    Attributes:
        report_data: at most 64 bytes; None: whatever is there.
        init_data: digest of the init data, at most 32 bytes; None: whatever is there.
    """

    report_data: bytes | None = None
    init_data: bytes | None = None


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
        name = self.leaf.product.partition("-")[0]
        named = PRODUCTS.get(_GENOAS.get(name, name))
        if named is None:
            raise FormatError(
                f"expected a certificate for Milan, Genoa or Turin, got '{self.leaf.product[:40]}'",
                what=_WHAT,
            )
        if told is not None and told is not named:
            raise EvidenceRejected(
                f"step 1, product: expected a certificate for {told.name}, got one for {named.name}"
            )
        return named


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
    leaf = parse_leaf(octets(found[kind], "data"), what=kind)
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
    else:
        evidence = parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))
    if certificate is None:
        return evidence
    return SNPEvidence(evidence.report, parse_leaf(certificate, what="certificate"))


def crl_name(product: Product, *, is_vlek: bool) -> str:
    """How the list of revoked certificates is called among the collateral.

    The certificates name two lists for each product: that of the ASK is another than the ASVK's.
    """
    return f"snp/{'vlek' if is_vlek else 'vcek'}/{product.name}/crl"


def wanted(evidence: SNPEvidence) -> tuple[str, ...]:
    """The collateral that `verify` needs: the list of revoked certificates.

    Raises:
        FormatError, EvidenceRejected: as `SNPEvidence.product`.
    """
    return (crl_name(evidence.product, is_vlek=evidence.is_vlek),)


def verify(
    evidence: SNPEvidence,
    *,
    bound: Bound,
    collateral: Mapping[str, bytes],
    now: datetime,
    allowed: Allowed | None = None,
    authority: Authority | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, JSON]:
    """What the evidence says, if every step holds.

    Args:
        collateral: by the names of `wanted`.
        now: aware.
        authority: in place of AMD's, for tests.
        note: is told each step that holds.

    Returns:
        The claims as Trustee names them.

    Raises:
        EvidenceRejected: a step says no; the message begins with its number.
        CouldNotVerify: a list of revoked certificates is missing or out of date.
        FormatError: a part cannot be read.
    """
    rules = allowed or Allowed()
    report, leaf = evidence.report, evidence.leaf
    product = evidence.product
    note(f"step 1, product: {product.name}")
    if leaf is None:
        raise CouldNotVerify("step 2, chain: there is no certificate of the key that signed")
    trusted = authority or built_in(product.name)
    if trusted.product != product:
        raise ValueError(f"authority of {trusted.product.name} for evidence of {product.name}")
    with _step("2, chain"):
        leaf.check(trusted, now)
    note(f"step 2, chain: {leaf.kind}, valid to {leaf.not_after:%Y-%m-%d}")
    crl = collateral.get(crl_name(product, is_vlek=leaf.is_vlek))
    if crl is None:
        if not rules.without_crl:
            raise CouldNotVerify(f"step 3, revocation: there is no {_name_of_crl(product, leaf)}")
        note("step 3, revocation: not checked")
    else:
        _check_crl(crl, trusted, leaf, now)
        note(f"step 3, revocation: the issuer of this {leaf.kind} is not revoked")
    _check_key(report, leaf)
    note(f"step 4, key: of a {leaf.kind}")
    tcb = _check_versions(report, leaf, product)
    note(f"step 5, version: {tcb}")
    _check_signature(report, leaf)
    note("step 6, signature: good")
    _check_guest(report, tcb, rules)
    note("step 7, guest: VMPL 0")
    note(f"step 8, bound: {_check_bound(report, bound)}")
    return _claims(report, tcb, is_revocation_checked=crl is not None)


@contextmanager
def _step(name: str) -> Iterator[None]:
    """A refusal inside says which step it was."""
    try:
        yield
    except EvidenceRejected as error:
        raise EvidenceRejected(f"step {name}: {error}", hint=error.hint) from error


def _no(step: str, what: str, expected: object, found: object) -> EvidenceRejected:
    return EvidenceRejected(f"step {step}: {what}: expected {expected}, got {found}")


def _name_of_crl(product: Product, leaf: Leaf) -> str:
    return f"list of revoked certificates of {product.name} for a {leaf.kind}"


def _check_crl(der: bytes, authority: Authority, leaf: Leaf, now: datetime) -> None:
    """Step 3."""
    name = _name_of_crl(authority.product, leaf)
    if len(der) > _MAX_CRL:
        raise FormatError(f"expected at most {_MAX_CRL} bytes, got {len(der)}", what=name)
    try:
        crl = x509.load_der_x509_crl(der)
        body, end = crl.tbs_certlist_bytes, crl.next_update_utc
    except (ValueError, x509.InvalidVersion):
        raise FormatError("is no list that can be read", what=name) from None
    if not is_signed_by(authority.ark, crl.signature, body):
        raise EvidenceRejected(f"step 3, revocation: the {name} is not signed by the ARK")
    if now < crl.last_update_utc or end is None or now > end:
        raise CouldNotVerify(
            f"step 3, revocation: the {name} is not valid at {now:%Y-%m-%dT%H:%M:%SZ}: expected "
            f"{crl.last_update_utc:%Y-%m-%dT%H:%M:%SZ} to {end and f'{end:%Y-%m-%dT%H:%M:%SZ}'}"
        )
    if (limit := _limit_of_crl(crl, name)) is not None:
        raise CouldNotVerify(
            f"step 3, revocation: expected a {name} of every certificate and reason, got {limit}"
        )
    for what, one in (
        (f"issuer of this {leaf.kind}", authority.issuer(is_vlek=leaf.is_vlek)),
        ("ARK", authority.ark),
    ):
        if crl.get_revoked_certificate_by_serial_number(one.serial_number) is not None:
            raise EvidenceRejected(f"step 3, revocation: the {what} is revoked by AMD")


def _limit_of_crl(crl: x509.CertificateRevocationList, name: str) -> str | None:
    """Why a revoked authority need not stand in it; None: it does (RFC 5280, section 5.2)."""
    try:
        extensions = list(crl.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise FormatError("has extensions that cannot be read", what=name) from None
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.DeltaCRLIndicator):
            return "changes alone"
        if isinstance(value, x509.IssuingDistributionPoint):
            if (
                value.only_contains_user_certs
                or value.only_contains_attribute_certs
                or value.only_some_reasons
                or value.indirect_crl
            ):
                return "a part"
        elif extension.critical:
            return f"the critical extension {extension.oid.dotted_string}"
    return None


def _signing_key(report: Report) -> int:
    return report.number("key_info") >> 2 & 0b111


def _check_key(report: Report, leaf: Leaf) -> None:
    """Step 4."""
    info = report.number("key_info")
    kind = _signing_key(report)
    if kind != (_VLEK if leaf.is_vlek else _VCEK):
        raise _no("4, key", "key_info names the kind of the signing key", leaf.kind, kind)
    if info & _MASK_CHIP_KEY:
        raise _no(
            "4, key", "use of the chip's key, by key_info", "allowed", "forbidden by the host"
        )
    chip = report.octets("chip_id")
    # A host may hide the chip's id, which is zero then; of a Turin eight bytes count.
    if leaf.chip_id is not None and chip not in (
        bytes(len(chip)),
        leaf.chip_id.ljust(len(chip), b"\0"),
    ):
        raise EvidenceRejected("step 4, key: the certificate is of another chip than the report")


def _check_versions(report: Report, leaf: Leaf, product: Product) -> TCB:
    """Step 5: the reported version."""
    names = ("reported_tcb", "committed_tcb", "launch_tcb", "current_tcb")
    reported, committed, launch, current = (report.tcb(one, product) for one in names)
    if leaf.tcb != reported:
        raise _no("5, version", "the certificate's version of the firmware", reported, leaf.tcb)
    for lower, upper, text in (
        (reported, committed, "reported and committed version"),
        (committed, current, "committed and current version"),
        (launch, current, "launch and current version"),
    ):
        if part := upper.is_below(lower):
            raise _no("5, version", f"{text}, {part}", f"at least {lower}", upper)
    if report.firmware("committed") > report.firmware("current"):
        raise _no(
            "5, version",
            "committed firmware",
            f"at most {report.firmware('current')}",
            report.firmware("committed"),
        )
    return reported


def _check_signature(report: Report, leaf: Leaf) -> None:
    """Step 6."""
    algorithm = report.number("sig_algo")
    if algorithm != _ECDSA_P384:
        raise _no("6, signature", "algorithm", f"{_ECDSA_P384} (ECDSA P-384)", algorithm)
    signature = utils.encode_dss_signature(*report.signature)
    try:
        leaf.key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise EvidenceRejected(
            f"step 6, signature: it is not by the key of this {leaf.kind}"
        ) from None


def _check_guest(report: Report, tcb: TCB, rules: Allowed) -> None:
    """Step 7."""
    vmpl, policy = report.number("vmpl"), report.number("policy")
    if vmpl != 0:
        raise _no("7, guest", "VMPL", 0, vmpl)
    if not policy & _RESERVED_ONE:
        raise _no("7, guest", "bit 17 of the guest's policy", 1, 0)
    if policy & _DEBUG and not rules.debug:
        raise _no("7, guest", "debugging", "forbidden by the guest's policy", "allowed")
    if policy & _MIGRATION and not rules.migration_agent:
        raise _no("7, guest", "migration agent", "forbidden by the guest's policy", "allowed")
    if rules.minimum is not None and (part := tcb.is_below(rules.minimum)):
        raise _no("7, guest", f"firmware, {part}", f"at least {rules.minimum}", tcb)


def _check_bound(report: Report, bound: Bound) -> str:
    """Step 8: what was compared."""
    told = []
    for name, field, wanted_bytes in (
        ("report data", "report_data", bound.report_data),
        ("init data in host_data", "host_data", bound.init_data),
    ):
        found = report.octets(field)
        if wanted_bytes is None:
            told.append(f"{name} not compared")
            continue
        if len(wanted_bytes) > len(found):
            raise ValueError(f"{name} of {len(wanted_bytes)} bytes, at most {len(found)}")
        expected = wanted_bytes.ljust(len(found), b"\0")
        if not compare_digest(found, expected):
            raise _no("8, bound", name, expected.hex(), found.hex())
        told.append(f"{name} as expected")
    return ", ".join(told)


def _claims(report: Report, tcb: TCB, *, is_revocation_checked: bool) -> dict[str, JSON]:
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
