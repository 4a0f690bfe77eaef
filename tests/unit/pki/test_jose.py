# SPDX-License-Identifier: Apache-2.0
import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from imagers.errors import FormatError, SignatureInvalid
from imagers.model.strict_json import View
from imagers.pki.algorithms import sign
from imagers.pki.jose import (
    KEK_BYTES,
    build_jws,
    derive_kek,
    parse_jws,
    sign_token,
    verify_token,
    x5c_of,
)

EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
PAYLOAD = {"b": 1, "a": "x"}


def b64(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def parts_of(token):
    return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]


def test_token_round_trip_keeps_the_order_of_its_members():
    for key, algorithm in ((EC, "ES256"), (ED, "EdDSA")):
        token = sign_token(PAYLOAD, key=key)
        assert verify_token(token, key=key.public_key(), what="token").value == PAYLOAD
        header, payload, _ = parts_of(token)
        assert json.loads(header) == {"typ": "JWT", "alg": algorithm}
        assert payload == b'{"b":1,"a":"x"}'


@pytest.mark.parametrize(("name", "algorithm"), [("EC", "ES256"), ("ED", "EdDSA")])
def test_token_is_read_by_jwcrypto_and_its_tokens_here(name, algorithm):
    key = {"EC": EC, "ED": ED}[name]
    peer = JWK.from_pyca(key)
    token = JWS()
    token.allowed_algs = [algorithm]
    token.deserialize(sign_token(PAYLOAD, key=key), peer)
    assert json.loads(token.payload) == PAYLOAD
    text = signed_by_jwcrypto(json.dumps(PAYLOAD).encode(), peer, algorithm)
    assert verify_token(text, key=key.public_key(), what="token").value == PAYLOAD


def signed_by_jwcrypto(payload, key, algorithm):
    token = JWS(payload)
    token.add_signature(key, algorithm, json.dumps({"alg": algorithm}))
    return token.serialize(compact=True)


def test_sign_token_header_members_are_added():
    token = sign_token(PAYLOAD, key=EC, header={"jwk": {"kty": "EC"}})
    assert json.loads(parts_of(token)[0])["jwk"] == {"kty": "EC"}


def verify(token, key=EC):
    return verify_token(token, key=key.public_key(), what="token")


@pytest.mark.parametrize(
    ("other", "piece"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "does not fit"),
        (ec.generate_private_key(ec.SECP384R1()), "expected algorithm ES384 for this key"),
        (ED, "expected algorithm EdDSA for this key, got 'ES256'"),
        (ec.generate_private_key(ec.SECP256K1()), "expected an RSA key"),
    ],
    ids=["of its kind", "P-384", "Ed25519", "secp256k1"],
)
def test_verify_other_key_refused(other, piece):
    token = sign_token(PAYLOAD, key=EC)
    with pytest.raises(SignatureInvalid, match="token: ") as caught:
        verify(token, other)
    assert piece in str(caught.value)


def test_verify_changed_payload_refused():
    head, _, tail = sign_token(PAYLOAD, key=EC).split(".")
    with pytest.raises(SignatureInvalid, match="does not fit"):
        verify(f"{head}.{b64({'a': 'y'})}.{tail}")


@pytest.mark.parametrize(
    ("header", "piece"),
    [
        ({"alg": "none"}, "got 'none'"),
        ({"alg": "HS256"}, "got 'HS256'"),
        ({"alg": "EdDSA"}, "got 'EdDSA'"),
        ({"alg": "ES256", "crit": ["x"], "x": 1}, "critical members"),
        ({"alg": "ES256", "crit": None}, "critical members"),
        ({"alg": "ES256"}, "does not fit"),
        ({}, "got 'None'"),
        ({"alg": 1}, "got '1'"),
        ({"alg": ["ES256"]}, "expected algorithm ES256"),
    ],
    ids=str,
)
def test_verify_other_header_refused(header, piece):
    _, payload, tail = sign_token(PAYLOAD, key=EC).split(".")
    with pytest.raises(SignatureInvalid) as caught:
        verify(f"{b64(header)}.{payload}.{tail}")
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    "header", [b"[]", b"x", b"[" * 60_000, b'{"alg":"ES256","alg":"none"}'], ids=len
)
def test_verify_header_that_is_no_object_refused(header):
    _, payload, tail = sign_token(PAYLOAD, key=EC).split(".")
    with pytest.raises(FormatError, match="token header"):
        verify(f"{b64(header)}.{payload}.{tail}")


def test_verify_own_key_in_the_header_is_not_believed():
    other = ec.generate_private_key(ec.SECP256R1())
    own = JWK.from_pyca(other.public_key()).export_public(as_dict=True)
    with pytest.raises(SignatureInvalid, match="does not fit"):
        verify(sign_token(PAYLOAD, key=other, header={"jwk": own}))


@pytest.mark.parametrize(
    "text", ["", "a.b", "a..c", "a.b.c.d", '{"payload":"","signature":""}', "a" * 131_073 + ".b.c"]
)
def test_verify_text_that_is_no_token_refused(text):
    with pytest.raises(FormatError, match="expected a JWT"):
        verify(text)


def test_verify_second_spelling_of_a_part_refused():
    head, payload, tail = sign_token(PAYLOAD, key=EC).split(".")
    assert tail[-1] in "AQgw"  # 64 bytes leave 4 bits behind
    other = tail[:-1] + chr(ord(tail[-1]) + 1)
    with pytest.raises(FormatError, match="signature: expected base64url"):
        verify(f"{head}.{payload}.{other}")


def test_verify_payload_that_is_no_object_refused():
    with pytest.raises(FormatError, match="expected an object"):
        verify(signed_by_jwcrypto(b"[1]", JWK.from_pyca(EC), "ES256"))


def flattened(**changes):
    document = build_jws({"alg": "ES256"}, b"text", lambda data: sign(EC, data)) | changes
    return View(document, what="w")


def test_jws_that_was_built_is_read_and_verified():
    message = parse_jws(flattened(header={}))
    message.check_signature(EC.public_key())
    assert message.payload == b"text"
    assert message.header.value == {"alg": "ES256"}


@pytest.mark.parametrize("name", ["protected", "payload", "signature"])
def test_jws_with_any_part_changed_or_gone_is_refused(name):
    text = flattened().text(name)
    changed = (
        parse_jws(flattened(**{name: ("A" if text[0] != "A" else "B") + text[1:]}))
        if name != "protected"
        else parse_jws(flattened(protected=b64({"alg": "ES256", "x": 1})))
    )
    with pytest.raises(SignatureInvalid, match="does not fit"):
        changed.check_signature(EC.public_key())
    for value in (None, 1, text + "=", text[:-1] + "\n"):
        with pytest.raises(FormatError) as caught:
            parse_jws(flattened(**{name: value}))
        assert caught.value.where == f"$.{name}"


@pytest.mark.parametrize(
    ("chain", "where"),
    [(None, ""), ("QQ==", ""), ([1], "[0]"), (["QQ==", "QQ"], "[1]"), (["QQ==", "Q_=="], "[1]")],
    ids=str,
)
def test_x5c_of_other_values_is_refused_with_its_place(chain, where):
    assert x5c_of(View({"x5c": ["QQ==", ""]}, what="w")) == [b"A", b""]
    with pytest.raises(FormatError) as caught:
        x5c_of(View({"x5c": chain}, what="w"))
    assert (caught.value.what, caught.value.where) == ("w", f"$.x5c{where}")


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
def test_jws_of_any_bytes_is_refused(head, payload, signature):
    parts = {"protected": b64(head), "payload": b64(payload), "signature": b64(signature)}
    with pytest.raises((FormatError, SignatureInvalid)):
        parse_jws(View(parts, what="w")).check_signature(EC.public_key())


@pytest.mark.parametrize(
    ("size", "algorithm", "expected"),
    [
        (
            32,
            "ECDH-ES+A256KW",
            "ead36a3ab953bb6e5a6709471c0fd35fcc62cf920994cede2f3aa2544e9f47ac",
        ),
        (
            66,
            "ECDH-ES+A256KW",
            "3e6609c07a08404eae372dd90baa6ab82e7f1104c848e414079726e64e92f00c",
        ),
    ],
)
def test_derive_kek_gives_the_known_answers(size, algorithm, expected):
    assert derive_kek(bytes(range(size)), algorithm).hex() == expected


@pytest.mark.parametrize(("algorithm", "size"), KEK_BYTES.items())
def test_derive_kek_is_as_long_as_its_algorithm_says_and_of_no_other(algorithm, size):
    keys = {name: derive_kek(bytes(32), name) for name in KEK_BYTES}
    assert len(keys[algorithm]) == size
    assert not any(keys[name].startswith(keys[algorithm]) for name in keys if name != algorithm)
