# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

SET = ("broker", "reference-value", "set")
LIST = ("broker", "reference-value", "list")


def listed(run, admin):
    return {one["name"]: one for one in run(*LIST, *admin, "--json").json()["reference_values"]}


def test_set_list_add_delete(run, admin):
    outcome = run(*SET, "snp_launch_measurement", "ab" * 48, "--source", "OVMF of May", *admin)
    assert outcome.out == f"set snp_launch_measurement: {'ab' * 48}\n"
    run(*SET, "--add", "snp_launch_measurement", "cd" * 48, *admin)
    one = listed(run, admin)["snp_launch_measurement"]
    assert one["values"] == ["ab" * 48, "cd" * 48]
    assert (one["source"], one["expires"]) == ("OVMF of May; the command line", None)
    table = run(*LIST, *admin).out.splitlines()
    assert len(table) == 3
    assert table[1].split()[2:] == ["never", "OVMF", "of", "May;", "the", "command", "line"]
    assert run("broker", "reference-value", "delete", "snp_launch_measurement", *admin).code == 0
    assert listed(run, admin) == {}


def test_name_may_be_one_of_trustee(run, admin):
    name = "rvps:///github.com/a/b:v0.18.0"
    assert run(*SET, name, "ab", *admin).code == 0
    assert listed(run, admin)[name]["values"] == ["ab"]
    assert run("broker", "reference-value", "delete", name, *admin).code == 0
    assert listed(run, admin) == {}


def test_words_are_numbers_flags_or_text(run, admin):
    words = ("5", "true", "0", "05", "12345678901")
    outcome = run(*SET, "a", *words, "--expires", "2030-01-01T00:00:00+02:00", *admin)
    assert outcome.out == "set a: 5, true, 0 and 2 more\n"
    assert listed(run, admin)["a"]["values"] == [5, True, 0, "05", "12345678901"]
    assert listed(run, admin)["a"]["expires"] == "2029-12-31T22:00:00+00:00"


def test_one_value_is_set_without_a_list(run, admin):
    assert run(*SET, "debug", "false", "--single", *admin).out == "set debug: false\n"
    assert listed(run, admin)["debug"]["single"] is True
    document = run(*LIST, *admin, "--json").out
    Path("again.json").write_text(document)
    assert run(*SET, "--file", "again.json", *admin).code == 0
    assert run(*LIST, *admin, "--json").out == document


def test_set_takes_a_file(run, admin):
    values = [{"name": "a", "values": ["x"]}, {"name": "b", "values": [1, False]}]
    Path("values.json").write_text(json.dumps({"reference_values": values}))
    outcome = run(*SET, "--file", "values.json", *admin)
    assert outcome.out == "set a: x\nset b: 1, false\n"
    document = run(*LIST, *admin, "--json").out
    Path("again.json").write_text(document)
    assert run(*SET, "--file", "again.json", *admin).code == 0
    assert run(*LIST, *admin, "--json").out == document


@pytest.mark.parametrize(
    ("words", "code", "piece"),
    [
        ((), 2, "expected NAME and VALUE, or --file FILE"),
        (("a",), 2, "expected NAME and VALUE"),
        (("a b", "x"), 2, "expected a name"),
        (("a", "x" * 2000), 2, "expected a string"),
        (("a", "x", "--expires", "soon"), 2, "--expires: expected a time"),
        (("a", "x", "--expires", "2030-01-01T00:00:00"), 2, "--expires: expected a time"),
        (("--file", "none.json"), 13, "none.json: no such file"),
        (("--file", "bad.json"), 11, "bad.json"),
        (("a", "x", "--file", "bad.json"), 2, "expected it alone"),
        (("--single", "--file", "bad.json"), 2, "expected it alone"),
        (("a", "x", "y", "--single"), 2, "expected one value with 'single', got 2"),
        (("a", "x", "--single", "--add"), 2, "--add makes a list"),
    ],
)
def test_set_refuses(run, admin, words, code, piece):
    Path("bad.json").write_text('{"reference_values": [{"name": "a"}]}')
    outcome = run(*SET, *words, *admin)
    assert outcome.code == code
    assert piece in outcome.err
    assert listed(run, admin) == {}


def test_delete_what_is_not_there(run, admin):
    outcome = run("broker", "reference-value", "delete", "a", *admin)
    assert outcome.code == 10
    assert "the broker has no reference value 'a'" in outcome.err
    assert "reference-value list" in outcome.err
