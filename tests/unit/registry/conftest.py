# SPDX-License-Identifier: Apache-2.0
"""A client for the embedded registry, and an image of a few bytes in it."""

import os
from contextlib import ExitStack

import pytest
import trustme

from imagers.model.media import Compression
from imagers.model.reference import parse_reference
from imagers.net.http import HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.sink import RegistrySink
from imagers.registry.source import RegistrySource
from imagers.testing import EmbeddedRegistry, make_image, make_layer


@pytest.fixture
def image():
    return make_image(make_layer(os.urandom(3_000_000), Compression.NONE))


@pytest.fixture
def registry():
    with EmbeddedRegistry() as one:
        yield one


class Opener:
    """Opens clients, sources and sinks, and closes them after the test."""

    def __init__(self, stack):
        self._stack = stack
        self.settings = HTTPSettings(
            connect_timeout_s=20,
            read_timeout_s=20,
            upload_answer_timeout_s=3,
            retry=RetryPolicy(attempts=3, backoff_s=0.001),
        )

    def client(self, text, *, actions="pull", credentials=None, settings=None):
        http = HTTPClient(settings or self.settings)
        client = RegistryClient(
            parse_reference(text), http=http, credentials=credentials, actions=actions
        )
        self._stack.callback(client.close)
        return client

    def source(self, text, **options):
        return RegistrySource(
            parse_reference(text), self.client(text, **options), name=f"docker://{text}"
        )

    def sink(self, text, **options):
        client = self.client(text, actions="pull,push", **options)
        return RegistrySink(parse_reference(text), client, name=f"docker://{text}")


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield Opener(stack)


@pytest.fixture
def pushed(registry, opened, image):
    """The image, already in the registry as app:v1."""
    image.write(opened.sink(f"{registry.address}/app:v1"))
    registry.requests.clear()
    return image


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()
