# SPDX-License-Identifier: Apache-2.0
"""Intel's documents as collateral: what they say, who gives them, how other tools keep them.

A source is Intel's service or a server with its paths: a PCCS, Azure's or Alibaba's cache. TCB info
and QE identity come with their signers, and stand beside them. Who issues the certificates of
machines is in quotes alone: a list of revoked ones is verified when it is asked for, which is for a
quote, and without one the issuer's name is compared.

Spec: Intel PCS API version 4.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cryptography import x509

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError, RemoteError
from imagers.evidence.collateral.directory import MAX_DOCUMENT, Document
from imagers.evidence.intel.certificates import (
    CRL,
    UNREADABLE,
    read_crl,
    read_signer,
    verified_pck,
)
from imagers.evidence.intel.collateral import (
    PCS,
    ROOT_CRL,
    chain_name,
    crl_name,
    documents,
    import_documents,
    sources,
)
from imagers.evidence.intel.documents import read_identity, read_tcb_info
from imagers.evidence.intel.engine import root_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imagers.evidence.collateral.directory import Vendor
    from imagers.evidence.intel.quote import Quote
    from imagers.net.http import HTTPClient

__all__ = ["Intel"]

_LIST = re.compile(r"intel/pck-(platform|processor)\.crl\Z")
_SIGNED = re.compile(r"intel/(tdx|sgx)-(?:(qe-identity)|([0-9A-F]{12}))\.json\Z")
_WHAT = "Intel collateral"


class Intel:
    """See `Vendor`.

    Args:
        roots: the one root in PEM, in place of Intel's: for tests only.
    """

    sources: ClassVar[tuple[str, ...]] = (PCS,)

    def __init__(self, roots: bytes | None = None) -> None:
        self._roots = roots

    def beside(self, name: str) -> tuple[str, ...]:
        """See `Vendor`."""
        return (chain_name(name),) if name.endswith(".json") else ()

    def describe(self, name: str, documents: Mapping[str, bytes]) -> Document:
        """See `Vendor`. Of the lists for machines, only the name of the issuer is compared."""
        data = documents[name]
        if name == ROOT_CRL:
            crl = _read_list(data, root_of(self._roots), name)
            return Document("revoked certificates of Intel", crl.begin, crl.end, crl.number)
        if found := _LIST.match(name):
            return _describe_list(data, found[1], name)
        signed = _SIGNED.match(name)
        if signed is None:
            raise FormatError(f"there is no document {name[:100]!r}", what=_WHAT)
        tee: Literal["tdx", "sgx"] = "tdx" if signed[1] == "tdx" else "sgx"
        signer = read_signer(documents[chain_name(name)], root_of(self._roots), chain_name(name))
        if signed[2]:
            period = read_identity(data, signer, tee).period
        else:
            info = read_tcb_info(data, signer, tee)
            if info.fmspc.hex().upper() != signed[3]:
                raise FormatError("is of another kind of machine", what=name)
            period = info.period
        return Document(period.what, period.begin, period.end, period.evaluation)

    def ask(self, client: HTTPClient, source: str, name: str, evidence: Any) -> dict[str, bytes]:
        """See `Vendor`.

        Raises:
            EvidenceRejected: a list is not signed by the issuer of this machine's certificate.
        """
        failed: RemoteError | None = None
        for url in sources(name, source.rstrip("/")):
            try:
                answer = client.request("GET", url, max_bytes=MAX_DOCUMENT)
            except RemoteError as error:
                failed = failed or error
                continue
            found = documents(name, answer.body, answer.headers)
            if _LIST.match(name):
                self._check_list(found[name], getattr(evidence, "quote", evidence), name)
            return found
        assert failed is not None  # each document has a URL
        raise failed

    def _check_list(self, data: bytes, quote: Quote, name: str) -> None:
        pck = verified_pck(quote.chain, root_of(self._roots))
        _read_list(data, pck.issuer.certificate, name)

    def find(self, data: bytes) -> dict[str, bytes]:
        """See `Vendor`: a list in DER, or the JSON of dcap-qvl or of PcsClientTool."""
        if data.lstrip()[:1] == b"{":
            return import_documents(data)
        issuer = _issuer_of(data)
        for title, name in (
            ("Intel SGX Root CA", ROOT_CRL),
            ("Intel SGX PCK Platform CA", crl_name("platform")),
            ("Intel SGX PCK Processor CA", crl_name("processor")),
        ):
            if title == issuer:
                return {name: data}
        raise FormatError("is no document of Intel", what=_WHAT)


def _read_list(data: bytes, issuer: x509.Certificate, name: str) -> CRL:
    try:
        return read_crl(data, issuer, name)
    except CouldNotVerify as error:  # it is not of all certificates
        raise FormatError(str(error), what=name) from None


def _describe_list(data: bytes, ca: str, name: str) -> Document:
    expected = f"Intel SGX PCK {ca.capitalize()} CA"
    try:
        crl = x509.load_der_x509_crl(data)
        begin, end = crl.last_update_utc, crl.next_update_utc
        numbers = [one.value for one in crl.extensions]
    except UNREADABLE:
        raise FormatError("is no list that can be read", what=name) from None
    if _issuer_of(data) != expected:
        raise EvidenceRejected(f"the list {name} is not of {expected}")
    if end is None:
        raise FormatError("does not say when the next one comes", what=name)
    number = next((one.crl_number for one in numbers if isinstance(one, x509.CRLNumber)), None)
    return Document(f"revoked machines, {ca}", begin, end, number)


def _issuer_of(der: bytes) -> str:
    """The common name of who issued a list; "" for what is none."""
    try:
        names = x509.load_der_x509_crl(der).issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except UNREADABLE:
        return ""
    return str(names[0].value) if names else ""


if TYPE_CHECKING:
    _vendor: Vendor = Intel()
