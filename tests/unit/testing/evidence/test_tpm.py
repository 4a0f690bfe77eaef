# SPDX-License-Identifier: Apache-2.0
"""Quotes of the TPM for tests have their fields where a TPM has them."""

from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.model.base64 import decode_base64
from imagers.model.evidence import Bound
from imagers.testing.evidence import TPMWorld
from imagers.testing.evidence.tpm import PCR_BOOT, pcr_log, registers

SEED = b"imagers.testing.evidence.tpm is.."[:32]
NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="module", params=["rsa", "p256", "p384"])
def world(request):
    return TPMWorld(SEED, request.param, now=NOW)


def test_quote_has_its_fields_in_their_places(world):
    body = world.evidence(report_data=b"n" * 48)
    message = decode_base64(body["tpm_quote"]["message"], what="message", where="$")
    assert message[:8] == bytes.fromhex("ff54434780180022")
    assert message[42:76] == b"\0\x20" + b"n" * 32
    assert message[101:111] == bytes.fromhex("00000001000b03ffffff")
    assert body["tpm_quote"]["pcrs"][11] == world.measurement.hex()
    assert body["tpm_quote"]["pcrs"][16:24] == ["00" * 32, *["ff" * 32] * 6, "00" * 32]
    signature = decode_base64(body["tpm_quote"]["signature"], what="signature", where="$")
    assert signature[:2] == (b"\0\x14" if len(signature) > 200 else b"\0\x18")


def test_log_leads_to_the_registers(world):
    body = world.evidence()
    assert decode_base64(body["event_log"], what="log", where="$") == pcr_log(PCR_BOOT)
    value = sha256(bytes(32) + sha256(b"firmware 1.0").digest()).digest()
    assert registers(PCR_BOOT[:1], {5: b"v" * 32})[0] == value
    assert registers(PCR_BOOT[:1], {5: b"v" * 32})[5] == b"v" * 32
    assert world.evidence(events=None)["event_log"] is None
    assert world.raw_files(body) == world.collateral() == {}
    assert world.roots is None


def test_same_seed_has_the_same_key():
    assert TPMWorld(SEED).trusted_ak == TPMWorld(SEED).trusted_ak
    assert TPMWorld(SEED).trusted_ak != TPMWorld(bytes(32)).trusted_ak


@given(
    st.binary(min_size=32, max_size=32), st.binary(max_size=64), st.binary(min_size=1, max_size=48)
)
def test_any_measurement_and_what_is_bound_come_out_as_they_went_in(world, measurement, data, init):
    body = world.evidence(measurement=measurement, report_data=data, init_data=init)
    verifier = load_verifier("tpm")
    claims = judge_evidence(verifier, body, bound=Bound(data, init), read={}.get, now=NOW)
    assert claims.measured[0]["tpm_pcr11"] == measurement.hex()
    assert claims.report_data == data[:32].ljust(32, b"\0").hex()
