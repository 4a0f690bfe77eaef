# SPDX-License-Identifier: Apache-2.0
"""Whether a report of an NVIDIA GPU is genuine, for this handshake. No IO.

    verifier = NVIDIAVerifier()
    for body in verifier.split(bodies):
        evidence = verifier.parse(body)
        claims = verifier.verify(evidence, bound=bound, collateral={}, now=now, note=print)

1. *Chain.* The certificate of the GPU leads to NVIDIA's root, which comes along, by way of the line
   of Hopper. All are valid now, and authorities are authorities.
2. *Firmware.* The id of the firmware that the certificate is for (FWID) is the one in the report.
3. *Signature*: ECDSA on P-384 with SHA-384 over request and answer.
4. *Bound.* The nonce of the request is the first 32 bytes of the report data of the device.

That the GPU is in the machine of the guest, and not elsewhere, no step says: the guest's own
evidence binds the text of this one, and a driver in it talks to the GPU.

What runs on the GPU is what its 64 measurements say. They are known in one of two ways: all of
them by one digest, or each that is not zero by the value that NVIDIA gives in its reference
manifests, under the name that Trustee gives it, whose number is one less than the block's. One
that is zero is compared where it has a value, too: what is missing is no match.

Not known: whether the GPU is in its confidential mode, or under the tools of developers. NVIDIA
says it in no field of the report; it is in the measurements as far as it is anywhere. Nor
whether a certificate was revoked, which NVIDIA answers online alone.

Spec: DMTF DSP0274 1.1.0; TCG DICE Attestation Architecture, FWID (2.23.133.5.4.1); NVIDIA's
verifier (nvtrust).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256, sha384
from hmac import compare_digest
from typing import TYPE_CHECKING, ClassVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from imagers.errors import EvidenceRejected, FormatError, SignatureInvalid
from imagers.evidence.nvidia.report import BLOCKS, MAX_REPORT, Report, parse_report
from imagers.evidence.roots import read_root
from imagers.evidence.steps import check_bound, mismatch, step
from imagers.model.evidence import Claims
from imagers.model.strict_json import View, parse_json
from imagers.pki.chain import Purpose, check_chain, describe, parse_certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Self

    from imagers.model.evidence import Bound, DeviceVerifier
    from imagers.model.strict_json import JSON

__all__ = ["MAX_DEVICES", "NVIDIAEvidence", "NVIDIAVerifier", "parse", "parse_file"]

MAX_DEVICES = 16
"""In one body."""
_WHAT = "GPU evidence"
_LIST = "device_evidence_list"
_MAX_CHAIN = 32 * 1024
_MAX_CERTIFICATES = 8
_MAX_JSON = 1024 * 1024
_ARCHITECTURE = "HOPPER"
_LINE = "NVIDIA GH100 Identity"  # the certificate below the root, of all Hoppers
_FWID = x509.ObjectIdentifier("2.23.133.5.4.1")
_FWID_BYTES = 48
_ALL = "nvidia_measurements"
_PREFIX = "NVIDIA_Corporation.GPU.measurement_"  # of Trustee's reader of NVIDIA's manifests
_HEX = frozenset("0123456789abcdefABCDEF")
_TEXTS = ("chip_sku", "chip_sku_mod", "project", "project_sku", "nvdec0_status")
_OCTETS = ("board_id", "cpr_info", "gpu_info", "fwid", "project_sku_mod")


@dataclass(frozen=True, slots=True)
class NVIDIAEvidence:
    """What one GPU sent, read and not verified. It prints without what identifies it.

    Attributes:
        chain: the GPU's certificate first.
    """

    report: Report
    chain: tuple[x509.Certificate, ...] = field(repr=False)


def parse(body: JSON) -> NVIDIAEvidence:
    """The evidence of one GPU in the JSON of the protocol.

        {"device_evidence_list": [{"arch": "HOPPER", "uuid": "...",
                                   "evidence": "base64", "certificate": "base64"}]}

    Raises:
        FormatError: it is none, or of several.
    """
    devices = View(body, what=_WHAT).objects(_LIST, most=MAX_DEVICES)
    if len(devices) != 1:
        raise FormatError(f"expected one device, got {len(devices)}", what=_WHAT)
    return _parse_device(devices[0])


def _parse_device(device: View) -> NVIDIAEvidence:
    # What stands beside is signed by nobody: `uuid` is not looked at.
    architecture = device.text("arch")
    if architecture != _ARCHITECTURE:
        raise device.error(
            f"expected {_ARCHITECTURE}, the only one that is verified here, "
            f"got {architecture[:40]!r}",
            "arch",
        )
    chain = parse_certificates(_octets(device, "certificate", _MAX_CHAIN), what="GPU certificates")
    if not 2 <= len(chain) <= _MAX_CERTIFICATES:
        raise device.error(
            f"expected 2 to {_MAX_CERTIFICATES} certificates, got {len(chain)}", "certificate"
        )
    report = parse_report(_octets(device, "evidence", MAX_REPORT))
    _values(report)  # which fields it lacks is told now
    return NVIDIAEvidence(report, chain)


def _octets(device: View, name: str, most: int) -> bytes:
    """Bytes in base64; of older guests in hex, which base64 of such a length never is."""
    text = device.text(name)
    if _HEX.issuperset(text) and len(text) % 2 == 0:
        if len(text) > 2 * most:
            raise device.error(f"expected at most {most} bytes, got {len(text) // 2}", name)
        return bytes.fromhex(text)
    return device.bytes64(name, max_size=most)


def parse_file(data: bytes) -> NVIDIAEvidence:
    """The evidence in a file, in the protocol's JSON: a report alone has no certificates.

    Raises:
        FormatError: it is something else.
    """
    if data.lstrip()[:1] != b"{":
        raise FormatError("expected the protocol's JSON, with certificates", what=_WHAT)
    return parse(parse_json(data, what=_WHAT, max_bytes=_MAX_JSON))


@dataclass(frozen=True, slots=True)
class NVIDIAVerifier:
    """Judges reports of NVIDIA GPUs, by the steps of the module.

    Attributes:
        roots: one certificate in PEM, in place of NVIDIA's root: for tests only.
    """

    roots: bytes | None = None
    tee: ClassVar[str] = "nvidia"
    references: ClassVar[tuple[tuple[str, ...], ...]] = (
        (_ALL,),
        tuple(f"{_PREFIX}{number}" for number in range(1, 7)),
    )

    @classmethod
    def make(cls, settings: View, roots: bytes | None) -> Self:
        """A verifier; there is nothing that it can be told to let pass.

        Raises:
            FormatError: there are settings, or the root is none.
        """
        settings.only()
        _root(roots)  # a faulty file is told at the start
        return cls(roots)

    def split(self, body: JSON) -> tuple[JSON, ...]:
        """See `DeviceVerifier`."""
        devices = View(body, what=_WHAT).objects(_LIST, most=MAX_DEVICES)
        if not devices:
            raise FormatError(f"expected 1 to {MAX_DEVICES} devices, got none", what=_WHAT)
        seen: set[bytes] = set()
        for number, device in enumerate(devices):
            # By its key: a certificate can be made anew, by whoever signed it.
            key = _key_id(_parse_device(device).chain[0])
            if key in seen:
                raise FormatError(f"device {number} is there twice", what=_WHAT)
            seen.add(key)
        return tuple({_LIST: [device.value]} for device in devices)

    def parse(self, body: JSON) -> NVIDIAEvidence:
        """See `Verifier`."""
        return parse(body)

    def wanted(self, evidence: NVIDIAEvidence) -> tuple[str, ...]:  # noqa: ARG002  # the Protocol's
        """See `Verifier`: nothing."""
        return ()

    def verify(
        self,
        evidence: NVIDIAEvidence,
        *,
        bound: Bound,
        collateral: Mapping[str, bytes],  # noqa: ARG002  # the Protocol's
        now: datetime,
        note: Callable[[str], None],
    ) -> Claims:
        """See `Verifier`.

        Raises:
            EvidenceRejected: a step says no.
            FormatError: a field of the report cannot be read.
        """
        report, leaf = evidence.report, evidence.chain[0]
        with step("1, chain"):
            path = _check_path(evidence.chain, _root(self.roots), now)
        note(f"step 1, chain: {len(path)} certificates, of the line GH100")
        with step("2, firmware"):
            _check_firmware(report, leaf)
        note("step 2, firmware: the certificate is for it")
        with step("3, signature"):
            _check_signature(report, leaf)
        note("step 3, signature: good")
        with step("4, bound"):
            told = check_bound(bound, report_data=report.nonce)
        note(f"step 4, bound: {told}")
        values = _values(report)
        return Claims(
            tee=self.tee,
            tee_class="gpu",
            maker="NVIDIA, a GPU of the line GH100",
            measured=_measured(report),
            firmware={
                "allowed_driver_versions": report.text("driver_version"),
                "allowed_vbios_versions": report.vbios_version,
                **{
                    f"{_PREFIX}{number - 1}": digest.hex()
                    for number, digest in report.measurements.items()
                    if not any(digest)
                },
            },
            configured={
                f"nvidia_{name}": report.text(name)
                for name in ("nvdec0_status", "protected_pcie_status")
            },
            debug=False,
            report_data=report.nonce.hex(),
            values=values,
            established_at=now,
            # Of the GPU itself: the certificate above that of its firmware.
            instance=_key_id(path[1]).hex(),
            test_root=self.roots is not None,
        )


@lru_cache(4)
def _root(roots: bytes | None) -> x509.Certificate:
    pem = read_root("nvidia", "root.pem") if roots is None else roots
    found = parse_certificates(pem, what="NVIDIA's root" if roots is None else "test root")
    if len(found) != 1:
        raise FormatError(f"expected one certificate, got {len(found)}", what="test root")
    return found[0]


def _key_id(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise FormatError("has a key that cannot be read", what="GPU certificates") from None
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _check_path(
    chain: tuple[x509.Certificate, ...], root: x509.Certificate, now: datetime
) -> tuple[x509.Certificate, ...]:
    """Step 1: the path from the GPU's certificate to the root."""
    try:
        # None of them has an extended key usage, so that which one is asked for says nothing.
        path = check_chain(
            chain[0],
            chain[1:],
            (root,),
            at=now,
            purpose=Purpose.CODE_SIGNING,
            purpose_is_optional=True,
            what="the certificate",
        )
    except SignatureInvalid as error:
        raise EvidenceRejected(_without_names(str(error), chain)) from None
    if len(path) < 3:
        raise EvidenceRejected("the root signed the certificate itself: it is of no GPU")
    names = path[-2].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    line = str(names[0].value) if len(names) == 1 else ""
    if line != _LINE:  # NVIDIA's switches and other GPUs have the same root
        raise mismatch("line of the device", f"'{_LINE}'", f"{line[:60]!r}")
    return path


def _without_names(message: str, chain: tuple[x509.Certificate, ...]) -> str:
    """A message without subjects, in which the serial numbers of chip and firmware are."""
    for number, one in enumerate(chain, 1):
        name = describe(one)
        message = message.replace(f"of {name}", name)
        message = message.replace(name, f"number {number} of the chain")
    return message


def _check_firmware(report: Report, leaf: x509.Certificate) -> None:
    """Step 2."""
    try:
        found = leaf.extensions.get_extension_for_oid(_FWID).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise EvidenceRejected("the certificate does not say which firmware it is for") from None
    assert isinstance(found, x509.UnrecognizedExtension)  # `cryptography` does not know it
    # The last element of nested sequences: an OCTET STRING.
    head, fwid = found.value[-_FWID_BYTES - 2 : -_FWID_BYTES], found.value[-_FWID_BYTES:]
    if head != bytes((0x04, _FWID_BYTES)):
        raise EvidenceRejected("the certificate names no firmware by SHA-384")
    if not compare_digest(fwid, report.octets("fwid")):
        raise mismatch("id of the firmware", fwid.hex(), report.octets("fwid").hex())


def _check_signature(report: Report, leaf: x509.Certificate) -> None:
    """Step 3."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise EvidenceRejected("the key of the certificate is none on P-384")
    signature = utils.encode_dss_signature(*report.signature)
    try:
        key.verify(signature, report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise EvidenceRejected("it is not by the key of this certificate") from None


def _measured(report: Report) -> tuple[dict[str, JSON], ...]:
    """Both ways to know what runs on the GPU."""
    every = b"".join(report.measurements[number] for number in range(1, BLOCKS + 1))
    each: dict[str, JSON] = {
        f"{_PREFIX}{number - 1}": digest.hex()
        for number, digest in report.measurements.items()
        if any(digest)
    }
    whole: dict[str, JSON] = {_ALL: sha384(every).hexdigest()}
    return (whole, each) if each else (whole,)


def _values(report: Report) -> dict[str, JSON]:
    """The claims as Trustee names them; without the id that a guest gives its GPU."""
    config: dict[str, JSON] = {name: report.octets(name).hex() for name in _OCTETS}
    config |= {name: report.text(name) for name in _TEXTS}
    config |= {
        "driver_version": report.text("driver_version"),
        "vbios_version": report.vbios_version,
        "protected_pcie_status": report.text("protected_pcie_status"),
    }
    counts = report.octets("measurement_count")
    config["measurement_count"] = {
        str(at // 4 + 1): int.from_bytes(counts[at : at + 4], "little")
        for at in range(0, len(counts) - len(counts) % 4, 4)
    }
    measurements: dict[str, JSON] = {
        str(number): digest.hex() for number, digest in report.measurements.items()
    }
    return {"arch": "Hopper", "config": config, "measurements": measurements}


if TYPE_CHECKING:
    _verifier: DeviceVerifier[NVIDIAEvidence] = NVIDIAVerifier()
