import base64
import json

import pytest
from jwcrypto.jwk import JWK

from imagers.errors import FormatError, SignatureInvalid
from imagers.pki.jose import KEK_BYTES, derive_kek, sign_token, verify_token

EC = JWK.generate(kty="EC", crv="P-256")
ED = JWK.generate(kty="OKP", crv="Ed25519")
PAYLOAD = {"b": 1, "a": "x"}


def b64(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def parts_of(token):
    return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]


@pytest.mark.parametrize(("key", "algorithm"), [(EC, "ES256"), (ED, "EdDSA")])
def test_token_round_trip_keeps_the_order_of_its_members(key, algorithm):
    token = sign_token(PAYLOAD, key=key, algorithm=algorithm)
    assert verify_token(token, key=key, algorithm=algorithm, what="token").value == PAYLOAD
    header, payload, _ = parts_of(token)
    assert json.loads(header) == {"typ": "JWT", "alg": algorithm}
    assert payload == b'{"b":1,"a":"x"}'


def test_sign_token_header_members_are_added():
    token = sign_token(PAYLOAD, key=EC, algorithm="ES256", header={"jwk": {"kty": "EC"}})
    assert json.loads(parts_of(token)[0])["jwk"] == {"kty": "EC"}


def test_verify_other_key_refused():
    token = sign_token(PAYLOAD, key=EC, algorithm="ES256")
    with pytest.raises(SignatureInvalid, match="token: the signature is not by"):
        verify_token(
            token, key=JWK.generate(kty="EC", crv="P-256"), algorithm="ES256", what="token"
        )


def test_verify_changed_payload_refused():
    head, _, tail = sign_token(PAYLOAD, key=EC, algorithm="ES256").split(".")
    with pytest.raises(SignatureInvalid):
        verify_token(f"{head}.{b64({'a': 'y'})}.{tail}", key=EC, algorithm="ES256", what="token")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "EdDSA"},
        {"alg": "ES256", "crit": ["x"], "x": 1},
        {},
        {"alg": 1},
        {"alg": ["ES256"]},
    ],
    ids=str,
)
def test_verify_other_header_refused(header):
    _, payload, tail = sign_token(PAYLOAD, key=EC, algorithm="ES256").split(".")
    with pytest.raises(SignatureInvalid):
        verify_token(f"{b64(header)}.{payload}.{tail}", key=EC, algorithm="ES256", what="token")


@pytest.mark.parametrize(
    "header", [b"[]", b"x", b"[" * 60_000, b'{"alg":"ES256","alg":"none"}'], ids=len
)
def test_verify_header_that_is_no_object_refused(header):
    _, payload, tail = sign_token(PAYLOAD, key=EC, algorithm="ES256").split(".")
    with pytest.raises(FormatError, match="token header"):
        verify_token(f"{b64(header)}.{payload}.{tail}", key=EC, algorithm="ES256", what="token")


def test_verify_own_key_in_the_header_is_not_believed():
    other = JWK.generate(kty="EC", crv="P-256")
    forged = sign_token(
        PAYLOAD, key=other, algorithm="ES256", header={"jwk": other.export_public(as_dict=True)}
    )
    with pytest.raises(SignatureInvalid):
        verify_token(forged, key=EC, algorithm="ES256", what="token")


@pytest.mark.parametrize(
    "text", ["", "a.b", "a..c", "a.b.c.d", '{"payload":"","signature":""}', "a" * 131_073 + ".b.c"]
)
def test_verify_text_that_is_no_token_refused(text):
    with pytest.raises(FormatError, match="expected a JWT"):
        verify_token(text, key=EC, algorithm="ES256", what="token")


def test_verify_payload_that_is_no_object_refused():
    from jwcrypto.jws import JWS

    token = JWS(b"[1]")
    token.add_signature(EC, "ES256", '{"alg":"ES256"}')
    with pytest.raises(FormatError, match="expected an object"):
        verify_token(token.serialize(compact=True), key=EC, algorithm="ES256", what="token")


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
