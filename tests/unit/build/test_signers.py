# SPDX-License-Identifier: Apache-2.0
"""Signing through the library, and what the guest's side says of it."""

import base64
import json
from datetime import UTC, datetime

import pytest

from imagers.build.signers import SigstoreSigner, sign
from imagers.errors import DigestMismatch, NoSignature, Unsupported, UsageError
from imagers.model.digest import digest_of
from imagers.pull.named import open_image
from imagers.pull.run import PullOptions, trust_image
from imagers.pull.trust import Basis
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import generate_private_key
from imagers.transport.names import parse_image_name

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def key():
    return generate_private_key()


def policy_for(kind, key):
    pem = base64.b64encode(key.public_key.to_pem()).decode()
    return parse_policy(json.dumps({"default": [{"type": kind, "keyData": pem}]}).encode())


@pytest.mark.parametrize("kind", ["sigstoreSigned", "sigstoreBundle"])
def test_signature_in_every_place_it_is_made_in_is_found_by_whoever_asks(in_registry, key, kind):
    """A library that looked in one place only said "is not signed" of a bundle."""
    name = in_registry("mixed")
    policy = policy_for(kind, key)
    with open_image(name) as image, pytest.raises(NoSignature):
        trust_image(image, PullOptions(policy))
    first = sign(name, SigstoreSigner(key, bundle=True), now=NOW)
    assert [one.added for one in first] == [True, True]
    with open_image(name) as image:
        assert trust_image(image, PullOptions(policy)).basis is Basis.SIGNATURE
    again = sign(name, SigstoreSigner(key, bundle=True), now=NOW)
    assert [one.added for one in again] == [False, False]


def test_sign_of_another_image_than_was_meant_is_refused(in_registry, key):
    with pytest.raises(DigestMismatch):
        sign(in_registry("mixed"), SigstoreSigner(key), expected_digest=digest_of(b""), now=NOW)


def test_sign_outside_of_a_registry_is_refused(key):
    with pytest.raises(Unsupported, match="in a registry"):
        sign(parse_image_name("oci:app:v1"), SigstoreSigner(key), now=NOW)


def test_sign_of_a_name_in_a_form_that_names_nothing_is_refused(key):
    name = parse_image_name("registry.example.org/app:v1")
    with pytest.raises(UsageError, match="no identity"):
        sign(name, SigstoreSigner(key, bundle=True), identity="r.example.org/b:v1", now=NOW)
