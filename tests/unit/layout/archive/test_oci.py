# SPDX-License-Identifier: Apache-2.0
"""Reading and writing are tested in tests/unit/transport/test_copy_between.py too."""

import tarfile

import pytest

from imagers.errors import FormatError, LocalError, NotFound
from imagers.layout.archive.oci import OCIArchiveSink, OCIArchiveSource
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_LAYER


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "a.tar"
    sink = OCIArchiveSink(path, "v1", name="oci-archive:a.tar:v1")
    sink.put_manifest_as(b'{"schemaVersion":2,"manifests":[]}', OCI_INDEX, "other")
    sink.put_manifest(b'{"schemaVersion":2, "manifests":[]}', OCI_INDEX, by_name=True)
    sink.close()
    return path


def test_archive_has_all_entries(archive):
    one = OCIArchiveSource(archive, "v1", name="x")
    assert one.read_manifest().raw == b'{"schemaVersion":2, "manifests":[]}'
    assert one.read_tag("other").raw == b'{"schemaVersion":2,"manifests":[]}'
    with pytest.raises(NotFound, match="no image"):
        one.read_tag("none")
    with pytest.raises(NotFound, match="no blob"):
        one.open_blob(Descriptor(OCI_LAYER, digest_of(b""), 0), what="layer")
    one.close()
    one.close()


def test_archive_that_is_no_layout_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    source = OCIArchiveSource(tmp_path / "a.tar", None, name="x")
    with pytest.raises(FormatError, match="oci-layout") as caught:
        source.read_manifest()
    assert "docker-archive:" in caught.value.hint
    source.close()


def test_archive_missing_names_the_path(tmp_path):
    with pytest.raises(LocalError, match="could not be opened"):
        OCIArchiveSource(tmp_path / "a.tar", None, name="x").read_manifest()
