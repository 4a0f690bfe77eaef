# SPDX-License-Identifier: Apache-2.0
"""Descriptors: the handle of a blob, from hostile JSON."""

import pytest

from imagers.errors import FormatError
from imagers.model.descriptor import Descriptor, Platform, parse_descriptor
from imagers.model.digest import Digest
from imagers.model.strict_json import View

DIGEST = "sha256:" + "a" * 64
GOOD = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    "digest": DIGEST,
    "size": 12,
}


def parse(value):
    return parse_descriptor(View(value, what="manifest", where="$.layers[2]"))


def changed(**members):
    return {name: value for name, value in {**GOOD, **members}.items() if value is not ...}


def test_parse_descriptor_full_one_gives_its_parts_and_writes_them_again():
    value = {
        **GOOD,
        "annotations": {"a": "b"},
        "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
        "artifactType": "application/x",
    }
    descriptor = parse(value)
    assert descriptor.digest == Digest("sha256", "a" * 64)
    assert descriptor.size == 12
    assert descriptor.platform == Platform("linux", "arm64", "v8")
    assert descriptor.annotations == {"a": "b"}
    assert descriptor.artifact_type == "application/x"
    assert descriptor.to_json() == value


def test_parse_descriptor_unknown_members_are_passed_over():
    assert parse(changed(urls=["http://example.org/"], data="AAAA", x=None)) == parse(GOOD)


def test_descriptor_annotations_are_read_only_and_do_not_share_the_document():
    annotations = {"a": "b"}
    descriptor = parse(changed(annotations=annotations))
    annotations["a"] = "c"
    assert descriptor.annotations["a"] == "b"
    with pytest.raises(TypeError):
        descriptor.annotations["a"] = "d"


def test_descriptors_that_differ_in_annotations_are_not_equal_and_can_be_hashed():
    one, two = parse(changed(annotations={"a": "b"})), parse(changed(annotations={"a": "c"}))
    assert one != two
    assert one == parse(changed(annotations={"a": "b"}))
    assert len({one, two}) == 2


def test_platform_text_leaves_out_what_is_empty():
    assert str(Platform("linux", "arm", "v7")) == "linux/arm/v7"
    assert str(Platform("linux", "amd64")) == "linux/amd64"


@pytest.mark.parametrize(
    ("value", "where", "piece"),
    [
        pytest.param([], "", "expected an object", id="a list"),
        pytest.param(None, "", "expected an object", id="null"),
        pytest.param(changed(mediaType=...), ".mediaType", "is missing", id="no media type"),
        pytest.param(changed(mediaType=None), ".mediaType", "is missing", id="null media type"),
        pytest.param(changed(mediaType=""), ".mediaType", "media type", id="empty media type"),
        pytest.param(changed(mediaType="tar"), ".mediaType", "media type", id="no slash"),
        pytest.param(changed(mediaType="a/b/c"), ".mediaType", "media type", id="two slashes"),
        pytest.param(changed(mediaType="a/b\n"), ".mediaType", "media type", id="new line in type"),
        pytest.param(changed(mediaType="a/b; c=d"), ".mediaType", "media type", id="parameter"),
        pytest.param(changed(mediaType="ä/b"), ".mediaType", "media type", id="not ASCII"),
        pytest.param(changed(mediaType="a/" + "b" * 128), ".mediaType", "media type", id="long"),
        pytest.param(changed(mediaType=7), ".mediaType", "a string, got a number", id="number"),
        pytest.param(changed(digest=...), ".digest", "is missing", id="no digest"),
        pytest.param(changed(digest="sha256:1"), ".digest", "64 lower-case", id="short digest"),
        pytest.param(changed(digest={}), ".digest", "got an object", id="digest an object"),
        pytest.param(changed(size=...), ".size", "is missing", id="no size"),
        pytest.param(changed(size=None), ".size", "is missing", id="null size"),
        pytest.param(changed(size=-1), ".size", "from 0 to", id="negative size"),
        pytest.param(changed(size=2**63), ".size", "from 0 to", id="size beyond an int64"),
        pytest.param(changed(size=1.0), ".size", "whole number", id="size a fraction"),
        pytest.param(changed(size=True), ".size", "got a boolean", id="size a boolean"),
        pytest.param(changed(size="1"), ".size", "got a string", id="size a string"),
        pytest.param(changed(annotations=[]), ".annotations", "got a list", id="annotations"),
        pytest.param(
            changed(annotations={"x": 1}), ".annotations['x']", "got a number", id="annotation"
        ),
        pytest.param(changed(platform="linux"), ".platform", "got a string", id="platform text"),
        pytest.param(
            changed(platform={"os": "linux", "architecture": "arm", "variant": 7}),
            ".platform.variant",
            "got a number",
            id="variant a number",
        ),
        pytest.param(changed(artifactType=[]), ".artifactType", "got a list", id="artifact type"),
        pytest.param(changed(Size=1), "", "expected 'size', got 'Size'", id="second spelling"),
        pytest.param({**GOOD, "dige\u017ft": DIGEST}, "", "expected 'digest'", id="long s"),
        pytest.param(
            changed(platform={"os": "linux", "architecture": "arm", "OS": "windows"}),
            ".platform",
            "expected 'os', got 'OS'",
            id="second spelling in the platform",
        ),
    ],
)
def test_parse_descriptor_bad_member_refused_with_its_place(value, where, piece):
    with pytest.raises(FormatError) as caught:
        parse(value)
    assert caught.value.where == "$.layers[2]" + where
    assert piece in str(caught.value)


def test_descriptor_made_in_code_has_no_annotations_by_default():
    descriptor = Descriptor("a/b", Digest("sha256", "a" * 64), 0)
    assert descriptor.to_json() == {"mediaType": "a/b", "digest": DIGEST, "size": 0}


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
URLS = ["https://example.org/layer"]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"mediaType": FOREIGN, "urls": URLS}, True),
        ({"mediaType": OCI_FOREIGN, "urls": URLS}, True),
        ({"mediaType": OCI_FOREIGN, "urls": []}, False),
        ({"mediaType": OCI_FOREIGN, "urls": None}, False),
        ({"mediaType": OCI_FOREIGN}, False),
        ({"urls": URLS}, False),
        ({"mediaType": OCI_FOREIGN + "+encrypted", "urls": URLS}, False),
    ],
)
def test_descriptor_is_reference_with_a_foreign_type_and_urls(members, expected):
    assert parse(changed(**members)).is_reference is expected


def test_parse_descriptor_urls_that_are_no_list_refused():
    with pytest.raises(FormatError, match="expected a list"):
        parse(changed(urls="https://example.org/"))
