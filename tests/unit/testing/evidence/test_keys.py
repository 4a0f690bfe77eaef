# SPDX-License-Identifier: Apache-2.0
"""What comes from a seed is the same each time, and good keys."""

import hashlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from imagers.testing.evidence import keys

SEED = bytes(range(32))


def fingerprint(key):
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def test_rsa_key_is_one_that_openssl_takes():
    """Whose check looks for factors of both primes, which the search does not do."""
    numbers = keys.rsa_key(SEED, "a").private_numbers()
    assert numbers.public_numbers.n.bit_length() == 4096
    assert isinstance(numbers.private_key(), rsa.RSAPrivateKey)


def test_keys_of_a_seed_are_the_same_in_another_process():
    program = """
from tests.unit.testing.evidence.test_keys import *
print(fingerprint(keys.rsa_key(SEED, "a")), fingerprint(keys.ec_key(SEED, "a", ec.SECP384R1)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == [
        fingerprint(keys.rsa_key(SEED, "a")),
        fingerprint(keys.ec_key(SEED, "a", ec.SECP384R1)),
    ]


def test_rsa_key_of_a_seed_stays_what_it_is():
    """Whoever wrote a root to a file finds the same key again."""
    assert fingerprint(keys.rsa_key(SEED, "a"))[:16] == "dba4da5319c2d843"
    assert fingerprint(keys.ec_key(SEED, "a", ec.SECP256R1))[:16] == "0927283e17cc7355"


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_seed_and_label_each_give_another_key(curve):
    found = {
        fingerprint(keys.ec_key(seed, label, curve))
        for seed in (SEED, bytes(32))
        for label in ("a", "b")
    }
    assert len(found) == 4


def test_seed_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected a seed of 32 bytes, got 31"):
        keys.octets(bytes(31), "a", 1)
