# SPDX-License-Identifier: Apache-2.0
import base64
import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwcrypto import jwe as peer
from jwcrypto import jwk as peer_jwk

from imagers.encrypt.schemes.jwe import JWEUnwrapper, JWEWrapper, parse_jwe
from imagers.errors import FormatError, Unsupported
from imagers.model.keys import NotMine, SecretKey, UnwrapContext, WrapContext, WrappedKey

CONTEXT = UnwrapContext("layer 1 of 1", None)
TEXT = b"private options"


def wrap(*keys):
    return JWEWrapper(keys).wrap(SecretKey(TEXT), WrapContext("layer 1 of 1"))


def unwrap(key, packet, scheme="jwe"):
    with (
        JWEUnwrapper(key).unwrap(WrappedKey(scheme, packet), CONTEXT) as secret,
        secret.view() as v,
    ):
        return bytes(v)


def decoded(text):
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def made_by_peer(key, *, header, recipient_header=None, compact=False, plaintext=TEXT):
    """A JWE by jwcrypto alone, with whatever header one likes."""
    algorithms = [*peer.default_allowed_algs, "RSA1_5", "dir", "A256KW", "RSA-OAEP"]
    token = peer.JWE(plaintext, protected=json.dumps(header), algs=algorithms)
    token.add_recipient(peer_jwk.JWK.from_pyca(key), header=recipient_header)
    return token.serialize(compact=compact).encode()


PAIRS = [
    ("r2048.pub", "r2048.key", "RSA-OAEP"),
    ("r4096.pub", "r4096.key", "RSA-OAEP"),
    ("ec256.pub", "ec256.key", "ECDH-ES+A256KW"),
    ("ec384.pub", "ec384.key", "ECDH-ES+A256KW"),
    ("jwkrsa.jwk", "jwkrsa.priv.jwk", "RSA-OAEP-256"),
]


@pytest.mark.parametrize(("public", "private", "algorithm"), PAIRS, ids=[p[0] for p in PAIRS])
def test_wrap_for_one_is_flattened_as_go_jose_writes_it_and_opens(
    public_key, private_key, public, private, algorithm
):
    packet = wrap(public_key(public))
    document = json.loads(packet)
    assert list(document) == ["protected", "encrypted_key", "iv", "ciphertext", "tag"]
    header = decoded(document["protected"])
    assert list(header) == sorted(header)
    assert (header["alg"], header["enc"]) == (algorithm, "A256GCM")
    assert unwrap(private_key(private), packet) == TEXT


def test_wrap_for_several_is_general_with_the_top_level_key_of_go_jose(public_key, private_key):
    packet = wrap(*(public_key(public) for public, _, _ in PAIRS))
    document = json.loads(packet)
    assert list(document) == ["protected", "recipients", "encrypted_key", "iv", "ciphertext", "tag"]
    assert decoded(document["protected"]) == {"enc": "A256GCM"}
    assert document["encrypted_key"] == document["recipients"][0]["encrypted_key"]
    assert [one["header"]["alg"] for one in document["recipients"]] == [p[2] for p in PAIRS]
    assert document["recipients"][4]["header"]["kid"] == "jwkrsa"
    assert list(document["recipients"][2]["header"]["epk"]) == ["kty", "crv", "x", "y"]
    for _, private, _ in PAIRS:
        assert unwrap(private_key(private), packet) == TEXT


def test_wrap_shape_equals_that_of_the_vectors(vectors, public_key):
    """The same members in the same order as skopeo's own, for one, two and three recipients."""
    for case, names in [
        ("jwe-rsa2048-gzip-A", ["r2048.pub"]),
        ("jwe-ecp256-gzip-C", ["ec256.pub"]),
        ("jwe-two-recipients-A", ["r2048.pub", "ec256.pub"]),
        ("jwe-three-recipients-C", ["ec256.pub", "r4096.pub", "ec384.pub"]),
        ("jwe-jwk-rsa-oaep-256-C", ["jwkrsa.jwk"]),
    ]:
        ours = json.loads(wrap(*(public_key(name) for name in names)))
        assert shape(ours) == shape(first_jwe(vectors / "encrypted" / case / "image")), case


def first_jwe(layout):
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].replace(":", "/")
    manifest = json.loads((layout / "blobs" / digest).read_text())
    value = manifest["layers"][0]["annotations"]["org.opencontainers.image.enc.keys.jwe"]
    return json.loads(base64.b64decode(value))


def shape(value):
    """Names, order, fixed values and lengths of a JWE; the random parts are left away."""
    if isinstance(value, dict):
        return [
            (name, shape(decoded(item)) if name == "protected" else shape(item))
            for name, item in value.items()
            if name not in ("ciphertext", "kid")
        ]
    if isinstance(value, list):
        return [shape(item) for item in value]
    return value if len(value) < 16 else len(value)


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("name", ["ec256", "ec384"])
def test_wrap_is_read_by_jwcrypto_with_every_key_length(public_key, private_key, name, length):
    key = public_key(f"{name}.pub")
    object.__setattr__(key, "algorithm", f"ECDH-ES+A{length * 8}KW")
    token = peer.JWE(algs=[f"ECDH-ES+A{length * 8}KW", "A256GCM"])
    token.deserialize(wrap(key).decode(), peer_jwk.JWK.from_pyca(private_key(f"{name}.key").key))
    assert token.payload == TEXT


@pytest.mark.parametrize(
    "enc", ["A128GCM", "A192GCM", "A256GCM", "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512"]
)
@pytest.mark.parametrize("compact", [False, True])
def test_unwrap_reads_every_content_encryption_in_both_forms(private_key, enc, compact):
    key = private_key("r2048.key")
    packet = made_by_peer(
        key.key.public_key(), header={"alg": "RSA-OAEP-256", "enc": enc}, compact=compact
    )
    assert unwrap(key, packet) == TEXT


@pytest.mark.parametrize(
    ("header", "piece"),
    [
        ({"alg": "RSA1_5", "enc": "A256GCM"}, "got 'RSA1_5'"),
        ({"alg": "RSA-OAEP", "enc": "A256GCM", "zip": "DEF"}, "header 'zip'"),
    ],
)
def test_unwrap_of_what_is_not_on_the_list_raises_unsupported(private_key, header, piece):
    key = private_key("r2048.key")
    packet = made_by_peer(key.key.public_key(), header=header)
    with pytest.raises(Unsupported, match="layer 1 of 1: JWE") as caught:
        unwrap(key, packet)
    assert piece in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"crit": ["exp"], "exp": 1},
        {"zip": "DEF"},
        {"enc": "none"},
        {"enc": 7},
        {"alg": "dir"},
    ],
)
def test_unwrap_of_other_headers_raises_unsupported(public_key, private_key, changes):
    document = json.loads(wrap(public_key("r2048.pub")))
    document["protected"] = encoded({**decoded(document["protected"]), **changes})
    with pytest.raises(Unsupported):
        unwrap(private_key("r2048.key"), json.dumps(document).encode())


@pytest.mark.parametrize("alg", [None, ["RSA-OAEP"], 7, "ECDH-ES+A256KW"])
def test_unwrap_without_an_algorithm_for_this_key_is_not_mine(public_key, private_key, alg):
    document = json.loads(wrap(public_key("r2048.pub")))
    document["protected"] = encoded({"alg": alg, "enc": "A256GCM"})
    with pytest.raises(NotMine, match="no recipient of the JWE has an RSA key"):
        unwrap(private_key("r2048.key"), json.dumps(document).encode())


def test_unwrap_zip_bomb_is_refused_before_it_is_inflated(private_key):
    key = private_key("r2048.key")
    header = {"alg": "RSA-OAEP", "enc": "A256GCM", "zip": "DEF"}
    packet = made_by_peer(key.key.public_key(), header=header, plaintext=bytes(50_000_000))
    with pytest.raises(Unsupported, match="zip"):
        unwrap(key, packet)


@pytest.mark.parametrize("name", ["wrong.key", "r4096.key", "ec256.key"])
def test_unwrap_with_another_key_is_not_mine(public_key, private_key, name):
    with pytest.raises(NotMine):
        unwrap(private_key(name), wrap(public_key("r2048.pub")))


def test_unwrap_of_another_scheme_is_not_mine(public_key, private_key):
    with pytest.raises(NotMine, match="scheme is 'pkcs7'"):
        unwrap(private_key("r2048.key"), wrap(public_key("r2048.pub")), "pkcs7")


@pytest.mark.parametrize("member", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
@pytest.mark.parametrize("name", ["r2048", "ec256"])
def test_unwrap_changed_jwe_is_not_mine(public_key, private_key, name, member):
    document = json.loads(wrap(public_key(f"{name}.pub")))
    if member == "protected":
        document[member] = encoded({**decoded(document[member]), "cty": "x"})
    else:
        first = "B" if document[member][0] == "A" else "A"
        document[member] = first + document[member][1:]
    with pytest.raises(NotMine, match="for another key, or was changed"):
        unwrap(private_key(f"{name}.key"), json.dumps(document).encode())


@pytest.mark.parametrize(
    "epk",
    [
        None,
        {},
        {"kty": "oct", "k": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        # On no curve: the invalid-curve attack on the private key.
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 42 + "E"},
        {"kty": "EC", "crv": "P-384", "x": "A" * 64, "y": "A" * 64},
    ],
)
def test_unwrap_with_a_bad_ephemeral_key_is_not_mine(public_key, private_key, epk):
    document = json.loads(wrap(public_key("ec256.pub")))
    document["protected"] = encoded({**decoded(document["protected"]), "epk": epk})
    with pytest.raises(NotMine):
        unwrap(private_key("ec256.key"), json.dumps(document).encode())


def test_unwrap_finds_its_recipient_behind_one_that_is_not_on_the_list(public_key, private_key):
    document = json.loads(wrap(public_key("r2048.pub"), public_key("ec256.pub")))
    document["recipients"].insert(0, {"header": {"alg": "RSA1_5"}, "encrypted_key": "AAAA"})
    for name in ("r2048.key", "ec256.key"):
        assert unwrap(private_key(name), json.dumps(document).encode()) == TEXT


@pytest.mark.parametrize(
    ("changes", "piece"),
    [
        ({"recipients": []}, "expected a list that is not empty"),
        ({"recipients": {}}, "expected a list"),
        ({"recipients": [1]}, "expected an object"),
        ({"recipients": [{"header": 1}]}, "header: expected an object"),
        ({"recipients": [{}] * 301}, "expected at most 300"),
        ({"unprotected": {"alg": "RSA-OAEP"}}, "one header name in two places"),
        ({"header": {"enc": "A256GCM"}}, "one header name in two places"),
        ({"iv": None}, "$.iv: is missing"),
        ({"tag": "a b"}, "$.tag: expected base64url"),
        ({"ciphertext": 5}, "$.ciphertext: expected a string, got a number"),
        ({"protected": "e30="}, "$.protected: expected base64url"),
        ({"protected": encoded([])}, "expected an object"),
        ({"encrypted_key": []}, "$.encrypted_key: expected a string, got a list"),
    ],
)
def test_parse_jwe_with_a_fault_raises_and_unwrap_goes_on(public_key, private_key, changes, piece):
    document = {**json.loads(wrap(public_key("r2048.pub"))), **changes}
    packet = json.dumps(document).encode()
    with pytest.raises(FormatError) as caught:
        parse_jwe(packet)
    assert piece in str(caught.value)
    with pytest.raises(NotMine):
        unwrap(private_key("r2048.key"), packet)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"garbage",
        b"....",
        b"a.b.c.d",
        b"a.b.c.d.e.f",
        b"\xff.\xff.\xff.\xff.\xff",
        b'{"iv":"AA","iv":"AA"}',
        b"{" + b" " * 300_000 + b"}",
        b"." * 300_000,
    ],
)
def test_unwrap_of_no_jwe_is_not_mine(private_key, packet):
    with pytest.raises(NotMine):
        unwrap(private_key("r2048.key"), packet)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_unwrap_of_randomly_changed_bytes_opens_the_same_or_says_no(public_key, private_key, data):
    packet = bytearray(wrap(public_key("ec256.pub")))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(packet) - 1))
        packet[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotMine, Unsupported):
        assert unwrap(private_key("ec256.key"), bytes(packet)) == TEXT


def test_wrapper_and_unwrapper_name_their_files(public_key, private_key):
    wrapper = JWEWrapper([public_key("r2048.pub"), public_key("ec256.pub")])
    assert [name.rpartition("/")[2] for name in wrapper.recipients] == ["r2048.pub", "ec256.pub"]
    assert JWEUnwrapper(private_key("r2048.key")).description.endswith("r2048.key'")


def test_wrapper_without_keys_is_the_callers_bug():
    with pytest.raises(ValueError, match="needs a recipient"):
        JWEWrapper([])


def test_wrapper_for_more_than_a_reader_takes_raises(public_key):
    with pytest.raises(Unsupported, match="at most 300 recipients, got 301"):
        JWEWrapper([public_key("ec256.pub")] * 301)
