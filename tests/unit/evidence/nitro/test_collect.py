# SPDX-License-Identifier: Apache-2.0
"""An enclave's document as the module gives it, by a double of the module's device."""

import ctypes
import errno
import struct

import cbor2
import pytest

from imagers.errors import FormatError, LocalError, NoTEE
from imagers.evidence.nitro.collect import NitroAttester
from imagers.evidence.nitro.verify import parse
from imagers.model.evidence import ReportData
from imagers.testing.evidence import NitroWorld

DIGEST = ReportData(b"d" * 48)


class Module:
    """Reads the request where the kernel is told that it is, and answers there."""

    def __init__(self, answer, size=None):
        self.answer, self.size = answer, size
        self.asked = None

    def __call__(self, _, code, call):
        assert code == 0xC0200A00
        at, length, answer_at, room = struct.unpack("=QQQQ", call)
        assert room == 0x3000
        self.asked = cbor2.loads(ctypes.string_at(at, length))
        data = self.answer(self.asked) if callable(self.answer) else self.answer
        ctypes.memmove(answer_at, data, len(data))
        size = len(data) if self.size is None else self.size
        call[:] = struct.pack("=QQQQ", at, length, answer_at, size)


@pytest.fixture
def device(tmp_path):
    (tmp_path / "nsm").touch()
    return tmp_path / "nsm"


def test_document_binds_the_report_data(device):
    world = NitroWorld(bytes(32))

    def answer(asked):
        return cbor2.dumps({"Attestation": {"document": world.document(**asked["Attestation"])}})

    module = Module(answer)
    attester = NitroAttester(device, ioctl=module)
    evidence = attester.collect(DIGEST)
    assert parse(evidence.body).user_data == b"d" * 48 + bytes(16)
    assert module.asked == {
        "Attestation": {"user_data": b"d" * 48 + bytes(16), "nonce": None, "public_key": None}
    }
    assert attester.missing() == ""


def test_answer_may_be_without_lengths(device):
    answer = b"\xbf\x6bAttestation\xbf\x68document\x43abc\xff\xff"
    evidence = NitroAttester(device, ioctl=Module(answer)).collect(DIGEST)
    assert evidence.body == {"document": "YWJj"}


@pytest.mark.parametrize(
    ("answer", "size", "error", "piece"),
    [
        (cbor2.dumps({"Error": "InvalidOperation"}), None, LocalError, "InvalidOperation"),
        (cbor2.dumps({"DescribePCR": {}}), None, FormatError, "Attestation: is missing"),
        (cbor2.dumps({"Attestation": {}}), None, FormatError, "document: is missing"),
        (cbor2.dumps("Error"), None, FormatError, "expected a map"),
        (b"", None, FormatError, "is not CBOR"),
        (b"\xa0\0", None, FormatError, "behind its end"),
        (b"\xa0", 0x3001, FormatError, "says that it has 12289 bytes"),
    ],
)
def test_answer_that_is_no_document_is_told(device, answer, size, error, piece):
    with pytest.raises(error, match=piece):
        NitroAttester(device, ioctl=Module(answer, size)).collect(DIGEST)


def test_kernel_that_refuses_is_told(device):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(LocalError, match=r"no document: .*[Ii]nput/output error"):
        NitroAttester(device, ioctl=refuse).collect(DIGEST)


def test_machine_that_is_no_enclave_is_told(tmp_path):
    attester = NitroAttester(tmp_path / "nsm")
    assert attester.missing() == f"there is no {tmp_path / 'nsm'}"
    with pytest.raises(NoTEE, match="there is no"):
        attester.collect(DIGEST)
    with pytest.raises(LocalError):
        NitroAttester(tmp_path).collect(DIGEST)  # a directory
