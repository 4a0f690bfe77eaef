# SPDX-License-Identifier: Apache-2.0
import io
import random
from dataclasses import replace

import pytest

from imagers.encrypt.sealing import SharedLayers, plan_copied, plan_sealed
from imagers.model.media import DOCKER_LAYER_GZIP, OCI_LAYER, OCI_LAYER_GZIP, Compression


def first_layer(image):
    return next(iter(image.layers()))


def test_shared_layers_are_found_by_what_they_are_and_keep_their_own_annotations(plain_image):
    layer = first_layer(plain_image("gzip"))
    shared = SharedLayers()
    assert shared.find(layer) is None
    enc = "org.opencontainers.image.enc.pubopts"
    done = replace(layer.descriptor, media_type="x", annotations={"theirs": "1", enc: "2"})
    shared.remember(layer, done)
    own = replace(layer, descriptor=replace(layer.descriptor, annotations={"own": "3"}))
    assert shared.find(own).annotations == {"own": "3", enc: "2"}


def test_layers_that_differ_in_anything_that_counts_are_not_shared(plain_image):
    layer = first_layer(plain_image("gzip"))
    shared = SharedLayers()
    shared.remember(layer, layer.descriptor)
    old = layer.descriptor
    others = [
        replace(layer, descriptor=replace(old, size=old.size + 1)),
        replace(layer, descriptor=replace(old, media_type="x")),
        replace(
            layer,
            descriptor=replace(old, annotations={"org.opencontainers.image.enc.keys.jwe": "x"}),
        ),
        replace(layer, diff_id=old.digest),
    ]
    assert [shared.find(one) for one in others] == [None] * 4


def test_plans_name_the_types_that_layers_will_have(plain_image):
    layer = first_layer(plain_image("gzip"))
    docker = replace(layer, descriptor=replace(layer.descriptor, media_type=DOCKER_LAYER_GZIP))
    assert plan_copied(docker, was_docker=True).media_type == OCI_LAYER_GZIP
    assert plan_copied(docker, was_docker=False).media_type == DOCKER_LAYER_GZIP
    plan = plan_sealed(docker, Compression.ZSTD)
    assert plan.media_type == OCI_LAYER_GZIP + "+encrypted"
    assert plan.compress is None


class Blob:
    """A source of one plain tar, which counts what is read of it."""

    def __init__(self, data):
        self.data = data
        self.read = 0

    def open_raw_blob(self, _descriptor, *, what):
        assert what
        blob, stream = self, io.BytesIO(self.data)

        class Stream:
            def readinto(self, buffer):
                count = stream.readinto(buffer[:70_000])
                blob.read += count
                return count

            def close(self):
                stream.close()

        return Stream()


def weights(count):
    """As of a model: every second byte is one of two, the others are noise."""
    noise = random.Random(1).randbytes(count)  # noqa: S311  # no secret
    return bytes(byte & 1 if i % 2 else byte for i, byte in enumerate(noise))


@pytest.mark.parametrize(
    ("data", "compress"),
    [
        (random.Random(2).randbytes(6_000_000), None),  # noqa: S311
        (b"one line of text\n" * 300_000, Compression.GZIP),
        (weights(2_000_000), Compression.GZIP),  # saves a third
        (random.Random(3).randbytes(900_000), Compression.GZIP),  # noqa: S311  # too small to ask
    ],
    ids=["noise", "text", "weights of few values", "small"],
)
def test_plain_layer_is_compressed_where_it_shrinks(plain_image, data, compress):
    layer = first_layer(plain_image("gzip"))
    blob = Blob(data)
    descriptor = replace(layer.descriptor, media_type=OCI_LAYER, size=len(data))
    plan = plan_sealed(replace(layer, descriptor=descriptor, source=blob), Compression.GZIP)
    assert plan.compress is compress
    expected = OCI_LAYER if compress is None else OCI_LAYER_GZIP
    assert plan.media_type == expected + "+encrypted"
    assert blob.read <= 4 * 1024 * 1024
    assert plan_sealed(replace(layer, descriptor=descriptor, source=blob), None).compress is None
