# SPDX-License-Identifier: Apache-2.0
"""What is particular to signatures under a tag; the judge's answers are in test_judge.py."""

import pytest

from imagers.errors import CouldNotVerify, RemoteError
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.sign.find import Places
from imagers.sign.formats.sigstore import (
    SIGNATURE_ANNOTATION,
    build_signature_manifest,
    signature_tag,
)
from imagers.sign.formats.sigstore_signed import FORMAT, find_signatures
from imagers.sign.found import PAYLOAD_TYPE, Found, SigstoreSignature, UnreadableSignature
from imagers.sign.requirements import Strict

DIGEST = digest_of(b"an image")
KEY = "-----BEGIN PUBLIC KEY-----"
FULCIO = {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}
PKI = {"caRootsPath": "/ca", "subjectEmail": "a@b"}


def test_without_a_repository_nobody_is_asked():
    assert FORMAT.find(Places(), DIGEST) == Found()


def test_tag_that_is_not_there_is_an_answer(repository):
    found = FORMAT.find(Places(repository=repository), DIGEST)
    assert [(one.format, one.place, one.count) for one in found.looked] == [
        ("sigstore", f"tag {signature_tag(DIGEST)}", 0)
    ]


def test_tag_that_cannot_be_read_is_no_answer(repository, monkeypatch):
    def fail(_tag):
        raise RemoteError("down", status=503)

    monkeypatch.setattr(repository, "read_tag", fail)
    found = FORMAT.find(Places(repository=repository), DIGEST)
    (failure,) = found.failures
    assert (failure.format, found.looked) == ("sigstore", ())
    assert isinstance(failure.error, CouldNotVerify)
    with pytest.raises(CouldNotVerify, match="down"):
        find_signatures(repository, DIGEST)


def test_payload_of_another_type_is_no_candidate():
    assert FORMAT.is_candidate(SigstoreSignature(b"", {}))
    assert not FORMAT.is_candidate(SigstoreSignature(b"", {}, "text/plain"))
    assert FORMAT.is_candidate(UnreadableSignature(RemoteError("x"), "sigstore"))


def test_hint_is_about_bundles_where_there_are_some():
    assert FORMAT.hint_beside(["notation"]) == ""
    assert "demand sigstoreBundle" in FORMAT.hint_beside(["notation", "sigstore bundle"])
    assert "not seen by sigstoreSigned" in FORMAT.hint


@pytest.mark.parametrize(
    ("members", "note"),
    [
        ({"fulcio": FULCIO, "rekorPublicKeyPath": "/r"}, "fulcio and keys of Rekor logs"),
        ({"pki": PKI}, "pki"),
        ({"keyPaths": ["/a", "/b"]}, "several keys"),
        ({"keyDatas": [KEY, KEY]}, "several keys"),
    ],
)
def test_notes_name_what_image_rs_does_not_know(members, note):
    strict = Strict({"type": "sigstoreSigned", **members}, what="policy", where="here")
    assert list(FORMAT.notes(FORMAT.parse(strict))) == [
        f"image-rs does not know {note} in sigstoreSigned"
    ]


def test_payload_that_is_not_there_is_named_by_its_number(repository):
    for payload in (b"1", b"2"):
        repository.put_blob(Descriptor(PAYLOAD_TYPE, digest_of(payload), 1), payload, what="x")
    signatures = [SigstoreSignature(one, {SIGNATURE_ANNOTATION: "AAAA"}) for one in (b"1", b"2")]
    raw, config = build_signature_manifest(None, signatures)
    repository.put_blob(Descriptor("x/y", digest_of(config), len(config)), config, what="x")
    repository.put_manifest_as(raw, OCI_MANIFEST, signature_tag(DIGEST))
    assert [one.payload for one in find_signatures(repository, DIGEST)] == [b"1", b"2"]
    del repository.blobs[digest_of(b"2")]
    with pytest.raises(CouldNotVerify, match="signature 2 of 2"):
        find_signatures(repository, DIGEST)
