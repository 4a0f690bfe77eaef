# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.tpm.quote import (
    BOOT_CHAIN,
    attest_values,
    check_bound_to,
    check_form,
    check_signature,
    check_values,
    parse_pcr_settings,
    parse_values,
    values_by_name,
)
from imagers.evidence.tpm.structures import parse_attest, parse_signature
from imagers.model.evidence import Bound
from imagers.model.strict_json import View
from imagers.testing.evidence.tpm import TPMWorld, attest, signed

VALUES = [bytes((at,)) * 32 for at in range(24)]


def settings(value):
    return View({"pcrs": value}, what="settings")


def test_registers_of_the_boot_chain_are_the_default():
    assert parse_pcr_settings(View({}, what="settings")) == BOOT_CHAIN
    assert {0, 4, 8, 9, 11, 12} <= set(BOOT_CHAIN)
    assert parse_pcr_settings(settings([11, 4])) == (4, 11)
    assert parse_pcr_settings(settings([0, 22])) == (0, 22)


@pytest.mark.parametrize(
    "value", [[], None, 11, "11", [24], [-1], [True], [1.0], ["4"], [4, 4], {"4": 1}]
)
def test_settings_that_name_no_registers_are_refused(value):
    with pytest.raises(FormatError, match=r"\$\.pcrs: expected one or more registers, 0 to 23"):
        parse_pcr_settings(settings(value))


@pytest.mark.parametrize("register", [16, 23])
def test_register_that_anybody_resets_knows_no_machine(register):
    with pytest.raises(FormatError, match=rf"\$\.pcrs: register {register} can be reset by"):
        parse_pcr_settings(settings([4, register]))


def test_nonce_is_compared_in_full():
    """A nonce that is shorter would be compared in part, and an empty one with nothing."""
    for nonce in (b"", b"n", b"n" * 31, b"n" * 33):
        quote = parse_attest(attest(VALUES, extra_data=nonce))
        for bound in (Bound(), Bound(b"n" * 48)):
            with pytest.raises(EvidenceRejected, match="length of the nonce: expected 32"):
                check_bound_to(bound, quote, VALUES, size=32)
    quote = parse_attest(attest(VALUES, extra_data=b"n" * 9))
    with pytest.raises(EvidenceRejected, match="length of the nonce: expected 10, got 9"):
        check_bound_to(Bound(b"n" * 10), quote, VALUES, size=None)
    assert "as expected" in check_bound_to(Bound(b"n" * 9), quote, VALUES, size=None)
    assert "not compared" in check_bound_to(Bound(), quote, VALUES, size=None)


def test_values_of_registers_are_24_of_32_bytes():
    error = FormatError("no values", what="x")
    good = [one.hex() for one in VALUES]
    assert parse_values(good, error) == tuple(VALUES)
    assert values_by_name(VALUES, "tpm_pcr", [7, 11])["tpm_pcr07"] == "07" * 32
    for bad in ([], good[:-1], [*good, "00" * 32], ["0" * 62 + "  ", *good[1:]], [5, *good[1:]]):
        with pytest.raises(FormatError, match="no values"):
            parse_values(bad, error)


def test_registers_that_are_no_hex_are_refused_at_once():
    error = FormatError("no values", what="x")
    for bad in ("zz" * 32, None, 5, ""):
        with pytest.raises(FormatError, match="no values"):
            parse_values([bad, *[one.hex() for one in VALUES[1:]]], error)


def refused(check, *arguments):
    with pytest.raises(EvidenceRejected) as caught:
        check(*arguments)
    return caught.value.claim, caught.value.expected, caught.value.found


def test_refusal_of_a_form_says_what_was_expected_and_found():
    other = parse_attest(attest(VALUES, extra_data=b"", magic=0x12345678))
    assert refused(check_form, other) == (
        "magic",
        "0xff544347, which a TPM alone makes",
        "0x12345678",
    )
    other = parse_attest(attest(VALUES, extra_data=b"", kind=0x8017))
    assert refused(check_form, other) == ("type", "0x8018 (quote)", "0x8017")


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_signature_says_how_it_was_made_and_that_has_to_be_true(kind):
    """The hash that it names is the one that the digest of the registers is by."""
    world = TPMWorld(bytes(32), kind)
    quote = parse_attest(attest(VALUES, extra_data=b"", digest=world.digest))
    good = parse_signature(signed(world.key(), quote.raw, world.digest))
    told = check_signature(quote, good, world.key().public_key())
    assert told == {
        "rsa": "RSASSA, 2048 bits", "p256": "ECDSA, secp256r1", "p384": "ECDSA, secp384r1",
    }[kind]  # fmt: skip
    scheme = "RSASSA" if kind == "rsa" else "ECDSA"
    wanted = f"{scheme} with {'SHA-384' if kind == 'p384' else 'SHA-256'}"
    for digest, name in ((0x0004, "SHA-1"), (0x0099, "0x0099")):
        liar = replace(good, hash=digest)
        found = refused(check_signature, quote, liar, world.key().public_key())
        assert found == ("scheme", wanted, f"{scheme} with {name}")
    liar = replace(good, scheme=0x18 if kind == "rsa" else 0x14)
    assert refused(check_signature, quote, liar, world.key().public_key())[0] == "scheme"


def test_refusal_of_a_selection_says_which_one_it_is():
    for selections, found in (
        ([], "none"),
        ([(0x0B, [0, 7])], "SHA-256 0, 7"),
        ([(0x0B, range(24)), (0x04, [])], f"SHA-256 {', '.join(map(str, range(24)))}; SHA-1 none"),
    ):
        quote = parse_attest(attest(VALUES, extra_data=b"", selections=selections))
        wanted = "all 24 of SHA-256, and no others"
        assert refused(check_values, quote, VALUES, 0x0B) == ("selection", wanted, found)
    quote = parse_attest(attest(VALUES, extra_data=b""))
    check_values(quote, VALUES, 0x0B)
    claim, expected, _ = refused(check_values, quote, VALUES[::-1], 0x0B)
    assert (claim, expected) == ("digest of the registers", quote.pcr_digest.hex())


def test_refusal_of_init_data_names_the_register():
    quote = parse_attest(attest(VALUES, extra_data=b"n" * 32))
    found = refused(check_bound, Bound(None, b"i" * 32), quote)
    assert found[0] == "init data in PCR 8"


def check_bound(bound, quote):
    return check_bound_to(bound, quote, VALUES, size=32)


def test_what_a_quote_says_beside_its_registers_are_claims():
    quote = attest(VALUES, extra_data=b"", clock=5, reset_count=6, restart_count=7, safe=1)
    assert attest_values(parse_attest(quote)) == {
        "clock": 5,
        "reset_count": 6,
        "restart_count": 7,
        "clock_safe": True,
        "firmware_version": "2024012500120000",
    }
