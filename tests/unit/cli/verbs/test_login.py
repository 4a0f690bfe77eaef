# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from click.testing import CliRunner

from imagers.cli.main import root
from imagers.cli.verbs.login import parse_login_name
from imagers.errors import Unauthorized, UsageError
from imagers.testing.registry import EmbeddedRegistry


@pytest.fixture(params=[False, True], ids=["basic", "token"])
def registry(request):
    with EmbeddedRegistry(username="me", password="s3cret", token_auth=request.param) as one:
        yield one


def run(*words, **options):
    return CliRunner().invoke(root, list(words), catch_exceptions=True, **options)


def test_login_then_use_then_logout(registry, tmp_path, monkeypatch):
    auth = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    words = ["login", "--username", "me", "--password-stdin", registry.address]
    result = run(*words, input="s3cret\n")
    assert result.exit_code == 0, result.exception
    assert f"logged in to {registry.address} as me" in result.output
    assert "s3cret" not in result.output
    assert list(json.loads(auth.read_text())["auths"]) == [registry.address]
    # A repository that is not there: the login was taken, or it would say 401.
    found = run("inspect", f"docker://{registry.address}/app:v1")
    assert "no such image" in str(found.exception)
    assert run("logout", registry.address).exit_code == 0
    assert isinstance(run("inspect", f"docker://{registry.address}/app").exception, Unauthorized)
    assert isinstance(run("logout", registry.address).exception, UsageError)


def test_login_with_a_wrong_password_keeps_nothing(registry, tmp_path):
    password = tmp_path / "password"
    password.write_text("wrong\n")
    auth = tmp_path / "auth.json"
    words = ["--authfile", str(auth), "--password-file", str(password), registry.address]
    result = run("login", "--username", "me", *words)
    assert isinstance(result.exception, Unauthorized)
    assert result.exception.hint == "check the user's name and the password"
    assert not auth.exists()


def test_login_without_a_password_asks_for_a_safe_way(registry):
    result = run("login", "--username", "me", registry.address)
    assert isinstance(result.exception, UsageError)
    assert "--password-stdin" in str(result.exception)
    assert isinstance(run("login", registry.address).exception, UsageError)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("reg.io", ("reg.io", "")),
        ("https://reg.io/", ("reg.io", "")),
        ("localhost:5000/team/app", ("localhost:5000", "team/app")),
        ("index.docker.io", ("docker.io", "")),
    ],
)
def test_parse_login_name(text, expected):
    assert parse_login_name(text) == expected


@pytest.mark.parametrize("text", ["", "reg", "-x", "reg.io/UP", "user:pw@reg.io"])
def test_parse_login_name_refused(text):
    with pytest.raises(UsageError):
        parse_login_name(text)


HELPER = """#!/bin/sh
file="$(dirname "$0")/kept"
case "$1" in
get) if [ -e "$file" ]; then cat "$file"; else echo 'credentials not found in native keychain'
     exit 1; fi;;
store) cat > "$file";;
erase) cat > /dev/null; rm "$file";;
esac
"""


def test_login_goes_where_registries_conf_has_logins_kept(tmp_path, monkeypatch):
    program = tmp_path / "docker-credential-mine"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    conf = tmp_path / "registries.conf"
    conf.write_text('credential-helpers = ["mine", "containers-auth.json"]\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    auth = tmp_path / "auth.json"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    with EmbeddedRegistry(username="me", password="s3cret") as registry:
        words = ["login", "--username", "me", "--password-stdin", registry.address]
        result = run(*words, input="s3cret\n")
        assert result.exit_code == 0, result.exception
        assert "kept in docker-credential-mine" in result.output
        assert not auth.exists()
        found = run("inspect", f"docker://{registry.address}/app:v1")
        assert "no such image" in str(found.exception)
        # A file that is named gets it, whatever registries.conf says.
        assert run(*words, "--authfile", str(auth), input="s3cret\n").exit_code == 0
        assert registry.address in auth.read_text()
        result = run("logout", registry.address)
        assert "docker-credential-mine" in result.output
        assert str(auth) in result.output
        assert isinstance(run("logout", registry.address).exception, UsageError)
