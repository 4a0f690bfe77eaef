# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from imagers.errors import FormatError, LocalError
from imagers.evidence.collateral.directory import (
    MAX_DOCUMENT,
    VENDORS,
    CollateralDirectory,
    load_vendor,
)

NAME = "snp/Genoa/vcek.crl"


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "all" / "snp" / "Genoa").mkdir(parents=True)
    return CollateralDirectory(tmp_path / "all")


def test_read_gives_the_bytes_of_a_name(directory):
    (directory.path / NAME).write_bytes(b"\x30\x00\r\n")
    assert directory.read(NAME) == b"\x30\x00\r\n"


@pytest.mark.parametrize("name", [NAME, "snp/Genoa/none", "other/Genoa/vcek.crl"])
def test_read_of_what_is_not_there_is_none(directory, name):
    assert directory.read(name) is None


def test_read_below_a_file_is_none(directory):
    (directory.path / "snp" / "Milan").write_bytes(b"")
    assert directory.read("snp/Milan/vcek.crl") is None


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "snp/../../x", "snp//x", "snp/.x", "snp/x\0", "snp/x\n", "a" * 201],
)
def test_read_of_a_name_that_is_none_is_refused(directory, name):
    with pytest.raises(FormatError, match="expected a name such as"):
        directory.read(name)


def test_read_follows_a_link_that_stays_inside(directory):
    (directory.path / "snp" / "Genoa" / "real").write_bytes(b"crl")
    (directory.path / NAME).symlink_to("real")
    assert directory.read(NAME) == b"crl"


@pytest.mark.parametrize("is_directory", [False, True])
def test_read_of_a_link_that_leads_out_is_refused(directory, tmp_path, is_directory):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "vcek.crl").write_bytes(b"secret")
    if is_directory:
        (directory.path / "snp" / "Genoa").rmdir()
        (directory.path / "snp" / "Genoa").symlink_to(outside)
    else:
        (directory.path / NAME).symlink_to(outside / "vcek.crl")
    with pytest.raises(LocalError, match="leads out of the directory") as caught:
        directory.read(NAME)
    assert caught.value.path.endswith(NAME)


def test_read_of_a_document_that_is_too_long_is_refused(directory):
    (directory.path / NAME).write_bytes(b"")
    os.truncate(directory.path / NAME, MAX_DOCUMENT)
    assert len(directory.read(NAME)) == MAX_DOCUMENT
    os.truncate(directory.path / NAME, MAX_DOCUMENT + 1)
    with pytest.raises(LocalError, match="expected at most 4194304 bytes"):
        directory.read(NAME)


def test_read_of_a_pipe_is_refused_and_does_not_wait(directory):
    os.mkfifo(directory.path / NAME)
    with pytest.raises(FormatError, match="expected a regular file"):
        directory.read(NAME)


def test_read_without_the_directory_says_so(tmp_path):
    with pytest.raises(LocalError, match="no such file or directory") as caught:
        CollateralDirectory(tmp_path / "absent").read(NAME)
    assert caught.value.path == str(tmp_path / "absent")


def test_put_makes_the_directory_and_replaces_at_once(tmp_path):
    directory = CollateralDirectory(tmp_path / "new")
    directory.put(NAME, b"first")
    directory.put(NAME, b"second")
    assert directory.read(NAME) == b"second"
    assert list(directory.names()) == [NAME]


@pytest.mark.parametrize("name", ["", "../x", "/x", "snp/.hidden"])
def test_put_of_a_name_that_is_none_is_refused(directory, name):
    with pytest.raises(FormatError, match="expected a name such as"):
        directory.put(name, b"")


def test_put_through_a_link_that_leads_out_is_refused(directory, tmp_path):
    (tmp_path / "outside").mkdir()
    (directory.path / "snp" / "Milan").symlink_to(tmp_path / "outside")
    for name in ("snp/Milan/vcek.crl", "snp/Milan/more/vcek.crl"):
        with pytest.raises(LocalError, match="leads out of the directory"):
            directory.put(name, b"")
    assert list((tmp_path / "outside").iterdir()) == []


def test_names_leaves_out_hidden_files_and_other_directories(directory, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_bytes(b"")
    (directory.path / "link").symlink_to(tmp_path / "outside")
    (directory.path / ".hidden").write_bytes(b"")
    directory.put("snp/Milan/vlek.crl", b"")
    directory.put(NAME, b"")
    assert list(directory.names()) == [NAME, "snp/Milan/vlek.crl"]


@pytest.mark.parametrize("name", ["other/x.crl", "", "x"])
def test_vendor_of_a_name_that_nobody_knows_is_refused(name):
    with pytest.raises(FormatError, match="there is no document"):
        load_vendor(name)


def test_every_vendor_of_the_table_says_where_it_gives_documents():
    for name in VENDORS:
        assert all(url.startswith("https://") for url in load_vendor(f"{name}/x").sources)
