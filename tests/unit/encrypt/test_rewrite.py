# SPDX-License-Identifier: Apache-2.0
import json

from imagers.encrypt.rewrite import build_manifest, write_config_and_manifest
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of

LAYER = "application/vnd.oci.image.layer.v1.tar"


def build(image, descriptors, *, was_docker=False):
    return json.loads(build_manifest(image, descriptors, was_docker=was_docker))


def test_build_manifest_keeps_members_that_nobody_knows_and_their_order(changed_image):
    def change(document):
        document["layers"][0] |= {"x-member": [1], "urls": ["https://x/"], "data": "QQ=="}
        document["layers"][1] |= {"urls": ["https://y/"]}
        return {"x-first": {"a": None}, **document, "annotations": {"k": "ü"}, "subject": None}

    image = changed_image("gzip", change)
    new = Descriptor(f"{LAYER}+encrypted", digest_of(b"new"), 3, {"a": "b"})
    old = image.manifest.layers
    document = build(image, [new, *old[1:]])
    assert list(document) == list(image.manifest.document)
    assert document["annotations"] == {"k": "ü"}
    assert document["layers"][0] == {
        "mediaType": f"{LAYER}+encrypted",
        "digest": str(new.digest),
        "size": 3,
        "x-member": [1],
        "annotations": {"a": "b"},
    }
    assert document["layers"][1] == image.manifest.document["layers"][1]
    assert image.manifest.document["layers"][0]["data"] == "QQ==", "the source is not changed"


def test_build_manifest_from_docker_names_manifest_and_config_anew(changed_image):
    image = changed_image("gzip", dict)
    document = build(image, image.manifest.layers, was_docker=True)
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert document["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"


def test_write_unchanged_image_keeps_the_bytes_of_the_manifest(changed_image, new_sink):
    image = changed_image("gzip", lambda document: {**document, "x": 1})
    sink, path = new_sink()
    for layer in image.layers():
        with layer.open_stored() as stream:
            data = bytearray(layer.descriptor.size)
            assert stream.readinto(memoryview(data)) == len(data)
        sink.put_blob(layer.descriptor, bytes(data), what=layer.what)
    raw, media_type, descriptor = write_config_and_manifest(
        image, sink, image.manifest.layers, was_docker=False, by_name=True
    )
    assert raw == image.manifest.raw
    assert descriptor == image.manifest.descriptor
    assert media_type == image.manifest.descriptor.media_type
    assert (path / "blobs" / "sha256" / descriptor.digest.hex).read_bytes() == raw
