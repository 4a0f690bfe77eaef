# SPDX-License-Identifier: Apache-2.0
"""AWS's own root, a real document at its time, and what makes an enclave one's own.

What else is refused is in the factory's wrongs.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from imagers.errors import EvidenceRejected, FormatError
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.judge import judge_parsed
from imagers.evidence.nitro.verify import parse, parse_file
from imagers.evidence.plugins import load_verifier, read_evidence
from imagers.evidence.roots import read_root
from imagers.model.base64 import encode_base64
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.testing.evidence import NitroWorld
from tests.real_evidence import real_file

NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLD = NitroWorld(bytes(32), now=NOW)
REAL_TIME = datetime(2025, 12, 25, 14, tzinfo=UTC)


def judge(raw, *, bound=None, now=NOW, roots=WORLD.roots, told=None, **settings):
    verifier = load_verifier("nitro", settings=View(settings, what="settings"), roots=roots)
    note = [].append if told is None else told.append
    return judge_parsed(
        verifier, parse_file(raw), bound=bound or Bound(), read={}.get, now=now, note=note
    )


def test_genuine_document_gives_its_claims():
    told = []
    claims = judge(WORLD.document(), told=told)
    assert [one.partition(",")[0] for one in told] == [f"step {number}" for number in range(1, 6)]
    assert tuple(claims.measured[0]) == load_verifier("nitro").references[0]
    assert claims.configured["nitro_pcr3"] == "00" * 48
    assert claims.values["timestamp"] == int(NOW.timestamp() * 1000)


def test_root_that_comes_along_is_awss():
    """The fingerprint is the one that AWS publishes beside it."""
    root = x509.load_pem_x509_certificate(read_root("nitro", "g1.pem"))
    assert root.fingerprint(hashes.SHA256()).hex() == (
        "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    )


def test_which_machine_it_was_is_told_by_a_hash_alone():
    claims = judge(WORLD.document())
    assert len(claims.instance) == 64
    instance, _, enclave = WORLD.module_id.partition("-enc")
    told = repr(claims) + json.dumps(claims.values)
    assert instance not in told
    assert enclave not in told
    other = judge(WORLD.document(module_id=f"{instance}-enc07"))
    assert other.instance == claims.instance
    assert judge(WORLD.document(module_id="i-07-enc07")).instance != claims.instance


@pytest.mark.parametrize("days", [-2, 3, 10, 40])
def test_certificates_that_are_not_valid_name_their_place_and_no_machine(days):
    with pytest.raises(EvidenceRejected) as caught:
        judge(WORLD.document(), now=NOW + timedelta(days=days))
    assert caught.value.step == "1, chain"
    assert "of 5 from the root on: expected one that is valid at" in str(caught.value)
    assert "nitro-enclaves" not in str(caught.value)


def test_path_that_was_good_once_is_looked_at_again_for_its_dates_and_root():
    raw = WORLD.document()
    judge(raw)
    with pytest.raises(EvidenceRejected, match="step 1, chain"):
        judge(raw, now=NOW + timedelta(days=3))
    with pytest.raises(EvidenceRejected, match="step 1, chain"):
        judge(raw, roots=None)


def test_enclave_under_debugging_passes_where_that_is_allowed_and_is_not_affirming():
    raw = WORLD.document(pcrs=dict.fromkeys(range(3), bytes(48)))
    with pytest.raises(EvidenceRejected, match="step 4, enclave: debugging: expected an enclave"):
        judge(raw)
    claims = judge(raw, debug=True)
    assert claims.debug
    references = {one: ReferenceValue(one, ("00" * 48,)) for one in claims.measured[0]}
    appraisal = appraise_claims(claims, references, now=NOW)
    assert appraisal.vector["executables"] == 3
    assert not appraisal.is_affirming


@pytest.mark.parametrize("number", range(3))
def test_enclave_that_differs_in_any_of_its_registers_is_not_known(number):
    known = judge(WORLD.document())
    references = {name: ReferenceValue(name, (value,)) for name, value in known.measured[0].items()}
    assert appraise_claims(known, references, now=NOW).is_affirming
    claims = judge(WORLD.document(pcrs={number: b"o" * 48}))
    assert not appraise_claims(claims, references, now=NOW).is_affirming


def test_signer_of_an_image_alone_makes_no_enclave_known():
    claims = judge(WORLD.document(pcrs={8: b"s" * 48}))
    name = "nitro_pcr8"
    references = {name: ReferenceValue(name, (claims.configured[name],))}
    assert not appraise_claims(claims, references, now=NOW).is_affirming


def test_register_that_is_not_there_equals_nothing_that_is_wanted():
    claims = judge(WORLD.document(pcrs={8: None}))
    wanted = dict(claims.measured[0]) | {"nitro_pcr8": "00" * 48}
    references = {name: ReferenceValue(name, (value,)) for name, value in wanted.items()}
    assert not appraise_claims(claims, references, now=NOW).is_affirming


def test_init_data_has_no_place():
    with pytest.raises(EvidenceRejected) as caught:
        judge(WORLD.document(), bound=Bound(init_data=b"i" * 32))
    assert caught.value.step == "5, bound"
    assert "init data: expected 6969" in str(caught.value)
    assert "this TEE binds none" in str(caught.value)


def test_evidence_is_a_document_or_json():
    raw = WORLD.document()
    assert parse({"document": encode_base64(raw)}) == parse_file(raw)
    assert read_evidence(raw, tee=None, what="f")[0] == "nitro"
    document = json.dumps({"document": encode_base64(raw)}).encode()
    assert read_evidence(document, tee=None, what="f")[0] == "nitro"
    for body in ({}, {"document": "!"}, {"document": ""}, 7):
        with pytest.raises(FormatError):
            parse(body)


def test_settings_and_roots_that_are_none_are_refused():
    with pytest.raises(FormatError, match="unknown member 'crl'"):
        load_verifier("nitro", settings=View({"crl": "optional"}, what="settings"))
    with pytest.raises(FormatError, match="test root"):
        load_verifier("nitro", roots=b"none")


def real():
    return real_file("nitro/dstack/nitro_attestation.bin").read_bytes()[4:4531]  # in a frame


def test_real_document_is_genuine_at_its_time_and_nobodys():
    claims = judge(real(), now=REAL_TIME, roots=None, bound=Bound(bytes(64)))
    assert not claims.test_root
    assert not appraise_claims(claims, {}, now=REAL_TIME).is_affirming
    told = repr(claims) + json.dumps(claims.values)
    assert "i-08" not in told


@pytest.mark.parametrize("now", [NOW, REAL_TIME - timedelta(hours=1), REAL_TIME.replace(hour=17)])
def test_real_document_is_refused_at_any_other_time(now):
    with pytest.raises(EvidenceRejected) as caught:
        judge(real(), now=now, roots=None)
    assert caught.value.step in ("1, chain", "3, time")


def test_real_document_is_refused_under_another_root_and_ours_under_awss():
    with pytest.raises(EvidenceRejected, match="does not begin with the root"):
        judge(real(), now=REAL_TIME)
    ours = x509.load_pem_x509_certificate(read_root("nitro", "g1.pem"))
    theirs = x509.load_pem_x509_certificate(
        real_file("nitro/dstack/AWS_NitroEnclaves_Root-G1.pem").read_bytes()
    )
    assert ours == theirs


@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_real_document_with_any_byte_changed_is_refused():
    raw = real()
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises((EvidenceRejected, FormatError)):
            judge(bytes(changed), now=REAL_TIME, roots=None)
