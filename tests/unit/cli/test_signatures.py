import json

import pytest

from imagers.cli.images import RegistryOptions, opened_source
from imagers.cli.signatures import places_of, signature_finder
from imagers.errors import FormatError, LocalError
from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.sign.found import Form
from imagers.sign.keyfiles import read_key_file
from imagers.sign.policy_json import docker_identity, parse_policy
from imagers.sign.verify import load_trust
from imagers.transport.names import parse_image_name

DIGEST = digest_of(b"image")


def places(text, **options):
    with opened_source(text, RegistryOptions()) as source:
        return places_of(source, parse_image_name(text), RegistryOptions(), **options)


@pytest.mark.usefixtures("home")
def test_signature_finder_of_a_layout_finds_none(plain):
    found = signature_finder(places(plain), None)(DIGEST)
    assert found.signatures == ()


@pytest.mark.usefixtures("home")
def test_places_of_a_directory_are_its_files(tmp_path):
    assert places(f"dir:{tmp_path}").directory == str(tmp_path)


def test_places_of_a_registry_are_configured_by_registries_d(home, tmp_path):
    name = "registry.example.org/app:v1"
    assert places(name).lookaside().endswith("/containers/sigstore")
    folder = home / ".config" / "containers" / "registries.d"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("default-docker: {lookaside: 'file:///user'}")
    (folder / "ignored.txt").write_text("{")
    assert places(name).lookaside() == "file:///user"
    (tmp_path / "b.yaml").write_text("docker: {registry.example.org: {sigstore: 'file:///b'}}")
    assert places(name, registries_d=str(tmp_path)).lookaside() == "file:///b"
    with pytest.raises(LocalError):
        places(name, registries_d=str(tmp_path / "none"))
    (folder / "c.yaml").write_text("{")
    with pytest.raises(FormatError, match=r"c\.yaml"):
        places(name)


@pytest.mark.usefixtures("home")
def test_signature_finder_looks_for_what_the_policy_demands(plain):
    policy = parse_policy(json.dumps({"default": [{"type": "encrypted"}]}).encode())
    identity = docker_identity(parse_reference("registry.example.org/app:v1"))
    trust = load_trust(policy.select(identity), read_key_file)
    assert signature_finder(places(plain), trust)(DIGEST).looked == ()
    looked = signature_finder(places(plain), trust, everything=True)(DIGEST).looked
    assert {one.form for one in looked} == {Form.SIMPLE}
