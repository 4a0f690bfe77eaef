# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.tpm.quote import (
    BOOT_CHAIN,
    check_bound_to,
    parse_pcr_settings,
    parse_values,
    values_by_name,
)
from imagers.evidence.tpm.structures import parse_attest
from imagers.model.evidence import Bound
from imagers.model.strict_json import View
from imagers.testing.evidence.tpm import attest

VALUES = [bytes((at,)) * 32 for at in range(24)]


def settings(value):
    return View({"pcrs": value}, what="settings")


def test_registers_of_the_boot_chain_are_the_default():
    assert parse_pcr_settings(View({}, what="settings")) == BOOT_CHAIN
    assert {0, 4, 8, 9, 11, 12} <= set(BOOT_CHAIN)
    assert parse_pcr_settings(settings([11, 4])) == (4, 11)


@pytest.mark.parametrize(
    "value", [[], None, 11, "11", [24], [-1], [True], [1.0], ["4"], [4, 4], {"4": 1}]
)
def test_settings_that_name_no_registers_are_refused(value):
    with pytest.raises(FormatError, match="expected a list of registers, 0 to 23, each once"):
        parse_pcr_settings(settings(value))


@pytest.mark.parametrize("register", [16, 23])
def test_register_that_anybody_resets_knows_no_machine(register):
    with pytest.raises(FormatError, match=f"register {register} can be reset by anybody"):
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
