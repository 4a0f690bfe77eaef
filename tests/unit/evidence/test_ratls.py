# SPDX-License-Identifier: Apache-2.0
import random
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256, sha384

import cbor2
import pytest
from asn1crypto.pem import unarmor
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError, ImagersError, Unsupported
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import load_verifier
from imagers.evidence.policy import AppraisalPolicy
from imagers.evidence.ratls import PeerEvidence, make_ratls, read_ratls
from imagers.model.evidence import Bound, Evidence
from imagers.model.references import ReferenceValue
from imagers.pki.der import encode, encode_oid
from imagers.testing.evidence import SGXWorld, SNPWorld, TDXWorld
from tests.real_evidence import real_file

NOW = datetime(2026, 11, 29, tzinfo=UTC)
DICE = "2.23.133.5.4.9"
GRAMINE = "0.6.9.42.840.113741.1337.6"
RATS_TLS = "1.2.840.113741.1337.6"
KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
REAL = {
    DICE: "ratls/interoperable-ra-tls/rats-tls-cert.pem",
    RATS_TLS: "ratls/rats-tls/rats-tls-cert-openssl-sample.pem",
}


def spki_of(key):
    return key.public_key().public_bytes(DER, SPKI)


@pytest.fixture(scope="module", params=[SGXWorld, TDXWorld])
def world(request):
    return request.param(b"r" * 32, now=NOW)


@pytest.fixture(scope="module")
def sgx():
    return SGXWorld(b"r" * 32, now=NOW)


def quote_of(world, report_data, **more):
    return world.raw_files(world.evidence(report_data=report_data, **more))["quote.bin"]


def certificate(*extensions, key=KEY, critical=False, begin=NOW, end=NOW + timedelta(days=1)):
    """A certificate with extensions, each a pair of object identifier and value."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "any")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    for oid, value in extensions:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(DER)


def dice(world, *, claims=None, report_data=None, tag=60000, **more):
    """The value of the extension, good where nothing else is said."""
    if claims is None:
        claims = cbor2.dumps({"pubkey-hash": cbor2.dumps([1, sha256(spki_of(KEY)).digest()])})
    bound = sha256(claims).digest() if report_data is None else report_data
    return cbor2.dumps(cbor2.CBORTag(tag, [quote_of(world, bound, **more), claims]))


def measured(world, **more):
    """Reference values of the world's own guest."""
    verifier = load_verifier(world.tee, roots=world.roots)
    evidence = verifier.parse(world.evidence(**more))
    claims = judge_parsed(
        verifier, evidence, bound=Bound(), read=world.collateral().get, now=world.now
    )
    return tuple(ReferenceValue(name, (one,)) for name, one in claims.measured[0].items())


def peer(world, references=None, **more):
    """Judges peers as one whose machines run what the world's guest runs."""
    policy = AppraisalPolicy({}, measured(world) if references is None else references)
    return PeerEvidence(
        policy,
        read=more.pop("read", world.collateral().get),
        clock=lambda: more.get("now", NOW),
        roots={world.tee: world.roots},
    )


def refused(call, der, error=EvidenceRejected):
    with pytest.raises(error) as caught:
        call(der)
    return str(caught.value)


def test_certificate_that_is_made_here_is_of_a_machine_of_ones_own(world):
    key = ec.generate_private_key(ec.SECP384R1())
    made = make_ratls(key, world.attester(), now=NOW)
    peer(world)(made)
    found = read_ratls(made)
    assert (found.form, found.tee) == (DICE, world.tee)
    assert x509.load_der_x509_certificate(made).public_key() == key.public_key()


def test_certificate_of_another_key_is_refused(world):
    """An attacker has copied the extension of a good machine into a certificate of his own."""
    (good,) = (
        one.value.value
        for one in x509.load_der_x509_certificate(
            make_ratls(KEY, world.attester(), now=NOW)
        ).extensions
        if one.oid.dotted_string == DICE
    )
    told = refused(read_ratls, certificate((DICE, good), key=ec.generate_private_key(KEY.curve)))
    assert told.startswith("step 3, key: pubkey-hash: expected ")


def test_certificate_whose_quote_binds_other_claims_is_refused(world):
    """He has exchanged the claims for his own, which the quote does not bind."""
    value = dice(world, report_data=bytes(32))
    assert "report data: expected" in refused(peer(world), certificate((DICE, value)))


def test_genuine_machine_that_runs_something_else_is_refused(world):
    der = certificate((DICE, dice(world, measurement=b"o" * len(world.measurement))))
    told = refused(peer(world), der)
    assert told.startswith(f"step 5, ours: the peer is a genuine machine of the TEE '{world.tee}'")
    assert "no reference value equals it" in told


def test_machine_is_nobodys_without_reference_values(world):
    der = certificate((DICE, dice(world)))
    assert "there is no reference value" in refused(peer(world, references=()), der)


def test_machine_under_the_roots_of_tests_is_refused_where_those_of_the_vendor_count(world):
    der = certificate((DICE, dice(world)))
    assert "step 1, chain" in refused(replace(peer(world), roots={}), der)


def test_collateral_that_is_missing_is_could_not_look(world):
    der = certificate((DICE, dice(world)))
    told = refused(peer(world, read=lambda _: None), der, CouldNotVerify)
    assert "there is no list of revoked certificates" in told


@pytest.mark.parametrize("days", [-2, 2])
def test_certificate_out_of_its_time_is_refused(sgx, days):
    der = certificate((DICE, dice(sgx)))
    told = refused(peer(sgx, now=NOW + timedelta(days=days)), der)
    assert told.startswith("step 1, certificate: validity: expected valid at 2026-1")


def test_enclave_that_can_be_debugged_is_refused(sgx):
    der = certificate((DICE, dice(sgx, attributes=0x07)))
    assert "debug" in refused(peer(sgx), der).lower()


def test_certificate_without_evidence_is_refused_and_says_what_a_ca_is_for():
    with pytest.raises(EvidenceRejected, match="step 2, evidence: extensions: expected evid") as up:
        read_ratls(certificate())
    assert "--broker-ca" in up.value.hint


def test_forms_from_before_dice_are_read(sgx):
    of_spki = quote_of(sgx, sha256(spki_of(KEY)).digest())
    peer(sgx)(certificate((GRAMINE, of_spki)))
    pkcs1 = RSA_KEY.public_key().public_bytes(DER, serialization.PublicFormat.PKCS1)
    of_pkcs1 = quote_of(sgx, sha256(pkcs1).digest())
    peer(sgx)(certificate((RATS_TLS, of_pkcs1), key=RSA_KEY))
    for der in (
        certificate((GRAMINE, of_pkcs1), key=RSA_KEY),
        certificate((GRAMINE, of_spki), key=RSA_KEY),
        certificate((RATS_TLS, quote_of(sgx, sha256(spki_of(RSA_KEY)).digest())), key=RSA_KEY),
    ):
        assert "report data: expected" in refused(peer(sgx), der)
    told = refused(read_ratls, certificate((RATS_TLS, of_spki)), FormatError)
    assert "expected an RSA key" in told


def test_dice_counts_where_an_older_form_stands_beside_it(sgx):
    old = quote_of(sgx, sha256(spki_of(KEY)).digest())
    peer(sgx)(certificate((GRAMINE, b"anything else"), (DICE, dice(sgx))))
    bad = dice(sgx, report_data=bytes(32))
    assert "report data" in refused(peer(sgx), certificate((GRAMINE, old), (DICE, bad)))


def test_hash_of_the_key_may_be_sha_384(sgx):
    claims = cbor2.dumps({"pubkey-hash": cbor2.dumps([7, sha384(spki_of(KEY)).digest()]), "k": b""})
    peer(sgx)(certificate((DICE, dice(sgx, claims=claims))))


@pytest.mark.parametrize(
    ("entry", "piece"),
    [
        ([2, b"x" * 32], "expected [1, 7 or 8"),
        ([True, sha256(spki_of(KEY)).digest()], "expected [1, 7 or 8"),
        ([1, sha256(spki_of(KEY)).hexdigest()], "expected [1, 7 or 8"),
        ([1], "expected [1, 7 or 8"),
        ({}, "expected [1, 7 or 8"),
    ],
)
def test_hash_of_the_key_that_is_none_is_refused(sgx, entry, piece):
    claims = cbor2.dumps({"pubkey-hash": cbor2.dumps(entry)})
    der = certificate((DICE, dice(sgx, claims=claims)))
    assert piece in refused(read_ratls, der, FormatError)


def test_hash_of_the_key_that_is_cut_is_refused(sgx):
    claims = cbor2.dumps({"pubkey-hash": cbor2.dumps([1, sha256(spki_of(KEY)).digest()[:16]])})
    assert "step 3, key" in refused(read_ratls, certificate((DICE, dice(sgx, claims=claims))))


def test_claims_with_a_member_twice_are_refused(sgx):
    """Of two hashes one reader takes the first and another the last."""
    entry = cbor2.dumps(cbor2.dumps([1, sha256(spki_of(KEY)).digest()]))
    member = cbor2.dumps("pubkey-hash") + entry
    der = certificate((DICE, dice(sgx, claims=b"\xa2" + member + member)))
    assert "twice" in refused(read_ratls, der, FormatError)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        cbor2.dumps([b"q", b"c"]),
        cbor2.dumps(cbor2.CBORTag(60001, [b"q", b"c"])),
        cbor2.dumps(cbor2.CBORTag(60000, [b"q"])),
        cbor2.dumps(cbor2.CBORTag(60000, [b"q", "c"])),
        cbor2.dumps(cbor2.CBORTag(60000, [b"q", b"c", b"d"])),
        cbor2.dumps(cbor2.CBORTag(60000, [b"q", b"c"])) + b"\0",
    ],
    ids=len,
)
def test_extension_with_something_else_is_refused(value):
    refused(read_ratls, certificate((DICE, value)), FormatError)


def test_critical_extension_that_is_not_known_is_refused(sgx):
    good = (DICE, dice(sgx))
    peer(sgx)(certificate(good, critical=True))
    der = certificate(good, ("1.2.3.4", b"x"), critical=True)
    assert "critical extension" in refused(read_ratls, der, FormatError)


def rebuilt(der, change):
    """The certificate with a change of its body, which is a list of elements in DER."""
    from imagers.pki.der import split

    (whole,) = split(der, what="x")
    body, *rest = split(whole.content, what="x")
    parts = change([one.raw for one in split(body.content, what="x")])
    return encode(0x30, encode(0x30, *parts), *(one.raw for one in rest))


def twice(parts):
    """Extensions, all of them two times."""
    inner = parts[-1]
    at = inner.index(b"\x30")
    content = x509_content(inner[at:])
    return [*parts[:-1], encode(0xA3, encode(0x30, content, content))]


def x509_content(raw):
    from imagers.pki.der import only

    return only(raw, 0x30, what="x")


NO_TIMES = encode(0x30, encode(0x17, b"1"), encode(0x17, b"1"))


def test_other_forms_of_a_certificate_are_refused(sgx):
    """No other reader may find another key in it, or other evidence."""
    good = certificate((DICE, dice(sgx)))
    assert rebuilt(good, lambda parts: parts) == good
    long_length = good[:2] + b"\x00" + good[2:]  # a zero before the length, and one byte more of it
    for der in (
        b"",
        b"0",
        good[:-1],
        good + b"\0",
        long_length[:1] + bytes((good[1] + 1,)) + long_length[2:],
        rebuilt(good, lambda parts: parts[1:]),
        rebuilt(good, lambda parts: [encode(0xA0, b"\2\1\1"), *parts[1:]]),
        rebuilt(good, lambda parts: [*parts[:6], parts[6], *parts[6:]]),
        rebuilt(good, lambda parts: [*parts, encode(0xA4, b"")]),
        rebuilt(good, lambda parts: [*parts, parts[-1]]),
        rebuilt(good, twice),
        rebuilt(good, lambda parts: [*parts[:4], encode(0x30), *parts[5:]]),
        rebuilt(good, lambda parts: [*parts[:4], NO_TIMES, *parts[5:]]),
    ):
        refused(read_ratls, der, FormatError)
    assert "at most" in refused(read_ratls, bytes(300_000), FormatError)


def test_unique_ids_and_generalized_time_are_read(sgx):
    good = certificate((DICE, dice(sgx)))
    times = encode(0x30, encode(0x18, b"20200101000000Z"), encode(0x18, b"20991231235959Z"))
    der = rebuilt(
        good, lambda parts: [*parts[:4], times, *parts[5:7], encode(0x81, b"\0x"), *parts[7:]]
    )
    found = read_ratls(der)
    assert (found.not_before.year, found.not_after.year) == (2020, 2099)
    old = encode(0x30, encode(0x17, b"500101000000Z"), encode(0x17, b"491231235959Z"))
    found = read_ratls(rebuilt(good, lambda parts: [*parts[:4], old, *parts[5:]]))
    assert (found.not_before.year, found.not_after.year) == (1950, 2049)


def test_no_bit_of_key_or_evidence_can_be_changed(sgx):
    """All that is not refused differs in what is judged by nobody: names, serial, signature."""
    good = certificate((DICE, dice(sgx)))
    check = peer(sgx)
    check(good)
    generator = random.Random(3)  # noqa: S311  # the same bits each time
    key_at = good.index(spki_of(KEY))
    value_at = good.index(encode_oid(DICE))
    for _ in range(2000):
        at = generator.choice(
            (
                generator.randrange(key_at, key_at + len(spki_of(KEY))),
                generator.randrange(value_at, len(good) - 80),
            )
        )
        bad = bytearray(good)
        bad[at] ^= 1 << generator.randrange(8)
        with pytest.raises(ImagersError):
            check(bytes(bad))


def test_attester_of_another_tee_makes_no_certificate():
    with pytest.raises(Unsupported, match="of the TEE 'snp': expected sgx or tdx"):
        make_ratls(KEY, SNPWorld(b"s" * 32, now=NOW).attester(), now=NOW)


def test_attester_without_a_quote_makes_no_certificate():
    class Without:
        tee = "sgx"

        def collect(self, report_data):
            return Evidence("sgx", {}, report_data)

    with pytest.raises(FormatError, match="quote"):
        make_ratls(KEY, Without(), now=NOW)


# Certificates of others


def real(name):
    return unarmor(real_file(name).read_bytes())[2]


@pytest.mark.parametrize("form", REAL)
def test_real_certificate_is_for_its_key(form):
    found = read_ratls(real(REAL[form]))
    assert (found.form, found.tee) == (form, "sgx")
    verifier = load_verifier("sgx")
    with pytest.raises(CouldNotVerify, match="step 2, revocation"):  # after its chain
        judge_parsed(
            verifier,
            found.evidence,
            bound=Bound(found.report_data),
            read=lambda _: None,
            now=datetime(2023, 6, 1, tzinfo=UTC),
        )


def test_real_certificate_of_gramine_has_both_forms_and_is_of_an_enclave_with_debugging():
    der = real("ratls/interoperable-ra-tls/gramine-cert.pem")
    found = read_ratls(der)
    assert found.form == DICE
    assert found.evidence.number("attributes.flags") & 2


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_real_certificate_with_a_bit_changed_in_its_quote_is_another(at):
    der = bytearray(real(REAL[RATS_TLS]))
    good = read_ratls(bytes(der))
    begin = bytes(der).index(encode_oid(RATS_TLS))
    der[begin + int(400 * at)] ^= 1
    with suppress(FormatError):
        assert read_ratls(bytes(der)).evidence != good.evidence
