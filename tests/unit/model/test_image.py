# SPDX-License-Identifier: Apache-2.0
"""The view of an image: its config is held to the manifest, its layers keep their order."""

import json

import pytest

from imagers.errors import (
    DigestMismatch,
    FormatError,
    SizeMismatch,
    TrailingData,
    Truncated,
    Unsupported,
)
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.image import StagedFileBlob, load_image
from imagers.model.manifest import MAX_CONFIG_BYTES, parse_manifest
from imagers.model.media import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from imagers.testing import Lie, MemoryRepository

CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [str(digest_of(b"tar %d" % n)) for n in (0, 1)]},
    }
).encode()


def source_of(answer):
    """A source that gives one answer to every question."""
    source = MemoryRepository()
    source.lies = dict.fromkeys(("config", "layer 2 of 2"), Lie(data=answer))
    return source


def manifest(config=CONFIG, layers=2, **config_members):
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_CONFIG,
            "digest": str(digest_of(config)),
            "size": len(config),
            **config_members,
        },
        "layers": [
            {
                "mediaType": OCI_LAYER_GZIP,
                "digest": str(digest_of(b"stored %d" % number)),
                "size": 8,
            }
            for number in range(layers)
        ],
    }
    return parse_manifest(json.dumps(document).encode())


def test_load_image_gives_layers_from_the_base_up_with_their_diff_ids():
    source = source_of(CONFIG)
    image = load_image(manifest(), source)
    assert image.config.raw == CONFIG
    layers = list(image.layers())
    assert [layer.what for layer in layers] == ["layer 1 of 2", "layer 2 of 2"]
    assert [layer.diff_id for layer in layers] == [digest_of(b"tar 0"), digest_of(b"tar 1")]
    assert [layer.descriptor for layer in layers] == list(image.manifest.layers)
    assert source.asked == ["config"]
    assert source.left_open == []


def test_layer_opens_its_own_blob_checked_or_raw():
    image = load_image(manifest(), source_of(CONFIG))
    _, layer = image.layers()
    image.source.lies["layer 2 of 2"] = Lie(data=b"stored 1")
    buffer = memoryview(bytearray(20))
    stream = layer.open_stored()
    assert stream.readinto(buffer) == 8
    assert stream.readinto(buffer) == 0
    image.source.lies["layer 2 of 2"] = Lie(data=b"anything")
    stream = layer.open_stored()
    assert stream.readinto(buffer) == 8  # provisional
    with pytest.raises(DigestMismatch, match="layer 2 of 2"):
        stream.readinto(buffer)
    assert layer.open_raw().readinto(buffer) == 8
    assert set(image.source.asked[1:]) == {"layer 2 of 2"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (CONFIG[:-1], Truncated),
        (CONFIG + b" ", TrailingData),
        (CONFIG.replace(b"linux", b"LINUX"), DigestMismatch),
    ],
)
def test_load_image_other_config_than_the_descriptor_says_refused(answer, error):
    source = source_of(answer)
    with pytest.raises(error, match="config: "):
        load_image(manifest(), source)
    assert source.left_open == []


def test_load_image_source_that_checks_nothing_is_not_believed():
    class Careless(MemoryRepository):
        def open_blob(self, descriptor, *, what):
            answer = self.lies[what].data
            changed = type(descriptor)(descriptor.media_type, digest_of(answer), len(answer))
            return super().open_blob(changed, what=what)

    source = Careless()
    source.lies["config"] = Lie(data=CONFIG.replace(b"linux", b"LINUX"))
    with pytest.raises(DigestMismatch, match="config: digest mismatch"):
        load_image(manifest(), source)


def test_load_image_config_that_claims_too_much_is_not_even_opened():
    source = source_of(CONFIG)
    with pytest.raises(FormatError, match="expected at most 8388608 bytes, got 8388609") as caught:
        load_image(manifest(size=MAX_CONFIG_BYTES + 1), source)
    assert caught.value.where == "$.config.size"
    assert source.asked == []


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_load_image_other_count_of_layers_than_the_config_refused(layers):
    with pytest.raises(SizeMismatch, match="count of layers") as caught:
        load_image(manifest(layers=layers), source_of(CONFIG))
    assert (caught.value.expected, caught.value.actual) == (2, layers)


def test_load_image_of_an_artifact_unsupported():
    with pytest.raises(Unsupported, match="another kind of artifact"):
        load_image(manifest(mediaType="application/vnd.oci.empty.v1+json"), source_of(CONFIG))


class File:
    """A `BlobFile` of five bytes."""

    size = 5

    def __init__(self):
        self.closed = 0

    def fileno(self):
        return 77

    def close(self):
        self.closed += 1


def test_staged_file_is_published_with_what_it_was_committed_as():
    file, published, ended = File(), [], []
    with StagedFileBlob(file, lambda *one: published.append(one), ended.append) as blob:
        assert blob.fileno() == 77
        descriptor = Descriptor(OCI_CONFIG, digest_of(b"12345"), 5)
        blob.commit(descriptor, what="config")
        assert ended == [blob]
    assert published == [(file, descriptor, "config")]
    assert file.closed


@pytest.mark.parametrize("size", [4, 6])
def test_staged_file_of_another_size_is_not_published(size):
    file, published = File(), []
    message = f"config: size mismatch: expected {size}, got 5"
    with (
        pytest.raises(SizeMismatch, match=message),
        StagedFileBlob(file, lambda *one: published.append(one)) as blob,
    ):
        blob.commit(Descriptor(OCI_CONFIG, digest_of(b""), size), what="config")
    assert published == []
    assert file.closed


def test_staged_file_that_is_left_is_dropped():
    file, published, ended = File(), [], []
    with StagedFileBlob(file, lambda *one: published.append(one), ended.append) as blob:
        pass
    assert (published, ended) == ([], [blob])
    assert file.closed == 1
