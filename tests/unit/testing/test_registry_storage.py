# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.model.digest import digest_of
from imagers.testing.registry_storage import Storage


@pytest.fixture(params=["memory", "directory"])
def directory(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "storage"


def test_storage_keeps_bytes_under_a_digest(directory):
    storage = Storage(directory)
    digest = digest_of(b"data")
    assert storage.open(digest) is None
    storage.put(digest, b"data")
    assert storage.read(digest) == b"data"
    file, size = storage.open(digest)
    with file:
        assert (file.read(), size) == (b"data", 4)
    with storage.start_upload("app") as upload:
        upload.write(b"other")
        storage.keep(upload, digest)
    assert storage.read(digest) == b"other"
    storage.drop(digest)
    assert storage.read(digest) is None


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_upload_digest_is_of_all_its_bytes(directory, algorithm):
    upload = Storage(directory).start_upload("app")
    with upload:
        for piece in (b"one", memoryview(b" two"), bytearray(b" three")):
            upload.write(piece)
        assert upload.digest(algorithm) == digest_of(b"one two three", algorithm)
        assert upload.size == 13


def test_storage_in_a_directory_is_found_again(tmp_path):
    digest = digest_of(b"data")
    storage = Storage(tmp_path)
    storage.put(digest, b"data")
    repository = storage.repository("a/b")
    repository.blobs.add(digest)
    repository.manifests[digest] = "type"
    repository.tags["v1"] = digest
    storage.save()
    again = Storage(tmp_path)
    assert again.find("a/b") == repository
    assert again.read(digest) == b"data"
    assert again.find("c") is not again.find("c")


def test_storage_in_a_directory_drops_unfinished_uploads(tmp_path):
    storage = Storage(tmp_path)
    with storage.start_upload("app") as upload:
        upload.write(b"x")
        assert len(list(tmp_path.iterdir())) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["blobs"]
    left = storage.start_upload("app")
    left.file.close()  # as a killed registry leaves it
    Storage(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["blobs"]
