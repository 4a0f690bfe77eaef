# SPDX-License-Identifier: Apache-2.0
"""Evidence as the kernel gives it, by doubles of the kernel: the verifier says yes to it."""

import ctypes
import errno
import struct
from pathlib import Path
from uuid import UUID

import pytest

from imagers.errors import FormatError, LocalError, NoTEE
from imagers.evidence.judge import judge_parsed
from imagers.evidence.snp.collect import SNPAttester, certificates_of
from imagers.evidence.snp.verify import SNPVerifier
from imagers.model.evidence import Bound, ReportData
from tests.unit.evidence.snp.conftest import NOW
from tests.unit.evidence.test_tsm import FakeKernel

VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
ASK = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
OTHER = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"
DIGEST = ReportData(b"d" * 48)


def make_table(*entries):
    at = 24 * (len(entries) + 1)
    head, body = b"", b""
    for guid, data in entries:
        head += UUID(guid).bytes + struct.pack("<II", at + len(body), len(data))
        body += data
    return head + bytes(24) + body


def attester(world, table, **changes):
    kernel = FakeKernel(
        "sev_guest", lambda inblob: world.report(report_data=inblob, **changes), aux=table
    )
    return SNPAttester(kernel=kernel)


def is_good(world, evidence):
    verifier = SNPVerifier(roots=world.roots)
    claims = judge_parsed(
        verifier,
        verifier.parse(evidence.body),
        bound=Bound(report_data=DIGEST.digest),
        read=world.collateral().get,
        now=NOW,
    )
    return claims.report_data.startswith(DIGEST.digest.hex())


@pytest.mark.parametrize("form", ["der", "pem", "none"])
def test_evidence_of_the_kernel_verifies(world, as_pem, form):
    der = world.leaf()
    table = {
        "der": make_table((VCEK, der), (OTHER, b"crl"), (ASK, b"\x30\x00")),
        "pem": make_table((VCEK, as_pem(der) + as_pem(b"\x30\x00"))),
        "none": b"",
    }[form]
    evidence = attester(world, table).collect(DIGEST)
    assert is_good(world, evidence)
    kinds = [one["cert_type"] for one in evidence.body["cert_chain"] or ()]
    assert kinds == {"der": ["VCEK", "ASK"], "pem": ["VCEK"], "none": []}[form]
    assert evidence.body["cert_chain"] or evidence.body["cert_chain"] is None


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_evidence_of_each_version_is_rebuilt_to_the_same_bytes(genoa, version):
    evidence = attester(genoa, make_table((VCEK, genoa.leaf())), version=version).collect(DIGEST)
    assert is_good(genoa, evidence)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(UUID(VCEK).bytes + struct.pack("<II", 48, 1) + bytes(24), id="one too far"),
        pytest.param(UUID(VCEK).bytes + struct.pack("<II", 2**32 - 1, 2**32 - 1), id="far out"),
        pytest.param(make_table((VCEK, b"-----BEGIN CERTIFICATE-----\nx")), id="half a pem"),
        pytest.param(make_table(*[(OTHER, b"")] * 33), id="too many"),
    ],
)
def test_certificate_table_that_is_wrong_is_refused(table):
    with pytest.raises(FormatError, match="certificate table"):
        list(certificates_of(table))


def test_certificate_table_may_be_cut_behind_its_last_entry():
    assert list(certificates_of(b"")) == []
    assert list(certificates_of(bytes(10))) == []
    assert list(certificates_of(make_table((VCEK, b"")))) == []


class FakeDevice:
    """`/dev/sev-guest`: reads what the request points to, and writes where it says."""

    def __init__(self, world, table=b"", *, status=0, error=0):
        self.world, self.table, self.status, self.error = world, table, status, error

    def __call__(self, fd, request, call):
        assert request == 0xC0205302
        assert fd > 2
        version, data_at, response_at, _ = struct.unpack("<B7xQQQ", call)
        assert version == 1
        data, vmpl, table_at, table_size = struct.unpack(
            "<64sI28xQI4x", ctypes.string_at(data_at, 112)
        )
        assert (vmpl, table_size % 4096) == (0, 0)
        report = self.world.report(report_data=data)
        answer = struct.pack("<II24x", self.status, len(report)) + report
        ctypes.memmove(response_at, answer, len(answer))
        ctypes.memmove(table_at, self.table, len(self.table))
        call[24:32] = struct.pack("<Q", self.error)


@pytest.fixture
def nodes(tmp_path):
    """Where there is a device and no configfs-tsm."""
    (tmp_path / "sev-guest").write_bytes(b"")
    return tmp_path / "no tsm", tmp_path / "sev-guest"


def test_device_of_an_older_kernel_gives_report_and_certificates(genoa, nodes):
    device = FakeDevice(genoa, make_table((VCEK, genoa.leaf())))
    one = SNPAttester(*nodes, ioctl=device)
    evidence = one.collect(DIGEST)
    assert is_good(genoa, evidence)
    assert [entry["cert_type"] for entry in evidence.body["cert_chain"]] == ["VCEK"]
    assert one.missing() == ""


@pytest.mark.parametrize("fault", [{"status": 0x16}, {"error": 2 << 32}])
def test_device_that_gives_none_says_its_codes(genoa, nodes, fault):
    with pytest.raises(LocalError, match="no report: expected status 0"):
        SNPAttester(*nodes, ioctl=FakeDevice(genoa, **fault)).collect(DIGEST)


def test_device_that_refuses_is_named(nodes):
    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    with pytest.raises(LocalError, match="no report: invalid argument") as caught:
        SNPAttester(*nodes, ioctl=refuse).collect(DIGEST)
    assert caught.value.path == str(nodes[1])


def test_machine_that_is_none_says_where_it_was_looked_for(tmp_path):
    one = SNPAttester(tmp_path / "tsm", Path("/dev/none"))
    with pytest.raises(NoTEE, match=r"tsm: no such file or directory; there is no /dev/none"):
        one.collect(DIGEST)
    assert "there is no /dev/none" in one.missing()
