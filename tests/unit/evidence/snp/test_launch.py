# SPDX-License-Identifier: Apache-2.0
"""What goes into the measurement; how it is computed is sev-snp-measure's to know."""

import struct
import sys
from dataclasses import replace
from uuid import UUID

import pytest

from imagers.errors import FormatError, LocalError, Unsupported, UsageError
from imagers.evidence.snp.launch import Launch, measure_launch

TABLE = UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
RESET = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
HASHES = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
SIZE = 4 * 4096


def make_firmware(*, has_hashes=True):
    """An image with what SEV-SNP needs: where processors start, and which pages there are."""
    data = bytearray(SIZE)
    pages = [(0x800000, 4096, 1), (0x801000, 4096, 2), (0x802000, 4096, 3)]
    if has_hashes:
        pages.append((0x803000, 4096, 0x10))
    described = b"".join(struct.pack("<III", *one) for one in pages)
    described = struct.pack("<4sIII", b"ASEV", 16 + len(described), 1, len(pages)) + described
    data[1024 : 1024 + len(described)] = described
    entries = b""
    for guid, value in (
        (METADATA, struct.pack("<I", SIZE - 1024)),
        (HASHES, struct.pack("<II", 0x803000, 1024)),
        (RESET, struct.pack("<I", 0xFFFFF000)),
    ):
        entries += value + struct.pack("<H", len(value) + 18) + guid
    table = entries + struct.pack("<H", len(entries) + 18) + TABLE
    data[SIZE - 32 - len(table) : SIZE - 32] = table
    return bytes(data)


@pytest.fixture
def launch(tmp_path):
    for name, data in (("fd", make_firmware()), ("kernel", b"k" * 99), ("initrd", b"i")):
        (tmp_path / name).write_bytes(data)
    return Launch(
        firmware=tmp_path / "fd",
        vcpus=2,
        vcpu_type="EPYC-v4",
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        append="console=ttyS0",
    )


def test_each_part_of_a_launch_changes_the_measurement(launch, tmp_path):
    (tmp_path / "other").write_bytes(b"o")
    other = tmp_path / "other"
    launches = [
        launch,
        replace(launch, vcpus=3),
        replace(launch, vcpu_type="EPYC-Genoa"),
        replace(launch, kernel=other),
        replace(launch, initrd=other),
        replace(launch, append=""),
        replace(launch, guest_features=0x21),
        replace(launch, host="gce"),
        replace(launch, kernel=None, initrd=None, append=""),
    ]
    digests = [measure_launch(one) for one in launches]
    assert {len(one) for one in digests} == {48}
    assert len(set(digests)) == len(launches)
    assert measure_launch(launch) == digests[0]


def test_sev_measures_no_processors_and_es_does(launch):
    sev = replace(launch, tee="sev", vcpus=None, vcpu_type=None)
    assert measure_launch(sev) == measure_launch(replace(sev, vcpus=3))
    es = [measure_launch(replace(launch, tee="sev-es", vcpus=one)) for one in (2, 3)]
    others = [
        measure_launch(replace(one, append="x")) for one in (sev, replace(launch, tee="sev-es"))
    ]
    assert {len(one) for one in (measure_launch(sev), *es, *others)} == {32}
    assert len({measure_launch(sev), *es, *others}) == 5
    with pytest.raises(UsageError, match="expected a model"):
        measure_launch(replace(launch, tee="sev-es", vcpu_type=None))


def test_firmware_without_a_place_for_hashes_boots_no_kernel_that_is_measured(launch, tmp_path):
    (tmp_path / "fd").write_bytes(make_firmware(has_hashes=False))
    with pytest.raises(FormatError, match="SNP_KERNEL_HASHES") as caught:
        measure_launch(launch)
    assert "direct boot" in caught.value.hint


@pytest.mark.parametrize("data", [b"", bytes(100), bytes(SIZE), make_firmware()[:-1]])
def test_firmware_that_is_none_is_refused(launch, tmp_path, data):
    (tmp_path / "fd").write_bytes(data)
    with pytest.raises(FormatError, match="SNP firmware: it cannot be measured"):
        measure_launch(launch)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"vcpu_type": "Z80"}, "EPYC-Genoa, .* got 'Z80'"),
        ({"vcpus": 0}, "expected 1 to 4096 processors, got 0"),
        ({"kernel": None}, "belong to a kernel"),
        ({"kernel": None, "initrd": None}, "belong to a kernel"),
    ],
)
def test_launch_that_does_not_fit_together_is_refused(launch, change, piece):
    with pytest.raises(UsageError, match=piece):
        measure_launch(replace(launch, **change))


@pytest.mark.parametrize("part", ["firmware", "kernel", "initrd"])
def test_file_that_is_not_there_is_named(launch, tmp_path, part):
    with pytest.raises(LocalError) as caught:
        measure_launch(replace(launch, **{part: tmp_path / "none"}))
    assert caught.value.path == str(tmp_path / "none")


def test_without_the_package_its_extra_is_named(launch, monkeypatch):
    monkeypatch.setitem(sys.modules, "sevsnpmeasure.guest", None)
    with pytest.raises(Unsupported, match="sevsnpmeasure") as caught:
        measure_launch(launch)
    assert "[references]" in caught.value.hint
