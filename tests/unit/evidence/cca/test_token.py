# SPDX-License-Identifier: Apache-2.0
"""Tokens of Arm CCA, read: those of others too. What may not be read is in the factory's wrongs."""

import contextlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError
from imagers.evidence.cca.token import MAX_TOKEN, parse_token
from imagers.testing.evidence import CCAWorld
from tests.real_evidence import real_file

WORLDS = [CCAWorld(bytes(32), is_legacy=one) for one in (False, True)]


@pytest.mark.parametrize("world", WORLDS, ids=["2023", "legacy"])
def test_token_gives_its_claims(world):
    token = parse_token(world.token())
    claims = world.platform_claims()
    platform = token.platform
    assert (platform.profile, platform.lifecycle) == (claims[265], 0x3001)
    assert (platform.instance_id, platform.implementation_id) == (claims[256], claims[2396])
    assert [one.kind for one in platform.components] == ["RSE_BL2", "AP_BL31", "RMM"]
    assert token.realm.key == world.key("realm").public_key()
    assert token.realm.extensible_measurements == (bytes(32),) * 4
    assert (token.realm.profile is None) == world.is_legacy


def test_token_does_not_print_which_machine_it_is_of():
    world = WORLDS[0]
    told = repr(parse_token(world.token()))
    assert repr(world.platform_claims()[256])[2:-1] not in told
    assert "instance_id" not in told


def test_platform_of_the_same_bytes_is_the_same_and_of_others_is_another():
    world = WORLDS[0]
    raw = world.token()
    assert parse_token(raw).platform is parse_token(raw).platform
    # Signed anew, with the same claims.
    assert parse_token(raw).platform != parse_token(world.token()).platform


@given(st.binary(max_size=300), st.integers(0, 1300))
def test_any_bytes_are_a_token_or_none(raw, at):
    good = WORLDS[0].token()
    for one in (raw, good[:at] + raw[:3] + good[at + 3 :]):
        with contextlib.suppress(FormatError):
            parse_token(one)


def test_every_bit_of_a_token_counts_or_makes_it_unreadable():
    """No bit is read past: what still can be read differs in what is signed, or its signature."""
    world = WORLDS[0]
    good = world.token()
    parsed = parse_token(good)
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1
        try:
            other = parse_token(bytes(changed))
        except FormatError:
            continue
        assert any(
            (one.to_be_signed, one.signature) != (two.to_be_signed, two.signature)
            for one, two in (
                (other.platform.message, parsed.platform.message),
                (other.realm.message, parsed.realm.message),
            )
        )


def test_bound_is_inclusive():
    with pytest.raises(FormatError, match=f"expected at most {MAX_TOKEN} bytes"):
        parse_token(bytes(MAX_TOKEN + 1))


@pytest.mark.parametrize("name", ["realm-claims", "realm-claims+spurious-numeric-key"])
def test_claims_of_others_are_read_in_a_token_of_ours(name):
    """A claim that is unknown here is signed like the others, and passed over."""
    theirs = cbor2.loads(real_file(f"cca/rust-ccatoken/{name}.cbor").read_bytes())
    ours = CCAWorld(bytes(32), is_legacy=265 not in theirs)
    token = parse_token(ours.token(realm=theirs))
    assert token.realm.initial_measurement == theirs[44238]
    assert token.realm.personalization_value == theirs[44235]


def test_platform_claims_of_others_are_read_in_a_token_of_ours():
    theirs = cbor2.loads(real_file("cca/rust-ccatoken/platform-claims.cbor").read_bytes())
    token = parse_token(WORLDS[0].token(platform=theirs))
    assert token.platform.lifecycle == theirs[2395]
    assert len(token.platform.components) == len(theirs[2399])


def test_relative_of_it_is_none():
    with pytest.raises(FormatError):
        parse_token(real_file("cca/secgear/virtcca.cbor").read_bytes())
