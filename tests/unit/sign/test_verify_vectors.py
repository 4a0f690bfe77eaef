# SPDX-License-Identifier: Apache-2.0
"""Every check of the category `signed` of the vectors, as manifest.json says; none is skipped."""

import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagers.errors import (
    FormatError,
    ImagersError,
    NoSignature,
    PolicyDenied,
    SignatureInvalid,
    UntrustedSigner,
)
from imagers.model.descriptor import Platform
from imagers.model.identity import docker_identity, path_identity
from imagers.model.manifest import Index, parse_manifest_or_index
from imagers.model.reference import parse_reference
from imagers.sign.find import Finder, Places
from imagers.sign.formats.format import FORMATS
from imagers.sign.formats.gpg import read_simple_signatures
from imagers.sign.policy_json import parse_policy
from imagers.sign.registries_d import RegistriesD, Scope
from imagers.sign.verify import PolicyBasis, Subject, load_trust, verify_image

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "ocicrypt"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)  # some hours after the vectors were made
CLASS_OF = {
    "identity-mismatch": UntrustedSigner,
    "untrusted-key": SignatureInvalid,  # as bytes it is no other than a damaged signature
    "bad-signature": SignatureInvalid,
    "digest-mismatch": SignatureInvalid,
    "malformed-payload": SignatureInvalid,
    "expired-signature": SignatureInvalid,
    "no-signature": NoSignature,
    "policy-reject": PolicyDenied,
    "invalid-policy": FormatError,
    "missing-rekor-entry": SignatureInvalid,
    "bad-rekor-entry": SignatureInvalid,
    "certificate-identity-mismatch": UntrustedSigner,
    "certificate-expired": SignatureInvalid,
    "untrusted-certificate": SignatureInvalid,
}
# A piece of the message, where the class alone does not say that it was the right reason.
SAYS = {
    "digest-mismatch": "another manifest",
    "expired-signature": "expired",
    "missing-rekor-entry": "no entry",
    "bad-rekor-entry": "log entry",
    "certificate-identity-mismatch": "certificate",
    "certificate-expired": "not valid at",
    "untrusted-certificate": "certificate",
    "malformed-payload": "signature payload",
}


def checks():
    for case in json.loads((VECTORS / "manifest.json").read_bytes())["cases"]:
        if case["category"] == "signed":
            for check in case["checks"]:
                yield case, check


def params():
    for case, check in checks():
        path = check.get("policy") or check["trust_policy"]
        name = case["id"].removeprefix("signed/") + "-" + Path(path).stem
        if "@" in check["image"]:
            name += "-by-digest"
        yield pytest.param(case, check, id=name)


def read_relative(path):
    return (VECTORS / path).read_bytes()


def policy_of(case, check, folder):
    """The policy of a check; a trust policy of notation becomes a requirement of ours."""
    if "policy" in check:
        return (VECTORS / check["policy"]).read_bytes()
    for name, files in case["trust_stores"].items():
        kind, _, store = name.partition(":")
        place = folder / "x509" / kind / store
        place.mkdir(parents=True)
        for file in files:
            (place / os.path.basename(file)).write_bytes((VECTORS / file).read_bytes())
    requirement = {
        "type": "notation",
        "trustPolicyPath": str(VECTORS / check["trust_policy"]),
        "trustStorePath": str(folder),
    }
    return json.dumps({"default": [requirement]}).encode()


def decide(case, check, repository_of, folder):
    policy = parse_policy(policy_of(case, check, folder))
    transport, _, rest = check["image"].partition(":")
    if transport == "dir":
        path = VECTORS / rest
        identity = path_identity("dir", str(path))
        places = Places(directory=str(path))
        raw = (path / "manifest.json").read_bytes()
        top = None
    else:
        reference = parse_reference(check["image"].removeprefix("docker://"))
        identity = docker_identity(reference)
        repository = repository_of(VECTORS / case["path"] / "repository")
        source = (
            repository.read_manifest(reference.digest)
            if reference.is_pinned
            else repository.read_tag(reference.tag)
        )
        raw, top = source.raw, None
        parsed = parse_manifest_or_index(source.raw, media_type=source.media_type)
        if isinstance(parsed, Index):
            top = source
            raw = repository.read_manifest(
                parsed.find_platform(Platform("linux", "amd64")).digest
            ).raw
        lookaside = VECTORS / case["path"] / "lookaside"
        places = Places(
            reference=reference,
            repository=repository,
            referrers=repository,
            extension=repository,
            config=RegistriesD(Scope(lookaside=f"file://{lookaside}"), {}),
        )
    trust = load_trust(policy.select(identity), read_relative)
    finder = Finder(places)
    # Looking at everything is stricter than looking at what is demanded: more to misread.
    parsed = parse_manifest_or_index(raw)
    found = read_simple_signatures(trust, finder.find(parsed.descriptor.digest, set(FORMATS)))
    index = (
        None if top is None else Subject(top.raw, finder.find(top.digest, set(FORMATS)), "index")
    )
    return verify_image(trust, raw, found, index=index, now=NOW)


@pytest.mark.parametrize(("case", "check"), [*params()])
def test_verify_vector_has_the_verdict_of_the_reference_tool(case, check, repository_of, tmp_path):
    if check["expect"] == "accept":
        decision = decide(case, check, repository_of, tmp_path)
        path = check.get("policy") or check["trust_policy"]
        unsigned = "accept-anything" in path or "audit-other-root" in path
        assert decision.basis is (PolicyBasis.UNSIGNED if unsigned else PolicyBasis.SIGNATURE)
        assert bool(decision.signers) is not unsigned
    else:
        with pytest.raises(ImagersError) as caught:
            decide(case, check, repository_of, tmp_path)
        assert type(caught.value) is CLASS_OF[check["kind"]]
        assert SAYS.get(check["kind"], "") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_vectors_covered_by_kind_are_these():
    """A vector that is added, or falls out, is seen here."""
    assert Counter(check.get("kind", "accept") for _, check in checks()) == {
        "accept": 45,
        "bad-rekor-entry": 4,
        "bad-signature": 9,
        "certificate-expired": 1,
        "certificate-identity-mismatch": 3,
        "digest-mismatch": 4,
        "expired-signature": 2,
        "identity-mismatch": 14,
        "invalid-policy": 7,
        "malformed-payload": 10,
        "missing-rekor-entry": 1,
        "no-signature": 6,
        "policy-reject": 2,
        "untrusted-certificate": 3,
        "untrusted-key": 8,
    }
