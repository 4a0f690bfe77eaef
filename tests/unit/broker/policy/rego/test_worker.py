# SPDX-License-Identifier: Apache-2.0
"""The engine as a worker uses it; here in this process, so of texts that do not end it."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest

from imagers.broker.policy.rego.worker import HEAD, MAX_ANSWER_BYTES, Judge

PACKAGE = "package policy\nimport rego.v1\n"


def asked(body, input=None, *, names=("allow",), calls=(), references=None, policy="p"):  # noqa: A002
    return {
        "policy": policy,
        "input": {} if input is None else input,
        "text": PACKAGE + body,
        "calls": dict.fromkeys(calls, 3),
        "names": list(names),
        "references": references or {},
    }


def found(body, input=None, **more):  # noqa: A002
    return Judge().answer(asked(body, input, **more))["found"]


def test_a_rule_is_told_apart_from_one_that_is_false_or_undefined():
    text = "allow if input.a == 1\n"
    assert found(text, {"a": 1}) == {"allow": True}
    assert found(text, {"a": 2}) == {}
    assert found("default allow := false\n" + text, {"a": 2}) == {"allow": False}


def test_an_undefined_rule_takes_nothing_from_the_others():
    text = 'default allow := false\nreason := "no" if not allow\nrule := "r" if allow\n'
    names = ("allow", "rule", "reason")
    assert found(text, names=names) == {"allow": False, "reason": "no"}


def test_a_policy_is_built_once_and_asked_by_its_name():
    judge = Judge()
    whole = asked("allow if input.a == 1\n", {"a": 1})
    short = {"policy": "p", "input": {"a": 2}}
    assert judge.answer(short) == {"unknown": True}
    assert judge.answer(whole) == {"found": {"allow": True}}
    assert judge.answer(short) == {"found": {}}


def test_the_policies_used_last_are_kept():
    judge = Judge()
    for number in range(33):
        judge.answer(asked("allow := true\n", policy=str(number)))
        judge.answer({"policy": "0", "input": {}})
    assert judge.answer({"policy": "0", "input": {}}) == {"found": {"allow": True}}
    assert judge.answer({"policy": "1", "input": {}}) == {"unknown": True}


def test_a_function_that_the_engine_does_not_know_is_a_fault_with_its_line():
    answer = Judge().answer(asked("allow if nope(1)\n", calls=["count", "nope"]))
    assert answer == {"fault": "calls", "detail": "line 3: there is no function 'nope'"}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("allow if {\n", "line 3: this is unclosed"),
        ('x := "é"\nallow := {\n', "line 4: this is unclosed"),
        ("allow := x if { x := [1, 2][_] }\n", ""),
    ],
)
def test_what_cannot_be_built_is_a_fault_with_its_line(body, detail):
    answer = Judge().answer(asked(body))
    assert answer["fault"] in ("build", "failed")
    assert answer["detail"].startswith(detail)


def test_a_recursion_is_a_fault():
    answer = Judge().answer(asked("allow if f(1)\nf(x) := f(x + 1)\n"))
    assert answer == {
        "fault": "failed",
        "detail": "Recursion detected in rule body: data.policy.allow",
    }


def test_two_values_of_one_rule_are_a_fault():
    answer = Judge().answer(asked("allow if input.a\nallow := false if input.a\n", {"a": 1}))
    assert answer["fault"] == "failed"


STRINGS = [
    "a",
    "",
    '"',
    "\\",
    "\n",
    "a\0b",
    "é\u2028\U0001f600",
    'a"],"allow":[true',
    "\x1f",
    "A\\u0041",
]


@pytest.mark.parametrize("string", STRINGS, ids=ascii)
def test_strings_come_back_as_they_went_in(string):
    value = {"s": string, string: [string]}
    assert found("v := input\n", value, names=["v"]) == {"v": value}
    assert found("v := {input.s}\n", value, names=["v"]) == {"v": [string]}


@pytest.mark.parametrize("string", STRINGS, ids=ascii)
def test_a_string_of_the_input_equals_itself_in_the_text_and_nothing_else(string):
    text = f"allow if input.s == {json.dumps(string, ensure_ascii=False)}\n"
    for other in STRINGS:
        assert found(text, {"s": other}) == ({"allow": True} if other == string else {})


@pytest.mark.parametrize("string", STRINGS, ids=ascii)
def test_a_string_of_the_input_equals_itself_among_reference_values(string):
    text = 'allow if input.s in query_reference_value("n")\n'
    assert found(text, {"s": string}, references={"n": ["x", string]}) == {"allow": True}
    assert found(text, {"s": string + "y"}, references={"n": ["x", string]}) == {}


def test_a_claim_cannot_end_its_string_and_say_yes():
    """The engine prints this as JSON in which allow_ is [true]."""
    guest = 'x"], "allow_":[true], "z":["'
    text = "default allow := false\nrule := base64.decode(input.s)\n"
    coded = "eCJdLCAiYWxsb3dfIjpbdHJ1ZV0sICJ6IjpbIg=="
    for value, body in ((guest, "default allow := false\nrule := input.s\n"), (coded, text)):
        answer = Judge().answer(asked(body, {"s": value}, names=("allow", "rule")))
        assert answer.get("found", {}).get("allow") is not True


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**63 - 1, -(2**63) + 1, 1.5, True, False, [], {}, [[]], {"": {}}, [None]],
    ids=repr,
)
def test_values_come_back_as_they_went_in(value):
    back = found("v := input.v\n", {"v": value}, names=["v"])["v"]
    assert (type(back), back) == (type(value), value)


def test_a_number_that_would_wrap_is_a_fault():
    answer = Judge().answer(asked("allow if input.a > 0\n", {"a": 2**63}))
    assert answer == {"fault": "failed", "detail": f"expected numbers of at most {2**63 - 1}"}


def test_an_input_that_is_too_deep_is_a_fault():
    value = 1
    for _ in range(70):
        value = {"a": value}
    assert Judge().answer(asked("allow if input.a\n", value))["fault"] == "failed"


def test_null_is_undefined_and_so_never_larger_than_a_number():
    assert found("allow if input.a >= 3\n", {"a": None}) == {}
    assert found("allow if not input.a\n", {"a": None}) == {"allow": True}


def test_a_reference_value_that_is_missing_is_undefined():
    text = 'allow if 4 >= query_reference_value("n")\ndeny if not 4 in query_reference_value("m")\n'
    assert found(text, names=["allow", "deny"]) == {"deny": True}
    assert found(text, names=["allow", "deny"], references={"n": 3, "m": [4]}) == {"allow": True}


def start():
    ours, its = socket.socketpair()
    with its:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "imagers.broker.policy.rego.worker"],
            stdin=its.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
        )
    return process, ours


def read(stream):
    return json.loads(stream.read(int.from_bytes(stream.read(HEAD), "big")))


def frame(value):
    data = json.dumps(value).encode()
    return len(data).to_bytes(HEAD, "big") + data


def test_a_worker_answers_frames_in_order_and_ends_with_its_broker():
    process, ours = start()
    with ours, process, ours.makefile("rb") as stream:
        assert read(stream) == {"ready": True}
        whole = frame(asked('allow if { print("loud"); input.a == 1 }\n', {"a": 1}))
        short = frame({"policy": "p", "input": {"a": 2}})
        ours.sendall(whole[:7])
        ours.sendall(whole[7:] + short + short[:-1])
        ours.sendall(short[-1:])
        assert [read(stream) for _ in range(3)] == [
            {"found": {"allow": True}},
            {"found": {}},
            {"found": {}},
        ]
        stream.close()
        ours.shutdown(socket.SHUT_RDWR)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == b""  # nothing of what an engine says gets among the answers, or out


def test_a_worker_has_no_environment_files_or_descriptors_and_ends_on_its_limits():
    process, ours = start()
    with ours, process, ours.makefile("rb") as stream:
        assert read(stream) == {"ready": True}
        limits = resource.prlimit(process.pid, resource.RLIMIT_AS)
        with open(f"/proc/{process.pid}/environ", "rb") as file:
            environment = file.read()
        descriptors = {
            os.readlink(f"/proc/{process.pid}/fd/{one}")
            for one in os.listdir(f"/proc/{process.pid}/fd")
        }
        with open(f"/proc/{process.pid}/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        body = "l := numbers.range(1, 3000)\n"
        body += "allow if count([1 | some a in l; some b in l; a * b == 7]) > 9\n"
        ours.sendall(frame(asked(body)))
        assert stream.read() == b""
        assert process.wait(timeout=120) == -signal.SIGXCPU
        process.communicate()
    assert b"=" not in environment
    assert {one.partition(":")[0] for one in descriptors} == {"/dev/null", "socket"}
    assert len(descriptors) == 2
    assert size < limits[0] <= size + 600 * 1024 * 1024


def test_an_answer_above_the_bound_is_a_fault():
    process, ours = start()
    with ours, process, ours.makefile("rb") as stream:
        assert read(stream) == {"ready": True}
        body = f'x := "{"x" * 60_000}"\nallow := [x, x, x, x, x]\n'
        ours.sendall(frame(asked(body)))
        assert read(stream) == {"fault": "large", "detail": ""}
        stream.close()
        ours.shutdown(socket.SHUT_RDWR)
        process.communicate(timeout=60)
    assert MAX_ANSWER_BYTES < 300_000
