# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError
from imagers.layout.archive.docker_manifest import SavedImage, dump_saved, parse_saved
from imagers.model.reference import parse_reference


def test_saved_images_come_back_as_they_were_written():
    raw = dump_saved("blobs/sha256/c", ["blobs/sha256/l"], "docker.io/library/app:v1")
    (one,) = parse_saved(raw, what="x")
    assert one == SavedImage("blobs/sha256/c", ("blobs/sha256/l",), ("docker.io/library/app:v1",))
    assert one.has_tag(parse_reference("app:v1"))
    assert not one.has_tag(parse_reference("app:v2"))


def test_saved_tag_that_nobody_can_ask_for_is_passed_over():
    assert not SavedImage("c", (), ("UPPER:x",)).has_tag(parse_reference("app"))


@pytest.mark.parametrize("rest", ["", ', "Layers": null, "RepoTags": null'])
def test_saved_image_without_lists_has_empty_ones(rest):
    (one,) = parse_saved(f'[{{"Config": "c"{rest}}}]'.encode(), what="x")
    assert one == SavedImage("c", (), ())


def test_saved_image_in_other_letters_is_read_as_engines_read_it():
    (one,) = parse_saved(b'[{"config": "c", "LAYERS": ["l"], "repoTags": ["app:v1"]}]', what="x")
    assert one == SavedImage("c", ("l",), ("app:v1",))


@pytest.mark.parametrize(
    "member", ['"config": "d"', '"layers": ["d"]', '"LAYERS": null', '"repotags": ["app:v1"]']
)
def test_saved_image_that_engines_would_read_as_another_refused(member):
    raw = f'[{{"Config": "c", "Layers": [], "RepoTags": [], {member}}}]'
    with pytest.raises(FormatError, match=r"\$\[0\]: expected one '(Config|Layers|RepoTags)'"):
        parse_saved(raw.encode(), what="x")


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b'[{"Config": 1, "Layers": []}]', "Config"),
        (b'[{"Config": "c", "Layers": {}}]', "Layers"),
        (b'[{"Config": "c", "Layers": [], "RepoTags": [1]}]', "RepoTags"),
        (b"[1]", "[0]"),
    ],
)
def test_saved_malformed_refused_with_its_place(raw, where):
    with pytest.raises(FormatError) as caught:
        parse_saved(raw, what="x")
    assert where in str(caught.value)


def test_saved_images_tags_and_layers_are_as_many_as_the_bytes_allow():
    layers = [str(number) for number in range(2000)]
    (one,) = parse_saved(dump_saved("c", layers, None), what="manifest.json")
    assert one.layers == tuple(layers)
    image = {"Config": "c", "RepoTags": [f"a:{number}" for number in range(2000)], "Layers": []}
    images = parse_saved(
        json.dumps([image, *[image | {"RepoTags": None}] * 2000]).encode(), what="manifest.json"
    )
    assert len(images) == 2001
    assert len(images[0].tags) == 2000
