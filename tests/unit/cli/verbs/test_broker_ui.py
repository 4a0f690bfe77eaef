# SPDX-License-Identifier: Apache-2.0
import http.client
from urllib.parse import urlencode, urlsplit


def log_in(url, token):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("POST", f"{urlsplit(url).path}/login", urlencode({"token": token}))
        return connection.getresponse().status
    finally:
        connection.close()


def test_token_opens_the_pages_that_are_named(run, admin, imagers_broker):
    outcome = run("broker", "ui", *admin)
    assert outcome.code == 0
    url = f"{imagers_broker.url}/ui"
    assert f"open {url} and log in with this token" in outcome.err
    assert log_in(url, outcome.out.strip()) == 303
    facts = run("broker", "ui", *admin, "--json").json()
    assert facts["url"] == url
    assert log_in(url, facts["token"]) == 303
    assert log_in(url, facts["token"][:-8]) == 401


def test_token_alone_is_printed_where_one_is_quiet(run, admin):
    outcome = run("broker", "ui", *admin, "-q")
    assert outcome.err == ""
    assert outcome.out.count(".") == 2
