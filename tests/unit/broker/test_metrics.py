# SPDX-License-Identifier: Apache-2.0
import re

from imagers.broker.metrics import Metrics


def values(text):
    rows = [line.rpartition(" ") for line in text.decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, _, value in rows}


def test_text_has_a_row_for_each_endpoint_and_status():
    metrics = Metrics()
    for status in (200, 200, 403):
        metrics.count("resource", status, seconds=0.004)
    found = values(metrics.text())
    assert found['imagers_broker_requests_total{endpoint="resource",status="200"}'] == 2
    assert found['imagers_broker_requests_total{endpoint="resource",status="403"}'] == 1


def test_histogram_counts_up_to_each_bound():
    metrics = Metrics()
    for seconds in (0.0, 0.001, 0.004, 0.3, 99.0):
        metrics.count("attest", 200, seconds=seconds)
    found = values(metrics.text())
    buckets = [value for name, value in found.items() if "_bucket" in name]
    assert buckets == sorted(buckets)
    name = 'imagers_broker_request_seconds_bucket{endpoint="attest",le="%s"}'
    assert [found[name % bound] for bound in ("0.001", "0.005", "0.25", "0.5", "10.0", "+Inf")] == [
        2,
        3,
        3,
        4,
        4,
        5,
    ]
    assert found['imagers_broker_request_seconds_count{endpoint="attest"}'] == 5
    assert found['imagers_broker_request_seconds_sum{endpoint="attest"}'] == 99.305


def test_text_without_a_request_is_well_formed():
    for line in Metrics().text().decode().splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{[^}]*\})? [0-9.]+", line)


def test_metrics_name_no_path_of_a_request(shared_http):
    """Whoever asks for what is not there makes no rows."""
    for number in range(3):
        shared_http("GET", f"/kbs/v0/resource/secret-name/a/{number}")
        shared_http("GET", f"/nothing/{number}")
        shared_http("BREW", "/healthz")
    status, headers, body = shared_http("GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b"secret-name" not in body
    found = values(body)
    name = 'imagers_broker_requests_total{endpoint="%s",status="%d"}'
    assert found[name % ("resource", 401)] == found[name % ("nothing", 404)] == 3
