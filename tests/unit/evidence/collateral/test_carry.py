# SPDX-License-Identifier: Apache-2.0
import io
import os
import tarfile
from datetime import timedelta

import pytest

from imagers.errors import EvidenceRejected, FormatError, LocalError
from imagers.evidence.collateral.carry import _files, bring, pack
from imagers.evidence.collateral.directory import MAX_DOCUMENT, CollateralDirectory
from imagers.evidence.collateral.fetch import Keeper
from imagers.evidence.snp.certificates import vcek_name
from tests.unit.evidence.snp.conftest import NOW, leaf_of

CRL = "snp/Genoa/vcek.crl"


@pytest.fixture
def keeper(tmp_path, genoa):
    return Keeper(CollateralDirectory(tmp_path / "collateral"), NOW, genoa.roots)


@pytest.fixture
def name(genoa):
    leaf = leaf_of(genoa)
    return vcek_name(leaf.made_for, leaf.chip_id, leaf.tcb)


def take(keeper, path, **options):
    return {one.name: one for one in bring(path, keeper=keeper, **options)}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_what_is_packed_comes_back_byte_for_byte(keeper, tmp_path, genoa, name):
    here = CollateralDirectory(tmp_path / "here")
    here.put(CRL, genoa.crl())
    here.put(name, genoa.leaf())
    packed = pack(here)
    assert pack(here) == packed
    found = take(keeper, write(tmp_path / "c.tar", packed))
    assert {one.state for one in found.values()} == {"new"}
    there = CollateralDirectory(tmp_path / "collateral")
    assert [(one, there.read(one)) for one in there.names()] == [
        (one, here.read(one)) for one in here.names()
    ]
    found = take(keeper, tmp_path / "here")  # a copy of the directory is as good as the tar
    assert {one.state for one in found.values()} == {"unchanged"}


def test_trustees_store_is_taken_and_the_chip_is_not_named(keeper, tmp_path, genoa, name):
    chip = genoa.chip_id.hex()
    store = tmp_path / "store"
    write(store / "vcek" / chip / "bl03_tee02_snp08_ucode115_vcek.der", genoa.leaf())
    write(store / "vcek" / chip / "notes.txt", b"hello")
    found = take(keeper, store)
    assert found[name].state == "new"
    (other,) = (one for one in found.values() if one.name != name)
    assert (other.name, other.state) == ("vcek/…/notes.txt", "not taken")
    assert chip not in repr(found)


@pytest.mark.parametrize("form", ["der", "pem"])
def test_certificate_says_itself_what_it_is(keeper, tmp_path, genoa, name, as_pem, form):
    der = genoa.leaf()
    found = take(keeper, write(tmp_path / "x", der if form == "der" else as_pem(der)))
    assert found[name].state == "new"


@pytest.mark.parametrize("form", ["der", "pem"])
def test_list_needs_its_name(keeper, tmp_path, genoa, form):
    from asn1crypto import pem

    der = genoa.crl()
    path = write(tmp_path / "crl", der if form == "der" else pem.armor("X509 CRL", der))
    with pytest.raises(FormatError, match="does not say for which keys") as caught:
        take(keeper, path)
    assert "--name" in caught.value.hint
    assert take(keeper, path, name=CRL)[CRL].state == "new"
    assert CollateralDirectory(tmp_path / "collateral").read(CRL) == der


def test_older_document_does_not_replace_a_younger(keeper, tmp_path, genoa):
    young = genoa.crl()
    take(keeper, write(tmp_path / "young", young), name=CRL)
    old = write(tmp_path / "old", genoa.crl(begin=NOW - timedelta(days=3)))
    assert take(keeper, old, name=CRL)[CRL].state == "kept"
    assert CollateralDirectory(tmp_path / "collateral").read(CRL) == young


def test_document_that_its_vendor_did_not_sign_is_refused(keeper, tmp_path, genoa):
    with pytest.raises(EvidenceRejected, match="not signed by AMD"):
        take(keeper, write(tmp_path / "x", genoa.leaf(signer="other")))
    with pytest.raises(EvidenceRejected, match="not signed by the ARK"):
        take(keeper, make_tar(tmp_path / "t", (CRL, genoa.crl(signer="other"))))


@pytest.mark.parametrize("member", ["../../evil", "/etc/evil", "snp/../../evil"])
def test_members_of_a_tar_stay_inside(keeper, tmp_path, genoa, name, member):
    found = take(keeper, make_tar(tmp_path / "t", (member, genoa.leaf())))
    assert set(found) == {name}  # by what is in it, at its own name
    assert sorted(one.name for one in tmp_path.iterdir()) == ["collateral", "t"]


def test_tar_of_gnu_with_a_dot_before_its_names_is_taken(keeper, tmp_path, genoa):
    assert CRL in take(keeper, make_tar(tmp_path / "t", (f"./{CRL}", genoa.crl())))


@pytest.mark.parametrize(
    ("data", "error", "piece"),
    [
        (b"", FormatError, "expected a certificate of a chip, a list"),
        (b"{}", FormatError, "vcekCert"),
        (b"-----BEGIN X509 CRL-----\n", FormatError, "PEM"),
        (bytes(257) + b"ustar" + bytes(2000), FormatError, "tar"),
    ],
)
def test_file_that_is_nothing_is_refused(keeper, tmp_path, data, error, piece):
    with pytest.raises(error, match=piece):
        take(keeper, write(tmp_path / "x", data))


def test_file_and_tar_that_are_too_long_are_refused(keeper, tmp_path):
    path = write(tmp_path / "x", b"")
    os.truncate(path, 4 * 1024 * 1024 + 1)
    with pytest.raises(LocalError, match="expected at most 4194304 bytes"):
        take(keeper, path)
    with pytest.raises(FormatError, match="expected at most 10000 documents of 4194304 bytes"):
        take(keeper, make_tar(tmp_path / "t", (CRL, bytes(4 * 1024 * 1024 + 1))))


def test_directory_of_too_many_bytes_is_refused(keeper, tmp_path, genoa, monkeypatch):
    monkeypatch.setattr("imagers.evidence.collateral.carry._MAX_TAR", 2000)
    write(tmp_path / "store" / "a", genoa.leaf())
    write(tmp_path / "store" / "b", genoa.leaf())
    with pytest.raises(LocalError, match="expected at most 2000 bytes in all files"):
        take(keeper, tmp_path / "store")


def test_member_with_holes_is_passed_over_and_takes_no_memory(keeper, tmp_path, genoa):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        entry = tarfile.TarInfo("hole")
        entry.type = tarfile.GNUTYPE_SPARSE
        tar.addfile(entry)
        entry = tarfile.TarInfo(CRL)
        entry.size = len(genoa.crl())
        tar.addfile(entry, io.BytesIO(genoa.crl()))
    data = bytearray(buffer.getvalue())
    data[386:398] = data[483:495] = b"%011o\0" % MAX_DOCUMENT  # begin of its data, and its length
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path = write(tmp_path / "t", bytes(data))
    assert [name for name, _ in _files(path)] == [CRL]
    assert list(take(keeper, path)) == [CRL]


def test_pipe_in_a_directory_is_passed_over(keeper, tmp_path, genoa):
    write(tmp_path / "d" / CRL, genoa.crl())
    os.mkfifo(tmp_path / "d" / "pipe")
    assert list(take(keeper, tmp_path / "d")) == [CRL]
