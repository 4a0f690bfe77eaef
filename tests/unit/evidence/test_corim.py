# SPDX-License-Identifier: Apache-2.0
"""What a CoRIM says gets the names of claims, whoever it is by is who was named, or nothing."""

import contextlib
from datetime import UTC, datetime

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from imagers.errors import CouldNotVerify, FormatError, NoSignature, SignatureInvalid, Unsupported
from imagers.evidence.cca.token import Component
from imagers.evidence.cca.verify import parse_anchors, software_digest
from imagers.evidence.corim import MAX_CORIM, is_corim, parse_corim
from imagers.model.strict_json import View
from imagers.pki.algorithms import sign
from imagers.pki.cose import build_sign1
from tests.real_evidence import real_file

SNP = "tag:amd.com,2024:snp-corim-profile"
PLATFORM = "tag:arm.com,2025:cca_platform#1.0.0"
REALM = "tag:arm.com,2025:cca_realm#1.0.0"
KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def octets(data, tag=560):
    return cbor2.CBORTag(tag, data)


def measured(key, algorithm=1, digest=bytes(32), **more):
    return {0: key, 1: {2: [[algorithm, digest]], **more}}


def corim(*measurements, profile=None, environment=None, keys=(), **members):
    triples = {0: [[environment or {0: {0: octets(b"c" * 32)}}, list(measurements)]]}
    if keys:
        triples[3] = list(keys)
    comid = cbor2.dumps({1: {0: b"i" * 16}, 4: triples})
    told = {0: "id", 1: [cbor2.CBORTag(506, comid)]}
    if profile is not None:
        told[3] = cbor2.CBORTag(32, profile)
    told |= {int(name[1:]): value for name, value in members.items()}
    return cbor2.dumps(cbor2.CBORTag(501, told))


def signed(payload, key=KEY, protected=None, unprotected=None):
    head = {1: -7, 3: "application/rim+cbor", 8: cbor2.dumps({0: {0: "a signer"}})}
    return build_sign1(
        head if protected is None else protected,
        unprotected or {},
        payload,
        lambda data: sign(key, data),
    )


def read(data, key=None):
    assert is_corim(data)
    return parse_corim(data, key=key)


def test_measurement_of_snp_has_its_name_and_others_are_counted():
    found = read(
        corim(
            measured(641, 7, b"m" * 48),
            {0: 642, 1: {4: octets(b"h" * 32)}},
            measured(643, 7, b"k" * 48),
            {0: 2, 1: {4: octets(bytes(8))}},
            measured("snp_launch_measurement"),
            profile=SNP,
        )
    )
    assert found.values == {
        "snp_launch_measurement": [(b"m" * 48).hex()],
        "snp_host_data": [(b"h" * 32).hex()],
        "snp_id_key_digest": [(b"k" * 48).hex()],
    }
    assert found.left_out == 2


def test_measurements_of_a_realm_have_their_names():
    rems = [measured(f"cca.rem{number}", digest=bytes([number]) * 32) for number in range(4)]
    rpv = {0: "cca.rpv", 1: {4: octets(bytes(64))}}
    found = read(corim(measured("cca.rim"), *rems, rpv, profile=REALM))
    assert found.values["cca_realm_extensible_measurement_3"] == ["03" * 32]
    assert found.values["cca_realm_initial_measurement"] == ["00" * 32]
    assert found.values["cca_realm_personalization_value"] == ["00" * 64]
    assert found.left_out == 0


def component(name, digest):
    return measured("cca.software-component", 1, digest) | {
        1: {2: [[1, digest]], 11: name, 13: [octets(b"s" * 32)]}
    }


INSTANCE = b"\1" + b"i" * 32


def platform_manifest():
    """Two components, a configuration, and the key of one platform."""
    anchor = [
        {0: {0: octets(b"c" * 32)}, 1: cbor2.CBORTag(550, INSTANCE)},
        [cbor2.CBORTag(554, pem(KEY).decode())],
    ]
    return corim(
        component("RMM", b"r" * 32),
        component("BL", b"b" * 32),
        {0: "cca.platform-config", 1: {4: octets(b"\1\2"), 5: b"\1\2"}},
        profile=PLATFORM,
        keys=[anchor],
    )


def test_firmware_of_a_platform_is_the_value_that_its_token_has():
    found = read(platform_manifest())
    components = [
        Component("BL", b"b" * 32, b"s" * 32, "1"),
        Component("RMM", b"r" * 32, b"s" * 32, "2"),
    ]
    assert found.values == {
        "cca_platform_software": [software_digest(components)],
        "cca_platform_config": ["0102"],
        "cca_platform_implementation_id": [(b"c" * 32).hex()],
    }
    (known,) = parse_anchors(View({"trust_anchors": found.trust_anchors}, what="s")).items()
    assert known[0] == INSTANCE
    assert known[1].implementation_id == b"c" * 32


def test_name_of_a_claim_is_a_key_where_no_profile_says_otherwise():
    found = read(
        corim(
            measured("tpm_pcr11"),
            measured("tpm_pcr11", digest=b"2" * 32),
            measured("tpm_pcr11"),
            {0: "mr_td", 1: {4: b"t" * 48}},
            measured(7),
            measured("not a name"),
        )
    )
    assert found.values == {
        "tpm_pcr11": ["00" * 32, (b"2" * 32).hex()],
        "mr_td": [(b"t" * 48).hex()],
    }
    assert found.left_out == 2


def test_end_of_its_signature_is_the_values_too():
    def ends(signature, **members):
        meta = cbor2.dumps({0: {0: "a signer"}, 1: {1: cbor2.CBORTag(1, signature)}})
        head = {1: -7, 3: "application/rim+cbor", 8: meta}
        payload = corim(measured(641), profile=SNP, **members)
        return read(signed(payload, protected=head), pem(KEY)).expires

    assert ends(1_700_000_000) == datetime.fromtimestamp(1_700_000_000, UTC)
    later = {1: cbor2.CBORTag(1, 1_800_000_000)}
    assert ends(1_700_000_000, _4=later) == datetime.fromtimestamp(1_700_000_000, UTC)
    assert ends(1_900_000_000, _4=later) == datetime.fromtimestamp(1_800_000_000, UTC)
    for meta in ("text", cbor2.dumps([]), cbor2.dumps({1: {1: 1_700_000_000}})):
        protected = {1: -7, 3: "application/rim+cbor", 8: meta}
        with pytest.raises(FormatError):
            read(signed(corim(measured(641), profile=SNP), protected=protected), pem(KEY))


def test_end_of_its_validity_is_the_values():
    found = read(corim(measured("mr_td"), m4={1: cbor2.CBORTag(1, 1798761600)}))
    assert found.expires == datetime(2027, 1, 1, tzinfo=UTC)
    assert read(corim(measured("mr_td"))).expires is None


@pytest.mark.parametrize("tag", [None, 500, 502])
def test_signed_one_counts_with_the_key_that_was_named(tag):
    data = signed(corim(measured("mr_td")))
    if tag is not None:
        data = b"\xd9" + tag.to_bytes(2) + data
    assert read(data, pem(KEY)).values == {"mr_td": ["00" * 32]}
    with pytest.raises(CouldNotVerify, match="nobody said by whom") as caught:
        read(data)
    assert "--key" in caught.value.hint
    with pytest.raises(SignatureInvalid):
        read(data, pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(FormatError, match="key: expected a public key in PEM"):
        read(data, b"none")


def test_one_that_is_not_signed_is_refused_where_a_key_was_named():
    with pytest.raises(NoSignature, match="is not signed"):
        read(corim(measured("mr_td")), pem(KEY))


def test_key_that_comes_along_is_not_believed():
    other = ec.generate_private_key(ec.SECP256R1())
    data = signed(corim(measured("mr_td")), other, unprotected={33: pem(other)})
    with pytest.raises(SignatureInvalid):
        read(data, pem(KEY))


def test_any_change_of_what_is_signed_is_refused():
    good = signed(corim(measured("mr_td")))
    values = read(good, pem(KEY)).values
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1
        with contextlib.suppress(FormatError, SignatureInvalid, NoSignature):
            assert parse_corim(bytes(changed), key=pem(KEY)).values == values


@pytest.mark.parametrize(
    ("protected", "piece"),
    [
        ({1: -7, 3: "text/plain"}, "expected application/rim"),
        ({1: -7}, "is missing"),
        ({1: -7, 2: [99], 3: "application/rim+cbor", 99: 1}, "unknown member 2"),
    ],
)
def test_signed_one_of_another_kind_is_refused(protected, piece):
    with pytest.raises(FormatError, match=piece):
        read(signed(corim(measured("mr_td")), protected=protected), pem(KEY))


EMPTY = cbor2.dumps({4: {}})


@pytest.mark.parametrize(
    ("data", "piece"),
    [
        (cbor2.dumps(cbor2.CBORTag(505, {})), "expected a manifest, tag 501"),
        (cbor2.dumps(cbor2.CBORTag(501, [])), "expected a map"),
        (cbor2.dumps(cbor2.CBORTag(501, {0: "x"})), "is missing, expected an array"),
        (cbor2.dumps(cbor2.CBORTag(501, {1: []})), "expected 1 to 256 entries"),
        (cbor2.dumps(cbor2.CBORTag(501, {1: [cbor2.CBORTag(506, 7)]})), "bytes of a CoMID"),
        (cbor2.dumps(cbor2.CBORTag(501, {1: [cbor2.CBORTag(506, b"\xa0")]})), "CoMID at $[4]"),
        (corim(measured("mr_td")) + b"\0", "behind its end"),
        (corim({0: "mr_td"}), "expected a map"),
        (corim({0: "mr_td", 1: {}}), "expected a digest or bytes"),
        (corim(measured("mr_td", 1, bytes(48))), "a digest of sha-256"),
        (corim(measured("mr_td", 10, bytes(32))), "a digest of sha-256"),
        (corim({0: "mr_td", 1: {2: [[1, bytes(32)]] * 2}}), "expected one digest, got 2"),
        (corim({0: "mr_td", 1: {2: [7]}}), "a digest of sha-256"),
        (corim(7), "expected a map"),
        (corim(measured("mr_td"), m4={1: 5}), "expected a time"),
        (corim(measured("mr_td"), m4={1: cbor2.CBORTag(1, 2**60)}), "before the year 10000"),
        (corim(measured("cca.software-component"), profile=PLATFORM), "[13]: is missing"),
        (
            corim(component("a", bytes(32)), profile=PLATFORM, environment={0: {1: "x"}}),
            "expected 32 bytes with tag 560",
        ),
        (
            corim(component("a", bytes(32)), profile=PLATFORM, keys=[[{}, [7]]]),
            "one key in PEM",
        ),
        (
            corim(
                component("a", bytes(32)),
                profile=PLATFORM,
                keys=[[{0: {}}, [cbor2.CBORTag(554, "none")]]],
            ),
            "a public key in PEM",
        ),
        (b"\xd9" + bytes(MAX_CORIM), f"expected at most {MAX_CORIM} bytes"),
    ],
    ids=range(21),
)
def test_what_is_none_is_refused(data, piece):
    with pytest.raises(FormatError) as caught:
        read(data)
    assert piece in str(caught.value)


def test_key_of_another_kind_is_not_supported():
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = pem(ed25519.Ed25519PrivateKey.generate()).decode()
    place = {0: {0: octets(b"c" * 32)}, 1: cbor2.CBORTag(550, b"\1" * 33)}
    record = [place, [cbor2.CBORTag(554, key)]]
    with pytest.raises(Unsupported, match="curve of NIST"):
        read(corim(component("a", bytes(32)), profile=PLATFORM, keys=[record]))


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_one_or_none(raw, at):
    good = corim(component("a", bytes(32)), profile=PLATFORM)
    for data in (raw, good[:at] + raw[:2] + good[at + 2 :]):
        with contextlib.suppress(FormatError, Unsupported, CouldNotVerify):
            parse_corim(data, key=None)


@pytest.mark.parametrize(
    ("name", "values", "anchors", "left_out"),
    [
        ("snp/veraison-services/corim-sevsnp-valid.cbor", {"snp_launch_measurement"}, 0, 17),
        (
            "cca/veraison-services/corim-cca-platform-valid.cbor",
            {"cca_platform_software", "cca_platform_config", "cca_platform_implementation_id"},
            1,
            0,
        ),
        (
            "cca/veraison-services/corim-cca-realm-valid.cbor",
            {
                "cca_realm_initial_measurement",
                "cca_realm_personalization_value",
                *(f"cca_realm_extensible_measurement_{number}" for number in range(4)),
            },
            0,
            0,
        ),
        ("rvps/trustee/unsigned-example-corim.cbor", set(), 0, 3),
    ],
)
def test_real_one_is_read(name, values, anchors, left_out):
    found = read(real_file(name).read_bytes())
    assert found.values.keys() == values
    assert (len(found.trust_anchors), found.left_out) == (anchors, left_out)
