from imagers.errors import RemoteError
from imagers.sign.found import (
    BundleSignature,
    CouldNotLook,
    Form,
    Found,
    Looked,
    NotationSignature,
    SimpleSignature,
    as_found,
)
from imagers.sign.sigstore import SigstoreSignature

SIMPLE, BUNDLE = SimpleSignature(b"s"), BundleSignature(b"b")
SIGSTORE, NOTATION = SigstoreSignature(b"p", {}), NotationSignature(b"n", "t")


def test_found_tells_the_forms_apart():
    found = Found((SIMPLE, SIGSTORE, BUNDLE, NOTATION, SIMPLE))
    assert [len(found.of(form)) for form in Form] == [2, 1, 1, 1]


def test_found_failure_counts_for_its_form_or_for_all():
    one = CouldNotLook(RemoteError("x"), Form.SIMPLE)
    every = CouldNotLook(RemoteError("y"))
    assert Found(failures=(one,)).failure(Form.SIMPLE) is one
    assert Found(failures=(one,)).failure(Form.BUNDLE) is None
    assert Found(failures=(every,)).failure(Form.BUNDLE) is every


def test_found_adds_up():
    both = Found((SIMPLE,), (Looked(Form.SIMPLE, "p", 1),)) + Found((BUNDLE,))
    assert both.signatures == (SIMPLE, BUNDLE)
    assert both.with_signatures([]).looked == both.looked


def test_found_is_made_of_what_callers_have():
    assert as_found([SIMPLE]) == Found((SIMPLE,))
    failure = CouldNotLook(RemoteError("x"))
    assert as_found(failure).failures == (failure,)
    assert as_found(Found()) == Found()
