# SPDX-License-Identifier: Apache-2.0
"""Images on disk and a registry to copy them between."""

from contextlib import ExitStack

import pytest

from imagers.model.descriptor import Platform
from imagers.model.media import Compression
from imagers.testing import EmbeddedRegistry, make_image, make_index, make_layer
from imagers.transport.names import parse_image_name
from imagers.transport.open import open_sink, open_source


@pytest.fixture
def image_of():
    def make(architecture="amd64", layers=(b"first layer", b"second layer")):
        made = [make_layer(one, Compression.NONE) for one in layers]
        return make_image(*made, platform=Platform("linux", architecture))

    return make


@pytest.fixture
def index_of():
    """A function: the bytes of an index with these entries."""
    return lambda *entries: make_index(*entries).raw


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
