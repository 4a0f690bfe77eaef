# SPDX-License-Identifier: Apache-2.0
"""Names of directories."""

from imagers.layout.directory import DirectorySink, DirectorySource
from imagers.transport.kinds.directory import TRANSPORT
from imagers.transport.names import ImageName
from imagers.transport.open import TransportOptions


def test_name_is_all_a_path():
    assert TRANSPORT.parse("/a:b:c", "dir:/a:b:c") == ImageName("dir", path="/a:b:c")


def test_source_and_sink_are_a_directory(tmp_path):
    name = ImageName("dir", path=str(tmp_path / "x"))
    with TRANSPORT.open_source(name, TransportOptions()) as source:
        assert isinstance(source, DirectorySource)
    with TRANSPORT.open_sink(name, TransportOptions()) as sink:
        assert isinstance(sink, DirectorySink)
