# SPDX-License-Identifier: Apache-2.0
"""Bundles of cosign 3, ours and theirs."""

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, ImagersError, SignatureInvalid, Unsupported
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest
from imagers.sign.formats.bundle import (
    build_bundle,
    build_bundle_manifest,
    check_statement,
    parse_bundle_file,
)
from imagers.sign.found import BUNDLE_TYPE

RAW = b"a manifest"
VECTOR = "signed/cosign3-bundle/repository/blobs/sha256/"
VECTOR += "cfca82392bf7f3b9f04412ed17c2fd54625b0c394d4904ea8331be62b037ca96"


def test_bundle_of_ours_is_read_back(key):
    bundle = parse_bundle_file(build_bundle(digest_of(RAW), key))
    assert key.public_key.is_good(bundle.evidence.signature, bundle.evidence.data)
    check_statement(bundle.payload, RAW, what="x", noun="manifest")
    with pytest.raises(SignatureInvalid, match="another manifest"):
        check_statement(bundle.payload, RAW + b" ", what="x", noun="manifest")


def test_bundle_of_ours_has_the_members_of_cosign(key, vectors):
    theirs = json.loads((vectors / VECTOR).read_bytes())
    ours = json.loads(build_bundle(digest_of(RAW), key))

    def shape(value):
        return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else type(value)

    assert shape(ours) == shape(theirs)
    statements = [
        json.loads(base64.b64decode(d["dsseEnvelope"]["payload"])) for d in (ours, theirs)
    ]
    assert sorted(statements[0]) == sorted(statements[1])


def test_bundle_manifest_is_a_manifest_that_refers_to_its_subject(key):
    subject = Descriptor("application/vnd.oci.image.manifest.v1+json", digest_of(RAW), len(RAW))
    raw = build_bundle_manifest(subject, b"bundle", created=datetime(2026, 1, 2, tzinfo=UTC))
    manifest = parse_manifest(raw)
    assert manifest.subject == subject
    assert manifest.artifact_type == BUNDLE_TYPE
    assert manifest.annotations["org.opencontainers.image.created"] == "2026-01-02T00:00:00Z"
    assert key


@pytest.fixture
def document(key):
    return json.loads(build_bundle(digest_of(RAW), key))


def edit(document, path, value):
    *parents, last = path
    for one in parents:
        document = document[one]
    if value is None:
        del document[last]
    else:
        document[last] = value


@pytest.mark.parametrize(
    ("error", "path", "value"),
    [
        (Unsupported, ["mediaType"], "application/vnd.dev.sigstore.bundle+json;version=0.1"),
        (Unsupported, ["messageSignature"], {}),
        (Unsupported, ["dsseEnvelope"], None),
        (FormatError, ["mediaType"], None),
        (FormatError, ["verificationMaterial"], None),
        (FormatError, ["verificationMaterial", "publicKey"], None),
        (FormatError, ["verificationMaterial", "certificate"], {"rawBytes": "AAAA"}),
        (FormatError, ["dsseEnvelope", "payloadType"], "text/plain"),
        (FormatError, ["dsseEnvelope", "payload"], "!"),
        (FormatError, ["dsseEnvelope", "signatures"], []),
        (FormatError, ["dsseEnvelope", "signatures"], [{"sig": "AA=="}] * 2),
        (FormatError, ["dsseEnvelope", "signatures"], ["x"]),
        (FormatError, ["verificationMaterial", "tlogEntries"], [{}] * 17),
        (FormatError, ["verificationMaterial", "tlogEntries"], [{"inclusionPromise": {}}]),
        (
            FormatError,
            ["verificationMaterial", "timestampVerificationData"],
            {"rfc3161Timestamps": 1},
        ),
    ],
)
def test_bundle_of_another_shape_is_refused(document, error, path, value):
    edit(document, path, value)
    with pytest.raises(error):
        parse_bundle_file(json.dumps(document).encode())


def test_bundle_entry_with_a_proof_alone_is_no_promise(document):
    document["verificationMaterial"]["tlogEntries"] = [{"inclusionProof": {}}]
    assert parse_bundle_file(json.dumps(document).encode()).evidence.entries == ()


def test_bundle_entry_is_read_with_numbers_as_text(document):
    document["verificationMaterial"]["tlogEntries"] = [
        {
            "logIndex": "12",
            "logId": {"keyId": "qg=="},
            "integratedTime": "1795000000",
            "inclusionPromise": {"signedEntryTimestamp": "AA=="},
            "canonicalizedBody": "e30=",
        }
    ]
    (entry,) = parse_bundle_file(json.dumps(document).encode()).evidence.entries
    assert (entry.log_index, entry.integrated_time, entry.log_id) == (12, 1795000000, "aa")


def statement(**changes):
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": digest_of(RAW).hex}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
            **changes,
        }
    ).encode()


@pytest.mark.parametrize(
    ("piece", "changes"),
    [
        ("another kind", {"predicateType": "https://spdx.dev/Document"}),
        ("another kind", {"_type": "https://in-toto.io/Statement/v0.1"}),
        ("another manifest", {"subject": [{"digest": {"sha256": "0" * 64}}]}),
        ("another manifest", {"subject": [{"digest": {"sha512": "0" * 128}}]}),
        ("a list that is not empty", {"subject": []}),
        ("statement", {"subject": "x"}),
        ("statement", {"subject": [{}]}),
    ],
)
def test_statement_that_is_no_signature_of_the_manifest_is_refused(piece, changes):
    """An SBOM that the same key attested must not count as a signature."""
    with pytest.raises(SignatureInvalid) as caught:
        check_statement(statement(**changes), RAW, what="x", noun="manifest")
    assert piece in str(caught.value)


@given(st.binary(max_size=200))
def test_bundle_of_any_bytes_is_read_or_refused(raw):
    with pytest.raises(ImagersError):
        parse_bundle_file(raw)
