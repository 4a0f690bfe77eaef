# SPDX-License-Identifier: Apache-2.0
"""What vendors' services and clouds answer to those who ask for collateral.

| asked | answered |
|---|---|
| `/vcek/v1/PRODUCT/CHIP?blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..` | a VCEK for that firmware, DER |
| `/vcek/v1/PRODUCT/cert_chain`, so for vlek | ASK, or ASVK, and ARK in PEM |
| `/vcek/v1/PRODUCT/crl`, so for vlek | the list of revoked certificates, DER |
| `/metadata/THIM/amd/certification`, with `Metadata: true` | Azure's JSON: VCEK and chain in PEM |
| `/tdx/certification/v4/tcb?fmspc=..`, so for sgx | TCB info; its signer in a header |
| `/tdx/certification/v4/qe/identity`, so for sgx | QE identity; its signer in a header |
| `/sgx/certification/v4/pckcrl?ca=..&encoding=der` | revoked certificates of machines |
| `/IntelSGXRootCA.der` | those of the root, DER |
| `/sgx/certification/v4/rootcacrl`, of a PCCS alone | the same in hex |
| `/hsk_cek?snumber=..` | HSK and CEK of a chip of Hygon |

Spec: AMD VCEK Certificate and KDS Interface Specification (57230) 1.00, chapters 4 and 5; Azure,
"Trusted Hardware Identity Management"; Intel PCS API, version 4; Intel's PCCS has its paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from asn1crypto import pem
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.evidence.snp.report import TCB
from imagers.model.strict_json import dump_json
from imagers.testing.evidence.csv import CSVWorld
from imagers.testing.evidence.intel import IntelWorld
from imagers.testing.evidence.snp import SNPWorld

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.testing.evidence.guests import World

__all__ = ["Answer", "answer"]

_KDS = re.compile(r"/(vcek|vlek)/v1/(\w+)/(\w+)\Z")
_PCS = re.compile(r"/(sgx|tdx)/certification/v4/(tcb|qe/identity|pckcrl|rootcacrl)\Z")
_THIM = "/metadata/THIM/amd/certification"
_SPL = re.compile(r"[0-9]{1,3}\Z")
_SPLS = {"bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a service."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(
    world: World, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> Answer | None:
    """What the vendor's service answers, or Azure for its machine.

    Returns:
        None: it is no path of theirs, or of another product.
    """
    if isinstance(world, SNPWorld):
        return _amd(world, path, query, headers)
    if isinstance(world, CSVWorld):
        if path != "/hsk_cek" or query.get("snumber") != world.serial:
            return None
        return Answer(200, world.issuers())
    return _intel(world, path, query) if isinstance(world, IntelWorld) else None


def _amd(
    world: SNPWorld, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> Answer | None:
    if path == _THIM:
        return _azure(world, headers)
    found = _KDS.match(path)
    if found is None or found[2] != world.product.name:
        return None
    is_vlek = found[1] == "vlek"
    if found[3] == "crl":
        return Answer(200, world.crl())
    if found[3] == "cert_chain":
        return Answer(200, _chain(world, is_vlek=is_vlek), {"Content-Type": "text/plain"})
    if is_vlek or found[3].lower() != world.chip_id.hex():
        return Answer(404, b"Not Found")
    tcb = _tcb(query, has_fmc="fmc" in world.product.tcb)
    if tcb is None:
        return Answer(400, b"Bad Request")
    return Answer(200, world.leaf(tcb=tcb), {"Content-Type": "application/octet-stream"})


def _tcb(query: Mapping[str, str], *, has_fmc: bool) -> TCB | None:
    """The firmware that a certificate is asked for; None: the query does not say it."""
    names = _SPLS | ({"fmc": "fmcSPL"} if has_fmc else {})
    values = {part: query.get(name, "") for part, name in names.items()}
    if any(not _SPL.match(value) or int(value) > 255 for value in values.values()):
        return None
    fmc = int(values["fmc"]) if has_fmc else None
    return TCB(fmc, *(int(values[part]) for part in _SPLS))


def _chain(world: SNPWorld, *, is_vlek: bool) -> bytes:
    parts = (world.authority.issuer(is_vlek=is_vlek), world.authority.ark)
    return b"".join(one.public_bytes(Encoding.PEM) for one in parts)


def _azure(world: SNPWorld, headers: Mapping[str, str]) -> Answer:
    if headers.get("Metadata", "").lower() != "true":
        return Answer(400, b'{"error":"Bad request. Required metadata header not specified"}')
    tcb = world.tcb
    document = {
        "vcekCert": pem.armor("CERTIFICATE", world.leaf()).decode(),
        "tcbm": f"{tcb.microcode:02x}{tcb.snp:02x}00000000{tcb.tee:02x}{tcb.bootloader:02x}",
        "certificateChain": _chain(world, is_vlek=False).decode(),
        "cacheControl": "86400",
    }
    return Answer(200, dump_json(document), {"Content-Type": "application/json"})


def _intel(world: IntelWorld, path: str, query: Mapping[str, str]) -> Answer | None:
    if path == "/IntelSGXRootCA.der":
        return Answer(200, world.crl("root"))
    found = _PCS.match(path)
    if found is None:
        return None
    tee, what = found.groups()
    if what == "rootcacrl":
        return Answer(200, world.crl("root").hex().encode())
    if what == "pckcrl":
        return _pck_crl(world, query)
    if tee != world.tee:
        return None
    if what == "qe/identity":
        return _signed(world.identity(), "SGX-Enclave-Identity-Issuer-Chain", world)
    if query.get("fmspc", "").upper() != world.fmspc.hex().upper():
        return Answer(404)
    return _signed(world.tcb_info(), "TCB-Info-Issuer-Chain", world)


def _pck_crl(world: IntelWorld, query: Mapping[str, str]) -> Answer:
    ca = query.get("ca", "")
    if ca not in ("platform", "processor"):
        return Answer(400)
    crl = world.crl(ca)
    body = crl if query.get("encoding") == "der" else pem.armor("X509 CRL", crl)
    return Answer(200, body, {"SGX-PCK-CRL-Issuer-Chain": quote(world.chain(ca, "root"))})


def _signed(body: bytes, header: str, world: IntelWorld) -> Answer:
    chain = quote(world.chain("signing", "root"))
    return Answer(200, body, {"Content-Type": "application/json", header: chain})
