# SPDX-License-Identifier: Apache-2.0
"""What counts as one's own, and that nothing that is missing, expired or nearly right does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected
from imagers.evidence.appraise import appraise_claims, reference_names
from imagers.model.evidence import Claims
from imagers.model.references import ReferenceValue

NOW = datetime(2026, 11, 29, tzinfo=UTC)
CLAIMS = Claims(
    tee="toy",
    tee_class="cpu",
    maker="its maker",
    measured=({"enclave": "e1"}, {"signer": "s1", "product": 7}),
    firmware={"svn": 3},
    configured={"smt": True},
    debug=False,
    report_data="",
    values={},
    established_at=NOW,
)


def book(**values):
    return {
        name: one if isinstance(one, ReferenceValue) else ReferenceValue(name, tuple(one))
        for name, one in values.items()
    }


def worth(claims=CLAIMS, **values):
    appraisal = appraise_claims(claims, book(**values), now=NOW)
    vector = appraisal.vector
    return vector["executables"], vector["hardware"], vector["configuration"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"enclave": ["e1"]}, 3),
        ({"enclave": ["e0", "e1"]}, 3),
        ({"signer": ["s1"], "product": [7]}, 3),
        ({"enclave": ["no"], "signer": ["s1"], "product": [7]}, 3),
        ({}, 33),
        ({"enclave": ["e2"]}, 33),
        ({"enclave": ["E1"]}, 33),
        ({"enclave": []}, 33),
        ({"signer": ["s1"]}, 33),
        ({"product": [7]}, 33),
        ({"signer": ["s1"], "product": ["7"]}, 33),
        ({"signer": ["s1"], "product": [8]}, 33),
        ({"signer": ["s2"], "product": [7]}, 33),
        ({"smt": [True], "svn": [3]}, 33),
    ],
    ids=str,
)
def test_executables_are_known_by_all_claims_of_one_way(values, expected):
    assert worth(**values)[0] == expected


def test_machine_that_measures_nothing_is_nobodys():
    for measured in ((), ({},)):
        assert worth(replace(CLAIMS, measured=measured), enclave=["e1"])[0] == 33


@pytest.mark.parametrize("number", [True, 1, "1"])
def test_true_is_not_one_and_no_text(number):
    claims = replace(CLAIMS, measured=({"x": number},))
    for value in (True, 1, "1"):
        known = worth(claims, x=[value])[0] == 3
        assert known == (type(value) is type(number))


@pytest.mark.parametrize(
    ("values", "expected"),
    [({}, 2), ({"svn": [3]}, 2), ({"svn": [2, 3]}, 2), ({"svn": [4]}, 97), ({"svn": [2]}, 97)],
    ids=str,
)
def test_firmware_is_compared_where_the_operator_said_one(values, expected):
    assert worth(**values)[1] == expected


@pytest.mark.parametrize(
    ("status", "values", "expected"),
    [
        ("UpToDate", {}, 2),
        ("OutOfDate", {}, 97),
        ("SWHardeningNeeded", {}, 97),
        ("SWHardeningNeeded", {"toy_tcb_status": ["UpToDate", "SWHardeningNeeded"]}, 2),
        ("UpToDate", {"toy_tcb_status": ["SWHardeningNeeded"]}, 97),
        ("OutOfDate", {"other_tcb_status": ["OutOfDate"]}, 97),
        ("uptodate", {}, 97),
    ],
    ids=str,
)
def test_status_of_the_vendor_has_to_be_up_to_date_or_what_the_operator_takes(
    status, values, expected
):
    assert worth(replace(CLAIMS, tcb_status=status), **values)[1] == expected


def test_remedy_for_a_status_keeps_the_default():
    claims = replace(CLAIMS, tcb_status="OutOfDate")
    (miss,) = appraise_claims(claims, book(enclave=["e1"]), now=NOW).misses
    assert miss.remedy.endswith(" reference-value set toy_tcb_status UpToDate OutOfDate")
    (miss,) = appraise_claims(claims, book(enclave=["e1"], toy_tcb_status=["x"]), now=NOW).misses
    assert miss.remedy.endswith(" reference-value set --add toy_tcb_status OutOfDate")


@pytest.mark.parametrize(
    ("debug", "values", "expected"),
    [
        (False, {}, 3),
        (False, {"smt": [True]}, 2),
        (False, {"smt": [False]}, 36),
        (False, {"smt": [1]}, 36),
        (True, {}, 36),
        (True, {"smt": [True], "debug": [True]}, 36),
    ],
    ids=str,
)
def test_configuration_is_never_good_for_a_guest_that_others_look_into(debug, values, expected):
    assert worth(replace(CLAIMS, debug=debug), **values)[2] == expected


@pytest.mark.parametrize("name", ["enclave", "svn", "smt", "toy_tcb_status"])
@pytest.mark.parametrize(
    ("seconds", "holds"), [(1, True), (0, False), (-1, False)], ids=["before", "at", "after"]
)
def test_value_that_has_expired_equals_nothing(name, seconds, holds):
    claims = replace(CLAIMS, tcb_status="UpToDate")
    value = {"enclave": "e1", "svn": 3, "smt": True, "toy_tcb_status": "UpToDate"}[name]
    expires = NOW + timedelta(seconds=seconds)
    values = {"enclave": ["e1"], name: ReferenceValue(name, (value,), expires)}
    appraisal = appraise_claims(claims, book(**values), now=NOW)
    assert appraisal.is_affirming == holds
    assert [one.claim for one in appraisal.misses] == ([] if holds else [name])
    if not holds:
        assert "expired at 2026-11-2" in appraisal.misses[0].told()


def test_misses_are_those_of_the_way_that_came_closest():
    appraisal = appraise_claims(CLAIMS, book(signer=["s1"], product=[8]), now=NOW)
    (miss,) = appraisal.misses
    assert miss.told() == (
        "product: expected 8, got 7; no reference value equals it; if this guest is yours: "
        "imagers broker reference-value set --add product 7"
    )


def test_line_of_a_miss_says_where_the_wanted_value_is_from_and_shows_few_of_many():
    wanted = ReferenceValue("enclave", ("a", "b", "c", "d"), source="the build of May")
    (miss,) = appraise_claims(CLAIMS, {"enclave": wanted}, now=NOW).misses
    assert (
        "enclave: expected a or b or one of 2 more (from the build of May), got e1" in miss.told()
    )


def test_has_references_is_about_names_and_not_about_what_equals():
    def has(**values):
        return appraise_claims(CLAIMS, book(**values), now=NOW).has_references

    assert not has()
    assert not has(signer=["s1"], svn=[3])
    assert has(enclave=["no"])
    assert has(signer=["x"], product=[1])


def test_names_that_are_looked_at():
    assert reference_names(CLAIMS) == {
        "enclave",
        "signer",
        "product",
        "svn",
        "smt",
        "toy_tcb_status",
    }


VALUES = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from(["e1", "s1", "7", ""]))
BOOKS = st.dictionaries(
    st.sampled_from([*reference_names(CLAIMS), "debug", "other"]),
    st.tuples(st.lists(VALUES, max_size=3), st.sampled_from([None, -1, 1])),
)


@given(BOOKS, st.booleans(), st.sampled_from(["", "UpToDate", "OutOfDate"]))
def test_affirming_means_that_each_demand_is_met(given_book, debug, status):
    references = {
        name: ReferenceValue(
            name, tuple(values), None if days is None else NOW + timedelta(days=days)
        )
        for name, (values, days) in given_book.items()
    }
    claims = replace(CLAIMS, debug=debug, tcb_status=status)
    appraisal = appraise_claims(claims, references, now=NOW)

    def met(name, value):
        one = references.get(name)
        return (
            one is not None
            and (one.expires is None or one.expires > NOW)
            and any(type(other) is type(value) and other == value for other in one.values)
        )

    own = met("enclave", "e1") or (met("signer", "s1") and met("product", 7))
    fine = all(
        name not in references or met(name, value) for name, value in (("svn", 3), ("smt", True))
    )
    if status:
        named = "toy_tcb_status" in references
        fine &= met("toy_tcb_status", status) if named else status == "UpToDate"
    assert appraisal.is_affirming == (own and fine and not debug)
    assert appraisal.is_affirming == (not appraisal.misses)


TOGETHER = replace(CLAIMS, counts_if_measured=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"enclave": ["e1"]}, (3, 2, 3)),
        ({"signer": ["s1"], "product": [7], "smt": [True]}, (3, 2, 2)),
        ({}, (33, 97, 36)),
        ({"enclave": ["e2"]}, (33, 97, 36)),
        ({"smt": [True], "svn": [3]}, (33, 97, 36)),
        ({"product": [7], "smt": [True]}, (33, 97, 36)),
    ],
)
def test_claims_that_count_only_together_are_worth_nothing_without_their_measurement(
    values, expected
):
    assert worth(TOGETHER, **values) == expected
    appraisal = appraise_claims(TOGETHER, book(**values), now=NOW)
    assert appraisal.counts == (expected[0] == 3)
    if appraisal.counts:
        appraisal.check_counts()
        return
    with pytest.raises(EvidenceRejected, match="counts only where its") as caught:
        appraisal.check_counts()
    assert caught.value.step == "measure"
    assert "reference-value set" not in f"{caught.value} {caught.value.hint}"


def test_value_that_expired_makes_no_claims_count():
    old = ReferenceValue("enclave", ("e1",), expires=NOW)
    assert not appraise_claims(TOGETHER, book(enclave=old), now=NOW).counts
    assert appraise_claims(CLAIMS, book(enclave=old), now=NOW).counts
