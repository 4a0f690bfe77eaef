# SPDX-License-Identifier: Apache-2.0
"""Lists have what they are told to have."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from imagers.testing.evidence.authorities import list_at, revocation_list, usage

NOW = datetime(2026, 11, 29, tzinfo=UTC)
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a root")])


@pytest.mark.parametrize("number", [None, 7])
def test_list_has_its_number_its_serials_and_its_time(number):
    delta = (x509.DeltaCRLIndicator(3), True)
    builder = revocation_list(NAME, NOW, revoked=[5], number=number, extensions=[delta])
    crl = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    kinds = {type(one.value): one for one in crl.extensions}
    assert (x509.CRLNumber in kinds) is (number is not None)
    assert kinds[x509.DeltaCRLIndicator].critical
    assert [one.serial_number for one in crl] == [5]
    assert crl.last_update_utc == NOW - timedelta(days=1)
    assert crl.next_update_utc == NOW + timedelta(days=30)


def test_keys_of_leaves_and_of_authorities_are_for_different_things():
    assert (usage(leaf=True).digital_signature, usage(leaf=True).key_cert_sign) == (True, False)
    assert (usage().digital_signature, usage().key_cert_sign, usage().crl_sign) == (
        False, True, False,
    )  # fmt: skip
    assert usage(lists=True).crl_sign
    (where,) = list_at("https://example.org/crl")
    assert where.full_name[0].value == "https://example.org/crl"
