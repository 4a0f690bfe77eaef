# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.net.urls import Origin, is_loopback, join_url, parse_origin, redact_url


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.ORG/x", Origin("https", "example.org", 443)),
        ("http://example.org", Origin("http", "example.org", 80)),
        ("http://[::1]:5000/v2/", Origin("http", "::1", 5000)),
        ("https://host:0/", Origin("https", "host", 0)),
    ],
)
def test_parse_origin_good_url_gives_its_parts(url, origin):
    assert parse_origin(url) == origin


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ftp://host/", "expected http or https"),
        ("host/path", "expected http or https"),
        ("https:///path", "expected a host"),
        ("https://host:port/", "expected a URL"),
        ("https://host:99999/", "expected a URL"),
        ("https://[::1/", "expected a URL"),
        ("https://user:secret@host/", "has a user name in it"),
        ("https://host/a\nb", "visible ASCII"),
        ("https://host/\u00e9", "visible ASCII"),
        ("https://host\\@other/", "visible ASCII"),
        ("https://host/" + "a" * 20000, "visible ASCII"),
        ("", "visible ASCII"),
    ],
)
def test_parse_origin_bad_url_refused(url, text):
    with pytest.raises(FormatError, match=text) as caught:
        parse_origin(url)
    assert caught.value.what == "URL"
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60))
def test_parse_origin_any_text_is_an_origin_or_a_format_error(text):
    try:
        origin = parse_origin("http://" + text)
    except FormatError:
        return
    assert origin.host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"])
def test_is_loopback_this_machine_yes(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["localhost.example.org", "127.0.0.1.nip.io", "192.168.0.1", "10.0.0.1", "2130706433", ""],
)
def test_is_loopback_anything_else_no(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("location", "joined"),
    [
        ("/v2/x", "https://host:5000/v2/x"),
        ("https://other/y?a=b#frag", "https://other/y?a=b"),
        ("//other/z", "https://other/z"),
        ("next", "https://host:5000/v2/a/next"),
        ("/with space", "https://host:5000/with%20space"),
    ],
)
def test_join_url_location_is_relative_to_what_answered(location, joined):
    assert join_url("https://host:5000/v2/a/b", location) == joined


@pytest.mark.parametrize(
    "location", ["https://u:p@other/", "ftp://x/", "https://[", "/" + "a" * 20000]
)
def test_join_url_bad_location_refused(location):
    with pytest.raises(FormatError):
        join_url("https://host/", location)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@host:1/p", "https://host:1/p"),
        ("https://h/p?token=secret&digest=sha256:0", "https://h/p?token=…&digest=sha256:0"),
        ("https://h/p?X-Amz-Signature=secret", "https://h/p?X-Amz-Signature=…"),
        ("https://h/p?flag", "https://h/p?flag"),
        ("https://h/p#secret", "https://h/p"),
        ("https://[::1]:5/p", "https://[::1]:5/p"),
        ("https://[secret", "(not a URL)"),
        ("https://h/v2/a/blobs/uploads/", "https://h/v2/a/blobs/uploads/"),
        ("https://h/v2/a/blobs/uploads/x/y?digest=d", "https://h/v2/a/blobs/uploads/…?digest=d"),
        ("https://h/artifacts-uploads/namespaces/x", "https://h/artifacts-uploads/…"),
        ("https://h/v2/uploads/a/blobs/x", "https://h/v2/uploads/a/blobs/x"),
        ("https://h/\x1b[31m", "https://h/\ufffd[31m"),
    ],
)
def test_redact_url_secrets_hidden(url, shown):
    assert redact_url(url) == shown
