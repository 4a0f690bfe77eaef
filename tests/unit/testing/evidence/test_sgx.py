# SPDX-License-Identifier: Apache-2.0
"""Quotes of SGX have their fields where Intel has them."""

from datetime import UTC, datetime

from imagers.testing.evidence import SGXWorld

SEED = b"imagers.testing.evidence.sgx is.."[:32]


def test_quote_has_its_fields_in_their_places():
    world = SGXWorld(SEED, now=datetime(2026, 11, 29, tzinfo=UTC))
    quote = world.quote(report_data=b"n" * 64, config_id=b"i" * 64, isv_svn=7)
    assert quote[:8] == b"\3\0\2\0\0\0\0\0"
    assert quote[48 + 64 : 48 + 96] == world.measurement
    assert quote[48 + 128 : 48 + 160] == world.signer
    assert quote[48 + 192 : 48 + 256] == b"i" * 64
    assert quote[48 + 258 : 48 + 260] == b"\7\0"
    assert quote[48 + 320 : 48 + 384] == b"n" * 64
    data = quote[48 + 384 :]
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    body = world.evidence(report_data=b"n" * 64, init_data=b"i" * 64, isv_svn=7)
    assert world.raw_files(body) == {"quote.bin": quote}
