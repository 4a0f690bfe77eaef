"""Reading and writing are tested in tests/unit/transport/test_copy_between.py too."""

import pytest

from imagers.errors import FormatError, NotFound, SizeMismatch
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_LAYER
from imagers.store.directory import DirectorySink, DirectorySource


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
