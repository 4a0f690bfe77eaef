# SPDX-License-Identifier: Apache-2.0
"""Names of layouts in tars."""

from imagers.layout.archive.oci import OCIArchiveSink, OCIArchiveSource
from imagers.transport.kinds.oci_archive import TRANSPORT
from imagers.transport.names import ImageName
from imagers.transport.open import TransportOptions


def test_name_is_that_of_a_layout():
    assert TRANSPORT.parse("a.tar:v1", "") == ImageName("oci-archive", path="a.tar", ref="v1")


def test_source_and_sink_are_an_archive(tmp_path):
    name = ImageName("oci-archive", path=str(tmp_path / "x.tar"))
    with TRANSPORT.open_source(name, TransportOptions()) as source:
        assert isinstance(source, OCIArchiveSource)
    with TRANSPORT.open_sink(name, TransportOptions()) as sink:
        assert isinstance(sink, OCIArchiveSink)
