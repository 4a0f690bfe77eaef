# SPDX-License-Identifier: Apache-2.0
"""The decision; each attack names the step of verify.py that it is aimed at."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.errors import (
    CouldNotVerify,
    FormatError,
    LocalError,
    NoSignature,
    PolicyDenied,
    RemoteError,
    SignatureInvalid,
    Unsupported,
    UntrustedSigner,
    VerificationError,
)
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity, path_identity
from imagers.model.reference import parse_reference
from imagers.sign.formats.sigstore import SIGNATURE_ANNOTATION, sign_payload
from imagers.sign.found import Found, SigstoreSignature
from imagers.sign.payload import build_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.verify import CouldNotLook, PolicyBasis, Trust, load_trust, verify_image

NAME = "r.example/app:v1"
IDENTITY = docker_identity(parse_reference(NAME))
ACCEPT = {"type": "insecureAcceptAnything"}
REJECT = {"type": "reject"}
LATER = {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}


def signed_by(*keys, **members):
    datas = [base64.b64encode(key.public_key.to_pem()).decode() for key in keys]
    return {"type": "sigstoreSigned", "keyDatas": datas, **members}


def unread(path):
    raise AssertionError(f"read {path}")


def trust_of(*requirements, identity=IDENTITY, read=unread):
    policy = parse_policy(json.dumps({"default": requirements}).encode())
    return load_trust(policy.select(identity), read)


def signature_of(manifest, key, name=NAME):
    return sign_payload(build_payload(name, digest_of(manifest)), key)


def refused(error, trust, manifest, found):
    if not isinstance(found, Found):
        found = Found.everywhere(found)
    with pytest.raises(error) as caught:
        verify_image(trust, manifest, found)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return caught.value


def test_verify_good_signature_says_who_signed_and_what(key, manifest):
    trust = trust_of(signed_by(key))
    assert trust.needs_signatures
    decision = verify_image(trust, manifest, Found.everywhere([signature_of(manifest, key)]))
    assert decision.basis is PolicyBasis.SIGNATURE
    assert decision.manifest_digest == digest_of(manifest)
    (signer,) = decision.signers
    assert signer.fingerprint == key.public_key.fingerprint
    assert (signer.reference, signer.where) == (NAME, "$.default[0]")


def test_verify_accept_anything_is_unsigned_and_looks_at_nothing(manifest):
    trust = trust_of(ACCEPT)
    assert not trust.needs_signatures
    for found in (Found(), Found(failures=(CouldNotLook(RemoteError("registry is down")),))):
        decision = verify_image(trust, manifest, found)
        assert (decision.basis, decision.signers) == (PolicyBasis.UNSIGNED, ())


def test_verify_accept_anything_beside_a_signature_is_not_enough(key, other_key, manifest):
    trust = trust_of(ACCEPT, signed_by(key))
    refused(NoSignature, trust, manifest, [])
    refused(SignatureInvalid, trust, manifest, [signature_of(manifest, other_key)])
    found = [signature_of(manifest, key)]
    assert verify_image(trust, manifest, Found.everywhere(found)).basis is PolicyBasis.SIGNATURE


@pytest.mark.parametrize("at", [0, 1, 2])
def test_verify_reject_anywhere_denies(key, manifest, at):
    """Step 1."""
    requirements = [ACCEPT, signed_by(key)]
    requirements.insert(at, REJECT)
    trust = trust_of(*requirements)
    error = refused(PolicyDenied, trust, manifest, [signature_of(manifest, key)])
    assert f"$.default[{at}]" in str(error)
    assert NAME in str(error)


def test_verify_reject_wins_over_what_cannot_be_checked_or_read(manifest):
    """Step 1: no key is read and no feature is needed for a no."""
    trust = trust_of({"type": "sigstoreSigned", "keyPath": "/none"}, LATER, REJECT)
    assert not trust.needs_signatures
    refused(PolicyDenied, trust, manifest, Found(failures=(CouldNotLook(RemoteError("down")),)))


@pytest.mark.parametrize("before", [True, False])
def test_verify_requirement_that_cannot_be_checked_is_never_skipped(key, manifest, before):
    """Step 2."""
    requirements = [LATER, signed_by(key)] if before else [signed_by(key), LATER]
    trust = trust_of(*requirements, ACCEPT)
    error = refused(Unsupported, trust, manifest, [signature_of(manifest, key)])
    assert "asks for signedBaseLayer, which nothing can satisfy" in str(error)


def test_verify_every_requirement_must_hold(key, other_key, manifest):
    """Step 3."""
    trust = trust_of(signed_by(key), signed_by(other_key))
    ours, theirs = signature_of(manifest, key), signature_of(manifest, other_key)
    assert len(verify_image(trust, manifest, Found.everywhere([theirs, ours])).signers) == 2
    for found in ([ours], [theirs], [ours, ours]):
        refused(SignatureInvalid, trust, manifest, found)


def test_verify_one_good_signature_of_many_is_enough(key, other_key, manifest):
    """Step 3."""
    bad = SigstoreSignature(b"{}", {SIGNATURE_ANNOTATION: "%"})
    found = [bad, signature_of(manifest, other_key), signature_of(manifest, key), bad]
    decision = verify_image(trust_of(signed_by(key)), manifest, Found.everywhere(found))
    assert decision.signers[0].fingerprint == key.public_key.fingerprint


def test_verify_no_signature_says_what_is_missing(key, manifest):
    error = refused(NoSignature, trust_of(signed_by(key)), manifest, [])
    assert f"'docker://{NAME}' is not signed" in str(error)
    assert str(digest_of(manifest)) in str(error)
    assert "cosign 3" in error.hint


def test_verify_attachment_of_another_type_is_no_signature(key, manifest):
    """An attestation by the same key says something else than "this image is good"."""
    good = signature_of(manifest, key)
    other = SigstoreSignature(
        good.payload, good.annotations, "application/vnd.dsse.envelope.v1+json"
    )
    error = refused(NoSignature, trust_of(signed_by(key)), manifest, [other])
    assert error.hint.startswith("sign it with 'imagers sign'")  # nor one "of the format sigstore"


def test_verify_could_not_look_is_neither_no_nor_yes(key, manifest):
    cause = RemoteError("registry answered 503", status=503, temporary=True)
    error = refused(
        CouldNotVerify, trust_of(signed_by(key)), manifest, Found(failures=(CouldNotLook(cause),))
    )
    assert error.exit_code == 22
    assert error.__cause__ is cause
    assert "registry answered 503" in str(error)


def test_verify_unknown_key_is_refused_with_the_wanted_fingerprints(key, other_key, manifest):
    """Step 4."""
    found = [signature_of(manifest, other_key)]
    error = refused(SignatureInvalid, trust_of(signed_by(key)), manifest, found)
    assert key.public_key.fingerprint in str(error)


@pytest.mark.parametrize(
    "text",
    [None, "", "%%%", "AAAA", "A" * 5000, "ä"],
    ids=["absent", "empty", "not base64", "not DER", "too long", "not ASCII"],
)
def test_verify_signature_text_that_is_none_is_refused(key, manifest, text):
    """Step 4."""
    annotations = {} if text is None else {SIGNATURE_ANNOTATION: text}
    one = SigstoreSignature(signature_of(manifest, key).payload, annotations)
    refused(SignatureInvalid, trust_of(signed_by(key)), manifest, [one])


def test_verify_signature_text_with_line_ends_is_good(key, manifest):
    good = signature_of(manifest, key)
    text = good.annotations[SIGNATURE_ANNOTATION]
    wrapped = SigstoreSignature(
        good.payload, {SIGNATURE_ANNOTATION: f"\n{text[:20]}\r\n{text[20:]}\n"}
    )
    assert verify_image(trust_of(signed_by(key)), manifest, Found.everywhere([wrapped]))


def test_verify_payload_changed_by_one_byte_is_refused(key, manifest):
    """Step 4: also where the change leaves the meaning alone."""
    good = signature_of(manifest, key)
    trust = trust_of(signed_by(key))
    for payload in (good.payload + b"\n", b" " + good.payload, good.payload.replace(b"v1", b"v2")):
        one = SigstoreSignature(payload, good.annotations)
        refused(SignatureInvalid, trust, manifest, [one])


def test_verify_signature_of_one_payload_beside_another_is_refused(key, manifest):
    """Step 4: the two halves of two good signatures do not make a third."""
    good = signature_of(manifest, key)
    other = signature_of(b"other manifest", key)
    mixed = [
        SigstoreSignature(good.payload, other.annotations),
        SigstoreSignature(other.payload, good.annotations),
    ]
    refused(SignatureInvalid, trust_of(signed_by(key)), manifest, mixed)


def test_verify_signature_over_sha512_by_p256_is_refused(manifest, key):
    """Step 4: only the hashes that verifiers agree on."""
    payload = build_payload(NAME, digest_of(manifest))
    raw = key._key.sign(payload, ec.ECDSA(hashes.SHA512()))
    one = SigstoreSignature(payload, {SIGNATURE_ANNOTATION: base64.b64encode(raw).decode()})
    refused(SignatureInvalid, trust_of(signed_by(key)), manifest, [one])


def test_verify_signed_payload_of_another_type_is_refused(key, manifest):
    """Step 5: the same key may sign other things than images."""
    payload = build_payload(NAME, digest_of(manifest)).replace(b"cosign container", b"my")
    error = refused(
        SignatureInvalid, trust_of(signed_by(key)), manifest, [sign_payload(payload, key)]
    )
    assert "$.critical.type" in str(error)


def test_verify_manifest_changed_by_white_space_is_refused(key, manifest):
    """Step 5."""
    found = [signature_of(manifest, key)]
    changed = manifest.replace(b", ", b",")
    assert json.loads(changed) == json.loads(manifest)
    error = refused(SignatureInvalid, trust_of(signed_by(key)), changed, found)
    assert f"expected '{digest_of(changed)}', got '{digest_of(manifest)}'" in str(error)


def test_verify_digest_of_another_algorithm_is_computed_not_believed(key, manifest):
    """Step 5."""
    trust = trust_of(signed_by(key))
    good = sign_payload(build_payload(NAME, digest_of(manifest, "sha512")), key)
    assert verify_image(trust, manifest, Found.everywhere([good]))
    bad = sign_payload(build_payload(NAME, digest_of(b"else", "sha512")), key)
    refused(SignatureInvalid, trust, manifest, [bad])


def test_verify_good_signature_for_another_name_says_both(key, manifest):
    """Step 6."""
    found = [signature_of(manifest, key, "r.example/app:v2")]
    error = refused(UntrustedSigner, trust_of(signed_by(key)), manifest, found)
    assert f"expected '{NAME}', got 'r.example/app:v2'" in str(error)


def test_verify_signature_by_cosign_needs_a_repository_identity(key, manifest):
    """Step 6: it has no tag, so by default it would be good for every tag."""
    found = [signature_of(manifest, key, "r.example/app")]
    error = refused(UntrustedSigner, trust_of(signed_by(key)), manifest, found)
    assert "matchRepository" in error.hint
    trust = trust_of(signed_by(key, signedIdentity={"type": "matchRepository"}))
    assert (
        verify_image(trust, manifest, Found.everywhere(found)).signers[0].reference
        == "r.example/app"
    )


def test_verify_signed_name_that_is_none_is_refused(key, manifest):
    """Step 6."""
    for name in ("", "A:B:C", NAME + "\n"):
        found = [signature_of(manifest, key, name)]
        trust = trust_of(signed_by(key, signedIdentity={"type": "matchRepository"}))
        error = refused(SignatureInvalid, trust, manifest, found)
        assert "docker-reference" in str(error)


def test_verify_image_in_a_directory_needs_an_exact_identity(key, manifest):
    """Step 6."""
    identity = path_identity("oci", "/srv/app")
    found = [signature_of(manifest, key)]
    error = refused(UntrustedSigner, trust_of(signed_by(key), identity=identity), manifest, found)
    assert "an image in a directory has none" in str(error)
    exact = {"type": "exactReference", "dockerReference": NAME}
    trust = trust_of(signed_by(key, signedIdentity=exact), identity=identity)
    assert verify_image(trust, manifest, Found.everywhere(found))


def test_verify_of_many_refusals_the_closest_to_a_yes_gives_the_class(key, other_key, manifest):
    found = [signature_of(manifest, other_key)] * 6
    found.insert(3, signature_of(manifest, key, "r.example/app:v2"))
    error = refused(UntrustedSigner, trust_of(signed_by(key)), manifest, found)
    assert str(error).startswith("none of 7 signatures is good: signature 4 of 7 is for another")
    assert "and 3 more" in str(error)


def test_load_trust_reads_key_files_by_the_reader(key, manifest):
    files = {"/k": key.public_key.to_pem()}
    trust = trust_of({"type": "sigstoreSigned", "keyPath": "/k"}, read=files.__getitem__)
    assert verify_image(trust, manifest, Found.everywhere([signature_of(manifest, key)]))


def test_load_trust_one_broken_key_of_many_is_an_error(key):
    """A spare key is repaired before it is needed."""
    requirement = signed_by(key)
    requirement["keyDatas"].append(base64.b64encode(b"no key").decode())
    with pytest.raises(FormatError) as caught:
        trust_of(requirement)
    assert "key 2 in the policy at $.default[0]" in str(caught.value)


def test_load_trust_missing_key_file_is_the_readers_error():
    def read(path):
        raise LocalError("no such file or directory", path=path)

    with pytest.raises(LocalError) as caught:
        trust_of({"type": "sigstoreSigned", "keyPath": "/k"}, read=read)
    assert caught.value.path == "/k"


def test_verify_trust_without_its_keys_never_says_yes(key, manifest):
    """A Trust that was put together by hand."""
    trust = Trust(trust_of(signed_by(key)).selected, {})
    with pytest.raises((KeyError, VerificationError)):
        verify_image(trust, manifest, Found.everywhere([signature_of(manifest, key)]))
