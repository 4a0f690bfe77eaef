# SPDX-License-Identifier: Apache-2.0
"""`--verbose`: what it says of a real login, push, pull and handshake, and what it never says."""

import base64
import json
import re
from contextlib import contextmanager

import pytest

from imagers.testing import EmbeddedRegistry, make_image, make_tar

USER, CANARY = "robot-canary", "canary-4f7a"


@contextmanager
def registry_with_tokens():
    with EmbeddedRegistry(username=USER, password=CANARY, token_auth=True) as one:
        yield one


@pytest.fixture
def image(imagers):
    """A layout in the working directory, and what its config has as digest."""
    made = make_image(make_tar(("etc/hostname", b"guest\n")))
    made.save(imagers.here / "app")
    return made


def check_silent(result, *secrets):
    """Nothing that logs in, opens or names an upload is in what was said."""
    said = result.stdout + result.stderr
    for secret in (CANARY, USER, "Bearer ", "Basic ", "eyJ", "kbs-session-id", *secrets):
        assert secret not in said, (secret, result)
    without = re.sub(r"sha256[:-][0-9a-f]{64}|(?<=\s|=)/\S+|oci:/\S+", "", said)
    assert re.findall(r"[\w+/=-]{33,}", without.replace("/", " ")) == [], result


def uploads_of(registry):
    found = {re.search(r"/uploads/([0-9a-f]{8,})", one.path) for one in registry.requests}
    return [one[1] for one in found if one is not None]


def lines_of(result):
    assert all(line.startswith("imagers: ") for line in result.stderr.splitlines())
    return [line.removeprefix("imagers: ") for line in result.stderr.splitlines()]


@pytest.mark.usefixtures("image")
def test_login_push_and_pull_say_what_was_asked_and_no_secret(imagers, accept):
    (imagers.here / "password").write_text(CANARY)
    auth = imagers.here / "auth.json"
    with registry_with_tokens() as registry:
        host, ref = registry.address, f"{registry.address}/team/app:v1"
        words = ("--username", USER, "--password-file", "password", "--authfile", auth, host)
        login = imagers("login", "-v", *words)
        assert login.code == 0, login
        push = imagers("copy", "oci:app", ref, "-v", "--authfile", auth, "--policy", accept)
        assert push.code == 0, push
        registry.answer_with(503, path="/manifests/", method="GET")
        words = ("--authfile", auth, "--policy", accept)
        pull = imagers("--verbose", "pull", ref, "bundle", *words)
        assert pull.code == 0, pull
        packed = base64.b64encode(f"{USER}:{CANARY}".encode()).decode()
        secrets = [packed, *registry.tokens, *uploads_of(registry)]
    assert len(secrets) >= 4
    check_silent(push, *secrets)
    check_silent(pull, *secrets)
    assert CANARY not in login.stderr
    assert packed not in login.stderr
    told = lines_of(push)
    assert f"{host}/team/app: the login of {auth}" in told
    assert f"GET http://{host}/v2/: 401" in told
    scope = "repository:team/app:pull,push"
    assert f"{host} wants a token of {host} for '{scope}': asks with the login" in told
    upload = re.compile(rf"PUT http://{host}/v2/team/app/blobs/uploads/…\?digest=sha256:\w+: 201")
    assert sum(upload.fullmatch(line) is not None for line in told) == 2
    told = lines_of(pull)
    assert f"the policy is {accept}" in told
    assert f"docker://{ref}: the policy has its requirements at $.default" in told
    manifest = f"GET http://{host}/v2/team/app/manifests/v1"
    assert told.index(f"{manifest}: 503") < told.index(f"{manifest}: 200")
    again = [line for line in told if line.startswith("again in ")]
    assert len(again) == 1
    assert again[0].endswith(" s, attempt 2 of 4: 503 service unavailable")


def test_sign_and_a_handshake_say_no_secret(imagers, publish, keys, vectors, imagers_broker):
    listed = json.loads((vectors / "manifest.json").read_text())
    passphrase = listed["keys"]["cosign1"]["password"]
    published = publish()
    (imagers.here / "passphrase").write_text(passphrase)
    admin = imagers_broker.admin_key_file.read_text().splitlines()[1]
    words = ("--sign-by-sigstore-private-key", keys / "cosign1.key")
    sign = imagers("sign", "-v", published.reference, *words, "--passphrase-file", "passphrase")
    assert sign.code == 0, sign
    listed = imagers("broker", "list", "-v", *published.admin)
    assert listed.code == 0, listed
    pull = imagers(*published.pull("-v"))
    assert pull.code == 0, pull
    for one in (sign, listed, pull):
        check_silent(one, passphrase, admin, *uploads_of(published.registry))
    told = lines_of(pull)
    broker = imagers_broker.url.removeprefix("http://")
    assert f"shows the broker at {broker} evidence of the TEE 'sample'" in told
    assert f"POST http://{broker}/kbs/v0/auth: 200" in told
    assert f"POST http://{broker}/kbs/v0/attest: 200" in told
    assert f"the broker at {broker} believes it" in told
    asked = rf"GET http://{broker}/kbs/v0/resource/default/app/[\w-]+\?image-digest=sha256:\w+: 200"
    assert any(re.fullmatch(asked, line) for line in told), told


@pytest.mark.parametrize("kind", ["identitytoken", "registrytoken", "auth"])
def test_logins_of_files_are_in_no_line(imagers, kind):
    value = base64.b64encode(f"{USER}:{CANARY}x".encode()).decode() if kind == "auth" else CANARY
    auth = imagers.here / "auth.json"
    with registry_with_tokens() as registry:
        auth.write_text(json.dumps({"auths": {registry.address: {kind: value}}}))
        result = imagers("inspect", "-v", f"{registry.address}/team/app", "--authfile", auth)
    assert result.code == 10, result
    check_silent(result, value)
    assert f"team/app: the login of {auth}" in result.stderr


def test_helper_is_named_and_what_it_gives_is_not(imagers, tmp_path):
    (tmp_path / "bin").mkdir()
    helper = tmp_path / "bin" / "docker-credential-canned"
    answer = json.dumps({"Username": USER, "Secret": CANARY})
    helper.write_text(f"#!/bin/sh\necho '{answer}'\n")
    helper.chmod(0o755)
    auth = imagers.here / "auth.json"
    path = f"{tmp_path / 'bin'}:{imagers.environment['PATH']}"
    with registry_with_tokens() as registry:
        auth.write_text(json.dumps({"credHelpers": {registry.address: "canned"}}))
        words = ("inspect", "-v", f"{registry.address}/team/app", "--authfile", auth)
        result = imagers(*words, env={**imagers.environment, "PATH": path})
        host = registry.address
    assert result.code == 10, result
    check_silent(result)
    named = f"{host}: the login of docker-credential-canned, which {auth} names"
    assert named in lines_of(result)


def test_redirect_is_told_without_what_lets_one_in(imagers, image):
    with EmbeddedRegistry() as registry, EmbeddedRegistry() as storage:
        image.push(f"{registry.address}/team/app:v1")
        image.push(f"{storage.address}/team/app:v1")
        blob = f"/v2/team/app/blobs/{json.loads(image.raw)['config']['digest']}"
        location = f"{storage.url}{blob}?X-Amz-Signature={CANARY}"
        registry.answer_with(307, path="/blobs/", headers={"Location": location})
        result = imagers("inspect", "-v", f"{registry.address}/team/app:v1")
        assert result.code == 0, result
        check_silent(result)
        told = lines_of(result)
        at = told.index(f"GET {registry.url}{blob}: 307")
        assert told[at + 1] == f"GET {storage.url}/…: 200"


def test_proxy_is_named_without_its_password(imagers):
    proxy = {"https_proxy": f"http://{USER}:{CANARY}@127.0.0.1:1"}
    words = ("inspect", "-v", "h.example/team/app")
    result = imagers(*words, env={**imagers.environment, **proxy})
    assert result.code == 10, result
    check_silent(result)
    asked = "GET https://h.example:443/v2/ through the proxy http://127.0.0.1:1: "
    told = [line for line in lines_of(result) if line.startswith("GET ")]
    assert len(told) == 4
    assert all(line.startswith(asked.replace(":443", "")) for line in told)


def test_mirror_that_is_left_is_told_and_which_files_count(imagers, image):
    with EmbeddedRegistry() as registry, EmbeddedRegistry() as mirror:
        image.push(f"{registry.address}/team/app:v1")
        conf = imagers.here / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{registry.address}"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}"\n'
        )
        certs = imagers.home / "config" / "containers" / "certs.d" / registry.address
        certs.mkdir(parents=True)
        given = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
        words = ("inspect", "-v", f"{registry.address}/team/app:v1")
        result = imagers(*words, env={**imagers.environment, **given})
        assert result.code == 0, result
        told = lines_of(result)
        assert any(line.startswith(f"mirrors of {conf}") for line in told)
        assert f"certificates of {certs}" in told
        name = f"{registry.address}/team/app:v1"
        assert f"{name} is read at {mirror.address}/team/app:v1, then at {name}" in told
        assert any(line.startswith(f"{mirror.address} is left: ") for line in told)


def test_nothing_is_told_by_those_who_were_not_asked_to(imagers, image):
    with EmbeddedRegistry() as registry:
        image.push(f"{registry.address}/team/app:v1")
        assert imagers("inspect", f"{registry.address}/team/app:v1").stderr == ""
