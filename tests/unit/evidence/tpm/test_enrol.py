# SPDX-License-Identifier: Apache-2.0
"""An attestation key that is not in a genuine TPM is refused, at the step that has to."""

import json
from datetime import UTC, datetime, timedelta
from struct import pack

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from imagers.errors import EvidenceRejected, FormatError, Unsupported
from imagers.evidence.tpm.credential import EK_TEMPLATES
from imagers.evidence.tpm.enrol import (
    Challenge,
    Request,
    accept,
    answer_to_json,
    make_challenge,
    parse_challenge,
    parse_request,
)
from imagers.evidence.tpm.structures import parse_public, sized, spki_of
from imagers.model.base64 import decode_base64, encode_base64

NOW = datetime(2026, 11, 29, tzinfo=UTC)
EK = rsa.generate_private_key(65537, 2048)
AK = ec.generate_private_key(ec.SECP256R1())
CA, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vendor of TPMs")])
GOOD = 0x00050072
ENDORSEMENT = x509.ObjectIdentifier("2.23.133.8.1")


def certificate(
    key=EK, *, signer=CA, begin=NOW, usage=ENDORSEMENT, ca=False,
    encipher=True,
):  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME if ca else x509.Name([]))
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(begin - timedelta(days=1))
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not encipher, content_commitment=False,
                key_encipherment=encipher and not ca, data_encipherment=False,
                key_agreement=False, key_cert_sign=ca, crl_sign=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if usage is not None and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(signer, hashes.SHA256())


ROOT = certificate(CA, ca=True)


def public(attributes=GOOD, *, scheme=(0x18, 0x0B), name_hash=0x0B):
    numbers = AK.public_key().public_numbers()
    raw = pack(">HHI", 0x23, name_hash, attributes) + sized(b"") + b"\0\x10"
    raw += pack(">HH", *scheme) if scheme else b"\0\x10"
    raw += pack(">HH", 3, 0x10)
    return parse_public(raw + sized(numbers.x.to_bytes(32)) + sized(numbers.y.to_bytes(32)))


def request(ek=None, ak=None):
    der = (ek or certificate()).public_bytes(Encoding.DER)
    return parse_request(Request(der, ak or public()).to_json())


def ask(one, roots=(ROOT,)):
    return make_challenge(one, roots, now=NOW)


def test_key_of_a_genuine_tpm_gets_a_challenge_and_is_accepted_with_its_secret():
    challenge, kept = ask(request())
    assert parse_challenge(challenge.to_json()) == challenge
    assert challenge.template == EK_TEMPLATES["rsa"]
    secret = decode_base64(json.loads(kept)["secret"], what="secret", where="$")
    assert secret not in challenge.blob + challenge.seed
    assert accept(answer_to_json(secret), kept) == encode_base64(spki_of(AK.public_key()))
    assert encode_base64(secret) not in repr(challenge)


def test_challenges_have_secrets_of_their_own():
    assert ask(request())[1] != ask(request())[1]


def test_answer_to_another_challenge_is_refused():
    _, first = ask(request())
    _, second = ask(request())
    secret = decode_base64(json.loads(first)["secret"], what="secret", where="$")
    for wrong in (secret, b"", secret[:-1], bytes(32)):
        with pytest.raises(EvidenceRejected, match="step 3, secret: it is not the one"):
            accept(answer_to_json(wrong), second)


def test_key_on_a_curve_gets_a_challenge():
    key = ec.generate_private_key(ec.SECP256R1())
    challenge, _ = ask(request(certificate(key)))
    assert challenge.template == EK_TEMPLATES["ecc"]


@pytest.mark.parametrize(
    ("ek", "piece"),
    [
        (certificate(signer=OTHER), "no given root certificate leads to it"),
        (certificate(begin=NOW - timedelta(days=9)), "not valid at 2026-11-29"),
        (certificate(begin=NOW + timedelta(days=9)), "not valid at 2026-11-29"),
        (certificate(usage=x509.ObjectIdentifier("1.2.3")), "may not be used for tpm endorsement"),
        (certificate(encipher=False), "may not be used for encryption"),
        (certificate(ca=True), "may not be used for encryption"),
    ],
    ids=[
        "by another authority", "expired", "of the future", "for another use", "for signatures",
        "an authority",
    ],
)  # fmt: skip
def test_certificate_that_vouches_for_no_endorsement_key_is_refused(ek, piece):
    with pytest.raises(EvidenceRejected) as caught:
        ask(request(ek))
    assert caught.value.step == "1, certificate"
    assert piece in str(caught.value)


def test_certificate_without_extended_usage_will_do():
    ask(request(certificate(usage=None)))


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (1 << 1, "fixedTPM"),
        (1 << 4, "fixedParent"),
        (1 << 5, "sensitiveDataOrigin"),
        (1 << 16, "restricted"),
        (1 << 18, "sign"),
    ],
)
def test_key_without_an_attribute_is_refused(bit, name):
    """It could sign what is no quote, or be of somebody who has it elsewhere too."""
    with pytest.raises(EvidenceRejected, match=f"attribute {name}: expected set") as caught:
        ask(request(ak=public(GOOD & ~bit)))
    assert caught.value.step == "2, key"


@pytest.mark.parametrize(
    ("ak", "piece"),
    [
        (public(GOOD | 1 << 17), "attribute decrypt: expected clear, got set"),
        (public(name_hash=0x04), "hash of its name: expected 0x000b"),
        (public(scheme=None), "scheme: expected 0x0018 with 0x000b, got 0x0010 with 0x0010"),
        (public(scheme=(0x18, 0x04)), "scheme: expected 0x0018 with 0x000b, got 0x0018 with"),
        (public(scheme=(0x14, 0x0B)), "scheme"),
    ],
    ids=["decrypts", "name by SHA-1", "any scheme", "signs with SHA-1", "scheme of another key"],
)
def test_key_that_is_none_for_quotes_is_refused(ak, piece):
    with pytest.raises(EvidenceRejected) as caught:
        ask(request(ak=ak))
    assert caught.value.step == "2, key"
    assert piece in str(caught.value)


def test_endorsement_key_of_another_kind_is_not_supported():
    key = rsa.generate_private_key(65537, 3072)
    with pytest.raises(Unsupported):
        ask(request(certificate(key)))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"ek_certificate":"", "ak":""}'])
def test_files_that_are_something_else_are_refused(data):
    for parse in (parse_request, parse_challenge):
        with pytest.raises(FormatError):
            parse(data)
    for answer, kept in ((data, b"{}"), (answer_to_json(b"x"), data)):
        with pytest.raises(FormatError):
            accept(answer, kept)
    with pytest.raises(FormatError, match="certificate of the endorsement key"):
        ask(Request(b"x", public()))
    assert "x" not in repr(Challenge(b"x", b"x")).removeprefix("Challenge")
