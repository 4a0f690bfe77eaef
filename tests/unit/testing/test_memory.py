# SPDX-License-Identifier: Apache-2.0
"""A repository in memory does what the Protocols say, until it is told to lie."""

import os

import pytest

from imagers.errors import DigestMismatch, NotFound, RemoteError, SizeMismatch, Truncated
from imagers.model.digest import digest_of
from imagers.model.image import load_image
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_INDEX
from imagers.testing import Lie, MemoryRepository, make_image, make_index
from imagers.transport import copy_image

IMAGE = make_image(b"first" * 100, b"second" * 100)
LAYER = IMAGE.blobs[IMAGE.layers[0]]


@pytest.fixture
def repository():
    return MemoryRepository(IMAGE)


def read_layers(repository):
    answer = repository.read_manifest()
    for layer in load_image(parse_manifest(answer.raw), repository).layers():
        with layer.open_stored() as stream:
            while stream.readinto(memoryview(bytearray(10))):
                pass


def test_repository_says_in_which_order_it_was_asked(repository):
    read_layers(repository)
    assert repository.asked == ["manifest", "config", "layer 1 of 2", "layer 2 of 2"]
    assert repository.left_open == []


def test_repository_says_which_blob_was_left_open(repository):
    (_, layer) = load_image(parse_manifest(IMAGE.raw), repository).layers()
    stream = layer.open_raw()
    assert repository.left_open == ["layer 2 of 2"]
    stream.close()
    assert repository.left_open == []


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (Lie(data=bytes(len(LAYER))), DigestMismatch),
        (Lie(after=3), Truncated),
        (Lie(error=RemoteError("broken off"), after=3), RemoteError),
        (Lie(error=NotFound("away")), NotFound),
    ],
    ids=["other bytes", "short", "an error in the middle", "an error at once"],
)
def test_lie_about_a_layer_is_seen_by_who_checks(repository, lie, error):
    repository.lies["layer 1 of 2"] = lie
    with pytest.raises(error):
        read_layers(repository)
    assert repository.asked[-1] == "layer 1 of 2"
    assert repository.left_open == []
    repository.lies.clear()
    read_layers(repository)


def test_error_in_the_middle_comes_after_as_many_bytes(repository):
    repository.lies["layer"] = Lie(error=RemoteError("broken off"), after=3)
    stream = repository.open_raw_blob(IMAGE.layers[0], what="layer")
    buffer = bytearray(10)
    assert stream.readinto(memoryview(buffer)) == 3
    assert bytes(buffer[:3]) == LAYER[:3]
    with pytest.raises(RemoteError, match="broken off"):
        stream.readinto(memoryview(buffer))


def test_lies_about_manifests(repository):
    index = make_index(IMAGE)
    index.write(repository)
    top = repository.read_manifest()
    assert (top.raw, top.media_type, top.digest) == (index.raw, OCI_INDEX, index.digest)
    child = f"manifest {IMAGE.digest}"
    repository.lies = {"manifest": Lie(after=5), child: Lie(data=b"{}")}
    assert repository.read_manifest().raw == index.raw[:5]
    answer = repository.read_manifest(IMAGE.digest)
    assert (answer.raw, answer.digest) == (b"{}", IMAGE.digest)
    with pytest.raises(NotFound, match="is not there"):
        repository.read_manifest(digest_of(b"other"))
    with pytest.raises(NotFound, match="manifest is not there"):
        MemoryRepository().read_manifest()


def test_repository_takes_a_copy_and_refuses_where_it_is_told_to(repository):
    copy = MemoryRepository()
    copy.lies["put layer 2 of 2"] = Lie(error=RemoteError("full"))
    with pytest.raises(RemoteError, match="full"):
        copy_image(repository, copy, jobs=1)
    assert copy.top is None
    copy.lies.clear()
    copy_image(repository, copy, jobs=1)
    assert copy.top == repository.top
    assert copy.blobs == repository.blobs
    assert copy.asked[-1] == "put manifest"


def test_repository_takes_only_what_it_is_said_to_be(repository):
    descriptor = IMAGE.layers[0]
    with pytest.raises(DigestMismatch, match="layer"):
        repository.put_blob(descriptor, b"other", what="layer")
    with repository.stage_blob() as staged:
        os.write(staged.fileno(), b"short")
        with pytest.raises(SizeMismatch, match="layer") as caught:
            staged.commit(descriptor, what="layer")
    assert caught.value.actual == 5
