# SPDX-License-Identifier: Apache-2.0
from imagers.errors import RemoteError
from imagers.sign.formats.format import FORMATS
from imagers.sign.found import (
    BundleSignature,
    CouldNotLook,
    Found,
    Looked,
    NotationSignature,
    SigstoreSignature,
    SimpleSignature,
)

SIMPLE, BUNDLE = SimpleSignature(b"s"), BundleSignature(b"b")
SIGSTORE, NOTATION = SigstoreSignature(b"p", {}), NotationSignature(b"n", "t")


def test_found_tells_the_forms_apart():
    found = Found((SIMPLE, SIGSTORE, BUNDLE, NOTATION, SIMPLE))
    assert [len(found.of(form)) for form in FORMATS] == [2, 1, 1, 1]


def test_found_failure_counts_for_its_form_or_for_all():
    one = CouldNotLook(RemoteError("x"), "simple signing")
    every = CouldNotLook(RemoteError("y"))
    assert Found(failures=(one,)).failure("simple signing") is one
    assert Found(failures=(one,)).failure("sigstore bundle") is None
    assert Found(failures=(every,)).failure("sigstore bundle") is every


def test_found_adds_up():
    both = Found((SIMPLE,), (Looked("simple signing", "p", 1),)) + Found((BUNDLE,))
    assert both.signatures == (SIMPLE, BUNDLE)
    assert both.with_signatures([]).looked == both.looked


def test_found_everywhere_was_looked_for_and_found_nowhere_was_not():
    found = Found.everywhere([SIMPLE, BUNDLE])
    assert found.signatures == (SIMPLE, BUNDLE)
    assert [one.count for one in found.looked] == [1, 0, 1, 0]
    assert all(found.was_looked_for(form) for form in FORMATS)
    assert not any(Found((SIMPLE,)).was_looked_for(form) for form in FORMATS)
