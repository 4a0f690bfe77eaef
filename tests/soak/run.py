# SPDX-License-Identifier: Apache-2.0
"""Guests and pulls without end in one process: what it holds does not grow, and no byte is wrong.

    python tests/soak/run.py SECONDS

A round is a key from a broker of one's own (a new guest every 50 rounds) and a copy from a
registry through a proxy that spoils answers, by the number of the round. Each copy is the image,
or one clear error and nothing left. Memory, descriptors and threads after a tenth of the time are
held against those at the end.
"""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from imagers.errors import ImagersError
from imagers.layout.oci_layout import OCILayoutSink
from imagers.model.media import Compression
from imagers.model.reference import parse_reference
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
from imagers.testing import make_image, make_layer
from imagers.testing.broker import EmbeddedBroker
from imagers.testing.fault_proxy import FaultProxy
from imagers.testing.registry import EmbeddedRegistry
from imagers.transport.copy import copy_image

URI, KEK = "kbs:///default/soak/1", bytes(range(32))
LAYERS = (bytes(range(256)) * 400, b"second layer" * 1000)
IMAGE = make_image(*(make_layer(one, Compression.NONE) for one in LAYERS))
SETTINGS = HTTPSettings(
    connect_timeout_s=5,
    read_timeout_s=0.2,
    upload_answer_timeout_s=5,
    total_timeout_s=10,
    retry=RetryPolicy(attempts=4, backoff_s=0.001),
)
ROUNDS_OF_A_GUEST = 50
MIB = 1024 * 1024
# Heaps are not returned page by page, and threads of a server come and go.
SLACK = {"MiB": 24, "descriptors": 8, "threads": 8}


def held():
    """What this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "MiB": pages * os.sysconf("SC_PAGE_SIZE") // MIB,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def client_of(name, actions):
    return RegistryClient(parse_reference(name), http=HTTPClient(SETTINGS), actions=actions)


def push(address):
    client = client_of(f"{address}/app:v1", "pull,push")
    sink = RegistrySink(client.reference, client, name="docker://app:v1")
    IMAGE.write(sink)
    sink.close()


def pull(address, path):
    """Whether the image arrived; nothing else may be there."""
    client = client_of(f"{address}/app@{IMAGE.digest}", "pull")
    source = RegistrySource(client.reference, client, name="docker://app:v1")
    sink = OCILayoutSink(path, "v1", name="oci:x:v1")
    try:
        copy_image(source, sink)
        arrived = True
    except ImagersError:
        arrived = False
    finally:
        source.close()
        sink.close()
    if not arrived:
        assert not path.exists()
        return False
    for descriptor, data in IMAGE.blobs.items():
        assert (path / "blobs" / "sha256" / descriptor.digest.hex).read_bytes() == data
    return True


def main(seconds):
    """The exit code."""
    digest = IMAGE.digest
    counts = Counter()
    early = None
    begin = time.monotonic()
    with (
        EmbeddedRegistry() as registry,
        EmbeddedBroker() as broker,
        tempfile.TemporaryDirectory() as folder,
    ):
        push(registry.address)
        broker.put(URI, KEK, image=digest)
        guest = None
        while time.monotonic() - begin < seconds:
            if counts["rounds"] % ROUNDS_OF_A_GUEST == 0:
                if guest is not None:
                    guest.close()
                guest = broker.client()
                counts["guests"] += 1
            with guest.get(URI, manifest_digest=digest) as key, key.view() as data:
                assert data == KEK
            path = Path(folder) / "layout"
            with FaultProxy(registry.address, seed=counts["rounds"]) as proxy:
                counts["images"] += pull(proxy.address, path)
            counts["faults"] += len(proxy.faults)
            shutil.rmtree(path, ignore_errors=True)
            registry.requests.clear()  # what a test would look at
            counts["rounds"] += 1
            if early is None and time.monotonic() - begin > seconds / 10:
                early = held()
        guest.close()
        late = held()
    sys.stdout.write(
        f"soak: {seconds} s, {counts['rounds']} rounds with {counts['guests']} guests, "
        f"{counts['faults']} faults, {counts['images']} images; held {early}, at the end {late}\n"
    )
    grown = [name for name, slack in SLACK.items() if late[name] > early[name] + slack]
    if grown:
        sys.stdout.write(f"soak: grown: {', '.join(grown)}\n")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
