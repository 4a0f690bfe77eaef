# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import CouldNotVerify, FormatError, NoSignature, PolicyDenied
from imagers.model.digest import digest_of
from imagers.sign.decision import Answer, Decision, Explanation, Finding, PolicyBasis, Signer

DECISION = Decision(PolicyBasis.UNSIGNED, digest_of(b""), (), "$.default")


def test_finding_of_an_error_is_no_or_could_not_look():
    assert Finding.of_error(NoSignature("x")).answer is Answer.NO
    assert Finding.of_error(FormatError("x")).answer is Answer.NO
    assert Finding.of_error(CouldNotVerify("x")).answer is Answer.COULD_NOT_LOOK


def test_finding_as_json_has_its_children_and_its_hint():
    child = Finding(Answer.YES, "b")
    finding = Finding.of_error(NoSignature("x", hint="h"), "a", (child,))
    assert finding.to_json() == {
        "answer": "no",
        "text": "a",
        "hint": "h",
        "checks": [{"answer": "yes", "text": "b"}],
    }
    assert [(depth, one.text) for depth, one in finding.lines()] == [(0, "a"), (1, "b")]


def test_explanation_raises_what_its_root_holds():
    error = NoSignature("x")
    with pytest.raises(NoSignature) as caught:
        Explanation(Finding.of_error(error), None).require()
    assert caught.value is error


@pytest.mark.parametrize(
    "explanation",
    [
        Explanation(Finding(Answer.YES, "x"), None),
        Explanation(Finding(Answer.NO, "x"), DECISION),
        Explanation(Finding(Answer.NOTE, "x"), DECISION),
        Explanation(Finding(Answer.COULD_NOT_LOOK, "x"), DECISION),
    ],
)
def test_explanation_that_is_not_wholly_yes_is_no(explanation):
    with pytest.raises(PolicyDenied):
        explanation.require()


def test_explanation_of_yes_gives_the_decision():
    assert Explanation(Finding(Answer.YES, "x"), DECISION).require() is DECISION


def test_signer_key_is_shown_as_people_compare_it():
    assert Signer("ab" * 32, "", "").key == "sha256:" + "ab" * 32
    assert Signer("AB" * 20, "", "").key == "AB" * 20
