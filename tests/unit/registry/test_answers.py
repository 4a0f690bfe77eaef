# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import NotFound, RateLimited, Unauthorized
from imagers.registry.answers import media_type_of, parse_error_body, refusal


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        ({"Content-Type": "application/JSON; charset=utf-8"}, "application/json"),
        ({"Content-Type": ""}, ""),
        ({}, ""),
    ],
)
def test_media_type_of_parameters_dropped(header, media_type):
    assert media_type_of(header) == media_type


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no"}]}', ("DENIED", "no")),
        (b'{"errors":[{"code":"DENIED"}]}', ("DENIED", "")),
        (b'{"errors":[{"code":"A","message":"b\\u001b[31m\\nc"}]}', ("A", "b [31m c")),
        (b'{"errors":[{"code":"' + b"x" * 500 + b'","message":""}]}', ("x" * 80, "")),
        (b'{"errors":[]}', ("", "")),
        (b'{"errors":["x"]}', ("", "")),
        (b'{"errors":[{"code":1}]}', ("", "")),
        (b'{"error":"x"}', ("", "")),
        (b"<html>not here</html>", ("", "")),
        (b"\xff", ("", "")),
        (b"", ("", "")),
    ],
)
def test_parse_error_body_forms(body, found):
    assert parse_error_body(body) == found


@given(st.binary(max_size=200))
def test_parse_error_body_any_bytes_never_raise(body):
    code, message = parse_error_body(body)
    assert (code + message).isprintable()


def test_refusal_says_who_what_and_why():
    body = b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}'
    error = refusal(403, body, doing="manifest", name="host/app:v1")
    assert isinstance(error, Unauthorized)
    assert error.code == "DENIED"
    assert str(error) == (
        "host/app:v1: manifest: the registry answered 403 forbidden "
        "(DENIED: requested access is denied)"
    )
    assert "credentials" in error.hint


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (429, RateLimited)])
def test_refusal_kind_by_status(status, kind):
    assert isinstance(refusal(status, b"", doing="x", name="y"), kind)
