# SPDX-License-Identifier: Apache-2.0
"""Which platforms are known, what makes firmware one value, and the tokens of others.

What else is refused is in the factory's wrongs.
"""

import json
from datetime import UTC, datetime
from itertools import permutations

import cbor2
import pytest

from imagers.errors import CouldNotVerify, EvidenceRejected, FormatError, Unsupported
from imagers.evidence.appraise import appraise_claims
from imagers.evidence.cca.token import Component
from imagers.evidence.cca.verify import parse, parse_file, software_digest
from imagers.evidence.judge import judge_parsed
from imagers.evidence.plugins import load_verifier, read_evidence
from imagers.model.evidence import Bound
from imagers.model.references import ReferenceValue
from imagers.model.strict_json import View
from imagers.testing.evidence import CCAWorld
from tests.real_evidence import real_file

NOW = datetime(2026, 11, 29, tzinfo=UTC)
WORLD = CCAWorld(bytes(32), now=NOW)
OTHER = CCAWorld(b"7" * 32, now=NOW)


def judge(raw, anchors=None, *, bound=None, roots=None, told=None, **settings):
    if anchors is not None:
        settings["trust_anchors"] = anchors
    verifier = load_verifier("cca", settings=View(settings, what="settings"), roots=roots)
    note = [].append if told is None else told.append
    return judge_parsed(
        verifier, parse_file(raw), bound=bound or Bound(), read={}.get, now=NOW, note=note
    )


def test_token_of_a_known_platform_gives_its_claims():
    told = []
    claims = judge(WORLD.token(), OTHER.trust_anchors() + WORLD.trust_anchors(), told=told)
    assert [one.partition(",")[0] for one in told] == [f"step {number}" for number in range(1, 7)]
    (way,) = claims.measured
    assert tuple(way) == load_verifier("cca").references[0]
    assert claims.firmware["cca_platform_lifecycle"] == 0x3001
    assert not claims.test_root
    assert not claims.debug
    assert claims.values["realm"]["cca-realm-hash-algo-id"] == "sha-256"


def test_claims_are_those_of_the_token():
    token = WORLD.token(realm={10: b"n" * 64, 44235: b"i" * 64})
    claims = judge(token, WORLD.trust_anchors())
    platform = WORLD.platform_claims()
    assert (claims.tee, claims.tee_class, claims.init_data) == ("cca", "cpu", (b"i" * 64).hex())
    assert claims.firmware == {
        "cca_platform_implementation_id": platform[2396].hex(),
        "cca_platform_config": platform[2401].hex(),
        "cca_platform_lifecycle": 0x3001,
    }
    assert claims.configured == {
        "cca_realm_personalization_value": (b"i" * 64).hex(),
        "cca_realm_hash_algorithm": "sha-256",
    }
    assert judge(token, roots=WORLD.roots).test_root
    assert (claims.values["report_data"], claims.values["init_data"]) == (
        claims.report_data,
        claims.init_data,
    )


def test_which_machine_it_was_is_told_by_a_hash_alone():
    claims = judge(WORLD.token(), WORLD.trust_anchors())
    instance = WORLD.platform_claims()[256]
    assert len(claims.instance) == 64
    assert instance.hex() not in repr(claims) + json.dumps(claims.values) + claims.instance


def test_platform_whose_key_nobody_gave_could_not_be_looked_at():
    for anchors in (None, [], OTHER.trust_anchors()):
        with pytest.raises(CouldNotVerify) as caught:
            judge(WORLD.token(), anchors)
        assert caught.value.step == "1, trust anchor"
        assert "there is no trust anchor for this platform" in str(caught.value)
        assert "tees.cca.trust_anchors" in caught.value.hint
        assert WORLD.platform_claims()[256].hex()[:16] not in str(caught.value)


def test_platform_of_another_implementation_than_its_key_is_refused():
    (anchor,) = WORLD.trust_anchors()
    with pytest.raises(EvidenceRejected) as caught:
        judge(WORLD.token(), [anchor | {"implementation-id": "07" * 32}])
    assert (caught.value.step, caught.value.expected) == ("1, trust anchor", "07" * 32)


def test_platform_that_takes_the_id_of_another_is_refused():
    ids = {label: OTHER.platform_claims()[label] for label in (256, 2396)}
    with pytest.raises(EvidenceRejected) as caught:
        judge(WORLD.token(platform=ids), OTHER.trust_anchors())
    assert caught.value.step == "2, platform"


def test_signature_that_was_good_once_does_not_vouch_for_another_key_or_platform():
    raw = WORLD.token()
    judge(raw, WORLD.trust_anchors())
    (anchor,), (other,) = WORLD.trust_anchors(), OTHER.trust_anchors()
    with pytest.raises(EvidenceRejected, match="step 2, platform"):
        judge(raw, [anchor | {"pkey": other["pkey"]}])
    parts = cbor2.loads(raw).value
    message = cbor2.loads(parts[44234]).value
    bad = [*message[:3], message[3][:-1] + bytes((message[3][-1] ^ 1,))]
    parts = {**parts, 44234: cbor2.dumps(cbor2.CBORTag(18, bad))}
    for _ in range(2):  # nor the second time
        with pytest.raises(EvidenceRejected, match="step 2, platform"):
            judge(cbor2.dumps(cbor2.CBORTag(399, parts)), WORLD.trust_anchors())


@pytest.mark.parametrize("state", [0x4000, 0x40FF, 0x5000, 0x50FF])
def test_platform_under_debugging_passes_where_that_is_allowed_and_is_not_affirming(state):
    raw = WORLD.token(platform={2395: state})
    with pytest.raises(EvidenceRejected, match=f"step 5.*secured platform.*got {state:#x}"):
        judge(raw, WORLD.trust_anchors())
    claims = judge(raw, WORLD.trust_anchors(), debug=True)
    assert claims.debug
    references = {
        name: ReferenceValue(name, (value,)) for name, value in claims.measured[0].items()
    }
    appraisal = appraise_claims(claims, references, now=NOW)
    assert appraisal.vector["executables"] == 3
    assert not appraisal.is_affirming


@pytest.mark.parametrize("state", [0x0000, 0x2000, 0x6000])
def test_platform_of_another_state_never_passes(state):
    with pytest.raises(EvidenceRejected, match="step 5, lifecycle"):
        judge(WORLD.token(platform={2395: state}), WORLD.trust_anchors(), debug=True)


@pytest.mark.parametrize(
    ("anchors", "piece"),
    [
        ({}, "expected a list, got an object"),
        ([7], "$.trust_anchors[0]"),
        ([{}], "instance-id: is missing"),
        ([WORLD.trust_anchors()[0] | {"more": 1}], "unknown member"),
        ([WORLD.trust_anchors()[0] | {"instance-id": "01"}], "expected 33 bytes in hex"),
        ([WORLD.trust_anchors()[0] | {"implementation-id": "zz" * 32}], "expected 32 bytes in hex"),
        (WORLD.trust_anchors() * 2, "trust_anchors[1].instance-id: is there twice"),
        ([WORLD.trust_anchors()[0] | {"pkey": {"kty": "EC", "crv": "P-384"}}], "is missing"),
        (
            [WORLD.trust_anchors()[0] | {"pkey": {"kty": "EC", "d": "AAAA"}}],
            "expected a public key, got a private one",
        ),
    ],
)
def test_trust_anchors_that_are_none_are_refused_at_the_start(anchors, piece):
    with pytest.raises(FormatError) as caught:
        load_verifier("cca", settings=View({"trust_anchors": anchors}, what="settings"))
    assert piece in str(caught.value)


def test_settings_and_roots_that_are_none_are_refused():
    with pytest.raises(FormatError, match="unknown member 'crl'"):
        load_verifier("cca", settings=View({"crl": "optional"}, what="settings"))
    with pytest.raises(FormatError, match="test root: expected a public key in PEM"):
        load_verifier("cca", roots=b"-----BEGIN NOTHING-----")
    key = {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}
    with pytest.raises(Unsupported, match="kty RSA or EC"):
        load_verifier(
            "cca",
            settings=View(
                {"trust_anchors": [WORLD.trust_anchors()[0] | {"pkey": key}]}, what="settings"
            ),
        )


def test_software_is_one_value_whatever_its_order_and_another_for_each_change():
    one, two, three = (Component(name, bytes(32), b"s" * 32, "1") for name in "abc")
    digests = {software_digest(order) for order in permutations((one, two, three))}
    assert len(digests) == 1
    others = [
        (one, two),
        (one, two, three, three),
        (one, two, Component("c", b"\1" + bytes(31), b"s" * 32, "1")),
        (one, two, Component("c", bytes(32), b"t" * 32, "1")),
        (one, two, Component("d", bytes(32), b"s" * 32, "1")),
    ]
    digests |= {software_digest(components) for components in others}
    assert len(digests) == 6
    # A version is a name that the measurement makes needless.
    same = software_digest((one, two, Component("c", bytes(32), b"s" * 32, "2")))
    assert same == software_digest((one, two, three))


@pytest.mark.parametrize("change", [{44239: [bytes(32)] * 3 + [b"m" * 32]}, {44238: b"m" * 32}])
def test_realm_that_differs_in_any_measurement_is_not_known(change):
    known = judge(WORLD.token(), WORLD.trust_anchors()).measured[0]
    references = {name: ReferenceValue(name, (value,)) for name, value in known.items()}
    claims = judge(WORLD.token(realm=change), WORLD.trust_anchors())
    assert not appraise_claims(claims, references, now=NOW).is_affirming


def test_platform_with_another_firmware_is_not_known():
    known = judge(WORLD.token(), WORLD.trust_anchors()).measured[0]
    references = {name: ReferenceValue(name, (value,)) for name, value in known.items()}
    good = judge(WORLD.token(), WORLD.trust_anchors())
    assert appraise_claims(good, references, now=NOW).is_affirming
    fewer = WORLD.platform_claims()[2399][:-1]
    claims = judge(WORLD.token(platform={2399: fewer}), WORLD.trust_anchors())
    assert not appraise_claims(claims, references, now=NOW).is_affirming


def test_evidence_is_a_token_or_json():
    raw = WORLD.token()
    assert parse({"token": [*raw]}).platform is parse_file(raw).platform
    assert read_evidence(raw, tee=None, what="f")[0] == "cca"
    document = json.dumps({"token": [*raw]}).encode()
    assert read_evidence(document, tee=None, what="f")[0] == "cca"
    for body in ({}, {"token": "AAAA"}, {"token": [256]}, {"token": [True]}, {"token": []}, 7):
        with pytest.raises(FormatError):
            parse(body)


REAL = {
    "legacy, ES384": ("trustee/cca-example-token.cbor", "trustee/tastore.json"),
    "legacy, of rust-ccatoken": ("rust-ccatoken/cca-token-01.cbor", "rust-ccatoken/ta-tfa.json"),
    "2023, ES256": ("veraison-services/cca-good.cbor", "rust-ccatoken/ta-02-ok.json"),
}


def real(token, anchors):
    raw = real_file(f"cca/{token}").read_bytes()
    return raw, json.loads(real_file(f"cca/{anchors}").read_bytes())


@pytest.mark.parametrize("name", REAL)
def test_real_token_is_genuine_and_nobodys(name):
    claims = judge(*real(*REAL[name]))
    assert not appraise_claims(claims, {}, now=NOW).is_affirming


@pytest.mark.parametrize("name", REAL)
def test_real_token_without_its_platforms_key_could_not_be_looked_at(name):
    raw, _ = real(*REAL[name])
    with pytest.raises(CouldNotVerify, match="step 1, trust anchor"):
        judge(raw, json.loads(real_file("cca/rust-ccatoken/ta.json").read_bytes()))


def swapped(realm):
    """The older token with the realm of another in it, judged for its own report data."""
    raw, anchors = real(*REAL["legacy, ES384"])
    parts = cbor2.loads(raw).value
    data = cbor2.loads(cbor2.loads(parts[44241]).value[2])[10]
    parts = {**parts, 44241: cbor2.loads(real(*REAL[realm])[0]).value[44241]}
    with pytest.raises(EvidenceRejected) as caught:
        judge(cbor2.dumps(cbor2.CBORTag(399, parts)), anchors, bound=Bound(data))
    return caught.value.step


def test_real_token_with_the_realm_of_another_is_refused():
    assert swapped("2023, ES256") == "3, binding"
    # The mutation `cca-swap`: both tokens are of one platform, whose manager signs with one key.
    # Either realm is genuine there; what it binds is another's.
    assert swapped("legacy, of rust-ccatoken") == "6, bound"


@pytest.mark.parametrize("name", REAL)
def test_real_token_with_any_byte_changed_is_refused(name):
    raw, anchors = real(*REAL[name])
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises((EvidenceRejected, CouldNotVerify, FormatError)):
            judge(bytes(changed), anchors)


def test_claims_have_the_names_that_others_give_them():
    theirs = json.loads(real_file("cca/trustee/cca-claims.json").read_bytes())
    ours = judge(WORLD.token(), WORLD.trust_anchors()).values
    for half in ("platform", "realm"):
        assert theirs[half].keys() - ours[half].keys() <= {"cca-platform-instance-id"}
