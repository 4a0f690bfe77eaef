# SPDX-License-Identifier: Apache-2.0
"""A realm's token as the kernel gives it, by a double of the kernel: the parser reads it again."""

import pytest

from imagers.errors import NoTEE
from imagers.evidence.cca.collect import CCAAttester
from imagers.evidence.cca.verify import parse
from imagers.model.evidence import ReportData
from imagers.testing.evidence import CCAWorld
from tests.unit.evidence.test_tsm import ROOT, FakeKernel

DIGEST = ReportData(b"d" * 48)


def attester(make, provider="arm_cca_guest"):
    return CCAAttester(ROOT, kernel=FakeKernel(provider, make, has_privlevel=False, aux=None))


def test_token_binds_the_report_data():
    world = CCAWorld(bytes(32))
    made = attester(lambda inblob: world.token(realm={10: inblob}))
    evidence = made.collect(DIGEST)
    assert evidence.tee == "cca"
    assert parse(evidence.body).realm.challenge == b"d" * 48 + bytes(16)
    assert made.missing() == ""


def test_machine_that_is_no_realm_is_told():
    other = attester(lambda _: b"", "tdx_guest")
    assert "tdx_guest" in other.missing()
    with pytest.raises(NoTEE, match="is of 'tdx_guest', and not of arm_cca_guest"):
        other.collect(DIGEST)
    with pytest.raises(NoTEE, match="gives no token"):
        attester(lambda _: b"").collect(DIGEST)
