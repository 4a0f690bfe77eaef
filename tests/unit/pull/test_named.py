# SPDX-License-Identifier: Apache-2.0
"""Names of images: what a policy is asked about, and where signatures are looked for."""

import json

import pytest

from imagers.errors import FormatError, LocalError, Unsupported, UsageError
from imagers.layout.oci_layout import OCILayoutSource
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.pull.named import NamedImage, identity_of, open_image
from imagers.registry.source import RegistrySource
from imagers.sign.find import Finder, Places
from imagers.sign.formats.format import FORMATS
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import generate_private_key
from imagers.transport.names import locate, parse_image_name

DIGEST = digest_of(b"manifest")
NAME = "registry.example.org/team/app:v1"


def policy_of(*requirements):
    return parse_policy(json.dumps({"default": list(requirements)}).encode())


@pytest.fixture
def nowhere():
    """An image that keeps no signatures, by the name of one in a registry."""
    return NamedImage(docker_identity(parse_reference(NAME)), None, Finder(Places()).find)


@pytest.mark.parametrize("kind", ["oci", "dir"])
def test_place_that_keeps_no_signatures_was_looked_at(tmp_path, kind):
    name = f"{kind}:{tmp_path}" + (":v1" if kind == "oci" else "")
    with open_image(name) as image:
        found = image.find(DIGEST, frozenset(FORMATS))
    assert found.signatures == ()
    assert all(found.was_looked_for(form) for form in FORMATS)


def test_signatures_are_looked_for_as_the_policy_demands_and_all_where_it_is_told_to(nowhere):
    trust = nowhere.requirements(policy_of({"type": "insecureAcceptAnything"}))
    assert nowhere.signatures(trust)(DIGEST).looked == ()
    found = nowhere.signatures(trust, everything=True)(DIGEST)
    assert {one.format for one in found.looked} == set(FORMATS)


def test_keys_of_a_policy_are_read_once_and_each_policy_has_its_own(nowhere, tmp_path):
    key = tmp_path / "key.pub"
    key.write_bytes(generate_private_key().public_key.to_pem())
    demand = {"type": "sigstoreSigned", "keyPath": str(key)}
    policy = policy_of(demand)
    trust = nowhere.requirements(policy)
    key.unlink()
    assert nowhere.requirements(policy) is trust
    with pytest.raises(LocalError, match="no such file"):
        nowhere.requirements(policy_of(demand))


def test_open_image_of_a_registry_asks_under_the_name_that_was_written():
    with open_image(NAME) as image:
        assert isinstance(image.source, RegistrySource)
        assert image.identity == docker_identity(parse_reference(NAME))


def test_open_image_of_a_layout_is_open_until_the_block_ends(tmp_path):
    with open_image(f"oci:{tmp_path}:v1") as image:
        assert isinstance(image.source, OCILayoutSource)
    image.close()


@pytest.mark.parametrize(
    ("name", "error"),
    [("/no/kind", FormatError), ("atomic:x", Unsupported), ("oci:/:v1", UsageError)],
)
def test_open_image_of_no_name_is_refused(name, error):
    with pytest.raises(error):
        open_image(name)


def test_identity_of_a_layout_has_no_link_in_it(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    name = locate(parse_image_name(f"oci:{tmp_path}/link:v1"))
    assert str(tmp_path / "real") in str(identity_of(name))


def test_identity_of_a_path_that_nobody_looked_up_is_refused(tmp_path):
    # Looked up here and again where the image is opened, it could be two images.
    with pytest.raises(ValueError, match="locate"):
        identity_of(parse_image_name(f"oci:{tmp_path}/image:v1"))


@pytest.mark.parametrize(
    ("text", "transport"),
    [
        ("docker-archive:{}/a.tar:registry.example.org/app:v1", "docker-archive"),
        ("docker-daemon:registry.example.org/app:v1", "docker-daemon"),
        ("docker-daemon:sha256:" + 64 * "0", "docker-daemon"),
    ],
)
def test_identity_of_a_name_outside_of_a_registry_is_not_that_of_the_registry(
    tmp_path, text, transport
):
    policy = parse_policy(
        b'{"default":[{"type":"reject"}],"transports":{"docker":'
        b'{"":[{"type":"insecureAcceptAnything"}]}}}'
    )
    identity = identity_of(locate(parse_image_name(text.format(tmp_path))))
    assert identity.transport == transport
    assert policy.select(identity).where == "$.default"
    assert str(identity).startswith(f"{transport}:")


def test_identity_of_an_image_of_an_engine_has_the_scopes_of_its_name():
    identity = identity_of(parse_image_name("docker-daemon:registry.example.org/team/app:v1"))
    assert identity.scopes[1:3] == ("registry.example.org/team/app", "registry.example.org/team")


def test_identity_of_the_root_directory_is_refused():
    with pytest.raises(UsageError, match="below '/'"):
        identity_of(locate(parse_image_name("oci:/")))


def test_identity_of_a_registry_is_the_reference():
    identity = identity_of(parse_image_name(NAME))
    assert identity.reference == parse_reference(NAME)
