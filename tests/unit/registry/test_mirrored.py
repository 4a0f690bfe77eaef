# SPDX-License-Identifier: Apache-2.0
"""A name whose images are read at a mirror first; opened as the command does."""

from contextlib import closing

import pytest

from imagers.errors import NotFound
from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.model.stream import read_all
from imagers.registry.credentials import Credentials
from imagers.registry.registries_conf import parse_image_rs_registries, parse_registries_conf
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.names import parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source


@pytest.fixture
def mirror():
    with EmbeddedRegistry() as one:
        yield one


@pytest.fixture
def options(registry, mirror):
    conf = (
        f'[[registry]]\nprefix = "user.example/team"\nlocation = "{registry.address}/own"\n'
        f'[[registry.mirror]]\nlocation = "{mirror.address}/copy"\n'
    )
    login = Credentials("me", "secret")
    return TransportOptions(
        registries=parse_registries_conf([("x", conf)]), credentials=login, plain_http=True
    )


@pytest.fixture
def source(options):
    one = open_source(parse_image_name("user.example/team/app:v1"), options)
    yield one
    one.close()


def read_layer(source, image):
    with source.open_blob(image.layers[0], what="layer") as stream:
        return read_all(stream, size=image.layers[0].size)


def test_mirror_that_has_it_is_read_under_the_users_name(source, mirror, registry, opened, image):
    image.write(opened.sink(f"{mirror.address}/copy/app:v1"))
    assert source.read_manifest().raw == image.raw
    assert read_layer(source, image) == image.blobs[image.layers[0]]
    assert source.reference == parse_reference("user.example/team/app:v1")
    assert source.name == "docker://user.example/team/app:v1"
    assert registry.asked() == []


def test_mirror_that_has_it_gives_the_rest_of_a_blob(source, mirror, registry, opened, image):
    image.write(opened.sink(f"{mirror.address}/copy/app:v1"))
    source.read_manifest()
    layer = image.layers[0]
    buffer = memoryview(bytearray(10))
    with closing(source.open_raw_blob_from(1000, layer, what="layer")) as stream:
        count = stream.readinto(buffer)
    assert buffer[:count] == image.blobs[layer][1000 : 1000 + count]
    assert mirror.requests[-1].range == "bytes=1000-"
    assert registry.asked() == []


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_mirror_that_fails_is_passed_over(source, mirror, registry, opened, image, status):
    image.write(opened.sink(f"{registry.address}/own/app:v1"))
    mirror.answer_with(status, path="/manifests/", times=20)
    assert source.read_manifest().raw == image.raw
    assert read_layer(source, image) == image.blobs[image.layers[0]]


def test_mirror_without_a_signature_proves_nothing(source, mirror, registry, opened, image):
    for address, repository in ((mirror.address, "copy"), (registry.address, "own")):
        sink = opened.sink(f"{address}/{repository}/app:v1")
        image.write(sink)
    sink.put_manifest_as(image.raw, "application/vnd.oci.image.manifest.v1+json", "sha256-x.sig")
    source.read_manifest()
    assert source.read_tag("sha256-x.sig").raw == image.raw
    assert source.referrers(digest_of(image.raw)) == ()


def test_error_of_the_place_itself_is_told(source):
    with pytest.raises(NotFound, match=r"user\.example/team/app:v1") as caught:
        source.read_manifest()
    assert caught.value.hint


def test_writing_goes_to_the_place_and_not_to_a_mirror(options, registry, mirror, image):
    sink = open_sink(parse_image_name("user.example/team/app:v1"), options)
    image.write(sink)
    sink.close()
    assert "v1" in registry.tags("own/app")
    assert mirror.asked() == []


def test_login_given_by_hand_is_not_told_to_a_mirror(registry, image, opened):
    image.write(opened.sink(f"{registry.address}/own/app:v1"))
    with EmbeddedRegistry(username="me", password="secret") as mirror:
        conf = (
            f'[[registry]]\nprefix = "user.example"\nlocation = "{registry.address}/own"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}/own"\n'
        )
        options = TransportOptions(
            registries=parse_registries_conf([("x", conf)]),
            credentials=Credentials("me", "secret"),
            plain_http=True,
        )
        one = open_source(parse_image_name("user.example/app:v1"), options)
        assert one.read_manifest().raw == image.raw
        one.close()
        assert {request.status for request in mirror.requests} == {401}


def test_image_rs_places_are_read_under_the_users_name(registry, mirror, opened, image):
    """`docker.io/library/app` at a search registry: its policy is still that of docker.io."""
    image.write(opened.sink(f"{mirror.address}/app:v1"))
    conf = (
        f'unqualified-search-registries = ["docker.io", "{mirror.address}"]\n'
        f'[[registry]]\nprefix = "docker.io"\nlocation = "{registry.address}"\ninsecure = true\n'
    )
    options = TransportOptions(registries=parse_image_rs_registries(conf, what="x"))
    one = open_source(parse_image_name("app:v1"), options)
    assert one.read_manifest().raw == image.raw
    assert read_layer(one, image) == image.blobs[image.layers[0]]
    assert one.reference == parse_reference("docker.io/library/app:v1")
    assert one.name == "docker://docker.io/library/app:v1"
    one.close()
    assert {request.status for request in registry.requests} <= {200, 404}
    assert registry.asked()
