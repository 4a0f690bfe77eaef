# SPDX-License-Identifier: Apache-2.0
"""Names of Intel's documents, where they are to be had, and the forms that they come in.

    names("tdx", "B0C06F000000", "platform")
    sources("intel/pck-platform.crl", base="https://pccs.example:8081")
    documents("intel/tdx-qe-identity.json", body, headers)

| name | document |
|---|---|
| `intel/root-ca.crl` | revoked certificates below Intel's root, DER |
| `intel/pck-platform.crl`, `intel/pck-processor.crl` | revoked certificates of machines, DER |
| `intel/tdx-FMSPC.json`, `intel/sgx-FMSPC.json` | TCB info of a kind of machine, as it was sent |
| `intel/tdx-qe-identity.json`, `intel/sgx-qe-identity.json` | QE identity, as it was sent |
| the name of one of these with `.pem` | who signed it: the certificate and its issuer |

Signatures of the `.json` are over their text: it is never written anew. Nothing is verified here.

Spec: Intel PCS API version 4; PCCS has the same paths. Files: those of dcap-qvl (one object of nine
strings) and of Intel's PcsClientTool and PccsAdminTool (`platform_collaterals.json`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from imagers.errors import FormatError
from imagers.model.strict_json import View, dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PCS",
    "ROOT_CRL",
    "chain_name",
    "crl_name",
    "documents",
    "identity_name",
    "import_documents",
    "names",
    "sources",
    "tcb_info_name",
]

PCS = "https://api.trustedservices.intel.com"
ROOT_CRL = "intel/root-ca.crl"
_ROOT_CRL_URL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_NAME = re.compile(
    r"intel/(?:pck-(?P<ca>platform|processor)\.crl"
    r"|(?P<tee>tdx|sgx)-(?:(?P<identity>qe-identity)|(?P<fmspc>[0-9A-F]{12}))\.(?:json|pem))"
)
_FMSPC = re.compile(r"[0-9A-Fa-f]{12}")
_CHAINS = (
    "tcb-info-issuer-chain",
    "sgx-tcb-info-issuer-chain",
    "sgx-enclave-identity-issuer-chain",
)
_MAX_BYTES = 4 * 1024 * 1024
_PEM_CRL = re.compile(rb"-----BEGIN X509 CRL-----(.*)-----END X509 CRL-----\s*", re.DOTALL)
_WHAT = "Intel collateral"


def crl_name(ca: str) -> str:
    """The list of revoked certificates of `platform` or `processor`."""
    return f"intel/pck-{ca}.crl"


def tcb_info_name(tee: str, fmspc: str) -> str:
    """The TCB info of a kind of machine.

    Args:
        tee: `tdx` or `sgx`.
        fmspc: six bytes in hex.
    """
    return f"intel/{tee}-{fmspc.upper()}.json"


def identity_name(tee: str) -> str:
    """The identity of the quoting enclave of `tdx` or `sgx`."""
    return f"intel/{tee}-qe-identity.json"


def chain_name(name: str) -> str:
    """Who signed the document `name`."""
    return f"{name.removesuffix('.json')}.pem"


def names(tee: str, fmspc: str, ca: str) -> tuple[str, ...]:
    """All that a quote needs: of this TEE, kind of machine, and issuer of its certificate."""
    info, identity = tcb_info_name(tee, fmspc), identity_name(tee)
    return ROOT_CRL, crl_name(ca), info, chain_name(info), identity, chain_name(identity)


def sources(name: str, base: str = PCS) -> tuple[str, ...]:
    """Where a document is to be had, best first; a `.pem` comes in the headers of its `.json`.

    Args:
        base: Intel's service, or the scheme, host and port of a PCCS.

    Raises:
        FormatError: `name` is none of Intel's.
    """
    base = base.rstrip("/")
    if name == ROOT_CRL:
        own = (f"{base}/sgx/certification/v4/rootcacrl",) if base != PCS else ()
        return *own, _ROOT_CRL_URL
    found = _NAME.fullmatch(name)
    if found is None:
        raise FormatError(f"expected the name of a document, got {name[:80]!r}", what=_WHAT)
    if ca := found["ca"]:
        return (f"{base}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der",)
    service = f"{base}/{found['tee']}/certification/v4"
    if found["identity"]:
        return (f"{service}/qe/identity",)
    return (f"{service}/tcb?fmspc={found['fmspc']}",)


def documents(name: str, body: bytes, headers: Mapping[str, str]) -> dict[str, bytes]:
    """The document of a response, and with a `.json` who signed it.

    Args:
        name: what was asked for.
        headers: of the response, their names in any case.

    Raises:
        FormatError: it is not in the response.
    """
    if name.endswith(".crl"):
        return {name: _crl(body, name)}
    lower = {key.lower(): value for key, value in headers.items()}
    chain = next((lower[one] for one in _CHAINS if one in lower), None)
    if chain is None:
        raise FormatError("expected a header with the chain of its issuer, got none", what=name)
    document = name.replace(".pem", ".json")
    return {document: body, chain_name(document): unquote_to_bytes(chain)}


def import_documents(data: bytes) -> dict[str, bytes]:
    """The documents in a file of dcap-qvl, PcsClientTool or PccsAdminTool, by their names.

    Raises:
        FormatError: it is neither, or a part of it is none.
    """
    view = View.parse(data, what=_WHAT, max_bytes=_MAX_BYTES)
    return _of_tool(view.object("collaterals")) if "collaterals" in view else _of_dcap_qvl(view)


def _of_dcap_qvl(view: View) -> dict[str, bytes]:
    found = {ROOT_CRL: _crl(view.text("root_ca_crl").encode(), ROOT_CRL)}
    crl = _crl(view.text("pck_crl").encode(), "pck_crl")
    found[crl_name("platform" if b"PCK Platform CA" in crl else "processor")] = crl
    info = view.text("tcb_info")
    inner = View.parse(info.encode(), what="tcb_info", max_bytes=_MAX_BYTES)
    tee = "tdx" if inner.text("id") == "TDX" else "sgx"
    name = tcb_info_name(tee, _fmspc(inner))
    for path, member, text in (
        (name, "tcb_info", info),
        (identity_name(tee), "qe_identity", view.text("qe_identity")),
    ):
        outer = "tcbInfo" if member == "tcb_info" else "enclaveIdentity"
        signature = view.text(f"{member}_signature")
        found[path] = f'{{"{outer}":{text},"signature":"{signature}"}}'.encode()
        found[chain_name(path)] = view.text(f"{member}_issuer_chain").encode()
    return found


def _of_tool(view: View) -> dict[str, bytes]:
    found = {ROOT_CRL: _crl(view.text("rootcacrl").encode(), ROOT_CRL)}
    lists = view.object("pckcacrl", null_is_empty=True)
    for ca in ("platform", "processor"):
        if text := lists.optional_text(f"{ca}Crl"):
            found[crl_name(ca)] = _crl(text.encode(), crl_name(ca))
    signers = view.object("certificates")
    chains = {key.lower(): value for key, value in signers.value.items() if isinstance(value, str)}
    for info in view.objects("tcbinfos"):
        for tee in ("tdx", "sgx"):
            chosen = _standard_or_early(info, f"{tee}_tcbinfo")
            if chosen is not None:
                name = tcb_info_name(tee, _fmspc(info))
                found |= _of_pair(name, chosen, chains, _CHAINS[:2])
    for tee, member in (("tdx", "tdqeidentity"), ("sgx", "qeidentity")):
        chosen = _standard_or_early(view, member)
        if chosen is not None:
            found |= _of_pair(identity_name(tee), chosen, chains, _CHAINS[2:])
    return found


def _standard_or_early(view: View, member: str) -> bytes | None:
    """A signed document: text, or an object, which was Intel's text before it was read."""
    for one in (member, f"{member}_early"):
        value = view.value.get(one)
        if isinstance(value, str) and value:
            return value.encode()
        if isinstance(value, dict):
            return dump_json(value)  # Intel writes JSON without spaces, members in an own order
    return None


def _of_pair(
    name: str, text: bytes, chains: Mapping[str, str], headers: tuple[str, ...]
) -> dict[str, bytes]:
    chain = next((chains[one] for one in headers if one in chains), None)
    if chain is None:
        raise FormatError(f"expected the chain {headers[0]}, got none", what=_WHAT)
    return {name: text, chain_name(name): unquote_to_bytes(chain)}


def _fmspc(view: View) -> str:
    text = view.text("fmspc")
    if not _FMSPC.fullmatch(text):
        raise view.error("expected six bytes in hex", "fmspc")
    return text


def _crl(data: bytes, what: str) -> bytes:
    """The DER of a list that is DER, PEM, or one of them in hex or base64."""
    from base64 import b64decode
    from binascii import Error, unhexlify

    if len(data) > _MAX_BYTES:
        raise FormatError(f"expected at most {_MAX_BYTES} bytes, got {len(data)}", what=what)
    text = data.strip()
    try:
        if re.fullmatch(rb"[0-9A-Fa-f]+", text):
            text = unhexlify(text)
        if found := _PEM_CRL.fullmatch(text):
            return b64decode(found[1])
    except Error:
        text = b""
    if not text.startswith(b"\x30"):
        raise FormatError("expected a list of revoked certificates in DER, PEM or hex", what=what)
    return data if data.startswith(b"\x30") else text
