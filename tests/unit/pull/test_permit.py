# SPDX-License-Identifier: Apache-2.0
"""The policy's answer for those who copy or change an image."""

import base64
import json
from dataclasses import replace

import pytest

from imagers.errors import CouldNotVerify, DigestMismatch, NoSignature, NotFound, PolicyDenied
from imagers.model.descriptor import Platform
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.pull.named import NamedImage
from imagers.pull.permit import permit_image
from imagers.sign.formats.sigstore import sign_payload
from imagers.sign.found import CouldNotLook, Found
from imagers.sign.payload import build_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import generate_private_key
from imagers.testing import Lie, MemoryRepository, make_image, make_index

NAME = "registry.example.org/team/app:v1"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.fixture(scope="module")
def key():
    return generate_private_key()


IMAGES = {one.architecture: make_image(b"layer", platform=one) for one in (AMD64, ARM64)}
INDEX = make_index(*IMAGES.values())


def named(source, find):
    identity = docker_identity(parse_reference(NAME))
    return NamedImage(identity, source, lambda digest, _: find(digest))


def policy_for(key, *, on_index=False):
    demand = {
        "type": "sigstoreSigned",
        "keyData": base64.b64encode(key.public_key.to_pem()).decode(),
    }
    if on_index:
        demand = {"type": "index", "requirements": [demand]}
    return parse_policy(json.dumps({"default": [demand]}).encode())


def finder(key, *signed):
    made = {one.digest: (sign_payload(build_payload(NAME, one.digest), key),) for one in signed}
    return lambda digest: Found.everywhere(made.get(digest, ()))


def permit(key, *signed, platform=AMD64, source=None, on_index=False):
    source = source or MemoryRepository(INDEX)
    image = named(source, finder(key, *signed))
    permitted = permit_image(image, policy_for(key, on_index=on_index), platform=platform)
    assert permitted is source.top


def test_of_an_index_the_image_that_is_used_is_asked_about(key):
    permit(key, IMAGES["amd64"])
    with pytest.raises(NoSignature):
        permit(key, IMAGES["amd64"], platform=ARM64)
    # A signature of the index is none of the image.
    with pytest.raises(NoSignature):
        permit(key, INDEX)


def test_all_images_are_asked_about_and_the_index(key):
    permit(key, INDEX, *IMAGES.values(), platform=None)
    everything = (INDEX, *IMAGES.values())
    for missing in everything:
        signed = [one for one in everything if one is not missing]
        with pytest.raises(NoSignature, match=str(missing.digest)):
            permit(key, *signed, platform=None)


def test_entry_that_is_an_index_is_asked_about_with_all_that_is_in_it(key):
    # It is copied with all that is in it.
    source = MemoryRepository(make_index(replace(INDEX, platform=AMD64)))
    permit(key, INDEX, *IMAGES.values(), source=source)
    with pytest.raises(NoSignature, match=str(IMAGES["arm64"].digest)):
        permit(key, INDEX, IMAGES["amd64"], source=source)


def test_requirement_of_the_index_is_about_the_index(key):
    permit(key, INDEX, on_index=True)
    with pytest.raises(NoSignature):
        permit(key, *IMAGES.values(), on_index=True)


def test_image_in_no_index_is_asked_about_whatever_it_is_for(key):
    source = MemoryRepository(IMAGES["arm64"])
    permit(key, IMAGES["arm64"], source=source)
    with pytest.raises(NoSignature):
        permit(key, source=source)


def test_other_bytes_than_the_entry_says_are_refused(key):
    image, source = IMAGES["amd64"], MemoryRepository(INDEX)
    source.lies[f"manifest {image.digest}"] = Lie(data=image.raw.replace(b"2", b"3", 1))
    with pytest.raises(DigestMismatch):
        permit(key, image, source=source)


def test_index_without_the_platform_is_not_found(key):
    with pytest.raises(NotFound):
        permit(key, IMAGES["amd64"], platform=Platform("linux", "s390x"))


def test_could_not_look_is_not_none(key):
    with pytest.raises(CouldNotVerify):
        permit_image(
            named(
                MemoryRepository(INDEX),
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
        permit_image(named(MemoryRepository(INDEX), nobody_asks), policy, platform=AMD64)
