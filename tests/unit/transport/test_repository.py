# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import NotFound, PolicyDenied, Unsupported, UsageError
from imagers.registry.registries_conf import parse_registries_conf
from imagers.testing import EmbeddedRegistry
from imagers.transport.open import TransportOptions
from imagers.transport.repository import (
    delete_image,
    list_tags,
    parse_one_image,
    parse_repository,
    repository_of,
)

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("docker://r.example/team/app", "r.example/team/app"),
        ("r.example:5000/app", "r.example:5000/app"),
        ("[::1]:5000/app", "[::1]:5000/app"),
        ("app", "docker.io/library/app"),
        ("docker://index.docker.io/app", "docker.io/library/app"),
        ("oci:some/where", "oci:some/where"),
        ("docker-archive:a.tar", "docker-archive:a.tar"),
        ("dir:some:where", "dir:some:where"),
    ],
)
def test_repository_is_what_is_left_of_a_name_without_its_end(text, shown):
    assert repository_of(parse_repository(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "docker://r.example/app:v1",
        "docker://r.example/app:latest",
        f"r.example/app@{DIGEST}",
        f"r.example/app:v1@{DIGEST}",
        "app:v1",
        "localhost:5000",
        "oci:some/where:v1",
        "oci:some/where:@0",
        "oci-archive:a.tar:v1",
        "docker-archive:a.tar:app",
        "docker-archive:a.tar:@0",
        "docker-daemon:app:v1",
        f"docker-daemon:{DIGEST}",
    ],
)
def test_repository_of_one_image_refused(text):
    with pytest.raises(UsageError, match="expected a repository, got an image of one") as caught:
        parse_repository(text)
    assert "leave out" in caught.value.hint


def test_image_to_delete_says_which():
    for text in ("r.example/app:v1", "docker://r.example:5000/app:latest", f"app@{DIGEST}"):
        assert parse_one_image(text).reference is not None
    for text in ("r.example/app", "docker://r.example:5000/app", "app"):
        with pytest.raises(UsageError, match="expected a tag or a digest, got a repository"):
            parse_one_image(text)
    with pytest.raises(UsageError, match="has a tag and a digest"):
        parse_one_image(f"app:v1@{DIGEST}")


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_tags_of_a_layout_are_its_names(tmp_path, places, image_of, kind):
    written = [":v1"] if kind == "oci-archive" else [":v1", ":v2", ""]
    for name in written:
        image_of().write(places.sink(f"{kind}:{tmp_path}/l{name}"))
    found = list_tags(parse_repository(f"{kind}:{tmp_path}/l"))
    assert found == (("v1",) if kind == "oci-archive" else ("v1", "v2", "@2"))
    for tag in found:
        assert places.source(f"{kind}:{tmp_path}/l:{tag}").read_manifest().raw


def test_tags_of_an_archive_for_docker_are_as_it_has_them(tmp_path, places, image_of):
    image_of().write(places.sink(f"docker-archive:{tmp_path}/a.tar:app:v1"))
    assert list_tags(parse_repository(f"docker-archive:{tmp_path}/a.tar")) == (
        "docker.io/library/app:v1",
    )
    image_of().write(places.sink(f"docker-archive:{tmp_path}/b.tar"))
    assert list_tags(parse_repository(f"docker-archive:{tmp_path}/b.tar")) == ("@0",)


@pytest.mark.parametrize("text", ["dir:x", "docker-daemon:app"])
def test_tags_of_what_has_none_refused(text):
    with pytest.raises(Unsupported, match="no tags to list") as caught:
        list_tags(parse_repository(text))
    assert "docker://HOST/NAME" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["oci:x:v1", "oci:x", "oci-archive:x:v1", "docker-archive:x", "dir:x", "docker-daemon:a:1"],
)
def test_deletion_of_what_is_in_no_registry_refused(text):
    with pytest.raises(Unsupported, match="only images of registries are deleted") as caught:
        delete_image(parse_one_image(text))
    assert "goes with its files" in caught.value.hint


def test_tags_and_deletion_are_of_the_place_itself_and_of_no_mirror(registry, places, image_of):
    with EmbeddedRegistry() as mirror:
        image_of().write(places.sink(f"{registry.address}/app:v1"))
        for tag in ("v1", "old"):
            image_of().write(places.sink(f"{mirror.address}/app:{tag}"))
        text = (
            f'[[registry]]\nlocation = "{registry.address}"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}"\ninsecure = true\n'
        )
        options = TransportOptions(registries=parse_registries_conf([("x", text)]))
        mirror.requests.clear()
        assert list_tags(parse_repository(f"{registry.address}/app"), options) == ("v1",)
        deletion = delete_image(parse_one_image(f"{registry.address}/app:v1"), options)
        assert deletion.tags == ("v1",)
        with pytest.raises(NotFound):
            delete_image(parse_one_image(f"{registry.address}/app:old"), options)
        assert mirror.requests == []
        assert set(mirror.tags("app")) == {"v1", "old"}


def test_tags_and_deletion_go_where_registries_conf_has_the_name(registry, places, image_of):
    image_of().write(places.sink(f"{registry.address}/inner/app:v1"))
    text = (
        f'[[registry]]\nprefix = "r.example"\nlocation = "{registry.address}/inner"\n'
        '[[registry]]\nprefix = "r.example/closed"\nblocked = true\n'
    )
    options = TransportOptions(registries=parse_registries_conf([("x", text)]))
    assert list_tags(parse_repository("r.example/app"), options) == ("v1",)
    delete_image(parse_one_image("r.example/app:v1"), options)
    assert registry.tags("inner/app") == {}
    for ask in (
        lambda: list_tags(parse_repository("r.example/closed"), options),
        lambda: delete_image(parse_one_image("r.example/closed:v1"), options),
    ):
        with pytest.raises(PolicyDenied):
            ask()


def test_short_name_that_registries_conf_has_searched_for_is_not_deleted():
    conf = parse_registries_conf([("x", 'unqualified-search-registries = ["a.io", "b.io"]')])
    with pytest.raises(UsageError, match="searched for in"):
        delete_image(parse_one_image("app:v1"), TransportOptions(registries=conf))
