# SPDX-License-Identifier: Apache-2.0
"""What a guest gets from its broker beside keys; of logins, who sees them, and who does not.

A key provider is the spy: a program that the pull starts while it has the login. It looks at what
it inherits, at the process that started it, and at all files that this one could have written.
"""

import base64
import json
import sys
from contextlib import ExitStack

import pytest

from imagers.testing import EmbeddedRegistry

USER = "guest"
PASSWORD = "horse-battery-9d2f61"
OTHER = "staple-of-the-mirror-77"
POLICY = "kbs:///default/settings/policy"
LOGINS = "kbs:///default/settings/logins"
FOR_ALL = {"rules": [{"name": "a", "effect": "allow", "resource": "*/*/*", "image": "any"}]}
ACCEPT = {"default": [{"type": "insecureAcceptAnything"}]}

SPY = """
import json, os, sys
from pathlib import Path

request = json.load(sys.stdin)
if request["op"] == "keywrap":
    annotation = request["keywrapparams"]["optsdata"]
    print(json.dumps({"keywrapresults": {"annotation": annotation}}))
    raise SystemExit
parent = f"/proc/{os.getppid()}"
seen = {name: Path(name).read_bytes().decode("utf-8", "replace") for name in (
    "/proc/self/environ", "/proc/self/cmdline", f"{parent}/environ", f"{parent}/cmdline")}
for place in sys.argv[2:]:
    for folder, _, files in os.walk(place):
        for name in files:
            path = Path(folder, name)
            seen[str(path)] = path.read_bytes().decode("latin-1")
for fd in os.listdir(f"{parent}/fd"):
    path = f"{parent}/fd/{fd}"
    if os.path.isfile(path):
        seen[f"{path} of {os.readlink(path)}"] = Path(path).read_bytes().decode("latin-1")
Path(sys.argv[1]).write_text(json.dumps(seen))
annotation = request["keyunwrapparams"]["annotation"]
print(json.dumps({"keyunwrapresults": {"optsdata": annotation}}))
"""


def traces(password):
    """What somebody would look for."""
    packed = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return (password, packed.rstrip("="), password.encode().hex())


def shows(text):
    return [one for one in (*traces(PASSWORD), *traces(OTHER)) if one in text]


def auth_of(**passwords):
    """An auth.json: passwords by host."""
    return {
        "auths": {
            host: {"auth": base64.b64encode(f"{USER}:{one}".encode()).decode()}
            for host, one in passwords.items()
        }
    }


@pytest.fixture
def spy(imagers, tmp_path):
    """The file with what the provider saw, once it has been asked for a key."""
    (tmp_path / "spy.py").write_text(SPY)
    report = tmp_path / "seen.json"
    places = [imagers.here, imagers.tmp, imagers.home]
    words = [str(tmp_path / "spy.py"), str(report), *map(str, places)]
    config = {"key-providers": {"spy": {"cmd": {"path": sys.executable, "args": words}}}}
    (tmp_path / "providers.json").write_text(json.dumps(config))
    imagers.environment["OCICRYPT_KEYPROVIDER_CONFIG"] = str(tmp_path / "providers.json")
    return report


@pytest.fixture
def registries(request, imagers, images, spy):
    """The registry of an encrypted image, and another one that has it; each wants a login.

    As a parameter: whether by tokens.
    """
    del spy
    with ExitStack() as stack:
        own, mirror = (
            stack.enter_context(
                EmbeddedRegistry(
                    username=USER, password=one, token_auth=getattr(request, "param", False)
                )
            )
            for one in (PASSWORD, OTHER)
        )
        layout = images.build()
        for registry, one in ((own, PASSWORD), (mirror, OTHER)):
            imagers.succeed(
                "encrypt",
                f"oci:{layout}:v1",
                f"docker://{registry.address}/team/app:v1",
                "--encryption-key",
                "provider:spy",
                "--creds",
                f"{USER}:{one}",
            )
            registry.requests.clear()
        yield own, mirror


@pytest.fixture
def guest(imagers, imagers_broker, registries, tmp_path):
    """A function: pull with these logins at the broker; the result, and what was printed."""
    own, mirror = registries
    broker = imagers_broker
    broker.admin.set_policy(json.dumps(FOR_ALL))
    broker.put(POLICY, json.dumps(ACCEPT).encode())
    table = {"prefix": own.address, "location": own.address, "insecure": True}
    table["mirror"] = [{"location": mirror.address, "insecure": True}]
    document = {
        "kbc": "cc_kbc",
        "kbs_uri": broker.url,
        "image_security_policy_uri": POLICY,
        "authenticated_registry_credentials_uri": LOGINS,
        "registry_config": {"registry": [table]},
    }
    (tmp_path / "config.json").write_text(json.dumps(document))

    def pull(logins):
        broker.put(LOGINS, json.dumps(logins).encode())
        words = ("--config", tmp_path / "config.json", "--tee", "sample", "-v", "--json")
        key = ("--decryption-key", "provider:spy")
        return imagers("pull", f"{own.address}/team/app:v1", "bundle", *words, *key)

    return pull


def test_policy_its_keys_and_the_images_come_with_one_attestation(imagers, publish, keys):
    image = publish()
    broker = image.broker
    broker.admin.set_policy(json.dumps(FOR_ALL))
    rule = {"type": "sigstoreSigned", "keyPath": "kbs:///default/settings/signer"}
    broker.put(POLICY, json.dumps({"default": [rule]}).encode())
    broker.put("kbs:///default/settings/signer", (keys / "cosign1.pub").read_bytes())
    words = ("--policy", POLICY, *image.guest, "--json")
    report = imagers.succeed("pull", image.reference, "bundle", *words).json()
    assert (report["basis"], report["policy"]) == ("signature", POLICY)
    assert (broker.handshakes, broker.releases) == (1, 3)
    assert imagers.leftovers() == ["bundle"]

    # The key of somebody else, from now on.
    imagers.succeed("broker", "delete", "kbs:///default/settings/signer", *image.admin)
    broker.put("kbs:///default/settings/signer", (keys / "cosign2.pub").read_bytes())
    refused = imagers("pull", image.reference, "other", *words)
    assert refused.code == 21
    assert imagers.leftovers() == ["bundle"]


def sent_to(registry):
    return {one.authorization for one in registry.requests} - {""}


@pytest.mark.parametrize("registries", [False, True], ids=["basic", "token"], indirect=True)
def test_login_goes_to_its_registry_and_shows_nowhere_else(
    imagers, imagers_broker, registries, guest, spy
):
    own, mirror = registries
    done = guest(auth_of(**{own.address: PASSWORD}))
    assert done.code == 0, done
    assert sent_to(own)
    assert mirror.requests  # it was asked before, and got nothing
    assert sent_to(mirror) == set()
    seen = json.loads(spy.read_text())
    assert {"/proc/self/environ", "/proc/self/cmdline"} < set(seen)
    assert [name for name, text in seen.items() if shows(text)] == []
    assert shows(done.stdout) == []
    assert "the login of kbs:///default/settings/logins" in done.stderr
    assert shows(done.stderr) == []
    paths = [path for place in (imagers.here, imagers.home) for path in place.rglob("*")]
    files = [path for path in paths if path.is_file()]
    assert files
    assert [path for path in files if shows(path.read_bytes().decode("latin-1"))] == []
    assert list(imagers.tmp.iterdir()) == []
    assert [one for one in own.asked() if shows(str(one))] == []
    assert [one for one in imagers_broker.log if shows(repr(one))] == []
    assert imagers_broker.handshakes == 1


def test_mirror_gets_the_login_of_its_own_host(registries, guest):
    own, mirror = registries
    done = guest(auth_of(**{own.address: PASSWORD, mirror.address: OTHER}))
    assert done.code == 0, done
    assert sent_to(mirror)
    assert sent_to(own) == set()  # the mirror had it all
    packed = [base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()]
    assert not any(one in text for one in packed for text in sent_to(mirror))


def test_login_of_another_repository_is_not_used(registries, guest):
    own, _ = registries
    done = guest(auth_of(**{f"{own.address}/team/other": PASSWORD}))
    assert done.code == 10
    assert sent_to(own) == set()


@pytest.mark.parametrize(
    "document",
    [
        {"credsStore": "spy"},
        {"credHelpers": {"any.example": "spy"}},
        {"auths": {}, "credsStore": "x"},
    ],
)
def test_program_that_the_broker_names_is_not_started(registries, guest, document):
    own, mirror = registries
    done = guest(document)
    assert done.code == 12
    assert "expected logins, got names of programs that have them" in done.error
    assert own.requests == mirror.requests == []


def test_helper_of_registries_conf_is_not_asked_where_the_broker_has_the_logins(
    imagers, imagers_broker, registries, guest, tmp_path
):
    own, _ = registries
    folder = tmp_path / "programs"
    folder.mkdir()
    program = folder / "docker-credential-spy"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    imagers.environment["PATH"] = f"{folder}:{imagers.environment['PATH']}"
    conf = tmp_path / "registries.conf"
    conf.write_text('credential-helpers = ["spy"]\n')
    imagers.environment["CONTAINERS_REGISTRIES_CONF"] = str(conf)
    assert guest(auth_of(**{own.address: PASSWORD})).code == 0
    assert not (tmp_path / "started").exists()
    assert imagers_broker.handshakes == 1


def test_damaged_logins_are_not_repeated(registries, guest):
    own, _ = registries
    done = guest({"auths": {own.address: {"auth": f"{PASSWORD}!"}}})
    assert done.code == 11
    assert LOGINS in done.error
    assert shows(done.stderr) == []
