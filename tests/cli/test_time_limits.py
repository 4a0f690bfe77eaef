# SPDX-License-Identifier: Apache-2.0
"""Pulls that wait for what never comes: a limit ends them, says for whom, and leaves nothing.

Whatever is waited for, it is for longer than the test would run: who ends was ended by the limit.
"""

import fcntl
import json
import os
import re
import socket
import sys
import time
from contextlib import contextmanager

import pytest

from imagers.testing import EmbeddedRegistry
from imagers.testing.fault_proxy import FaultProxy

TIMED_OUT = 124
ENDS_WITHIN = 20  # seconds, start of the program included; its own limits are longer than this
NEVER_S = 100


class Stalling(FaultProxy):
    """Passes on what it is asked, but for some requests: their answers never come to their end."""

    def __init__(self, target, word):
        super().__init__(target, seed=1, stall_s=NEVER_S)
        self._word = word

    def choose(self, line):
        """Which of the faults a request gets."""
        return "stall" if self._word in line else None


def check_timed_out(imagers, words, expected, *, phase, own=None):
    """Run a pull with a limit, which it has to reach."""
    start = time.monotonic()
    result = imagers(*words, "--timeout", f"{phase}=3" if own is None else own, within=60)
    assert time.monotonic() - start < ENDS_WITHIN
    assert result.code == TIMED_OUT, result
    assert re.search(f"^{expected}$", result.error), result
    assert f"imagers: hint: --timeout {'' if own else f'{phase}='}LONGER" in result.stderr
    assert imagers.leftovers() == []
    return result


@contextmanager
def full_listener():
    """An address that takes no more connections: what is sent there is dropped."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(8):
                one = socket.socket()
                waiting.append(one)
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()


@pytest.fixture
def plain(imagers, images, imagers_registry):
    """The name of an image of one layer in a registry, whose requests are then forgotten."""
    layout = images.build(images.tar(("a", os.urandom(300_000))))
    imagers.succeed("copy", f"oci:{layout}:v1", f"{imagers_registry.address}/team/app:v1")
    imagers_registry.requests.clear()
    return f"{imagers_registry.address}/team/app:v1"


def test_server_that_takes_no_connection(imagers, accept):
    with full_listener() as address:
        words = ("pull", f"{address}/team/app:v1", "bundle", "--policy", accept)
        expected = f"trust: not done within 3 s: reads the manifest, waited for {address}"
        check_timed_out(imagers, words, expected, phase="trust")


def test_server_that_never_answers_to_tls(imagers, accept):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        words = ("pull", f"{address}/team/app:v1", "bundle", "--policy", accept)
        expected = f"trust: not done within 3 s: reads the manifest, waited for {address}"
        check_timed_out(imagers, words, expected, phase="trust")


def test_manifest_without_an_answer(imagers, imagers_registry, plain, accept):
    imagers_registry.hang(path="/manifests/v1", times=9)
    words = ("pull", plain, "bundle", "--policy", accept)
    expected = f"trust: .*: reads the manifest, waited for {imagers_registry.address}"
    check_timed_out(imagers, words, expected, phase="trust")


@pytest.mark.parametrize(
    ("path", "step"), [("/manifests/v1", "reads the manifest"), ("/blobs/", "reads the config")]
)
@pytest.mark.usefixtures("plain")
def test_document_that_stalls(imagers, imagers_registry, accept, path, step):
    with Stalling(imagers_registry.address, path) as proxy:
        words = ("pull", f"{proxy.address}/team/app:v1", "bundle", "--policy", accept)
        expected = f"trust: not done within 3 s: {step}, waited for {proxy.address}"
        check_timed_out(imagers, words, expected, phase="trust")


def test_limit_of_all_in_a_phase(imagers, imagers_registry, plain, accept):
    imagers_registry.hang(path="/manifests/v1", times=9)
    words = ("pull", plain, "bundle", "--policy", accept)
    expected = "trust: not done within 3.5 s in all: reads the manifest, waited for .*"
    check_timed_out(imagers, words, expected, phase="trust", own="3.5,trust=1h")


def test_registry_that_asks_to_come_back_later(imagers, imagers_registry, plain, accept):
    imagers_registry.answer_with(503, path="/manifests/v1", headers={"Retry-After": "50"}, times=9)
    words = ("pull", plain, "bundle", "--policy", accept)
    expected = (
        f"trust: .*: reads the manifest, waited for {imagers_registry.address}, to try again: "
        "503 service unavailable"
    )
    check_timed_out(imagers, words, expected, phase="trust")


def test_signatures_that_do_not_come(imagers, publish):
    image = publish()
    image.registry.hang(path=".sig", times=9)
    expected = f"trust: .*: looks for signatures, waited for {image.registry.address}"
    check_timed_out(imagers, image.pull(), expected, phase="trust")


def test_token_server_that_is_silent(imagers, images, accept):
    with EmbeddedRegistry(username="u", password="p", token_auth=True) as registry:
        name = f"{registry.address}/team/app:v1"
        imagers.succeed("copy", f"oci:{images.build()}:v1", name, "--creds", "u:p")
        registry.hang(path="/token", times=9)
        words = ("pull", name, "bundle", "--policy", accept, "--creds", "u:p")
        expected = f"trust: .*: reads the manifest, waited for {registry.address}"
        check_timed_out(imagers, words, expected, phase="trust")


@pytest.mark.parametrize("path", ["/auth", "/attest", "/resource/"])
def test_broker_that_stalls(imagers, publish, path):
    image = publish()
    address = image.broker.url.removeprefix("http://")
    with Stalling(address, path) as proxy:
        words = [
            f"http://{proxy.address}" if one == image.broker.url else one for one in image.pull()
        ]
        expected = f"keys: not done within 3 s: attests, asks for keys, waited for {proxy.address}"
        check_timed_out(imagers, words, expected, phase="keys")


@pytest.mark.parametrize("more", [(), ("--stream",), ("--no-store",), ("--jobs", "1")])
def test_layer_that_stalls(imagers, images, stalling, accept, more):
    layers = [images.tar((name, os.urandom(300_000))) for name in "ab"]
    registry = stalling(images.build(*layers))
    words = ("pull", f"{registry.address}/team/app:v1", "bundle", "--policy", accept, *more)
    expected = (
        "layers: not done within 4 s: layer 2 of 2, 0.[0-9] of 0.3 MB, "
        f"waited for {registry.address}"
    )
    start = time.monotonic()
    result = imagers(*words, "--timeout", "layers=4", within=60)
    assert time.monotonic() - start < ENDS_WITHIN
    assert (result.code, re.search(f"^{expected}$", result.error) is not None) == (124, True), (
        result
    )
    assert imagers.leftovers() == []
    # What was there and right stays, if there is a store.
    kept = imagers.succeed("store", "list", "--json").json()["entries"]
    assert len(kept) == (0 if more == ("--no-store",) else 1)


def test_layer_in_parts_that_stalls(imagers, images, imagers_registry, accept):
    layout = images.build(images.tar(("a", os.urandom(70 * 2**20))))
    imagers.succeed("copy", f"oci:{layout}:v1", f"{imagers_registry.address}/team/app:v1")
    layer = images.manifest(layout)["layers"][0]["digest"]
    with Stalling(imagers_registry.address, layer) as proxy:
        words = ("pull", f"{proxy.address}/team/app:v1", "bundle", "--policy", accept)
        expected = f"layers: .* s: layer 1 of 1, 0.0 of 73.[0-9] MB, waited for {proxy.address}"
        check_timed_out(imagers, (*words, "--ranges", "2"), expected, phase="layers")


def test_key_provider_that_is_silent(imagers, images, accept, imagers_registry, tmp_path):
    sealing = tmp_path / "provider.py"
    sealing.write_text(
        "import base64, json, sys, time\n"
        "asked = json.load(sys.stdin)\n"
        f"if asked['op'] == 'keyunwrap': time.sleep({NEVER_S})\n"
        "data = base64.b64encode(b'wrapped').decode()\n"
        "print(json.dumps({'keywrapresults': {'annotation': data}}))\n"
    )
    cmd = {"cmd": {"path": sys.executable, "args": [str(sealing)]}}
    (tmp_path / "providers.json").write_text(json.dumps({"key-providers": {"slow": cmd}}))
    imagers.environment["OCICRYPT_KEYPROVIDER_CONFIG"] = str(tmp_path / "providers.json")
    name = f"{imagers_registry.address}/team/app:v1"
    recipient = ("--encryption-key", "provider:slow")
    imagers.succeed("encrypt", f"oci:{images.build()}:v1", name, *recipient)
    words = ("pull", name, "bundle", "--policy", accept, "--decryption-key", "provider:slow")
    expected = (
        f"keys: .*: opens the keys, waited for the program '{os.path.basename(sys.executable)}'"
    )
    check_timed_out(imagers, words, expected, phase="keys")


def test_credential_helper_that_is_silent(imagers, plain, accept, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-slow"
    program.write_text(f"#!/bin/sh\nexec sleep {NEVER_S}\n")
    program.chmod(0o755)
    imagers.environment["PATH"] = f"{folder}:{imagers.environment['PATH']}"
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"credHelpers": {plain.partition("/")[0]: "slow"}}))
    words = ("pull", plain, "bundle", "--policy", accept, "--authfile", auth)
    expected = rf"[a-z-]+: not done within 4 s in all: .*waited for the program '{program.name}'"
    check_timed_out(imagers, words, expected, phase="", own="4")


def test_key_of_the_store_that_another_process_holds(imagers, plain, accept):
    imagers.succeed("pull", plain, "first", "--policy", accept)
    place = next(imagers.runtime.rglob("store.key")).parent
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        result = imagers("pull", plain, "bundle", "--policy", accept, "--timeout", "4")
    finally:
        os.close(fd)
    assert result.code == TIMED_OUT, result
    assert result.error == (f"set-up: not done within 4 s in all: waited for the lock of {place}")
    assert imagers.leftovers() == ["first"]


def test_entry_of_the_store_that_another_process_holds(imagers, plain, accept):
    imagers.succeed("pull", plain, "first", "--policy", accept)
    entry = next(imagers.store.rglob("seal")).parent
    fd = os.open(entry, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        result = imagers("pull", plain, "bundle", "--policy", accept, "--timeout", "layers=3s")
    finally:
        os.close(fd)
    assert result.code == TIMED_OUT, result
    assert result.error == (
        f"layers: not done within 3 s: looks for kept layers, waited for the lock of {entry}"
    )
    assert imagers.leftovers() == ["first"]
    assert imagers.succeed("pull", plain, "bundle", "--policy", accept, "--json").json()["layers"][
        0
    ]["kept"]


def test_limits_that_are_not_reached_change_nothing(imagers, publish):
    image = publish()
    limits = "10m,trust=5m,keys=300,layers=1h,bundle=0"
    imagers.succeed(*image.pull("--timeout", limits))
    assert imagers.leftovers() == ["bundle"]


def test_limit_that_is_none_is_told_before_anything_is_asked(imagers, plain, imagers_registry):
    result = imagers("pull", plain, "bundle", "--timeout", "keys=soon")
    assert result.code == 2
    assert result.error == "--timeout: expected a duration, got 'soon'"
    assert imagers_registry.requests == []


def test_json_has_the_limit_as_an_error(imagers, imagers_registry, plain, accept):
    imagers_registry.hang(path="/manifests/v1", times=9)
    words = ("pull", plain, "bundle", "--policy", accept, "--timeout", "trust=3", "--json")
    told = imagers(*words).json()["error"]
    assert (told["type"], told["exit_code"]) == ("TimedOut", TIMED_OUT)
    assert told["message"].startswith("trust: not done within 3 s: reads the manifest")
