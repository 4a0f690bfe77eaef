# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.broker.references import References
from imagers.broker.refusals import Refusal
from imagers.errors import FormatError
from tests.unit.broker.conftest import Now


@pytest.fixture
def references(state, admin):
    return Now(References(state), admin)


def body(*items):
    return json.dumps({"reference_values": items}).encode()


def stored(references):
    return {one["name"]: one for one in json.loads(references.list())["reference_values"]}


def test_values_are_set_replaced_joined_and_removed(references, rows):
    first = {"name": "b", "values": ["x"], "expires": "2027-01-01T00:00:00+00:00", "source": "s"}
    references.set(body(first, {"name": "a", "values": [1]}), add=False)
    assert list(stored(references)) == ["a", "b"]
    references.set(body({"name": "b", "values": ["y", "x"]}), add=True)
    assert stored(references)["b"] == first | {"values": ["x", "y"]}
    again = {"name": "b", "values": ["y"], "source": "t"}
    references.set(body(again | {"expires": "2027-01-01T01:00:00+01:00"}), add=True)
    references.set(body(again), add=True)
    assert stored(references)["b"] == first | {"values": ["x", "y"], "source": "s; t"}
    references.set(body({"name": "b", "values": ["z"]}), add=False)
    assert stored(references)["b"] == {"name": "b", "values": ["z"], "expires": None, "source": ""}
    references.delete("b")
    assert list(stored(references)) == ["a"]
    assert [(row.event, row.outcome, row.detail) for row in rows()] == [
        ("reference", "ok", "set b: 1 values"),
        ("reference", "ok", "set a: 1 values"),
        ("reference", "ok", "set b: 2 values"),
        ("reference", "ok", "set b: 2 values"),
        ("reference", "ok", "set b: 2 values"),
        ("reference", "ok", "set b: 1 values"),
        ("reference", "ok", "delete b"),
    ]


def test_a_single_value_stays_one_until_others_join_it(references):
    references.set(body({"name": "a", "values": [False], "single": True}), add=True)
    assert stored(references)["a"]["single"] is True
    assert references.value("a") is False
    references.set(body({"name": "a", "values": [True]}), add=True)
    assert "single" not in stored(references)["a"]
    assert references.value("a") == [False, True]
    references.set(body({"name": "a", "values": [1], "single": True}), add=True)
    assert references.value("a") == [False, True, 1]


def test_joined_values_of_another_type_are_others(references):
    references.set(body({"name": "a", "values": [1]}), add=False)
    references.set(body({"name": "a", "values": [True, "1", 1]}), add=True)
    assert json.dumps(stored(references)["a"]["values"]) == '[1, true, "1"]'


@pytest.mark.parametrize("name", ["missing", "", "../a", "a" * 500])
def test_delete_what_is_not_there_refused(references, name):
    with pytest.raises(Refusal, match="there is no reference value") as caught:
        references.delete(name)
    assert caught.value.status == 404


def test_set_is_all_or_nothing(references, rows):
    with pytest.raises(FormatError):
        references.set(body({"name": "a", "values": [1]}, {"name": "b", "values": []}), add=False)
    many = [{"name": f"n{number}", "values": [1]} for number in range(999)]
    references.set(body(*many), add=False)
    count = len(rows())
    with pytest.raises(Refusal, match="at most 1000 reference values") as caught:
        references.set(body({"name": "x", "values": [1]}, {"name": "y", "values": [1]}), add=False)
    assert caught.value.status == 400
    assert len(stored(references)) == 999
    assert len(rows()) == count


@pytest.mark.parametrize(
    ("earlier", "told"),
    [(None, "never expire"), ("2027-01-01T00:00:00+00:00", "expire at 2027-01-01T00")],
)
def test_joined_values_with_another_expiry_are_refused(references, rows, earlier, told):
    references.set(body({"name": "a", "values": [1], "expires": earlier}), add=False)
    other = {"name": "a", "values": [2], "expires": "2026-12-01T00:00:00+00:00"}
    with pytest.raises(Refusal, match=f"that {told}.*expected no other time, got 2026-12-01"):
        references.set(body(other), add=True)
    assert stored(references)["a"]["values"] == [1]
    assert len(rows()) == 1


def test_joined_sources_are_bounded(references):
    references.set(body({"name": "a", "values": [1], "source": "s" * 1000}), add=False)
    references.set(body({"name": "a", "values": [2], "source": "t" * 1000}), add=True)
    assert stored(references)["a"]["source"] == "s" * 1000


def test_joined_values_are_bounded(references):
    references.set(body({"name": "a", "values": list(range(1000))}), add=False)
    with pytest.raises(Refusal, match="at most 1000 values of 'a'"):
        references.set(body({"name": "a", "values": ["one more"]}), add=True)
