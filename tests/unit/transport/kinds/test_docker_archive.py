# SPDX-License-Identifier: Apache-2.0
"""Names of images in tars for Docker."""

import pytest

from imagers.errors import FormatError
from imagers.layout.archive.docker import DockerArchiveSink, DockerArchiveSource
from imagers.model.reference import parse_reference
from imagers.transport.kinds.docker_archive import TRANSPORT
from imagers.transport.names import ImageName
from imagers.transport.open import TransportOptions


@pytest.mark.parametrize(
    ("rest", "more"),
    [
        ("a.tar", {}),
        ("a.tar:@1", {"position": 1}),
        ("a.tar:app:v1", {"reference": parse_reference("app:v1")}),
    ],
)
def test_name_is_a_path_and_a_reference(rest, more):
    assert TRANSPORT.parse(rest, "") == ImageName("docker-archive", path="a.tar", **more)


def test_digest_is_refused():
    with pytest.raises(FormatError, match="expected a name with a tag") as caught:
        TRANSPORT.parse(f"a.tar:app@sha256:{'0' * 64}", "")
    assert caught.value.hint == "archives for Docker know no digests"


def test_source_and_sink_are_an_archive(tmp_path):
    name = ImageName("docker-archive", path=str(tmp_path / "x.tar"))
    with TRANSPORT.open_source(name, TransportOptions()) as source:
        assert isinstance(source, DockerArchiveSource)
    with TRANSPORT.open_sink(name, TransportOptions()) as sink:
        assert isinstance(sink, DockerArchiveSink)
