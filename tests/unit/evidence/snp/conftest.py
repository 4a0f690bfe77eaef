# SPDX-License-Identifier: Apache-2.0
"""AMD for each product, from one seed, and what it makes, parsed."""

from datetime import UTC, datetime

import pytest
from asn1crypto import pem

from imagers.evidence.snp.certificates import parse_leaf
from imagers.evidence.snp.report import parse_report
from imagers.testing.evidence import SNPWorld

NOW = datetime(2026, 11, 29, tzinfo=UTC)
SEED = b"imagers.evidence.snp is tested so"[:32]


def leaf_of(world, **changes):
    return parse_leaf(world.leaf(**changes), what="leaf")


def report_of(world, **changes):
    return parse_report(world.report(**changes))


@pytest.fixture(scope="session", params=["Milan", "Genoa", "Turin"])
def world(request):
    return SNPWorld(SEED, request.param, now=NOW)


@pytest.fixture(scope="session")
def genoa():
    return SNPWorld(SEED, "Genoa", now=NOW)


@pytest.fixture
def as_pem():
    return lambda der: pem.armor("CERTIFICATE", der)
