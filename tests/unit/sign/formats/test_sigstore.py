# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError, Unsupported
from imagers.model.digest import digest_of
from imagers.model.media import OCI_INDEX, OCI_MANIFEST
from imagers.sign.formats.sigstore import (
    MAX_SIGNATURES,
    SIGNATURE_ANNOTATION,
    build_signature_manifest,
    decode_signature,
    parse_signature_manifest,
    sign_payload,
    signature_tag,
)
from imagers.sign.found import PAYLOAD_TYPE, SigstoreSignature
from imagers.sign.payload import MAX_PAYLOAD_BYTES, build_payload


def signature(number=0):
    return SigstoreSignature(f"payload {number}".encode(), {SIGNATURE_ANNOTATION: "AAAA"})


def parse(raw):
    return parse_signature_manifest(raw, media_type=OCI_MANIFEST)


def test_signature_tag_is_the_digest_with_a_suffix():
    digest = digest_of(b"")
    assert signature_tag(digest) == f"sha256-{digest.hex}.sig"


def test_sign_payload_is_good_over_the_exact_bytes(key):
    payload = build_payload("r.example/app:v1", digest_of(b""))
    signed = sign_payload(payload, key)
    assert key.public_key.is_good(decode_signature(signed.annotations), payload)
    assert signed.payload == payload


def test_build_signature_manifest_is_what_cosign_writes():
    raw, config = build_signature_manifest(None, [signature(1), signature(2)])
    document = json.loads(raw)
    assert list(document) == ["schemaVersion", "mediaType", "config", "layers"]
    assert document["config"]["digest"] == str(digest_of(config))
    assert document["layers"][0] == {
        "mediaType": PAYLOAD_TYPE,
        "digest": str(digest_of(b"payload 1")),
        "size": 9,
        "annotations": {SIGNATURE_ANNOTATION: "AAAA"},
    }
    rootfs = json.loads(config)["rootfs"]
    assert rootfs == {
        "type": "layers",
        "diff_ids": [str(digest_of(b"payload 1")), str(digest_of(b"payload 2"))],
    }


def test_build_signature_manifest_keeps_all_that_is_there():
    raw, _ = build_signature_manifest(None, [signature(1)])
    document = json.loads(raw)
    document["annotations"] = {"a": "b"}
    document["unknown"] = [1]
    document["layers"][0]["unknown"] = 2
    other = {**document["layers"][0], "mediaType": "application/vnd.dsse.envelope.v1+json"}
    document["layers"].insert(0, other)
    existing = parse(json.dumps(document).encode())
    assert (len(existing.signatures), existing.others) == (1, 1)
    raw, config = build_signature_manifest(existing, [signature(2)])
    result = json.loads(raw)
    assert result["layers"][:2] == document["layers"]
    assert (result["annotations"], result["unknown"]) == ({"a": "b"}, [1])
    assert len(result["layers"]) == len(json.loads(config)["rootfs"]["diff_ids"]) == 3


def test_build_signature_manifest_beyond_the_bound_is_refused_before_it_is_written():
    raw, _ = build_signature_manifest(None, [signature(n) for n in range(MAX_SIGNATURES)])
    assert len(parse(raw).signatures) == MAX_SIGNATURES
    with pytest.raises(FormatError) as caught:
        build_signature_manifest(parse(raw), [signature()])
    assert f"this would make {MAX_SIGNATURES + 1}" in str(caught.value)


def test_build_signature_manifest_over_something_else_is_refused():
    raw, _ = build_signature_manifest(None, [])
    document = json.loads(raw)
    document["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"
    with pytest.raises(FormatError) as caught:
        build_signature_manifest(parse(json.dumps(document).encode()), [signature()])
    assert caught.value.where == "$.config.mediaType"


def test_parse_signature_manifest_beyond_a_bound_is_refused():
    raw, _ = build_signature_manifest(None, [signature()])
    document = json.loads(raw)
    many = {**document, "layers": document["layers"] * (MAX_SIGNATURES + 1)}
    with pytest.raises(FormatError) as caught:
        parse(json.dumps(many).encode())
    assert f"expected at most {MAX_SIGNATURES} signatures, got {MAX_SIGNATURES + 1}" in str(
        caught.value
    )
    document["layers"][0]["size"] = MAX_PAYLOAD_BYTES + 1
    with pytest.raises(FormatError) as caught:
        parse(json.dumps(document).encode())
    assert "signature 1" in caught.value.where


def test_parse_signature_manifest_of_an_index_is_unsupported():
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    with pytest.raises((FormatError, Unsupported)):
        parse_signature_manifest(raw, media_type=OCI_INDEX)


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("A", "expected base64"),
        ("AA=A", "expected base64"),
        ("AA AA", "expected base64"),
        ("A" * 4097, "at most"),
    ],
)
def test_decode_signature_that_is_none_is_refused(text, piece):
    with pytest.raises(FormatError) as caught:
        decode_signature({SIGNATURE_ANNOTATION: text})
    assert piece in str(caught.value)
