# SPDX-License-Identifier: Apache-2.0
"""Bounds of bodies, and faults as answers, with nothing of our client in between."""

import json
import logging
import socket
import sqlite3
from urllib.parse import urlsplit

import pytest

from imagers.broker.resources import Resources


def raw(embedded, data, *, shut=False):
    """What a server answers to bytes that no client library would send."""
    parts = urlsplit(embedded.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(data)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
            if b"\r\n\r\n" in answer and not shut:
                break
        return answer


def test_body_without_a_length_is_bounded_too(embedded):
    head = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(embedded, head + b"ffff\r\n" + b" " * 65535 + b"\r\n2\r\n  \r\n")
    assert answer.startswith(b"HTTP/1.1 413")


def test_body_that_claims_to_be_huge_is_refused_before_it_is_sent(embedded):
    head = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"
    assert raw(embedded, head).startswith(b"HTTP/1.1 4")


def test_body_that_breaks_off_leaves_the_broker_well(embedded, http):
    head = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    raw(embedded, head, shut=True)
    assert http("GET", "/healthz")[0] == 200


@pytest.fixture
def as_admin(embedded, admin_headers):
    return admin_headers(embedded)


def test_fault_of_our_own_has_an_id_and_tells_nothing(embedded, http, as_admin, caplog):
    connection = sqlite3.connect(embedded.state_directory / "broker.sqlite")
    connection.execute("ALTER TABLE resources RENAME TO gone")
    connection.close()
    with caplog.at_level(logging.ERROR):
        status, _, body = http("GET", "/kbs/v0/imagers/metadata/default/key/1", **as_admin)
    detail = json.loads(body)["detail"]
    assert status == 503
    assert detail.split()[1] in caplog.text
    assert "no such table" in caplog.text
    assert "table" not in detail
    assert str(embedded.state_directory) not in detail


def test_fault_that_is_a_bug_has_an_id_and_not_its_text(embedded, http, as_admin, caplog):
    async def bug(*_):
        raise ZeroDivisionError("with a secret in it")

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(Resources, "names", bug)
        status, _, body = http("GET", "/kbs/v0/resource", **as_admin)
    assert status == 500
    assert "ZeroDivisionError" in caplog.text
    assert "with a secret" not in caplog.text + body.decode()
    assert embedded.admin.list_resources() == ()


def test_header_that_never_ends_is_refused(embedded):
    assert b" 431 " in raw(embedded, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000)
