# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import FormatError
from imagers.kbs.resources import ResourcePath, parse_resource_path, parse_resource_uri


def test_parse_resource_uri_three_segments_gives_path_and_back():
    path = parse_resource_uri("kbs:///default/image_kek/key-1.v2")
    assert path == ResourcePath("default", "image_kek", "key-1.v2")
    assert path.uri == "kbs:///default/image_kek/key-1.v2"
    assert str(path) == "default/image_kek/key-1.v2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "default/key/1",
        "kbs://default/key/1",
        "kbs://host:8080/default/key/1",
        "kbs+pkcs11:///default/key/1",
        "https:///default/key/1",
        "KBS:///default/key/1",
        "kbs:///key/1",
        "kbs:///default/key/1/2",
        "kbs:///default/key/",
        "kbs:////key/1",
        "kbs:///default/../1",
        "kbs:///default/.key/1",
        "kbs:///default/key/1?x=y",
        "kbs:///default/key/1#x",
        "kbs:///default/k%65y/1",
        "kbs:///default/key/1\n",
        "kbs:///default/k\u00e9y/1",
        "kbs:///default/key/" + "x" * 256,
    ],
)
def test_parse_resource_uri_other_text_refused(text):
    with pytest.raises(FormatError, match=r"expected 'kbs:///rep|expected 'repository/type/tag'"):
        parse_resource_uri(text)


def test_parse_resource_path_many_slashes_refused_without_splitting_them_all():
    with pytest.raises(FormatError) as caught:
        parse_resource_path("a/b/c" + "/" * 1_000_000, what="path")
    assert caught.value.what == "path"
    assert len(str(caught.value)) < 400
