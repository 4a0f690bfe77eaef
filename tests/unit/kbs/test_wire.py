# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import FormatError, NotFound, RateLimited, RemoteError, UsageError
from imagers.kbs.wire import Endpoint, ErrorAnswer, parse_error

PREFIX = "https://github.com/confidential-containers/kbs/errors/"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            f'{{"type":"{PREFIX}PolicyDeny","detail":"no"}}'.encode(),
            ErrorAnswer("PolicyDeny", "no"),
        ),
        (b'{"type":"PolicyDeny"}', ErrorAnswer("PolicyDeny", "")),
        (b'{"type":"x/not a name","detail":"no"}', ErrorAnswer("", "no")),
        (b'{"type":1,"detail":{}}', ErrorAnswer("", "")),
        (b"<html>", ErrorAnswer("", "")),
        (b"", ErrorAnswer("", "")),
        (b"\xff", ErrorAnswer("", "")),
    ],
)
def test_parse_error_any_body_gives_an_answer(body, expected):
    assert parse_error(body) == expected


def test_parse_error_detail_is_bounded_and_cannot_steer_a_terminal():
    body = b'{"type":"X","detail":"a\\u001b[2Jb\\n' + b"c" * 1000 + b'"}'
    detail = parse_error(body).detail
    assert detail.startswith("a [2Jb c")
    assert len(detail) == 400


@pytest.mark.parametrize("url", ["https://h/?a=b", "https://h/#x", "https://h/kbs?"])
def test_endpoint_url_with_a_query_refused(url):
    with pytest.raises(UsageError, match="without a query"):
        Endpoint(url, None)


@pytest.mark.parametrize("url", ["", "broker:8080", "ftp://h/", "https://user:pass@h/"])
def test_endpoint_text_that_is_no_url_refused_without_its_password(url):
    with pytest.raises(FormatError) as caught:
        Endpoint(url, None)
    assert "pass" not in str(caught.value)


def test_endpoint_plain_http_to_another_machine_refused():
    endpoint = Endpoint("http://192.0.2.1:8080", None)
    with pytest.raises(UsageError):
        endpoint.send("GET", "auth", max_bytes=10)
    endpoint.close()


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFound), (429, RateLimited), (500, RemoteError)]
)
def test_failure_says_who_status_and_error(scripted, status, kind):
    from imagers.net.http import HTTPSettings
    from imagers.net.retry import RetryPolicy

    scripted.say_error("/base/kbs/v0/x", status, "SomeName", "some detail")
    settings = HTTPSettings(retry=RetryPolicy(attempts=1))
    endpoint = Endpoint(scripted.url + "/base/", settings)
    error = endpoint.failure("task", endpoint.send("GET", "x", max_bytes=1000))
    endpoint.close()
    assert type(error) is kind
    assert error.status == status
    assert error.code == "SomeName"
    assert f"status {status}: SomeName: some detail" in str(error)


def test_failure_of_something_else_than_a_broker_hints_at_the_url(scripted):
    endpoint = Endpoint(scripted.url, None)
    error = endpoint.failure("task", endpoint.send("GET", "x", max_bytes=1000))
    endpoint.close()
    assert error.hint is not None
    assert "/kbs/v0" in error.hint
