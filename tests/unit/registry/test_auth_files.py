# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest

from imagers.errors import FormatError, UsageError
from imagers.registry.auth_files import HelperName, keys_of, parse_auth_file
from imagers.registry.credentials import Credentials, IdentityToken, RegistryToken


def packed(text):
    return {"auth": base64.b64encode(text.encode()).decode()}


def file_of(**members):
    return parse_auth_file(json.dumps(members).encode(), what="auth.json")


def shown(login):
    if isinstance(login, Credentials):
        return base64.b64decode(login.authorization().removeprefix("Basic ")).decode()
    return login


AUTHS = {
    "reg.io": packed("host:1"),
    "reg.io/team": packed("team:2"),
    "reg.io/team/app": packed("app:3:with:colons"),
    "https://index.docker.io/v1/": packed("hub:4"),
    "http://old.io:5000/v2/": packed("old:5"),
}


@pytest.mark.parametrize(
    ("registry", "repository", "login"),
    [
        ("reg.io", "x", "host:1"),
        ("reg.io", "teams", "host:1"),
        ("reg.io", "team", "team:2"),
        ("reg.io", "team/other", "team:2"),
        ("reg.io", "team/app", "app:3:with:colons"),
        ("reg.io", "team/app/deep", "app:3:with:colons"),
        ("docker.io", "library/busybox", "hub:4"),
        ("old.io:5000", "x", "old:5"),
        ("other.io", "team", None),
        ("io", "x", None),
    ],
)
def test_find_the_most_specific_key_wins(registry, repository, login):
    assert shown(file_of(auths=AUTHS).find(registry, repository)) == login


def test_find_identity_token_and_helpers():
    file = file_of(
        auths={"a.io": {"identitytoken": "T0ken"}, "b.io": {}, "c.io": packed("c:1")},
        credHelpers={"h.io": "pass", "docker.io": "hub"},
        credsStore="store",
    )
    assert isinstance(file.find("a.io", "x"), IdentityToken)
    assert "T0ken" not in repr(file.find("a.io", "x"))
    assert file.find("b.io", "x") == HelperName("store", "b.io")
    assert shown(file.find("c.io", "x")) == "c:1"
    assert file.find("h.io", "x") == HelperName("pass", "h.io")
    assert file.find("docker.io", "x") == HelperName("hub", "https://index.docker.io/v1/")


@pytest.mark.parametrize(
    ("members", "where"),
    [
        ({"auths": {"a.io": {"auth": "c2VjcmV0"}}}, "auth"),
        ({"auths": {"a.io": {"auth": "!secret!"}}}, "auth"),
        ({"auths": {"a.io": 1}}, "a.io"),
        ({"auths": 1}, "auths"),
        ({"credHelpers": {"a.io": "../../secret"}}, "helper"),
    ],
)
def test_find_malformed_entry_refused_without_its_value(members, where):
    with pytest.raises(FormatError) as caught:
        file_of(**members).find("a.io", "x")
    assert where in str(caught.value)
    assert "secret!" not in str(caught.value)


def test_a_malformed_entry_of_another_registry_does_not_matter():
    file = file_of(auths={"a.io": {"auth": "?"}, "b.io": packed("b:1")})
    assert shown(file.find("b.io", "x")) == "b:1"


def test_with_and_without_login_keep_the_rest():
    file = file_of(auths={"a.io": packed("a:1")}, HttpHeaders={"X": "y"})
    raw = file.with_login("b.io", Credentials("b", "2"))
    changed = parse_auth_file(raw, what="x")
    assert shown(changed.find("b.io", "x")) == "b:2"
    left = parse_auth_file(changed.without_login("a.io"), what="x")
    assert left.find("a.io", "x") is None
    assert left.document.value["HttpHeaders"] == {"X": "y"}
    assert left.without_login("a.io") is None


def test_keys_and_empty_files():
    assert keys_of("h", "a/b") == ["h/a/b", "h/a", "h"]
    for raw in (None, b"", b"\n"):
        assert parse_auth_file(raw, what="x").find("a.io", "x") is None
    with pytest.raises(FormatError):
        parse_auth_file(b"[]", what="x")


def test_find_registry_token_and_plain_members():
    file = file_of(
        auths={
            "a.io": {"registrytoken": "T0ken"},
            "b.io": {"username": "b", "password": "2"},
            "c.io": {"username": "x", "password": "y", **packed("c:3")},
            "d.io": {"identitytoken": "I", "registrytoken": "R", **packed("d:4")},
            "e.io": {"username": "e"},
        }
    )
    assert isinstance(file.find("a.io", "x"), RegistryToken)
    assert file.find("a.io", "x").authorization() == "Bearer T0ken"
    assert "T0ken" not in repr(file.find("a.io", "x"))
    assert shown(file.find("b.io", "x")) == "b:2"
    assert shown(file.find("c.io", "x")) == "c:3"
    assert isinstance(file.find("d.io", "x"), IdentityToken)
    assert file.find("e.io", "x") is None


def test_registry_token_that_would_split_a_header_refused():
    for token in ("a b", "a\r\nX: y", ""):
        with pytest.raises(UsageError, match="visible ASCII") as caught:
            RegistryToken(token)
        assert "X" not in str(caught.value)


OLD = {
    "https://index.docker.io/v1/": {**packed("hub:1"), "email": "x@y"},
    "reg.io": packed("reg:2"),
    "old.io/v1/": packed("old:3"),
    "reg.io/team": packed("team:4"),
}


@pytest.mark.parametrize(
    ("registry", "repository", "login"),
    [
        ("docker.io", "library/x", "hub:1"),
        ("reg.io", "team", "reg:2"),
        ("old.io", "x", "old:3"),
        ("other.io", "x", None),
    ],
)
def test_find_in_the_old_form_by_host_only(registry, repository, login):
    file = parse_auth_file(json.dumps(OLD).encode(), what="x", is_legacy=True)
    assert shown(file.find(registry, repository)) == login


def test_without_login_of_the_old_form_keeps_the_form():
    file = parse_auth_file(json.dumps(OLD).encode(), what="x", is_legacy=True)
    left = json.loads(file.without_login("reg.io"))
    assert sorted(left) == ["https://index.docker.io/v1/", "old.io/v1/", "reg.io/team"]


def test_find_a_host_in_any_spelling():
    found = file_of(
        auths={
            "Reg.IO/team": packed("team:1"),
            "REG.io": packed("host:2"),
            "reg.io": packed("usual:3"),
            "https://OLD.io:5000/v2/": packed("old:4"),
        },
        credHelpers={"Kept.io": "pass"},
    )
    assert shown(found.find("reg.io", "team/app")) == "team:1"
    assert shown(found.find("reg.io", "other")) == "usual:3"
    assert shown(found.find("old.io:5000", "x")) == "old:4"
    assert found.find("kept.io", "x") == HelperName("pass", "kept.io")
    assert b"REG.io" not in found.without_login("reg.io")


def test_find_base64_with_line_breaks():
    wrapped = base64.b64encode(b"me:" + b"x" * 90).decode()
    wrapped = "\n".join(wrapped[at : at + 76] for at in range(0, len(wrapped), 76)) + "\n"
    assert (
        shown(file_of(auths={"reg.io": {"auth": wrapped}}).find("reg.io", "a")) == "me:" + "x" * 90
    )


@pytest.mark.parametrize(
    "members",
    [
        {"auths": None},
        {"auths": {"r.io": None}},
        {"auths": {"https://r.io/v2/": None}},
        {"auths": {"r.io": {}}, "credHelpers": None, "credsStore": None, "HttpHeaders": None},
        {"auths": {"r.io": {"auth": None, "identitytoken": None}}, "credHelpers": {"r.io": None}},
    ],
)
def test_find_what_go_leaves_empty_is_no_login(members):
    assert file_of(**members).find("r.io", "app") is None


def test_file_that_leaves_logins_to_programs_says_so():
    assert file_of(credsStore="x").names_helpers
    assert file_of(credHelpers={"a.io": "x"}, auths={"b.io": packed("u:p")}).names_helpers
    for plain in (file_of(auths=AUTHS), file_of(credHelpers={}, credsStore=""), file_of()):
        assert not plain.names_helpers
    with pytest.raises(FormatError):
        assert file_of(credHelpers=[]).names_helpers


def test_file_is_shown_by_its_name_alone():
    assert str(file_of(auths=AUTHS)) == "auth.json"
    assert "host" not in repr(file_of(auths=AUTHS))
