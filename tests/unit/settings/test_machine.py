# SPDX-License-Identifier: Apache-2.0
import os
from dataclasses import replace
from pathlib import Path

import pytest

from imagers.errors import CouldNotVerify, FormatError, LocalError, PolicyDenied, UsageError
from imagers.model.identity import docker_identity
from imagers.model.keys import SecretKey
from imagers.model.origin import Origin
from imagers.model.reference import parse_reference
from imagers.settings import GuestConfig, hide_secrets, machine, read_settings
from imagers.settings.documents import Document
from imagers.settings.guest import Said


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


def test_read_settings_has_the_broker_that_the_variables_name(monkeypatch):
    assert (read_settings().broker_url, read_settings().broker_ca) == (None, None)
    own = read_settings().broker_admin_key
    assert own == read_settings().broker_state / "admin.key"
    for name, value in (("", "https://h.example"), ("_CA", "ca.pem"), ("_ADMIN_KEY", "a.key")):
        monkeypatch.setenv(f"IMAGERS_BROKER{name}", value)
    user = read_settings()
    assert (user.broker_url, user.broker_ca) == ("https://h.example", "ca.pem")
    assert user.broker_admin_key == Path("a.key")
    monkeypatch.setenv("IMAGERS_BROKER_ADMIN_KEY", "")
    assert read_settings().broker_admin_key == own


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
    monkeypatch.setattr(machine, "_hidden", {})
    monkeypatch.setenv("COSIGN_PASSWORD", password)
    assert read_settings().cosign_password == password
    hide_secrets()
    hide_secrets()
    assert "COSIGN_PASSWORD" not in os.environ
    assert read_settings().cosign_password == password
    assert "horse" not in repr(read_settings())


def test_lookasides_are_those_of_the_user_else_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user = replace(read_settings(), registries_d_paths=(tmp_path / "registries.d",))
    assert user.lookasides().default.endswith("/containers/sigstore")
    (tmp_path / "registries.d").mkdir()
    (tmp_path / "registries.d" / "a.yaml").write_text("default-docker: {lookaside: 'file:///u'}")
    (tmp_path / "registries.d" / "ignored.txt").write_text("{")
    assert user.lookasides().config.for_repository("r.example.org/app").lookaside == "file:///u"
    with pytest.raises(LocalError):
        user.lookasides(str(tmp_path / "none"))
    (tmp_path / "registries.d" / "c.yaml").write_text("{")
    with pytest.raises(FormatError, match=r"c\.yaml"):
        user.lookasides()


def test_load_policy_takes_the_first_there_is_and_none_is_an_error(tmp_path):
    user = replace(read_settings(), policy_paths=(tmp_path / "a.json", tmp_path / "b.json"))
    assert user.find_policy() is None
    with pytest.raises(LocalError, match="no policy"):
        user.load_policy()
    (tmp_path / "b.json").write_text('{"default":[{"type":"reject"}]}')
    assert user.locate_policy() == str(tmp_path / "b.json")
    assert user.load_policy().default[0].where == "$.default[0]"


ACCEPT = '[{"type":"insecureAcceptAnything"}]'
REJECT = '[{"type":"reject"}]'
TAGGED = docker_identity(parse_reference("r.example/app:v1"))
PINNED = docker_identity(parse_reference("r.example/app@sha256:" + "0" * 64))


@pytest.fixture
def user(tmp_path):
    """A user with one place for a policy, and a function that writes it."""

    def write(default, scopes="{}"):
        text = f'{{"default":{default},"transports":{{"docker":{scopes}}}}}'
        (tmp_path / "a.json").write_text(text)
        return replace(read_settings(), policy_paths=(tmp_path / "a.json",))

    return write


@pytest.mark.parametrize("scopes", ["{}", f'{{"":{ACCEPT}}}', f'{{"r.example/other":{REJECT}}}'])
def test_policy_that_accepts_everything_by_default_is_nobodys_word(user, tmp_path, scopes):
    settings = user(ACCEPT, scopes)
    with pytest.raises(CouldNotVerify, match="nobody has looked at") as caught:
        settings.policy_for(TAGGED)
    assert f"--policy {tmp_path}/a.json" in caught.value.hint
    assert settings.policy_for(PINNED).select(PINNED).is_unsaid
    assert settings.policy_for(TAGGED, str(tmp_path / "a.json")).select(TAGGED).is_unsaid


@pytest.mark.parametrize(
    ("default", "scopes"),
    [
        (REJECT, "{}"),
        (ACCEPT, f'{{"r.example":{ACCEPT}}}'),
        (ACCEPT, f'{{"":{REJECT}}}'),
        (REJECT, f'{{"r.example/app":{ACCEPT}}}'),
        ('[{"type":"insecureAcceptAnything"},{"type":"reject"}]', "{}"),
    ],
)
def test_policy_that_says_something_of_the_image_is_in_force(user, default, scopes):
    settings = user(default, scopes)
    assert settings.policy_for(TAGGED) == settings.load_policy()
    assert settings.policy_for(PINNED) == settings.load_policy()


def test_name_with_a_digest_needs_no_policy_and_another_one_does(tmp_path):
    settings = replace(read_settings(), policy_paths=(tmp_path / "none.json",))
    assert settings.policy_for(PINNED).select(PINNED).is_unsaid
    with pytest.raises(LocalError, match="no policy is in force"):
        settings.policy_for(TAGGED)
    with pytest.raises(LocalError):
        settings.policy_for(PINNED, str(tmp_path / "none.json"))
    (tmp_path / "none.json").write_text("{")
    with pytest.raises(FormatError):
        settings.policy_for(PINNED)


def test_transport_options_are_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    (tmp_path / "registries.conf").write_text('[[registry]]\nlocation="a.io"\nblocked=true\n')
    user = read_settings()
    options = user.transport_options()
    assert options.auth_files == user.auth_files
    assert options.proxies.https is not None
    with pytest.raises(PolicyDenied):
        options.registries.endpoints(parse_reference("a.io/x"))
    (tmp_path / "registries.conf").write_bytes(b"\xff")
    with pytest.raises(LocalError, match="no UTF-8"):
        user.transport_options()
    # What is wrong there must keep nobody from a directory of his own.
    assert user.transport_options(is_remote=False).proxies.https is None


GUEST = GuestConfig(
    policy=Document("policy of c.json", "image_security_policy", Origin.FILE, '{"default": 1}'),
    logins=Document("kbs:///a/b/logins", "key"),
    registries=Document("kbs:///a/b/registries", "key"),
    sigstore=Document("kbs:///a/b/sigstore", "key"),
    roots=("PEM",),
    https_proxy="http://file:1",
    broker=Said("https://file", "kbs_uri", Origin.FILE),
)


class Broker:
    """A `ResourceStore` with three documents, which says what it was asked for."""

    def __init__(self):
        self.asked = []

    def get(self, uri, *, manifest_digest):
        assert manifest_digest is None  # there is no image yet
        self.asked.append(uri)
        documents = {
            "logins": b'{"auths": {"a.example": {"username": "u", "password": "p"}}}',
            "registries": b'[[registry]]\nlocation = "a.example"\n',
            "sigstore": b"docker: {a.example: {sigstore: 'file:///s'}}",
        }
        return SecretKey(documents[uri.rpartition("/")[2]])


@pytest.fixture
def _no_variables(monkeypatch):
    for name in ("REGISTRY_AUTH_FILE", "CONTAINERS_REGISTRIES_CONF", "AA_KBC_PARAMS", "KBS_CERT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_variables")
def test_documents_of_a_guest_are_read_from_its_broker_when_they_are_needed():
    user, broker = read_settings(GUEST), Broker()
    assert user.transport_options(is_remote=False, resources=broker).more_cas == ()
    assert broker.asked == []
    options = user.transport_options(resources=broker)
    assert [str(one) for one in options.auth_files] == ["kbs:///a/b/logins"]
    assert options.registries.credential_helpers == ("containers-auth.json",)
    assert options.registries.rules[0].prefix == "a.example"
    assert (options.more_cas, options.proxies.https.url) == (("PEM",), "http://file:1")
    scope = user.lookasides(resources=broker).config.for_repository("a.example/app")
    assert scope.lookaside == "file:///s"
    assert len(broker.asked) == 3
    with pytest.raises(UsageError, match="is at a broker, and none is named"):
        user.transport_options()


@pytest.mark.usefixtures("_no_variables")
def test_what_is_named_for_a_call_wins_over_a_guests_configuration(tmp_path):
    user = read_settings(GUEST)
    for name in ("auth.json", "r.toml"):
        (tmp_path / name).write_text("")
    options = user.transport_options(
        image_rs_registries=f"file://{tmp_path}/r.toml", logins=f"{tmp_path}/auth.json"
    )
    assert options.auth_files == (tmp_path / "auth.json",)
    assert options.registries.rules == ()
    (tmp_path / "d").mkdir()
    assert user.lookasides(f"file://{tmp_path}/d").config.scopes == {}
    assert user.find_policy("/other.json") == "/other.json"
    assert user.find_policy() == user.locate_policy() == "policy of c.json"
    with pytest.raises(FormatError, match=r"policy of c\.json' at \$\.default"):
        user.load_policy()


@pytest.mark.usefixtures("_no_variables")
def test_variables_of_guests_count_in_guests_only(monkeypatch):
    monkeypatch.setenv("AA_KBC_PARAMS", "cc_kbc::https://variable")
    monkeypatch.setenv("KBS_CERT", "PEM")
    name = "CDH_DEFAULT_IMAGE_AUTHENTICATED_REGISTRY_CREDENTIALS"
    monkeypatch.setenv(name, "/auth.json")
    user = read_settings()
    assert (user.guest, user.guest_broker) == (GuestConfig(), None)
    user = read_settings(GUEST)
    assert user.guest_broker == Said("https://variable", "AA_KBC_PARAMS", Origin.CALLER)
    assert user.guest.broker_ca == Said("PEM", "KBS_CERT", Origin.CALLER)
    assert user.guest.logins == Document("/auth.json", name)
    monkeypatch.delenv("AA_KBC_PARAMS")
    assert read_settings(GUEST).guest_broker == GUEST.broker
