import os
from pathlib import Path

import pytest

from imagers.cli import settings as settings_module
from imagers.settings import hide_secrets, read_settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/user")


def test_read_settings_of_a_bare_environment():
    settings = read_settings()
    assert settings.policy_paths == (
        Path("/home/user/.config/containers/policy.json"),
        Path("/etc/containers/policy.json"),
    )
    assert settings.broker_state == Path("/home/user/.local/state/imagers/broker")
    assert settings.broker_admin_key == settings.broker_state / "admin.key"
    assert settings.spool is None


def test_read_settings_follows_the_xdg_variables(monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setenv("TMPDIR", "/spool")
    settings = read_settings()
    assert settings.policy_paths[0] == Path("/config/containers/policy.json")
    assert settings.broker_state == Path("/state/imagers/broker")
    assert settings.spool == Path("/spool")


def test_read_settings_without_a_home_finds_no_policy_of_a_user(monkeypatch):
    monkeypatch.delenv("HOME")
    assert not read_settings().policy_paths[0].exists()


def test_read_settings_takes_empty_variables_as_unset(monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, "")
    settings = read_settings()
    assert settings.policy_paths[0] == Path("/home/user/.config/containers/policy.json")
    assert settings.spool is None


def test_read_settings_auth_files_in_the_order_of_the_manual_page(monkeypatch):
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/me")
    found = ["containers/auth.json", ".config/containers/auth.json", ".docker/config.json"]
    assert read_settings().auth_files == (
        Path("/run/me") / found[0],
        Path("/home/user") / found[1],
        Path("/home/user") / found[2],
        Path("/home/user/.dockercfg"),
    )
    monkeypatch.setenv("DOCKER_CONFIG", "/docker")
    assert read_settings().auth_files[2:] == (
        Path("/docker/config.json"),
        Path("/home/user/.dockercfg"),
    )
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/one")
    assert read_settings().auth_files == (Path("/one"),)


@pytest.mark.parametrize("password", ["horse", ""])
def test_passphrase_is_kept_and_no_program_that_is_started_gets_it(monkeypatch, password):
    monkeypatch.setattr(settings_module, "_hidden", {})
    monkeypatch.setenv("COSIGN_PASSWORD", password)
    assert read_settings().cosign_password == password
    hide_secrets()
    hide_secrets()
    assert "COSIGN_PASSWORD" not in os.environ
    assert read_settings().cosign_password == password
    assert "horse" not in repr(read_settings())
