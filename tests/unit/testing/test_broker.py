# SPDX-License-Identifier: Apache-2.0
from datetime import timedelta

import pytest

from imagers.errors import AttestationError, KeyRefused, PluginNotFound, RateLimited, RemoteError
from imagers.evidence.tpm.quote import BOOT_CHAIN
from imagers.model.base64 import encode_base64
from imagers.model.digest import digest_of
from imagers.net.http import HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.testing.broker import EmbeddedBroker
from imagers.testing.evidence import SGXWorld, SNPWorld, TDXWorld, TPMWorld
from imagers.testing.evidence.eventlog import BOOT, replay
from imagers.testing.evidence.tpm import PCR_BOOT, registers

URI, IMAGE = "kbs:///default/key/1", digest_of(b"image")


def read(client):
    with client.get(URI, manifest_digest=IMAGE) as secret, secret.view() as data:
        return bytes(data)


def test_embedded_broker_gives_and_counts():
    with EmbeddedBroker() as broker:
        broker.put(URI, b"secret", image=IMAGE)
        with broker.client() as client:
            assert [read(client), read(client)] == [b"secret"] * 2
        assert (broker.handshakes, broker.releases, broker.refusals) == (1, 2, 0)


def test_embedded_broker_can_be_told_to_deny():
    with EmbeddedBroker() as broker:
        broker.put(URI, b"secret", image=IMAGE)
        broker.deny()
        with broker.client() as client:
            with pytest.raises(KeyRefused):
                read(client)
            broker.allow_bound()
            assert read(client) == b"secret"
        assert (broker.handshakes, broker.releases, broker.refusals) == (1, 1, 1)


def test_embedded_broker_clock_can_be_moved():
    with EmbeddedBroker(session_lifetime=timedelta(minutes=1)) as broker:
        broker.put(URI, b"secret", image=IMAGE)
        with broker.client() as client:
            read(client)
            with broker.clock_moved(timedelta(minutes=2)):
                read(client)
        assert broker.handshakes == 2


def test_embedded_broker_without_sample_tee_takes_no_evidence():
    from imagers.errors import AttestationError

    with EmbeddedBroker(allow_sample_tee=False) as broker, broker.client() as client:
        with pytest.raises(AttestationError, match="--allow-sample-tee"):
            read(client)
        assert broker.handshakes == 0


def test_embedded_broker_limit_on_sessions_reaches_the_client():
    with EmbeddedBroker(max_sessions=1) as broker:
        from imagers.kbs.client import BrokerClient

        once = HTTPSettings(retry=RetryPolicy(attempts=1))
        with (
            broker.client() as one,
            BrokerClient(broker.url, attester=broker.attester, http=once) as two,
        ):
            one._current(stale=None)
            with pytest.raises(RateLimited) as caught:
                read(two)
            assert caught.value.temporary


def test_embedded_broker_keeps_a_given_state_and_removes_its_own(tmp_path):
    with EmbeddedBroker(state_directory=tmp_path / "state") as broker:
        broker.put(URI, b"secret")
    with EmbeddedBroker(state_directory=tmp_path / "state") as broker:
        assert broker.admin.list_resources() == (URI,)
    with EmbeddedBroker() as broker:
        own = broker.state_directory
        assert own.exists()
    assert not own.exists()
    assert not own.parent.exists()


def test_embedded_broker_that_is_stopped_says_so():
    broker = EmbeddedBroker()
    for ask in (lambda: broker.url, lambda: broker.admin, lambda: broker.handshakes):
        with pytest.raises(RuntimeError, match="not running"):
            ask()
    with broker:
        url = broker.url
        assert url.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError):
        assert broker.url


def test_embedded_broker_failed_start_leaves_no_folder(tmp_path, monkeypatch):
    import tempfile

    from imagers.broker import start

    def missing(name, **_):
        raise PluginNotFound("not installed", name=name)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(start, "load_verifier", missing)
    with pytest.raises(PluginNotFound), EmbeddedBroker():
        pass
    assert list(tmp_path.iterdir()) == []


def test_embedded_broker_put_twice_is_the_brokers_own_refusal():
    with EmbeddedBroker() as broker:
        broker.put(URI, b"one")
        with pytest.raises(RemoteError):
            broker.put(URI, b"two")


def known_as(world):
    """What an operator knows a guest of the world by."""
    if world.tee == "tdx":
        rtmrs = replay(BOOT)
        return {"mr_td": world.measurement, "rtmr_1": rtmrs[1], "rtmr_2": rtmrs[2]}
    if world.tee == "tpm":
        values = registers(PCR_BOOT, {11: world.measurement})
        known = {f"tpm_pcr{at:02}": values[at] for at in BOOT_CHAIN}
        return {"trusted_aks": world.ak_public} | known
    name = {"snp": "snp_launch_measurement", "sgx": "sgx_mr_enclave"}[world.tee]
    return {name: world.measurement}


def test_embedded_broker_takes_the_machines_of_its_worlds_and_knows_them_by_measurement():
    worlds = [kind(bytes(32)) for kind in (SNPWorld, TDXWorld, SGXWorld, TPMWorld)]
    with EmbeddedBroker(worlds=worlds, allow_sample_tee=False) as broker:
        broker.put(URI, b"secret", image=IMAGE)
        for world in worlds:
            for name, value in known_as(world).items():
                text = encode_base64(value) if name == "trusted_aks" else value.hex()
                broker.expect(name, text)
            with broker.client(world.attester()) as client:
                assert read(client) == b"secret"
            other = b"\1" * len(world.measurement)
            stranger = world.attester(measurement=other)
            # Of a TPM nothing is believed before, and there is no handshake.
            refusal = AttestationError if world.tee == "tpm" else KeyRefused
            with broker.client(stranger) as client, pytest.raises(refusal):
                read(client)
        assert (broker.handshakes, broker.releases, broker.refusals) == (7, 4, 3)


def test_embedded_broker_gives_no_session_for_a_key_that_somebody_made_up():
    """Whoever could have as many as he makes keys would leave none for others."""
    world, other = (TPMWorld(bytes((at,)) * 32, "p256") for at in (0, 1))
    with EmbeddedBroker(worlds=[world], allow_sample_tee=False) as broker:
        for name, value in known_as(world).items():
            text = encode_base64(value) if name == "trusted_aks" else value.hex()
            broker.expect(name, text)
        attester = other.attester(measurement=world.measurement)
        with broker.client(attester) as client, pytest.raises(AttestationError):
            read(client)
        assert broker.handshakes == 0


def test_embedded_broker_refuses_machines_of_another_seed():
    with EmbeddedBroker(worlds=[SNPWorld(bytes(32))], allow_sample_tee=False) as broker:
        attester = SNPWorld(b"\1" * 32).attester()
        with broker.client(attester) as client, pytest.raises(AttestationError):
            read(client)
        assert broker.handshakes == 0
