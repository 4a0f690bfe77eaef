# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from hypothesis import given
from hypothesis import strategies as st
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from imagers.errors import FormatError, ImagersError, TagMismatch, Unsupported
from imagers.kbs.jwe import (
    aad_of_header,
    check_public_key,
    open_answer,
    seal_answer,
)
from imagers.kbs.messages import ECDH_ES_A256KW, RSAPublicKey
from imagers.kbs.tee_key import ECKey, MLKEMKey, make_tee_key
from imagers.model.base64 import decode_base64url, encode_base64url
from imagers.model.keys import SecretKey
from imagers.pki.jose import derive_kek

ALGORITHMS = ("ECDH-ES+A256KW-P256", "ECDH-ES+A256KW-P521", "ML-KEM-768+A192KW")
SECRET = b"imagers secret \x00\xff" * 3


def seal(key, secret=SECRET):
    return json.loads(seal_answer(SecretKey(secret), key.public))


def opened(value, key):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with open_answer(data, key) as secret, secret.view() as view:
        return bytes(view)


def header_of(value):
    return json.loads(decode_base64url(value["protected"], what="x"))


def jwcrypto_key(key):
    """The same private key for jwcrypto."""
    return JWK.from_pyca(key._private)


def test_key_wrap_known_answer():
    kek, cek = derive_kek(bytes(range(32)), ECDH_ES_A256KW), bytes(range(0x40, 0x60))
    wrapped = aes_key_wrap(kek, cek)
    assert wrapped.hex() == (
        "fece6f7475af5c8333928ec6f05e26d58042dce21f2339154614971e5ce14be3bb307e7f488704fc"
    )
    assert aes_key_unwrap(kek, wrapped) == cek


def test_aad_known_answer_whatever_the_order():
    x, y = encode_base64url(bytes(range(32))), encode_base64url(bytes(range(32, 64)))
    expected = (
        "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYi"
        "LCJrdHkiOiJFQyIsIngiOiJBQUVDQXdRRkJnY0lDUW9MREEwT0R4QVJFaE1VRlJZWEdCa2FHeHdkSGg4"
        "IiwieSI6IklDRWlJeVFsSmljb0tTb3JMQzB1THpBeE1qTTBOVFkzT0RrNk96dzlQajgifX0"
    )
    for header in (
        {
            "alg": "ECDH-ES+A256KW",
            "enc": "A256GCM",
            "epk": {"crv": "P-256", "kty": "EC", "x": x, "y": y},
        },
        {
            "epk": {"y": y, "kty": "EC", "x": x, "crv": "P-256"},
            "enc": "A256GCM",
            "alg": "ECDH-ES+A256KW",
        },
    ):
        assert aad_of_header(header).decode() == expected


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("secret", [b"", b"x", SECRET, bytes(1_000_000)], ids=len)
def test_answer_round_trip(algorithm, secret):
    key = make_tee_key(algorithm)
    assert opened(seal(key, secret), key) == secret


def test_seal_header_is_compact_and_ordered_for_the_rust_peers():
    value = seal(ECKey())
    assert list(value) == ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
    text = decode_base64url(value["protected"], what="x").decode()
    header = json.loads(text)
    assert list(header) == ["alg", "enc", "epk"]
    assert list(header["epk"]) == ["crv", "kty", "x", "y"]
    assert text == json.dumps(header, separators=(",", ":"))
    assert aad_of_header(header).decode() == value["protected"]


def test_seal_twice_shares_nothing():
    key = ECKey()
    one, other = seal(key), seal(key)
    assert all(one[name] != other[name] for name in one)


@pytest.mark.parametrize("crv", ["P-256", "P-521"])
def test_seal_is_opened_by_jwcrypto(crv):
    key = ECKey(crv)
    token = JWE(algs=["ECDH-ES+A256KW", "A256GCM"])
    token.deserialize(json.dumps(seal(key)), jwcrypto_key(key))
    assert token.payload == SECRET


@pytest.mark.parametrize("crv", ["P-256", "P-521"])
def test_open_reads_what_jwcrypto_seals(crv):
    key = ECKey(crv)
    token = JWE(
        SECRET,
        protected=json.dumps({"alg": "ECDH-ES+A256KW", "enc": "A256GCM"}),
        algs=["ECDH-ES+A256KW", "A256GCM"],
    )
    token.add_recipient(JWK(**key.public.to_json()))
    # Its compact form has all of the header in the protected part, as the protocol wants.
    names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    value = dict(zip(names, token.serialize(compact=True).split("."), strict=True))
    assert opened(value, key) == SECRET


def test_seal_rsa_is_opened_by_jwcrypto():
    private = rsa.generate_private_key(65537, 2048)
    jwk = JWK.from_pyca(private)
    public = jwk.export_public(as_dict=True)
    data = seal_answer(SecretKey(SECRET), RSAPublicKey(n=public["n"], e=public["e"]))
    assert header_of(json.loads(data)) == {"alg": "RSA-OAEP-256", "enc": "A256GCM"}
    token = JWE(algs=["RSA-OAEP-256", "A256GCM"])
    token.deserialize(data.decode(), jwk)
    assert token.payload == SECRET


@pytest.mark.parametrize(
    ("n", "e"),
    [(b"\xff" * 255 + b"\xfe", b"\1\0\1"), (b"\xff" * 256, b"\2"), (b"\xff" * 256, b"\1")],
    ids=["even modulus", "even exponent", "exponent one"],
)
def test_seal_rsa_key_that_is_none_refused(n, e):
    key = RSAPublicKey(n=encode_base64url(n), e=encode_base64url(e))
    for use in (check_public_key, lambda key: seal_answer(SecretKey(SECRET), key)):
        with pytest.raises(FormatError, match="expected an RSA public key"):
            use(key)


def test_open_header_reordered_after_sealing_is_tried_in_the_rust_form():
    """A sender may authenticate the re-serialised form and send another spelling."""
    key = ECKey()
    value = seal(key)
    header = header_of(value)
    spaced = json.dumps(dict(reversed(header.items())), indent=1).encode()
    assert opened(value | {"protected": encode_base64url(spaced)}, key) == SECRET


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_open_for_another_key_is_tag_mismatch(algorithm):
    with pytest.raises(TagMismatch, match="broker answer"):
        opened(seal(make_tee_key(algorithm)), make_tee_key(algorithm))


def test_open_for_a_key_of_another_algorithm_refused():
    with pytest.raises(Unsupported, match="expected 'ML-KEM-768"):
        opened(seal(ECKey()), MLKEMKey())
    with pytest.raises(Unsupported, match="expected 'ECDH-ES"):
        opened(seal(MLKEMKey()), ECKey())


def test_seal_to_ml_kem_has_the_ciphertext_in_the_header_as_the_rust_peers_have_it():
    header = header_of(seal(MLKEMKey()))
    assert list(header) == ["alg", "enc", "ek"]
    assert header["alg"] == "ML-KEM-768+A192KW"
    assert len(decode_base64url(header["ek"], what="x")) == 1088


def test_ml_kem_ciphertext_one_bit_changed_is_tag_mismatch():
    key = MLKEMKey()
    value = seal(key)
    header = header_of(value)
    ciphertext = bytearray(decode_base64url(header["ek"], what="x"))
    ciphertext[7] ^= 1
    changed = header | {"ek": encode_base64url(bytes(ciphertext))}
    with pytest.raises(TagMismatch):
        opened(value | {"protected": aad_of_header(changed).decode()}, key)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["encrypted_key", "iv", "ciphertext", "tag"])
def test_open_one_bit_changed_is_tag_mismatch(name, algorithm):
    key = make_tee_key(algorithm)
    value = seal(key)
    data = bytearray(decode_base64url(value[name], what="x"))
    data[0] ^= 1
    with pytest.raises(TagMismatch):
        opened(value | {name: encode_base64url(bytes(data))}, key)


def test_open_header_with_another_member_is_tag_mismatch():
    key = ECKey()
    value = seal(key)
    header = header_of(value) | {"kid": "x"}
    text = encode_base64url(json.dumps(header, separators=(",", ":")).encode())
    with pytest.raises(TagMismatch):
        opened(value | {"protected": text}, key)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"alg": "RSA-OAEP-256"}, Unsupported),
        ({"alg": "ECDH-ES"}, Unsupported),
        ({"alg": "dir"}, Unsupported),
        ({"enc": "A128GCM"}, Unsupported),
        ({"enc": "none"}, Unsupported),
        ({"zip": "DEF"}, Unsupported),
        ({"crit": ["x"]}, Unsupported),
        ({"apu": "QQ"}, Unsupported),
        ({"apv": "QQ"}, Unsupported),
        ({"epk": None}, FormatError),
        ({"epk": {"kty": "EC", "crv": "P-521", "x": "", "y": ""}}, FormatError),
        ({"epk": {"kty": "EC", "crv": "P-256", "x": "QQ", "y": "QQ"}}, FormatError),
        (
            {
                "epk": {
                    "kty": "EC",
                    "crv": "P-256",
                    "x": encode_base64url(b"\1" * 32),
                    "y": encode_base64url(b"\2" * 32),
                }
            },
            FormatError,
        ),
    ],
    ids=str,
)
def test_open_header_that_is_not_ours_refused(change, error):
    key = ECKey()
    value = seal(key)
    text = encode_base64url(json.dumps(header_of(value) | change).encode())
    with pytest.raises(error):
        opened(value | {"protected": text}, key)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        ({"iv": encode_base64url(bytes(11))}, "expected 12 bytes, got 11"),
        ({"tag": encode_base64url(bytes(12))}, "expected 16 bytes, got 12"),
        ({"encrypted_key": encode_base64url(bytes(32))}, "expected 40 bytes, got 32"),
        ({"ciphertext": "a=b"}, "base64url"),
        ({"tag": None}, "is missing"),
        ({"protected": "e30"}, "$.alg"),
    ],
)
def test_open_member_of_another_form_refused(change, piece):
    key = ECKey()
    with pytest.raises(FormatError) as caught:
        opened(seal(key) | change, key)
    assert piece in str(caught.value)


def test_open_member_aad_unsupported():
    key = ECKey()
    with pytest.raises(Unsupported, match="'aad'"):
        opened(seal(key) | {"aad": "QQ"}, key)


def test_open_answer_too_long_refused():
    with pytest.raises(FormatError, match="at most 3145728 bytes"):
        open_answer(b" " * 3_145_729, ECKey())


@given(st.binary(max_size=200))
def test_open_any_bytes_give_an_error_of_ours(data):
    with pytest.raises(ImagersError):
        open_answer(data, ECKey())


def test_errors_never_show_the_secret():
    key = ECKey()
    value = seal(key)
    with pytest.raises(TagMismatch) as caught:
        opened(value | {"tag": encode_base64url(bytes(16))}, key)
    assert "imagers secret" not in str(caught.value)
    assert value["ciphertext"] not in str(caught.value)
