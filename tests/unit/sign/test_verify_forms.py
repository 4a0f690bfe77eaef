"""The decision over groups of requirements, the index, encryption and every form."""

import base64
import json
from datetime import UTC, datetime

import pytest

from imagers.errors import (
    CouldNotVerify,
    NoSignature,
    PolicyDenied,
    RemoteError,
    SignatureInvalid,
    UntrustedSigner,
)
from imagers.model.digest import digest_of
from imagers.model.media import OCI_LAYER_GZIP
from imagers.model.reference import parse_reference
from imagers.sign.bundle import build_bundle
from imagers.sign.decision import Answer
from imagers.sign.found import (
    BundleSignature,
    CouldNotLook,
    Form,
    Found,
    Looked,
    Reading,
    SimpleSignature,
)
from imagers.sign.payload import PayloadType, build_payload
from imagers.sign.policy_json import docker_identity, parse_policy
from imagers.sign.sigstore import sign_payload
from imagers.sign.verify import Basis, Subject, explain_image, load_trust, verify_image

NAME = "r.example/app:v1"
IDENTITY = docker_identity(parse_reference(NAME))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
GPG = {"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAAA"}
FPR = "A" * 40
INDEX = b'{"schemaVersion":2,"manifests":[]}'
DOWN = CouldNotLook(RemoteError("down"))


def signed_by(key, kind="sigstoreSigned"):
    return {"type": kind, "keyData": base64.b64encode(key.public_key.to_pem()).decode()}


def group(kind, *requirements):
    return {"type": kind, "requirements": list(requirements)}


def trust_of(*requirements):
    policy = parse_policy(json.dumps({"default": requirements}).encode())
    return load_trust(policy.select(IDENTITY), lambda path: path.encode())


def signature_of(raw, key, name=NAME):
    return sign_payload(build_payload(name, digest_of(raw)), key)


def simple(raw, *, name=NAME, where="$.default[0]", kind=PayloadType.SIMPLE):
    reading = Reading(build_payload(name, digest_of(raw), kind=kind), fingerprint=FPR)
    return SimpleSignature(b"\xa3", "p", {where: reading})


def refused(error, trust, raw, found, **options):
    with pytest.raises(error) as caught:
        verify_image(trust, raw, found, **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_simple_signature_that_gpg_read_is_judged_by_its_payload(manifest):
    trust = trust_of(GPG)
    decision = verify_image(trust, manifest, [simple(manifest)])
    assert (decision.basis, decision.signers[0].key) == (Basis.SIGNATURE, FPR)
    refused(SignatureInvalid, trust, manifest + b" ", [simple(manifest)])
    refused(UntrustedSigner, trust, manifest, [simple(manifest, name="r.example/app:v2")])


def test_simple_signature_with_the_payload_of_the_other_form_is_refused(manifest):
    """One key used for both forms must not let one be shown as the other."""
    found = [simple(manifest, kind=PayloadType.SIGSTORE)]
    assert "atomic" in refused(SignatureInvalid, trust_of(GPG), manifest, found)


def test_simple_signature_that_nobody_asked_gpg_about_could_not_be_looked_at(manifest):
    trust = trust_of(GPG)
    for one in (
        SimpleSignature(b"\xa3"),
        simple(manifest, where="$.default[1]"),
        SimpleSignature(b"\xa3", "", {"$.default[0]": Reading(None, failed=RemoteError("x"))}),
    ):
        refused(CouldNotVerify, trust, manifest, [one])


def test_simple_signature_that_gpg_refused_is_no(manifest):
    reading = Reading(None, refusal="the signature is expired")
    found = [SimpleSignature(b"\xa3", "", {"$.default[0]": reading})]
    assert "is expired" in refused(SignatureInvalid, trust_of(GPG), manifest, found)


def bundle(raw, key):
    return BundleSignature(build_bundle(digest_of(raw), key))


def test_bundle_satisfies_its_own_type_only(manifest, key, other_key):
    trust = trust_of(signed_by(key, "sigstoreBundle"))
    decision = verify_image(trust, manifest, [bundle(manifest, key)])
    assert decision.signers[0].fingerprint == key.public_key.fingerprint
    assert decision.signers[0].reference == ""
    refused(SignatureInvalid, trust, manifest, [bundle(manifest, other_key)])
    refused(SignatureInvalid, trust, manifest + b" ", [bundle(manifest, key)])
    refused(SignatureInvalid, trust, manifest, [BundleSignature(b"{}")])
    refused(NoSignature, trust, manifest, [signature_of(manifest, key)])
    refused(NoSignature, trust_of(signed_by(key)), manifest, [bundle(manifest, key)])


def test_any_of_needs_one_and_prefers_a_signature(manifest, key, other_key):
    trust = trust_of(group("anyOf", ACCEPT, signed_by(key)))
    assert verify_image(trust, manifest, [signature_of(manifest, key)]).basis is Basis.SIGNATURE
    assert verify_image(trust, manifest, []).basis is Basis.UNSIGNED
    trust = trust_of(group("anyOf", signed_by(key), signed_by(other_key)))
    for one in (key, other_key):
        assert verify_image(trust, manifest, [signature_of(manifest, one)]).signers
    refused(NoSignature, trust, manifest, [])
    refused(PolicyDenied, trust_of(group("anyOf", REJECT)), manifest, [])


def test_any_of_without_a_yes_could_not_look_if_one_part_could_not(manifest, key):
    trust = trust_of(group("anyOf", REJECT, signed_by(key)))
    refused(CouldNotVerify, trust, manifest, DOWN)
    assert verify_image(trust_of(group("anyOf", signed_by(key), ACCEPT)), manifest, DOWN)


def test_all_of_needs_each_and_a_no_stays_a_no(manifest, key, other_key):
    trust = trust_of(group("allOf", signed_by(key), signed_by(other_key)))
    both = [signature_of(manifest, one) for one in (key, other_key)]
    assert len(verify_image(trust, manifest, both).signers) == 2
    refused(SignatureInvalid, trust, manifest, both[:1])
    refused(CouldNotVerify, trust, manifest, DOWN)
    refused(PolicyDenied, trust_of(group("allOf", signed_by(key), REJECT)), manifest, DOWN)


def test_signature_found_beside_a_place_that_failed_is_enough(manifest, key):
    trust = trust_of(signed_by(key))
    good = Found((signature_of(manifest, key),), failures=(DOWN,))
    assert verify_image(trust, manifest, good)
    bad = Found((signature_of(b"other", key),), failures=(DOWN,))
    refused(CouldNotVerify, trust, manifest, bad)
    elsewhere = Found(failures=(CouldNotLook(RemoteError("x"), Form.SIMPLE),))
    refused(NoSignature, trust, manifest, elsewhere)


def test_index_requirement_is_about_what_the_name_led_to(manifest, key):
    on_index = trust_of(group("index", signed_by(key)))
    of_index, of_image = signature_of(INDEX, key), signature_of(manifest, key)
    index = Subject(INDEX, Found((of_index,)), "index")
    assert verify_image(on_index, manifest, [], index=index).signers
    refused(NoSignature, on_index, manifest, [of_image], index=Subject(INDEX, Found(), "index"))
    # A signature of the one is never one of the other.
    wrong = Subject(INDEX, Found((of_image,)), "index")
    refused(SignatureInvalid, on_index, manifest, [of_image], index=wrong)
    refused(SignatureInvalid, trust_of(signed_by(key)), manifest, [of_index], index=index)
    assert verify_image(on_index, manifest, [of_image]).signers  # no index: the image itself


def test_index_that_alone_is_signed_is_named_in_the_hint(manifest, key):
    index = Subject(INDEX, Found((signature_of(INDEX, key),)), "index")
    with pytest.raises(NoSignature) as caught:
        verify_image(trust_of(signed_by(key)), manifest, [], index=index)
    assert "the index is signed" in caught.value.hint


def test_index_that_could_not_be_looked_at_is_not_unsigned(manifest, key):
    index = Subject(INDEX, Found(failures=(DOWN,)), "index")
    refused(CouldNotVerify, trust_of(group("index", signed_by(key))), manifest, [], index=index)


def with_layers(manifest, *media_types):
    document = json.loads(manifest)
    digest = str(digest_of(b"x"))
    document["layers"] = [{"mediaType": t, "digest": digest, "size": 1} for t in media_types]
    return json.dumps(document).encode()


SEALED = OCI_LAYER_GZIP + "+encrypted"


@pytest.mark.parametrize(
    ("layers", "types", "good"),
    [
        (None, [SEALED, SEALED], True),
        (None, [SEALED, OCI_LAYER_GZIP], False),
        (None, [], False),
        ([0], [SEALED, OCI_LAYER_GZIP], True),
        ([-1], [SEALED, OCI_LAYER_GZIP], False),
        ([1], [SEALED], False),
        ([-2], [SEALED], False),
    ],
)
def test_encrypted_layers_are_demanded(manifest, layers, types, good):
    requirement = {"type": "encrypted"} | ({} if layers is None else {"layers": layers})
    raw = with_layers(manifest, *types)
    trust = trust_of(requirement)
    assert not trust.needs_signatures
    if good:
        assert verify_image(trust, raw, DOWN).basis is Basis.UNSIGNED
    else:
        refused(PolicyDenied, trust, raw, [])


def test_encrypted_layers_of_an_index_are_none(manifest):
    trust = trust_of(group("index", {"type": "encrypted"}))
    index = Subject(INDEX, Found(), "index")
    assert "an index has none" in refused(PolicyDenied, trust, manifest, [], index=index)


def test_explanation_of_no_has_every_step_and_the_places(manifest, key, other_key):
    found = Found(
        (signature_of(manifest, other_key), signature_of(b"other", key)),
        (Looked(Form.SIGSTORE, "tag x.sig", 2), Looked(Form.BUNDLE, "referrers", 0)),
    )
    explanation = explain_image(trust_of(signed_by(key)), manifest, found, now=NOW)
    assert explanation.decision is None
    texts = [one.text for _, one in explanation.root.lines()]
    assert any("looked at tag x.sig: 2 found" in text for text in texts)
    assert not any("referrers" in text for text in texts)
    first, second = explanation.root.children[0].children[1:]
    assert [one.answer for one in first.children] == [Answer.NO]
    assert [one.answer for one in second.children] == [Answer.YES, Answer.NO]
    assert "another manifest" in second.children[1].text


def test_explanation_and_decision_never_differ(manifest, key):
    for found in ([signature_of(manifest, key)], [], DOWN, [signature_of(b"x", key)]):
        explanation = explain_image(trust_of(signed_by(key)), manifest, found)
        answers = explanation.root.answer is Answer.YES
        assert (explanation.decision is not None) is answers


def test_signature_with_a_certificate_that_cannot_be_read_is_no(manifest, key, monkeypatch):
    """The library reads certificates lazily; what it says then is no crash of ours."""

    def lazily(*_, **__):
        raise ValueError("invalid time")

    monkeypatch.setattr("imagers.sign.judge.check_signer", lazily)
    trust = trust_of(signed_by(key))
    found = [signature_of(manifest, key)]
    assert "cannot be read" in refused(SignatureInvalid, trust, manifest, found)
