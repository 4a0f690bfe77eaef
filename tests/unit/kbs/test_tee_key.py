# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import FormatError, UsageError
from imagers.kbs.messages import ECPublicKey, MLKEMPublicKey
from imagers.kbs.tee_key import (
    ECKey,
    MLKEMKey,
    encapsulate,
    load_mlkem,
    load_point,
    make_tee_key,
)
from imagers.model.base64 import decode_base64url, encode_base64url
from imagers.model.strict_json import View


@pytest.mark.parametrize(("crv", "size"), [("P-256", 32), ("P-521", 66)])
def test_tee_key_agrees_with_another_and_has_fixed_width(crv, size):
    one, other = ECKey(crv), ECKey(crv)
    secret = one.agree(other.public, what="x")
    assert secret == other.agree(one.public, what="x")
    assert len(secret) == size
    assert len(decode_base64url(one.public.x, what="x")) == size


def test_tee_key_two_are_never_the_same():
    assert ECKey().public != ECKey().public


def test_tee_key_prints_nothing_of_itself():
    assert (repr(ECKey()), repr(MLKEMKey())) == ("ECKey(P-256)", "MLKEMKey()")


def test_tee_key_of_an_algorithm_that_is_not_known_refused():
    with pytest.raises(UsageError, match=r"ML-KEM-768\+A192KW, got 'RSA-OAEP-256'"):
        make_tee_key("RSA-OAEP-256")


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("ECDH-ES+A256KW-P256", {"kty": "EC", "crv": "P-256"}),
        ("ECDH-ES+A256KW-P521", {"kty": "EC", "crv": "P-521"}),
        ("ML-KEM-768+A192KW", {"kty": "AKP", "alg": "ML-KEM-768+A192KW"}),
    ],
)
def test_tee_key_is_of_the_named_algorithm(algorithm, kind):
    jwk = make_tee_key(algorithm).public.to_json()
    assert jwk | kind == jwk


def test_encapsulated_key_is_the_one_that_its_owner_unwraps_with_and_nobody_else():
    key = MLKEMKey()
    kek, ciphertext = encapsulate(key.public, what="x")
    header = View({"ek": encode_base64url(ciphertext)}, what="header")
    assert len(kek) == 24
    assert key.unwrapping_key(header) == kek
    assert MLKEMKey().unwrapping_key(header) != kek


@pytest.mark.parametrize("ek", ["", "QQ", None])
def test_ciphertext_of_another_length_refused(ek):
    with pytest.raises(FormatError, match=r"\$\.ek"):
        MLKEMKey().unwrapping_key(View({"ek": ek}, what="header"))


def test_mlkem_key_with_a_number_above_the_modulus_refused():
    key = MLKEMPublicKey(encode_base64url(b"\xff" * 1184))
    with pytest.raises(FormatError, match="expected a key of ML-KEM-768"):
        load_mlkem(key, what="tee-pubkey")


def test_agree_other_curve_refused():
    with pytest.raises(FormatError, match="expected a key on P-256, got one on P-521"):
        ECKey().agree(ECKey("P-521").public, what="epk")


@pytest.mark.parametrize(
    ("x", "y"), [(b"\1" * 32, b"\2" * 32), (bytes(32), bytes(32)), (b"\xff" * 32, b"\xff" * 32)]
)
def test_load_point_off_the_curve_refused(x, y):
    key = ECPublicKey(crv="P-256", x=encode_base64url(x), y=encode_base64url(y))
    with pytest.raises(FormatError, match="expected a point on P-256"):
        load_point(key, what="epk")
