# SPDX-License-Identifier: Apache-2.0
"""Names of layouts."""

import pytest

from imagers.errors import FormatError
from imagers.layout.oci_layout import OCILayoutSink, OCILayoutSource
from imagers.transport.kinds.oci import TRANSPORT
from imagers.transport.names import ImageName
from imagers.transport.open import TransportOptions


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("a/b", ImageName("oci", path="a/b")),
        ("a:v1", ImageName("oci", path="a", ref="v1")),
        ("a:x/y:v1", ImageName("oci", path="a", ref="x/y:v1")),
        ("a:@12", ImageName("oci", path="a", position=12)),
    ],
)
def test_name_is_a_path_and_an_entry(rest, name):
    assert TRANSPORT.parse(rest, f"oci:{rest}") == name
    assert str(name) == f"oci:{rest}"


def test_entry_that_can_be_no_name_is_refused():
    with pytest.raises(FormatError, match="expected a name or @N") as caught:
        TRANSPORT.parse("a:-", "oci:a:-")
    assert caught.value.hint.startswith("oci:PATH:REF")


def test_source_and_sink_are_a_layout(tmp_path):
    name = ImageName("oci", path=str(tmp_path / "x"), ref="v1")
    with TRANSPORT.open_source(name, TransportOptions()) as source:
        assert isinstance(source, OCILayoutSource)
    with TRANSPORT.open_sink(name, TransportOptions()) as sink:
        assert isinstance(sink, OCILayoutSink)
