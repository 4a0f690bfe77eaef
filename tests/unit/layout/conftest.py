"""Images of a few bytes, and layouts with them."""

import json
from dataclasses import dataclass

import pytest

from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST


@dataclass
class SmallImage:
    """Blobs by descriptor, and the manifest over them."""

    blobs: dict
    raw: bytes

    @property
    def descriptor(self):
        return Descriptor(OCI_MANIFEST, digest_of(self.raw), len(self.raw))

    def write(self, sink, *, by_name=True):
        for descriptor, data in self.blobs.items():
            sink.put_blob(descriptor, data, what="blob")
        sink.put_manifest(self.raw, OCI_MANIFEST, by_name=by_name)


def make_image(seed):
    """An image whose bytes depend on `seed` only; its config is the same for all."""
    config = b"{}"
    layer = f"layer of {seed}".encode()
    config_descriptor = Descriptor(OCI_CONFIG, digest_of(config), len(config))
    layer_descriptor = Descriptor(OCI_LAYER, digest_of(layer), len(layer))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config_descriptor.to_json(),
        "layers": [layer_descriptor.to_json()],
    }
    blobs = {config_descriptor: config, layer_descriptor: layer}
    return SmallImage(blobs, json.dumps(manifest, indent=3).encode())


@pytest.fixture
def image_of():
    return make_image


@pytest.fixture
def files_below():
    """All paths below a directory, relative to it."""
    return lambda path: sorted(str(one.relative_to(path)) for one in path.rglob("*"))
