# SPDX-License-Identifier: Apache-2.0
"""AMD's documents: what they say, who gives them, and how other tools keep them.

| name | document | path at AMD's key distribution service |
|---|---|---|
| `snp/PRODUCT/vcek.crl` | list of revoked certificates | `/vcek/v1/PRODUCT/crl`; so for vlek |
| `snp/PRODUCT/HASH.vcek` | certificate of a chip | `/vcek/v1/PRODUCT/CHIP?blSPL=..&teeSPL=..` |

Azure gives its own machines their certificate, and no lists: a source whose path has
`/metadata/THIM/` is asked as it wants to be. The id of a chip is in the URL of its certificate,
which logs and messages do not show.

Spec: AMD VCEK Certificate and KDS Interface Specification (57230) 1.00, chapters 4 and 5; Azure:
"Trusted Hardware Identity Management", the endpoint of the instance metadata service.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlencode, urlsplit

from cryptography import x509

from imagers.errors import FormatError
from imagers.evidence.collateral.directory import MAX_DOCUMENT, Document
from imagers.evidence.snp.certificates import (
    Authority,
    built_in,
    parse_authority,
    parse_leaf,
    vcek_name,
)
from imagers.evidence.snp.report import PRODUCTS, TCB, Product
from imagers.evidence.snp.revocation import crl_number, name_of_crl, parse_crl
from imagers.model.strict_json import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.evidence.collateral.directory import Vendor
    from imagers.evidence.snp.verify import SNPEvidence
    from imagers.net.http import HTTPClient

__all__ = ["AMD", "kds_path"]

_NAME = re.compile(r"snp/(\w+)/(?:(vcek|vlek)\.crl|[0-9a-f]{32}\.vcek)\Z", re.ASCII)
_THIM = "/metadata/THIM/"
_SPLS = {"bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
_TURIN_ID = 8  # bytes of a chip's id
_WHAT = "AMD collateral"


class AMD:
    """See `Vendor`.

    Args:
        roots: ASK, ARK and ASVK of one product in PEM, in place of AMD's: for tests only.
    """

    sources: ClassVar[tuple[str, ...]] = ("https://kdsintf.amd.com",)

    def __init__(self, roots: bytes | None = None) -> None:
        self._roots = roots

    def beside(self, name: str) -> tuple[str, ...]:
        """See `Vendor`: AMD's certificates come with imagers."""
        del name
        return ()

    def describe(self, name: str, documents: Mapping[str, bytes]) -> Document:
        """See `Vendor`."""
        data = documents[name]
        product, kind = _parse_name(name)
        authority = self._authority(product)
        if kind:
            crl = parse_crl(data, authority, is_vlek=kind == "vlek")
            end = crl.next_update_utc
            if end is None:
                raise FormatError("does not say when the next one comes", what=name)
            title = name_of_crl(product, is_vlek=kind == "vlek")
            return Document(title, crl.last_update_utc, end, crl_number(crl))
        leaf = parse_leaf(data, what=name)
        leaf.check_issuer(authority)
        if leaf.chip_id is None or vcek_name(product, leaf.chip_id, leaf.tcb) != name:
            raise FormatError("is of another chip, or of another version", what=name)
        return Document(f"VCEK of a {product.name}", leaf.not_before, leaf.not_after)

    def ask(
        self, client: HTTPClient, source: str, name: str, evidence: SNPEvidence
    ) -> dict[str, bytes]:
        """See `Vendor`."""
        _, kind = _parse_name(name)
        if _THIM in urlsplit(source).path:
            if kind:
                return {}
            answer = client.request(
                "GET", source, headers={"Metadata": "true"}, max_bytes=MAX_DOCUMENT
            )
            return {name: _of_azure(answer.body)}
        url = source.rstrip("/") + kds_path(name, evidence)
        return {name: client.request("GET", url, max_bytes=MAX_DOCUMENT).body}

    def find(self, data: bytes) -> dict[str, bytes]:
        """See `Vendor`: a VCEK in DER or PEM, or Azure's JSON.

        A list of revoked certificates does not say for which kind of key it is.
        """
        if data.lstrip()[:1] == b"{":
            data = _of_azure(data)
        try:
            leaf = parse_leaf(data, what=_WHAT)
        except FormatError:
            if _is_crl(data):
                raise FormatError(
                    "a list of revoked certificates does not say for which keys it is",
                    what=_WHAT,
                    hint="import it alone, with its name: --name snp/Genoa/vcek.crl, or vlek.crl",
                ) from None
            raise
        if leaf.chip_id is None:
            raise FormatError(
                "expected a VCEK, got a VLEK, which guests send themselves", what=_WHAT
            )
        return {vcek_name(leaf.made_for, leaf.chip_id, leaf.tcb): data}

    def _authority(self, product: Product) -> Authority:
        if self._roots is None:
            return built_in(product.name)
        return parse_authority(self._roots, product, what="test root")


def kds_path(name: str, evidence: SNPEvidence) -> str:
    """Path and query of a document at AMD's service, for the machine of the evidence.

    Raises:
        FormatError: the document is of no product that is known.
    """
    product, kind = _parse_name(name)
    if kind:
        return f"/{kind}/v1/{product.name}/crl"
    chip = evidence.report.octets("chip_id")
    tcb = evidence.report.tcb("reported_tcb", product)
    query = urlencode(_spls(tcb))
    return f"/vcek/v1/{product.name}/{chip[: _id_bytes(product)].hex()}?{query}"


def _spls(tcb: TCB) -> dict[str, str]:
    found = {} if tcb.fmc is None else {"fmcSPL": f"{tcb.fmc:02d}"}
    return found | {spl: f"{getattr(tcb, part):02d}" for part, spl in _SPLS.items()}


def _id_bytes(product: Product) -> int:
    return _TURIN_ID if "fmc" in product.tcb else 64


def _parse_name(name: str) -> tuple[Product, str]:
    """The product, and `vcek` or `vlek` for a list; "" for the certificate of a chip."""
    found = _NAME.match(name)
    if found is None or found[1] not in PRODUCTS:
        raise FormatError(f"there is no document {name[:100]!r}", what=_WHAT)
    return PRODUCTS[found[1]], found[2] or ""


def _of_azure(data: bytes) -> bytes:
    text = View.parse(data, what="Azure's certificates", max_bytes=MAX_DOCUMENT).text("vcekCert")
    return text.encode()


def _is_crl(data: bytes) -> bool:
    """Whether it is a list of revoked certificates, whoever made it."""
    try:
        x509.load_der_x509_crl(data)
    except (ValueError, x509.InvalidVersion):
        return False
    return True


if TYPE_CHECKING:
    _vendor: Vendor = AMD()
