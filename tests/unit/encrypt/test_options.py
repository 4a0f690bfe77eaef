# SPDX-License-Identifier: Apache-2.0
import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.encrypt.options import (
    AES256_GCM_HKDF_1MB,
    AES_256_CTR_HMAC_SHA256,
    PublicOptions,
    associated_data,
    build_private_options,
    build_public_options,
    parse_private_options,
    parse_public_options,
)
from imagers.errors import FormatError, ImagersError, Unsupported
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey

KEY = bytes(range(32))
NONCE = bytes(range(0xF0, 0x100))
HMAC = bytes.fromhex("867de7e6940b42e91352af1f0856335b4046db823c8b103ce3f1c3ab051b46de")
WHAT = "layer 1 of 3"


def b64(data):
    return base64.b64encode(data).decode()


def public(**changes):
    document = {"cipher": AES_256_CTR_HMAC_SHA256, "hmac": b64(HMAC), "cipheroptions": {}}
    return json.dumps({**document, **changes}).encode()


def private(**changes):
    document = {
        "symkey": b64(KEY),
        "digest": str(digest_of(b"")),
        "cipheroptions": {"nonce": b64(NONCE)},
    }
    document.update(changes)
    return SecretKey(json.dumps({k: v for k, v in document.items() if v is not ...}).encode())


def opened(key):
    with key.view() as data:
        return bytes(data)


def test_build_public_options_is_the_compact_text_of_ocicrypt():
    text = build_public_options(PublicOptions(AES_256_CTR_HMAC_SHA256, HMAC))
    assert text == (
        b'{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"hn3n5pQLQukTUq8fCFYzW0BG24I8ixA84/HDqwUbRt4=",'
        b'"cipheroptions":{}}'
    )


def test_build_private_options_is_the_193_bytes_of_ocicrypt():
    with build_private_options(SecretKey(KEY), NONCE, digest=digest_of(b"")) as document:
        assert opened(document) == (
            b'{"symkey":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",'
            b'"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",'
            b'"cipheroptions":{"nonce":"8PHy8/T19vf4+fr7/P3+/w=="}}'
        )
        assert len(document) == 193


@pytest.mark.parametrize(("key", "nonce"), [(31, 16), (33, 16), (32, 12), (32, 0)])
def test_build_private_options_with_wrong_lengths_is_the_callers_bug(key, nonce):
    with pytest.raises(ValueError, match="32 bytes"):
        build_private_options(SecretKey(bytes(key)), bytes(nonce), digest=digest_of(b""))


def test_parse_public_options_of_rust_order_gives_the_same_value():
    text = base64.b64decode(
        "eyJjaXBoZXIiOiJBRVNfMjU2X0NUUl9ITUFDX1NIQTI1NiIsImNpcGhlcm9wdGlvbnMiOnt9LCJobWFjIjoiaG4z"
        "bjVwUUxRdWtUVXE4ZkNGWXpXMEJHMjRJOGl4QTg0L0hEcXdVYlJ0ND0ifQ=="
    )
    assert parse_public_options(text, what=WHAT) == PublicOptions(AES_256_CTR_HMAC_SHA256, HMAC)


@pytest.mark.parametrize(
    ("document", "where", "piece"),
    [
        (public(cipher=""), "$.cipher", "names no cipher"),
        (public(cipher=None), "$.cipher", "names no cipher"),
        (public(hmac=None), "$.hmac", "is missing"),
        (public(hmac=""), "$.hmac", "expected 32 bytes, got 0"),
        (public(hmac=b64(HMAC[:31])), "$.hmac", "expected 32 bytes, got 31"),
        (public(hmac="%%%"), "$.hmac", "base64"),
        (public(hmac=[1, 2]), "$.hmac", "expected a string"),
        (public(cipheroptions={"nonce": b64(NONCE)}), "$.cipheroptions.nonce", "has a nonce"),
        (public(cipheroptions={"nonce": ""}), "$.cipheroptions.nonce", "has a nonce"),
        (public(cipheroptions=[]), "$.cipheroptions", "expected an object"),
        (b'{"cipher":"a","cipher":"b"}', "", "twice"),
        (b"no json", "", "not JSON"),
        (b"[]", "$", "expected an object"),
        (b'{"cipher":"' + b"a" * 20000 + b'"}', "", "at most"),
    ],
)
def test_parse_public_options_with_a_fault_raises_and_says_where(document, where, piece):
    with pytest.raises(FormatError, match=WHAT) as caught:
        parse_public_options(document, what=WHAT)
    assert caught.value.where == where
    assert piece in str(caught.value)


def test_parse_public_options_of_unknown_cipher_raises_unsupported():
    with pytest.raises(Unsupported, match="'AES_512' is not supported: expected AES256_GCM"):
        parse_public_options(public(cipher="AES_512"), what=WHAT)


def test_parse_public_options_without_cipheroptions_and_with_unknown_members_is_read():
    document = public(cipheroptions=None, more=1)
    assert parse_public_options(document, what=WHAT).hmac == HMAC


def test_parse_private_options_gives_back_what_was_built():
    with (
        build_private_options(SecretKey(KEY), NONCE, digest=digest_of(b"")) as document,
        parse_private_options(document, what=WHAT) as options,
    ):
        assert opened(options.key) == KEY
        assert options.nonce == NONCE
        assert options.digest == str(digest_of(b""))
    with pytest.raises(ValueError, match="closed"), options.key.view():
        pass


@pytest.mark.parametrize("digest", ["sha256:00", "anything", "", None, ...])
def test_parse_private_options_never_judges_the_digest(digest):
    assert parse_private_options(private(digest=digest), what=WHAT).nonce == NONCE


@pytest.mark.parametrize(
    ("document", "where", "piece"),
    [
        (private(symkey=...), "$.symkey", "is missing"),
        (private(symkey=b64(KEY[:16])), "$.symkey", "expected 32 bytes, got 16"),
        (private(symkey=b64(KEY + b"x")), "$.symkey", "expected 32 bytes, got 33"),
        (private(cipheroptions=...), "$.cipheroptions.nonce", "is missing"),
        (private(cipheroptions={}), "$.cipheroptions.nonce", "is missing"),
        (private(cipheroptions={"nonce": b64(NONCE[:12])}), "$.cipheroptions.nonce", "got 12"),
        (private(cipheroptions={"nonce": b64(NONCE * 2)}), "$.cipheroptions.nonce", "got 32"),
        (private(cipheroptions={"Nonce": b64(NONCE)}), "$.cipheroptions.nonce", "is missing"),
        (SecretKey(b"no json"), "", "not JSON"),
        (SecretKey(b'{"symkey":"a","symkey":"b"}'), "", "twice"),
    ],
)
def test_parse_private_options_with_a_fault_raises_and_shows_no_secret(document, where, piece):
    with pytest.raises(FormatError, match="private options") as caught:
        parse_private_options(document, what=WHAT)
    assert caught.value.where == where
    assert piece in str(caught.value)
    assert b64(KEY)[:8] not in str(caught.value)


def test_private_options_do_not_print_the_key():
    options = parse_private_options(private(), what=WHAT)
    assert b64(KEY)[:8] not in repr(options)
    assert repr(KEY)[2:20] not in repr(options)


@given(st.binary(max_size=300))
def test_parse_of_any_bytes_gives_options_or_an_error_of_ours(data):
    for parse in (
        parse_public_options,
        lambda d, what: parse_private_options(SecretKey(d), what=what),
    ):
        with contextlib.suppress(ImagersError):
            parse(data, what=WHAT)


# --- AES256_GCM_HKDF_1MB

DIFF_ID = digest_of(b"the tar")


def aead_document(**changes):
    document = {"symkey": base64.b64encode(bytes(32)).decode(), "digest": "sha256:x"}
    document |= {"diff_id": str(DIFF_ID), "cipheroptions": {}} | changes
    return SecretKey(json.dumps(document).encode())


def parse_aead(**changes):
    return parse_private_options(aead_document(**changes), what="x", cipher=AES256_GCM_HKDF_1MB)


def test_public_options_of_the_second_cipher_have_no_hmac():
    options = PublicOptions(AES256_GCM_HKDF_1MB, b"")
    built = build_public_options(options)
    assert built == b'{"cipher":"AES256_GCM_HKDF_1MB","cipheroptions":{}}'
    assert parse_public_options(built, what="x") == options
    with pytest.raises(FormatError, match="this cipher has none"):
        parse_public_options(b'{"cipher":"AES256_GCM_HKDF_1MB","hmac":"AA=="}', what="x")
    with pytest.raises(FormatError, match="belongs into the encrypted options"):
        parse_public_options(
            b'{"cipher":"AES256_GCM_HKDF_1MB","cipheroptions":{"nonce":"AA=="}}', what="x"
        )


def test_private_options_of_the_second_cipher_bind_the_diff_id():
    with (
        SecretKey(bytes(32)) as key,
        build_private_options(key, b"", digest=digest_of(b""), diff_id=DIFF_ID) as document,
        document.view() as data,
    ):
        text = bytes(data).decode()
        assert text.endswith(f'"diff_id":"{DIFF_ID}","cipheroptions":{{}}}}')
        parsed = parse_private_options(document, what="x", cipher=AES256_GCM_HKDF_1MB)
        assert (parsed.diff_id, parsed.nonce) == (DIFF_ID, b"")
    assert parse_aead(diff_id=None).diff_id is None


def test_private_options_of_one_cipher_do_not_serve_the_other():
    """Who renames the cipher in the public options gains nothing."""
    with pytest.raises(FormatError, match="nonce"):
        parse_private_options(aead_document(), what="x")
    with pytest.raises(FormatError, match="this cipher has none"):
        parse_aead(cipheroptions={"nonce": base64.b64encode(bytes(16)).decode()})


@pytest.mark.parametrize("diff_id", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "0" * 32, 7])
def test_private_options_with_a_diff_id_that_is_none_raise(diff_id):
    with pytest.raises(FormatError):
        parse_aead(diff_id=diff_id)


def test_associated_data_is_the_type_for_the_second_cipher_only():
    assert associated_data(AES256_GCM_HKDF_1MB, "a/b") == b"imagers-layer-v1\0a/b"
    assert associated_data("AES_256_CTR_HMAC_SHA256", "a/b") == b""
