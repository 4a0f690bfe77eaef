# SPDX-License-Identifier: Apache-2.0
"""Whatever a network does: the right bytes or one clear error, never wrong bytes or a leftover."""

import http.client
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from imagers.errors import ImagersError
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.model.strict_json import dump_json
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.credentials import Credentials
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
from imagers.testing.fault_proxy import FAULTS, FaultProxy
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.copy import copy_image

SEEDS = 500
GROUPS = 10
SETTINGS = HTTPSettings(
    connect_timeout_s=1,
    read_timeout_s=0.2,
    upload_answer_timeout_s=0.3,
    total_timeout_s=5,
    retry=RetryPolicy(attempts=4, backoff_s=0.001),
)
PATIENT = replace(
    SETTINGS,
    connect_timeout_s=30,
    read_timeout_s=30,
    upload_answer_timeout_s=30,
    total_timeout_s=100,
)
CONFIG = b'{"os":"linux","architecture":"amd64"}'
LAYERS = (bytes(range(256)) * 12, b"second layer" * 100)


def parts():
    blobs = {Descriptor(OCI_CONFIG, digest_of(CONFIG), len(CONFIG)): CONFIG}
    blobs |= {Descriptor(OCI_LAYER, digest_of(one), len(one)): one for one in LAYERS}
    config, *layers = [one.to_json() for one in blobs]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return blobs, dump_json(manifest)


def client_of(address, actions, settings=SETTINGS, name="app:v1"):
    return RegistryClient(
        parse_reference(f"{address}/{name}"),
        http=HTTPClient(settings),
        credentials=Credentials("me", "s3cret"),
        actions=actions,
    )


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    path = tmp_path_factory.mktemp("layout") / "l"
    blobs, raw = parts()
    sink = OCILayoutSink(path, "v1", name="oci:l:v1")
    for descriptor, data in blobs.items():
        sink.put_blob(descriptor, data, what="blob")
    sink.put_manifest(raw, OCI_MANIFEST, by_name=True)
    sink.close()
    return path


@pytest.fixture(scope="module")
def filled(layout):
    with EmbeddedRegistry(username="me", password="s3cret") as registry:
        copy_image(source_of(layout), sink_of(registry.address))
        yield registry


def source_of(layout):
    return OCILayoutSource(layout, "v1", name="oci:l:v1")


def sink_of(address):
    client = client_of(address, "pull,push")
    return RegistrySink(client.reference, client, name="docker://app:v1")


def pull(address, path, settings=SETTINGS):
    """Copy from the registry; whether it arrived. Nothing is left if it did not."""
    blobs, raw = parts()
    # By its digest: of a manifest that only a tag names, nobody knows what the right bytes are.
    client = client_of(address, "pull", settings, f"app@{digest_of(raw)}")
    source = RegistrySource(client.reference, client, name="docker://app:v1")
    sink = OCILayoutSink(path, "v1", name="oci:x:v1")
    try:
        copy_image(source, sink)
    except ImagersError as error:
        assert str(error)  # noqa: PT017  # most runs end well
        print(error)  # noqa: T201  # shown when it fails
        return False
    finally:
        source.close()
        sink.close()
    copied = source_of(path)
    assert copied.read_manifest().raw == raw
    for descriptor, data in blobs.items():
        assert (path / "blobs" / "sha256" / descriptor.digest.hex).read_bytes() == data
    return True


def push(address, registry, layout):
    """Copy into the registry; whether it arrived. What it took is right in any case."""
    sink = sink_of(address)
    try:
        copy_image(source_of(layout), sink)
    except ImagersError as error:
        assert str(error)  # noqa: PT017  # most runs end well
        print(error)  # noqa: T201  # shown when it fails
        arrived = False
    else:
        arrived = True
    finally:
        sink.close()
    blobs, raw = parts()
    assert not arrived or registry.tags("app")["v1"] == digest_of(raw)
    with registry.storage.lock:
        kept = set(registry.storage.find("app").blobs)
    assert kept <= {one.digest for one in blobs}
    for digest in kept:
        assert digest_of(registry.read(digest)) == digest
    return arrived


@pytest.mark.parametrize("group", range(GROUPS))
def test_faults_end_in_the_right_bytes_or_an_error(group, filled, layout, tmp_path):
    arrived, seen = Counter(), set()
    for seed in range(group, SEEDS, GROUPS):
        started = time.monotonic()
        print("seed", seed)  # noqa: T201  # shown when it fails
        if seed // GROUPS % 2:  # every other one of a group reads
            with FaultProxy(filled.address, seed=seed) as proxy:
                arrived[pull(proxy.address, tmp_path / str(seed))] += 1
            if not (tmp_path / str(seed) / "index.json").exists():
                assert not (tmp_path / str(seed)).exists()
        else:
            with (
                EmbeddedRegistry(username="me", password="s3cret") as registry,
                FaultProxy(registry.address, seed=seed) as proxy,
            ):
                arrived[push(proxy.address, registry, layout)] += 1
        seen |= {fault for fault, _ in proxy.faults}
        for head in proxy.elsewhere:
            assert b"uthorization" not in head
        assert time.monotonic() - started < 60
    assert arrived[True] >= 10  # most of it is got over
    assert len(seen) >= len(FAULTS) - 2


@pytest.mark.parametrize("kind", ["wrong bytes", "wrong length", "status 500"])
def test_fault_at_every_request_is_never_an_image(kind, filled, tmp_path):
    with FaultProxy(filled.address, seed=1, rate=1, kinds=(kind,)) as proxy:
        assert not pull(proxy.address, tmp_path / "x", PATIENT)
    assert {fault for fault, _ in proxy.faults} == {kind}
    assert not (tmp_path / "x").exists()


def test_proxy_without_faults_changes_nothing(filled, tmp_path):
    with FaultProxy(filled.address, seed=1, rate=0) as proxy:
        assert pull(proxy.address, tmp_path / "x", PATIENT)
    assert proxy.faults == []


def test_proxy_tells_how_much_it_has_passed_on(filled, tmp_path):
    """To the last byte: something may be done to the client at any of them."""
    told = []
    with FaultProxy(filled.address, seed=3, rate=0, on_sent=told.append) as proxy:
        assert pull(proxy.address, tmp_path / "copy", PATIENT)
    assert len(set(told)) == len(told)
    assert max(told) > sum(map(len, (CONFIG, *LAYERS)))


def test_proxy_waits_for_a_body_that_comes_after_its_head():
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            time.sleep(0.1)  # so that the head is passed on alone
            connection.sendall(b"body")

    thread = threading.Thread(target=answer)
    thread.start()
    with FaultProxy(f"127.0.0.1:{listener.getsockname()[1]}", seed=1, rate=0) as proxy:
        connection = http.client.HTTPConnection(proxy.address, timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"body"
        connection.close()
    thread.join()
    listener.close()


def test_proxy_same_seed_same_faults():
    found = []
    for _ in range(2):
        proxy = FaultProxy("127.0.0.1:1", seed=3, rate=0.5)
        for _ in range(200):
            proxy.choose("GET /v2/app/blobs/x HTTP/1.1")
        found.append(proxy.faults)
    assert found[0] == found[1]
    assert {fault for fault, _ in found[0]} == set(FAULTS)
