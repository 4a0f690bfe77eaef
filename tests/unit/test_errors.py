# SPDX-License-Identifier: Apache-2.0
"""The error tree: its shape, its exit codes, and messages that are one harmless line."""

import copy
import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers import errors
from imagers.errors import (
    DigestMismatch,
    FormatError,
    ImagersError,
    KeyRefused,
    LocalError,
    NoMatchingKey,
    PluginNotFound,
    RemoteError,
    SizeMismatch,
    TagMismatch,
    TrailingData,
    Truncated,
    Unsupported,
)

# Class, its parent, its exit code: the tree of the documentation, and nothing beside it.
TREE = [
    ("ImagersError", "Exception", 1),
    ("UsageError", "ImagersError", 2),
    ("Cancelled", "ImagersError", 130),
    ("TimedOut", "Cancelled", 124),
    ("FormatError", "ImagersError", 11),
    ("Unsupported", "ImagersError", 12),
    ("WindowTooLarge", "Unsupported", 12),
    ("LocalError", "ImagersError", 13),
    ("IntegrityError", "ImagersError", 20),
    ("DigestMismatch", "IntegrityError", 20),
    ("SizeMismatch", "IntegrityError", 20),
    ("TagMismatch", "IntegrityError", 20),
    ("Truncated", "IntegrityError", 20),
    ("TrailingData", "IntegrityError", 20),
    ("VerificationError", "ImagersError", 21),
    ("SignatureInvalid", "VerificationError", 21),
    ("NoSignature", "VerificationError", 21),
    ("UntrustedSigner", "VerificationError", 21),
    ("PolicyDenied", "VerificationError", 21),
    ("CouldNotVerify", "VerificationError", 22),
    ("KeyUnavailable", "ImagersError", 30),
    ("NoMatchingKey", "KeyUnavailable", 30),
    ("KeyRefused", "KeyUnavailable", 31),
    ("ProviderFailed", "KeyUnavailable", 30),
    ("AttestationError", "ImagersError", 40),
    ("NoTEE", "AttestationError", 40),
    ("EvidenceRejected", "AttestationError", 40),
    ("EvidenceStale", "AttestationError", 40),
    ("RemoteError", "ImagersError", 10),
    ("NotFound", "RemoteError", 10),
    ("Unauthorized", "RemoteError", 10),
    ("RateLimited", "RemoteError", 10),
    ("PluginError", "ImagersError", 50),
    ("PluginNotFound", "PluginError", 50),
    ("PluginBroken", "PluginError", 50),
]

# Every class, made as it is made in the program, with what a peer may put in.
MAKERS = {
    "PluginError": lambda text: errors.PluginError("is broken", name=text),
    "PluginNotFound": lambda text: errors.PluginNotFound("is not installed", name=text),
    "PluginBroken": lambda text: errors.PluginBroken("gave no answer", name=text),
    "DigestMismatch": lambda text: DigestMismatch(expected=text, actual=text, what=text),
    "SizeMismatch": lambda text: SizeMismatch(expected=text, actual=3, what=text),
    "TagMismatch": lambda text: TagMismatch(what=text),
    "Truncated": lambda text: Truncated(expected=2, actual=1, what=text),
    "TrailingData": lambda text: TrailingData(text, what=text),
    "FormatError": lambda text: FormatError(text, what=text, where=text),
    "LocalError": lambda text: LocalError(text, path=text),
    "KeyRefused": lambda text: KeyRefused("key was refused", reason=text),
    "TimedOut": lambda text: errors.TimedOut(
        phase=text, limit_s=1.5, in_all=False, step=text, waited_for=text
    ),
}


def make(name, text):
    maker = MAKERS.get(name)
    return maker(text) if maker else getattr(errors, name)(text, hint=text)


@pytest.mark.parametrize(("name", "parent", "exit_code"), TREE, ids=[row[0] for row in TREE])
def test_class_has_its_parent_exit_code_and_docstring(name, parent, exit_code):
    cls = getattr(errors, name)
    parents = [base.__name__ for base in cls.__mro__[1:] if not base.__name__.startswith("_")]
    assert parents[0] == parent
    assert cls.exit_code == exit_code
    assert make(name, "x").exit_code == exit_code
    assert cls.__doc__
    assert name in errors.__all__


def test_tree_has_no_class_that_is_not_in_the_table():
    found = {
        name
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, ImagersError) and not name.startswith("_")
    }
    assert found == {row[0] for row in TREE} == set(errors.__all__)


def test_no_and_could_not_look_are_both_verification_errors_with_different_codes():
    assert issubclass(errors.CouldNotVerify, errors.VerificationError)
    assert errors.CouldNotVerify.exit_code != errors.PolicyDenied.exit_code
    assert not issubclass(errors.CouldNotVerify, errors.PolicyDenied)


def test_errors_are_not_those_of_a_callers_bug():
    for row in TREE:
        assert not issubclass(
            getattr(errors, row[0]), (ValueError, TypeError, RuntimeError, OSError)
        )


HOSTILE = "a\nb\r\x1b[2J\x00\x07\x9b31m\u202e\u2028\u200bc\ud800"


@pytest.mark.parametrize("name", [row[0] for row in TREE])
def test_message_of_a_peer_is_one_line_without_control_characters(name):
    error = make(name, HOSTILE)
    assert str(error).isprintable()
    assert error.hint is None or error.hint.isprintable()
    str(error).encode()  # and any terminal can show it
    assert "c" in str(error)


@given(st.sampled_from([row[0] for row in TREE]), st.text(st.characters(), max_size=30))
def test_message_of_any_text_is_one_line(name, text):
    assert str(make(name, text)).isprintable()


def test_message_of_printable_text_is_kept_as_it_is():
    text = "größer als … «erwartet» 名前"
    assert str(Unsupported(text)) == text


def test_values_in_messages_are_quoted_and_bounded():
    error = DigestMismatch(expected="e" * 5000, actual="a" * 5000)
    assert str(error).startswith("digest mismatch: expected 'eee")
    assert len(str(error)) < 500
    assert error.expected == "e" * 5000
    assert len(str(KeyRefused("refused", reason="r" * 5000))) < 300
    assert len(str(PluginNotFound("is missing", name="n" * 5000))) < 300


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            DigestMismatch(expected="sha256:e", actual="sha256:a", what="layer 3 of 7"),
            "layer 3 of 7: digest mismatch: expected 'sha256:e', got 'sha256:a'",
        ),
        (
            DigestMismatch(expected="sha256:e", actual="sha256:a", noun="diff_id"),
            "diff_id mismatch: expected 'sha256:e', got 'sha256:a'",
        ),
        (
            SizeMismatch(expected=2, actual=3, what="config"),
            "config: size mismatch: expected 2, got 3",
        ),
        (
            SizeMismatch(expected=2, actual=3, noun="count of layers"),
            "count of layers mismatch: expected 2, got 3",
        ),
        (
            TagMismatch(what="layer 1 of 1"),
            "layer 1 of 1: authentication tag does not match: wrong key, or the bytes were changed",
        ),
        (Truncated(), "ends too early"),
        (Truncated("tar ends in a header", what="layer"), "layer: tar ends in a header"),
        (Truncated(expected=5, actual=4), "ends too early: expected 5 bytes, got 4"),
        (TrailingData(), "has data after its end"),
        (TrailingData(expected=5), "has data after its end: expected 5 bytes, got more"),
        (FormatError("is not JSON"), "is not JSON"),
        (FormatError("is not JSON", what="config"), "config: is not JSON"),
        (
            FormatError("is missing", what="manifest", where="$.layers[2].size"),
            "manifest at $.layers[2].size: is missing",
        ),
        (LocalError("no space left on device", path="/x"), "/x: no space left on device"),
        (KeyRefused("key was refused", reason="policy"), "key was refused: 'policy'"),
        (KeyRefused("key was refused"), "key was refused"),
        (PluginNotFound("is not installed", name="kms"), "plugin 'kms': is not installed"),
    ],
)
def test_messages_expected_before_actual_lower_case_without_full_stop(error, message):
    assert str(error) == message
    assert not message.endswith(".")
    assert message[0] in "/$" or message[0].islower()


def test_facts_are_attributes():
    error = RemoteError("said no", status=503, code="DENIED", temporary=True, hint="try again")
    assert (error.status, error.code, error.temporary) == (503, "DENIED", True)
    assert error.hint == "try again"
    assert NoMatchingKey("none fits", tried=("a: wrong",)).tried == ("a: wrong",)
    assert KeyRefused("refused", reason="r").reason == "r"
    assert PluginNotFound("is missing", name="n").name == "n"
    assert FormatError("x", what="w", where="$.a").where == "$.a"
    assert LocalError("x", path="/p").path == "/p"
    assert TrailingData(expected=5).expected == 5
    assert (Truncated(expected=5, actual=4).expected, Truncated(expected=5, actual=4).actual) == (
        5,
        4,
    )


@pytest.mark.parametrize("name", [row[0] for row in TREE])
@pytest.mark.parametrize(
    "again",
    [lambda e: pickle.loads(pickle.dumps(e)), copy.copy],  # noqa: S301 - our own bytes
)
def test_errors_cross_processes_with_their_facts(name, again):
    error = make(name, "text\x00")
    error.hint = "do this"
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


def test_tag_mismatch_has_no_place_for_a_tag():
    """An oracle that shows the right tag would let anybody forge."""
    assert not {"expected", "actual"} & set(inspect.signature(TagMismatch).parameters)
    assert not {"expected", "actual"} & set(vars(TagMismatch()))


def test_noun_of_one_mismatch_does_not_become_the_noun_of_the_next():
    DigestMismatch(expected="a", actual="b", noun="diff_id")
    assert str(DigestMismatch(expected="a", actual="b")).startswith("digest mismatch")
