# SPDX-License-Identifier: Apache-2.0
import asyncio
import http.client
import logging
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from imagers.broker import server
from imagers.broker.handshake import Handshake
from imagers.broker.places import Limits
from imagers.broker.policy.table import DEFAULT_POLICY
from imagers.broker.resources import Resources
from imagers.broker.server import BrokerConfig, running
from imagers.errors import KeyUnavailable, LocalError, RemoteError, Unauthorized, UsageError
from imagers.evidence.plugins import load_attester
from imagers.kbs.admin import BrokerAdmin, load_admin_key
from imagers.kbs.client import BrokerClient
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.net.http import HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.pki.jose import sign_token
from tests.unit.broker.conftest import change_as_a_broker

URI, PATH, IMAGE = "kbs:///default/key/1", "/kbs/v0/resource/default/key/1", digest_of(b"image")
PROGRAM = """
import sys
from pathlib import Path
from imagers.broker.server import BrokerConfig, serve

config = BrokerConfig(state_directory=Path(sys.argv[1]), port=0)
serve(config, on_start=lambda broker: print(broker.url, flush=True))
print("stopped", flush=True)
"""


def get(url, **more):
    with urllib.request.urlopen(url, timeout=10, **more) as answer:
        return answer.status


def test_running_tells_where_it_listens_and_what_it_made(tmp_path):
    config = BrokerConfig(state_directory=tmp_path / "state", port=0)
    with running(config) as broker:
        assert get(f"{broker.url}/healthz") == 200
        assert broker.url.startswith("http://127.0.0.1:")
        assert (broker.admin_key_made, broker.master_key_made) == (True, True)
        assert broker.admin_key_file == tmp_path / "state" / "admin.key"
        assert (broker.tees, broker.resources) == ((), 0)
        assert broker.fault == "it takes evidence of no TEE"
    with running(config) as again:
        assert (again.admin_key_made, again.master_key_made) == (False, False)


def test_running_with_a_damaged_policy_says_so_and_takes_another(tmp_path):
    """Nothing is released, and an admin can put it right."""
    config = BrokerConfig(
        state_directory=tmp_path / "state", port=0, tees=("sample",), allow_sample_tee=True
    )
    with running(config) as broker:
        assert broker.fault == ""
    change_as_a_broker(tmp_path / "state", lambda t: t.set_policy("default", "policy", b"{"))
    with running(config) as broker:
        assert "the stored policy is damaged" in broker.fault
        with BrokerAdmin(broker.url, key_file=broker.admin_key_file) as admin:
            admin.set_policy(DEFAULT_POLICY)
    with running(config) as broker:
        assert broker.fault == ""


def test_running_leaves_no_thread_and_no_listener(tmp_path):
    before = threading.active_count()
    with running(BrokerConfig(state_directory=tmp_path / "state", port=0)) as broker:
        get(f"{broker.url}/healthz")
        port = int(broker.url.rpartition(":")[2])
    assert threading.active_count() <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_running_stops_when_the_block_raises(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        running(BrokerConfig(state_directory=tmp_path / "state", port=0)) as broker,
    ):
        raise ZeroDivisionError
    port = int(broker.url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


class Told(logging.Handler):
    """Lets somebody wait for a line of a log."""

    def __init__(self, piece):
        super().__init__()
        self._piece = piece
        self.is_told = threading.Event()

    def emit(self, record):
        if self._piece in record.getMessage():
            self.is_told.set()


def test_connection_for_which_no_descriptor_is_left_is_accepted_later(tmp_path):
    told, (soft, hard) = Told("cannot accept"), resource.getrlimit(resource.RLIMIT_NOFILE)
    log = logging.getLogger("uvicorn.error")
    log.addHandler(told)
    with running(BrokerConfig(state_directory=tmp_path / "state", port=0)) as broker:
        parts = urlsplit(broker.url)
        with socket.socket() as client:
            client.settimeout(30)
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # no new one
                client.connect((parts.hostname, parts.port))
                assert told.is_told.wait(30)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                log.removeHandler(told)
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_session_outlives_its_broker(tmp_path):
    """No state that matters is in a process: a session of one is good at the next."""
    from imagers.evidence.plugins import load_attester
    from imagers.kbs.client import BrokerClient
    from imagers.model.keys import SecretKey

    config = BrokerConfig(state_directory=tmp_path / "state", port=0, allow_sample_tee=True)
    uri, image = "kbs:///default/key/1", digest_of(b"image")
    with (
        running(config) as one,
        BrokerAdmin(one.url, key_file=one.admin_key_file) as admin,
        BrokerClient(one.url, attester=load_attester("sample")) as first,
    ):
        admin.put_resource(uri, SecretKey(b"secret"))
        admin.bind_manifest(uri, image)
        session, _ = first._current(stale=None)
    with (
        running(config) as other,
        BrokerAdmin(other.url, key_file=other.admin_key_file) as admin,
        BrokerClient(other.url, attester=load_attester("sample")) as second,
    ):
        second._session = session
        with second.get(uri, manifest_digest=image) as secret:
            assert len(secret) == 6
        events = [row.event for row in admin.audit()]
        assert events.count("attest") == 1


def test_second_broker_on_a_state_directory_is_refused(tmp_path):
    config = BrokerConfig(state_directory=tmp_path / "state", port=0)
    with running(config) as first:
        with pytest.raises(LocalError, match="another broker runs on this") as caught:  # noqa: SIM117
            with running(config):
                pass
        assert caught.value.path == str(tmp_path / "state")
        assert "--state" in caught.value.hint
        assert get(f"{first.url}/healthz") == 200
    with running(config):
        pass


def test_state_of_a_killed_broker_is_free(tmp_path):
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "state")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("http://")
        process.kill()
    with running(BrokerConfig(state_directory=tmp_path / "state", port=0)):
        pass


NOTHING = "its policy allows nothing to guests of these TEEs and devices"


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (None, ""),
        ('{"rules": []}', NOTHING),
        (
            (
                '{"rules": [{"name": "a", "effect": "allow", "resource": "*/*/*", '
                '"image": "any", "tee": ["tdx"]}]}'
            ),
            NOTHING,
        ),
        (
            (
                '{"rules": [{"name": "a", "effect": "allow", "resource": "*/*/*", '
                '"image": "any", "devices": ["sampledevice", "nvidia"]}]}'
            ),
            NOTHING,
        ),
        (
            (
                '{"rules": [{"name": "a", "effect": "allow", "resource": "*/*/*", '
                '"image": "any", "devices": ["sampledevice"]}]}'
            ),
            "",
        ),
    ],
    ids=["the default", "no rule", "another TEE", "another device", "a device that is taken"],
)
def test_broker_that_can_release_nothing_says_so(tmp_path, policy, fault):
    if policy is not None:
        (tmp_path / "policy.json").write_text(policy)
    config = BrokerConfig(
        state_directory=tmp_path / "state",
        port=0,
        allow_sample_tee=True,
        policy_file=tmp_path / "policy.json" if policy else None,
    )
    with running(config) as broker:
        assert (broker.tees, broker.fault) == (("sample", "sampledevice"), fault)


def test_broker_that_takes_devices_alone_can_release_nothing(tmp_path):
    config = BrokerConfig(state_directory=tmp_path / "state", port=0, tees=("nvidia",))
    with running(config) as broker:
        expected = "it takes evidence of devices, and of no TEE beside which they count"
        assert (broker.tees, broker.fault) == (("nvidia",), expected)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "broker.example"])  # noqa: S104
def test_plain_http_on_another_address_refused_before_anything_is_made(tmp_path, host):
    config = BrokerConfig(state_directory=tmp_path / "state", host=host)
    with pytest.raises(UsageError, match="expected a certificate") as caught, running(config):
        pass
    assert host in str(caught.value)
    assert not (tmp_path / "state").exists()


def test_plain_http_on_another_address_runs_when_told_so(tmp_path):
    config = BrokerConfig(
        state_directory=tmp_path / "state",
        host="0.0.0.0",  # noqa: S104
        port=0,
        unsafe_plain_http=True,
    )
    with running(config) as broker:
        assert get(broker.url.replace("0.0.0.0", "127.0.0.1") + "/healthz") == 200  # noqa: S104


def test_port_in_use_is_local_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = BrokerConfig(state_directory=tmp_path / "state", port=port)
        with (
            pytest.raises(LocalError, match=f"cannot listen on 127.0.0.1 port {port}"),
            running(config),
        ):
            pass


@pytest.fixture
def certificate(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return tmp_path


def test_https_with_a_pinned_ca_works_and_with_none_does_not(certificate):
    config = BrokerConfig(
        state_directory=certificate / "state",
        port=0,
        certificate_file=certificate / "cert.pem",
        certificate_key_file=certificate / "key.pem",
    )
    with running(config) as broker:
        assert broker.url.startswith("https://127.0.0.1:")
        key = broker.admin_key_file
        pinned = HTTPSettings(ca_file=certificate / "ca.pem")
        with BrokerAdmin(broker.url, key_file=key, http=pinned) as admin:
            assert admin.list_resources() == ()
        once = HTTPSettings(retry=RetryPolicy(attempts=1))
        with (
            BrokerAdmin(broker.url, key_file=key, http=once) as admin,
            pytest.raises(RemoteError, match="certificate"),
        ):
            admin.list_resources()
        context = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
        assert get(f"{broker.url}/healthz", context=context) == 200


@pytest.mark.parametrize(
    ("names", "error"),
    [
        (("cert.pem", None), UsageError),
        ((None, "key.pem"), UsageError),
        (("none.pem", "key.pem"), LocalError),
        (("key.pem", "cert.pem"), LocalError),
    ],
)
def test_certificate_that_cannot_be_used_refused(certificate, names, error):
    cert, key = (certificate / name if name else None for name in names)
    config = BrokerConfig(
        state_directory=certificate / "state",
        port=0,
        certificate_file=cert,
        certificate_key_file=key,
    )
    with pytest.raises(error), running(config):
        pass


def test_certificate_key_with_a_passphrase_is_refused_and_nobody_is_asked(certificate):
    """OpenSSL's question cannot be ended by a signal."""
    key = load_pem_private_key((certificate / "key.pem").read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"horse"))
    (certificate / "sealed.pem").write_bytes(sealed)
    config = BrokerConfig(
        state_directory=certificate / "state",
        port=0,
        certificate_file=certificate / "cert.pem",
        certificate_key_file=certificate / "sealed.pem",
    )
    with pytest.raises(LocalError, match="private key, without a passphrase"), running(config):
        pass


@pytest.mark.parametrize("sent", [b"", b"GET /hea"])
@pytest.mark.parametrize("number", [1, 2])
def test_head_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch, sent, number):
    monkeypatch.setattr(server, "_HANDSHAKE_SECONDS", 0.2)
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.2)
    with running(BrokerConfig(state_directory=tmp_path / "state", port=0)) as broker:
        port = int(broker.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=4) as connection:
            if number == 2:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                while not connection.recv(1000).endswith(b"ok\n"):
                    pass
                sent = sent or b"G"  # else uvicorn's own 5 s between requests are in force
            connection.sendall(sent)
            assert connection.recv(1000) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_stops_cleanly_at_a_signal(tmp_path, number):
    root = str(Path(__file__).resolve().parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    ) as process:
        try:
            url = process.stdout.readline().strip()
            assert get(f"{url}/healthz") == 200
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_stop_lets_a_running_request_finish(tmp_path, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    names = Resources.names

    def slow(self, by):
        started.set()
        assert go_on.wait(10)
        return names(self, by)

    monkeypatch.setattr(Resources, "names", slow)
    results = []
    with running(BrokerConfig(state_directory=tmp_path / "state", port=0)) as broker:
        admin = BrokerAdmin(broker.url, key_file=broker.admin_key_file)
        thread = threading.Thread(target=lambda: results.append(admin.list_resources()))
        thread.start()
        assert started.wait(10)
        threading.Timer(0.3, go_on.set).start()
    thread.join()
    admin.close()
    assert results == [()]


# A crowd. What a full-size flood needs is said in docs/broker.md.

FLOOD = Limits().strangers + 10  # connections


@pytest.fixture
def connect():
    made = []

    def run(port, source="127.0.0.2", *, sent=b"", small=False):
        connection = socket.socket()
        made.append(connection)
        connection.settimeout(10)
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", port))
        connection.sendall(sent)
        return connection

    yield run
    for connection in made:
        connection.close()


def status_of(connection, request=b""):
    """The status of a whole answer."""
    connection.settimeout(10)
    connection.sendall(request)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    answer.close()
    return answer.status


def is_open(connection):
    """Whether the other end is there, whatever it says."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def open_of(connections, expected, *, seconds=10):
    """How many are open, when that is what is expected or time is up."""
    end = time.monotonic() + seconds
    while True:
        count = sum(is_open(one) for one in connections)
        if count <= expected or time.monotonic() > end:
            return count
        time.sleep(0.05)


@pytest.fixture
def port(embedded):
    return urlsplit(embedded.url).port


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.1"])
@pytest.mark.parametrize("sent", [b"", b"GET /hea"], ids=["idle", "half a head"])
def test_flood_of_one_address_leaves_guests_served(embedded, port, source, sent, connect):
    """Of another address, and of the same."""
    embedded.put(URI, b"secret", image=IMAGE)
    flood = []
    for number in range(FLOOD):
        flood.append(connect(port, source, sent=sent))
        if number % 50 == 49:
            with embedded.client() as client:
                client.get(URI, manifest_digest=IMAGE).close()
    with embedded.client() as client:
        client.get(URI, manifest_digest=IMAGE).close()
        assert open_of(flood, Limits().strangers) <= Limits().strangers


def test_flood_does_not_close_the_connection_of_a_guest_that_has_attested(embedded, port, connect):
    """Nor that of an admin, though all come from one address."""
    embedded.put(URI, b"secret", image=IMAGE)
    with embedded.client() as client:
        client.get(URI, manifest_digest=IMAGE).close()
        session, _ = client._current(stale=None)
    asked = (
        f"GET {PATH}?image-digest={IMAGE} HTTP/1.1\r\nHost: x\r\n"
        f"Cookie: {session.headers['Cookie']}\r\n\r\n"
    ).encode()
    guest = connect(port, "127.0.0.1", sent=asked)
    assert status_of(guest) == 200
    stranger = connect(port, "127.0.0.1", sent=b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status_of(stranger) == 200
    embedded.admin.list_resources()
    flood = [connect(port, "127.0.0.1") for _ in range(FLOOD)]
    assert open_of(flood, Limits().strangers) == Limits().strangers
    assert open_of([stranger], 0) == 0
    assert status_of(guest, asked) == 200


def test_connections_of_one_session_have_a_share(embedded, port, connect):
    embedded.put(URI, b"secret", image=IMAGE)
    with embedded.client() as client:
        client.get(URI, manifest_digest=IMAGE).close()
        session, _ = client._current(stale=None)
    asked = (
        f"GET {PATH}?image-digest={IMAGE} HTTP/1.1\r\nHost: x\r\n"
        f"Cookie: {session.headers['Cookie']}\r\n\r\n"
    ).encode()
    connections = []
    for _ in range(Limits().of_caller + 4):
        connections.append(connect(port, "127.0.0.1", sent=asked))
        assert status_of(connections[-1]) == 200
    assert open_of(connections, Limits().of_caller) == Limits().of_caller


def was_reset(connection, seconds=20):
    """Whether the other end gives up, without anything being read here."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            return True
        with suppress(BlockingIOError, TimeoutError):
            try:
                connection.send(b"x")
            except (ConnectionResetError, BrokenPipeError):
                return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.1"])
@pytest.mark.parametrize(
    ("number", "more"),
    [(1, ""), (1, "Connection: close\r\n"), (3, "")],
    ids=["one", "last", "pipelined"],
)
def test_peers_that_read_nothing_are_not_waited_for(
    embedded, port, connect, monkeypatch, source, number, more
):
    """Their answers fill all buffers, also before the next one begins."""
    for name in ("_PEER_SECONDS", "_LINGER_SECONDS", "_HEAD_SECONDS"):
        monkeypatch.setattr(server, name, 0.3)
    embedded.put(URI, bytes(2 * 1024 * 1024), image=IMAGE)
    with embedded.client() as client:
        client.get(URI, manifest_digest=IMAGE).close()
        session, _ = client._current(stale=None)
    asked = (
        f"GET {PATH}?image-digest={IMAGE} HTTP/1.1\r\nHost: x\r\n{more}"
        f"Cookie: {session.headers['Cookie']}\r\n\r\n"
    ).encode()
    stuck = [connect(port, source, small=True, sent=asked * number) for _ in range(3)]
    assert all(was_reset(one) for one in stuck)
    assert get(f"{embedded.url}/healthz") == 200


@pytest.fixture
def admins_ca(certificate):
    """Files of the CA of admins, of one of them, and of one of another CA."""
    for name in ("admins", "others"):
        authority = trustme.CA()
        issued = authority.issue_cert("admin@example.org")
        authority.cert_pem.write_to_path(str(certificate / f"{name}-ca.pem"))
        issued.private_key_pem.write_to_path(str(certificate / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(certificate / f"{name}.pem"))
    return BrokerConfig(
        state_directory=certificate / "state",
        port=0,
        certificate_file=certificate / "cert.pem",
        certificate_key_file=certificate / "key.pem",
        admin_ca_file=certificate / "admins-ca.pem",
        allow_sample_tee=True,
    )


def admin_of(broker, here, *names):
    shown = tuple((here / f"{name}.pem", here / f"{name}.key") for name in names)
    once = RetryPolicy(attempts=1)
    http = HTTPSettings(ca_file=here / "ca.pem", client_certificates=shown, retry=once)
    return BrokerAdmin(broker.url, key_file=broker.admin_key_file, http=http)


def test_admin_with_a_certificate_of_the_admins_ca_is_let_in(certificate, admins_ca):
    with running(admins_ca) as broker, admin_of(broker, certificate, "admins") as admin:
        assert admin.list_resources() == ()
        assert admin.list_resources() == ()  # on the same connection, or with a session of TLS


def test_admin_with_the_key_and_no_certificate_refused_and_in_the_audit_log(certificate, admins_ca):
    with running(admins_ca) as broker:
        with (
            admin_of(broker, certificate) as admin,
            pytest.raises(Unauthorized, match="the broker demands a certificate") as caught,
        ):
            admin.put_resource("kbs:///a/b/c", SecretKey(b"secret"))
        assert caught.value.code == "AdminCertificate"
        assert "--broker-admin-certificate" in caught.value.hint
        with admin_of(broker, certificate, "admins") as admin:
            assert admin.list_resources() == ()
            last = admin.audit(1)[0]
    assert (last.event, last.outcome) == ("admin", "refused")
    assert "expected a certificate of the admins' CA" in last.detail


def test_certificate_of_another_ca_gets_no_connection(certificate, admins_ca):
    with (
        running(admins_ca) as broker,
        admin_of(broker, certificate, "others") as admin,
        pytest.raises(RemoteError),
    ):
        admin.list_resources()


def test_certificate_of_an_admin_without_the_key_of_one_is_nothing(certificate, admins_ca):
    stranger = certificate / "stranger.key"
    key = Ed25519PrivateKey.generate()
    stranger.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    shown = ((certificate / "admins.pem", certificate / "admins.key"),)
    http = HTTPSettings(ca_file=certificate / "ca.pem", client_certificates=shown)
    with (
        running(admins_ca) as broker,
        BrokerAdmin(broker.url, key_file=stranger, http=http) as admin,
        pytest.raises(Unauthorized) as caught,
    ):
        admin.list_resources()
    assert caught.value.code == "AdminAuthAccess"


def test_guest_needs_no_certificate_where_admins_do(certificate, admins_ca):
    http = HTTPSettings(ca_file=certificate / "ca.pem")
    attester = load_attester("sample")
    with (
        running(admins_ca) as broker,
        BrokerClient(broker.url, attester=attester, http=http) as guest,
        pytest.raises(KeyUnavailable),  # it has attested, and there is no such key
    ):
        guest.get("kbs:///a/b/c", manifest_digest=None)


def test_admins_ca_without_https_or_that_is_none_refused(certificate, admins_ca):
    plain = replace(admins_ca, certificate_file=None, certificate_key_file=None)
    with pytest.raises(UsageError, match="expected a certificate of the broker"), running(plain):
        pass
    for name, told in (("admins.key", "expected certificates of CAs"), ("none.pem", "no such")):
        config = replace(admins_ca, admin_ca_file=certificate / name)
        with pytest.raises(LocalError, match=told) as caught, running(config):
            pass
        assert caught.value.path == str(certificate / name)


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"], ids=len)
def test_handshake_of_tls_that_does_not_come_is_not_waited_for(
    certificate, monkeypatch, sent, connect
):
    monkeypatch.setattr(server, "_HANDSHAKE_SECONDS", 0.3)
    config = BrokerConfig(
        state_directory=certificate / "state",
        port=0,
        certificate_file=certificate / "cert.pem",
        certificate_key_file=certificate / "key.pem",
    )
    with running(config) as broker:
        flood = [connect(urlsplit(broker.url).port, sent=sent) for _ in range(3)]
        assert open_of(flood, 0) == 0
        context = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
        assert get(f"{broker.url}/healthz", context=context) == 200


def test_flood_of_unfinished_handshakes_of_tls_leaves_guests_served(certificate, connect):
    config = BrokerConfig(
        state_directory=certificate / "state",
        port=0,
        certificate_file=certificate / "cert.pem",
        certificate_key_file=certificate / "key.pem",
    )
    context = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
    with running(config) as broker:
        port = urlsplit(broker.url).port
        for source in ("127.0.0.2", "127.0.0.1"):
            flood = [connect(port, source, sent=b"\x16\x03\x01") for _ in range(FLOOD)]
            assert get(f"{broker.url}/healthz", context=context) == 200
            assert open_of(flood, Limits().strangers) <= Limits().strangers


@pytest.mark.parametrize(
    ("proxies", "goes"), [(("127.0.0.2/32",), False), ((), True)], ids=["configured", "not"]
)
def test_proxy_is_believed_if_it_is_configured(tmp_path, connect, proxies, goes):
    """What it sends counts for the addresses that it names, each of which is below its share."""
    config = BrokerConfig(state_directory=tmp_path / "state", port=0, trusted_proxies=proxies)
    with running(config) as broker:
        port = urlsplit(broker.url).port
        proxied = [connect(port, "127.0.0.2") for _ in range(Limits().of_address + 2)]
        for number, one in enumerate(proxied):
            head = f"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.{number}\r\n\r\n"
            assert status_of(one, head.encode()) == 200
        flood = [connect(port, "127.0.0.3") for _ in range(Limits().strangers - len(proxied))]
        flood += [connect(port, "127.0.0.4") for _ in range(2)]
        # They are let in one after another: who is answered last came after all others.
        assert status_of(flood[-1], b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") == 200
        expected = len(proxied) - 1 if goes else len(proxied)
        assert (open_of(proxied, expected) < len(proxied)) == goes


def test_proxy_that_is_no_address_refused_before_anything_is_made(tmp_path):
    config = BrokerConfig(state_directory=tmp_path / "state", trusted_proxies=("10.0.0.1/8",))
    with pytest.raises(UsageError, match="has host bits set"), running(config):
        pass
    assert not (tmp_path / "state").exists()


def test_requests_that_are_none_do_not_fill_the_log(port, caplog, connect):
    with caplog.at_level("WARNING"):
        for _ in range(60):
            noise = connect(port, sent=b"\x00\r\n\r\n")
            while noise.recv(1000):
                pass
            noise.close()
    lines = [record for record in caplog.records if record.name == "uvicorn.error"]
    assert 30 <= len(lines) < 60  # a minute may end in between


@pytest.mark.parametrize("source", ["127.0.0.2", "127.0.0.1"])
def test_flood_of_requests_without_end_leaves_guests_served(embedded, port, connect, source):
    """Connections that keep us at work never wait, and go all the same."""
    embedded.put(URI, b"secret", image=IMAGE)
    requests = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * 12
    flood = [connect(port, source, sent=requests) for _ in range(FLOOD)]
    with embedded.client() as client:
        client.get(URI, manifest_digest=IMAGE).close()
    assert len(flood) == FLOOD


def test_request_of_a_connection_that_is_gone_is_dropped(embedded, port, connect, monkeypatch):
    """Or its body would wait for its turn in memory, of any number of closed connections."""
    began, dropped = threading.Semaphore(0), threading.Semaphore(0)

    async def slow(*_, **__):
        began.release()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            dropped.release()
            raise

    monkeypatch.setattr(Handshake, "auth", slow)
    body = b'{"version":"0.4.0","tee":"sample","extra-params":""}'
    head = b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for one in [connect(port, sent=head + body) for _ in range(4)]:
        assert began.acquire(timeout=10)
        one.close()
    for _ in range(4):
        assert dropped.acquire(timeout=10)
    assert get(f"{embedded.url}/healthz") == 200


def test_secret_of_an_admin_who_hangs_up_is_stored_as_it_was_sent(
    embedded, port, connect, monkeypatch
):
    """Not wiped while it is sealed."""
    began, go_on, seen = threading.Event(), threading.Event(), []
    put = Resources.put

    async def slow(self, by, path, secret, **more):
        began.set()
        assert await asyncio.to_thread(go_on.wait, 10)
        with secret.view() as data:
            seen.append(bytes(data))
        await put(self, by, path, secret, **more)

    monkeypatch.setattr(Resources, "put", slow)
    now = int(time.time())
    claims = {"iat": now, "exp": now + 60, "role": "admin"}
    token = sign_token(claims, key=load_admin_key(embedded.admin_key_file))
    admin = connect(
        port,
        sent=f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Length: 6\r\n\r\nsecret".encode(),
    )
    assert began.wait(10)
    admin.close()
    assert get(f"{embedded.url}/healthz") == 200  # the broker has seen it by then
    go_on.set()
    while not seen or not embedded.admin.list_resources():
        time.sleep(0.05)
    assert seen == [b"secret"]
    assert embedded.admin.metadata(URI).size == 6


def certificate_of(port):
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


def renewed(directory):
    """Other files in the place of those that a broker was started with."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(directory / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    return issued.cert_chain_pems[0].bytes().decode()


def test_certificate_whose_files_change_is_shown_and_connections_stay(certificate, monkeypatch):
    monkeypatch.setattr(server, "_CERTIFICATE_SECONDS", 0.0)
    config = BrokerConfig(
        state_directory=certificate / "state",
        port=0,
        certificate_file=certificate / "cert.pem",
        certificate_key_file=certificate / "key.pem",
    )
    context = ssl.create_default_context(cafile=str(certificate / "ca.pem"))
    with running(config) as broker:
        port = urlsplit(broker.url).port
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
            assert status_of(connection, asked) == 200
            new = renewed(certificate)
            while certificate_of(port) != new:
                assert status_of(connection, asked) == 200
            assert status_of(connection, asked) == 200


def test_certificate_is_read_again_at_sighup(certificate):
    program = PROGRAM.replace(
        "port=0)",
        "port=0, certificate_file=Path(sys.argv[2]), certificate_key_file=Path(sys.argv[3]))",
    )
    words = [sys.executable, "-c", program]
    words += [str(certificate / name) for name in ("state", "cert.pem", "key.pem")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = urlsplit(process.stdout.readline().strip()).port
            new = renewed(certificate)
            process.send_signal(signal.SIGHUP)
            while certificate_of(port) != new:
                assert process.poll() is None
            process.terminate()
            assert process.communicate(timeout=30)[0] == "stopped\n"
        finally:
            process.kill()
