# SPDX-License-Identifier: Apache-2.0
"""Each row of the tables in docs/guest.md, section "Configuration", as a pull shows it."""

import json
import os
import re
import shutil
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trustme

from imagers.cli.guests import budget_of
from imagers.core import Budget
from imagers.files import is_shared_with_host
from imagers.model.digest import digest_of
from imagers.settings import load_guest_config, read_settings
from imagers.testing import EmbeddedBroker, EmbeddedRegistry
from tests.ports import free_port

PAGE = Path(__file__).resolve().parents[3] / "docs" / "guest.md"
ACCEPT = json.dumps({"default": [{"type": "insecureAcceptAnything"}], "transports": {}})
REJECT = json.dumps({"default": [{"type": "reject"}], "transports": {}})
SETTINGS = "kbs:///default/settings/"
FOR_SETTINGS = json.dumps(
    {
        "rules": [
            {"name": "s", "effect": "allow", "resource": "default/settings/*", "image": "any"},
        ]
    }
)
ANYWAY = "--insecure-unmeasured-settings"  # which else refuses what the host writes
VARIABLES = ("AA_KBC_PARAMS", "KBS_CERT", "CONTAINERS_REGISTRIES_CONF")
TESTED = set()


def row(*names):
    """A test of the row of the page that has these names in its first cell."""
    TESTED.update(names)
    return lambda test: test


def rows():
    """The names in the first cells of the tables of the section."""
    text = PAGE.read_text().partition("\n## Configuration\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(.*?)`", cell)]


def test_every_row_of_the_page_has_a_test_and_every_test_a_row():
    assert sorted(rows()) == sorted(TESTED)
    assert len(TESTED) > 40


@dataclass
class Guest:
    """A directory with a configuration, and an image in a registry to pull."""

    run: object
    registry: EmbeddedRegistry
    broker: EmbeddedBroker

    @property
    def name(self):
        return f"{self.registry.address}/team/app:v1"

    def config(self, document, name="c.json"):
        Path(name).write_text(document if isinstance(document, str) else json.dumps(document))
        return ("--config", name)

    def kernel(self, words):
        Path("cmdline").write_text(f"BOOT_IMAGE=/vmlinuz ro {words} quiet\n")
        return ("--kernel-command-line", "cmdline")

    def pull(self, *words, name=None):
        """How a pull ends; it leaves a bundle, or nothing."""
        before = set(os.listdir())
        outcome = self.run("pull", name or self.name, "bundle", "--tee", "sample", *words)
        new = set(os.listdir()) - before
        assert new == ({"bundle"} if outcome.code == 0 else set())
        if new:
            shutil.rmtree("bundle")
        return outcome

    def with_policy(self, document=None):
        """The words of a configuration, with a policy that takes every image."""
        return self.config({"image_security_policy": ACCEPT} | (document or {}))

    def put(self, name, text):
        """A settings document at the broker; its place."""
        self.broker.put(f"{SETTINGS}{name}", text.encode())
        return f"{SETTINGS}{name}"

    def user(self, document):
        """The settings that a configuration makes."""
        self.config(document)
        return read_settings(load_guest_config("c.json"))


def auth_file(*hosts):
    entry = {"username": "guest", "password": "correct-horse"}
    return json.dumps({"auths": dict.fromkeys(hosts, entry)})


def mirrored(address):
    return {"registry": [{"prefix": "r.example", "location": address, "insecure": True}]}


def mirrored_toml(address):
    return f'[[registry]]\nprefix = "r.example"\nlocation = "{address}"\ninsecure = true\n'


@pytest.fixture
def guest(run, plain, imagers_broker, monkeypatch):
    """A registry without logins."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    imagers_broker.admin.set_policy(FOR_SETTINGS)
    monkeypatch.setenv("IMAGERS_BROKER", imagers_broker.url)
    with EmbeddedRegistry() as registry:
        assert run("copy", plain, f"docker://{registry.address}/team/app:v1").code == 0
        registry.requests.clear()
        yield Guest(run, registry, imagers_broker)


@pytest.fixture
def private(guest):
    """The same, with a registry that wants a login."""
    guest.registry.username, guest.registry.password = "guest", "correct-horse"
    return guest


# Keys of the file.


@row("work_dir")
def test_work_dir_is_where_layers_are_kept(guest, monkeypatch):
    monkeypatch.delenv("IMAGERS_STORE")
    work = Path.cwd().parent / "work"
    words = guest.config({"work_dir": str(work), "image_security_policy": ACCEPT})
    assert guest.pull(*words).code == 0
    assert {path.name[:12] for path in (work / "imagers").iterdir()} == {"blob-sha256-"}


@row("store_place")
def test_store_place_is_as_its_option_and_not_the_hosts_to_say(guest, monkeypatch):
    document = {"store_place": "private", "image_security_policy": ACCEPT}
    words = guest.config(document)
    assert guest.pull(*words, "--snapshotter", "plain").code == 0
    store = Path(os.environ["IMAGERS_STORE"])
    assert {path.name[:13] for path in store.iterdir()} == {"plain-sha256-"}
    shared = guest.pull(*words, "--store-place", "shared", "--snapshotter", "plain")
    assert (shared.code, "--store-place private" in shared.err) == (2, True)
    wrong = guest.pull(*guest.config({"store_place": "mine"}))
    assert wrong.code == 11
    assert "$.store_place: expected 'shared' or 'private', got 'mine'" in wrong.err
    monkeypatch.setattr("imagers.settings.guest.is_shared_with_host", lambda _: True)
    Path("accept.json").write_text(ACCEPT)
    refused = guest.pull(*guest.config(document), "--policy", "accept.json")
    assert refused.code == 21
    assert "where unpacked layers are kept comes from a file system that the host" in refused.err


@row("image_security_policy_uri", "PATH", "file:///PATH")
def test_policy_at_a_place_decides(guest):
    Path("p.json").write_text(REJECT)
    words = guest.config(
        {
            "image_security_policy_uri": f"file://{Path.cwd()}/p.json",
            "image_security_policy": ACCEPT,
        }
    )
    assert guest.pull(*words).code == 21
    Path("accept.json").write_text(ACCEPT)
    assert guest.pull(*words, "--policy", "accept.json").code == 0
    words = guest.config({"image_security_policy_uri": "accept.json"})
    assert guest.pull(*words, "--json").json()["policy"] == "accept.json"


@row("image_security_policy")
def test_policy_in_the_file_decides(guest):
    assert guest.pull(*guest.config({"image_security_policy": REJECT})).code == 21
    done = guest.pull(*guest.config({"image_security_policy": ACCEPT}))
    assert done.code == 0
    assert "policy: image_security_policy of c.json at $.default" in done.out


def test_policy_in_the_file_is_read_as_strictly_as_one_in_a_file(guest):
    outcome = guest.pull(*guest.config({"image_security_policy": '{"default": []}'}))
    assert outcome.code == 11
    assert "policy 'image_security_policy of c.json' at $.default: expected at least" in outcome.err


def signed_by(keys):
    rule = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(keys / "alice.pub.gpg")}
    return json.dumps({"default": [rule]})


@row("sigstore_config_uri")
def test_sigstore_configuration_at_a_place_says_where_signatures_are(guest, keys):
    where = f"file://{Path.cwd()}/s.yaml"  # where none can be looked for
    Path("s.yaml").write_text(f"default-docker:\n  sigstore: {where}\n")
    document = {"image_security_policy": signed_by(keys), "sigstore_config": "docker: {}"}
    words = guest.config(document | {"sigstore_config_uri": "s.yaml"})
    outcome = guest.pull(*words)
    assert outcome.code == 22
    assert f"{where.removeprefix('file://')}/team/app@sha256=" in outcome.err


@row("sigstore_config")
def test_sigstore_configuration_in_the_file_says_where_signatures_are(guest, keys):
    where = f"file://{Path.cwd()}/c.json"  # where none can be looked for
    text = f"docker:\n  {guest.registry.address}/team:\n    lookaside: {where}\n"
    words = guest.config({"image_security_policy": signed_by(keys), "sigstore_config": text})
    outcome = guest.pull(*words)
    assert outcome.code == 22
    assert f"{where.removeprefix('file://')}/team/app@sha256=" in outcome.err
    wrong = {"image_security_policy": signed_by(keys), "sigstore_config": "docker: {x: {a: b}}"}
    outcome = guest.pull(*guest.config(wrong))
    assert outcome.code == 11
    assert "sigstore_config of c.json" in outcome.err


@row("authenticated_registry_credentials_uri")
def test_logins_at_a_place_are_the_only_ones(private):
    Path("auth.json").write_text(auth_file(private.registry.address))
    words = private.with_policy({"authenticated_registry_credentials_uri": "auth.json"})
    assert private.pull(*words).code == 0
    Path("none.json").write_text(auth_file("other.example"))
    assert private.pull(*words, "--authfile", "none.json").code == 10
    words = private.with_policy({"authenticated_registry_credentials_uri": "missing.json"})
    outcome = private.pull(*words)
    assert outcome.code == 13
    assert "missing.json: no such file" in outcome.err


@row("anonymous_fallback_on_unauthorized")
def test_pull_without_the_login_that_was_refused_is_not_done(guest):
    outcome = guest.pull(*guest.with_policy({"anonymous_fallback_on_unauthorized": True}))
    assert outcome.code == 12
    assert "anonymous_fallback_on_unauthorized" in outcome.err


@row("registry_configuration_uri")
def test_registries_at_a_place_count(guest):
    Path("r.toml").write_text(mirrored_toml(guest.registry.address))
    words = guest.with_policy({"registry_configuration_uri": "r.toml"})
    assert guest.pull(*words, name="r.example/team/app:v1").code == 0
    Path("r.toml").write_text('[[registry]]\nprefix = "r.example"\nblokked = true\n')
    outcome = guest.pull(*words, name="r.example/team/app:v1")
    assert outcome.code == 11
    assert "blokked" in outcome.err


@row("registry_config")
def test_registries_in_the_file_win_over_a_place(guest):
    document = {
        "registry_config": mirrored(guest.registry.address),
        "registry_configuration_uri": "missing.toml",
    }
    assert guest.pull(*guest.with_policy(document), name="r.example/team/app:v1").code == 0
    outcome = guest.pull(
        *guest.with_policy({"registry_config": {"registry": [{"blokked": True}]}}),
        name="r.example/team/app:v1",
    )
    assert outcome.code == 11
    assert "c.json at $.registry_config.registry[0]" in outcome.err


@row("max_concurrent_layer_downloads_per_image")
def test_downloads_of_the_file_are_those_of_the_pull_unless_an_option_says_more(guest):
    user = guest.user({"max_concurrent_layer_downloads_per_image": 2})
    assert budget_of(Budget(), user) == Budget(jobs=2)
    assert budget_of(Budget(jobs=5), user) == Budget(jobs=5)
    assert budget_of(Budget(), guest.user({})) == Budget()


def proxied(guest):
    proxy = f"127.0.0.1:{free_port()}"
    return proxy, guest.with_policy({"image_pull_proxy": {"https_proxy": f"http://{proxy}"}})


@row("image_pull_proxy")
def test_proxy_of_the_file_is_used_for_other_machines(guest):
    proxy, words = proxied(guest)
    outcome = guest.pull(*words, name="r.example/team/app:v1")
    assert outcome.code == 10
    assert f"through the proxy http://{proxy}" in outcome.err
    assert guest.pull(*words).code == 0  # of this machine


@pytest.fixture
def secure():
    """A server with https, and the certificate of its CA, which nobody else knows."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with EmbeddedRegistry(tls=context) as registry:
        yield registry, authority.cert_pem.bytes().decode()


@row("extra_root_certificates")
def test_roots_of_the_file_are_trusted_beside_the_systems(guest, plain, secure):
    registry, root = secure
    Path("root.pem").write_text(root)
    name = f"{registry.address}/team/app:v1"
    guest.run("copy", plain, f"docker://{name}", "--registry-ca", "root.pem")
    assert guest.pull(*guest.with_policy(), name=name).code == 10
    words = guest.with_policy({"extra_root_certificates": [root]})
    assert guest.pull(*words, name=name).code == 0
    outcome = guest.pull(*guest.with_policy({"extra_root_certificates": [""]}), name=name)
    assert outcome.code == 11
    assert "CA file 'in the configuration': expected certificates in PEM" in outcome.err


@row("kbc", "kbs_uri")
def test_broker_of_the_file_is_asked(guest, monkeypatch):
    monkeypatch.delenv("IMAGERS_BROKER")
    policy = {"image_security_policy_uri": guest.put("policy", ACCEPT)}
    words = guest.config({"kbc": "cc_kbc", "kbs_uri": guest.broker.url, **policy})
    assert guest.pull(*words).code == 0
    outcome = guest.pull(*guest.config({"kbs_uri": guest.broker.url, **policy}))
    assert outcome.code == 12
    assert "c.json at $.kbc: expected the client 'cc_kbc', got 'sample_kbc'" in outcome.err


def data_hub(guest, more=""):
    place = guest.put("policy", ACCEPT)
    broker = f'[kbc]\nname = "cc_kbc"\nurl = "{guest.broker.url}"\n'
    return f'{more}{broker}[image]\nimage_security_policy_uri = "{place}"\n'


@row("[kbc] name", "[kbc] url")
def test_broker_of_the_data_hub_is_asked(guest, monkeypatch):
    monkeypatch.delenv("IMAGERS_BROKER")
    assert guest.pull(*guest.config(data_hub(guest), "cdh.toml")).code == 0


@row("[kbc] kbs_cert", "KBS_CERT")
def test_certificates_for_the_broker_are_the_only_ones(guest, secure, monkeypatch):
    server, root = secure  # which is no broker: what it answers shows that it was spoken to
    other = trustme.CA().cert_pem.bytes().decode()
    monkeypatch.delenv("IMAGERS_BROKER")

    def told(pem):
        kbc = {"name": "cc_kbc", "url": server.url, "kbs_cert": pem}
        image = {"image_security_policy_uri": f"{SETTINGS}p"}
        return guest.pull(*guest.config({"kbc": kbc, "image": image})).err

    assert "404" in told(root)
    assert "the certificate was not accepted" in told(other)
    assert "kbc.kbs_cert of c.json: CA file 'in the configuration': expected" in told("none")
    monkeypatch.setenv("KBS_CERT", other)
    assert "the certificate was not accepted" in told(root)
    monkeypatch.setenv("KBS_CERT", root)
    assert "404" in told(other)
    Path("other.pem").write_text(other)
    monkeypatch.setenv("IMAGERS_BROKER_CA", "other.pem")
    assert "the certificate was not accepted" in told(root)


@row("[image]")
def test_file_without_a_part_about_images_lets_the_words_of_the_kernel_count(guest):
    Path("p.json").write_text(ACCEPT)
    kernel = guest.kernel("agent.image_policy_file=p.json agent.enable_signature_verification=true")
    silent = guest.config('[kbc]\nname = "cc_kbc"\n', "cdh.toml")
    assert guest.pull(*silent, *kernel, ANYWAY).code == 0
    images = guest.config(f"[image]\nimage_security_policy = '{REJECT}'\n", "cdh.toml")
    assert guest.pull(*images, *kernel).code == 21


@row("[[credentials]]")
def test_resources_are_not_written_into_files(guest):
    more = '[[credentials]]\nresource_uri = "kbs:///a/b/c"\npath = "/run/x"\n'
    outcome = guest.pull(*guest.config(data_hub(guest) + more, "cdh.toml"))
    assert outcome.code == 12
    assert "credentials: resources are not written into files here" in outcome.err


@row("socket", "[aa]", "[log]", "skip_sealed_secret_verification")
def test_what_is_for_services_is_passed_over_in_silence(guest):
    more = 'socket = "unix:///x"\nskip_sealed_secret_verification = true\n'
    tables = '[aa]\naa_socket = "unix:///y"\n[log]\nlevel = "debug"\n'
    outcome = guest.pull(*guest.config(data_hub(guest, more) + tables, "cdh.toml"))
    assert outcome.code == 0
    assert "passed over" not in outcome.err


@row("any other key")
def test_key_that_nobody_knows_is_a_warning(guest):
    outcome = guest.pull(*guest.with_policy({"image_securty_policy_uri": "x"}))
    assert outcome.code == 0
    told = "c.json: the key '$.image_securty_policy_uri' is not known, and is passed over"
    assert f"imagers: warning: {told}" in outcome.err


# Variables.


@row("AA_KBC_PARAMS")
def test_broker_of_the_variable_wins_over_the_file(guest, monkeypatch):
    document = {
        "kbc": "cc_kbc",
        "kbs_uri": f"http://127.0.0.1:{free_port()}",
        "image_security_policy_uri": guest.put("policy", ACCEPT),
    }
    words = guest.config(document)
    monkeypatch.delenv("IMAGERS_BROKER")
    assert guest.pull(*words).code == 10
    monkeypatch.setenv("AA_KBC_PARAMS", f"cc_kbc::{guest.broker.url}")
    assert guest.pull(*words).code == 0
    monkeypatch.setenv("AA_KBC_PARAMS", "offline_fs_kbc::null")
    outcome = guest.pull(*words)
    assert outcome.code == 12
    assert "AA_KBC_PARAMS: expected the client 'cc_kbc', got 'offline_fs_kbc'" in outcome.err
    monkeypatch.setenv("IMAGERS_BROKER", guest.broker.url)
    assert guest.pull(*words).code == 0


@row("CDH_DEFAULT_IMAGE_AUTHENTICATED_REGISTRY_CREDENTIALS", "REGISTRY_AUTH_FILE")
def test_logins_of_a_variable_win_over_the_file(private, monkeypatch):
    Path("right.json").write_text(auth_file(private.registry.address))
    Path("none.json").write_text("{}")
    words = private.with_policy({"authenticated_registry_credentials_uri": "none.json"})
    assert private.pull(*words).code == 10
    name = "CDH_DEFAULT_IMAGE_AUTHENTICATED_REGISTRY_CREDENTIALS"
    monkeypatch.setenv(name, f"file://{Path.cwd()}/right.json")
    assert private.pull(*words).code == 0
    monkeypatch.setenv(name, "none.json")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "right.json")
    assert private.pull(*words).code == 0


@row("CONTAINERS_REGISTRIES_CONF")
def test_registries_of_the_variable_win_over_the_file(guest, monkeypatch):
    words = guest.with_policy({"registry_config": mirrored(f"127.0.0.1:{free_port()}")})
    assert guest.pull(*words, name="r.example/team/app:v1").code == 10
    Path("r.conf").write_text(mirrored_toml(guest.registry.address))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", "r.conf")
    assert guest.pull(*words, name="r.example/team/app:v1").code == 0


@row("https_proxy", "HTTPS_PROXY", "http_proxy", "no_proxy", "NO_PROXY")
def test_proxies_of_variables_win_over_the_file_each_for_itself(guest, monkeypatch):
    proxies = {"https_proxy": "http://f:1", "http_proxy": "http://f:2", "no_proxy": "f"}
    monkeypatch.setenv("HTTPS_PROXY", "http://v:1")
    monkeypatch.setenv("NO_PROXY", "v")
    found = guest.user({"image_pull_proxy": proxies}).proxies()
    assert (found.https.url, found.http.url, found.exempt) == ("http://v:1", "http://f:2", ("v",))
    for name, value in (("https_proxy", "http://w:1"), ("http_proxy", "w:2"), ("no_proxy", "w")):
        monkeypatch.setenv(name, value)
    found = guest.user({"image_pull_proxy": proxies}).proxies()
    assert (found.https.url, found.http.url, found.exempt) == ("http://w:1", "http://w:2", ("w",))


@row("OCICRYPT_KEYPROVIDER_CONFIG")
def test_key_providers_are_those_of_the_variable(guest, monkeypatch):
    monkeypatch.setenv("OCICRYPT_KEYPROVIDER_CONFIG", "missing.json")
    outcome = guest.pull(*guest.with_policy(), "--decryption-key", "provider:attestation-agent")
    assert outcome.code == 13
    assert "missing.json" in outcome.err


# Words of the kernel.


@row("agent.aa_kbc_params")
def test_broker_in_a_word_of_the_kernel(guest, monkeypatch):
    monkeypatch.delenv("IMAGERS_BROKER")
    words = guest.config({"image_security_policy_uri": guest.put("policy", ACCEPT)})
    outcome = guest.pull(*words)
    assert outcome.code == 2
    assert "--tee is for a broker" in outcome.err
    kernel = guest.kernel(f"agent.aa_kbc_params=cc_kbc::{guest.broker.url}")
    refused = guest.pull(*words, *kernel[:2])
    assert refused.code == 21
    assert "the broker's address comes from the kernel's command line" in refused.err
    assert guest.broker.handshakes == 0
    assert guest.pull(*words, *kernel, ANYWAY).code == 0


@row("agent.https_proxy", "agent.http_proxy", "agent.no_proxy")
def test_proxies_in_words_of_the_kernel(guest):
    proxy = f"127.0.0.1:{free_port()}"
    Path("p.json").write_text(ACCEPT)
    kernel = guest.kernel(f"agent.https_proxy=http://{proxy} agent.http_proxy=http://{proxy}")
    outcome = guest.pull(*kernel, "--policy", "p.json", name="r.example/team/app:v1")
    assert f"through the proxy http://{proxy}" in outcome.err
    kernel = guest.kernel(f"agent.https_proxy=http://{proxy} agent.no_proxy=r.example")
    outcome = guest.pull(*kernel, "--policy", "p.json", name="r.example/team/app:v1")
    assert outcome.code == 10
    assert "through the proxy" not in outcome.err


@row("agent.image_registry_auth")
def test_logins_in_a_word_of_the_kernel(private):
    Path("auth.json").write_text(auth_file(private.registry.address))
    Path("p.json").write_text(ACCEPT)
    kernel = private.kernel(f"agent.image_registry_auth=file://{Path.cwd()}/auth.json")
    assert private.pull("--policy", "p.json").code == 10
    assert private.pull("--policy", "p.json", *kernel).code == 0


@row("agent.image_policy_file", "agent.enable_signature_verification")
def test_policy_in_a_word_of_the_kernel_counts_with_another_word(guest):
    Path("p.json").write_text(REJECT)
    word = "agent.image_policy_file=p.json"
    kernel = guest.kernel(f"{word} agent.enable_signature_verification=true")
    assert "is rejected by the policy" in guest.pull(*kernel, ANYWAY).err
    outcome = guest.pull(*guest.kernel(f"{word} agent.enable_signature_verification=TRUE"), ANYWAY)
    assert outcome.code in (13, 22)  # without a policy, or with one that accepts by default
    assert "agent.image_policy_file is passed over" in outcome.err


def test_policy_in_a_word_of_the_kernel_is_refused_as_the_hosts(guest):
    Path("p.json").write_text(ACCEPT)
    kernel = guest.kernel("agent.image_policy_file=p.json agent.enable_signature_verification=true")
    outcome = guest.pull(*kernel)
    assert outcome.code == 21
    told = "the policy comes from the kernel's command line ('agent.image_policy_file')"
    assert told in outcome.err
    assert guest.registry.asked() == []
    assert guest.pull(*kernel, "--policy", "p.json").code == 0
    outcome = guest.pull(*kernel, ANYWAY)
    assert outcome.code == 0
    assert f"imagers: warning: {told}" in outcome.err


@pytest.fixture
def shared(guest, monkeypatch):  # noqa: ARG001 - the directory is its
    """The files below a directory that the host shares."""
    where = Path.cwd() / "shared"
    where.mkdir()
    mounts = Path.cwd().parent / "mounts"
    mounts.write_text(f"1 1 0:1 / {where} rw - virtiofs share rw\n")
    for module in ("imagers.files", "imagers.settings.guest"):
        told = partial(is_shared_with_host, mounts=mounts)
        monkeypatch.setattr(f"{module}.is_shared_with_host", told)
    return where


def test_policy_in_a_file_that_the_host_shares_is_refused_whoever_names_it(guest, shared):
    (shared / "p.json").write_text(ACCEPT)
    config = guest.config({"image_security_policy_uri": "shared/p.json"})
    for words in (config, ("--policy", "shared/p.json"), ("--policy", f"file://{shared}/p.json")):
        outcome = guest.pull(*words)
        assert outcome.code == 21, words
        assert "the policy comes from a file system that the host shares" in outcome.err
        assert guest.registry.asked() == []
        assert guest.pull(*words, ANYWAY).code == 0
        guest.registry.requests.clear()


def test_host_does_not_say_where_names_of_images_lead(guest, shared):
    """It would get a login in plain text."""
    Path("p.json").write_text(ACCEPT)
    rules = {"registry_config": mirrored(guest.registry.address)}
    (shared / "r.toml").write_text(mirrored_toml(guest.registry.address))
    uri = {"registry_configuration_uri": "shared/r.toml"}
    for found in (
        guest.config(rules, "shared/c.json"),
        guest.config(uri),
        ("--image-rs-registries", "shared/r.toml"),
    ):
        words = (*found, "--policy", "p.json")
        outcome = guest.pull(*words, name="r.example/team/app:v1")
        assert outcome.code == 21, words
        assert "where names of images lead comes from a file system that" in outcome.err
        assert guest.registry.asked() == []
        assert guest.pull(*words, ANYWAY, name="r.example/team/app:v1").code == 0
        guest.registry.requests.clear()


@pytest.mark.usefixtures("shared")
def test_host_names_no_certificate_for_registries(guest, secure):
    _, root = secure
    Path("p.json").write_text(ACCEPT)
    words = guest.config({"extra_root_certificates": [root]}, "shared/c.json")
    outcome = guest.pull(*words, "--policy", "p.json")
    assert outcome.code == 21
    assert "a certificate for registries comes from a file system that the host" in outcome.err
    assert guest.pull(*words, "--policy", "p.json", ANYWAY).code == 0
    words = guest.config({"extra_root_certificates": [root]})
    assert guest.pull(*words, "--policy", "p.json").code == 0


def test_settings_of_a_file_are_measured_as_they_count(guest, secure, monkeypatch):
    monkeypatch.delenv("IMAGERS_BROKER")
    server, root = secure
    kbc = {"name": "cc_kbc", "url": server.url, "kbs_cert": root}
    Path("auth.json").write_text("{}")
    image = {
        "image_security_policy": ACCEPT,
        "authenticated_registry_credentials_uri": "auth.json",
        "registry_config": mirrored("mirror.example"),
    }
    words = guest.config({"kbc": kbc, "image": image})
    outcome = guest.run("pull", guest.name, "bundle", *words, "--print-settings")
    assert outcome.code == 0, outcome
    document = outcome.json()
    assert document["broker"]["url"] == server.url
    assert document["broker"]["ca"] == str(digest_of(root.encode()))
    assert document["auth"] == ["auth.json"]
    assert "mirror.example" in json.dumps(document["registries"])


def test_words_of_the_kernel_are_read_only_where_somebody_says_so(guest):
    Path("p.json").write_text(REJECT)
    guest.kernel("agent.image_policy_file=p.json agent.enable_signature_verification=true")
    assert guest.pull(*guest.with_policy()).code == 0


# Places.


@row("kbs:///REPOSITORY/TYPE/TAG")
def test_documents_of_the_broker_are_read_with_one_attestation(private):
    private.put("policy", ACCEPT)
    private.put("auth", auth_file(private.registry.address))
    private.put("registries", mirrored_toml(private.registry.address))
    private.put("sigstore", "default-docker: {sigstore: 'file:///nowhere'}")
    words = []
    for option, name in (
        ("--policy", "policy"),
        ("--authfile", "auth"),
        ("--image-rs-registries", "registries"),
        ("--registries.d", "sigstore"),
    ):
        words += [option, f"{SETTINGS}{name}"]
    outcome = private.pull(*words, "--json", name="r.example/team/app:v1")
    assert outcome.code == 0, outcome
    assert outcome.json()["policy"] == f"{SETTINGS}policy"
    assert (private.broker.handshakes, private.broker.releases) == (1, 4)


@row(
    "kbs://HOST/REPOSITORY/TYPE/TAG",
    "kbs+PLUGIN:///PATH",
    "any other scheme",
)
@pytest.mark.parametrize(
    ("place", "code", "told"),
    [
        ("kbs://h/default/settings/p", 11, "expected 'kbs:///repository/type/tag'"),
        ("kbs+pkcs11:///default/settings/p", 12, "expected a path, file:///PATH or kbs:///"),
        ("https://h/p", 12, "expected a path, file:///PATH or kbs:///"),
    ],
)
def test_other_places_are_refused(guest, place, code, told):
    for words in (("--policy", place), guest.config({"image_security_policy_uri": place})):
        outcome = guest.pull(*words)
        assert outcome.code == code
        assert told in outcome.err


def test_policy_that_the_broker_refuses_or_has_not_ends_the_pull(guest):
    words = guest.config({"image_security_policy_uri": f"{SETTINGS}policy"})
    outcome = guest.pull(*words)
    assert outcome.code == 30
    assert f"has no resource '{SETTINGS}policy'" in outcome.err
    guest.put("policy", ACCEPT)
    guest.broker.deny()
    outcome = guest.pull(*words)
    assert outcome.code == 31
    assert f"image_security_policy_uri of c.json: the broker refuses '{SETTINGS}policy'" in (
        outcome.err
    )
    assert guest.registry.asked() == []


def test_place_at_a_broker_where_none_is_named_is_refused(guest, monkeypatch):
    monkeypatch.delenv("IMAGERS_BROKER")
    place = f"{SETTINGS}policy"
    for words in (
        ("pull", guest.name, "bundle", "--policy", place),
        ("verify", guest.name, "--policy", place),
        ("copy", guest.name, "oci:x:v1", "--policy", place),
        ("inspect", guest.name, "--authfile", place),
    ):
        outcome = guest.run(*words)
        assert outcome.code == 2, outcome
        assert "is at a broker, and none is named" in outcome.err
        assert "imagers pull --broker" in outcome.err
