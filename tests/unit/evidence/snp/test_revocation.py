# SPDX-License-Identifier: Apache-2.0
"""Lists as documents; what they do to a verification is in test_verify.py."""

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.snp.revocation import check_crl, crl_name, crl_number, parse_crl
from tests.unit.evidence.snp.conftest import NOW


@pytest.mark.parametrize("number", [None, 0, 7])
def test_number_of_a_list_is_the_one_that_it_says(genoa, number):
    crl = parse_crl(genoa.crl(number=number), genoa.authority, is_vlek=False)
    assert crl_number(crl) == number


@pytest.mark.parametrize("is_vlek", [False, True])
def test_good_list_tells_what_no_later_one_may_be_below(world, is_vlek):
    told = check_crl(world.crl(number=7), world.authority, is_vlek=is_vlek, now=NOW)
    name = crl_name(world.product, is_vlek=is_vlek)
    assert told == {f"{name} number": 7, f"{name} time": int(NOW.timestamp()) - 86400}


def test_list_of_another_is_refused(genoa):
    with pytest.raises(EvidenceRejected, match="not signed by the ARK"):
        parse_crl(genoa.crl(signer="ASK"), genoa.authority, is_vlek=False)


@pytest.mark.parametrize("data", [b"", b"\x30\x00", bytes(1024 * 1024 + 1)])
def test_what_is_no_list_is_refused(genoa, data):
    with pytest.raises(FormatError, match="list of revoked certificates of Genoa"):
        parse_crl(data, genoa.authority, is_vlek=False)
