# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest

from imagers.sign.policy_json import parse_policy
from imagers.sign.policy_lint import lint_policy

KEY = {"type": "sigstoreSigned", "keyPath": "/k"}
REPOSITORY = {**KEY, "signedIdentity": {"type": "matchRepository"}}
GPG = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
DATA = base64.b64encode(b"x").decode()


def notes(*requirements):
    document = {"default": [REJECT], "transports": {"docker": {"r": list(requirements)}}}
    return lint_policy(parse_policy(json.dumps(document).encode()))


@pytest.mark.parametrize("requirements", [[REJECT], [REPOSITORY], [GPG], [GPG, REPOSITORY]])
def test_lint_of_a_strict_policy_has_nothing_to_say(requirements):
    assert notes(*requirements) == []


@pytest.mark.parametrize(
    ("level", "piece", "requirements"),
    [
        ("warning", "accepts every image", [ACCEPT]),
        ("warning", "beside others makes no difference", [ACCEPT, GPG]),
        ("warning", "beside reject", [REJECT, GPG]),
        ("warning", "demands no signature", [{"type": "encrypted"}]),
        (
            "warning",
            "can never be satisfied",
            [GPG, {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}],
        ),
        ("warning", "one part of anyOf", [GPG, {"type": "anyOf", "requirements": [ACCEPT]}]),
        ("note", "image-rs checks no name", [KEY]),
        (
            "note",
            "does not know several keys",
            [{"type": "sigstoreSigned", "keyPaths": ["a", "b"]}],
        ),
        ("note", "keys of Rekor logs", [{**KEY, "rekorPublicKeyData": DATA}]),
        ("note", "keyPaths", [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["a", "b"]}]),
        ("note", "refuse the whole file", [{"type": "sigstoreBundle", "keyPath": "/k"}]),
    ],
)
def test_lint_tells_what_is_probably_not_meant(level, piece, requirements):
    found = notes(*requirements)
    assert any(one.level == level and piece in one.text for one in found), found
    assert all(one.where.startswith("$.transports.docker['r']") for one in found)


def test_lint_without_transports_says_that_image_rs_refuses_it():
    found = lint_policy(parse_policy(b'{"default":[{"type":"reject"}]}'))
    assert [one.where for one in found] == ["$"]


@pytest.mark.parametrize(
    ("members", "piece"),
    [
        (
            {"trustedRootPath": "/r", "fulcio": {"oidcIssuer": "i", "subjectEmail": "a@b"}},
            "trustedRootPath:",
        ),
        (
            {
                "fulcio": {"caPath": "/c", "oidcIssuer": "i", "subjectRegexp": ".*"},
                "rekorPublicKeyPath": "/r",
            },
            "subjects of fulcio other than subjectEmail:",
        ),
    ],
)
def test_members_of_ours_are_told(members, piece):
    policy = parse_policy(json.dumps({"default": [{"type": "sigstoreSigned", **members}]}).encode())
    (text,) = [note.text for note in lint_policy(policy) if piece in note.text]
    assert "other readers refuse the whole file" in text
