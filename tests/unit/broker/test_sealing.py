# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.broker.sealing import Sealer
from imagers.errors import LocalError, TagMismatch
from imagers.model.keys import SecretKey

SECRET = b"a very secret key-encryption key"
PLACE = {"kind": "resource", "name": "default/key/1", "version": 1}


@pytest.fixture
def sealer():
    return Sealer([bytearray(range(32))])


def test_seal_round_trip_and_nothing_of_the_secret_shows(sealer):
    sealed = sealer.seal(SecretKey(SECRET), **PLACE)
    assert len(sealed) == 8 + 12 + len(SECRET) + 16
    assert SECRET not in sealed
    with sealer.open(sealed, **PLACE) as secret, secret.view() as data:
        assert bytes(data) == SECRET


def test_seal_twice_has_two_nonces(sealer):
    sealed = {sealer.seal(SecretKey(SECRET), **PLACE)[8:20] for _ in range(100)}
    assert len(sealed) == 100


@pytest.mark.parametrize(
    "change",
    [{"kind": "setting"}, {"name": "default/key/2"}, {"version": 2}],
    ids=["kind", "name", "version"],
)
def test_open_at_another_place_is_tag_mismatch(sealer, change):
    sealed = sealer.seal(SecretKey(SECRET), **PLACE)
    with pytest.raises(TagMismatch):
        sealer.open(sealed, **(PLACE | change))


def test_places_cannot_be_mixed_up(sealer):
    """'a' + NUL + 'b' and 'a' NUL 'b' would be one place if names could hold a NUL."""
    with pytest.raises(AssertionError):
        sealer.seal(SecretKey(SECRET), kind="a", name="b\0c", version=1)


@pytest.mark.parametrize("at", [0, 7, 8, 19, 20, 28, -1])
def test_open_one_bit_changed_is_tag_mismatch(sealer, at):
    sealed = bytearray(sealer.seal(SecretKey(SECRET), **PLACE))
    sealed[at] ^= 1
    with pytest.raises(TagMismatch, match="sealed resource 'default/key/1'"):
        sealer.open(bytes(sealed), **PLACE)


@pytest.mark.parametrize("size", [0, 12, 27, 35])
def test_open_too_short_is_tag_mismatch(sealer, size):
    with pytest.raises(TagMismatch):
        sealer.open(bytes(size), **PLACE)


def test_open_first_with_another_master_key_says_so(sealer):
    sealed = sealer.seal(SecretKey(SECRET), **PLACE)
    with pytest.raises(LocalError, match="does not open the store") as caught:
        Sealer([bytearray(32)]).open_first(
            sealed, kind="resource", name="default/key/1", master_key_path="/x/master.key"
        )
    assert caught.value.path == "/x/master.key"
