# SPDX-License-Identifier: Apache-2.0
import pytest

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError
from imagers.evidence.steps import check_bound, is_crl_optional, mismatch, step
from imagers.model.evidence import Bound
from imagers.model.strict_json import View


@pytest.mark.parametrize("error", [EvidenceRejected, CouldNotVerify])
def test_step_is_in_front_of_a_refusal(error):
    with pytest.raises(error) as caught, step("6, signature"):
        raise error("no", hint="do this")
    assert (str(caught.value), caught.value.step, caught.value.hint) == (
        "step 6, signature: no",
        "6, signature",
        "do this",
    )


def test_innermost_step_stays():
    with pytest.raises(EvidenceRejected) as caught, step("1, outer"), step("2, inner"):
        raise EvidenceRejected("no")
    assert (str(caught.value), caught.value.step) == ("step 2, inner: no", "2, inner")


def test_other_errors_pass_as_they_are():
    with pytest.raises(FormatError) as caught, step("1, outer"):
        raise FormatError("is none", what="x")
    assert "step" not in str(caught.value)


def test_mismatch_says_claim_expected_and_found():
    error = mismatch("VMPL", 0, 3, hint="run it at VMPL 0")
    assert str(error) == "VMPL: expected 0, got 3"
    assert (error.claim, error.expected, error.found) == ("VMPL", "0", "3")


@pytest.mark.parametrize(
    ("digest", "found", "holds"),
    [
        (b"abc", b"abc\0\0", True),
        (b"abcdefg", b"abcde", True),  # cut
        (b"abc", b"abc\0x", False),
        (b"abc", b"xabc\0", False),
        (b"", b"\0\0", True),
        (b"", b"\0x", False),
    ],
)
@pytest.mark.parametrize("name", ["report data", "init data in host_data"])
def test_bound_digest_is_padded_with_zeros_or_cut(name, digest, found, holds):
    is_report = name == "report data"
    bound = Bound(digest, None) if is_report else Bound(None, digest)
    report_data, init_data = (found, b"x") if is_report else (b"x", found)

    def check():
        return check_bound(bound, report_data=report_data, init_data=init_data, field="host_data")

    if holds:
        assert f"{name} as expected" in check()
        return
    with pytest.raises(EvidenceRejected, match=f"^{name}: expected"):
        check()


def test_bound_that_nobody_asks_for_is_not_compared():
    assert check_bound(Bound(), report_data=b"x", init_data=b"y", field="host_data") == (
        "report data not compared, init data in host_data not compared"
    )


@pytest.mark.parametrize("bound", [Bound(b"d"), Bound(init_data=b"d")])
def test_bound_that_has_no_field_is_refused(bound):
    with pytest.raises(EvidenceRejected, match="expected 64, got no field for it"):
        check_bound(bound, report_data=b"", init_data=b"", field="none")


def test_crl_is_required_unless_it_is_said_to_be_optional():
    assert not is_crl_optional(View({}, what="s"))
    assert not is_crl_optional(View({"crl": "required"}, what="s"))
    assert is_crl_optional(View({"crl": "optional"}, what="s"))
    with pytest.raises(FormatError, match="expected 'required' or 'optional', got 'no'"):
        is_crl_optional(View({"crl": "no"}, what="s"))


def test_init_data_where_a_tee_binds_none_is_refused():
    assert check_bound(Bound(b"n" * 48), report_data=b"n" * 32) == "report data as expected"
    with pytest.raises(EvidenceRejected, match=r"init data: expected 69.*, got none: this TEE"):
        check_bound(Bound(None, b"i" * 32), report_data=b"")
