# SPDX-License-Identifier: Apache-2.0
"""The real service of Veraison judges evidence of the factory, and its word is taken.

IMAGERS_VERAISON names the URLs of its verification and of its provisioning, with a comma between:
tag v0.0.2511 runs on one machine with `plugin: {backend: builtin}`, stores in memory and without
TLS, but listens on all interfaces: in a network namespace of its own.
"""

import http.client
import os
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import urlsplit

import cbor2
import pytest

from imagers.errors import EvidenceRejected
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.evidence import Bound
from imagers.model.strict_json import View
from imagers.testing.evidence import CCAWorld

URLS = [one for one in os.environ.get("IMAGERS_VERAISON", "").split(",") if one]
WORLD = CCAWorld(b"a service of others judges them."[:32], is_legacy=True)
REPORT_DATA = bytes(range(48))

pytestmark = pytest.mark.skipif(
    len(URLS) != 2, reason="IMAGERS_VERAISON names no service of Veraison that runs"
)


def corim(profile, triples):
    """An unsigned CoRIM with one CoMID."""
    roles = {0: "imagers", 1: cbor2.CBORTag(32, "https://imagers.example"), 2: [0, 1, 2]}
    comid = {0: "en-GB", 1: {0: bytes(15) + b"\1"}, 2: [roles], 4: triples}
    validity = {0: cbor2.CBORTag(1, 1_700_000_000), 1: cbor2.CBORTag(1, 1_900_000_000)}
    entity = {0: "imagers", 1: cbor2.CBORTag(32, "https://imagers.example"), 2: [1]}
    tag = cbor2.dumps(cbor2.CBORTag(506, comid))
    return cbor2.dumps({0: b"c" * 16, 1: [tag], 3: profile, 4: validity, 5: [entity]})


def platform_triples(claims):
    kind = {0: cbor2.CBORTag(600, claims[2396]), 1: "imagers", 2: "none"}
    measured = [
        {
            0: cbor2.CBORTag(601, {1: one[1], 4: one[4], 5: one[5]}),
            1: {2: [[1, one[2]]]},
        }
        for one in claims[2399]
    ]
    measured.append({0: cbor2.CBORTag(602, "cfg"), 1: {4: cbor2.CBORTag(560, claims[2401])}})
    machine = {0: kind, 1: cbor2.CBORTag(550, claims[256])}
    key = cbor2.CBORTag(554, WORLD.roots.decode().strip())
    return {0: [[{0: kind}, measured]]}, {3: [[machine, [key]]]}


def realm_triples(claims):
    realm = {0: {1: "imagers"}, 1: cbor2.CBORTag(560, claims[44238])}
    registers = {"rim": [[1, claims[44238]]]} | {f"rem{at}": [[1, bytes(32)]] for at in range(4)}
    return {0: [[realm, [{1: {4: cbor2.CBORTag(560, claims[44235]), 14: registers}}]]]}


@pytest.fixture(scope="module")
def service():
    """Its URL; platform and realm of the world have been put into it."""
    claims = WORLD.platform_claims()
    for triples in platform_triples(claims):
        submit(corim("http://arm.com/cca/ssd/1", triples), "http://arm.com/cca/ssd/1")
    submit(corim("http://arm.com/cca/realm/1", realm_triples(WORLD.realm_claims())),
           "http://arm.com/cca/realm/1")  # fmt: skip
    return URLS[0]


def submit(document, profile):
    parts = urlsplit(URLS[1])
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as connection:
        connection.request(
            "POST",
            "/endorsement-provisioning/v1/submit",
            document,
            {"Content-Type": f'application/corim-unsigned+cbor; profile="{profile}"'},
        )
        answer = connection.getresponse()
        told = answer.read()
    assert answer.status == 200, told
    assert b'"success"' in told, told


def judge(service, world, *, bound=REPORT_DATA, **fields):
    verifier = load_verifier("cca", settings=View({"veraison": {"url": service}}, what="settings"))
    body = world.evidence(report_data=REPORT_DATA, **fields)
    now = datetime.now(UTC)
    return judge_evidence(verifier, body, bound=Bound(bound), read=lambda _: None, now=now)


def test_platform_that_the_service_knows_is_genuine(service):
    claims = judge(service, WORLD)
    assert "vouches for" in claims.maker
    assert claims.measured[0]["cca_realm_initial_measurement"] == WORLD.measurement.hex()


def test_realm_that_the_service_does_not_know_is_for_reference_values_to_say(service):
    claims = judge(service, WORLD, measurement=b"m" * 32)
    assert claims.measured[0]["cca_realm_initial_measurement"] == (b"m" * 32).hex()


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"bound": b"x" * 48}, "step 2, platform"),
        ({"platform": {2399: [{1: "RMM", 2: b"y" * 32, 4: "1", 5: b"z" * 32}]}}, "got warning"),
        ({"keys": ("nobody", "realm")}, "step 2, platform"),
        ({"platform": {256: b"\1" + b"o" * 32}}, "step 2, platform"),
    ],
)
def test_what_the_service_does_not_call_affirming_is_refused(service, change, piece):
    with pytest.raises(EvidenceRejected, match=piece):
        judge(service, WORLD, **change)


def test_another_platform_is_refused(service):
    with pytest.raises(EvidenceRejected, match="step 2, platform"):
        judge(service, CCAWorld(b"o" * 32, is_legacy=True))
