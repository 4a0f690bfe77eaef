# SPDX-License-Identifier: Apache-2.0
"""Evidence as the device gives it, by doubles of the kernel: the verifier says yes to it."""

import ctypes
import errno
import struct

import pytest
from cryptography.hazmat.primitives import hashes

from imagers.errors import LocalError, NoTEE
from imagers.evidence.csv.collect import CSVAttester
from imagers.evidence.csv.verify import CSVVerifier
from imagers.evidence.judge import judge_evidence
from imagers.model.evidence import Bound, ReportData
from imagers.testing.evidence.csv import remask
from imagers.testing.evidence.eventlog import BOOT, event_log, replay
from tests.unit.evidence.csv.conftest import NOW

DIGEST = ReportData(b"d" * 48)


def sm3(data):
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize()


class Device:
    """The driver and the firmware behind it."""

    def __init__(self, world, *, version=2, knows_long=True, change=lambda raw: raw):
        self.world, self.version, self.knows_long, self.change = world, version, knows_long, change
        self.asked = []

    def __call__(self, fd, number, call):
        assert fd >= 0
        assert number == 0xC0104401
        address, length = struct.unpack("<QI4x", call)
        page = (ctypes.c_char * length).from_address(address)
        data, nonce, digest = page.raw[:64], page.raw[64:80], page.raw[80:112]
        assert digest == sm3(data + nonce)
        is_long = page.raw[112:132] == b"ATTESTATION_EXT\0" + struct.pack("<I", 1)
        self.asked.append(is_long)
        if is_long and not self.knows_long:
            raise OSError(errno.EINVAL, "Invalid argument")
        version = self.version if is_long else 1
        registers = {}
        if version == 2:
            values = enumerate(replay(BOOT, algorithm="SM3"), 1)
            registers = {f"rtmr{number}": value for number, value in values}
        raw = self.world.report(version=version, report_data=data, mnonce=nonce, **registers)
        page.raw = self.change(raw).ljust(length, b"\0")
        return 0


@pytest.fixture
def attest(world, tmp_path):
    def made(**options):
        (tmp_path / "csv-guest").write_bytes(b"")
        (tmp_path / "ccel").write_bytes(event_log(BOOT, algorithm="SM3"))
        device = Device(world, **options)
        attester = CSVAttester(
            tmp_path / "csv-guest", tmp_path / "ccel", tmp_path / "none", ioctl=device
        )
        return attester, device

    return made


@pytest.mark.parametrize(
    ("options", "asked", "version"),
    [
        ({}, [True], "2"),
        ({"version": 1}, [True], "1"),
        ({"knows_long": False}, [True, False], "1"),
    ],
    ids=["new firmware", "firmware that passes it over", "firmware that refuses it"],
)
def test_evidence_of_the_device_verifies(world, attest, options, asked, version):
    attester, device = attest(**options)
    assert attester.missing() == ""
    evidence = attester.collect(DIGEST)
    assert device.asked == asked
    verifier = CSVVerifier(roots=world.roots)
    claims = judge_evidence(
        verifier,
        evidence.body,
        bound=Bound(DIGEST.digest),
        read=world.collateral().get,
        now=NOW,
    )
    assert claims.values["version"] == version
    assert ("uefi_event_logs" in claims.values) == (version == "2")


def test_machine_without_the_device_is_none(tmp_path):
    attester = CSVAttester(tmp_path / "none")
    assert "there is no" in attester.missing()
    with pytest.raises(NoTEE, match="there is no"):
        attester.collect(DIGEST)


def flip(at):
    def change(raw):
        changed = bytearray(raw)
        changed[at] ^= 1
        return bytes(changed)

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: remask(raw, b"\x01\0\0\0"),
        flip(64),
        flip(128),
        flip(336 + 100),
        flip(2420),
        flip(2547),
    ],
    ids=["all at once", "report data", "nonce", "PEK", "serial number", "MAC"],
)
def test_report_that_was_changed_on_its_way_is_noticed(attest, change):
    attester, _ = attest(version=1, change=change)
    with pytest.raises(LocalError, match="was changed on its way from the firmware"):
        attester.collect(DIGEST)


def test_kernel_that_refuses_is_told(attest, tmp_path):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    attest()
    attester = CSVAttester(tmp_path / "csv-guest", ioctl=refuse)
    with pytest.raises(LocalError, match="no report: input/output error"):
        attester.collect(DIGEST)
    (tmp_path / "csv-guest").unlink()
    (tmp_path / "csv-guest").mkdir()
    with pytest.raises(LocalError, match="directory"):
        attester.collect(DIGEST)
