# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from imagers.transport.names import locate, parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source

PLAIN = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt" / "plain"


@pytest.fixture
def opened_plain():
    """A function: the source of a plain image of the vectors, open."""
    return lambda name: open_source(locate(parse_image_name(f"oci:{PLAIN}/{name}:v1")))


@pytest.fixture
def name_at(tmp_path):
    """A function: the name of an image in a new layout."""
    return lambda name: locate(parse_image_name(f"oci:{tmp_path}/{name}:v1"))


@pytest.fixture
def in_registry(imagers_registry, opened_plain):
    """A function: a plain image of the vectors, pushed; its name."""
    from imagers.transport.copy import copy_image

    def push(name):
        target = parse_image_name(f"{imagers_registry.address}/app/{name}:v1")
        with opened_plain(name) as source, open_sink(target, TransportOptions()) as sink:
            copy_image(source, sink, all_platforms=True)
        return target

    return push
