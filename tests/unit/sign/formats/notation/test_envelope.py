# SPDX-License-Identifier: Apache-2.0
"""Envelopes; what is changed in one is signed again, so that only its meaning is refused."""

import base64
import json
from datetime import UTC, datetime

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import FormatError, ImagersError, SignatureInvalid, Unsupported
from imagers.sign.formats.notation.envelope import COSE_TYPE, JWS_TYPE, parse_envelope

P = "io.cncf.notary."
EXPIRY = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("media_type", [JWS_TYPE, COSE_TYPE])
def test_envelope_of_either_form_says_the_same(envelopes, media_type):
    envelope = parse_envelope(envelopes.good(media_type, expiry=EXPIRY), media_type)
    envelope.check_integrity()
    assert envelope.chain[0] == envelopes.leaf
    assert (envelope.scheme, envelope.expiry) == ("notary.x509", EXPIRY)
    assert envelope.signing_time == datetime(2026, 6, 1, tzinfo=UTC)
    assert envelope.stamp is None


@pytest.mark.parametrize("media_type", [JWS_TYPE, COSE_TYPE])
# A changed byte can make a serial number negative, which cryptography warns of: one in some runs.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_envelope_with_any_changed_byte_never_says_something_else(envelopes, media_type):
    raw = envelopes.good(media_type)
    good = parse_envelope(raw, media_type)
    for place in range(0, len(raw), 7):
        changed = raw[:place] + bytes([raw[place] ^ 0x02]) + raw[place + 1 :]
        try:
            envelope = parse_envelope(changed, media_type)
            envelope.check_integrity()
        except (FormatError, Unsupported, SignatureInvalid):
            continue
        assert (envelope.payload, envelope.scheme) == (good.payload, good.scheme)
        # The certificates are not signed by it; their chain is another check.
        assert envelope.chain[0].public_key() == good.chain[0].public_key()


@pytest.mark.parametrize(
    ("piece", "protected"),
    [
        ("content of type", {"cty": "text/plain"}),
        ("header at $.cty", {"cty": None}),
        ("header at $.alg", {"alg": None}),
        ("unknown signing scheme", {f"{P}signingScheme": "other"}),
        ("unknown signing scheme", {f"{P}signingScheme": None}),
        ("to be critical", {"crit": [f"{P}signingTime"]}),
        ("critical attributes", {"crit": []}),
        ("critical attributes", {"crit": None}),
        ("not understood", {"crit": [f"{P}signingScheme", f"{P}verificationPlugin"]}),
        ("not understood", {"crit": [f"{P}signingScheme", "cty"]}),
        ("expiry", {f"{P}expiry": "2026-01-01T00:00:00Z"}),
        ("time of RFC 3339", {f"{P}signingTime": "yesterday"}),
        ("time of RFC 3339", {f"{P}signingTime": 5}),
        ("exactly with an authority", {f"{P}signingScheme": "notary.x509.signingAuthority"}),
        (
            "exactly with an authority",
            {
                f"{P}authenticSigningTime": "2026-01-01T00:00:00Z",
                "crit": [f"{P}signingScheme", f"{P}authenticSigningTime"],
            },
        ),
    ],
)
def test_envelope_that_means_something_else_is_refused(envelopes, piece, protected):
    with pytest.raises(FormatError) as caught:
        parse_envelope(envelopes.changed(protected=protected), JWS_TYPE)
    assert piece in str(caught.value)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES384", "PS256", "es256"])
def test_envelope_with_another_algorithm_than_the_keys_is_refused(envelopes, algorithm):
    envelope = parse_envelope(envelopes.changed(protected={"alg": algorithm}), JWS_TYPE)
    with pytest.raises(SignatureInvalid, match="expected algorithm ES256"):
        envelope.check_integrity()


def test_envelope_with_the_certificate_of_another_key_is_refused(envelopes):
    other = envelopes.pki.leaf("other")
    raw = envelopes.changed(header={"x5c": envelopes.x5c(other)})
    with pytest.raises(SignatureInvalid, match="does not fit"):
        parse_envelope(raw, JWS_TYPE).check_integrity()


@pytest.mark.parametrize("value", [None, [], "x", ["!"], [5], ["AAAA"]])
def test_envelope_without_readable_certificates_is_refused(envelopes, value):
    with pytest.raises(FormatError):
        parse_envelope(envelopes.changed(header={"x5c": value}), JWS_TYPE)


@pytest.mark.parametrize("change", [{"more": 1}, {"payload": "a"}, {"signature": "a=="}])
def test_envelope_jws_of_another_shape_is_refused(envelopes, change):
    document = json.loads(envelopes.good()) | change
    with pytest.raises(FormatError):
        parse_envelope(json.dumps(document).encode(), JWS_TYPE)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        cbor2.dumps(5),
        cbor2.dumps(cbor2.CBORTag(98, [b"", {}, b"", b""])),
        cbor2.dumps(cbor2.CBORTag(18, [b"", {}, b""])),
        cbor2.dumps(cbor2.CBORTag(18, [b"\xa0", {}, None, b""])),
        cbor2.dumps(cbor2.CBORTag(18, ["x", {}, b"", b""])),
        cbor2.dumps(cbor2.CBORTag(18, [b"\xa0", [], b"", b""])),
        b"\x81" * 2000,
    ],
)
def test_envelope_cose_of_another_shape_is_refused(value):
    with pytest.raises(FormatError):
        parse_envelope(value, COSE_TYPE)


def test_envelope_of_another_type_is_refused():
    with pytest.raises(Unsupported, match="expected an envelope"):
        parse_envelope(b"", "text/plain")


@given(st.binary(max_size=300), st.sampled_from([JWS_TYPE, COSE_TYPE]))
def test_envelope_of_any_bytes_is_refused(raw, media_type):
    with pytest.raises(ImagersError):
        parse_envelope(raw, media_type)


def test_envelope_with_an_ed25519_certificate_is_refused(envelopes):
    """COSE and JWS have an algorithm for such a key, notation has none."""
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(EXPIRY)
        .sign(key, None)
    )
    der = base64.b64encode(leaf.public_bytes(serialization.Encoding.DER)).decode()
    raw = envelopes.changed(protected={"alg": "EdDSA"}, header={"x5c": [der]})
    document = json.loads(raw)
    data = f"{document['protected']}.{document['payload']}".encode()
    document["signature"] = base64.urlsafe_b64encode(key.sign(data)).rstrip(b"=").decode()
    envelope = parse_envelope(json.dumps(document).encode(), JWS_TYPE)
    envelope.message.check_signature(key.public_key())
    with pytest.raises(SignatureInvalid, match="expected an RSA or an EC key"):
        envelope.check_integrity()
