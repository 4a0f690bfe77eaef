# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine, a confidential one of Azure: what its vTPM and Azure's service give.

    evidence = AzureSNPAttester().collect(ReportData(digest))

    vTPM       0x01400001 the paravisor's report, 0x81000003 its attestation key
    service    GET  /metadata/THIM/amd/certification   the certificate of the chip (VCEK)
               POST /acc/tdquote                       the quote of a TDREPORT

It is of version 1: the nonce of the quote is fresh, and the report is bound to the quote by its
key. In version 2 the report has the nonce too; the paravisor makes it at its leisure, and what is
known is the same.

Spec: Microsoft, "Azure Instance Metadata Service", THIM; Trustee, `az-snp-vtpm` version 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from asn1crypto import pem

from imagers.errors import LocalError, NoTEE
from imagers.evidence.azure.vtpm import HCL_SNP, HCL_TDX, parse_hcl_report
from imagers.evidence.tpm.collect import DEVICE, open_device
from imagers.evidence.tpm.commands import TPM
from imagers.evidence.tpm.structures import RSASSA, parse_signature
from imagers.model.base64 import decode_base64url, encode_base64url
from imagers.model.evidence import Evidence
from imagers.model.strict_json import View, dump_json
from imagers.net.http import HTTPClient, HTTPSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from imagers.evidence.azure.vtpm import HCLReport
    from imagers.model.evidence import Attester, ReportData
    from imagers.model.strict_json import JSON

__all__ = ["IMDS", "AzureSNPAttester", "AzureTDXAttester"]

IMDS = "http://169.254.169.254"
"""Azure's service for machines, which each of them reaches there and nobody from elsewhere."""
_REPORT, _AK = 0x01400001, 0x81000003
_VERSION = 1
_MAX_ANSWER = 64 * 1024
_TDREPORT_BYTES = 1024


class _AzureAttester(ABC):
    """See `Attester`.

    Args:
        device: of the vTPM.
        service: URL of Azure's service for machines.
        transmit: what speaks with a TPM, in place of the device.
    """

    tee: ClassVar[str]
    _kind: ClassVar[int]
    _part: ClassVar[str]

    def __init__(
        self,
        device: Path = DEVICE,
        service: str = IMDS,
        *,
        transmit: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._device = device
        self._service = service
        self._transmit = transmit

    def missing(self) -> str:
        """Why this machine is no such guest; "" if it is."""
        try:
            with self._open() as tpm:
                self._read(tpm)
        except (NoTEE, LocalError) as error:
            return str(error)
        return ""

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: this machine is none.
            LocalError: the vTPM refuses.
            RemoteError: Azure's service does not answer.
            FormatError: what they gave is something else.
        """
        with self._open() as tpm:
            raw, hcl = self._read(tpm)
            attest, signature, values = tpm.quote(_AK, report_data.digest)
        found = parse_signature(signature)
        if found.scheme != RSASSA:
            raise LocalError("expected a signature by RSASSA", path="the vTPM")
        body: dict[str, JSON] = {
            "version": _VERSION,
            "tpm_quote": {
                "signature": found.value.hex(),
                "message": attest.raw.hex(),
                "pcrs": [one.hex() for one in values],
            },
            "hcl_report": urlsafe_b64encode(raw).decode(),
            self._part: urlsafe_b64encode(self._ask(hcl)).decode(),
        }
        return Evidence(self.tee, body, report_data)

    @abstractmethod
    def _ask(self, hcl: HCLReport) -> bytes:
        """What Azure's service has for this machine."""

    def _answer(self, method: str, path: str, body: bytes | None = None) -> View:
        # Plain http: nobody is between a machine and its host, and what comes is signed.
        settings = HTTPSettings(insecure_http=True)
        headers = {"Metadata": "true"} | (
            {} if body is None else {"Content-Type": "application/json"}
        )
        with HTTPClient(settings) as client:
            answer = client.request(
                method, f"{self._service}{path}", headers=headers, body=body, max_bytes=_MAX_ANSWER,
                repeatable=True, named_by="Azure",
            )  # fmt: skip
        return View.parse(answer.body, what="answer of Azure", max_bytes=_MAX_ANSWER)

    def _read(self, tpm: TPM) -> tuple[bytes, HCLReport]:
        if not tpm.has(_REPORT):
            raise NoTEE(f"the TPM has no report of Azure's paravisor ({_REPORT:#010x})")
        raw = tpm.read_nv(_REPORT)
        hcl = parse_hcl_report(raw)
        if hcl.kind != self._kind:
            names = {HCL_SNP: "AMD SEV-SNP", HCL_TDX: "Intel TDX"}
            raise NoTEE(f"this machine of Azure is on {names[hcl.kind]}")
        return raw, hcl

    @contextmanager
    def _open(self) -> Iterator[TPM]:
        if self._transmit is not None:
            yield TPM(self._transmit)
            return
        with open_device(self._device) as transmit:
            yield TPM(transmit)


class AzureSNPAttester(_AzureAttester):
    """Evidence of a machine of Azure on AMD SEV-SNP."""

    tee = "az-snp-vtpm"
    _kind = HCL_SNP
    _part = "vcek"

    def _ask(self, hcl: HCLReport) -> bytes:
        del hcl
        answer = self._answer("GET", "/metadata/THIM/amd/certification")
        try:  # cryptography takes no serial number 0, which AMD's have
            _, _, der = pem.unarmor(answer.text("vcekCert").encode())
        except ValueError:
            raise answer.error("expected a certificate in PEM", "vcekCert") from None
        return bytes(der)


class AzureTDXAttester(_AzureAttester):
    """Evidence of a machine of Azure on Intel TDX."""

    tee = "az-tdx-vtpm"
    _kind = HCL_TDX
    _part = "td_quote"

    def _ask(self, hcl: HCLReport) -> bytes:
        report = encode_base64url(hcl.hardware[:_TDREPORT_BYTES])
        answer = self._answer("POST", "/acc/tdquote", dump_json({"report": report}))
        text = answer.text("quote").rstrip("=")
        return decode_base64url(text, what="quote of Azure", max_size=_MAX_ANSWER)


if TYPE_CHECKING:
    _attesters: tuple[Attester, ...] = (AzureSNPAttester(), AzureTDXAttester())
