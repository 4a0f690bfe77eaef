# SPDX-License-Identifier: Apache-2.0
"""The life of a key-encryption key at a real broker: stored, bound, wiped."""

import pytest

from imagers.build.broker_key import BrokerKey, load_kek
from imagers.errors import FormatError, LocalError, RemoteError, UsageError
from imagers.kbs.admin import BrokerAdmin
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey

DIGEST = digest_of(b"image")


@pytest.fixture
def key_of(imagers_broker):
    def open_admin():
        return BrokerAdmin(imagers_broker.url, key_file=imagers_broker.admin_key_file)

    return lambda uri, **options: BrokerKey(uri, open_admin, **options)


def nobody():
    raise AssertionError("the broker was asked")


def test_fresh_key_is_stored_on_entering_and_bound_later(key_of, imagers_broker):
    with key_of("kbs:///default/app/") as key:
        assert key.kid.startswith("kbs:///default/app/")
        assert imagers_broker.admin.metadata(key.kid).manifest_digests == ()
        key.bind(DIGEST)
    found = imagers_broker.admin.metadata(key.kid)
    assert found.manifest_digests == (DIGEST,)
    assert found.size == 32


def test_fresh_key_has_another_name_each_time(key_of):
    assert key_of("kbs:///a/b/").kid != key_of("kbs:///a/b/").kid


def test_named_key_is_created_once(key_of):
    with key_of("kbs:///a/b/c"):
        pass
    with pytest.raises(RemoteError, match="already") as caught, key_of("kbs:///a/b/c"):
        pass
    assert "--replace" in caught.value.hint
    with key_of("kbs:///a/b/c", replace=True) as key:
        assert key.kid == "kbs:///a/b/c"


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_key_that_is_left_unbound_by_a_failure_is_told(key_of, error):
    told = []
    key = key_of("kbs:///a/b/c", on_unbound=told.append)
    if error is None:
        with key:
            pass
        assert told == []
    else:
        with pytest.raises(error), key:
            raise error
        assert told == ["kbs:///a/b/c"]


def test_given_key_asks_no_broker_and_stays_the_callers():
    with SecretKey(bytes(32)) as kek:
        key = BrokerKey("kbs:///a/b/c", nobody, kek=kek, on_unbound=nobody)
        with key:
            key.bind(DIGEST)
        assert len(kek) == 32
        with pytest.raises(UsageError, match="the whole name"):
            BrokerKey("kbs:///a/b/", nobody, kek=kek)


def test_wrapping_key_is_wiped_at_the_end(key_of):
    with key_of("kbs:///a/b/") as key:
        wrapper = key.wrapper
    with pytest.raises((ValueError, RuntimeError)), SecretKey(bytes(32)) as layer_key:
        wrapper.wrap(layer_key, None)


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33])
def test_load_kek_of_another_size_refused(tmp_path, content):
    (tmp_path / "kek").write_bytes(content)
    with pytest.raises(FormatError, match="expected exactly 32 bytes") as caught:
        load_kek(str(tmp_path / "kek"))
    assert caught.value.what == str(tmp_path / "kek")


def test_load_kek_that_is_missing_refused(tmp_path):
    with pytest.raises(LocalError, match="no such file"):
        load_kek(str(tmp_path / "nowhere"))
