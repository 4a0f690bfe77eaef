# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from imagers.errors import FormatError, Unsupported
from imagers.model.strict_json import View
from imagers.pki.jwk import (
    is_private_jwk,
    jwk_algorithm,
    jwk_private_key,
    jwk_public_key,
)

# RFC 7515 appendix A.3.1 and RFC 7517 appendix A.1: P-256 keys.
EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}


@pytest.fixture
def rsa_jwk(vectors):
    return json.loads((vectors / "keys" / "jwkrsa.priv.jwk").read_text())


def test_jwk_of_rfc_gives_its_numbers():
    key = jwk_private_key(View(EC, what="x"))
    assert key.private_numbers().private_value == int.from_bytes(
        bytes.fromhex("8e9b109e719098bf980487df1f5d77e9cb29606ebed2263b5f57c213df84f4b2")
    )
    assert jwk_public_key(View(EC, what="x")) == key.public_key()


def test_jwk_of_rsa_gives_a_key_that_opens_what_its_public_half_seals(rsa_jwk):
    private = jwk_private_key(View(rsa_jwk, what="x"))
    assert jwk_public_key(View(rsa_jwk, what="x")) == private.public_key()


def test_jwk_without_or_with_wrong_crt_members_gives_the_same_key(rsa_jwk):
    reduced = {**rsa_jwk, "dp": "AQAB", "dq": "AQAB", "qi": "AQAB"}
    assert (
        jwk_private_key(View(reduced, what="x")).private_numbers()
        == jwk_private_key(View(rsa_jwk, what="x")).private_numbers()
    )


@pytest.mark.parametrize(
    ("changes", "kind", "piece"),
    [
        ({"kty": "oct"}, Unsupported, "expected a key of kty RSA or EC, got 'oct'"),
        ({"kty": "OKP", "crv": "X25519"}, Unsupported, "got 'OKP'"),
        ({"kty": 1}, FormatError, "expected a string"),
        ({"crv": "secp256k1"}, Unsupported, "P-256, P-384, P-521, got 'secp256k1'"),
        ({"crv": "P-384"}, FormatError, "the numbers are not a key"),
        ({"x": "AQAB"}, FormatError, "the numbers are not a key"),
        ({"x": ""}, FormatError, "$.x: expected a number in base64url"),
        ({"x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU="}, FormatError, "base64url"),
        ({"x": "A"}, FormatError, "base64url"),
        ({"x": "A" * 5000}, FormatError, "$.x: expected at most 2048 bytes, got 3750"),
        ({"y": None}, FormatError, "$.y: is missing"),
        ({"d": "AQAB"}, FormatError, "the numbers are not a key"),
    ],
)
def test_jwk_with_a_fault_raises_and_shows_no_number(changes, kind, piece):
    with pytest.raises(kind, match="my key") as caught:
        jwk_private_key(View({**EC, **changes}, what="my key"))
    assert piece in str(caught.value)
    assert "jpsQnn" not in str(caught.value)


@pytest.mark.parametrize("name", ["p", "q", "d", "n"])
def test_jwk_of_rsa_with_numbers_that_do_not_fit_raises(rsa_jwk, name):
    with pytest.raises(FormatError, match="not a key"):
        jwk_private_key(View({**rsa_jwk, name: "AQ"}, what="x"))


def test_is_private_jwk_tells_the_halves_apart(rsa_jwk):
    assert is_private_jwk(View(rsa_jwk, what="x"))
    assert is_private_jwk(View({"kty": "oct", "k": "AA"}, what="x"))
    assert not is_private_jwk(View({"kty": "EC", "x": "AA"}, what="x"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("EC", "RSA-OAEP"), ("RSA", "RSA1_5"), ("RSA", "ECDH-ES+A256KW"), ("RSA", "dir")],
)
def test_jwk_algorithm_that_does_not_fit_raises(kind, name):
    with pytest.raises(Unsupported, match="expected alg of the key"):
        jwk_algorithm(View({"kty": kind, "alg": name}, what="x"))


def test_jwk_algorithm_is_what_the_key_asks_for():
    assert jwk_algorithm(View({"kty": "RSA", "alg": "RSA-OAEP-256"}, what="x")) == "RSA-OAEP-256"
    assert jwk_algorithm(View({"kty": "RSA"}, what="x")) == ""


def test_jwk_public_key_of_a_point_on_no_curve_raises():
    with pytest.raises(FormatError, match="not a key"):
        jwk_public_key(View({**EC, "y": "AQAB"}, what="x"))
