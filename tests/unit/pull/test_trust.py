# SPDX-License-Identifier: Apache-2.0
"""Attacks on the trust decision, each named after the step that must stop it."""

import base64
import dataclasses
import json
from datetime import UTC, datetime

import pytest

from imagers.errors import (
    CouldNotVerify,
    DigestMismatch,
    FormatError,
    ImagersError,
    NoSignature,
    NotFound,
    PolicyDenied,
    RemoteError,
    SignatureInvalid,
    SizeMismatch,
    Unsupported,
    UntrustedSigner,
    VerificationError,
)
from imagers.model.descriptor import Descriptor, Platform
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity, path_identity
from imagers.model.manifest import RawManifest, check_config_size, parse_config
from imagers.model.media import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from imagers.model.reference import parse_reference
from imagers.pull.trust import Basis, TrustDecision, TrustedImage
from imagers.sign.formats.sigstore import sign_payload
from imagers.sign.found import Found
from imagers.sign.payload import build_payload
from imagers.sign.policy_json import parse_policy
from imagers.sign.sigstore_key import generate_private_key
from imagers.sign.verify import CouldNotLook, explain_image, load_trust
from imagers.testing import images

AMD64 = Platform("linux", "amd64")
ARM = {"architecture": "arm"}
NAME = "registry.example.org/team/app:v1"
ENCRYPTED = OCI_LAYER_GZIP + "+encrypted"
OPTIONS = json.dumps(
    {
        "cipher": "AES_256_CTR_HMAC_SHA256",
        "hmac": base64.b64encode(bytes(32)).decode(),
        "cipheroptions": {},
    }
).encode()
ANNOTATIONS = {
    "org.opencontainers.image.enc.pubopts": base64.b64encode(OPTIONS).decode(),
    "org.opencontainers.image.enc.keys.jwe": base64.b64encode(b"{}").decode(),
}


@pytest.fixture(scope="module")
def key():
    return generate_private_key()


def make_config(count=1, **more):
    layers = (images.make_layer(b"tar %d" % number) for number in range(count))
    return next(iter(images.make_image(*layers, config=more).blobs.values()))


def make_manifest(config, layers=None):
    listed = [make_layer()] if layers is None else layers
    return images.make_image(config=config, manifest={"layers": listed}).raw


def make_layer(media_type=ENCRYPTED, annotations=ANNOTATIONS):
    layer = {"mediaType": media_type, "digest": str(digest_of(b"layer")), "size": 5}
    return layer | ({"annotations": annotations} if annotations else {})


def make_index(manifest, **platform):
    platform = Platform(**({"os": "linux", "architecture": "amd64"} | platform))
    size = len(manifest)
    entry = Descriptor(OCI_MANIFEST, digest_of(manifest), size, platform=platform)
    return images.make_index(entry).raw


def answer(raw, media_type=OCI_MANIFEST):
    return RawManifest(raw, media_type, digest_of(raw))


def requirements(key, name=NAME, requirement=None):
    if requirement is None:
        requirement = {
            "type": "sigstoreSigned",
            "keyData": base64.b64encode(key.public_key.to_pem()).decode(),
        }
    policy = parse_policy(
        json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {"registry.example.org": [requirement]}},
            }
        ).encode()
    )

    def read_key(path):
        raise AssertionError(path)

    return load_trust(policy.select(docker_identity(parse_reference(name))), read_key)


ACCEPT = {"type": "insecureAcceptAnything"}


def signed(manifest, key, name=NAME):
    return Found.everywhere([sign_payload(build_payload(name, digest_of(manifest)), key)])


def decide(key, manifest, config, *, signatures=None, rules=None, **options):
    decision = TrustDecision(rules or requirements(key), AMD64, **options)
    assert decision.receive_top(answer(manifest)) is None
    decision.receive_signatures(signed(manifest, key) if signatures is None else signatures)
    decision.receive_config(config)
    return decision.conclude()


def test_signed_image_is_trusted_on_its_signature(key):
    config = make_config()
    manifest = make_manifest(config)
    trusted = decide(key, manifest, config)
    assert trusted.basis is Basis.SIGNATURE
    assert trusted.manifest.raw == manifest
    assert trusted.config.raw == config
    assert trusted.encrypted_layers == 1
    assert trusted.decision.signers[0].fingerprint == key.public_key.fingerprint
    trusted.check_may_ask_broker()


def test_index_chooses_the_platform_and_holds_the_manifest_to_its_entry(key):
    config = make_config()
    manifest = make_manifest(config)
    index = make_index(manifest)
    decision = TrustDecision(requirements(key), AMD64)
    child = decision.receive_top(answer(index, OCI_INDEX))
    assert child.digest == digest_of(manifest)
    decision.receive_manifest(answer(manifest))
    decision.receive_signatures(signed(manifest, key))
    decision.receive_config(config)
    trusted = decision.conclude()
    assert trusted.top_digest == digest_of(index)
    assert trusted.manifest.descriptor.digest == digest_of(manifest)


def test_pinned_image_under_an_accepting_policy_is_trusted_on_its_digest(key):
    config = make_config()
    manifest = make_manifest(config)
    name = f"registry.example.org/team/app@{digest_of(manifest)}"
    trusted = decide(key, manifest, config, signatures=[], rules=requirements(key, name, ACCEPT))
    assert trusted.basis is Basis.PINNED_DIGEST
    trusted.check_may_ask_broker()


def test_image_in_a_directory_has_no_pinned_digest(key):
    config = make_config()
    policy = parse_policy(json.dumps({"default": [ACCEPT]}).encode())
    rules = load_trust(policy.select(path_identity("oci", "/images/app")), lambda _: b"")
    assert TrustDecision(rules, AMD64).pinned is None
    trusted = decide(
        key, make_manifest(config), config, rules=rules, signatures=Found.everywhere([])
    )
    assert trusted.basis is Basis.UNSIGNED


def test_words_for_why_an_image_is_trusted_are_those_of_reports():
    assert [one.value for one in Basis] == ["signature", "pinned_digest", "unsigned"]


def test_step_2_other_bytes_than_the_pinned_ones_are_refused(key):
    """Step 2: the registry serves another manifest under a pinned digest."""
    manifest = make_manifest(make_config())
    name = f"registry.example.org/team/app@{digest_of(manifest)}"
    decision = TrustDecision(requirements(key, name, ACCEPT), AMD64)
    other = manifest + b" "
    with pytest.raises(DigestMismatch, match="digest mismatch: expected") as caught:
        decision.receive_top(answer(other))
    assert caught.value.expected == digest_of(manifest)
    assert caught.value.actual == digest_of(other)


def test_step_2_claimed_digest_of_the_registry_is_not_believed(key):
    """Step 2: the answer says that it has the pinned digest; its bytes have not."""
    manifest = make_manifest(make_config())
    name = f"registry.example.org/team/app@{digest_of(manifest)}"
    decision = TrustDecision(requirements(key, name, ACCEPT), AMD64)
    lie = RawManifest(manifest + b" ", OCI_MANIFEST, digest_of(manifest))
    with pytest.raises(DigestMismatch):
        decision.receive_top(lie)


def test_step_2_index_without_the_platform_is_not_found(key):
    """Step 2: no entry for this machine."""
    index = make_index(make_manifest(make_config()), architecture="s390x")
    decision = TrustDecision(requirements(key), AMD64)
    with pytest.raises(NotFound, match="linux/s390x") as caught:
        decision.receive_top(answer(index, OCI_INDEX))
    assert "--platform" in caught.value.hint


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"not json", FormatError),
        (b"{}", FormatError),
        (b'{"schemaVersion":2,"schemaVersion":2}', FormatError),
        (b'{"schemaVersion":1,"fsLayers":[]}', Unsupported),
    ],
    ids=["no JSON", "no members", "a name twice", "schema 1"],
)
def test_step_2_no_manifest_is_refused(key, raw, error):
    """Step 2: something else than a manifest."""
    with pytest.raises(error):
        TrustDecision(requirements(key), AMD64).receive_top(answer(raw, ""))


@pytest.mark.parametrize("change", [b" ", None], ids=["one byte more", "one bit"])
def test_step_3_manifest_swapped_behind_an_index_is_refused(key, change):
    """Step 3: the index is right and its manifest is not."""
    manifest = make_manifest(make_config())
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(make_index(manifest), OCI_INDEX))
    other = manifest + change if change else manifest.replace(b"linux", b"linuX")
    if other == manifest:
        other = manifest[:-1] + b" "
    with pytest.raises((SizeMismatch, DigestMismatch)):
        decision.receive_manifest(answer(other))


def at_manifest(key, entry):
    """A decision that waits for the manifest of an index with this entry, or another."""
    manifest = make_manifest(make_config())
    index = json.loads(make_index(manifest))
    index["manifests"][0] |= entry
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(json.dumps(index).encode(), OCI_INDEX))
    return decision, manifest


def test_step_3_manifest_of_another_length_says_both(key):
    """Step 3: before the digest of what may be long is computed."""
    decision, manifest = at_manifest(key, {})
    with pytest.raises(SizeMismatch, match="manifest for linux/amd64") as caught:
        decision.receive_manifest(answer(manifest + b" "))
    assert (caught.value.expected, caught.value.actual) == (len(manifest), len(manifest) + 1)


def test_step_3_other_bytes_of_the_same_length_are_refused(key):
    """Step 3: the digest that the registry claims for them is not believed."""
    decision, manifest = at_manifest(key, {})
    other = manifest.replace(b"linux", b"linuX").replace(b"layers", b"layerS")
    assert len(other) == len(manifest)
    assert other != manifest
    lie = RawManifest(other, OCI_MANIFEST, digest_of(manifest))
    with pytest.raises(DigestMismatch, match="manifest for linux/amd64") as caught:
        decision.receive_manifest(lie)
    assert caught.value.expected == digest_of(manifest)


def test_step_3_manifest_of_another_type_than_its_entry_is_refused(key):
    """Step 3: the index is what was signed or pinned; the header of the answer is not."""
    decision, manifest = at_manifest(key, {"mediaType": DOCKER_MANIFEST})
    with pytest.raises(FormatError) as caught:
        decision.receive_manifest(answer(manifest, OCI_MANIFEST))
    assert caught.value.where == "$.mediaType"


def test_step_2_document_of_another_type_than_its_header_is_refused(key):
    """Step 2: two readers would take it for two documents."""
    manifest = make_manifest(make_config())
    with pytest.raises(FormatError) as caught:
        TrustDecision(requirements(key), AMD64).receive_top(answer(manifest, OCI_INDEX))
    assert caught.value.where == "$.mediaType"


def test_step_2_top_digest_is_that_of_the_reference_also_by_another_algorithm(key):
    config = make_config()
    manifest = make_manifest(config)
    pinned = digest_of(manifest, "sha512")
    name = f"registry.example.org/team/app@{pinned}"
    trusted = decide(key, manifest, config, signatures=[], rules=requirements(key, name, ACCEPT))
    assert trusted.top_digest == pinned
    assert trusted.manifest.descriptor.digest == digest_of(manifest)


def test_step_3_index_inside_an_index_is_refused(key):
    """Step 3: an entry that claims to be a manifest and is an index."""
    inner = make_index(make_manifest(make_config()))
    outer = make_index(inner)
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(outer, OCI_INDEX))
    with pytest.raises((FormatError, Unsupported)):
        decision.receive_manifest(answer(inner, OCI_INDEX))


def test_step_4_unsigned_image_is_refused(key):
    """Step 4: no signature at all."""
    manifest = make_manifest(make_config())
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    with pytest.raises(NoSignature):
        decision.receive_signatures(Found.everywhere([]))


def test_step_4_manifest_swapped_after_signing_is_denied(key):
    """Step 4: the signature is good, for another manifest."""
    old = make_manifest(make_config())
    new = make_manifest(make_config(author="somebody"))
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(new))
    with pytest.raises(SignatureInvalid):
        decision.receive_signatures(signed(old, key))


def test_step_4_signature_by_another_key_is_denied(key):
    """Step 4: somebody else signed."""
    manifest = make_manifest(make_config())
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    with pytest.raises((UntrustedSigner, SignatureInvalid)):
        decision.receive_signatures(signed(manifest, generate_private_key()))


def test_step_4_signature_for_another_name_is_denied(key):
    """Step 4: the right key signed these bytes under another name (replay across names)."""
    manifest = make_manifest(make_config())
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    with pytest.raises(UntrustedSigner, match="team/other"):
        decision.receive_signatures(signed(manifest, key, "registry.example.org/team/other:v1"))


def test_step_4_could_not_look_is_not_none(key):
    """Step 4: the registry fails while it is asked: neither a yes nor "unsigned"."""
    manifest = make_manifest(make_config())
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    with pytest.raises(CouldNotVerify):
        decision.receive_signatures(
            Found(failures=(CouldNotLook(RemoteError("registry fails", status=500)),))
        )


def test_step_4_reject_is_final(key):
    """Step 4: the policy rejects, whatever is signed."""
    manifest = make_manifest(make_config())
    decision = TrustDecision(requirements(key, requirement={"type": "reject"}), AMD64)
    decision.receive_top(answer(manifest))
    with pytest.raises(PolicyDenied):
        decision.receive_signatures(signed(manifest, key))


def test_step_5_config_swapped_is_refused(key):
    """Step 5: another config than the signed manifest names."""
    config = make_config()
    manifest = make_manifest(config)
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    decision.receive_signatures(signed(manifest, key))
    with pytest.raises(DigestMismatch, match="config"):
        decision.receive_config(config.replace(b"amd64", b"arm64"))


def at_config(key, manifest):
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    decision.receive_signatures(signed(manifest, key))
    return decision


def test_step_5_config_of_another_length_says_both(key):
    """Step 5."""
    config = make_config()
    with pytest.raises(SizeMismatch, match="config") as caught:
        at_config(key, make_manifest(config)).receive_config(config + b" ")
    assert (caught.value.expected, caught.value.actual) == (len(config), len(config) + 1)


def test_step_5_config_that_claims_to_be_huge_is_refused_before_it_is_looked_at(key):
    """Step 5: also where the caller did not ask."""
    document = json.loads(make_manifest(make_config()))
    document["config"]["size"] = 8_388_609
    with pytest.raises(FormatError) as caught:
        at_config(key, json.dumps(document).encode()).receive_config(b"{}")
    assert caught.value.where == "$.config.size"


def test_step_5_config_of_an_artifact_is_unsupported(key):
    """Step 5: what the manifest calls it counts, whatever it looks like."""
    config = make_config()
    document = json.loads(make_manifest(config))
    document["config"]["mediaType"] = "application/vnd.example.model.v1+json"
    with pytest.raises(Unsupported, match=r"vnd\.example\.model"):
        at_config(key, json.dumps(document).encode()).receive_config(config)


@pytest.mark.parametrize("layers", [0, 2], ids=["dropped", "added"])
def test_step_5_count_of_layers_differs_is_refused(key, layers):
    """Step 5: layers were dropped or added."""
    config = make_config(1)
    manifest = make_manifest(config, [make_layer() for _ in range(layers)])
    with pytest.raises(SizeMismatch, match="count of layers") as caught:
        decide(key, manifest, config)
    assert (caught.value.expected, caught.value.actual) == (1, layers)


ASKED_AND_FOUND = {
    "another architecture": (AMD64, None, {"architecture": "arm64"}),
    "another system": (AMD64, None, {"os": "windows"}),
    "another variant than was asked for": (
        Platform("linux", "arm", "v6"),
        None,
        {"architecture": "arm", "variant": "v7"},
    ),
    "no variant, which is the default one": (
        Platform("linux", "arm", "v6"),
        None,
        {"architecture": "arm"},
    ),
    "another variant than the entry says": (
        Platform("linux", "arm"),
        {"architecture": "arm", "variant": "v6"},
        {"architecture": "arm", "variant": "v7"},
    ),
    "another variant than the entry says, which would run too": (
        Platform("linux", "arm", "v7"),
        {"architecture": "arm", "variant": "v6"},
        {"architecture": "arm", "variant": "v5"},
    ),
    "a variant that needs more than this machine has": (
        Platform("linux", "amd64", "v2"),
        None,
        {"variant": "v3"},
    ),
    "another architecture than the entry says": (AMD64, {}, {"architecture": "arm64"}),
}


def decide_for(key, wanted, entry, said):
    config = make_config(**said)
    manifest = make_manifest(config)
    decision = TrustDecision(requirements(key), wanted)
    if entry is None:
        decision.receive_top(answer(manifest))
    else:
        decision.receive_top(answer(make_index(manifest, **entry), OCI_INDEX))
        decision.receive_manifest(answer(manifest))
    decision.receive_signatures(signed(manifest, key))
    decision.receive_config(config)
    return decision.conclude()


@pytest.mark.parametrize("case", ASKED_AND_FOUND)
def test_step_5_image_of_another_platform_is_refused(key, case):
    """Step 5: a signed image for another machine is shown for this one."""
    wanted, entry, said = ASKED_AND_FOUND[case]
    with pytest.raises(VerificationError, match="expected an image for 'linux/a") as caught:
        decide_for(key, wanted, entry, said)
    assert type(caught.value) is VerificationError


SAME = {
    "the same words": (AMD64, None, {}),
    "the default variant is written": (AMD64, None, {"variant": "v1"}),
    "a variant that nobody asked for": (Platform("linux", "arm"), None, ARM | {"variant": "v6"}),
    "the default variant in the entry alone": (
        Platform("linux", "arm64"),
        {"architecture": "arm64", "variant": "v8"},
        {"architecture": "arm64"},
    ),
    "the default variant asked for": (
        Platform("linux", "arm64", "v8"),
        {"architecture": "arm64", "variant": "v8"},
        {"architecture": "arm64"},
    ),
    "a variant that runs there": (Platform("linux", "arm", "v7"), None, ARM | {"variant": "v6"}),
    "a variant that runs there, by an index": (
        Platform("linux", "arm", "v7"),
        ARM | {"variant": "v6"},
        ARM | {"variant": "v6"},
    ),
    "arm without a variant is v7": (Platform("linux", "arm", "v7"), None, ARM),
    "another name of the architecture": (
        Platform("linux", "arm64"),
        None,
        {"architecture": "aarch64"},
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_step_5_image_of_the_same_platform_in_other_words_is_taken(key, case):
    wanted, entry, said = SAME[case]
    assert decide_for(key, wanted, entry, said).basis is Basis.SIGNATURE


def test_step_5_config_that_claims_to_be_huge_is_refused_unfetched():
    """Step 5: a bound before memory is spent."""
    with pytest.raises(FormatError, match="at most 8388608") as caught:
        check_config_size(Descriptor(OCI_CONFIG, digest_of(b""), 1 << 40))
    assert (caught.value.what, caught.value.where) == ("manifest", "$.config.size")
    check_config_size(Descriptor(OCI_CONFIG, digest_of(b""), 8_388_608))


@pytest.mark.parametrize(
    ("layer", "error", "text"),
    [
        (make_layer("application/x-tar", None), Unsupported, "layer 1 of 1"),
        (make_layer(ENCRYPTED, None), FormatError, "layer 1 of 1"),
        (make_layer("application/x-tar+encrypted"), Unsupported, "layer 1 of 1"),
        (
            make_layer(
                annotations=ANNOTATIONS
                | {
                    "org.opencontainers.image.enc.pubopts": base64.b64encode(
                        OPTIONS.replace(b"AES_256", b"AES_512")
                    ).decode()
                }
            ),
            Unsupported,
            "AES_512",
        ),
    ],
    ids=["unknown type", "no annotations", "unknown encrypted type", "unknown cipher"],
)
def test_step_6_layer_that_cannot_be_opened_is_refused(key, layer, error, text):
    """Step 6: found before a key is asked for."""
    config = make_config()
    with pytest.raises(error, match=text):
        decide(key, make_manifest(config, [layer]), config)


def test_step_6_plain_layer_where_encryption_is_demanded_is_denied(key):
    """Step 6: an encrypted layer was replaced by a plain one."""
    config = make_config()
    manifest = make_manifest(config, [make_layer(OCI_LAYER_GZIP, None)])
    assert decide(key, manifest, config).encrypted_layers == 0
    with pytest.raises(PolicyDenied, match="layer 1 of 1 is not encrypted"):
        decide(key, manifest, config, require_encrypted=True)


def test_step_6_no_layer_where_encryption_is_demanded_is_denied(key):
    """Step 6: an image without layers needs no key, so that anybody can make one."""
    config = make_config(0)
    manifest = make_manifest(config, [])
    assert decide(key, manifest, config).encrypted_layers == 0
    with pytest.raises(PolicyDenied, match="the image has no layers"):
        decide(key, manifest, config, require_encrypted=True)


def test_step_6_every_layer_is_looked_at(key):
    """Step 6: the first one is good."""
    config = make_config(2)
    layers = [make_layer(), make_layer(OCI_LAYER_GZIP, None)]
    manifest = make_manifest(config, layers)
    assert decide(key, manifest, config).encrypted_layers == 1
    with pytest.raises(PolicyDenied, match="layer 2 of 2 is not encrypted"):
        decide(key, manifest, config, require_encrypted=True)
    layers[1] = make_layer(ENCRYPTED, None)
    with pytest.raises(FormatError, match="layer 2 of 2"):
        decide(key, make_manifest(config, layers), config)


def test_step_7_unsigned_unpinned_image_gets_no_keys_from_a_broker(key):
    """Step 7: the host serves somebody's encrypted layers in an image of its own."""
    config = make_config()
    trusted = decide(
        key,
        make_manifest(config),
        config,
        signatures=[],
        rules=requirements(key, requirement=ACCEPT),
    )
    assert trusted.basis is Basis.UNSIGNED
    with pytest.raises(PolicyDenied, match="not asked for at a broker") as caught:
        trusted.check_may_ask_broker()
    assert "sign the image" in caught.value.hint


def test_trusted_image_cannot_be_made_elsewhere(key):
    config = make_config()
    trusted = decide(key, make_manifest(config), config)
    with pytest.raises(RuntimeError, match="conclude"):
        TrustedImage(
            identity=trusted.identity,
            basis=Basis.SIGNATURE,
            decision=trusted.decision,
            manifest=trusted.manifest,
            config=trusted.config,
            top_digest=trusted.top_digest,
            _seal=None,
        )


def test_steps_out_of_order_are_the_callers_bug(key):
    config = make_config()
    manifest = make_manifest(config)
    decision = TrustDecision(requirements(key), AMD64)
    with pytest.raises(RuntimeError, match="wants the top document, got the signatures"):
        decision.receive_signatures(Found.everywhere([]))
    with pytest.raises(RuntimeError):
        decision.conclude()
    decision.receive_top(answer(manifest))
    with pytest.raises(RuntimeError):
        decision.receive_config(config)
    with pytest.raises(RuntimeError):
        decision.conclude()


def test_manifest_before_there_is_one_is_the_callers_bug(key):
    config = make_config()
    manifest = make_manifest(config)
    decision = TrustDecision(requirements(key), AMD64)
    with pytest.raises(RuntimeError, match="has no manifest yet"):
        _ = decision.manifest
    decision.receive_top(answer(make_index(manifest), OCI_INDEX))
    with pytest.raises(RuntimeError, match="has no manifest yet"):
        _ = decision.manifest
    with pytest.raises(RuntimeError, match="wants the manifest of the platform, got the sign"):
        decision.receive_signatures(signed(manifest, key))


def test_image_is_concluded_once(key):
    config = make_config()
    decision = at_config(key, make_manifest(config))
    decision.receive_config(config)
    assert isinstance(decision.conclude(), TrustedImage)
    with pytest.raises(RuntimeError, match="wants nothing, it is done, got the conclusion"):
        decision.conclude()
    with pytest.raises(RuntimeError, match="it is done"):
        decision.receive_config(config)


@pytest.mark.parametrize(
    ("step", "argument"),
    [
        ("receive_top", answer(b"{}")),
        ("receive_manifest", answer(b"{}")),
        ("receive_signatures", Found.everywhere([])),
        ("receive_config", b"{}"),
    ],
)
def test_any_failed_step_is_final(key, step, argument):
    config = make_config()
    manifest = make_manifest(config)
    decision = TrustDecision(requirements(key), AMD64)
    right = {
        "receive_top": answer(make_index(manifest), OCI_INDEX),
        "receive_manifest": answer(manifest),
        "receive_signatures": signed(manifest, key),
        "receive_config": config,
    }
    for name, value in right.items():
        if name == step:
            break
        getattr(decision, name)(value)
    with pytest.raises(ImagersError):
        getattr(decision, step)(argument)
    with pytest.raises(RuntimeError, match="it failed"):
        getattr(decision, step)(right[step])


def test_step_4_the_time_is_that_of_the_caller(key, monkeypatch):
    """Step 4: no clock is read here; certificates and expiries are judged by this one."""
    seen = []

    def explain(*words, **options):
        seen.append(options["now"])
        return explain_image(*words, **options)

    monkeypatch.setattr("imagers.pull.trust.explain_image", explain)
    manifest = make_manifest(make_config())
    for now in (None, datetime(2026, 6, 1, tzinfo=UTC)):
        decision = TrustDecision(requirements(key), AMD64)
        decision.receive_top(answer(manifest))
        decision.receive_signatures(signed(manifest, key), now=now)
        assert seen.pop() == now


def test_a_failed_step_is_final(key):
    config = make_config()
    manifest = make_manifest(config)
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    with pytest.raises(NoSignature):
        decision.receive_signatures(Found.everywhere([]))
    with pytest.raises(RuntimeError, match="it failed"):
        decision.receive_signatures(signed(manifest, key))
    with pytest.raises(RuntimeError, match="it failed"):
        decision.receive_config(config)


def test_trusted_image_cannot_be_copied_with_other_parts(key):
    config = make_config()
    trusted = decide(key, make_manifest(config), config)
    other = make_config(author="somebody")
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        dataclasses.replace(trusted, config=parse_config(other))
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        dataclasses.replace(trusted, config=parse_config(other), _seal=object())


def on_index(key):
    return {
        "type": "index",
        "requirements": [
            {
                "type": "sigstoreSigned",
                "keyData": base64.b64encode(key.public_key.to_pem()).decode(),
            }
        ],
    }


def decide_index(found, index_found, *, rules):
    """An image found through an index, decided by a policy about the index."""
    config = make_config()
    manifest = make_manifest(config)
    index = make_index(manifest)
    decision = TrustDecision(rules, AMD64)
    decision.receive_top(answer(index, OCI_INDEX))
    decision.receive_manifest(answer(manifest))
    assert decision.index_digest == digest_of(index)
    decision.receive_signatures(found(index, manifest), index_found=index_found(index, manifest))
    decision.receive_config(config)
    return decision.conclude()


def test_index_signature_that_the_policy_demands_is_looked_at(key):
    """Step 4: over the bytes of step 2."""
    rules = requirements(key, requirement=on_index(key))
    trusted = decide_index(lambda *_: Found(), lambda index, _: signed(index, key), rules=rules)
    assert trusted.basis is Basis.SIGNATURE


@pytest.mark.parametrize("found", [None, Found()])
def test_index_signature_that_nobody_looked_for_is_not_missing(key, found):
    """Step 4: what a caller forgot is no fact about the index."""
    rules = requirements(key, requirement=on_index(key))
    with pytest.raises(CouldNotVerify, match="nobody looked"):
        decide_index(lambda _, manifest: signed(manifest, key), lambda *_: found, rules=rules)


def test_index_signature_that_is_not_there_is_a_no(key):
    """Step 4: a signature of the platform's manifest does not stand in for it."""
    rules = requirements(key, requirement=on_index(key))
    with pytest.raises(NoSignature, match="signature of index 'sha256:"):
        decide_index(
            lambda _, manifest: signed(manifest, key),
            lambda *_: Found.everywhere([]),
            rules=rules,
        )


def test_requirement_about_the_index_is_about_the_manifest_where_there_is_no_index(key):
    """Step 4: what the name led to."""
    config = make_config()
    manifest = make_manifest(config)
    rules = requirements(key, requirement=on_index(key))
    assert decide(key, manifest, config, rules=rules).basis is Basis.SIGNATURE
    with pytest.raises(NoSignature, match="signature of manifest 'sha256:"):
        decide(key, manifest, config, rules=rules, signatures=Found.everywhere([]))


def test_index_signature_of_the_manifest_shown_for_the_index_is_refused(key):
    """Step 4."""
    rules = requirements(key, requirement=on_index(key))
    with pytest.raises(SignatureInvalid):
        decide_index(lambda *_: Found(), lambda _, manifest: signed(manifest, key), rules=rules)


def test_explanation_is_there_after_a_no(key):
    config = make_config()
    manifest = make_manifest(config)
    decision = TrustDecision(requirements(key), AMD64)
    decision.receive_top(answer(manifest))
    assert decision.explanation is None
    assert decision.index_digest is None
    with pytest.raises(NoSignature):
        decision.receive_signatures(Found.everywhere([]))
    assert decision.explanation.decision is None
    assert "is not signed" in str(decision.explanation.root.error)
