# SPDX-License-Identifier: Apache-2.0
"""Names in registries, and who is asked for them."""

import pytest

from imagers.errors import FormatError
from imagers.model.identity import docker_identity
from imagers.model.reference import parse_reference
from imagers.registry.source import RegistrySource
from imagers.transport.kinds.docker import TRANSPORT
from imagers.transport.open import TransportOptions


def test_name_has_two_slashes():
    name = TRANSPORT.parse("//r.example/app:v1", "docker://r.example/app:v1")
    assert str(name) == "docker://r.example/app:v1"
    with pytest.raises(FormatError, match="expected 'docker://' and a name") as caught:
        TRANSPORT.parse("v1", "docker:v1")
    assert caught.value.hint.endswith("docker://docker.io/library/docker:v1")


def test_identity_is_that_of_the_reference():
    name = TRANSPORT.parse("//r.example/app:v1", "")
    assert TRANSPORT.identity(name) == docker_identity(parse_reference("r.example/app:v1"))


def test_source_is_one_registry():
    name = TRANSPORT.parse("//127.0.0.1:1/app:v1", "")
    with TRANSPORT.open_source(name, TransportOptions()) as source:
        assert isinstance(source, RegistrySource)
