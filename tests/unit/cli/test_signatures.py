import json
from dataclasses import replace

import pytest

from imagers.cli import signatures
from imagers.cli.images import RegistryOptions, name_of, opened_source
from imagers.cli.signatures import permitted, places_of, signature_finder
from imagers.errors import FormatError, LocalError, PolicyDenied
from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.sign.found import Form
from imagers.sign.keyfiles import read_key_file
from imagers.sign.policy_json import docker_identity, parse_policy
from imagers.sign.verify import load_trust

DIGEST = digest_of(b"image")


def places(text, **options):
    name = name_of(text)
    with opened_source(name, RegistryOptions()) as source:
        return places_of(source, name, RegistryOptions(), **options)


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


def permit(text, policy=None):
    name = name_of(text)
    options = RegistryOptions()
    with opened_source(name, options) as source:
        return permitted(source, name, options, policy=policy, registries_d=None, platform=None)


@pytest.mark.usefixtures("home")
def test_permitted_without_any_policy_goes_on_and_says_so(plain, tmp_path, monkeypatch, capsys):
    found = signatures.read_settings()
    monkeypatch.setattr(
        signatures, "read_settings", lambda: replace(found, policy_paths=(tmp_path / "none",))
    )
    assert permit(plain).raw
    said = capsys.readouterr().err
    assert said.startswith("imagers: warning: there is no policy.json")
    (tmp_path / "reject.json").write_text('{"default":[{"type":"reject"}]}')
    with pytest.raises(PolicyDenied):
        permit(plain, str(tmp_path / "reject.json"))
    assert capsys.readouterr().err == ""
