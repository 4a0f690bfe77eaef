# SPDX-License-Identifier: Apache-2.0
"""Without an engine; real ones are in tests/interop/test_engines.py."""

import pytest

from imagers.errors import RemoteError, UsageError
from imagers.transport.names import parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source


def test_daemon_that_is_not_there_is_told_at_the_first_use(tmp_path):
    options = TransportOptions(daemon_host=f"unix://{tmp_path}/none")
    source = open_source(parse_image_name("docker-daemon:app"), options)
    with pytest.raises(RemoteError, match="no such file") as caught:
        source.read_manifest()
    assert caught.value.temporary
    assert "--daemon-host" in caught.value.hint
    source.close()


def test_daemon_sink_needs_a_name():
    with pytest.raises(UsageError, match="name to write to"):
        open_sink(parse_image_name("docker-daemon:sha256:" + "0" * 64))


@pytest.mark.parametrize("host", ["tcp://u:secret@127.0.0.1:1", "u:secret@h"])
def test_engine_with_a_password_in_its_address_is_named_without_it(host, caplog):
    caplog.set_level("DEBUG", "imagers")
    source = open_source(parse_image_name("docker-daemon:app"), TransportOptions(daemon_host=host))
    with pytest.raises(RemoteError, match="did not answer") as caught:
        source.read_manifest()
    source.close()
    assert "secret" not in f"{caught.value} {caught.value.hint} {caplog.text}"
