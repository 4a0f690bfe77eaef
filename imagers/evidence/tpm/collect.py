# SPDX-License-Identifier: Apache-2.0
"""Evidence of this machine by its TPM: a quote of all registers, and the firmware's event log.

    evidence = TPMAttester().collect(ReportData(digest))

The key is the one at 0x81010002, where Trustee's guests have theirs; `imagers attest ak request`
makes one, and `enrol` says what it is worth. The device is the kernel's, with its resource manager.

Spec: Linux, Documentation/security/tpm; guest-components, attester `tpm`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from imagers.errors import FormatError, LocalError, NoTEE
from imagers.evidence.ccel import ALGORITHMS, MAX_LOG, join_logs, make_header, parse_event_log
from imagers.evidence.measure import AGENT_LOG, reading_log
from imagers.evidence.tpm.commands import AK_TEMPLATE, ENDORSEMENT, TPM
from imagers.evidence.tpm.enrol import Request
from imagers.evidence.tpm.structures import parse_public, spki_of
from imagers.files import reason_of
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from imagers.evidence.measure import Register
    from imagers.evidence.tpm.enrol import Challenge
    from imagers.model.evidence import Attester, ReportData
    from imagers.model.strict_json import JSON

__all__ = [
    "AK_HANDLE",
    "DEVICE",
    "MEASURED",
    "PCR",
    "TPMAttester",
    "answer_challenge",
    "make_request",
    "open_device",
    "read_log",
]

AK_HANDLE = 0x81010002
DEVICE = Path("/dev/tpmrm0")
MEASURED = (14, 15)
"""Registers for what a guest measures itself. None that a machine is known by (`quote.BOOT_CHAIN`),
that grows with what runs (10), or that somebody can reset (16 and above)."""
_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
_NONCE_BYTES = 32
_MAX_ANSWER = 4096
_HEAD = 10
_EK_CERTIFICATES = (0x01C00002, 0x01C0000A)
"""Of an RSA key, and of one on P-256: TCG EK Credential Profile 2.5, section 2.2.1."""


@contextmanager
def open_device(path: Path = DEVICE) -> Iterator[Callable[[bytes], bytes]]:
    """The `transmit` of a TPM's device, until the block ends.

    Raises:
        NoTEE: there is none.
        LocalError: it may not be used, or the kernel refuses.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoTEE(f"there is no {path}") from None
    except OSError as error:
        raise LocalError(
            reason_of(error), path=str(path), hint="a TPM is for root, or the group 'tss', to use"
        ) from error

    def transmit(command: bytes) -> bytes:
        try:
            if os.write(fd, command) != len(command):
                raise LocalError("took a command in part", path=str(path))
            answer = os.read(fd, _MAX_ANSWER)
            # One read gives all of it from a TPM, and parts through what passes it on.
            while (left := _missing(answer)) and (piece := os.read(fd, left)):
                answer += piece
        except OSError as error:
            raise LocalError(reason_of(error), path=str(path)) from error
        return answer

    try:
        yield transmit
    finally:
        os.close(fd)


def _missing(answer: bytes) -> int:
    if len(answer) < _HEAD:
        return _HEAD - len(answer)
    return max(0, min(int.from_bytes(answer[2:6]), _MAX_ANSWER) - len(answer))


def make_request(tpm: TPM, handle: int = AK_HANDLE, certificate: bytes | None = None) -> Request:
    """What this machine asks an operator with; a key is made where there is none.

    Args:
        certificate: of the endorsement key, DER; None: the one that is in the TPM.

    Raises:
        NoTEE: there is none in it.
        LocalError: the TPM refuses.
    """
    if certificate is None:
        certificate = _certificate(tpm)
    if not tpm.has(handle):
        with tpm.primary(ENDORSEMENT, AK_TEMPLATE) as key:
            tpm.persist(key, handle)
    return Request(certificate, parse_public(tpm.read_public(handle)))


def answer_challenge(tpm: TPM, challenge: Challenge, handle: int = AK_HANDLE) -> bytes:
    """The secret of a challenge.

    Raises:
        LocalError: the TPM refuses; it is for another one, or for another key.
    """
    with tpm.primary(ENDORSEMENT, challenge.template) as key:
        return tpm.activate_credential(handle, key, challenge.blob, challenge.seed)


def _certificate(tpm: TPM) -> bytes:
    for index in _EK_CERTIFICATES:
        if tpm.has(index):
            data = tpm.read_nv(index)
            # The place can be longer than the certificate.
            return data[: 4 + int.from_bytes(data[2:4])] if data[:2] == b"\x30\x82" else data
    raise NoTEE(
        "the TPM has no certificate of its endorsement key",
        hint="'imagers attest ak request --ek-certificate FILE' takes it from a file",
    )


class TPMAttester:
    """See `Attester`.

    Args:
        device: of the TPM.
        handle: of the attestation key.
        log: of the firmware; one that is not there is left out.
        agent_log: records of what was measured since.
        transmit: what speaks with a TPM, in place of the device.
    """

    tee: ClassVar[str] = "tpm"

    def __init__(
        self,
        device: Path = DEVICE,
        handle: int = AK_HANDLE,
        log: Path = _LOG,
        agent_log: Path = AGENT_LOG,
        *,
        transmit: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._device = device
        self._handle = handle
        self._log = log
        self._agent_log = agent_log
        self._transmit = transmit

    def missing(self) -> str:
        """Why this machine has no such key; "" if it has."""
        try:
            with self._open() as tpm:
                if tpm.has(self._handle):
                    return ""
        except (NoTEE, LocalError) as error:
            return str(error)
        return f"the TPM has no key at {self._handle:#x}"

    def collect(self, report_data: ReportData) -> Evidence:
        """See `Attester`.

        Raises:
            NoTEE: there is no TPM, or no key in it.
            LocalError: the TPM refuses, or the log cannot be read.
            FormatError: what they gave is something else.
        """
        nonce = report_data.digest[:_NONCE_BYTES].ljust(_NONCE_BYTES, b"\0")
        with reading_log(self._agent_log) as agent, self._open() as tpm:
            if not tpm.has(self._handle):
                raise NoTEE(
                    f"the TPM has no key at {self._handle:#x}",
                    hint="'imagers attest ak request' makes one",
                )
            public = parse_public(tpm.read_public(self._handle))
            attest, signature, values = tpm.quote(self._handle, nonce)
        log = read_log(self._log)
        if agent:
            log = join_logs(make_header(ALGORITHMS.values()) if log is None else log, agent)
        body: dict[str, JSON] = {
            "ak_public": encode_base64(spki_of(public.key)),
            "tpm_quote": {
                "signature": encode_base64(signature),
                "message": encode_base64(attest.raw),
                "pcrs": [one.hex() for one in values],
            },
            "event_log": None if log is None else encode_base64(log),
        }
        return Evidence(self.tee, body, report_data)

    def _open(self) -> AbstractContextManager[TPM]:
        return _opened(self._device, self._transmit)


@contextmanager
def _opened(device: Path, transmit: Callable[[bytes], bytes] | None) -> Iterator[TPM]:
    if transmit is not None:
        yield TPM(transmit)
        return
    with open_device(device) as opened:
        yield TPM(opened)


@dataclass(frozen=True, slots=True)
class PCR:
    """A register of the TPM. See `Register`.

    Attributes:
        number: see `MEASURED`.
        device: of the TPM.
        transmit: what speaks with a TPM, in place of the device.
    """

    number: int
    device: Path = DEVICE
    transmit: Callable[[bytes], bytes] | None = None
    algorithm: ClassVar[str] = "SHA-256"
    counts_no_action: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """See `Register`."""
        return f"PCR {self.number}"

    @property
    def index(self) -> int:
        """See `Register`."""
        return self.number

    def read(self) -> bytes:
        """See `Register`; raises as `open_device`."""
        with _opened(self.device, self.transmit) as tpm:
            return tpm.read_pcrs()[self.number]

    def banks(self) -> tuple[str, ...]:
        """See `Register`; raises as `open_device`."""
        with _opened(self.device, self.transmit) as tpm:
            found = tpm.banks(self.number)
        names = tuple(ALGORITHMS.get(one, "") for one in found)
        if not all(names):
            shown = ", ".join(f"{one:#06x}" for one in found)
            raise LocalError(
                f"{self.name} has a bank that is not known here: {shown}", path="the TPM"
            )
        return names

    def extend(self, digests: Mapping[str, bytes]) -> None:
        """See `Register`; raises as `open_device`."""
        by_number = {bank: digests[name] for bank, name in ALGORITHMS.items() if name in digests}
        with _opened(self.device, self.transmit) as tpm:
            tpm.extend(self.number, by_number)


def read_log(path: Path = _LOG) -> bytes | None:
    """The firmware's log; None: there is none, or it has digests of SHA-1 alone.

    Raises:
        LocalError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_LOG + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalError(reason_of(error), path=str(path)) from error
    try:
        events = parse_event_log(data)
    except FormatError:
        return None  # of the older form, for SHA-1: nothing in it is bound to what is quoted
    return data if all("SHA-256" in one.digests for one in events) else None


if TYPE_CHECKING:
    _attester: Attester = TPMAttester()
    _register: Register = PCR(MEASURED[0])
