# SPDX-License-Identifier: Apache-2.0
"""Images of a few bytes, and layouts with them."""

import pytest

from imagers.model.media import Compression
from imagers.testing import make_image, make_layer


@pytest.fixture
def image_of():
    """A function: an image whose bytes depend on `seed` only; its config is the same for all."""

    def make(seed):
        layer = make_layer(f"layer of {seed}".encode(), Compression.NONE)
        return make_image(layer, config=b"{}")

    return make


@pytest.fixture
def files_below():
    """All paths below a directory, relative to it."""
    return lambda path: sorted(str(one.relative_to(path)) for one in path.rglob("*"))
