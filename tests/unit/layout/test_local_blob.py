# SPDX-License-Identifier: Apache-2.0
import os

from imagers.files import open_regular
from imagers.layout.local_blob import LocalBlob


def test_local_blob_reads_and_has_a_descriptor(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(b"0123456789")
    blob = LocalBlob(open_regular(path), path)
    buffer = memoryview(bytearray(4))
    assert blob.readinto(buffer) == 4
    assert bytes(buffer) == b"0123"
    assert os.read(blob.fileno(), 100) == b"456789"
    assert blob.readinto(buffer) == 0
    blob.close()
    blob.close()
