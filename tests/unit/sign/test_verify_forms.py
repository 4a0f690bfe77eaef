# SPDX-License-Identifier: Apache-2.0
"""The decision over groups of requirements, the index, encryption and every form."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from imagers.errors import (
    CouldNotVerify,
    NoSignature,
    PolicyDenied,
    RemoteError,
    SignatureInvalid,
    Unsupported,
    UntrustedSigner,
)
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.media import OCI_LAYER_GZIP
from imagers.model.reference import parse_reference
from imagers.sign.decision import Answer
from imagers.sign.formats.bundle import build_bundle
from imagers.sign.formats.notation.check import Outcome
from imagers.sign.formats.notation.signed import NotationMaterial
from imagers.sign.formats.notation.trust_policy import parse_trust_policy
from imagers.sign.formats.sigstore import sign_payload
from imagers.sign.found import (
    BundleSignature,
    CouldNotLook,
    Found,
    Looked,
    NotationSignature,
    Reading,
    SimpleSignature,
    UnreadableSignature,
)
from imagers.sign.payload import PayloadType, build_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.verify import PolicyBasis, Subject, Trust, explain_image, load_trust, verify_image

NAME = "r.example/app:v1"
IDENTITY = docker_identity(parse_reference(NAME))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
GPG = {"type": "signedBy", "keyType": "GPGKeys", "keyData": "AAAA"}
FPR = "A" * 40
INDEX = b'{"schemaVersion":2,"manifests":[]}'
DOWN = Found(failures=(CouldNotLook(RemoteError("down")),))


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
    if not isinstance(found, Found):
        found = Found.everywhere(found)
    with pytest.raises(error) as caught:
        verify_image(trust, raw, found, **options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_simple_signature_that_gpg_read_is_judged_by_its_payload(manifest):
    trust = trust_of(GPG)
    decision = verify_image(trust, manifest, Found.everywhere([simple(manifest)]))
    assert (decision.basis, decision.signers[0].key) == (PolicyBasis.SIGNATURE, FPR)
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


GPG_FAILED = SimpleSignature(
    b"\xa3", readings={"$.default[0]": Reading(None, failed=RemoteError("gpg hangs"))}
)
GPG_REFUSED = SimpleSignature(
    b"\xa3", readings={"$.default[0]": Reading(None, refusal="it is expired")}
)


@pytest.mark.parametrize("found", [[GPG_FAILED, GPG_REFUSED], [GPG_REFUSED, GPG_FAILED]])
def test_signatures_of_which_one_could_not_be_looked_at_are_not_refused(manifest, found):
    said = refused(CouldNotVerify, trust_of(GPG), manifest, found)
    assert said.startswith("none of 2 signatures is good: signature ")
    assert said.index("gpg hangs") < said.index("it is expired")


def test_signature_that_is_the_only_one_is_refused_in_its_own_words(manifest):
    said = refused(SignatureInvalid, trust_of(GPG), manifest, [GPG_REFUSED])
    assert said.startswith("signature 1 of 1 is not accepted")


@pytest.mark.parametrize(("count", "end"), [(2, ""), (4, ""), (5, "; and 1 more")])
def test_signatures_that_are_refused_are_told_in_their_order_and_the_rest_counted(
    manifest, count, end
):
    said = refused(SignatureInvalid, trust_of(GPG), manifest, [GPG_REFUSED] * count)
    told = [
        f"signature {number} of {count} is not accepted: it is expired"
        for number in range(1, min(count, 4) + 1)
    ]
    assert said == f"none of {count} signatures is good: {'; '.join(told)}{end}"


def bundle(raw, key):
    return BundleSignature(build_bundle(digest_of(raw), key))


def test_bundle_satisfies_its_own_type_only(manifest, key, other_key):
    trust = trust_of(signed_by(key, "sigstoreBundle"))
    decision = verify_image(trust, manifest, Found.everywhere([bundle(manifest, key)]))
    assert decision.signers[0].fingerprint == key.public_key.fingerprint
    assert decision.signers[0].reference == ""
    refused(SignatureInvalid, trust, manifest, [bundle(manifest, other_key)])
    refused(SignatureInvalid, trust, manifest + b" ", [bundle(manifest, key)])
    refused(SignatureInvalid, trust, manifest, [BundleSignature(b"{}")])
    refused(NoSignature, trust, manifest, [signature_of(manifest, key)])
    refused(NoSignature, trust_of(signed_by(key)), manifest, [bundle(manifest, key)])


def test_any_of_needs_one_and_prefers_a_signature(manifest, key, other_key):
    trust = trust_of(group("anyOf", ACCEPT, signed_by(key)))
    assert (
        verify_image(trust, manifest, Found.everywhere([signature_of(manifest, key)])).basis
        is PolicyBasis.SIGNATURE
    )
    assert verify_image(trust, manifest, Found.everywhere([])).basis is PolicyBasis.UNSIGNED
    trust = trust_of(group("anyOf", signed_by(key), signed_by(other_key)))
    for one in (key, other_key):
        assert verify_image(
            trust, manifest, Found.everywhere([signature_of(manifest, one)])
        ).signers
    refused(NoSignature, trust, manifest, [])
    refused(PolicyDenied, trust_of(group("anyOf", REJECT)), manifest, [])


def test_any_of_without_a_yes_could_not_look_if_one_part_could_not(manifest, key):
    trust = trust_of(group("anyOf", REJECT, signed_by(key)))
    refused(CouldNotVerify, trust, manifest, DOWN)
    assert verify_image(trust_of(group("anyOf", signed_by(key), ACCEPT)), manifest, DOWN)


LATER = {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}


def test_any_of_without_a_yes_is_refused_as_its_first_part_was(manifest, key):
    unsigned = signed_by(key)
    refused(PolicyDenied, trust_of(group("anyOf", REJECT, unsigned)), manifest, [])
    said = refused(NoSignature, trust_of(group("anyOf", unsigned, REJECT)), manifest, [])
    assert said.endswith(" (none of 2 at $.default[0] holds)")
    # What nothing can satisfy is no answer to "why not", as a part of several it is a no.
    refused(PolicyDenied, trust_of(group("anyOf", LATER, unsigned)), manifest, [])


def test_any_of_tells_each_reason_once_and_what_was_found_first(manifest, key, other_key):
    """However deep the groups are: the same for the image and for the index around it."""
    forms = [signed_by(key), signed_by(key, "sigstoreBundle")]
    whole = group("anyOf", *forms, group("index", group("anyOf", *forms)))
    said = refused(NoSignature, trust_of(whole), manifest, [])
    assert said == (
        "'docker://r.example/app:v1' is not signed: "
        "the manifest has no sigstore signature; the manifest has no sigstore bundle signature "
        "(none of 3 at $.default[0] holds)"
    )
    found = [bundle(manifest, other_key)]
    said = refused(NoSignature, trust_of(whole), manifest, found)
    first, second = said.removesuffix(" (none of 3 at $.default[0] holds)").split("; ")
    assert first.startswith("signature 1 of 1 verifies with none of the trusted keys")
    assert second == "the manifest has no sigstore signature"


def test_all_of_needs_each_and_a_no_stays_a_no(manifest, key, other_key):
    trust = trust_of(group("allOf", signed_by(key), signed_by(other_key)))
    both = [signature_of(manifest, one) for one in (key, other_key)]
    assert len(verify_image(trust, manifest, Found.everywhere(both)).signers) == 2
    refused(SignatureInvalid, trust, manifest, both[:1])
    refused(CouldNotVerify, trust, manifest, DOWN)
    refused(PolicyDenied, trust_of(group("allOf", signed_by(key), REJECT)), manifest, DOWN)


def test_signature_found_beside_a_place_that_failed_is_enough(manifest, key):
    trust = trust_of(signed_by(key))
    good = Found((signature_of(manifest, key),), failures=DOWN.failures)
    assert verify_image(trust, manifest, good)
    bad = Found((signature_of(b"other", key),), failures=DOWN.failures)
    refused(CouldNotVerify, trust, manifest, bad)
    elsewhere = Found(failures=(CouldNotLook(RemoteError("x"), "simple signing"),))
    refused(CouldNotVerify, trust, manifest, elsewhere)
    refused(NoSignature, trust, manifest, Found.everywhere([]) + elsewhere)


@pytest.mark.parametrize("form", ["sigstoreSigned", "sigstoreBundle"])
def test_form_that_nobody_looked_for_is_not_unsigned(manifest, key, form):
    """What a caller forgot to look for is no fact about the image."""
    looked = {
        "sigstoreSigned": Looked("sigstore bundle", "referrers", 0),
        "sigstoreBundle": Looked("sigstore", "tag", 0),
    }[form]
    said = refused(CouldNotVerify, trust_of(signed_by(key, form)), manifest, Found((), (looked,)))
    assert said.startswith("nobody looked for signatures of ")


def test_signature_that_is_not_good_does_not_stand_for_a_look_in_all_places(manifest, key):
    """A file of an unknown format in a lookaside may be of any form: no word on the others."""
    unknown = UnreadableSignature(Unsupported("unknown format"))
    lookaside = Found((unknown,), (Looked("simple signing", "lookaside", 1),))
    refused(SignatureInvalid, trust_of(GPG), manifest, lookaside)
    for form in ("sigstoreSigned", "sigstoreBundle"):
        said = refused(CouldNotVerify, trust_of(signed_by(key, form)), manifest, lookaside)
        assert said.startswith("nobody looked for signatures of ")
    trust = trust_of(group("anyOf", GPG, signed_by(key, "sigstoreBundle")))
    refused(CouldNotVerify, trust, manifest, lookaside)
    good = Found((unknown, signature_of(manifest, key)))
    assert verify_image(trust_of(signed_by(key)), manifest, good)


def test_index_requirement_is_about_what_the_name_led_to(manifest, key):
    on_index = trust_of(group("index", signed_by(key)))
    of_index, of_image = signature_of(INDEX, key), signature_of(manifest, key)
    index = Subject(INDEX, Found((of_index,)), "index")
    unsigned = Subject(INDEX, Found.everywhere([]), "index")
    assert verify_image(on_index, manifest, Found.everywhere([]), index=index).signers
    refused(NoSignature, on_index, manifest, [of_image], index=unsigned)
    # A signature of the one is never one of the other.
    wrong = Subject(INDEX, Found.everywhere([of_image]), "index")
    refused(SignatureInvalid, on_index, manifest, [of_image], index=wrong)
    refused(SignatureInvalid, trust_of(signed_by(key)), manifest, [of_index], index=index)
    assert verify_image(
        on_index, manifest, Found.everywhere([of_image])
    ).signers  # no index: the image itself


def test_index_that_alone_is_signed_is_named_in_the_hint(manifest, key):
    index = Subject(INDEX, Found((signature_of(INDEX, key),)), "index")
    with pytest.raises(NoSignature) as caught:
        verify_image(trust_of(signed_by(key)), manifest, Found.everywhere([]), index=index)
    assert "the index is signed" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "there", "piece"),
    [
        ("sigstoreSigned", None, "; the bundles that cosign 3 writes"),
        ("sigstoreSigned", "bundle", "demand sigstoreBundle"),
        ("sigstoreSigned", "simple", "only signatures of the format simple"),
        ("sigstoreBundle", None, "sign it with 'imagers sign'"),
        ("sigstoreBundle", "sigstore", "only signatures of the format sigstore"),
        ("signedBy", "bundle", "only signatures of the format sigstore bundle"),
    ],
)
def test_hint_of_no_signature_is_what_is_there_instead(manifest, key, wanted, there, piece):
    found = {
        None: [],
        "bundle": [bundle(manifest, key)],
        "simple": [simple(manifest)],
        "sigstore": [signature_of(manifest, key)],
    }[there]
    trust = trust_of(GPG if wanted == "signedBy" else signed_by(key, wanted))
    with pytest.raises(NoSignature) as caught:
        verify_image(trust, manifest, Found.everywhere(found))
    assert piece in caught.value.hint
    assert ("cosign" in caught.value.hint) is (wanted == "sigstoreSigned" and there != "simple")


def test_hint_of_an_unsigned_index_is_not_that_it_is_signed(manifest, key):
    found = Found.everywhere([signature_of(manifest, key)])
    index = Subject(INDEX, Found.everywhere([]), "index")
    with pytest.raises(NoSignature, match="signature of index") as caught:
        verify_image(trust_of(group("index", signed_by(key))), manifest, found, index=index)
    assert "the index is signed" not in caught.value.hint


def test_index_that_could_not_be_looked_at_is_not_unsigned(manifest, key):
    index = Subject(INDEX, Found(failures=DOWN.failures), "index")
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
        ([-2], [SEALED, OCI_LAYER_GZIP], True),
        ([-2], [OCI_LAYER_GZIP, SEALED], False),
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
        assert verify_image(trust, raw, DOWN).basis is PolicyBasis.UNSIGNED
    else:
        refused(PolicyDenied, trust, raw, [])


def test_encrypted_layers_of_an_index_are_none(manifest):
    trust = trust_of(group("index", {"type": "encrypted"}))
    index = Subject(INDEX, Found(), "index")
    assert "an index has none" in refused(PolicyDenied, trust, manifest, [], index=index)


def test_explanation_of_no_has_every_step_and_the_places(manifest, key, other_key):
    found = Found(
        (signature_of(manifest, other_key), signature_of(b"other", key)),
        (Looked("sigstore", "tag x.sig", 2), Looked("sigstore bundle", "referrers", 0)),
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


@pytest.mark.parametrize(
    "requirement",
    [
        {"type": "sigstoreSigned", "keyPath": "/k"},
        {"type": "sigstoreBundle", "keyPath": "/k"},
        GPG,
    ],
    ids=lambda one: one["type"],
)
def test_explanation_names_a_requirement_as_the_policy_does(manifest, key, requirement):
    policy = parse_policy(json.dumps({"default": [requirement]}).encode())
    trust = load_trust(policy.select(IDENTITY), lambda _: key.public_key.to_pem())
    (child,) = explain_image(trust, manifest, Found.everywhere([])).root.children
    assert child.text == f"$.default[0] {requirement['type']}"


def test_explanation_of_yes_has_the_signers_of_the_decision(manifest, key):
    explanation = explain_image(
        trust_of(signed_by(key)), manifest, Found.everywhere([signature_of(manifest, key)])
    )
    assert explanation.root.signers == explanation.decision.signers != ()


def test_policy_without_a_requirement_is_a_no(manifest):
    """A Trust that was put together by hand: of no requirement each one holds."""
    trust = trust_of(ACCEPT)
    empty = Trust(replace(trust.selected, requirements=()), {})
    assert "no requirement" in refused(PolicyDenied, empty, manifest, [])


def notation_trust(level):
    """A policy of type notation, whose trust policy is of a level."""
    requirement = {"type": "notation", "trustPolicyPath": "/p", "trustStorePath": "/s"}
    policy = parse_policy(json.dumps({"default": [requirement]}).encode())
    entry = {
        "name": "of all",
        "registryScopes": ["*"],
        "signatureVerification": {"level": level},
    }
    if level != "skip":
        entry |= {"trustStores": ["ca:acme"], "trustedIdentities": ["*"]}
    document = json.dumps({"version": "1.0", "trustPolicies": [entry]}).encode()
    material = NotationMaterial(parse_trust_policy(document, what="trust policy"))
    return Trust(policy.select(IDENTITY), {"$.default[0]": material})


def test_notation_that_skips_every_check_is_unsigned_and_says_so(manifest):
    explanation = explain_image(notation_trust("skip"), manifest, DOWN, now=NOW)
    assert explanation.decision.basis is PolicyBasis.UNSIGNED
    assert "'of all' skips every check" in explanation.root.children[0].text


@pytest.mark.parametrize("order", [b"ab", b"ba"], ids=["noted first", "noted last"])
def test_notation_signature_with_a_signer_says_more_than_one_that_is_noted(
    manifest, monkeypatch, order
):
    def check(raw, *_, **__):
        return Outcome("f" * 64 if raw == b"b" else "", "CN=acme", ())

    monkeypatch.setattr("imagers.sign.formats.notation.check.check_signature", check)
    found = [NotationSignature(bytes([one]), "application/cose") for one in order]
    both = Found.everywhere(found)
    decision = verify_image(notation_trust("audit"), manifest, both, now=NOW)
    assert [one.fingerprint for one in decision.signers] == ["f" * 64]
    noted = verify_image(
        notation_trust("audit"), manifest, Found.everywhere([found[order.index(b"a")]]), now=NOW
    )
    assert (noted.basis, noted.signers) == (PolicyBasis.UNSIGNED, ())


def test_explanation_and_decision_never_differ(manifest, key):
    given = [[signature_of(manifest, key)], [], [signature_of(b"x", key)]]
    for found in (DOWN, *map(Found.everywhere, given)):
        explanation = explain_image(trust_of(signed_by(key)), manifest, found)
        answers = explanation.root.answer is Answer.YES
        assert (explanation.decision is not None) is answers


@pytest.mark.parametrize(
    "said", [ValueError("invalid time"), TypeError("no name"), OverflowError("year 0")]
)
def test_signature_with_a_certificate_that_cannot_be_read_is_no(manifest, key, monkeypatch, said):
    """The library reads certificates lazily; what it says then is no crash of ours."""

    def lazily(*_, **__):
        raise said

    monkeypatch.setattr("imagers.sign.certified.signer.check_signer", lazily)
    trust = trust_of(signed_by(key))
    found = [signature_of(manifest, key)]
    assert "cannot be read" in refused(SignatureInvalid, trust, manifest, found)
    explanation = explain_image(trust, manifest, Found.everywhere(found))
    *_, finding = explanation.root.children[0].children
    assert [one.answer for one in finding.children] == [Answer.NO]
    assert finding.error.__cause__ is said


@pytest.mark.parametrize(
    ("requirement", "place", "text"),
    [
        (GPG, "tag v1.sig", "signature 1 of 1 (tag v1.sig)"),
        (GPG, "", "signature 1 of 1"),
        ({"type": "sigstoreSigned", "keyPath": "/k"}, "", "signature 1 of 1"),
    ],
)
def test_explanation_says_where_a_signature_was_found(manifest, key, requirement, place, text):
    policy = parse_policy(json.dumps({"default": [requirement]}).encode())
    trust = load_trust(policy.select(IDENTITY), lambda _: key.public_key.to_pem())
    if requirement is GPG:
        found = replace(simple(manifest), place=place)
    else:
        found = signature_of(manifest, key)
    explanation = explain_image(trust, manifest, Found.everywhere([found]))
    *_, finding = explanation.root.children[0].children
    assert finding.text == text


def test_hint_of_a_bundle_is_given_also_where_the_index_is_signed(manifest, key):
    index = Subject(INDEX, Found.everywhere([signature_of(INDEX, key)]), "index")
    found = Found.everywhere([bundle(manifest, key)])
    with pytest.raises(NoSignature) as caught:
        verify_image(trust_of(signed_by(key)), manifest, found, index=index)
    assert "demand sigstoreBundle" in caught.value.hint
