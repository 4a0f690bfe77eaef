# SPDX-License-Identifier: Apache-2.0
"""Signature formats: a new one is a module and a line in the table."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import ClassVar

import pytest

from imagers.errors import CouldNotVerify, FormatError, NoSignature, SignatureInvalid
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.media import OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.sign.decision import PolicyBasis, Signer
from imagers.sign.find import Finder, Places
from imagers.sign.formats.bundle import build_bundle_manifest
from imagers.sign.formats.format import (
    FORMATS,
    Row,
    SignatureFormat,
    find_format,
    format_of_type,
)
from imagers.sign.formats.lookaside import parse_signature_file
from imagers.sign.found import Found, Looked, UnreadableSignature
from imagers.sign.materials import Material, load_trust
from imagers.sign.policy_json import parse_policy
from imagers.sign.policy_lint import check_materials, lint_policy
from imagers.sign.requirements import SignatureRequirement
from imagers.sign.verify import explain_image, verify_image

REFERENCE = parse_reference("r.example/app:v1")
TOY_TYPE = "application/x-toy"


@dataclass(frozen=True, slots=True)
class ToySignature:
    """A word, then the digest that it is said of."""

    format: ClassVar[str] = "toy"

    raw: bytes
    place: str = ""


@dataclass(frozen=True, slots=True)
class ToySigned(SignatureRequirement):
    format: ClassVar[str] = "toy"

    word_path: str


@dataclass(frozen=True, slots=True)
class ToyMaterial(Material):
    word: bytes


class Toy(SignatureFormat):
    name = "toy"
    is_attached = True

    def parse(self, strict):
        strict.only("type", "wordPath")
        return ToySigned(strict.text("wordPath"), where=strict.where)

    def load(self, requirement, read_key):
        return ToyMaterial(read_key(requirement.word_path))

    def notes(self, requirement):
        yield f"{requirement.word_path} is a toy"

    def is_in(self, kind, layer):
        return kind != "x" and layer.media_type == TOY_TYPE

    def attached(self, raw, layer, place):
        assert layer.media_type == TOY_TYPE
        return ToySignature(raw, place)

    def parse_file(self, content, place):
        if not content.startswith(b"please "):
            raise FormatError("expected please", what="toy")
        return ToySignature(content, place)

    def judge(self, case):
        word, _, said = case.signature.raw.partition(b" ")
        if word != case.material.word:
            raise SignatureInvalid(f"{case.name} does not say the word")
        case.note("says the word")
        if said.decode() != str(digest_of(case.subject.raw)):
            raise SignatureInvalid(f"{case.name} is for another manifest")
        return Signer("ab" * 32, "", case.requirement.where, "a toy")


@pytest.fixture
def toy(monkeypatch):
    """A format from outside of the package: its module, and its line."""
    module = ModuleType("toy_format")
    module.FORMAT = Toy()
    monkeypatch.setitem(sys.modules, "toy_format", module)
    monkeypatch.setitem(
        FORMATS, "toy", Row("toy_format", "toySigned", is_ours=True, file_name="toy-words")
    )


def policy_of(*requirements):
    return parse_policy(json.dumps({"default": requirements}).encode())


def trust_of(policy):
    return load_trust(policy.select(docker_identity(REFERENCE)), lambda _: b"please")


def attach(repository, raw, subject):
    subject = Descriptor(OCI_MANIFEST, digest_of(subject), len(subject))
    document = json.loads(build_bundle_manifest(subject, raw, created=datetime.now(UTC)))
    document["layers"][0]["mediaType"] = document["artifactType"] = TOY_TYPE
    text = json.dumps(document).encode()
    repository.put_blob(Descriptor(TOY_TYPE, digest_of(raw), len(raw)), raw, what="toy")
    entry = Descriptor(OCI_MANIFEST, digest_of(text), len(text))
    repository.put_referrer(text, entry, subject.digest)


TOY = {"type": "toySigned", "wordPath": "/word"}


@pytest.mark.usefixtures("toy")
def test_new_format_is_demanded_found_judged_and_explained(repository, manifest):
    trust = trust_of(policy_of(TOY))
    assert trust.formats() == {"toy"}
    places = Places(REFERENCE, repository=repository, referrers=repository)
    with pytest.raises(NoSignature, match="asks for a toy signature"):
        verify_image(trust, manifest, Finder(places).find(digest_of(manifest), trust.formats()))

    attach(repository, b"thanks " + str(digest_of(manifest)).encode(), manifest)
    found = Finder(places).find(digest_of(manifest), trust.formats())
    assert [one.format for one in found.signatures] == ["toy"]
    with pytest.raises(SignatureInvalid, match="signature 1 of 1 does not say the word"):
        verify_image(trust, manifest, found)

    attach(repository, b"please " + str(digest_of(manifest)).encode(), manifest)
    found = Finder(places).find(digest_of(manifest), trust.formats())
    explanation = explain_image(trust, manifest, found)
    assert explanation.require().basis is PolicyBasis.SIGNATURE
    assert [one.subject for one in explanation.require().signers] == ["a toy"]
    lines = [finding.text for _, finding in explanation.root.lines()]
    assert "$.default[0] toySigned" in lines
    assert "says the word" in lines
    assert any(line.startswith("looked at referrers of ") for line in lines)
    with pytest.raises(SignatureInvalid, match="is for another manifest"):
        verify_image(trust, manifest + b" ", found)


@pytest.mark.usefixtures("toy")
def test_new_format_that_nobody_looked_for_could_not_verify(manifest):
    trust = trust_of(policy_of(TOY))
    looked = Found(looked=(Looked("sigstore", "elsewhere", 0),))
    with pytest.raises(CouldNotVerify, match=r"nobody looked .* of the format toy"):
        verify_image(trust, manifest, looked)


@pytest.mark.usefixtures("toy")
def test_new_format_is_known_to_the_notes_on_a_policy():
    policy = policy_of(TOY)
    assert [(note.level, note.text) for note in lint_policy(policy)][1:] == [
        ("note", "/word is a toy"),
        ("note", "a type of imagers: other readers refuse the whole file"),
    ]
    asked = []
    check_materials(policy, lambda path: asked.append(path) or b"please")
    assert asked == ["/word"]


@pytest.mark.usefixtures("toy")
def test_new_format_is_read_from_signature_files():
    assert parse_signature_file(b"\0toy-words\nplease x", "p") == ToySignature(b"please x", "p")
    broken = parse_signature_file(b"\0toy-words\nx", "p")
    assert isinstance(broken, UnreadableSignature)
    assert broken.format == "toy"


@pytest.mark.usefixtures("toy")
def test_new_format_refuses_members_that_it_does_not_know():
    with pytest.raises(FormatError, match="colour") as caught:
        policy_of({**TOY, "colour": "red"})
    assert caught.value.where == "$.default[0]"


def test_without_its_line_a_format_refuses_the_whole_policy():
    with pytest.raises(
        FormatError, match=r"expected one of .*signedBy.*, got 'toySigned'"
    ) as caught:
        policy_of({"type": "reject"}, TOY)
    assert caught.value.where == "$.default[1].type"
    assert format_of_type("toySigned") is None
    shown = parse_signature_file(b"\0toy-words\nplease x", "p")
    assert shown.format is None


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_line_of_the_table_has_its_module(name):
    assert find_format(name).name == name
    assert format_of_type(FORMATS[name].requirement) is find_format(name)


def test_a_format_without_places_of_its_own_has_none():
    plain = find_format("notation")
    assert plain.find(Places(), digest_of(b"")) == Found()
    for ask in (plain.parse_file, find_format("sigstore").attached):
        with pytest.raises(NotImplementedError):
            ask(*[None] * (2 if ask == plain.parse_file else 3))


LOOK = """
import json
import sys
from imagers.sign import find, found
from imagers.model.digest import digest_of
from imagers.sign.formats.format import FORMATS
from imagers.sign.policy_json import parse_policy
assert not {"cryptography", "urllib3"} & set(sys.modules), "by the import"
for places in (find.Places(), find.Places(directory=sys.argv[1])):
    looked = find.Finder(places).find(digest_of(b""), set(FORMATS))
    assert (looked.signatures, looked.failures) == ((), ())
    assert {one.format for one in looked.looked} == set(FORMATS)
parse_policy(json.dumps({"default": json.loads(sys.argv[2])}).encode())
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"cryptography", "urllib3", "gnupg", "asn1crypto", "imagers"}))
"""


REQUIREMENTS = [
    {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"},
    {"type": "sigstoreSigned", "keyPath": "/k"},
    {"type": "sigstoreBundle", "keyPath": "/k"},
    {"type": "notation", "trustPolicyPath": "/p", "trustStorePath": "/s"},
]


def test_policy_and_looking_where_there_is_nothing_load_no_cryptography(tmp_path):
    """In a process of its own: what other tests have imported does not count."""
    assert {one["type"] for one in REQUIREMENTS} == {row.requirement for row in FORMATS.values()}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path), json.dumps(REQUIREMENTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["imagers"], "")
