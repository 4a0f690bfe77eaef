# SPDX-License-Identifier: Apache-2.0
"""Big blobs in parts from docker-registry; the parts are small here."""

import os
from contextlib import closing

import pytest

from imagers.errors import RemoteError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_LAYER
from imagers.model.reference import parse_reference
from imagers.model.stream import read_all
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.ranges import Ranges
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource

PARTS = Ranges(4, part_bytes=256 * 1024, least_bytes=1024 * 1024)
SETTINGS = HTTPSettings(retry=RetryPolicy(attempts=2, backoff_s=0.001))


class Counting(HTTPClient):
    """Keeps the statuses of what is streamed."""

    statuses: list[int]

    def open(self, *words, **options):
        stream = super().open(*words, **options)
        self.statuses.append(stream.status)
        return stream


def put(address, data):
    reference = parse_reference(f"{address}/ranges/app:v1")
    client = RegistryClient(reference, http=HTTPClient(SETTINGS), actions="pull,push")
    layer = Descriptor(OCI_LAYER, digest_of(data), len(data))
    with closing(RegistrySink(reference, client, name="docker://ranges")) as sink:
        sink.put_blob(layer, data, what="layer")
    http = Counting(SETTINGS)
    http.statuses = []
    client = RegistryClient(reference, http=http)
    return RegistrySource(reference, client, name="docker://ranges", ranges=PARTS), layer


def test_docker_registry_gives_every_part(docker_registry):
    data = os.urandom(8_000_001)
    source, layer = put(docker_registry.address, data)
    with closing(source), source.open_blob(layer, what="layer") as stream:
        assert read_all(stream, size=len(data)) == data
    statuses = source._client.http.statuses
    assert statuses == [206] * 31


def test_docker_registry_that_dies_in_the_middle_is_one_error(start_docker_registry):
    registry = start_docker_registry()
    data = os.urandom(8_000_000)
    source, layer = put(registry.address, data)

    def read():
        with source.open_blob(layer, what="layer") as stream:
            buffer = memoryview(bytearray(100_000))
            stream.readinto(buffer)
            registry.stop()
            while stream.readinto(buffer):
                pass

    with closing(source), pytest.raises(RemoteError, match="layer: broke off after") as caught:
        read()
    assert caught.value.temporary
