"""The policy's answer for those who copy or change an image."""

import base64
import json

import pytest

from imagers.errors import CouldNotVerify, DigestMismatch, NoSignature, NotFound, PolicyDenied
from imagers.model.descriptor import Platform
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.manifest import RawManifest
from imagers.model.media import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.pull.named import NamedImage
from imagers.pull.permit import permit_image
from imagers.sign.formats.sigstore import sign_payload
from imagers.sign.found import CouldNotLook, Found
from imagers.sign.payload import build_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import generate_private_key

NAME = "registry.example.org/team/app:v1"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.fixture(scope="module")
def key():
    return generate_private_key()


def descriptor(data, media_type, **more):
    return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data), **more}


def manifest_of(architecture):
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(architecture.encode(), OCI_CONFIG),
            "layers": [descriptor(b"layer", OCI_LAYER)],
        }
    ).encode()


IMAGES = {one: manifest_of(one) for one in ("amd64", "arm64")}
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            descriptor(raw, OCI_MANIFEST, platform={"os": "linux", "architecture": name})
            for name, raw in IMAGES.items()
        ],
    }
).encode()


class Source:
    """A repository with the index and its images."""

    name = f"docker://{NAME}"

    def __init__(self, *documents):
        self.documents = {digest_of(raw): raw for raw in documents}
        self.top = None

    def read_manifest(self, digest=None):
        if digest is None:
            return self.top
        if digest not in self.documents:
            raise NotFound("none")
        return RawManifest(self.documents[digest], "", digest)


def top_of(raw, media_type=OCI_INDEX):
    return RawManifest(raw, media_type, digest_of(raw))


def named(source, top, find):
    source.top = top
    return NamedImage(
        docker_identity(parse_reference(NAME)), source, lambda digest, _: find(digest)
    )


def policy_for(key, *, on_index=False):
    demand = {
        "type": "sigstoreSigned",
        "keyData": base64.b64encode(key.public_key.to_pem()).decode(),
    }
    if on_index:
        demand = {"type": "index", "requirements": [demand]}
    return parse_policy(json.dumps({"default": [demand]}).encode())


def finder(key, *signed):
    made = {
        digest_of(raw): (sign_payload(build_payload(NAME, digest_of(raw)), key),) for raw in signed
    }
    return lambda digest: Found.everywhere(made.get(digest, ()))


def permit(key, *signed, platform=AMD64, top=None, on_index=False, source=None):
    top = top or top_of(INDEX)
    image = named(source or Source(*IMAGES.values()), top, finder(key, *signed))
    permitted = permit_image(image, policy_for(key, on_index=on_index), platform=platform)
    assert permitted is top


def test_of_an_index_the_image_that_is_used_is_asked_about(key):
    permit(key, IMAGES["amd64"])
    with pytest.raises(NoSignature):
        permit(key, IMAGES["amd64"], platform=ARM64)
    # A signature of the index is none of the image.
    with pytest.raises(NoSignature):
        permit(key, INDEX)


def test_all_images_are_asked_about_and_the_index(key):
    permit(key, INDEX, *IMAGES.values(), platform=None)
    for missing in (INDEX, *IMAGES.values()):
        signed = {INDEX, *IMAGES.values()} - {missing}
        with pytest.raises(NoSignature, match=str(digest_of(missing))):
            permit(key, *signed, platform=None)


def test_entry_that_is_an_index_is_asked_about_with_all_that_is_in_it(key):
    # It is copied with all that is in it.
    platform = {"os": "linux", "architecture": "amd64"}
    outer = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(INDEX, OCI_INDEX, platform=platform)],
        }
    ).encode()
    source = Source(INDEX, *IMAGES.values())
    permit(key, INDEX, *IMAGES.values(), top=top_of(outer), source=source)
    with pytest.raises(NoSignature, match=str(digest_of(IMAGES["arm64"]))):
        permit(key, INDEX, IMAGES["amd64"], top=top_of(outer), source=source)


def test_requirement_of_the_index_is_about_the_index(key):
    permit(key, INDEX, on_index=True)
    with pytest.raises(NoSignature):
        permit(key, *IMAGES.values(), on_index=True)


def test_image_in_no_index_is_asked_about_whatever_it_is_for(key):
    top = top_of(IMAGES["arm64"], OCI_MANIFEST)
    permit(key, IMAGES["arm64"], top=top)
    with pytest.raises(NoSignature):
        permit(key, top=top)


def test_other_bytes_than_the_entry_says_are_refused(key):
    class Liar(Source):
        def read_manifest(self, digest=None):
            if digest is None:
                return self.top
            return RawManifest(IMAGES["amd64"].replace(b"2", b"3", 1), "", digest)

    with pytest.raises(DigestMismatch):
        permit(key, IMAGES["amd64"], source=Liar())


def test_index_without_the_platform_is_not_found(key):
    with pytest.raises(NotFound):
        permit(key, IMAGES["amd64"], platform=Platform("linux", "s390x"))


def test_could_not_look_is_not_none(key):
    with pytest.raises(CouldNotVerify):
        permit_image(
            named(
                Source(*IMAGES.values()),
                top_of(INDEX),
                lambda _: Found(failures=(CouldNotLook(CouldNotVerify("no answer")),)),
            ),
            policy_for(key),
            platform=AMD64,
        )


def test_rejected_is_denied_without_a_look():
    policy = parse_policy(b'{"default":[{"type":"reject"}]}')

    def nobody_asks(digest):
        raise AssertionError(digest)

    with pytest.raises(PolicyDenied):
        permit_image(
            named(Source(*IMAGES.values()), top_of(INDEX), nobody_asks), policy, platform=AMD64
        )
