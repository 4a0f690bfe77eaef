# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.encrypt.schemes.providers.messages import (
    build_unwrap_question,
    build_wrap_question,
    parse_unwrap_answer,
    parse_wrap_answer,
)
from imagers.errors import ProviderFailed
from imagers.model.keys import SecretKey


def text_of(question):
    with question, question.view() as data:
        return bytes(data).decode()


def test_wrap_question_is_the_text_that_ocicrypt_writes():
    question = build_wrap_question("agent", ["a:b", ""], SecretKey(b"options"))
    assert text_of(question) == (
        '{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"agent":["YTpi","RW5hYmxlZA=="]},'
        '"DecryptConfig":{"Parameters":{}}},"optsdata":"b3B0aW9ucw=="},'
        '"keyunwrapparams":{"dc":null,"annotation":null}}'
    )


def test_unwrap_question_is_the_text_that_ocicrypt_writes():
    assert text_of(build_unwrap_question("agent", "", b"packet")) == (
        '{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},'
        '"keyunwrapparams":{"dc":{"Parameters":{"agent":["RW5hYmxlZA=="]}},'
        '"annotation":"cGFja2V0"}}'
    )


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["base64", "integers"]))
def test_answers_of_both_dialects_give_the_same_bytes(data, dialect):
    value = base64.b64encode(data).decode() if dialect == "base64" else list(data)
    wrapped = json.dumps({"keywrapresults": {"annotation": value}}).encode()
    assert parse_wrap_answer(SecretKey(wrapped), what="x") == data
    unwrapped = json.dumps(
        {"keywrapresults": {"annotation": None}, "keyunwrapresults": {"optsdata": value}}
    )
    assert parse_unwrap_answer(SecretKey(unwrapped.encode()), what="x") == SecretKey(data)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"keywrapresults":null}',
        '{"keywrapresults":{}}',
        '{"keywrapresults":{"annotation":""}}',
        '{"keywrapresults":{"annotation":[]}}',
        '{"keywrapresults":{"annotation":"?"}}',
        '{"keywrapresults":{"annotation":[256]}}',
        '{"keywrapresults":{"annotation":[-1]}}',
        '{"keywrapresults":{"annotation":[true]}}',
        '{"keywrapresults":{"annotation":[1.0]}}',
        '{"keywrapresults":{"annotation":{}}}',
        json.dumps({"keywrapresults": {"annotation": "QUFB" * 100_000}}),
    ],
)
def test_parse_of_other_answers_raises(answer):
    with pytest.raises(ProviderFailed, match="x: "):
        parse_wrap_answer(SecretKey(answer.encode()), what="x")
