# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError, PolicyDenied
from imagers.sign.formats.notation.trust_policy import Action, Check, parse_trust_policy

GOOD = {
    "name": "p",
    "registryScopes": ["*"],
    "signatureVerification": {"level": "strict"},
    "trustStores": ["ca:acme"],
    "trustedIdentities": ["*"],
}


def parse(*statements, **more):
    document = {"version": "1.0", "trustPolicies": list(statements), **more}
    return parse_trust_policy(json.dumps(document).encode(), what="trustpolicy.json")


def level(**members):
    return {**GOOD, "signatureVerification": members}


def test_trust_policy_of_each_level_says_what_is_enforced():
    strict = parse(GOOD).select("r.example/a")
    assert set(strict.actions.values()) == {Action.ENFORCE}
    permissive = parse(level(level="permissive")).select("x/y").actions
    assert permissive[Check.AUTHENTICITY] is Action.ENFORCE
    assert permissive[Check.EXPIRY] is Action.LOG
    assert set(parse(level(level="audit")).select("x/y").actions.values()) == {Action.LOG}
    skip = {k: v for k, v in GOOD.items() if not k.startswith("trust")}
    skip["signatureVerification"] = {"level": "skip"}
    assert parse(skip).select("x/y").actions is None


def test_trust_policy_override_changes_one_check():
    actions = parse(level(level="strict", override={"revocation": "skip"})).select("x").actions
    assert actions[Check.REVOCATION] is Action.SKIP
    assert actions[Check.EXPIRY] is Action.ENFORCE


def test_trust_policy_scope_is_the_whole_repository_or_all():
    policy = parse(
        {**GOOD, "name": "one", "registryScopes": ["r.example/a"]}, {**GOOD, "name": "all"}
    )
    assert policy.select("r.example/a").name == "one"
    assert policy.select("r.example/a/b").name == "all"
    only = parse({**GOOD, "registryScopes": ["r.example/a"]})
    for name in ("r.example", "r.example/ab", ""):
        with pytest.raises(PolicyDenied, match="no scope for"):
            only.select(name)


def test_trust_policy_identities_are_sets_of_attributes():
    text = "x509.subject: C=DE, ST=BE, O=acme\\, inc"
    (wanted,) = parse({**GOOD, "trustedIdentities": [text]}).select("x").subjects
    assert {value for _, value in wanted} == {"DE", "BE", "acme, inc"}


@pytest.mark.parametrize(
    ("piece", "statement"),
    [
        ("unknown member", {**GOOD, "more": 1}),
        ("not empty", {**GOOD, "registryScopes": []}),
        ("'*' alone", {**GOOD, "registryScopes": ["*", "r/a"]}),
        ("a registry with a repository", {**GOOD, "registryScopes": ["r.example"]}),
        ("a registry with a repository", {**GOOD, "registryScopes": ["r.example/*"]}),
        ("expected one of", level(level="STRICT")),
        ("expected one of", level(level="strict", override={"expiry": "skip"})),
        ("unknown member", level(level="strict", override={"integrity": "log"})),
        ("no override", level(level="skip", override={"expiry": "log"})),
        ("no trustStores", level(level="skip")),
        ("always or afterCertExpiry", level(level="strict", verifyTimestamp="never")),
        ("a store such as", {**GOOD, "trustStores": ["acme"]}),
        ("a store such as", {**GOOD, "trustStores": ["ca:../x"]}),
        ("a store such as", {**GOOD, "trustStores": ["ca:.."]}),
        ("a store such as", {**GOOD, "trustStores": ["xa:acme"]}),
        ("not empty", {**GOOD, "trustStores": []}),
        ("'*' alone", {**GOOD, "trustedIdentities": ["*", "x509.subject: C=a, ST=b, O=c"]}),
        ("expected '*' or", {**GOOD, "trustedIdentities": ["acme"]}),
        ("C, ST and O", {**GOOD, "trustedIdentities": ["x509.subject: C=DE, O=acme"]}),
        ("each at most", {**GOOD, "trustedIdentities": ["x509.subject: C=DE,ST=B,O=a,O=b"]}),
        ("cannot be read", {**GOOD, "trustedIdentities": ["x509.subject: nonsense"]}),
    ],
)
def test_trust_policy_with_a_fault_is_refused(piece, statement):
    with pytest.raises(FormatError) as caught:
        parse(statement)
    assert piece in str(caught.value)
    assert caught.value.where.startswith("$.trustPolicies[0]")


def test_trust_policy_of_another_version_or_with_doubles_is_refused():
    for words, piece in (
        ({"version": "1.1"}, "'1.0'"),
        ({"trustPolicies": []}, "a list that is not empty"),
        ({"more": 1}, "unknown member"),
    ):
        with pytest.raises(FormatError, match=piece):
            parse(GOOD, **words)
    with pytest.raises(FormatError, match="name 'p' is there twice"):
        parse(GOOD, {**GOOD, "registryScopes": ["r/a"]})
    with pytest.raises(FormatError, match="scope '\\*' is there twice"):
        parse(GOOD, {**GOOD, "name": "q"})
    with pytest.raises(FormatError, match="twice in one object"):
        parse_trust_policy(b'{"version":"1.0","version":"1.0"}', what="x")


def test_trust_policy_scope_in_any_spelling_of_its_host():
    policy = parse({**GOOD, "registryScopes": ["R.Example/a"]})
    assert policy.select("r.example/a").name == "p"
