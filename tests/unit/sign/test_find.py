# SPDX-License-Identifier: Apache-2.0
"""Every place, and what its failure is taken for."""

import json
from datetime import UTC, datetime

import pytest

from imagers.errors import Cancelled, NotFound, RemoteError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.sign.find import Finder, Places, read_attached
from imagers.sign.formats.bundle import build_bundle, build_bundle_manifest
from imagers.sign.formats.format import FORMATS
from imagers.sign.found import BUNDLE_TYPE
from imagers.sign.image import sign_image
from imagers.sign.registries_d import RegistriesD, Scope

REFERENCE = parse_reference("r.example/app:v1")
ALL = set(FORMATS)


@pytest.fixture
def image(repository, manifest):
    repository.put_manifest_as(manifest, OCI_MANIFEST, "v1")
    return digest_of(manifest)


def attach(repository, digest, raw=b"bundle", *, subject=None, media_type=BUNDLE_TYPE, **change):
    subject = Descriptor(OCI_MANIFEST, subject or digest, 1)
    document = json.loads(build_bundle_manifest(subject, raw, created=datetime.now(UTC)))
    document["layers"][0]["mediaType"] = media_type
    document |= change
    text = json.dumps(document).encode()
    repository.put_blob(Descriptor(media_type, digest_of(raw), len(raw)), raw, what="x")
    # cosign 3.1 writes another type into the list than into the manifest.
    entry = Descriptor(OCI_MANIFEST, digest_of(text), len(text), artifact_type="x/y")
    repository.put_referrer(text, entry, digest)
    return digest_of(text)


def places_of(repository, **more):
    return Places(
        reference=REFERENCE,
        repository=repository,
        referrers=repository,
        extension=repository,
        **more,
    )


def test_finder_without_anything_says_where_it_looked(repository, image):
    found = Finder(places_of(repository)).find(image, ALL)
    assert (found.signatures, found.failures) == ((), ())
    assert {one.format for one in found.looked} == ALL
    assert all(one.count == 0 for one in found.looked)


def test_finder_looks_only_for_the_forms_that_are_asked_for(repository, image):
    repository.fail[f"{image.algorithm}-{image.hex}.sig"] = RemoteError("down")
    assert Finder(places_of(repository)).find(image, {"sigstore bundle"}).failures == ()
    assert Finder(places_of(repository)).find(image, set()).looked == ()


def test_finder_finds_every_form(repository, image, key, tmp_path):
    sign_image(repository, repository, REFERENCE, key)
    attach(repository, image, build_bundle(image, key))
    attach(
        repository,
        image,
        b"jws",
        media_type="application/jose+json",
        artifactType="application/vnd.cncf.notary.signature",
    )
    folder = tmp_path / f"app@sha256={image.hex}"
    folder.mkdir()
    (folder / "signature-1").write_bytes(b"\xa3")
    config = RegistriesD(Scope(lookaside=f"file://{tmp_path}"), {})
    found = Finder(places_of(repository, config=config)).find(image, ALL)
    assert {form: len(found.of(form)) for form in FORMATS} == dict.fromkeys(FORMATS, 1)
    assert found.failures == ()


def test_finder_registry_that_fails_is_not_a_missing_signature(repository, image):
    tag = f"{image.algorithm}-{image.hex}"
    repository.fail = {tag: RemoteError("down"), f"{tag}.sig": RemoteError("down")}
    found = Finder(places_of(repository)).find(image, ALL)
    assert {one.format for one in found.failures} == {"sigstore", "sigstore bundle", "notation"}


def test_finder_registry_that_keeps_signatures_is_asked_in_place_of_the_lookaside(
    repository, image, tmp_path
):
    repository.supports_signatures = lambda: True
    repository.read_signatures = lambda _, max_bytes: b'{"signatures":[]}' if max_bytes else b""
    config = RegistriesD(Scope(lookaside=f"file://{tmp_path}"), {})
    found = Finder(places_of(repository, config=config)).find(image, {"simple signing"})
    assert found.looked[0].place == "signatures kept by registry r.example"


def test_places_default_lookaside_is_for_what_is_not_configured():
    config = RegistriesD(Scope(), {"r.example/app": Scope(lookaside="file:///a")})
    places = Places(reference=REFERENCE, config=config, default_lookaside="file:///d")
    assert places.lookaside() == places.lookaside(write=True) == "file:///a"
    assert Places(reference=REFERENCE, default_lookaside="file:///d").lookaside() == "file:///d"
    assert Places(default_lookaside="file:///d").lookaside() is None


def test_finder_of_an_image_directory(tmp_path):
    (tmp_path / "signature-1").write_bytes(b"\xa3")
    found = Finder(Places(directory=str(tmp_path))).find(digest_of(b""), ALL)
    assert len(found.signatures) == 1


def test_attached_manifest_must_say_itself_what_it_refers_to(repository, image, key):
    """The list of referrers is the word of the registry, or of who wrote the tag."""
    attach(repository, image, build_bundle(image, key), subject=digest_of(b"other"))
    found = read_attached(repository, repository, image, {"sigstore bundle"})
    assert (found.signatures, found.failures) == ((), ())


def test_attached_manifest_of_other_things_is_passed_over(repository, image):
    attach(repository, image, b"sbom", media_type="application/spdx+json")
    attach(repository, image, b"jws", media_type="application/jose+json")  # of no notation
    found = read_attached(repository, repository, image, {"sigstore bundle", "notation"})
    assert (found.signatures, found.failures) == ((), ())


def test_attached_manifest_that_is_missing_or_broken_could_not_be_looked_at(repository, image, key):
    """The others are still looked at: one of them may be good enough."""
    missing = attach(repository, image, b"1")
    attach(repository, image, b"2", layers="x")
    attach(repository, image, build_bundle(image, key))
    del repository.manifests[missing]
    found = read_attached(repository, repository, image, {"sigstore bundle"})
    assert len(found.signatures) == 1
    assert len(found.failures) == 2
    assert found.failure("sigstore bundle") is not None


def test_attached_blob_that_is_missing_or_huge_could_not_be_looked_at(repository, image):
    attach(repository, image, b"1")
    repository.blobs.clear()
    huge = [{"mediaType": BUNDLE_TYPE, "digest": str(digest_of(b"")), "size": 1 << 30}]
    attach(repository, image, b"2", layers=huge)
    found = read_attached(repository, repository, image, {"sigstore bundle"})
    assert isinstance(found.failures[0].error, NotFound)
    assert "expected at most" in str(found.failures[1].error)


def test_attached_by_hundreds_is_bounded(repository, image):
    entry = Descriptor(OCI_MANIFEST, digest_of(b"x"), 1)
    repository.read_referrers = lambda _: ((entry,) * 257, True)
    found = read_attached(repository, repository, image, {"sigstore bundle"})
    assert "at most 256 referrers" in str(found.failures[0].error)


def test_attached_search_that_is_cancelled_ends(repository, image):
    attach(repository, image, b"1")
    repository.fail[digest_of(b"1")] = Cancelled("stop")
    with pytest.raises(Cancelled):
        read_attached(repository, repository, image, {"sigstore bundle"})
