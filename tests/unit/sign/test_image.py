# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from imagers.errors import (
    Cancelled,
    CouldNotVerify,
    DigestMismatch,
    FormatError,
    NotFound,
    RemoteError,
    Unauthorized,
    Unsupported,
    UsageError,
)
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.media import OCI_INDEX, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.sign.find import read_attached
from imagers.sign.formats.sigstore import build_signature_manifest, sign_payload, signature_tag
from imagers.sign.formats.sigstore_signed import find_signatures
from imagers.sign.found import Found
from imagers.sign.image import PlaceKind, SignaturePlace, attach_bundles, sign_image
from imagers.sign.payload import build_payload, parse_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import generate_private_key
from imagers.sign.verify import load_trust, verify_image

REFERENCE = parse_reference("r.example/app:v1")


@pytest.fixture
def signed(repository, manifest):
    """The repository with the image at v1, not signed yet."""
    repository.put_manifest_as(manifest, OCI_MANIFEST, "v1")
    return repository


def index_of(repository, manifests, media_type=OCI_MANIFEST):
    entries = [
        {
            "mediaType": media_type,
            "digest": str(repository.add_manifest(raw, media_type)),
            "size": len(raw),
        }
        for raw in manifests
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return json.dumps(document).encode()


def trust_in(*keys):
    requirements = [
        {"type": "sigstoreSigned", "keyData": key.public_key.to_pem().decode()} for key in keys
    ]
    policy = parse_policy(json.dumps({"default": requirements}).encode())
    return load_trust(policy.select(docker_identity(REFERENCE)), lambda _: b"")


def test_sign_image_can_be_found_and_verified(signed, manifest, key):
    (one,) = sign_image(signed, signed, REFERENCE, key)
    assert (one.digest, one.place) == (
        digest_of(manifest),
        SignaturePlace(PlaceKind.TAG, signature_tag(digest_of(manifest))),
    )
    assert (one.identity, one.added, one.count) == (str(REFERENCE), True, 1)
    found = find_signatures(signed, digest_of(manifest))
    assert verify_image(trust_in(key), manifest, Found.everywhere(found)).signers[
        0
    ].reference == str(REFERENCE)


def test_sign_goes_on_where_a_missing_tag_is_forbidden_and_verifying_does_not(
    signed, manifest, key, monkeypatch
):
    read = signed.read_tag

    def forbidden(tag):
        try:
            return read(tag)
        except NotFound:
            raise Unauthorized("forbidden for this user", status=403) from None

    monkeypatch.setattr(signed, "read_tag", forbidden)
    with pytest.raises(CouldNotVerify):
        find_signatures(signed, digest_of(manifest))
    (one,) = sign_image(signed, signed, REFERENCE, key)
    assert (one.added, one.count) == (True, 1)
    assert find_signatures(signed, digest_of(manifest))


def test_sign_stops_where_a_login_is_wanted(signed, key, monkeypatch):
    def unauthorized(_tag):
        raise Unauthorized("log in", status=401)

    monkeypatch.setattr(signed, "read_tag", unauthorized)
    with pytest.raises(Unauthorized):
        sign_image(signed, signed, REFERENCE, key)


def test_sign_image_that_is_another_than_expected_signs_nothing(signed, key):
    with pytest.raises(DigestMismatch) as caught:
        sign_image(signed, signed, REFERENCE, key, expected_digest=digest_of(b"the one I built"))
    assert "image 'r.example/app:v1': digest mismatch: expected" in str(caught.value)
    assert list(signed.tags) == ["v1"]


def test_sign_image_that_is_the_expected_one_is_signed(signed, manifest, key):
    (one,) = sign_image(signed, signed, REFERENCE, key, expected_digest=digest_of(manifest))
    assert one.added


def test_sign_image_under_another_name_adds_a_signature(signed, key):
    sign_image(signed, signed, REFERENCE, key)
    (one,) = sign_image(signed, signed, REFERENCE, key, identity="r.example/app:v2")
    assert (one.added, one.count) == (True, 2)


def test_sign_image_whose_child_is_of_another_type_signs_nothing(repository, manifest, key):
    index = index_of(repository, [manifest], media_type=OCI_INDEX)
    repository.put_manifest_as(index, OCI_INDEX, "v1")
    with pytest.raises((FormatError, Unsupported)):
        sign_image(repository, repository, REFERENCE, key)
    assert list(repository.tags) == ["v1"]


@pytest.mark.parametrize("timestamp", [None, 1])
def test_sign_image_again_adds_nothing(signed, key, timestamp):
    """Also at another time: a pipeline that signs with each run does not fill the tag."""
    sign_image(signed, signed, REFERENCE, key, timestamp=timestamp)
    before = dict(signed.manifests)
    (one,) = sign_image(signed, signed, REFERENCE, key, timestamp=2)
    assert (one.added, one.count) == (False, 1)
    assert signed.manifests == before


def test_sign_image_with_a_second_key_keeps_the_first(signed, manifest, key, other_key):
    sign_image(signed, signed, REFERENCE, key)
    (one,) = sign_image(signed, signed, REFERENCE, other_key)
    assert (one.added, one.count) == (True, 2)
    found = find_signatures(signed, digest_of(manifest))
    assert (
        len(verify_image(trust_in(key, other_key), manifest, Found.everywhere(found)).signers) == 2
    )


def test_sign_image_of_other_tools_keeps_their_signatures(repository_of, vectors, key):
    repository = repository_of(vectors / "signed/cosign2-tag/repository")
    digest = repository.tags["v1"]
    before = find_signatures(repository, digest)
    (one,) = sign_image(repository, repository, REFERENCE, key)
    assert one.count == 2
    assert find_signatures(repository, digest)[:1] == before


def test_sign_image_of_an_index_signs_every_image_and_then_itself(repository, manifest, key):
    other = manifest.replace(b'"layers": []', b'"layers": [], "annotations": {"a": "b"}')
    index = index_of(repository, [manifest, other, manifest])
    repository.put_manifest_as(index, OCI_INDEX, "v1")
    done = sign_image(repository, repository, REFERENCE, key)
    assert [one.digest for one in done] == [digest_of(raw) for raw in (manifest, other, index)]
    assert {one.identity for one in done} == {str(REFERENCE)}
    for raw in (manifest, other, index):
        found = find_signatures(repository, digest_of(raw))
        assert verify_image(trust_in(key), raw, Found.everywhere(found))


def test_sign_image_whose_index_lies_about_a_child_signs_nothing(repository, manifest, key):
    index = index_of(repository, [manifest])
    repository.put_manifest_as(index, OCI_INDEX, "v1")
    repository.manifests[digest_of(manifest)] = (manifest + b" ", OCI_MANIFEST)
    with pytest.raises(DigestMismatch):
        sign_image(repository, repository, REFERENCE, key)
    assert list(repository.tags) == ["v1"]


def test_sign_image_of_an_index_with_something_else_in_it_is_unsupported(repository, manifest, key):
    index = index_of(repository, [manifest], media_type="application/x")
    repository.put_manifest_as(index, OCI_INDEX, "v1")
    with pytest.raises(Unsupported) as caught:
        sign_image(repository, repository, REFERENCE, key)
    assert "'application/x'" in str(caught.value)
    assert list(repository.tags) == ["v1"]


def test_sign_image_of_indexes_too_deep_is_unsupported(repository, manifest, key):
    raw = manifest
    for _ in range(5):
        raw = index_of(repository, [raw], OCI_MANIFEST if raw is manifest else OCI_INDEX)
    repository.put_manifest_as(raw, OCI_INDEX, "v1")
    with pytest.raises(Unsupported) as caught:
        sign_image(repository, repository, REFERENCE, key)
    assert "levels of indexes" in str(caught.value)


@pytest.mark.parametrize(
    ("identity", "written"),
    [
        ("other.example/x:1", "other.example/x:1"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("r.example/app@sha256:" + "1" * 64, "r.example/app@sha256:" + "1" * 64),
    ],
)
def test_sign_image_writes_the_identity_that_is_asked_for(signed, manifest, key, identity, written):
    sign_image(signed, signed, REFERENCE, key, identity=identity, timestamp=5)
    (one,) = find_signatures(signed, digest_of(manifest))
    payload = parse_payload(one.payload)
    assert (payload.reference, payload.optional["timestamp"]) == (written, 5)


@pytest.mark.parametrize(
    ("identity", "error"), [("r.example/app", UsageError), ("A:B:C", FormatError)]
)
def test_sign_image_identity_that_matches_nothing_is_refused(signed, key, identity, error):
    with pytest.raises(error) as caught:
        sign_image(signed, signed, REFERENCE, key, identity=identity)
    assert "identity" in str(caught.value)
    assert list(signed.tags) == ["v1"]


def test_sign_image_while_somebody_else_writes_keeps_both(signed, manifest, key, other_key):
    """The other one writes between our look and our writing, and we overwrite it; then it is
    written again, over ours: we look again and add ours to it."""
    digest = digest_of(manifest)
    theirs = sign_payload(build_payload(str(REFERENCE), digest), other_key)
    raw, config = build_signature_manifest(None, [theirs])
    real = signed.put_manifest_as

    def put_and_lose(raw_ours, media_type, tag):
        real(raw_ours, media_type, tag)
        signed.put_manifest_as = real
        signed.blobs[digest_of(theirs.payload)] = theirs.payload
        signed.blobs[digest_of(config)] = config
        real(raw, OCI_MANIFEST, tag)

    signed.put_manifest_as = put_and_lose
    (one,) = sign_image(signed, signed, REFERENCE, key)
    assert (one.added, one.count) == (True, 2)
    found = find_signatures(signed, digest)
    assert verify_image(trust_in(key, other_key), manifest, Found.everywhere(found))


def test_sign_image_in_a_registry_that_forgets_is_an_error(signed, key):
    signed.put_manifest_as = lambda *_: None
    with pytest.raises(RemoteError) as caught:
        sign_image(signed, signed, REFERENCE, key)
    assert caught.value.temporary
    assert "does not keep the signature" in str(caught.value)


def test_sign_image_when_the_tag_cannot_be_read_writes_nothing(signed, manifest, key):
    """A tag that could not be read must not be taken for a missing one and overwritten."""
    signed.fail[signature_tag(digest_of(manifest))] = RemoteError("down", status=503)
    with pytest.raises(RemoteError):
        sign_image(signed, signed, REFERENCE, key)
    assert list(signed.tags) == ["v1"]


def test_sign_image_when_the_tag_holds_something_else_leaves_it_alone(signed, manifest, key):
    tag = signature_tag(digest_of(manifest))
    signed.put_manifest_as(b'{"schemaVersion":2}', OCI_MANIFEST, tag)
    with pytest.raises(FormatError):
        sign_image(signed, signed, REFERENCE, key)
    assert signed.tags[tag] == digest_of(b'{"schemaVersion":2}')


def test_find_signatures_without_a_tag_is_none(signed, manifest):
    assert find_signatures(signed, digest_of(manifest)) == ()


def test_find_signatures_fetches_a_shared_payload_once(signed, manifest, key, other_key):
    sign_image(signed, signed, REFERENCE, key)
    sign_image(signed, signed, REFERENCE, other_key)
    signed.opened.clear()
    assert len(find_signatures(signed, digest_of(manifest))) == 2
    assert len(signed.opened) == 1


@pytest.mark.parametrize(
    "cause",
    [
        RemoteError("503", status=503),
        NotFound("payload is gone", status=404),
        FormatError("odd"),
        DigestMismatch(expected="a", actual="b"),
    ],
    ids=["remote", "missing payload", "format", "digest"],
)
def test_find_signatures_that_cannot_be_read_is_could_not_verify(signed, manifest, key, cause):
    sign_image(signed, signed, REFERENCE, key)
    digest = digest_of(manifest)
    signed.fail[digest_of(build_payload(str(REFERENCE), digest))] = cause
    with pytest.raises(CouldNotVerify) as caught:
        find_signatures(signed, digest)
    assert caught.value.__cause__ is cause


def test_find_signatures_when_the_tag_answers_503_is_could_not_verify(signed, manifest):
    signed.fail[signature_tag(digest_of(manifest))] = RemoteError("503", status=503)
    with pytest.raises(CouldNotVerify):
        find_signatures(signed, digest_of(manifest))


def test_find_signatures_cancelled_stays_cancelled(signed, manifest):
    signed.fail[signature_tag(digest_of(manifest))] = Cancelled("stopped")
    with pytest.raises(Cancelled):
        find_signatures(signed, digest_of(manifest))


def test_attach_bundles_of_an_index_signs_all_and_again_adds_nothing(repository, manifest, key):
    repository.put_manifest_as(manifest, OCI_MANIFEST, "v1")
    entry = {"mediaType": OCI_MANIFEST, "digest": str(digest_of(manifest)), "size": len(manifest)}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    repository.put_manifest_as(index, OCI_INDEX, "v1")
    reference = parse_reference("r.example/app:v1")

    def attach(with_key):
        places = (repository, repository, repository, reference, with_key)
        return attach_bundles(*places, created=datetime(2026, 1, 1, tzinfo=UTC))

    first = attach(key)
    assert [one.digest for one in first] == [digest_of(manifest), digest_of(index)]
    assert [one.added for one in first] == [True, True]
    assert [one.added for one in attach(key)] == [False, False]
    assert [one.count for one in attach(generate_private_key())] == [2, 2]
    found = read_attached(repository, repository, digest_of(index), {"sigstore bundle"})
    assert len(found.signatures) == 2


def test_attach_bundles_where_the_list_cannot_be_read_adds_none(repository, manifest, key):
    repository.put_manifest_as(manifest, OCI_MANIFEST, "v1")
    digest = digest_of(manifest)
    repository.fail[f"{digest.algorithm}-{digest.hex}"] = RemoteError("down")
    reference = parse_reference("r.example/app:v1")
    places = (repository, repository, repository, reference, key)
    with pytest.raises(RemoteError):
        attach_bundles(*places, created=datetime(2026, 1, 1, tzinfo=UTC))
    assert list(repository.tags) == ["v1"]


def test_attach_bundles_to_a_manifest_that_changes_between_two_reads_signs_nothing(
    repository, manifest, key
):
    repository.put_manifest_as(manifest, OCI_MANIFEST, "v1")
    first = repository.read_manifest

    def second(digest=None):
        answer = first(digest)
        return answer if digest is None else replace(answer, raw=answer.raw + b" ")

    repository.read_manifest = second
    places = (repository, repository, repository, REFERENCE, key)
    with pytest.raises(DigestMismatch):
        attach_bundles(*places, created=datetime(2026, 1, 1, tzinfo=UTC))
    assert list(repository.tags) == ["v1"]
