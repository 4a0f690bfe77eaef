# SPDX-License-Identifier: Apache-2.0
"""Logins in files and in helpers, which are small programs here."""

import json
import os
import stat

import pytest

from imagers.errors import FormatError, LocalError, PluginBroken, PluginNotFound, UsageError
from imagers.registry.auth_files import HelperName, parse_auth_file
from imagers.registry.credentials import Credentials, IdentityToken
from imagers.registry.helpers import ask_helper
from imagers.registry.logins import find_login, forget_login, keep_login

HELPER = """#!/bin/sh
file="$(dirname "$0")/kept"
case "$1" in
get) server=$(cat)
  case "$server" in
    token.io) echo '{"ServerURL":"","Username":"<token>","Secret":"idt"}';;
    bad.io) echo 'no json';;
    fail.io) echo 'locked'; exit 1;;
    *) if [ -e "$file" ]; then cat "$file"; else
         echo 'credentials not found in native keychain'; exit 1; fi;;
  esac;;
store) cat > "$file";;
erase) cat > /dev/null; rm "$file";;
esac
"""


@pytest.fixture
def helper(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "docker-credential-mine"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "auth.json"


def test_login_kept_is_found_and_private(path):
    where = keep_login(path, "reg.io", Credentials("me", "secret"))
    assert where == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["auth.json"]
    found = find_login([path], "reg.io", "app")
    assert found.authorization() == Credentials("me", "secret").authorization()
    assert find_login([path], "other.io", "app") is None
    assert forget_login([path], "reg.io") == [str(path)]
    assert forget_login([path], "reg.io") == []


def test_login_of_the_first_file_wins(tmp_path):
    files = [tmp_path / name for name in ("none", "a", "b")]
    keep_login(files[1], "reg.io/team", Credentials("a", "1"))
    keep_login(files[2], "reg.io", Credentials("b", "2"))
    assert find_login(files, "reg.io", "team/x").username == "a"
    assert find_login(files, "reg.io", "other").username == "b"


@pytest.mark.usefixtures("helper")
def test_login_through_a_helper(path):
    path.parent.mkdir()
    path.write_text(json.dumps({"credsStore": "mine"}))
    assert find_login([path], "reg.io", "app") is None
    assert keep_login(path, "reg.io", Credentials("me", "s3")) == "docker-credential-mine"
    assert "s3" not in path.read_text()
    assert find_login([path], "reg.io", "app").username == "me"
    assert isinstance(find_login([path], "token.io", "app"), IdentityToken)
    assert forget_login([path], "reg.io") == ["docker-credential-mine"]
    assert find_login([path], "reg.io", "app") is None


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize("server", ["bad.io", "fail.io"])
def test_helper_that_breaks_is_not_no_login(server):
    with pytest.raises(PluginBroken, match="docker-credential-mine"):
        ask_helper(HelperName("mine", server))


def test_helper_that_is_missing_is_not_no_login(path):
    path.parent.mkdir()
    path.write_text(json.dumps({"credHelpers": {"reg.io": "missing"}}))
    with pytest.raises(PluginNotFound, match="docker-credential-missing") as caught:
        find_login([path], "reg.io", "app")
    assert "--creds" in caught.value.hint


def test_file_that_cannot_be_read_is_not_no_login(tmp_path):
    (tmp_path / "auth.json").mkdir()
    with pytest.raises(LocalError, match="could not be read"):
        find_login([tmp_path / "auth.json"], "reg.io", "app")
    (tmp_path / "broken").write_text("{")
    with pytest.raises(FormatError, match="broken"):
        find_login([tmp_path / "broken"], "reg.io", "app")


def test_login_of_the_old_file_is_the_last_one(tmp_path):
    new, old = tmp_path / "config.json", tmp_path / ".dockercfg"
    old.write_text(json.dumps({"reg.io": {"auth": "b2xkOjE="}, "new.io": {"auth": "b2xkOjE="}}))
    keep_login(new, "new.io", Credentials("new", "2"))
    assert find_login([new, old], "reg.io", "team/app").username == "old"
    assert find_login([new, old], "new.io", "app").username == "new"
    assert forget_login([new, old], "reg.io") == [str(old)]
    assert list(json.loads(old.read_text())) == ["new.io"]
    with pytest.raises(UsageError, match="old form") as caught:
        keep_login(old, "reg.io", Credentials("me", "x"))
    assert "config.json" in caught.value.hint


@pytest.mark.usefixtures("helper")
def test_login_by_the_helpers_of_registries_conf(path):
    helpers = ("mine", "containers-auth.json")
    assert find_login([path], "reg.io", "app", helpers=helpers) is None
    keep_login(path, "reg.io", Credentials("file", "1"))
    assert find_login([path], "reg.io", "app", helpers=helpers).username == "file"
    assert keep_login(path, "reg.io", Credentials("kept", "2"), helpers=helpers) == (
        "docker-credential-mine"
    )
    assert find_login([path], "reg.io", "app", helpers=helpers).username == "kept"
    assert find_login([path], "reg.io", "app", helpers=helpers[1:]).username == "file"
    assert find_login([path], "reg.io", "app", helpers=helpers[:1]).username == "kept"
    with pytest.raises(UsageError, match="knows hosts only"):
        keep_login(path, "reg.io/team", Credentials("me", "x"), helpers=helpers)
    dropped = forget_login([path], "reg.io", helpers=helpers)
    assert dropped == ["docker-credential-mine", str(path)]


@pytest.mark.usefixtures("helper")
def test_helper_of_registries_conf_that_breaks_is_not_no_login(path):
    with pytest.raises(PluginBroken):
        find_login([path], "fail.io", "app", helpers=("mine", "containers-auth.json"))


def test_login_goes_through_a_link_of_ones_own(tmp_path):
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / "auth.json").symlink_to(tmp_path / "dotfiles" / "auth.json")
    keep_login(tmp_path / "auth.json", "r.example", Credentials("user", "password"))
    assert (tmp_path / "auth.json").is_symlink()
    assert "r.example" in json.loads((tmp_path / "dotfiles" / "auth.json").read_text())["auths"]


def test_login_through_a_link_of_somebody_else_is_refused(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("to give a link away needs root")
    (tmp_path / "precious").write_text("{}")
    (tmp_path / "auth.json").symlink_to(tmp_path / "precious")
    os.lchown(tmp_path / "auth.json", 65534, 65534)
    with pytest.raises(LocalError, match="symbolic link of user 65534"):
        keep_login(tmp_path / "auth.json", "r.example", Credentials("user", "password"))
    assert (tmp_path / "precious").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["auth.json", "precious"]


def test_file_that_was_read_elsewhere_is_asked_in_its_turn(tmp_path):
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"a.io": {"registrytoken": "t"}}}))
    raw = json.dumps({"auths": {"b.io/team": {"identitytoken": "i"}}}).encode()
    files = (parse_auth_file(raw, what="kbs:///a/b/c"), tmp_path / "auth.json")
    assert isinstance(find_login(files, "b.io", "team/app"), IdentityToken)
    assert find_login(files, "b.io", "other/app") is None
    assert find_login(files, "a.io", "team/app") is not None
