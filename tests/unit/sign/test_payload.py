# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.model.digest import digest_of
from imagers.sign.payload import (
    MAX_PAYLOAD_BYTES,
    PayloadType,
    build_payload,
    parse_payload,
)

DIGEST = digest_of(b"manifest")
GOOD = {
    "critical": {
        "identity": {"docker-reference": "r.example/app:v1"},
        "image": {"docker-manifest-digest": str(DIGEST)},
        "type": "cosign container image signature",
    },
    "optional": None,
}


def changed(path, value):
    """GOOD with the member at `path` replaced; Ellipsis removes it."""
    document = json.loads(json.dumps(GOOD))
    place = document
    for name in path[:-1]:
        place = place[name]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document).encode()


def test_build_payload_is_what_containers_image_writes():
    raw = build_payload("r.example/app:v1", DIGEST, timestamp=17)
    assert raw == (
        b'{"critical":{"identity":{"docker-reference":"r.example/app:v1"},"image":'
        b'{"docker-manifest-digest":"' + str(DIGEST).encode() + b'"},"type":'
        b'"cosign container image signature"},"optional":{"creator":"imagers 0.1.0",'
        b'"timestamp":17}}'
    )
    parsed = parse_payload(raw)
    assert (parsed.reference, parsed.manifest_digest) == ("r.example/app:v1", DIGEST)
    assert parsed.optional["timestamp"] == 17


def test_build_payload_without_time_is_the_same_each_time():
    assert build_payload("r.example/app:v1", DIGEST) == build_payload("r.example/app:v1", DIGEST)


@pytest.mark.parametrize(
    "optional",
    [None, {}, {"timestamp": 1.0}, {"timestamp": 0}, {"creator": "x"}, {"build": {"a": [1]}}],
)
def test_parse_payload_reads_what_tools_write_beside_critical(optional):
    raw = changed(["optional"], optional)
    assert parse_payload(raw).optional == (optional or {})


@pytest.mark.parametrize(
    ("path", "value", "piece"),
    [
        (["extra"], 1, "unknown member 'extra'"),
        (["Critical"], {}, "unknown member 'Critical'"),
        (["critical"], ..., "$.critical: is missing"),
        (["optional"], ..., "$.optional: is missing"),
        (["optional"], [], "expected an object"),
        (["optional"], {"creator": 1}, "$.optional.creator: expected a string"),
        (["optional"], {"creator": None}, "$.optional.creator: is missing"),
        (["optional"], {"timestamp": 1.5}, "expected a whole number"),
        (["optional"], {"timestamp": True}, "expected a whole number"),
        (["optional"], {"timestamp": "1"}, "expected a whole number"),
        (["critical"], None, "$.critical"),
        (["critical", "extra"], 1, "unknown member 'extra'"),
        (["critical", "type"], "atomic container signature", "got 'atomic container signature'"),
        (["critical", "type"], 1, "expected a string"),
        (["critical", "type"], ..., "$.critical.type: is missing"),
        (["critical", "image"], {}, "docker-manifest-digest: is missing"),
        (["critical", "image", "x"], "", "unknown member 'x'"),
        (["critical", "image", "docker-manifest-digest"], "sha256:" + "A" * 64, "lower-case"),
        (["critical", "image", "docker-manifest-digest"], "md5:" + "a" * 32, "sha256:"),
        (["critical", "image", "docker-manifest-digest"], None, "is missing"),
        (["critical", "identity"], [], "expected an object"),
        (["critical", "identity", "docker-reference"], 5, "expected a string"),
        (["critical", "identity", "name"], "x", "unknown member 'name'"),
    ],
)
def test_parse_payload_that_differs_in_anything_is_refused(path, value, piece):
    with pytest.raises(FormatError) as caught:
        parse_payload(changed(path, value))
    assert caught.value.what == "signature payload"
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "piece"),
    [
        (b"", "is not JSON"),
        (b"null", "expected an object"),
        (json.dumps(GOOD).encode() + b"{}", "is not JSON"),
        (b'{"critical":{},"critical":{},"optional":null}', "twice"),
        (json.dumps(GOOD).encode() + b" " * MAX_PAYLOAD_BYTES, "at most"),
        (b'{"critical":{"type":"a","type":"cosign container image signature"}}', "twice"),
    ],
)
def test_parse_payload_that_is_not_one_document_is_refused(raw, piece):
    with pytest.raises(FormatError) as caught:
        parse_payload(raw)
    assert piece in str(caught.value)


@given(st.binary(max_size=200))
def test_parse_payload_any_bytes_give_format_error(raw):
    with pytest.raises(FormatError):
        parse_payload(raw)


def test_payload_of_one_form_is_none_of_the_other():
    raw = build_payload("r.example/a:1", digest_of(b"x"), kind=PayloadType.SIMPLE)
    assert parse_payload(raw, PayloadType.SIMPLE).reference == "r.example/a:1"
    with pytest.raises(FormatError, match="expected 'cosign container image signature'"):
        parse_payload(raw)
    raw = build_payload("r.example/a:1", digest_of(b"x"))
    with pytest.raises(FormatError, match="expected 'atomic container signature'"):
        parse_payload(raw, PayloadType.SIMPLE)


def test_payload_optional_null_is_only_for_sigstore():
    raw = build_payload("r.example/a:1", digest_of(b"x"), kind=PayloadType.SIMPLE)
    document = json.loads(raw) | {"optional": None}
    with pytest.raises(FormatError, match="expected an object"):
        parse_payload(json.dumps(document).encode(), PayloadType.SIMPLE)
