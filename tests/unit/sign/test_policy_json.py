# SPDX-License-Identifier: Apache-2.0
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, PolicyDenied
from imagers.model.identity import docker_identity, path_identity
from imagers.model.reference import parse_reference
from imagers.sign.policy_json import parse_policy

D1 = "sha256:" + "1" * 64
REJECT = [{"type": "reject"}]


def policy_of(transports):
    return parse_policy(json.dumps({"default": REJECT, "transports": transports}).encode())


def selected(scopes, identity, transport="docker"):
    policy = policy_of({transport: dict.fromkeys(scopes, REJECT)})
    return policy.select(identity).where


def test_select_takes_the_most_specific_scope_only():
    identity = docker_identity(parse_reference("r.example.org/a/app:v1"))
    scopes = ["", "*.org", "*.example.org", "r.example.org", "r.example.org/a"]
    scopes += ["r.example.org/a/app", "r.example.org/a/app:v1"]
    while scopes:
        assert selected(scopes, identity) == f"$.transports.docker[{scopes[-1]!r}]"
        scopes.pop()
    assert selected([], identity) == "$.default"


@pytest.mark.parametrize(
    "scope",
    [
        "r.example.org/ap",
        "r.example.org/app:v2",
        "example.org",
        "*.r.example.org",
        "r.example.org:443",
        "app:v1",
        "r.example.org/",
    ],
)
def test_select_scope_that_only_looks_alike_does_not_count(scope):
    identity = docker_identity(parse_reference("r.example.org/app:v1"))
    assert selected([scope], identity) == "$.default"


def test_select_by_tag_and_digest_is_what_the_digest_has():
    both = docker_identity(parse_reference(f"r.example.org/app:v1@{D1}"))
    assert both == docker_identity(parse_reference(f"r.example.org/app@{D1}"))
    for scope in ("r.example.org/app", f"r.example.org/app@{D1}", "r.example.org", "*.example.org"):
        assert selected([scope, ""], both) == f"$.transports.docker[{scope!r}]"
    assert selected(["r.example.org/app:v2"], both) == "$.default"
    assert str(both) == f"docker://r.example.org/app:v1@{D1}"


@pytest.mark.parametrize("others", [[], ["r.example.org/app"], [f"r.example.org/app@{D1}"]])
def test_select_by_tag_and_digest_where_the_tag_has_a_scope_is_refused(others):
    """The digest would pass by what the tag is shut to, or the tag by what the digest is."""
    both = docker_identity(parse_reference(f"R.example.org/app:v1@{D1}"))
    with pytest.raises(
        PolicyDenied, match=r"has requirements for 'r\.example\.org/app:v1'"
    ) as caught:
        selected(["r.example.org/app:v1", *others], both)
    assert "write the tag or the digest" in caught.value.hint


def test_select_path_scopes_are_whole_components():
    identity = path_identity("oci", "/srv/images/app")
    assert selected(["/srv"], identity, "oci") == "$.transports.oci['/srv']"
    assert selected(["/srv/image"], identity, "oci") == "$.default"
    assert selected(["/srv"], identity, "dir") == "$.default"
    assert selected([""], identity, "oci") == "$.transports.oci['']"


def test_parse_policy_without_transports_is_the_default_alone():
    policy = parse_policy(b'{"default":[{"type":"reject"}]}')
    assert policy.transports == {}


@pytest.mark.parametrize(
    ("text", "where", "piece"),
    [
        ("", "", "is not JSON"),
        ("[]", "$", "expected an object"),
        ("{}", "$.default", "is missing"),
        ('{"transports":{}}', "$.default", "is missing"),
        ('{"default":null}', "$.default", "expected a list"),
        ('{"default":[]}', "$.default", "got an empty list"),
        ('{"default":{}}', "$.default", "expected a list"),
        ('{"default":[null]}', "$.default[0]", "expected an object"),
        ('{"default":[{"type":"reject"}],"x":1}', "$", "unknown member 'x'"),
        ('{"default":[{"type":"reject"}],"Transports":{}}', "$", "unknown member 'Transports'"),
        ('{"default":[{"type":"reject"}],"transports":null}', "$.transports", "an object"),
        ('{"default":[{"type":"reject"}],"transports":[]}', "$.transports", "an object"),
        (
            '{"default":[{"type":"reject"}],"transports":{"docker":[]}}',
            "$.transports.docker",
            "an object",
        ),
        (
            '{"default":[{"type":"reject"}],"transports":{"docker":{"":[]}}}',
            "$.transports.docker['']",
            "empty list",
        ),
        (
            '{"default":[{"type":"reject"}],"transports":{"docker":{"docker://r":[]}}}',
            "$.transports.docker['docker://r']",
            "without a scheme",
        ),
        ('{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}', "", "twice"),
        ('{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}', "", "twice"),
        ('{"default":[{"type":"reject"}]} x', "", "is not JSON"),
    ],
)
def test_parse_policy_that_is_not_one_is_refused_with_the_place(text, where, piece):
    with pytest.raises(FormatError) as caught:
        parse_policy(text.encode(), what="policy 'p.json'")
    assert (caught.value.what, caught.value.where) == ("policy 'p.json'", where)
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("transport", "scope"),
    [
        ("oci", "relative"),
        ("oci", "/"),
        ("oci", "/a/../b"),
        ("dir", "/a/"),
        ("oci-archive", "//a"),
        ("docker-archive", "/a"),
        ("tarball", "x"),
        ("docker-daemon", D1),
    ],
)
def test_parse_policy_scope_that_can_never_match_is_refused(transport, scope):
    with pytest.raises(FormatError) as caught:
        policy_of({transport: {scope: REJECT}})
    assert caught.value.where == f"$.transports.{transport}[{scope!r}]"


def test_parse_policy_unknown_transports_are_kept_and_never_apply():
    policy = policy_of({"future": {"anything": REJECT}, "docker-daemon": {"box:1": REJECT}})
    assert policy.select(path_identity("oci", "/a")).where == "$.default"


@given(st.binary(max_size=300))
def test_parse_policy_any_bytes_give_a_policy_or_a_format_error(raw):
    with contextlib.suppress(FormatError):  # by chance it is a policy
        assert parse_policy(raw).default


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("R.Example.org", "r.example.org/app:v1"),
        ("r.example.org", "R.EXAMPLE.org/app:v1"),
        ("r.example.org:05000", "r.example.org:5000/app:v1"),
        ("*.EXAMPLE.org", "r.example.org/app:v1"),
        ("[0:0::1]:5000", "[::1]:5000/app:v1"),
        ("index.docker.io", "busybox"),
        ("index.docker.io/library/busybox:v1", "docker.io/busybox:v1"),
    ],
)
def test_select_by_another_spelling_of_the_host_counts(scope, name):
    where = selected([scope], docker_identity(parse_reference(name)))
    assert where != "$.default"


def test_parse_policy_with_a_scope_in_two_spellings_refused():
    with pytest.raises(FormatError, match="another spelling"):
        policy_of({"docker": {"r.example.org": REJECT, "R.example.org": REJECT}})
    # Paths are other ones in another spelling.
    policy_of({"oci": {"/srv/a": REJECT, "/srv/A": REJECT}})
