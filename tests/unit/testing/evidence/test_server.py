# SPDX-License-Identifier: Apache-2.0
"""The server gives what services give, and what is wrong when it is told to."""

import http.client
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from cryptography import x509

from imagers.testing.evidence import CollateralServer, Fault, SNPWorld

SEED = b"imagers.testing.evidence services"[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
CRL = "/vcek/v1/Genoa/crl"


@pytest.fixture
def server():
    with CollateralServer(SNPWorld(SEED, now=NOW), SNPWorld(SEED, "Milan", now=NOW)) as server:
        yield server


def get(server, path, **headers):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


@pytest.mark.parametrize("product", ["Genoa", "Milan"])
def test_server_answers_for_each_of_its_worlds(server, product):
    status, body, _ = get(server, f"/vcek/v1/{product}/crl")
    assert status == 200
    assert product in x509.load_der_x509_crl(body).issuer.rfc4514_string()
    assert server.asked() == [f"/vcek/v1/{product}/crl"]
    assert get(server, "/vcek/v1/Turin/crl")[0] == 404


def test_azure_needs_its_header(server):
    path = "/metadata/THIM/amd/certification?api-version=2021-02-01"
    assert get(server, path)[0] == 400
    assert get(server, path, Metadata="true")[0] == 200


def test_fault_is_given_as_often_as_it_says(server):
    server.faults.append(Fault("/crl", times=2, status=429, headers={"Retry-After": "7"}))
    assert get(server, "/vcek/v1/Genoa/cert_chain")[0] == 200
    for _ in range(2):
        status, body, headers = get(server, CRL)
        assert (status, body, headers["Retry-After"]) == (429, b"", "7")
    assert get(server, CRL)[0] == 200
    assert [one.status for one in server.requests] == [200, 429, 429, 200]


def test_body_may_be_another_and_may_be_cut(server):
    server.faults += [Fault(body=b"wrong"), Fault(is_cut=True)]
    assert get(server, CRL)[:2] == (200, b"wrong")
    with pytest.raises(http.client.IncompleteRead):
        get(server, CRL)


def test_slow_answer_comes_and_does_not_hold_the_others_nor_the_end():
    with CollateralServer(SNPWorld(SEED, now=NOW)) as server:
        server.faults.append(Fault(CRL, delay_s=60))
        found = []
        slow = threading.Thread(target=lambda: found.append(get(server, CRL)[0]))
        slow.start()
        while server.faults[0].times:
            time.sleep(0.001)
        assert get(server, CRL)[0] == 200
        begin = time.monotonic()
    slow.join(20)
    assert found == [200]
    assert time.monotonic() - begin < 20


def test_server_that_is_not_running_has_no_address():
    server = CollateralServer()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = server.url
    with server:
        url = server.url
    with server:
        assert server.url.startswith("http://127.0.0.1:")
    assert url.startswith("http://127.0.0.1:")
