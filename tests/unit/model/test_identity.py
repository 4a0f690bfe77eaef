# SPDX-License-Identifier: Apache-2.0
"""Identities of images, and their scopes from the most specific one on."""

import pytest

from imagers.errors import FormatError
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity, parse_path_scope, path_identity
from imagers.model.reference import parse_reference

D1 = digest_of(b"1")


@pytest.mark.parametrize(
    ("reference", "scopes"),
    [
        (
            "r.example.org:5000/a/b/app:v1",
            [
                "r.example.org:5000/a/b/app:v1",
                "r.example.org:5000/a/b/app",
                "r.example.org:5000/a/b",
                "r.example.org:5000/a",
                "r.example.org:5000",
                "*.example.org",
                "*.org",
            ],
        ),
        (
            f"box@{D1}",
            [
                f"docker.io/library/box@{D1}",
                "docker.io/library/box",
                "docker.io/library",
                "docker.io",
                "*.io",
            ],
        ),
        ("localhost/x:1", ["localhost/x:1", "localhost/x", "localhost"]),
        (
            "127.0.0.1:5000/x:1",
            [
                "127.0.0.1:5000/x:1",
                "127.0.0.1:5000/x",
                "127.0.0.1:5000",
                "*.0.0.1",
                "*.0.1",
                "*.1",
            ],
        ),
        ("[::1]:5000/x:1", ["[::1]:5000/x:1", "[::1]:5000/x", "[::1]:5000"]),
    ],
)
def test_docker_identity_has_the_scopes_of_containers_image(reference, scopes):
    assert list(docker_identity(parse_reference(reference)).scopes) == scopes


def test_path_identity_has_the_path_and_its_parents_without_the_root():
    identity = path_identity("oci", "/srv/images/app")
    assert identity.scopes == ("/srv/images/app", "/srv/images", "/srv")
    assert (identity.reference, str(identity)) == (None, "oci:/srv/images/app")


@pytest.mark.parametrize("path", ["", "/", "a/b", "/a/../b", "/a//b", "/a/", "//a", "/./a"])
def test_path_identity_that_is_not_normal_is_the_callers_bug(path):
    with pytest.raises(ValueError, match="absolute, normal"):
        path_identity("oci", path)


def test_scope_for_paths_is_absolute_and_below_the_root():
    assert parse_path_scope("/a/b", what="policy", where="here") == "/a/b"
    with pytest.raises(FormatError, match="policy at here: expected a scope that is") as caught:
        parse_path_scope("/", what="policy", where="here")
    assert caught.value.where == "here"
