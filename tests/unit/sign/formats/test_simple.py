# SPDX-License-Identifier: Apache-2.0
"""Signing with gpg into a lookaside and into the registry's extension."""

import json

import pytest

from imagers.errors import DigestMismatch, Unsupported, UsageError
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.sign.find import Finder, Places
from imagers.sign.formats.gpg import Keyring
from imagers.sign.formats.simple import sign_image_simple
from imagers.sign.payload import PayloadType, parse_payload
from imagers.sign.registries_d import RegistriesD, Scope

REFERENCE = parse_reference("r.example/app:v1")


class Place:
    """A repository with its lookaside, and a gpg home."""

    def __init__(self, repository, home, folder):
        self.repository, self.home = repository, home
        config = RegistriesD(Scope(lookaside=f"file://{folder}"), {})
        self.places = Places(
            reference=REFERENCE,
            repository=repository,
            referrers=repository,
            extension=repository,
            config=config,
        )

    def sign(self, key=None, *, sink=None, places=None, **options):
        return sign_image_simple(
            self.repository,
            places or self.places,
            sink,
            REFERENCE,
            key or self.home.alice,
            home=self.home.path,
            **options,
        )

    def payloads(self, digest, *keys):
        with Keyring([("k", self.home.export(*keys))]) as keyring:
            for one in Finder(self.places).find(digest, {"simple signing"}).signatures:
                yield parse_payload(keyring.read(one.blob).payload, PayloadType.SIMPLE)


@pytest.fixture
def place(repository, manifest, gpg_home, tmp_path):
    repository.put_manifest_as(manifest, OCI_MANIFEST, "v1")
    return Place(repository, gpg_home, tmp_path)


def test_sign_writes_the_name_and_the_digest(place, manifest):
    (signed,) = place.sign(timestamp=7)
    assert (signed.added, signed.count, signed.identity) == (True, 1, str(REFERENCE))
    (payload,) = place.payloads(digest_of(manifest), place.home.alice)
    assert (payload.reference, payload.manifest_digest) == (str(REFERENCE), digest_of(manifest))
    assert payload.optional["timestamp"] == 7


def test_sign_again_adds_nothing_and_another_name_or_key_does(place, manifest):
    place.sign()
    assert [one.added for one in place.sign(timestamp=9)] == [False]
    assert [one.count for one in place.sign(identity="r.example/app:v2")] == [2]
    assert [one.count for one in place.sign(place.home.bob)] == [3]
    names = [
        one.reference
        for one in place.payloads(digest_of(manifest), place.home.alice, place.home.bob)
    ]
    assert names == ["r.example/app:v1", "r.example/app:v2", "r.example/app:v1"]


def test_sign_of_an_index_signs_what_is_in_it(place, manifest):
    entry = {"mediaType": OCI_MANIFEST, "digest": str(digest_of(manifest)), "size": len(manifest)}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    place.repository.put_manifest_as(index, OCI_INDEX, "v1")
    assert [one.digest for one in place.sign()] == [digest_of(manifest), digest_of(index)]


def test_sign_of_another_image_than_expected_is_refused(place):
    with pytest.raises(DigestMismatch):
        place.sign(expected_digest=digest_of(b"other"))


def test_sign_with_a_name_without_a_tag_is_refused(place):
    with pytest.raises(UsageError, match="a tag or a digest"):
        place.sign(identity="r.example/app")


def test_sign_without_a_place_is_refused_before_gpg_is_asked(place):
    places = Places(
        reference=REFERENCE,
        repository=place.repository,
        referrers=place.repository,
        extension=place.repository,
    )
    with pytest.raises(Unsupported, match="no place for a GPG signature"):
        place.sign("F" * 40, places=places)


def test_sign_into_the_registry_where_it_keeps_signatures(place, manifest, tmp_path):
    put = []

    class Sink:
        def put_signature(self, digest, body):
            put.append((digest, json.loads(body)["type"]))

    place.repository.supports_signatures = lambda: True
    place.repository.read_signatures = lambda _, max_bytes: b'{"signatures":[]}'[:max_bytes]
    (signed,) = place.sign(sink=Sink())
    assert put == [(digest_of(manifest), "atomic")]
    assert signed.place.text.startswith(f"{digest_of(manifest)}@")
    assert list(tmp_path.iterdir()) == []
