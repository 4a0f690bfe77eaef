# SPDX-License-Identifier: Apache-2.0
"""Names of images of an engine."""

import pytest

from imagers.errors import UsageError
from imagers.model.digest import digest_of
from imagers.model.reference import parse_reference
from imagers.transport.daemon import DaemonSource
from imagers.transport.kinds.docker_daemon import TRANSPORT
from imagers.transport.names import ImageName
from imagers.transport.open import TransportOptions

ID = digest_of(b"config")


def test_name_is_a_reference_or_an_id():
    assert TRANSPORT.parse("app", "").reference == parse_reference("app:latest")
    assert TRANSPORT.parse(str(ID), "") == ImageName("docker-daemon", image_id=ID)


def test_identity_of_an_id_has_no_scope_that_a_policy_can_name():
    identity = TRANSPORT.identity(ImageName("docker-daemon", image_id=ID))
    assert (identity.reference, identity.scopes) == (None, (str(ID),))


def test_source_asks_nobody_yet():
    name = TRANSPORT.parse(str(ID), "")
    with TRANSPORT.open_source(name, TransportOptions(daemon_host="unix:///none")) as source:
        assert isinstance(source, DaemonSource)


@pytest.mark.parametrize("rest", [str(ID), f"app@{ID}"])
def test_sink_wants_a_tag(rest):
    with pytest.raises(UsageError, match="expected a name to write to") as caught:
        TRANSPORT.open_sink(TRANSPORT.parse(rest, ""), TransportOptions())
    assert caught.value.hint == "docker-daemon:NAME:TAG"
