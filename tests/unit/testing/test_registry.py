# SPDX-License-Identifier: Apache-2.0
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import trustme

from imagers.model.digest import digest_of
from imagers.model.media import OCI_MANIFEST
from imagers.model.reference import parse_reference
from imagers.net.http import ANY_STATUS, HTTPClient, HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.registry.client import RegistryClient
from imagers.registry.sink import RegistrySink
from imagers.testing.registry import EmbeddedRegistry, LoggedRequest

DATA = b"some bytes of a blob"
QUICK = HTTPSettings(read_timeout_s=0.3, retry=RetryPolicy(attempts=1))


@pytest.fixture
def client():
    with HTTPClient(QUICK) as one:
        yield one


@pytest.fixture
def registry():
    with EmbeddedRegistry() as one:
        yield one


@pytest.fixture
def blob(registry, client):
    """The URL of a blob in the registry."""
    url = f"{registry.url}/v2/app/blobs"
    client.request("POST", f"{url}/uploads/?digest={digest_of(DATA)}", body=DATA)
    registry.requests.clear()
    return f"{url}/{digest_of(DATA)}"


def status_of(client, url, method="GET"):
    return client.request(method, url, expected=ANY_STATUS).status


def test_registry_is_there_in_the_block_and_gone_after_it(client):
    with EmbeddedRegistry() as registry:
        assert registry.url == f"http://{registry.address}"
        assert status_of(client, f"{registry.url}/v2/") == 200
        url = registry.url
    with pytest.raises(OSError, match="refused"):
        http.client.HTTPConnection(url.removeprefix("http://"), timeout=5).connect()
    with pytest.raises(RuntimeError, match="not running"):
        _ = registry.address
    registry.stop()


def test_registry_end_leaves_no_thread(client):
    before = threading.active_count()
    with EmbeddedRegistry() as registry:
        registry.hang(path="/v2/")
        with pytest.raises(Exception, match="no answer"):
            client.request("GET", f"{registry.url}/v2/")
        status_of(client, f"{registry.url}/v2/")
        started = time.monotonic()
    assert threading.active_count() == before
    assert time.monotonic() - started < 30


def test_registry_logs_what_it_is_asked(registry, client, blob):
    client.request("GET", blob)
    status_of(client, f"{registry.url}/v2/app/manifests/v1", "HEAD")
    assert registry.requests == [
        LoggedRequest("GET", f"/v2/app/blobs/{digest_of(DATA)}", 200),
        LoggedRequest("HEAD", "/v2/app/manifests/v1", 404),
    ]
    assert registry.asked()[1] == ("HEAD", "/v2/app/manifests/v1")


def test_registry_on_disk_keeps_its_content(tmp_path, client):
    for expected in (404, 200):
        with EmbeddedRegistry(tmp_path) as registry:
            url = f"{registry.url}/v2/app/blobs"
            assert status_of(client, f"{url}/{digest_of(DATA)}", "HEAD") == expected
            client.request("POST", f"{url}/uploads/?digest={digest_of(DATA)}", body=DATA)
    assert (tmp_path / "blobs" / "sha256" / digest_of(DATA).hex).read_bytes() == DATA


def test_registry_on_disk_keeps_no_broken_uploads(tmp_path, client):
    with EmbeddedRegistry(tmp_path) as registry:
        url = f"{registry.url}/v2/app/blobs/uploads/"
        client.request("POST", url)
        assert status_of(client, f"{url}?digest=sha256:{'0' * 64}", "POST") == 400
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_registry_user_name_without_password_is_the_callers_bug():
    with pytest.raises(ValueError, match="both"):
        EmbeddedRegistry(username="me")


def test_registry_basic_login(client):
    with EmbeddedRegistry(username="me", password="pw") as registry:
        url = f"{registry.url}/v2/"
        answer = client.request("GET", url, expected=ANY_STATUS)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="imagers"')
        for value, status in (("bWU6cHc=", 200), ("bWU6cHg=", 401)):
            headers = {"Authorization": f"Basic {value}"}
            answer = client.request("GET", url, headers=headers, expected=ANY_STATUS)
            assert answer.status == status


def test_registry_token_login_names_scope_and_service(client):
    with EmbeddedRegistry(token_auth=True) as registry:
        answer = client.request("PUT", f"{registry.url}/v2/a/b/manifests/v1", expected=ANY_STATUS)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == (
            f'Bearer realm="{registry.url}/token",service="imagers",'
            'scope="repository:a/b:pull,push"'
        )


def test_registry_token_mounts_only_from_where_it_may_pull(client):
    with EmbeddedRegistry(token_auth=True) as registry:

        def ask(method, path, scope, **more):
            token = client.request("GET", f"{registry.url}/token?{scope}").body
            headers = {"Authorization": f"Bearer {json.loads(token)['token']}"}
            url = f"{registry.url}/v2/{path}"
            return client.request(method, url, headers=headers, expected=ANY_STATUS, **more).status

        one, two = "scope=repository:one:pull,push", "scope=repository:two:pull,push"
        digest = digest_of(DATA)
        assert ask("POST", f"one/blobs/uploads/?digest={digest}", one, body=DATA) == 201
        mount = f"two/blobs/uploads/?mount={digest}&from=one"
        for scope, status in ((two, 202), (one, 401), (f"{one}&{two}", 201)):
            assert ask("POST", mount, scope) == status
        assert ask("DELETE", f"two/blobs/{digest}", "scope=repository:two:pull") == 401
        assert ask("DELETE", f"two/blobs/{digest}", "scope=repository:two:*") == 202


def test_registry_over_tls(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        EmbeddedRegistry(tls=context) as registry,
        HTTPClient(HTTPSettings(ca_file=tmp_path / "ca.pem")) as client,
    ):
        assert registry.url.startswith("https://")
        assert status_of(client, f"{registry.url}/v2/") == 200


# Lies.


def test_corrupt_blob_changes_one_byte(registry, client, blob):
    registry.corrupt_blob(digest_of(DATA), 3)
    body = client.request("GET", blob).body
    assert [at for at in range(len(DATA)) if body[at] != DATA[at]] == [3]


def test_replace_blob_gives_other_bytes(registry, client, blob):
    registry.replace_blob(str(digest_of(DATA)), b"other")
    assert client.request("GET", blob).body == b"other"
    assert registry.read(digest_of(DATA)) == b"other"


def test_drop_blob_is_404(registry, client, blob):
    registry.drop_blob(digest_of(DATA))
    assert status_of(client, blob) == 404


def test_lies_about_what_is_not_there_are_key_errors(registry):
    for lie in (registry.corrupt_blob, registry.drop_blob, registry.read):
        with pytest.raises(KeyError):
            lie(digest_of(b"none"))
    with pytest.raises(KeyError):
        registry.drop_manifest("app", digest_of(b"none"))


@pytest.mark.parametrize("by_tag", [False, True])
def test_drop_manifest_takes_its_tags(registry, by_tag):
    name = parse_reference(f"{registry.address}/app:v1")
    client = RegistryClient(name, http=HTTPClient(QUICK), actions="pull,push")
    sink = RegistrySink(name, client, name="x")
    raw = (
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    )
    kind = OCI_MANIFEST.replace("manifest", "index")
    sink.put_manifest(raw, kind, by_name=True)
    sink.put_manifest_as(raw, kind, "v2")
    sink.close()
    assert registry.tags("app") == {"v1": digest_of(raw), "v2": digest_of(raw)}
    registry.drop_manifest("app", "v1" if by_tag else digest_of(raw))
    assert registry.tags("app") == {}


def test_answer_with_is_given_as_often_as_told(registry, client, blob):
    registry.answer_with(503, path="/blobs/", method="GET", body=b"busy", times=2)
    registry.answer_with(500, path="/blobs/", method="GET")
    statuses = [status_of(client, blob, method) for method in ("HEAD", "GET", "GET", "GET", "GET")]
    assert statuses == [200, 503, 503, 500, 200]


def test_break_off_resets_after_so_many_bytes(registry, client, blob):
    registry.break_off(path="/blobs/", after=5)
    with pytest.raises(Exception, match=r"closed the connection|broke"):
        client.request("GET", blob)
    assert client.request("GET", blob).body == DATA


def test_hang_gives_no_answer(registry, client, blob):
    registry.hang(path="/blobs/", method="GET")
    with pytest.raises(Exception, match="no answer"):
        client.request("GET", blob)
    assert client.request("GET", blob).body == DATA


def test_hang_after_some_bytes_gives_these(registry, blob):
    registry.hang(path="/blobs/", after=2)
    host, _, port = registry.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        path = blob.removeprefix(registry.url)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\n\r\n".encode())
        got = b""
        while not got.endswith(b"\r\n\r\n" + DATA[1:3]):
            piece = connection.recv(4096)
            assert piece
            got += piece
    assert registry.requests[-1].range == "bytes=1-"


# As a process.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_main_says_its_address_and_stops_on_a_signal(tmp_path, client, number):
    address_file = tmp_path / "address"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "imagers.testing.registry"),
            *("--directory", str(tmp_path / "r"), "--address-file", str(address_file)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 30
        while not address_file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        address = address_file.read_text().strip()
        assert status_of(client, f"http://{address}/v2/") == 200
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, output) == (0, b"")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["address", "r"]
