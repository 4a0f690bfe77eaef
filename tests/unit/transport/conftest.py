"""Images on disk and a registry to copy them between."""

import json
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.media import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source


@dataclass
class SmallImage:
    blobs: dict
    raw: bytes
    platform: Platform

    @property
    def descriptor(self):
        size = len(self.raw)
        return Descriptor(OCI_MANIFEST, digest_of(self.raw), size, platform=self.platform)

    def write(self, sink, *, by_name=True):
        for descriptor, data in self.blobs.items():
            sink.put_blob(descriptor, data, what="blob")
        sink.put_manifest(self.raw, OCI_MANIFEST, by_name=by_name)


def make_image(architecture="amd64", layers=(b"first layer", b"second layer")):
    config = json.dumps({"os": "linux", "architecture": architecture}).encode()
    blobs = {Descriptor(OCI_CONFIG, digest_of(config), len(config)): config}
    for layer in layers:
        blobs[Descriptor(OCI_LAYER, digest_of(layer), len(layer))] = layer
    first, *rest = [one.to_json() for one in blobs]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": first, "layers": rest}
    raw = json.dumps(manifest, indent=3).encode()
    return SmallImage(blobs, raw, Platform("linux", architecture))


def make_index(*entries):
    value = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [e.to_json() for e in entries],
    }
    return json.dumps(value, indent=3).encode()


@pytest.fixture
def image_of():
    return make_image


@pytest.fixture
def index_of():
    return make_index


@pytest.fixture
def registry():
    with EmbeddedRegistry() as one:
        yield one


@pytest.fixture
def places():
    """Opens sources and sinks by name, and closes them after the test."""

    class Places:
        def __init__(self, stack):
            self._stack = stack

        def source(self, text, options=None):
            one = open_source(parse_image_name(text), options)
            self._stack.callback(one.close)
            return one

        def sink(self, text, options=None):
            one = open_sink(parse_image_name(text), options)
            self._stack.callback(one.close)
            return one

    with ExitStack() as stack:
        yield Places(stack)


@pytest.fixture(params=["layout to registry", "registry to layout", "registry to registry"])
def way(request, registry, tmp_path):
    """Names of a source and a sink."""
    layout, other = f"oci:{tmp_path}/layout:v1", f"oci:{tmp_path}/other:v2"
    here, there = f"docker://{registry.address}/app:v1", f"{registry.address}/new/app:v2"
    return {
        "layout to registry": (layout, there),
        "registry to layout": (here, other),
        "registry to registry": (here, there),
    }[request.param]
