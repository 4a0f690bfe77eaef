# SPDX-License-Identifier: Apache-2.0
"""What is particular to signatures of simple signing; the judge's answers are in test_judge.py."""

import pytest

from imagers.errors import FormatError
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.sign.find import Places
from imagers.sign.formats.signed_by import FORMAT, KeyringMaterial, SignedBy
from imagers.sign.found import Found, Looked, SigstoreSignature, SimpleSignature
from imagers.sign.identity import MatchRepository
from imagers.sign.materials import Trust
from imagers.sign.policy_json import parse_policy
from imagers.sign.requirements import KeyRefs

REFERENCE = parse_reference("r.example/app:v1")
REJECT = parse_policy(b'{"default": [{"type": "reject"}]}').select(docker_identity(REFERENCE))


def signed_by(*paths):
    return SignedBy(KeyRefs(paths, ()), MatchRepository(), where="here")


def test_material_is_the_files_with_their_names():
    material = FORMAT.load(signed_by("/a", "/b"), lambda path: path.encode())
    assert material.keyring == (("key file '/a'", b"/a"), ("key file '/b'", b"/b"))


def test_material_that_gpg_does_not_take_is_refused():
    with pytest.raises(FormatError, match="key file '/a'"):
        FORMAT.check_material(KeyringMaterial((("key file '/a'", b"no key"),)))


def test_notes_are_about_several_keys():
    assert list(FORMAT.notes(signed_by("/a"))) == []
    assert list(FORMAT.notes(signed_by("/a", "/b"))) == ["image-rs does not know keyPaths"]


def test_without_a_lookaside_there_are_none():
    found = FORMAT.find(Places(REFERENCE), digest_of(b""))
    assert found == Found(looked=(Looked("simple signing", "no lookaside is configured", 0),))


def test_gpg_is_asked_only_about_its_own_signatures():
    others = Found((SigstoreSignature(b"", {}),))
    assert FORMAT.read(Trust(REJECT, {}), others) == others
    own = Found((SimpleSignature(b"x"),))
    assert FORMAT.read(Trust(REJECT, {}), own).signatures[0].readings == {}
