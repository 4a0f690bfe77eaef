# SPDX-License-Identifier: Apache-2.0
"""What a TPM is told, and what its answers are taken for; a real one answers in test_collect.py."""

from struct import pack

import pytest

from imagers.errors import FormatError, LocalError
from imagers.evidence.tpm.commands import TPM
from imagers.evidence.tpm.structures import sized


def answer(code=0, body=b""):
    return pack(">HII", 0x8001, 10 + len(body), code) + body


class Scripted:
    """A TPM that gives answers from a list, the last one for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.told = []

    def __call__(self, command):
        self.told.append(command)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def pcrs(bits, values):
    listed = pack(">II", 1, 1) + pack(">HB", 0x0B, 3) + bits.to_bytes(3, "little")
    return answer(body=listed + pack(">I", len(values)) + b"".join(map(sized, values)))


@pytest.mark.parametrize(
    ("code", "piece"),
    [
        (0x18B, "TPM2_ReadPublic: there is no such key or place (0x08b)"),
        (0x28B, "there is no such key or place"),
        (0x101, "it failed its self test"),
        (0x921, "it is locked, after too many wrong passwords (0x921)"),
        (0x9A2, "there is a password, or it is wrong (0x0a2)"),
        (0x1DF, "the credential is for another TPM, or for another key (0x09f)"),
        (0x155, "it refuses (0x155)"),
    ],
)
def test_refusal_is_told_in_words(code, piece):
    with pytest.raises(LocalError) as caught:
        TPM(Scripted(answer(code))).read_public(0x81010002)
    assert piece in str(caught.value)


def test_tpm_that_is_busy_is_asked_again_but_not_for_ever():
    line = Scripted(answer(0x922), answer(0x908), answer(body=sized(b"key")))
    assert TPM(line).read_public(1) == b"key"
    assert len(line.told) == 3
    line = Scripted(answer(0x922))
    with pytest.raises(LocalError, match="it is busy"):
        TPM(line).read_public(1)
    assert len(line.told) == 8


@pytest.mark.parametrize(
    "given", [b"", b"\0" * 9, answer()[:-1], answer() + b"x", pack(">HII", 1, 99999, 0)]
)
def test_answer_that_is_none_is_refused(given):
    with pytest.raises(FormatError, match="answer of the TPM"):
        TPM(Scripted(given)).read_public(1)


def test_place_is_asked_for_by_its_own_command():
    for handle, code in ((0x81010002, 0x173), (0x01C00002, 0x169)):
        line = Scripted(answer(0x18B))
        assert not TPM(line).has(handle)
        assert line.told[0][6:14] == pack(">II", code, handle)
        assert TPM(Scripted(answer())).has(handle)
        with pytest.raises(LocalError, match="it was not started"):
            TPM(Scripted(answer(0x100))).has(handle)


def test_registers_come_in_parts():
    values = [bytes((at,)) * 32 for at in range(24)]
    line = Scripted(pcrs(0xFF, values[:8]), pcrs(0xFF00, values[8:16]), pcrs(0xFF0000, values[16:]))
    assert TPM(line).read_pcrs() == tuple(values)
    assert [one[-3:] for one in line.told] == [b"\xff\xff\xff", b"\0\xff\xff", b"\0\0\xff"]


@pytest.mark.parametrize(
    "given",
    [
        answer(body=pack(">II", 1, 0)),
        pcrs(0, []),
        pcrs(1, []),
        answer(body=pack(">IIHBBBBI", 1, 1, 4, 3, 255, 0, 0, 8)),
    ],
    ids=["no bank", "no registers", "fewer values", "a bank of SHA-1"],
)
def test_tpm_without_the_bank_says_so(given):
    with pytest.raises(LocalError, match="the TPM has no SHA-256 bank"):
        TPM(Scripted(given)).read_pcrs()


def test_place_that_is_shorter_than_it_says_is_refused():
    public = sized(pack(">IHI", 0x01C00002, 0x0B, 0) + sized(b"") + pack(">H", 5))
    nothing = sized(b"")
    line = Scripted(answer(body=public), answer(body=pack(">I", len(nothing)) + nothing))
    with pytest.raises(LocalError, match="gives less than it says"):
        TPM(line).read_nv(0x01C00002)


def banks(*listed):
    body = pack(">BII", 0, 5, len(listed))
    body += b"".join(pack(">HB", bank, 3) + bits.to_bytes(3, "little") for bank, bits in listed)
    return answer(body=body)


def test_banks_of_a_register_are_those_that_have_it():
    tpm = TPM(Scripted(banks((0x04, 0), (0x0B, 0xFFFFFF), (0x0C, 1 << 14))))
    assert tpm.banks(14) == (0x0B, 0x0C)
    assert tpm.banks(15) == (0x0B,)


@pytest.mark.parametrize(
    "body",
    [pack(">BII", 1, 5, 0), pack(">BII", 0, 6, 0), pack(">BII", 0, 5, 17)],
    ids=["there are more", "another capability", "too many"],
)
def test_tpm_that_does_not_say_its_banks_is_told(body):
    with pytest.raises(LocalError, match="does not say which banks it has"):
        TPM(Scripted(answer(body=body))).banks(14)


def test_register_that_cannot_be_extended_from_here_is_told():
    with pytest.raises(LocalError, match="TPM2_PCR_Extend: it lets nobody extend this register"):
        TPM(Scripted(answer(0x107))).extend(17, {0x0B: bytes(32)})
