# SPDX-License-Identifier: Apache-2.0
import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, SignatureInvalid
from imagers.pki.algorithms import sign
from imagers.pki.cose import ALG, X5CHAIN, build_sign1, parse_sign1

KEY = ec.generate_private_key(ec.SECP256R1())
HEAD = cbor2.dumps({ALG: -7})
# RFC 9052 appendix C.2.1, with the key "11" of appendix C.7.1.
RFC_KEY = ec.EllipticCurvePublicNumbers(
    0xBAC5B11CAD8F99F9C72B05CF4B9E26D244DC189F745228255A219A86D6A09EFF,
    0x20138BF82DC1B6D562BE0FA54AB7804A3A64B6D72CCFED6B6FB6ED28BBFC117E,
    ec.SECP256R1(),
).public_key()
RFC_MESSAGE = bytes.fromhex(
    "d28443a10126a10442313154546869732069732074686520636f6e74656e742e58408eb33e4ca31d1c465ab05aac34"
    "cc6b23d58fef5c083106c4d25a91aef0b0117e2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4"
    "c345cacb36"
)


def parse(raw, max_bytes=65536):
    return parse_sign1(raw, what="w", max_bytes=max_bytes)


def built(protected=None, unprotected=None, payload=b"text", key=KEY):
    protected = {ALG: -7} if protected is None else protected
    return build_sign1(protected, unprotected or {}, payload, lambda data: sign(key, data))


def message(*parts, tag=18):
    return cbor2.dumps(cbor2.CBORTag(tag, list(parts)))


def test_sign1_of_the_rfc_is_read_and_verified():
    one = parse(RFC_MESSAGE)
    assert one.payload == b"This is the content."
    assert one.unprotected == {4: b"11"}
    one.check_signature(RFC_KEY)


def test_sign1_that_was_built_is_read_and_verified():
    one = parse(built(unprotected={"agent": "x"}))
    one.check_signature(KEY.public_key())
    assert one.payload == b"text"
    assert (one.protected, one.unprotected) == ({ALG: -7}, {"agent": "x"})


@pytest.mark.parametrize("part", ["payload", "signature", "protected"])
def test_sign1_with_any_part_changed_does_not_verify(part):
    good = cbor2.loads(built()).value
    parts = {"protected": good[0], "payload": good[2], "signature": good[3]}
    parts |= {
        "payload": {"payload": b"Text"},
        "signature": {"signature": bytes(64)},
        "protected": {"protected": cbor2.dumps({ALG: -7, 4: b"other"})},
    }[part]
    one = parse(message(parts["protected"], {}, parts["payload"], parts["signature"]))
    with pytest.raises(SignatureInvalid, match="w: the signature does not fit"):
        one.check_signature(KEY.public_key())


@pytest.mark.parametrize("told", [-35, -37, -8, 5, None, "ES256", True])
def test_sign1_with_another_algorithm_than_the_keys_is_refused(told):
    one = parse(built({ALG: told}))
    with pytest.raises(SignatureInvalid, match=r"expected algorithm -7 \(ES256\) for this key"):
        one.check_signature(KEY.public_key())


def test_sign1_algorithm_that_is_not_signed_does_not_count():
    one = parse(built({}, {ALG: -7}))
    with pytest.raises(SignatureInvalid, match="expected algorithm -7"):
        one.check_signature(KEY.public_key())


def test_sign1_of_a_key_without_an_algorithm_is_refused():
    with pytest.raises(SignatureInvalid, match="w: expected an RSA key"):
        parse(built()).check_signature(ec.generate_private_key(ec.SECP256K1()).public_key())


@pytest.mark.parametrize(
    ("raw", "piece"),
    [
        pytest.param(b"", "is not CBOR: it ends", id="nothing"),
        pytest.param(cbor2.dumps(5), "tagged", id="a number"),
        pytest.param(cbor2.dumps([HEAD, {}, b"", b""]), "tagged", id="no tag"),
        pytest.param(
            message(HEAD, {}, b"", b"", tag=98), "tag 18 of COSE_Sign1, got 98", id="COSE_Sign"
        ),
        pytest.param(cbor2.dumps(cbor2.CBORTag(18, b"")), "the array", id="no parts"),
        pytest.param(message(HEAD, {}, b""), "4 parts of a COSE_Sign1, got 3", id="3 parts"),
        pytest.param(message(HEAD, {}, b"", b"", b""), "got 5", id="5 parts"),
        pytest.param(message(HEAD, {}, None, b""), "payload inside", id="detached"),
        pytest.param(message("x", {}, b"", b""), "payload inside", id="protected text"),
        pytest.param(message({ALG: -7}, {}, b"", b""), "payload inside", id="protected a map"),
        pytest.param(message(HEAD, [], b"", b""), "expected a map", id="unprotected a list"),
        pytest.param(
            message(HEAD, {b"x": 1}, b"", b""), "as labels, got bytes", id="label of bytes"
        ),
        pytest.param(message(HEAD, {}, b"", "x"), "payload inside", id="signature text"),
        pytest.param(
            message(b"\x80", {}, b"", b""),
            "protected headers at $: expected a map",
            id="protected a list",
        ),
        pytest.param(
            message(b"\xff", {}, b"", b""), "headers at byte 0: is not CBOR", id="protected no CBOR"
        ),
        pytest.param(message(HEAD + b"\0", {}, b"", b""), "behind its end", id="more protected"),
        pytest.param(
            message(b"\xa2\x01\x26\x01\x38\x22", {}, b"", b""), "key 1 twice", id="label twice"
        ),
        pytest.param(
            message(b"\xb8\x02\x01\x26\x01\x38\x22", {}, b"", b""),
            "key 1 twice",
            id="label twice behind a long head",
        ),
        pytest.param(
            message(b"\xbf\x01\x26\xff", {}, b"", b""), "indefinite length", id="no length"
        ),
        pytest.param(built() + b"\0", "behind its end", id="more behind"),
        pytest.param(b"\x81" * 2000, "nested deeper", id="deep"),
        pytest.param(b"\x9b" + b"\xff" * 8, "is not CBOR", id="length that is not there"),
    ],
)
def test_sign1_of_another_shape_is_refused(raw, piece):
    with pytest.raises(FormatError) as caught:
        parse(raw)
    assert caught.value.what.partition(",")[0] == "w"
    assert piece in str(caught.value)


def test_sign1_algorithm_that_is_a_float_is_refused():
    with pytest.raises(FormatError, match="protected headers at byte 2: has a float"):
        parse(built({ALG: -7.0}))


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_sign1_without_its_tag_is_read_where_that_is_its_form(curve):
    key = ec.generate_private_key(curve)
    algorithm = {256: -7, 384: -35, 521: -36}[curve.key_size]
    raw = built({ALG: algorithm}, key=key)
    bare = cbor2.dumps(cbor2.loads(raw).value)
    one = parse_sign1(bare, what="w", max_bytes=999, tagged=False)
    one.check_signature(key.public_key())
    assert one == parse(raw)
    with pytest.raises(FormatError, match="w: expected the array of a COSE_Sign1"):
        parse_sign1(raw, what="w", max_bytes=999, tagged=False)


def test_sign1_with_headers_outside_of_the_signature_is_refused_where_they_have_no_use():
    parse_sign1(built(), what="w", max_bytes=999, empty_unprotected=True)
    raw = built(unprotected={4: b"any"})
    with pytest.raises(FormatError, match="w: expected no headers outside of the signature"):
        parse_sign1(raw, what="w", max_bytes=999, empty_unprotected=True)


def test_sign1_bound_is_inclusive():
    raw = built()
    assert parse(raw, len(raw)).payload == b"text"
    with pytest.raises(FormatError, match=f"expected at most {len(raw) - 1} bytes"):
        parse(raw, len(raw) - 1)


def test_sign1_without_protected_headers_is_an_empty_map():
    assert parse(message(b"", {}, b"", b"")).protected == {}
    assert parse(message(b"\xa0", {}, b"", b"")).protected == {}


@pytest.mark.parametrize(
    ("chain", "found"), [(b"a", [b"a"]), ([b"a", b"b"], [b"a", b"b"]), ([], [])], ids=str
)
def test_sign1_certificates_are_one_or_a_list(chain, found):
    assert parse(built(unprotected={X5CHAIN: chain})).certificates() == found


@pytest.mark.parametrize("chain", [None, "a", ["a"], [b"a", 1], {}], ids=str)
def test_sign1_without_readable_certificates_is_refused(chain):
    with pytest.raises(FormatError, match="label 33"):
        parse(built(unprotected={X5CHAIN: chain})).certificates()


@given(st.binary(max_size=300), st.integers(0, 200))
def test_sign1_of_any_bytes_is_refused_or_does_not_verify(raw, place):
    good = built()
    for one in (raw, good[:place] + raw[:2] + good[place + 2 :]):
        if one == good:
            continue
        try:
            found = parse(one)
            found.check_signature(KEY.public_key())
        except (FormatError, SignatureInvalid):
            continue
        assert found.payload == b"text"  # what is not signed was changed
