# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import FormatError, Unsupported
from imagers.kbs.messages import ECPublicKey
from imagers.kbs.tee_key import TEEKey, load_point
from imagers.model.base64 import decode_base64url, encode_base64url


@pytest.mark.parametrize(("crv", "size"), [("P-256", 32), ("P-521", 66)])
def test_tee_key_agrees_with_another_and_has_fixed_width(crv, size):
    one, other = TEEKey(crv), TEEKey(crv)
    secret = one.agree(other.public, what="x")
    assert secret == other.agree(one.public, what="x")
    assert len(secret) == size
    assert len(decode_base64url(one.public.x, what="x")) == size


def test_tee_key_two_are_never_the_same():
    assert TEEKey().public != TEEKey().public


def test_tee_key_prints_nothing_of_itself():
    assert repr(TEEKey()) == "TEEKey(P-256)"


def test_tee_key_unknown_curve_unsupported():
    with pytest.raises(Unsupported, match="'P-384'"):
        TEEKey("P-384")


def test_agree_other_curve_refused():
    with pytest.raises(FormatError, match="expected a key on P-256, got one on P-521"):
        TEEKey().agree(TEEKey("P-521").public, what="epk")


@pytest.mark.parametrize(
    ("x", "y"), [(b"\1" * 32, b"\2" * 32), (bytes(32), bytes(32)), (b"\xff" * 32, b"\xff" * 32)]
)
def test_load_point_off_the_curve_refused(x, y):
    key = ECPublicKey(crv="P-256", x=encode_base64url(x), y=encode_base64url(y))
    with pytest.raises(FormatError, match="expected a point on P-256"):
        load_point(key, what="epk")
