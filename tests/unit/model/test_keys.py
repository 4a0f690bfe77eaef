# SPDX-License-Identifier: Apache-2.0
"""Keys: secret bytes that do not leave by accident, and are gone after close."""

import contextlib
import copy
import gc
import hmac
import io
import pickle
import traceback

import pytest

from imagers.errors import ImagersError
from imagers.model.keys import (
    KeyUnwrapper,
    KeyWrapper,
    NotMine,
    SecretKey,
    UnwrapContext,
    WrapContext,
    WrappedKey,
    random_secret,
)

SECRET = b"do not print these 32 bytes, ok?"


def test_secret_key_gives_its_bytes_in_a_view_only():
    with SecretKey(SECRET) as key, key.view() as view:
        assert view == SECRET
        assert view.readonly
        assert len(key) == 32


def test_secret_key_view_is_released_with_its_block():
    key = SecretKey(SECRET)
    with key.view() as view:
        pass
    with pytest.raises(ValueError, match="released"):
        bytes(view)


def test_secret_key_close_overwrites_the_very_buffer():
    key = SecretKey(SECRET)
    data = key._data
    window = memoryview(data)
    key.close()
    assert key._data is data
    assert window.obj is data
    assert bytes(window) == bytes(32)
    key.close()  # twice is safe


def test_secret_key_block_wipes_also_on_an_error():
    key = SecretKey(SECRET)
    with pytest.raises(KeyError), key:
        raise KeyError
    assert not any(key._data)


def test_secret_key_that_is_dropped_is_wiped():
    key = SecretKey(SECRET)
    data = key._data
    del key
    gc.collect()
    assert not any(data)


def test_secret_key_view_after_close_refused():
    key = SecretKey(SECRET)
    key.close()
    with pytest.raises(ValueError, match="the key was closed"), key.view():
        pass


def test_secret_key_copies_what_it_is_made_of():
    data = bytearray(SECRET)
    key = SecretKey(data)
    data[:] = bytes(32)
    with key.view() as view:
        assert view == SECRET


@pytest.mark.parametrize("wrong", [32, [1, 2, 3], "text", None, {1: 2}])
def test_secret_key_of_anything_but_bytes_refused(wrong):
    """bytearray(32) is 32 zeros, which is a key that everybody knows."""
    with pytest.raises(TypeError):
        SecretKey(wrong)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r}".format,
        "%s".__mod__,
        lambda key: repr([key, {"key": key}]),
        lambda key: repr(WrappedKey("jwe", b"x")) + repr(key),
    ],
)
def test_secret_key_prints_its_length_only(show):
    text = show(SecretKey(SECRET))
    assert "SecretKey(32 bytes)" in text
    assert "print" not in text
    assert SECRET.hex() not in text


def test_secret_key_is_not_in_a_traceback_that_shows_locals():
    def fail():
        key = SecretKey(SECRET)
        assert key
        raise KeyError("x")

    out = io.StringIO()
    with contextlib.suppress(KeyError):
        try:
            fail()
        except KeyError as error:
            traceback.TracebackException.from_exception(error, capture_locals=True).print(file=out)
            raise
    assert "SecretKey(32 bytes)" in out.getvalue()
    assert "do not" not in out.getvalue()


@pytest.mark.parametrize(
    "take",
    [
        bytes,
        bytearray,
        list,
        memoryview,
        iter,
        hash,
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        lambda key: pickle.dumps(key, protocol=0),
        lambda key: {key},
        lambda key: key[0],
        lambda key: key + key,
    ],
)
def test_secret_key_cannot_be_taken_out_by_accident(take):
    with pytest.raises(TypeError):
        take(SecretKey(SECRET))


def test_secret_keys_compare_by_content_in_constant_time(monkeypatch):
    calls = []

    def counted(one, two):
        calls.append(len(one))
        return original(one, two)

    original = hmac.compare_digest
    monkeypatch.setattr("imagers.model.keys.hmac.compare_digest", counted)
    assert SecretKey(SECRET) == SecretKey(SECRET)
    assert SecretKey(SECRET) != SecretKey(bytes(32))
    assert SecretKey(SECRET) != SecretKey(SECRET[:31])
    assert calls == [32, 32, 32]


@pytest.mark.parametrize("other", [SECRET, bytearray(SECRET), "text", None, 32])
def test_secret_key_equals_no_other_type(other):
    assert SecretKey(SECRET) != other


def test_secret_keys_that_were_wiped_are_not_equal_but_an_error():
    """All wiped keys of one length hold the same zeros."""
    one, two = SecretKey(SECRET), SecretKey(b"x" * 32)
    one.close()
    for left, right in ((one, two), (two, one)):
        with pytest.raises(ValueError, match="the key was closed"):
            assert left == right


def test_secret_key_half_made_is_deleted_without_an_error():
    SecretKey.__new__(SecretKey).__del__()


def test_random_secret_is_fresh_and_as_long_as_asked():
    one, two = random_secret(32), random_secret(32)
    assert len(one) == len(two) == 32
    assert one != two


def test_not_mine_is_a_signal_and_no_error_of_the_api():
    assert not issubclass(NotMine, ImagersError)


def test_protocols_are_known_at_run_time():
    class Both:
        scheme = "jwe"
        recipients = ("a",)
        description = "key file 'a'"

        def wrap(self, private_options, context):
            return bytes(len(private_options)) + context.what.encode()

        def unwrap(self, wrapped, context):
            raise NotMine(wrapped.scheme + context.what)

    both = Both()
    assert isinstance(both, KeyWrapper)
    assert isinstance(both, KeyUnwrapper)
    assert not isinstance(SecretKey(b""), KeyWrapper)
    assert both.wrap(SecretKey(b"ab"), WrapContext("x")) == b"\0\0x"
    with pytest.raises(NotMine):
        both.unwrap(WrappedKey("jwe", b""), UnwrapContext("x", None))
