# SPDX-License-Identifier: Apache-2.0
"""Evidence of AMD SEV-SNP with one thing wrong.

A field of the report is changed after it was signed, which the signature has to show if no earlier
step does; or before, so that the field itself is judged.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from imagers.evidence.snp.report import SIGNED_BYTES
from imagers.evidence.snp.revocation import crl_name
from imagers.testing.evidence.wrongs.wrong import (
    COULD_NOT_LOOK,
    INIT_DATA,
    MALFORMED,
    NO,
    REPORT_DATA,
    Wrong,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagers.errors import ImagersError
    from imagers.model.strict_json import JSON
    from imagers.testing.evidence.snp import SNPWorld

__all__ = ["CLAIMS", "wrongs"]

_PRODUCT, _CHAIN, _LIST = "1, product", "2, chain", "3, revocation"
_KEY, _VERSION, _SIGNATURE = "4, key", "5, version", "6, signature"
_GUEST, _BOUND = "7, guest", "8, bound"
_VMPL_1, _VLEK, _MASKED, _AUTHOR = 1, 1 << 2, 1 << 1, 1
_PLAIN, _MIGRATION, _DEBUG = 0x30000, 0x70000, 0xB0000
_COMPONENT_BYTES = 72

CLAIMS = (
    ("guest_svn", 7),
    ("family_id", b"f" * 16),
    ("image_id", b"i" * 16),
    ("measurement", b"m" * 48),
    ("plat_info", 3),
    ("key_info", _AUTHOR),
    ("id_key_digest", b"k" * 48),
    ("author_key_digest", b"a" * 48),
    ("report_id", b"r" * 32),
    ("report_id_ma", b"r" * 32),
    ("cpuid_step", 7),
    ("current", (1, 60, 0)),
    ("launch_mit_vector", 1),
    ("current_mit_vector", 1),
    ("policy", 0x130000 | 55),
)
"""Fields that a genuine report may have so, signed: which of them are good is for others to say."""

# Fields that an earlier step than the signature looks at, when their lowest bit is another.
_SEEN_BEFORE = {
    "chip_id": (_KEY, NO),
    "cpuid_fam_id": ("", MALFORMED),
    "reported_tcb": (_VERSION, NO),
    "committed_tcb": (_VERSION, NO),
    "current_tcb": (_VERSION, NO),
}


class _Maker:
    """Makes evidence of a world that is good but for what it is told."""

    def __init__(self, world: SNPWorld) -> None:
        self._world = world
        self._collateral = world.collateral()
        self._leaf = world.leaf()

    def __call__(
        self,
        name: str,
        step: str,
        error: type[ImagersError] = NO,
        *,
        report: bytes | None = None,
        leaf: bytes | None = None,
        crl: bytes | None = None,
        has_crl: bool = True,
        roots: bytes | None = None,
        **fields: object,
    ) -> Wrong:
        raw = self.good(**fields) if report is None else report
        collateral = dict(self._collateral)
        listed = crl_name(self._world.product, is_vlek=False)
        if crl is not None:
            collateral[listed] = crl
        if not has_crl:
            del collateral[listed]
        certificate: JSON = {"cert_type": "VCEK", "data": [*(leaf or self._leaf)]}
        body: JSON = {
            "attestation_report": self._world.report_json(raw),
            "cert_chain": [certificate],
        }
        return Wrong(name, step, body, collateral, roots or self._world.roots, error)

    def good(self, **fields: object) -> bytes:
        values = {"report_data": REPORT_DATA, "host_data": INIT_DATA, **fields}
        return self._world.report(**values)  # type: ignore[arg-type]  # by names of fields


def wrongs(world: SNPWorld) -> Iterator[Wrong]:
    """All of it; which steps refuse it are those of `imagers.evidence.snp.verify`."""
    make = _Maker(world)
    yield from _changed_after(world, make)
    yield from _signed_so(world, make)
    yield from _leaves(world, make)
    yield from _authorities(world, make)
    yield from _lists(world, make)


def _changed_after(world: SNPWorld, make: _Maker) -> Iterator[Wrong]:
    good = make.good()
    for name, (at, _) in world.layout.items():
        raw = bytearray(good)
        raw[at] ^= 1
        step, error = _SEEN_BEFORE.get(name, (_SIGNATURE, NO))
        yield make(f"{name}, changed after signing", step, error, report=bytes(raw))
    for part, at in (("r", SIGNED_BYTES), ("s", SIGNED_BYTES + _COMPONENT_BYTES)):
        raw = bytearray(good)
        raw[at] ^= 1
        yield make(f"{part} of the signature", _SIGNATURE, report=bytes(raw))


def _signed_so(world: SNPWorld, make: _Maker) -> Iterator[Wrong]:
    other = "Milan" if world.product.name != "Milan" else "Turin"
    family, model, _ = world.CPUID[other]
    yield make("processor of another product", _PRODUCT, cpuid_fam_id=family, cpuid_mod_id=model)
    yield make("processor that is unknown", "", MALFORMED, cpuid_fam_id=1)
    yield make("version that is unknown", "", MALFORMED, version=6)
    yield make("key_info of a VLEK", _KEY, key_info=_VLEK)
    yield make("key_info of no key", _KEY, key_info=0b111 << 2)
    yield make("use of the chip's key masked", _KEY, key_info=_MASKED)
    yield make("chip_id of another chip", _KEY, chip_id=b"\x01" * len(world.chip_id))
    tcb = world.tcb
    parts = ("bootloader", "tee", "snp", "microcode", *(("fmc",) if tcb.fmc is not None else ()))
    for part in parts:
        value = getattr(tcb, part)
        above, below = replace(tcb, **{part: value + 1}), replace(tcb, **{part: value - 1})
        yield make(f"reported {part} below the certificate's", _VERSION, reported_tcb=below)
        yield make(f"committed {part} below the reported one", _VERSION, committed_tcb=below)
        yield make(f"current {part} below the committed one", _VERSION, current_tcb=below)
        yield make(f"launch {part} above the current one", _VERSION, launch_tcb=above)
    yield make("committed firmware above the current one", _VERSION, committed=(1, 60, 0))
    yield make("algorithm that is unknown", _SIGNATURE, sig_algo=2)
    yield make("key of another chip", _SIGNATURE, key=world.leaf_key(vlek=True))
    yield make("VMPL 1", _GUEST, vmpl=_VMPL_1)
    yield make("debugging allowed", _GUEST, policy=_DEBUG)
    yield make("migration agent allowed", _GUEST, policy=_MIGRATION)
    yield make("policy without its reserved bit", _GUEST, policy=_PLAIN & ~(1 << 17))
    yield make("report data of another handshake", _BOUND, report_data=b"x" * 48)
    yield make("report data with something behind it", _BOUND, report_data=REPORT_DATA + b"x")
    yield make("other init data", _BOUND, host_data=b"x" * 32)


def _leaves(world: SNPWorld, make: _Maker) -> Iterator[Wrong]:
    for signer in ("ARK", "ASVK", "nobody"):
        yield make(f"VCEK signed by {signer}", _CHAIN, leaf=world.leaf(signer=signer))
    years, days = timedelta(days=8 * 365), timedelta(days=3)
    yield make("VCEK that is expired", _CHAIN, leaf=world.leaf(begin=world.now - years))
    yield make("VCEK of the future", _CHAIN, leaf=world.leaf(begin=world.now + days))
    yield make("VCEK of another key", _SIGNATURE, leaf=world.leaf(key=world.leaf_key(vlek=True)))
    yield make("VLEK in place of a VCEK", "", MALFORMED, leaf=world.leaf(vlek=True))
    other = "Genoa" if world.product.name != "Genoa" else "Milan"
    values = {
        "2": ("of another product", core.IA5String(other).dump(), _PRODUCT, NO),
        "4": ("of another chip", b"\x01" * len(world.chip_id), _KEY, NO),
        "3.1": ("for another bootloader", core.Integer(200).dump(), _VERSION, NO),
        "3.2": ("for another tee", core.Integer(200).dump(), _VERSION, NO),
        "3.3": ("for another snp", core.Integer(200).dump(), _VERSION, NO),
        "3.8": ("for another microcode", core.Integer(200).dump(), _VERSION, NO),
        "2.5.29.36": ("with an unknown critical extension", b"\x30\x00", "", MALFORMED),
    }
    for oid, (text, value, step, error) in values.items():
        yield make(f"VCEK {text}", step, error, leaf=world.leaf(extensions={oid: value}))
    for oid in ("2", "3.1", "3.2", "3.3", "3.8", "4"):
        leaf = world.leaf(extensions={oid: None})
        yield make(f"VCEK without its extension {oid}", "", MALFORMED, leaf=leaf)


def _authorities(world: SNPWorld, make: _Maker) -> Iterator[Wrong]:
    own = {role: world.issue(role) for role in ("ASK", "ARK", "ASVK")}

    def roots(role: str, certificate: x509.Certificate) -> bytes:
        parts = (own | {role: certificate}).values()
        return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in parts)

    for role in ("ASK", "ARK"):
        foreign = world.issue(role, key="nobody", signer="nobody")
        yield make(f"{role} of nobody known", _CHAIN, roots=roots(role, foreign))
        for word, begin in (
            ("that is expired", world.now - timedelta(days=26 * 365)),
            ("of the future", world.now + timedelta(days=3)),
        ):
            dated = world.issue(role, begin=begin)
            yield make(f"{role} {word}", _CHAIN, roots=roots(role, dated))
    unsigned = world.issue("ASK", signer="ASVK")
    yield make("ASK signed by the ASVK", _CHAIN, roots=roots("ASK", unsigned))


def _lists(world: SNPWorld, make: _Maker) -> Iterator[Wrong]:
    yield make("no list", _LIST, COULD_NOT_LOOK, has_crl=False)
    yield make("list signed by the ASK", _LIST, crl=world.crl(signer="ASK"))
    yield make("list of bytes", "", MALFORMED, crl=b"\x30\x00")
    for role in ("ARK", "ASK"):
        serial = getattr(world.authority, role.lower()).serial_number
        yield make(f"{role} revoked", _LIST, crl=world.crl(revoked=[serial]))
    for word, days in (("expired", -40), ("of the future", 10)):
        crl = world.crl(begin=world.now + timedelta(days=days))
        yield make(f"list {word}", _LIST, COULD_NOT_LOOK, crl=crl)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for word, extension in (("of changes", x509.DeltaCRLIndicator(1)), ("that limits", unknown)):
        crl = world.crl(extensions=[(extension, True)])
        yield make(f"list {word}", _LIST, COULD_NOT_LOOK, crl=crl)
