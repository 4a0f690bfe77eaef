# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from imagers.errors import FormatError, LocalError, NotFound, SizeMismatch, Unsupported
from imagers.layout.layout import Layout
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_LAYER

DESCRIPTOR = Descriptor(OCI_LAYER, digest_of(b"data"), 4)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path, "oci:x")


def put(layout, data):
    path = layout.blob_path(DESCRIPTOR.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_blob_path_is_made_of_the_digest(layout, tmp_path):
    digest = digest_of(b"x", "sha512")
    assert layout.blob_path(digest) == tmp_path / "blobs" / "sha512" / digest.hex


def test_open_blob_of_the_right_size(layout):
    put(layout, b"data")
    blob = layout.open_blob(DESCRIPTOR, what="layer")
    assert os.read(blob.fileno(), 10) == b"data"
    blob.close()
    assert layout.has_blob(DESCRIPTOR)


def test_open_blob_missing_or_of_another_size_refused(layout):
    assert not layout.has_blob(DESCRIPTOR)
    with pytest.raises(NotFound, match=str(DESCRIPTOR.digest)):
        layout.open_blob(DESCRIPTOR, what="layer")
    put(layout, b"longer")
    assert not layout.has_blob(DESCRIPTOR)
    with pytest.raises(SizeMismatch) as caught:
        layout.open_blob(DESCRIPTOR, what="layer")
    assert (caught.value.expected, caught.value.actual) == (4, 6)


def test_open_blob_below_a_file_is_a_local_error(layout, tmp_path):
    (tmp_path / "blobs").touch()
    with pytest.raises(LocalError, match="not a directory"):
        layout.open_blob(DESCRIPTOR, what="layer")
    assert not layout.has_blob(DESCRIPTOR)


def test_open_blob_directory_refused(layout):
    layout.blob_path(DESCRIPTOR.digest).mkdir(parents=True)
    with pytest.raises(FormatError, match="regular file"):
        layout.open_blob(DESCRIPTOR, what="layer")


def test_read_small_up_to_the_bound(layout, tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert layout.read_small(tmp_path / "file", 5) == b"12345"
    assert layout.read_small(tmp_path / "none", 5) is None
    with pytest.raises(FormatError, match="at most 4 bytes"):
        layout.read_small(tmp_path / "file", 4)


def test_check_version_none_and_another(layout):
    assert not layout.check_version()
    layout.layout_file.write_text('{"imageLayoutVersion":"1.0.0"}')
    assert layout.check_version()
    layout.layout_file.write_text('{"imageLayoutVersion":"3"}')
    with pytest.raises(Unsupported):
        layout.check_version()
