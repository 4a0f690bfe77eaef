"""What is particular to signatures under a tag; the judge's answers are in test_judge.py."""

import pytest

from imagers.errors import CouldNotVerify, RemoteError
from imagers.model.digest import digest_of
from imagers.sign.find import Places
from imagers.sign.formats.sigstore import signature_tag
from imagers.sign.formats.sigstore_signed import FORMAT, find_signatures
from imagers.sign.found import Found, SigstoreSignature, UnreadableSignature

DIGEST = digest_of(b"an image")


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
