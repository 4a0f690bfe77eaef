# SPDX-License-Identifier: Apache-2.0
"""SM2 and KMAC256: published answers, damage, bounds, and both implementations of each."""

import itertools
import random
import threading

import pytest

from imagers.core import _core, algorithms, kmac256, plain_kmac, plain_sm2, verify_sm2
from imagers.errors import SignatureInvalid

# GB/T 32918.5-2017, annex A.2.
ID = b"1234567812345678"
MESSAGE = b"message digest"
PRIVATE = 0x3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8
KEY = bytes.fromhex(
    "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
    "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
)
K = 0x59276E27D506861A16680F3AD9C02DCCEF3CC1FA3CDBE4CE6D54B80DEAC1BC21
SIGNATURE = bytes.fromhex(
    "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"
    "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
)

# NIST, "KMAC_samples.pdf" of SP 800-185, samples 4 to 6.
SAMPLE_KEY = bytes(range(0x40, 0x60))
TAGGED = b"My Tagged Application"
SAMPLES = {
    "4 bytes with a customization": (
        bytes(range(4)),
        TAGGED,
        (
            "20c570c31346f703c9ac36c61c03cb64c3970d0cfc787e9b79599d273a68d2f7"
            "f69d4cc3de9d104a351689f27cf6f5951f0103f33f4f24871024d9c27773a8dd"
        ),
    ),
    "200 bytes without": (
        bytes(range(200)),
        b"",
        (
            "75358cf39e41494e949707927cee0af20a3ff553904c86b08f21cc414bcfd691"
            "589d27cf5e15369cbbff8b9a4c2eb17800855d0235ff635da82533ec6b759b69"
        ),
    ),
    "200 bytes with": (
        bytes(range(200)),
        TAGGED,
        (
            "b58618f71f92e1d56c1b8c55ddd7cd188b97b4ca4d99831eb2699a837da2e4d9"
            "70fbacfde50033aea585f1a2708510c32d07880801bd182898fe476876fc8965"
        ),
    ),
}


@pytest.fixture
def backend(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(algorithms, "_kmac256", plain_kmac.kmac256)
        monkeypatch.setattr(algorithms, "_sm2_verify", plain_sm2.sm2_verify)


def both(test):
    """Run a test with the extension, and with what stands in for it."""
    test = pytest.mark.usefixtures("backend")(test)
    return pytest.mark.parametrize("backend", ["c", "plain"], indirect=True)(test)


@both
def test_sm2_published_signature_is_good():
    verify_sm2(KEY, SIGNATURE, MESSAGE, user_id=ID)


def test_sm2_signing_gives_the_published_signature():
    assert plain_sm2.public_key_of(PRIVATE) == KEY
    assert plain_sm2.sign(PRIVATE, MESSAGE, user_id=ID, k=K) == SIGNATURE


def number(value):
    return value.to_bytes(32)


R, S = SIGNATURE[:32], SIGNATURE[32:]
WRONG = {
    "another message": (KEY, SIGNATURE, b"message digesu", ID),
    "an empty message": (KEY, SIGNATURE, b"", ID),
    "another user id": (KEY, SIGNATURE, MESSAGE, b"1234567812345679"),
    "a shorter user id": (KEY, SIGNATURE, MESSAGE, ID[:-1]),
    "r is 0": (KEY, bytes(32) + S, MESSAGE, ID),
    "s is 0": (KEY, R + bytes(32), MESSAGE, ID),
    "both are 0": (KEY, bytes(64), MESSAGE, ID),
    "r is n": (KEY, number(plain_sm2.N) + S, MESSAGE, ID),
    "s is n": (KEY, R + number(plain_sm2.N), MESSAGE, ID),
    "r and s are all ones": (KEY, b"\xff" * 64, MESSAGE, ID),
    "r and s change places": (KEY, S + R, MESSAGE, ID),
    "r + s is n": (KEY, R + number(plain_sm2.N - int.from_bytes(R)), MESSAGE, ID),
    "a point off the curve": (KEY[:-1] + bytes((KEY[-1] ^ 1,)), SIGNATURE, MESSAGE, ID),
    "a point of zeros": (bytes(64), SIGNATURE, MESSAGE, ID),
    "a point of ones": (b"\xff" * 64, SIGNATURE, MESSAGE, ID),
    "x is p": (number(plain_sm2.P) + KEY[32:], SIGNATURE, MESSAGE, ID),
    "x and y change places": (KEY[32:] + KEY[:32], SIGNATURE, MESSAGE, ID),
    "the negative of the key": (
        KEY[:32] + number(plain_sm2.P - int.from_bytes(KEY[32:])),
        SIGNATURE,
        MESSAGE,
        ID,
    ),
    "another key": (plain_sm2.public_key_of(12345), SIGNATURE, MESSAGE, ID),
}


@both
@pytest.mark.parametrize("case", WRONG)
def test_sm2_damaged_is_refused(case):
    key, signature, message, user_id = WRONG[case]
    with pytest.raises(SignatureInvalid, match="the SM2 signature is not of this key"):
        verify_sm2(key, signature, message, user_id=user_id)


def test_sm2_every_flipped_bit_of_the_signature_is_refused():
    for bit in range(512):
        flipped = (int.from_bytes(SIGNATURE) ^ 1 << bit).to_bytes(64)
        assert not _core.sm2_verify(KEY, flipped, MESSAGE, ID), bit


@both
@pytest.mark.parametrize("length", [1, 31, 32, 254, 8190])
def test_sm2_user_ids_of_all_lengths(length):
    user_id = bytes(one % 251 for one in range(length))
    signature = plain_sm2.sign(PRIVATE, MESSAGE, user_id=user_id, k=K)
    verify_sm2(KEY, signature, MESSAGE, user_id=user_id)
    with pytest.raises(SignatureInvalid):
        verify_sm2(KEY, signature, MESSAGE, user_id=user_id[:-1] or b"x")


@both
@pytest.mark.parametrize(
    ("key", "signature", "user_id", "message"),
    [
        (KEY[1:], SIGNATURE, ID, "got 63 and 64"),
        (b"\x04" + KEY, SIGNATURE, ID, "got 65 and 64"),
        (KEY, SIGNATURE[:-1], ID, "got 64 and 63"),
        (KEY, SIGNATURE, b"", "1 to 8190 bytes, got 0"),
        (KEY, SIGNATURE, bytes(8191), "1 to 8190 bytes, got 8191"),
    ],
)
def test_sm2_lengths_are_the_callers_bug(key, signature, user_id, message):
    with pytest.raises(ValueError, match=message):
        verify_sm2(key, signature, MESSAGE, user_id=user_id)


@pytest.mark.parametrize(
    "arguments",
    [
        (KEY[1:], SIGNATURE, MESSAGE, ID),
        (KEY, SIGNATURE + b"\0", MESSAGE, ID),
        (KEY, SIGNATURE, MESSAGE, b""),
        (KEY, SIGNATURE, MESSAGE, bytes(8191)),
    ],
)
def test_extension_checks_lengths_of_sm2_itself(arguments):
    with pytest.raises(ValueError, match="a length"):
        _core.sm2_verify(*arguments)


def test_sm2_implementations_agree_on_random_messages():
    source = random.Random(7)  # noqa: S311  # test data
    for _ in range(8):
        private, k = (source.randrange(1, plain_sm2.N - 1) for _ in range(2))
        message = source.randbytes(source.randrange(300))
        key = plain_sm2.public_key_of(private)
        signature = plain_sm2.sign(private, message, user_id=ID, k=k)
        assert _core.sm2_verify(key, signature, message, ID)
        assert plain_sm2.sm2_verify(key, signature, message, ID)
        assert not _core.sm2_verify(key, signature, message + b"\0", ID)


def test_sm2_from_many_threads_at_once():
    barrier, answers = threading.Barrier(4), []

    def work(number):
        barrier.wait(timeout=30)
        for turn in range(25):
            good = (number + turn) % 2 == 0
            message = MESSAGE if good else b"other"
            answers.append(_core.sm2_verify(KEY, SIGNATURE, message, ID) is good)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(answers) == 100
    assert all(answers)


@both
@pytest.mark.parametrize("name", SAMPLES)
def test_kmac_published_samples(name):
    data, customization, expected = SAMPLES[name]
    assert kmac256(SAMPLE_KEY, data, length=64, customization=customization).hex() == expected


def test_kmac_takes_a_key_that_can_be_wiped():
    expected = kmac256(SAMPLE_KEY, b"x", length=32)
    assert kmac256(bytearray(SAMPLE_KEY), b"x", length=32) == expected
    assert kmac256(memoryview(SAMPLE_KEY), b"x", length=32) == expected


EDGES = [0, 1, 130, 135, 136, 137, 272]  # around the rate of the sponge


def test_kmac_implementations_agree_at_every_edge():
    for key, data, tag, length in itertools.chain(
        itertools.product([4, 32, 131, 512], [0, 135, 137], [0, 21], [1, 32, 137]),
        itertools.product([32], EDGES, [0, 100, 512], [16, 136, 512]),
    ):
        arguments = bytes(range(256)) * 2, bytes(data), bytes(tag), length
        arguments = (arguments[0][:key], *arguments[1:])
        assert _core.kmac256(*arguments) == plain_kmac.kmac256(*arguments), arguments


@both
def test_kmac_shorter_result_is_no_beginning_of_a_longer_one():
    assert kmac256(SAMPLE_KEY, b"", length=64)[:32] != kmac256(SAMPLE_KEY, b"", length=32)


@both
@pytest.mark.parametrize(
    ("key", "customization", "length", "message"),
    [
        (bytes(3), b"", 32, "4 to 512 bytes, got 3"),
        (bytes(513), b"", 32, "4 to 512 bytes, got 513"),
        (bytes(32), bytes(513), 32, "at most 512 bytes, got 513"),
        (bytes(32), b"", 0, "1 to 512, got 0"),
        (bytes(32), b"", 513, "1 to 512, got 513"),
        (bytes(32), b"", -1, "1 to 512, got -1"),
    ],
)
def test_kmac_lengths_are_the_callers_bug(key, customization, length, message):
    with pytest.raises(ValueError, match=message):
        kmac256(key, b"", customization=customization, length=length)


@pytest.mark.parametrize(
    ("key", "customization", "length"),
    [(bytes(3), b"", 32), (bytes(32), bytes(513), 32), (bytes(32), b"", 0), (bytes(4), b"", 513)],
)
def test_extension_checks_lengths_of_kmac_itself(key, customization, length):
    with pytest.raises(ValueError, match="a length"):
        _core.kmac256(key, b"", customization, length)
