# SPDX-License-Identifier: Apache-2.0
"""Genuine is not one's own: the whole way of evidence of a real TEE, over HTTP."""

import asyncio
import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from imagers.broker.config import BrokerConfig
from imagers.broker.handshake import Handshake
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.policy.table import DEFAULT_POLICY
from imagers.broker.refusals import Refusal
from imagers.broker.releases import Asked, Credentials, Releases
from imagers.broker.resources import Resources
from imagers.broker.rules import POLICY
from imagers.broker.start import open_state
from imagers.broker.tokens import EVIDENCE
from imagers.errors import CouldNotVerify, EvidenceRejected, KeyRefused
from imagers.evidence.init_data import parse_init_data
from imagers.evidence.judge import judge_evidence
from imagers.evidence.plugins import load_attester, load_verifier
from imagers.kbs.admin import BrokerAdmin
from imagers.kbs.messages import (
    Attestation,
    InitData,
    Request,
    hash_report_data,
    parse_challenge,
)
from imagers.kbs.tee_key import ECKey
from imagers.kbs.tenants import TenantAdmin
from imagers.model.base64 import decode_base64url
from imagers.model.digest import digest_of
from imagers.model.evidence import Bound, Evidence
from imagers.model.keys import SecretKey
from imagers.model.references import ReferenceValue
from imagers.pki.jose import parse_token
from imagers.testing.broker import EmbeddedBroker
from imagers.testing.evidence import (
    AzureSNPWorld,
    AzureTDXWorld,
    CCAWorld,
    CSVWorld,
    NitroWorld,
    NVIDIAWorld,
    SGXWorld,
    SNPWorld,
    TDXWorld,
    TPMWorld,
)
from imagers.testing.evidence.csv import CLOSED, remask
from imagers.testing.evidence.guests import Guest
from imagers.testing.evidence.make import write_collateral
from tests.unit.broker.conftest import Now, Release, first_admin

URI = "kbs:///default/app/key"
IMAGE, OTHER = digest_of(b"a manifest"), digest_of(b"another")
NAME = "snp_launch_measurement"
OURS, THEIRS = b"o" * 48, b"t" * 48


@pytest.fixture(scope="module")
def world():
    return SNPWorld(b"g" * 32)


@pytest.fixture
def collateral(tmp_path):
    return tmp_path / "collateral"


@pytest.fixture
def broker(world, collateral):
    with EmbeddedBroker(
        worlds=[world], collateral_directory=collateral, allow_sample_tee=False
    ) as broker:
        broker.put(URI, b"the key", image=IMAGE)
        yield broker


@pytest.fixture
def ask(broker, world):
    """What a guest with this measurement gets for this image."""

    def get(measurement=OURS, image=IMAGE, **more):
        attester = world.attester(measurement=measurement, **more)
        with (
            broker.client(attester) as guest,
            guest.get(URI, manifest_digest=image) as key,
            key.view() as data,
        ):
            return bytes(data)

    return get


def refused(call, *arguments, **more):
    with pytest.raises(KeyRefused) as caught:
        call(*arguments, **more)
    return caught.value.reason


def test_guest_whose_measurement_is_a_reference_value_gets_the_key_of_its_image(broker, ask):
    broker.expect(NAME, OURS.hex())
    assert ask() == b"the key"
    assert "not bound to the image" in refused(ask, image=OTHER)
    attested = next(row for row in broker.log if row.event == "attest")
    assert (
        attested.detail == "evidence was accepted; appraised as affirming; under a root for tests"
    )


def test_guest_with_another_firmware_gets_nothing_though_its_chain_is_good(broker, ask):
    broker.expect(NAME, OURS.hex())
    reason = refused(ask, THEIRS)
    assert "PolicyDeny" in reason
    assert "rule 'bound-image' does not apply: this guest is not known" in reason
    row = next(row for row in broker.log if row.event == "release")
    assert (row.outcome, row.rule) == ("refused", "bound-image")
    assert f"{NAME}: expected {OURS.hex()} (from the test), got {THEIRS.hex()}" in row.detail
    assert f"reference-value set --add {NAME} {THEIRS.hex()}" in row.detail
    assert OURS.hex() not in reason


def test_guest_that_is_not_known_learns_nothing_of_images(broker, ask):
    broker.expect(NAME, OURS.hex())
    assert {refused(ask, THEIRS, image=one) for one in (IMAGE, OTHER, None)} == {
        refused(ask, THEIRS)
    }


def test_broker_without_a_reference_value_gives_nothing_and_says_which_is_missing(broker, ask):
    reason = refused(ask)
    assert "NoReferenceValue" in reason
    assert "this broker has no reference value for the TEE 'snp'" in reason
    row = next(row for row in broker.log if row.event == "release")
    assert f"{NAME}: expected a reference value, got {OURS.hex()}" in row.detail


def test_reference_value_that_has_expired_is_none(broker, ask):
    past = datetime.now(UTC) - timedelta(seconds=1)
    broker.admin.set_reference_values([ReferenceValue(NAME, (OURS.hex(),), past)])
    assert "PolicyDeny" in refused(ask)
    row = next(row for row in broker.log if row.event == "release")
    assert "the reference value expired at" in row.detail


def test_change_of_a_reference_value_is_in_force_for_sessions_that_are_open(broker, world):
    with broker.client(world.attester(measurement=OURS)) as guest:
        assert "NoReferenceValue" in refused(guest.get, URI, manifest_digest=IMAGE)
        broker.expect(NAME, OURS.hex())
        guest.get(URI, manifest_digest=IMAGE).close()
        broker.admin.delete_reference_value(NAME)
        assert "NoReferenceValue" in refused(guest.get, URI, manifest_digest=IMAGE)
    assert broker.handshakes == 1


def test_reference_value_of_another_claim_does_not_count(broker, ask):
    for name in ("mr_td", "launch_digest", "measurement", NAME + "2"):
        broker.expect(name, OURS.hex())
    assert "NoReferenceValue" in refused(ask)


@pytest.mark.parametrize("value", [OURS.hex().upper(), OURS.hex()[:-1], "", True, 1])
def test_reference_value_that_is_nearly_the_measurement_does_not_count(broker, ask, value):
    broker.expect(NAME, value)
    assert "PolicyDeny" in refused(ask)


def test_firmware_that_has_reference_values_must_equal_one(broker, ask, world):
    broker.expect(NAME, OURS.hex())
    broker.expect("snp_snp_svn", world.tcb.snp + 1)
    assert "PolicyDeny" in refused(ask)
    broker.expect("snp_snp_svn", world.tcb.snp)
    assert ask() == b"the key"
    broker.expect("snp_smt_enabled", True)
    assert "PolicyDeny" in refused(ask)


def test_rejected_evidence_tells_the_guest_the_step_and_the_owner_the_rest(broker, ask):
    broker.expect(NAME, OURS.hex())
    with pytest.raises(EvidenceRejected, match="the evidence is rejected: step 7, guest") as caught:
        ask(policy=0x30000 | 1 << 19)
    assert "debugging" not in str(caught.value)
    row = next(row for row in broker.log if row.event == "attest")
    assert (row.outcome, "debugging: expected forbidden" in row.detail) == ("refused", True)


def test_collateral_that_is_missing_is_could_not_look(broker, ask, collateral):
    broker.expect(NAME, OURS.hex())
    Path(collateral, "snp/Genoa/vcek.crl").unlink()
    with pytest.raises(CouldNotVerify, match="step 3, revocation"):
        ask()
    row = next(row for row in broker.log if row.event == "attest")
    assert "there is no list of revoked certificates of Genoa" in row.detail


def test_collateral_that_is_older_than_one_before_is_refused(broker, ask, collateral, world):
    broker.expect(NAME, OURS.hex())
    path = Path(collateral, "snp/Genoa/vcek.crl")
    older = world.crl(number=0)
    assert ask() == b"the key"
    path.write_bytes(older)
    with pytest.raises(CouldNotVerify):
        ask()
    row = next(row for row in broker.log[::-1] if row.event == "attest")
    assert "as was seen before" in row.detail


def test_token_has_the_claims_of_all_tees_and_says_that_the_root_is_for_tests(broker, world):
    import base64

    broker.expect(NAME, OURS.hex())
    with broker.client(world.attester(measurement=OURS)) as guest:
        guest.get(URI, manifest_digest=IMAGE).close()
        token = guest._session.headers["Authorization"].split()[1]
    payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert payload["imagers.test-root"] is True
    submod = payload["submods"]["cpu0"]
    assert submod["ear.status"] == "affirming"
    assert submod["ear.trustworthiness-vector"] == {
        "instance-identity": 0,
        "configuration": 3,
        "executables": 3,
        "file-system": 0,
        "hardware": 2,
        "runtime-opaque": 0,
        "storage-opaque": 0,
        "sourced-data": 0,
    }
    assert submod["imagers.claims"]["measured"] == [{NAME: OURS.hex()}]
    assert submod["ear.veraison.annotated-evidence"]["snp"]["measurement"] == OURS.hex()
    assert world.chip_id.hex()[:16] not in json.dumps(payload)


def set_rule(broker, **changes):
    rule = json.loads(DEFAULT_POLICY)["rules"][0] | changes
    del rule["trust"]
    broker.admin.set_policy(json.dumps({"rules": [rule]}))


def test_rule_without_trust_takes_any_genuine_guest_where_no_name_counts(broker, ask):
    set_rule(broker, image="any")
    assert ask(THEIRS) == b"the key"
    assert ask(THEIRS, image=OTHER) == b"the key"
    broker.expect(NAME, OURS.hex())
    set_rule(broker)
    assert "this guest is not known" in refused(ask, THEIRS)
    assert ask(OURS) == b"the key"


def test_what_image_an_unknown_guest_names_is_nobodys_word(broker, ask):
    """It could be running the revoked one, whatever it says."""
    broker.expect(NAME, OURS.hex())
    broker.admin.bind_manifest(URI, OTHER)
    set_rule(broker, image="any")
    broker.admin.revoke_image("default", IMAGE, reason="CVE-2026-1")
    assert ask(OURS, image=OTHER) == b"the key"
    for image in (IMAGE, OTHER):
        reason = refused(ask, THEIRS, image=image)
        assert "for guests that are known, and name one of its images" in reason
        assert "revoked" not in reason
    assert f"the image {IMAGE} is revoked" in refused(ask, OURS)
    for one in broker.admin.audit(3, {"event": "release"}):
        assert (one.outcome, "CVE-2026-1" in one.detail) == ("refused", True)


def test_real_roots_take_nothing_of_tests(world, collateral):
    write_collateral(world.collateral(), collateral)
    with EmbeddedBroker(
        tees=("snp",), collateral_directory=collateral, allow_sample_tee=False
    ) as broker:
        broker.expect(NAME, OURS.hex())
        with (
            broker.client(world.attester(measurement=OURS)) as guest,
            pytest.raises(EvidenceRejected, match="step 2, chain"),
        ):
            guest.get(URI, manifest_digest=IMAGE)


WORLDS = [
    AzureSNPWorld,
    AzureTDXWorld,
    CCAWorld,
    CSVWorld,
    NitroWorld,
    SGXWorld,
    SNPWorld,
    TDXWorld,
    TPMWorld,
]
WITH_INIT_DATA = [one for one in WORLDS if one not in (CSVWorld, NitroWorld)]
WITH_ROOTS = [one for one in WORLDS if one is not TPMWorld]


@pytest.fixture(scope="module")
def any_world(request):
    return request.param(b"a" * 32)


def of(worlds):
    """The test is for guests of each of these."""
    return pytest.mark.parametrize("any_world", worlds, indirect=True, ids=lambda one: one.tee)


def measured(world, **fields):
    """The claims by which a guest of the world is known."""
    read = world.collateral().get
    verifier = load_verifier(world.tee, roots=world.roots)
    claims = judge_evidence(
        verifier, world.evidence(**fields), bound=Bound(), read=read, now=world.now
    )
    return claims.measured[0]


@of(WORLDS)
def test_guest_of_each_tee_gets_the_key_if_and_only_if_it_is_known(any_world):
    known = measured(any_world)
    # A key of a TPM that nobody knows is anybody's: there is no session for it.
    is_tpm = any_world.tee == "tpm"
    unknown, denied = ("step measure",) * 2 if is_tpm else ("NoReferenceValue", "PolicyDeny")
    with EmbeddedBroker(worlds=[any_world], allow_sample_tee=False) as broker:
        broker.put(URI, b"the key", image=IMAGE)

        def ask(**more):
            with broker.client(any_world.attester(**more)) as guest:
                guest.get(URI, manifest_digest=IMAGE).close()

        def no(**more):
            if not is_tpm:
                return refused(ask, **more)
            with pytest.raises(EvidenceRejected) as caught:
                ask(**more)
            return str(caught.value)

        assert unknown in no()
        for name, value in known.items():
            broker.expect(name, value)
        ask()
        size = len(any_world.measurement)
        assert denied in no(measurement=b"\1" * size)
        for name in known:
            broker.admin.delete_reference_value(name)
            assert unknown in no()
            broker.expect(name, "00")
            assert denied in no()
            broker.expect(name, known[name])
        ask()


@of([one for one in WORLDS if one.tee == "tpm"])
def test_evidence_that_counts_for_one_tenant_counts_for_no_other(any_world, tmp_path):
    """Its handshake is for no tenant yet; each release asks who owns the secret."""
    known, uris = measured(any_world), [f"kbs:///of-{name}/app/key" for name in "ab"]
    with EmbeddedBroker(worlds=[any_world], allow_sample_tee=False) as broker, ExitStack() as stack:
        tenants, clients = TenantAdmin(broker.admin), []
        for name, uri in zip("ab", uris, strict=True):
            key = Ed25519PrivateKey.generate()
            path = tmp_path / f"{name}.key"
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            tenants.add(name)
            tenants.assign(name, f"of-{name}")
            tenants.add_key(name, ["owner"], key.public_key(), tenant=name)
            clients.append(stack.enter_context(BrokerAdmin(broker.url, key_file=path)))
            with SecretKey(name.encode()) as secret:
                clients[-1].put_resource(uri, secret)
            clients[-1].bind_manifest(uri, IMAGE)
        guest = stack.enter_context(broker.client(any_world.attester()))
        with pytest.raises(EvidenceRejected, match="step measure"):
            guest.get(uris[0], manifest_digest=IMAGE)
        references = [ReferenceValue(name, (value,)) for name, value in known.items()]
        clients[1].set_reference_values(references)
        guest.get(uris[1], manifest_digest=IMAGE).close()
        assert "step measure" in refused(guest.get, uris[0], manifest_digest=IMAGE)


FOR_INIT_DATA = b"""package policy

import rego.v1

default allow := false

allow if input.imagers.init_data.a == "b"
"""


def seen_init_data(answer):
    token = parse_token(json.loads(answer.body)["token"], what="token")
    submods = json.loads(token.payload)["submods"]
    return submods["cpu0"][EVIDENCE].get("init_data_claims")


@of(WITH_INIT_DATA)
def test_init_data_of_each_tee_has_to_be_what_the_evidence_binds(any_world):
    document = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"a" = "b"\n'
    digest = parse_init_data(document.encode()).digest
    key = ECKey()

    def attest(broker, bound, sent):
        handshake = Now(Handshake(broker))
        opened = handshake.auth(Request.offering_hashes(any_world.tee).to_bytes())
        nonce = parse_challenge(opened.body).nonce
        report_data = hash_report_data(nonce=nonce, tee_pubkey=key.public)
        evidence = any_world.attester(init_data=bound).collect(report_data)
        message = Attestation(
            nonce=nonce,
            tee_pubkey=key.public,
            primary_evidence=evidence.body,
            init_data=None if sent is None else InitData("toml", sent),
        )
        return handshake.attest(opened.cookie, message.to_bytes())

    with EmbeddedBroker(worlds=[any_world], allow_sample_tee=False) as running:
        config = BrokerConfig(
            state_directory=running.state_directory.parent / "other",
            tees=(any_world.tee,),
            test_roots={any_world.tee: any_world.roots} if any_world.roots else {},
            collateral_directory=running.state_directory.parent / "collateral",
        )
        with open_state(config) as state:
            with state.store.transaction() as transaction:
                for name, value in measured(any_world, init_data=digest).items():
                    transaction.set_reference_value(DEFAULT_TENANT, ReferenceValue(name, (value,)))
            assert seen_init_data(attest(state, digest, document)) == {"a": "b"}
            assert seen_init_data(attest(state, digest, None)) is None
            with state.store.transaction() as transaction:
                transaction.set_policy(DEFAULT_TENANT, POLICY, FOR_INIT_DATA)
            with SecretKey(b"secret") as secret:
                admin = first_admin(state)
                Now(Resources(state), admin).put("default/key/1", secret, replace=False)
            told = Credentials(cookie=attest(state, digest, document).cookie)
            silent = Credentials(cookie=attest(state, digest, None).cookie)

            async def ask():
                releases = Releases(state)
                try:
                    await releases.release(told, Asked(("default/key/1",)))
                    with pytest.raises(Refusal, match="no rule allows it"):
                        await releases.release(silent, Asked(("default/key/1",)))
                finally:
                    await state.engine.close()

            asyncio.run(ask())
            for bound, sent in ((digest, document + "#"), (b"", document), (b"x" * 32, document)):
                with pytest.raises(Refusal, match=r"step \d+, bound") as caught:
                    attest(state, bound, sent)
                assert "init data" in caught.value.told


@of(WITH_ROOTS)
def test_session_under_a_root_for_tests_ends_with_that_root(any_world, tmp_path):
    """A broker that is started again without the option believes nobody whom it was for."""
    state = tmp_path / "state"
    with EmbeddedBroker(
        worlds=[any_world], state_directory=state, allow_sample_tee=False
    ) as broker:
        broker.put(URI, b"the key", image=IMAGE)
        for name, value in measured(any_world).items():
            broker.expect(name, value)
        guest = broker.client(any_world.attester())
        guest.get(URI, manifest_digest=IMAGE).close()
        token = guest._session.headers["Authorization"].split()[1]
        cookie = guest._session.headers["Cookie"].partition("=")[2]
        guest.close()
    config = BrokerConfig(state_directory=state, tees=(any_world.tee,))
    with open_state(config) as again:
        release, path = Release(again), URI.removeprefix("kbs:///")
        for credentials in (Credentials(bearer=token), Credentials(cookie=cookie)):
            with pytest.raises(Refusal, match="accepted under other roots or settings") as caught:
                release(credentials, path, [str(IMAGE)])
            assert caught.value.status == 401


@pytest.mark.parametrize("damaged", [b"", b"garbage", b"\x30\x82\xff\xff"])
def test_document_of_the_broker_that_is_damaged_is_could_not_look(broker, ask, collateral, damaged):
    broker.expect(NAME, OURS.hex())
    Path(collateral, "snp/Genoa/vcek.crl").write_bytes(damaged)
    with pytest.raises(CouldNotVerify, match="this broker cannot look at the evidence"):
        ask()
    row = next(row for row in broker.log if row.event == "attest")
    assert row.detail.startswith("a document is damaged: list of revoked certificates of Genoa")


@of([SNPWorld, TDXWorld, SGXWorld])
def test_session_that_an_appraisal_policy_let_pass_ends_with_that_policy(any_world, tmp_path):
    """A broker that is started again with other settings believes nobody by the former ones."""
    state, policy = tmp_path / "state", tmp_path / "policy.json"
    with EmbeddedBroker(
        worlds=[any_world], state_directory=state, allow_sample_tee=False
    ) as broker:
        broker.put(URI, b"the key", image=IMAGE)
        for name, value in measured(any_world).items():
            broker.expect(name, value)
        guest = broker.client(any_world.attester())
        guest.get(URI, manifest_digest=IMAGE).close()
        token = guest._session.headers["Authorization"].split()[1]
        guest.close()

    def ask(settings):
        policy.write_text(json.dumps({"tees": settings}))
        config = BrokerConfig(
            state_directory=state,
            tees=(any_world.tee,),
            appraisal_policy_file=policy,
            test_roots={any_world.tee: any_world.roots},
        )
        with open_state(config) as again:
            path = URI.removeprefix("kbs:///")
            Release(again)(Credentials(bearer=token), path, [str(IMAGE)])

    ask({})
    for settings in ({"crl": "optional"}, {"debug": True}):
        with pytest.raises(Refusal, match="accepted under other roots or settings") as caught:
            ask({any_world.tee: settings})
        assert caught.value.status == 401
    ask({any_world.tee: {}})


def test_key_for_guests_with_a_device_goes_to_those_that_show_one(world):
    rule = {"name": "gpu", "effect": "allow", "resource": "*/*/*", "image": "any"}
    device = load_attester("sampledevice")
    with EmbeddedBroker(worlds=[world], allow_sample_tee=True) as broker:
        broker.put(URI, b"the key")
        broker.expect(NAME, OURS.hex())
        rule |= {"devices": ["sampledevice"], "trust": "affirming"}
        broker.admin.set_policy(json.dumps({"rules": [rule]}))

        def ask(measurement=OURS, devices=(device,)):
            attester = world.attester(measurement=measurement)
            with (
                broker.client(attester, devices=devices) as guest,
                guest.get(URI, manifest_digest=None) as key,
                key.view() as data,
            ):
                return bytes(data)

        assert ask() == b"the key"
        assert "no evidence of a device 'sampledevice'" in refused(ask, devices=())
        assert "not known as one of the operator's" in refused(ask, measurement=THEIRS)


def test_device_that_no_reference_value_knows_makes_its_guest_one_that_is_not_known(
    world, monkeypatch
):
    """What a guest shows counts, also where no rule asks for it."""
    monkeypatch.setattr("imagers.broker.releases.SAMPLES", ())
    with EmbeddedBroker(worlds=[world], allow_sample_tee=True) as broker:
        broker.put(URI, b"the key", image=IMAGE)
        broker.expect(NAME, OURS.hex())
        attester = world.attester(measurement=OURS)
        with broker.client(attester) as guest, guest.get(URI, manifest_digest=IMAGE):
            pass
        devices = [load_attester("sampledevice")]
        with broker.client(attester, devices=devices) as guest:
            reason = refused(guest.get, URI, manifest_digest=IMAGE)
        assert "no reference value for the TEE 'sampledevice'" in reason


class Remasked:
    """A guest under debugging, whose owner changes its report so that it says that it is closed."""

    tee = "csv"

    def __init__(self, world):
        self.world = world

    def collect(self, report_data):
        pattern = b"\x01\0\0\0"
        wanted = report_data.digest.ljust(64, b"\0")
        asked = bytes(one ^ other for one, other in zip(wanted, pattern * 16, strict=True))
        raw = self.world.report(version=1, policy=CLOSED ^ 1, report_data=asked)
        return Evidence("csv", self.world.body(remask(raw, pattern)), report_data)


def test_report_that_counts_with_its_measurement_alone_opens_nothing_without(tmp_path):
    """Also where a rule takes any genuine guest: nobody knows whether it is one."""
    hygon = CSVWorld(b"g" * 32)
    rule = {"name": "any", "effect": "allow", "resource": "*/*/*", "image": "any"}
    with EmbeddedBroker(
        worlds=[hygon], collateral_directory=tmp_path / "collateral", allow_sample_tee=False
    ) as broker:
        broker.put(URI, b"the key")
        broker.admin.set_policy(json.dumps({"rules": [rule]}))

        def ask(attester):
            with broker.client(attester) as guest, guest.get(URI, manifest_digest=None) as key:
                return len(key)

        own, newer = (Guest(hygon, fields={"version": one}) for one in (1, 2))
        assert ask(newer) == 7
        for attester in (own, Remasked(hygon)):
            with pytest.raises(EvidenceRejected, match="the evidence is rejected: step measure"):
                ask(attester)
        broker.expect("csv_v1_measure", hygon.measurement.hex())
        assert ask(own) == 7
        with pytest.raises(EvidenceRejected, match="the evidence is rejected: step measure"):
            ask(Remasked(hygon))
        told = [row.detail for row in broker.log if row.outcome == "refused"]
        assert all("this evidence counts only where its measurement equals" in one for one in told)


def test_key_of_a_tpm_that_nobody_named_opens_nothing_under_any_rule():
    """Anybody has one: a quote proves nothing but that its key signed it."""
    machine = TPMWorld(b"m" * 32)
    rule = {"name": "any", "effect": "allow", "resource": "*/*/*", "image": "any"}
    with EmbeddedBroker(worlds=[machine], allow_sample_tee=False) as broker:
        broker.put(URI, b"the key")
        broker.admin.set_policy(json.dumps({"rules": [rule]}))
        for name, value in measured(machine).items():
            broker.expect(name, value)
        with broker.client(machine.attester()) as guest:
            guest.get(URI, manifest_digest=None).close()
        # Nor does one count that is named no more, in a session of before.
        with broker.client(machine.attester()) as guest:
            guest.get(URI, manifest_digest=None).close()
            broker.admin.delete_reference_value("trusted_aks")
            with pytest.raises((EvidenceRejected, KeyRefused), match="step measure"):
                guest.get(URI, manifest_digest=None)
        broker.expect("trusted_aks", machine.trusted_ak)
        stranger = TPMWorld(b"s" * 32)
        same = stranger.attester(measurement=machine.measurement)
        with (
            broker.client(same) as guest,
            pytest.raises(EvidenceRejected, match="the evidence is rejected: step measure"),
        ):
            guest.get(URI, manifest_digest=None)
        refusal = next(row for row in broker.log if row.outcome == "refused")
        assert "trusted_aks: expected" in refusal.detail


def test_guest_with_a_gpu_gets_the_key_if_machine_and_gpu_are_known(world):
    """The whole way of composite evidence, over HTTP."""
    gpu = NVIDIAWorld(b"g" * 32)
    other = NVIDIAWorld(b"h" * 32)
    with EmbeddedBroker(worlds=[world, gpu], allow_sample_tee=False) as broker:
        broker.put(URI, b"the key", image=IMAGE)
        broker.expect(NAME, OURS.hex())
        machine = world.attester(measurement=OURS)

        def ask(*devices, measurement=OURS):
            attester = world.attester(measurement=measurement)
            with (
                broker.client(attester, devices=devices) as guest,
                guest.get(URI, manifest_digest=IMAGE) as key,
                key.view() as data,
            ):
                return bytes(data)

        assert "no reference value for the TEE 'nvidia'" in refused(ask, Guest(gpu))
        (way, *_) = claims_of(gpu).measured
        broker.expect("nvidia_measurements", way["nvidia_measurements"])
        assert ask(Guest(gpu)) == b"the key"
        assert ask() == b"the key"  # no rule asks for one
        assert "not known" in refused(ask, Guest(gpu), measurement=THEIRS)
        changed = Guest(gpu, measurement=b"\1" * 48)
        assert "not known" in refused(ask, changed)
        with pytest.raises(EvidenceRejected, match="rejects the evidence"):
            ask(Guest(other))  # of another root
        assert "step 1, chain" in broker.log[-1].detail
        token = token_of(broker, machine, [Guest(gpu)])
        assert [one["ear.status"] for one in token["submods"].values()] == ["affirming"] * 2


def claims_of(world):
    verifier = load_verifier(world.tee, roots=world.roots)
    read = world.collateral().get
    return judge_evidence(verifier, world.evidence(), bound=Bound(), read=read, now=world.now)


def token_of(broker, attester, devices):
    """The payload of the token that a guest gets."""
    with broker.client(attester, devices=devices) as guest:
        session, _ = guest._current(stale=None)
    bearer = session.headers["Authorization"]
    return json.loads(decode_base64url(bearer.split(".")[1], what="token"))
