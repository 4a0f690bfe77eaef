"""Every check of the signed vectors that has a containers policy, as manifest.json says."""

import base64
import json
from collections import Counter
from pathlib import Path

import pytest

from imagers.errors import (
    FormatError,
    ImagersError,
    NoSignature,
    PolicyDenied,
    SignatureInvalid,
    Unsupported,
    UntrustedSigner,
)
from imagers.model.descriptor import Platform
from imagers.model.manifest import Index, parse_manifest_or_index
from imagers.model.reference import parse_reference
from imagers.sign.image import find_signatures
from imagers.sign.policy_json import docker_identity, parse_policy, path_identity
from imagers.sign.sigstore import SigstoreSignature
from imagers.sign.verify import Basis, load_trust, verify_image

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
SIGSTORE_FILE = b"\0sigstore-json\n"
CLASS_OF = {
    "identity-mismatch": UntrustedSigner,
    "untrusted-key": SignatureInvalid,  # as bytes it is no other than a damaged signature
    "bad-signature": SignatureInvalid,
    "digest-mismatch": SignatureInvalid,
    "malformed-payload": SignatureInvalid,
    "no-signature": NoSignature,
    "policy-reject": PolicyDenied,
    "invalid-policy": FormatError,
}
# What this version parses and cannot check; a check whose policy needs one is never a yes.
LATER = ("signedBy", "fulcio", "pki", "rekorPublicKey")


def needs_later(policy_text):
    return any(f'"{word}' in policy_text for word in LATER)


def checks():
    for case in json.loads((VECTORS / "manifest.json").read_bytes())["cases"]:
        if case["category"] != "signed":
            continue
        for check in case["checks"]:
            if "policy" not in check:
                yield case, check, "notation"
            elif check.get("kind") != "invalid-policy" and needs_later(
                (VECTORS / check["policy"]).read_text()
            ):
                yield case, check, f"later-{check['expect']}"
            else:
                yield case, check, "decided"


def params(group):
    for case, check, its_group in checks():
        if its_group == group:
            name = case["id"].removeprefix("signed/") + "-" + Path(check["policy"]).stem
            if "@" in check["image"]:
                name += "-by-digest"
            yield pytest.param(case, check, id=name)


def read_relative(path):
    return (VECTORS / path).read_bytes()


def signatures_of_directory(path):
    found = []
    number = 1
    while (file := path / f"signature-{number}").exists():
        raw = file.read_bytes()
        if raw.startswith(SIGSTORE_FILE):
            document = json.loads(raw.removeprefix(SIGSTORE_FILE))
            found.append(
                SigstoreSignature(
                    base64.b64decode(document["payload"]),
                    document["annotations"],
                    document["mimeType"],
                )
            )
        number += 1
    return found


def decide(case, check, repository_of):
    policy = parse_policy(
        (VECTORS / check["policy"]).read_bytes(), what=f"policy '{check['policy']}'"
    )
    transport, _, rest = check["image"].partition(":")
    if transport == "dir":
        path = VECTORS / rest
        identity = path_identity("dir", str(path))
        raw = (path / "manifest.json").read_bytes()
        found = signatures_of_directory(path)
    else:
        reference = parse_reference(rest.removeprefix("//"))
        identity = docker_identity(reference)
        repository = repository_of(VECTORS / case["path"] / "repository")
        source = (
            repository.read_manifest(reference.digest)
            if reference.is_pinned
            else repository.read_tag(reference.tag)
        )
        parsed = parse_manifest_or_index(source.raw, media_type=source.media_type)
        if isinstance(parsed, Index):
            entry = parsed.find_platform(Platform("linux", "amd64"))
            raw = repository.read_manifest(entry.digest).raw
            digest = entry.digest
        else:
            raw, digest = source.raw, source.digest
        found = find_signatures(repository, digest)
    trust = load_trust(policy.select(identity), read_relative)
    return verify_image(trust, raw, found)


@pytest.mark.parametrize(("case", "check"), [*params("decided")])
def test_verify_vector_has_the_verdict_of_the_reference_tool(case, check, repository_of):
    if check["expect"] == "accept":
        decision = decide(case, check, repository_of)
        unsigned = "accept-anything" in check["policy"]
        assert decision.basis is (Basis.UNSIGNED if unsigned else Basis.SIGNATURE)
        assert bool(decision.signers) is not unsigned
    else:
        with pytest.raises(ImagersError) as caught:
            decide(case, check, repository_of)
        assert type(caught.value) is CLASS_OF[check["kind"]]
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("case", "check"), [*params("later-reject"), *params("later-accept")])
def test_verify_vector_that_needs_a_later_feature_is_never_accepted(case, check, repository_of):
    with pytest.raises((Unsupported, PolicyDenied)) as caught:
        decide(case, check, repository_of)
    assert "the policy at $." in str(caught.value)


def test_vectors_covered_by_kind_are_these():
    """A vector that is added, or falls out of a group, is seen here."""
    groups = Counter(group for _, _, group in checks())
    decided = Counter(
        check.get("kind", "accept") for _, check, group in checks() if group == "decided"
    )
    later = Counter(
        check.get("kind", "accept") for _, check, group in checks() if group.startswith("later")
    )
    assert groups == {"decided": 42, "later-accept": 26, "later-reject": 44, "notation": 7}
    assert decided == {
        "accept": 15,
        "bad-signature": 5,
        "digest-mismatch": 1,
        "identity-mismatch": 4,
        "invalid-policy": 7,
        "malformed-payload": 2,
        "no-signature": 3,
        "policy-reject": 2,
        "untrusted-key": 3,
    }
    # OpenPGP, certificates and the transparency log.
    assert later == {
        "accept": 26,
        "bad-rekor-entry": 4,
        "bad-signature": 4,
        "certificate-expired": 1,
        "certificate-identity-mismatch": 3,
        "digest-mismatch": 3,
        "expired-signature": 1,
        "identity-mismatch": 10,
        "malformed-payload": 8,
        "missing-rekor-entry": 1,
        "no-signature": 3,
        "untrusted-certificate": 1,
        "untrusted-key": 5,
    }
