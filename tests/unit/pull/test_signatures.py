import json

import pytest

from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.pull.signatures import signature_finder
from imagers.sign.find import Places
from imagers.sign.found import Form
from imagers.sign.keyfiles import read_key_file
from imagers.sign.policy_json import docker_identity, parse_policy
from imagers.sign.verify import load_trust

DIGEST = digest_of(b"manifest")


def trust_in(requirement):
    policy = parse_policy(json.dumps({"default": [requirement]}).encode())
    identity = docker_identity(parse_reference("registry.example.org/app:v1"))
    return load_trust(policy.select(identity), read_key_file)


@pytest.mark.parametrize("kind", ["layout", "directory"])
def test_place_that_keeps_no_signatures_was_looked_at(tmp_path, kind):
    places = Places() if kind == "layout" else Places(directory=str(tmp_path))
    found = signature_finder(places, None)(DIGEST)
    assert found.signatures == ()
    assert all(found.was_looked_for(form) for form in Form)


def test_finder_looks_for_what_the_policy_demands_and_for_all_where_it_is_told_to():
    trust = trust_in({"type": "encrypted"})
    assert signature_finder(Places(), trust)(DIGEST).looked == ()
    found = signature_finder(Places(), trust, everything=True)(DIGEST)
    assert {one.form for one in found.looked} == set(Form)
