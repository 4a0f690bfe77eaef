# SPDX-License-Identifier: Apache-2.0
"""What is particular to signatures of notation; the judge's answers are in test_judge.py."""

import json

import pytest

from imagers.errors import CouldNotVerify, PolicyDenied
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.sign.formats.format import Demand
from imagers.sign.formats.notation.signed import FORMAT, NotationMaterial, NotationSigned
from imagers.sign.formats.notation.trust_policy import parse_trust_policy
from imagers.sign.found import NOTATION_TYPE, NotationSignature
from imagers.sign.materials import Trust
from imagers.sign.policy_json import parse_policy

IDENTITY = docker_identity(parse_reference("r.example/app:v1"))
WANTED = NotationSigned("/p", "/s", where="here")


def trust_in(level, scope="*"):
    statement = {
        "name": "own",
        "registryScopes": [scope],
        "signatureVerification": {"level": level},
    }
    if level != "skip":
        statement |= {"trustStores": ["ca:x"], "trustedIdentities": ["*"]}
    raw = json.dumps({"version": "1.0", "trustPolicies": [statement]}).encode()
    policy = parse_policy(b'{"default": [{"type": "reject"}]}')
    material = NotationMaterial(parse_trust_policy(raw, what="trust policy"))
    return Trust(policy.select(IDENTITY), {"here": material})


@pytest.mark.parametrize(
    ("kind", "media_type", "is_one"),
    [
        (NOTATION_TYPE, "application/jose+json", True),
        (NOTATION_TYPE, "application/cose", True),
        (NOTATION_TYPE, "text/plain", False),
        ("x/y", "application/cose", False),
    ],
)
def test_layer_is_a_signature_by_both_types(kind, media_type, is_one):
    layer = Descriptor(media_type, digest_of(b""), 0)
    assert FORMAT.is_in(kind, layer) is is_one
    assert FORMAT.attached(b"x", layer, "p") == NotationSignature(b"x", media_type, "p")


def test_level_skip_asks_for_no_signature_and_no_other_level_does():
    assert FORMAT.demand(WANTED, trust_in("skip"), IDENTITY) == Demand(
        "notation: policy 'own' skips every check", is_waived=True
    )
    assert FORMAT.demand(WANTED, trust_in("audit"), IDENTITY) == Demand(
        "notation, by policy 'own'", is_waived=False
    )


def test_image_without_a_scope_is_denied_and_keys_that_were_not_loaded_could_not_look():
    with pytest.raises(PolicyDenied, match=r"no scope for 'r\.example/app'"):
        FORMAT.demand(WANTED, trust_in("strict", "r.example/other"), IDENTITY)
    with pytest.raises(CouldNotVerify, match="keys of here were not loaded"):
        FORMAT.demand(WANTED, Trust(trust_in("audit").selected, {}), IDENTITY)
