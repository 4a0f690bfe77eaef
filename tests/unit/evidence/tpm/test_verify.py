# SPDX-License-Identifier: Apache-2.0
"""Quotes of TPMs: real ones, and those of the factory."""

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import EvidenceRejected, FormatError, UsageError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_verifier
from imagers.evidence.tpm.quote import BOOT_CHAIN
from imagers.evidence.tpm.verify import TPMVerifier, parse, parse_file
from imagers.model.base64 import decode_base64, encode_base64
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.testing.evidence import TPMWorld
from imagers.testing.evidence.eventlog import EV_IPL, Event
from imagers.testing.evidence.tpm import PCR_BOOT
from tests.real_evidence import real_file

NOW = datetime(2026, 11, 29, tzinfo=UTC)
NONCE, INIT = b"n" * 48, b"i" * 32
BOUND = Bound(NONCE, INIT)
WORLD = TPMWorld(b"imagers.evidence.tpm.verify is .."[:32], "p256", now=NOW)


def judged(world, *, bound=BOUND, verifier=None, told=None, **fields):
    body = world.evidence(**{"report_data": NONCE, "init_data": INIT, **fields})
    return judge_evidence(
        verifier or TPMVerifier(), body, bound=bound, read={}.get, now=NOW,
        note=(told if told is not None else []).append,
    )  # fmt: skip


def real():
    return json.loads(real_file("tpm/trustee/tpm_evidence.json").read_bytes())


def test_real_quote_is_good_but_for_its_nonce():
    """It is of an older rule, by which the nonce had 64 bytes."""
    told, body = [], real()
    arguments = {"bound": Bound(), "read": {}.get, "now": NOW, "note": told.append}
    with pytest.raises(
        EvidenceRejected, match="length of the nonce: expected 32, got 64"
    ) as caught:
        judge_evidence(TPMVerifier(), body, **arguments)
    assert caught.value.step == "5, bound"
    assert told == [
        "step 1, form: a quote",
        "step 2, signature: RSASSA, 2048 bits",
        "step 3, registers: all 24 of SHA-256",
        "step 4, event log: none came along",
    ]


def test_each_changed_byte_of_a_real_quote_is_refused_before_its_nonce():
    body = real()
    quote = body["tpm_quote"]
    for part in ("message", "signature"):
        data = decode_base64(quote[part], what=part, where="$")
        for at in range(len(data)):
            raw = bytearray(data)
            raw[at] ^= 1 << at % 8
            changed = {**body, "tpm_quote": {**quote, part: encode_base64(raw)}}
            with pytest.raises((EvidenceRejected, FormatError)) as caught:
                judge_evidence(TPMVerifier(), changed, bound=Bound(), read={}.get, now=NOW)
            assert getattr(caught.value, "step", "") != "5, bound"


def test_good_quote_gives_its_registers_and_key(world):
    told = []
    claims = judged(world, told=told)
    (way,) = claims.measured
    assert way["trusted_aks"] == world.trusted_ak
    assert way["tpm_pcr11"] == world.measurement.hex()
    assert set(way) == {"trusted_aks", *(f"tpm_pcr{at:02}" for at in BOOT_CHAIN)}
    assert "tpm_pcr01" in claims.configured
    assert not set(way) & set(claims.configured)
    assert claims.values["pcr17"] == "ff" * 32
    assert claims.values["ak_public"] == world.trusted_ak
    assert (claims.report_data, claims.init_data) == ((NONCE[:32]).hex(), way["tpm_pcr08"])
    assert claims.values["reset_count"] == 7
    assert len(claims.values["uefi_event_logs"]) == 13
    assert not claims.test_root
    assert claims.instance
    assert claims.instance not in repr(claims)
    assert told[3] == "step 4, event log: 13 events, of PCR 0, 1, 2, 3, 4, 5, 6, 7, 9"


def test_quote_without_a_log_has_no_claims_of_one(world):
    assert "uefi_event_logs" not in judged(world, events=None).values


def known(claims):
    return {
        name: ReferenceValue(name, (value,))
        for way in claims.measured
        for name, value in way.items()
    }


@pytest.mark.parametrize("register", BOOT_CHAIN)
def test_machine_that_started_something_else_is_not_ones_own(register):
    """Genuine, of the very TPM that is trusted: firmware, kernel, command line or initrd differ."""
    ours = known(judged(WORLD))
    assert appraise_claims(judged(WORLD), ours, now=NOW).is_affirming
    fields = {"events": (*PCR_BOOT, Event(register, EV_IPL, b"something else"))}
    bound = BOUND
    if register == 8:
        fields, bound = {"init_data": b"x" * 32}, Bound(NONCE)
    if register == 11:
        fields = {"measurement": b"x" * 32}
    other = judged(WORLD, bound=bound, **fields)
    (miss,) = [one for one in appraise_claims(other, ours, now=NOW).misses if one.why]
    assert miss.claim == f"tpm_pcr{register:02}"


def test_machine_with_another_key_is_not_ones_own():
    """Whoever has a key of his own quotes what he likes."""
    ours = known(judged(WORLD))
    other = TPMWorld(b"\1" * 32, "p256", now=NOW)
    found = appraise_claims(judged(other, measurement=WORLD.measurement), ours, now=NOW)
    assert not found.is_affirming
    assert [one.claim for one in found.misses] == ["trusted_aks"]
    assert found.vector["hardware"] == 97  # nobody vouches for it
    with pytest.raises(EvidenceRejected, match="counts only where its measurement equals"):
        found.check_counts()


def test_settings_name_other_registers():
    verifier = load_verifier("tpm", settings=View({"pcrs": [11, 4]}, what="settings"))
    assert verifier == TPMVerifier((4, 11))
    assert verifier.references == (("trusted_aks", "tpm_pcr04", "tpm_pcr11"),)
    (way,) = judged(WORLD, verifier=verifier).measured
    assert set(way) == {"trusted_aks", "tpm_pcr04", "tpm_pcr11"}
    for wrong in ({"pcrs": []}, {"debug": True}):
        with pytest.raises(FormatError):
            load_verifier("tpm", settings=View(wrong, what="settings"))
    with pytest.raises(UsageError, match="takes no test roots"):
        load_verifier("tpm", roots=b"x")


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"x",
        "small",
    ],
)
def test_key_that_is_none_is_refused(key):
    if key == "small":
        key = rsa.generate_private_key(65537, 1024)  # noqa: S505  # to be refused
        public = key.public_key()
        key = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = WORLD.evidence() | {"ak_public": encode_base64(key)}
    with pytest.raises(FormatError, match="attestation key"):
        parse(body)


def test_file_is_the_json_of_the_protocol():
    body = WORLD.evidence()
    assert parse_file(json.dumps(body).encode()).ak_public == WORLD.trusted_ak
    assert TPMVerifier().wanted(parse(body)) == ()
    for data in (b"", b"{}", b"[]", json.dumps(body | {"event_log": "AAAA"}).encode()):
        with pytest.raises(FormatError):
            parse_file(data)
    assert WORLD.trusted_ak not in repr(parse(body))


@given(st.binary(max_size=500))
def test_any_bytes_are_no_evidence(data):
    with pytest.raises(FormatError):
        parse_file(data)
