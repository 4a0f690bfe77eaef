# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import DigestMismatch, SizeMismatch
from imagers.layout.archive.archive_sink import ArchiveSink, blob_name
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of, parse_digest
from imagers.model.media import OCI_LAYER


def test_blob_name_is_that_of_a_layout():
    assert blob_name(parse_digest("sha256:" + "a" * 64)) == "blobs/sha256/" + "a" * 64


def test_archive_sink_refuses_other_bytes_and_leaves_nothing(tmp_path):
    sink = ArchiveSink(tmp_path, name="x")
    wrong = Descriptor(OCI_LAYER, digest_of(b"abc"), 3)
    with pytest.raises(DigestMismatch):
        sink.put_blob(wrong, b"abd", what="layer")
    with pytest.raises(SizeMismatch):
        sink.put_blob(wrong, b"abcd", what="layer")
    with sink.stage_blob() as staged, pytest.raises(SizeMismatch):
        staged.commit(wrong, what="layer")
    assert not sink.has_blob(wrong)
    sink.put_blob(wrong, b"abc", what="layer")
    assert sink.has_blob(wrong)
    sink.close()
    assert list(tmp_path.iterdir()) == []
