# SPDX-License-Identifier: Apache-2.0
"""Reading and writing are tested in tests/unit/transport/test_copy_between.py too."""

import os

import pytest

from imagers.errors import FormatError, LocalError, NotFound, SizeMismatch
from imagers.layout.directory import DirectorySink, DirectorySource
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_LAYER


def test_directory_blob_of_another_size_refused(tmp_path):
    digest = digest_of(b"abc")
    (tmp_path / digest.hex).write_bytes(b"abcd")
    source = DirectorySource(tmp_path, name="dir:x")
    with pytest.raises(SizeMismatch):
        source.open_blob(Descriptor(OCI_LAYER, digest, 3), what="layer")
    with pytest.raises(NotFound, match="no blob"):
        source.open_blob(Descriptor(OCI_LAYER, digest_of(b""), 0), what="layer")


def test_directory_manifest_that_is_no_file_refused(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(FormatError, match="regular file"):
        DirectorySource(tmp_path, name="dir:x").read_manifest()


def test_directory_other_manifest_not_found(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"{}")
    source = DirectorySource(tmp_path, name="dir:x")
    assert source.read_manifest(digest_of(b"{}")).raw == b"{}"
    with pytest.raises(NotFound, match="no manifest sha256:"):
        source.read_manifest(digest_of(b"x"))


def test_directory_empty_one_is_filled(tmp_path):
    sink = DirectorySink(tmp_path, name="dir:x")
    sink.put_manifest(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX, by_name=True)
    sink.close()
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["manifest.json", "version"]


MANIFEST = b'{"schemaVersion":2,"manifests":[]}'


def test_directory_swapped_place_is_not_published(tmp_path, monkeypatch):
    """Whoever may write beside it can put a directory of their own in the place of ours."""
    target = tmp_path / "image"
    real = os.rename

    def swap(source, name, **options):
        if name == "image":
            real(tmp_path / source, tmp_path / "moved")
            (tmp_path / source).mkdir()
            (tmp_path / source / "manifest.json").write_text("evil")
        real(source, name, **options)

    monkeypatch.setattr(os, "rename", swap)
    sink = DirectorySink(target, name="dir:x")
    with pytest.raises(LocalError, match="somebody else put another thing in its place"):
        sink.put_manifest(MANIFEST, OCI_INDEX, by_name=True)
    sink.close()
    assert not target.exists()
    assert list((tmp_path / "moved").iterdir()) == []


def test_directory_swapped_place_gets_no_blob(tmp_path):
    sink = DirectorySink(tmp_path / "image", name="dir:x")
    with sink.stage_blob() as first:
        first.commit(Descriptor(OCI_LAYER, digest_of(b""), 0), what="layer")
    [place] = tmp_path.iterdir()
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "victim")
    (tmp_path / "victim").mkdir()
    with sink.stage_blob() as staged:
        os.write(staged.fileno(), b"abc")
        staged.commit(Descriptor(OCI_LAYER, digest_of(b"abc"), 3), what="layer")
    assert len(list((tmp_path / "moved").iterdir())) == 2
    sink.close()
    assert list((tmp_path / "victim").iterdir()) == []
    assert list((tmp_path / "moved").iterdir()) == []


def test_directory_blob_that_comes_after_the_end_is_not_written(tmp_path):
    sink = DirectorySink(tmp_path / "image", name="dir:x")
    staged = sink.stage_blob()
    sink.close()
    with pytest.raises(LocalError, match="no such file"):
        staged.commit(Descriptor(OCI_LAYER, digest_of(b""), 0), what="layer")
    staged.abort()
    assert list(tmp_path.iterdir()) == []
