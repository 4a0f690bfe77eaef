# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine, an enclave of AWS Nitro: a document by the security module.

    evidence = NitroAttester().collect(ReportData(digest))

The module is a device that takes a request in CBOR and answers in CBOR:

    {"Attestation": {"user_data": bytes, "nonce": null, "public_key": null}}
    {"Attestation": {"document": bytes}}   or   {"Error": "InvalidArgument"}

The report data are the user data, 64 bytes with zeros behind.

Spec: aws-nitro-enclaves-nsm-api, src/api; Linux, include/uapi/linux/nsm.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import FormatError, LocalError, NoTEE
from imagers.evidence.nitro.document import MAX_DOCUMENT
from imagers.files import reason_of
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Evidence
from imagers.model.strict_cbor import CBORView

if TYPE_CHECKING:
    from collections.abc import Callable

    from imagers.model.evidence import Attester, ReportData

__all__ = ["NitroAttester"]

_DEVICE = Path("/dev/nsm")
_RAW = 0xC0200A00  # _IOWR(0x0A, 0, struct nsm_raw), of 32 bytes
_CALL = struct.Struct("=QQQQ")  # nsm_raw: address and length of request and response
_RESPONSE_BYTES = 0x3000  # NSM_RESPONSE_MAX_SIZE
_USER_DATA = 64


class NitroAttester:
    """See `Attester`.

    Args:
        device: the module.
        ioctl: what the kernel does; tests have their own.
    """

    tee: ClassVar[str] = "nitro"

    def __init__(
        self,
        device: Path = _DEVICE,
        *,
        ioctl: Callable[[int, int, bytearray], object] = fcntl.ioctl,
    ) -> None:
        self._device = device
        self._ioctl = ioctl

    def missing(self) -> str:
        """Why this machine is no such enclave; "" if it is."""
        return "" if self._device.exists() else f"there is no {self._device}"

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: this machine is none.
            LocalError: the kernel or the module refuses.
            FormatError: what it answers is no answer.
        """
        import cbor2

        data = report_data.digest.ljust(_USER_DATA, b"\0")
        asked = {"user_data": data, "nonce": None, "public_key": None}
        answer = self._ask(cbor2.dumps({"Attestation": asked}))
        view = CBORView.parse(
            answer, what="answer of the module", max_bytes=_RESPONSE_BYTES, open_ended=True
        )
        if "Error" in view:
            raise LocalError(
                f"the module gives no document: {view.text('Error')[:40]}", path=str(self._device)
            )
        document = view.map("Attestation").byte_string("document", max_size=MAX_DOCUMENT)
        return Evidence(self.tee, {"document": encode_base64(document)}, report_data)

    def _ask(self, request: bytes) -> bytes:
        """The answer to a request."""
        try:
            fd = os.open(self._device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoTEE(self.missing()) from None
        except OSError as error:
            raise LocalError(reason_of(error), path=str(self._device)) from error
        # Arrays stay where they are: the kernel is told their addresses.
        sent, answer = array("B", request), array("B", bytes(_RESPONSE_BYTES))
        call = bytearray(
            _CALL.pack(sent.buffer_info()[0], len(sent), answer.buffer_info()[0], len(answer))
        )
        try:
            self._ioctl(fd, _RAW, call)
        except OSError as error:
            raise LocalError(f"no document: {reason_of(error)}", path=str(self._device)) from error
        finally:
            os.close(fd)
        size = _CALL.unpack(call)[3]
        if size > len(answer):
            raise FormatError(f"says that it has {size} bytes", what="answer of the module")
        return answer[:size].tobytes()


if TYPE_CHECKING:
    _attester: Attester = NitroAttester()
