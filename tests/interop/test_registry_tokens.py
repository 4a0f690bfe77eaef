# SPDX-License-Identifier: Apache-2.0
"""docker-registry behind a token server: both real, with signed tokens that run out.

Spec: distribution v2.8, docs/spec/auth/{token,jwt,scope,oauth}.md.
"""

import base64
import http.client
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509 import load_pem_x509_certificate

from imagers.errors import Unauthorized
from imagers.model.descriptor import Descriptor
from imagers.model.digest import digest_of
from imagers.model.manifest import parse_manifest
from imagers.model.media import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from imagers.model.stream import read_all
from imagers.registry.credentials import Credentials, IdentityToken
from imagers.transport.copy import copy_image
from imagers.transport.names import parse_image_name
from imagers.transport.open import TransportOptions, open_sink, open_source
from imagers.transport.repository import delete_image, parse_one_image

TINY = f"oci:{Path(__file__).resolve().parent.parent}/vectors/ocicrypt/plain/tiny:v1"
LEEWAY_S = 60  # docker-registry takes tokens for so long after their end
SERVICE, ISSUER = "registry.test", "tokens.test"


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer(ThreadingHTTPServer):
    """Gives the user `me` what is asked for, and everybody else `pull` below `public/`.

    Attributes:
        lifetimes: in seconds, of the next tokens; afterwards five minutes.
        asked: user, and what was asked for, of each request.
        issued: the tokens.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/token"
        self.authority = trustme.CA()
        signer = self.authority.issue_cert("tokens.test", key_type=trustme.KeyType.RSA)
        self.key = serialization.load_pem_private_key(signer.private_key_pem.bytes(), None)
        certificate = load_pem_x509_certificate(signer.cert_chain_pems[0].bytes())
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        self.lifetimes = []
        self.asked = []
        self.issued = []

    def issue(self, user, scopes):
        """A signed token for what `user` may do of `scopes`."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            may = {"pull", "push", "delete", "*"} if user else {"pull"}
            if not user and not name.startswith("public/"):
                may = set()
            granted = [one for one in actions.split(",") if one in may]
            if granted:
                access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        lifetime = self.lifetimes.pop(0) if self.lifetimes else 300
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + lifetime - LEEWAY_S,
            "nbf": now - 2 * LEEWAY_S, "iat": now - 2 * LEEWAY_S, "jti": secrets.token_hex(8),
            "access": access,
        }  # fmt: skip
        x5c = [base64.b64encode(self.certificate).decode()]
        parts = [{"typ": "JWT", "alg": "RS256", "x5c": x5c}, claims]
        signed = ".".join(base64url(json.dumps(part).encode()) for part in parts)
        signature = self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        self.issued.append(f"{signed}.{base64url(signature)}")
        return self.issued[-1]


class TokenHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        query = parse_qs(urlsplit(self.path).query)
        given = self.headers.get("Authorization")
        basic = "Basic " + base64.b64encode(b"me:pw").decode()
        self.answer(given in (None, basic), "me" if given else "", query)

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        is_known = form.get("refresh_token") == ["of me"]
        form["scope"] = form.get("scope", [""])[0].split()
        self.answer(is_known and form.get("grant_type") == ["refresh_token"], "me", form)

    def answer(self, is_known, user, query):
        scopes = query.get("scope", [])
        self.server.asked.append((user, scopes))
        status, value = 401, {"errors": [{"code": "UNAUTHORIZED", "message": "who is that?"}]}
        if is_known and query.get("service") == [SERVICE]:
            status, value = 200, {"token": self.server.issue(user, scopes), "expires_in": 300}
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def running_tokens():
    with TokenServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tokens(running_tokens):
    running_tokens.asked.clear()
    running_tokens.issued.clear()
    running_tokens.lifetimes.clear()
    return running_tokens


def registry_of(server, start, directory, authority):
    authority.cert_pem.write_to_path(directory / "roots.pem")
    token = {
        "realm": server.url,
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(directory / "roots.pem"),
    }
    return start(auth={"token": token})


@pytest.fixture(scope="module")
def registry(running_tokens, start_docker_registry, tmp_path_factory):
    directory = tmp_path_factory.mktemp("roots")
    return registry_of(running_tokens, start_docker_registry, directory, running_tokens.authority)


def options(credentials):
    return TransportOptions(credentials=credentials)


ME = options(Credentials("me", "pw"))


def copy(source, sink, given=ME):
    source, sink = (
        open_source(parse_image_name(source), given),
        open_sink(parse_image_name(sink), given),
    )
    try:
        return copy_image(source, sink)
    finally:
        source.close()
        sink.close()


def test_token_is_asked_for_what_is_done(registry, tokens, tmp_path):
    name = f"docker://{registry.address}/team/app:v1"
    copied = copy(TINY, name)
    assert tokens.asked == [("me", ["repository:team/app:pull,push"])]
    tokens.asked.clear()
    assert copy(name, f"oci:{tmp_path}/back:v1").digest == copied.digest
    assert tokens.asked == [("me", ["repository:team/app:pull"])]


def test_token_for_an_identity_token(registry, tokens):
    name = f"docker://{registry.address}/team/identity:v1"
    copy(TINY, name, options(IdentityToken("of me")))
    assert tokens.asked == [("me", ["repository:team/identity:pull,push"])]
    with pytest.raises(Unauthorized, match="the token server answered 401"):
        copy(TINY, name, options(IdentityToken("of somebody")))


def test_token_of_nobody_reads_what_is_public_and_writes_nothing(registry, tokens, tmp_path):
    for repository in ("public/app", "team/secret"):
        copy(TINY, f"docker://{registry.address}/{repository}:v1")
    tokens.asked.clear()
    public = f"docker://{registry.address}/public/app:v1"
    copy(public, f"oci:{tmp_path}/public:v1", options(None))
    assert tokens.asked == [("", ["repository:public/app:pull"])]
    for source, sink in (
        (TINY, public),
        (f"docker://{registry.address}/team/secret:v1", f"oci:{tmp_path}/secret:v1"),
    ):
        tokens.asked.clear()
        with pytest.raises(Unauthorized, match="401") as caught:
            copy(source, sink, options(None))
        assert caught.value.hint
        assert len(tokens.asked) <= 2
    assert not (tmp_path / "secret").exists()


def test_token_with_a_wrong_password_is_asked_for_once(registry, tokens):
    with pytest.raises(Unauthorized, match="the token server answered 401") as caught:
        copy(TINY, f"docker://{registry.address}/team/app:v1", options(Credentials("me", "no")))
    assert caught.value.hint == "log in, or give other credentials"
    assert len(tokens.asked) == 1
    assert tokens.issued == []


def test_token_that_the_registry_does_not_believe_ends_it(tokens, start_docker_registry, tmp_path):
    strict = registry_of(tokens, start_docker_registry, tmp_path, trustme.CA())
    with pytest.raises(Unauthorized, match="401"):
        copy(TINY, f"docker://{strict.address}/team/app:v1")
    assert len(tokens.asked) <= 2


def test_token_for_a_mount_covers_both_repositories(registry, tokens):
    first, second = (f"docker://{registry.address}/mount/{name}:v1" for name in ("one", "two"))
    blobs = copy(TINY, first).blobs
    tokens.asked.clear()
    assert copy(first, second).mounted == blobs
    both = ["repository:mount/two:pull,push", "repository:mount/one:pull"]
    assert ("me", both) in tokens.asked


def test_token_for_a_deletion_is_one_for_everything(registry, tokens):
    name = f"docker://{registry.address}/team/gone:v1"
    digest = copy(TINY, name).digest
    tokens.asked.clear()
    assert delete_image(parse_one_image(name), ME).digest == digest
    assert tokens.asked == [("me", ["repository:team/gone:*"])]
    with pytest.raises(Unauthorized, match="401"):
        delete_image(parse_one_image(name), options(None))


def wait_until_run_out(address, repository, token):
    """Until the registry itself takes the token no more."""
    deadline = time.monotonic() + 90
    while True:
        connection = http.client.HTTPConnection(address, timeout=30)
        headers = {"Authorization": f"Bearer {token}"}
        connection.request("GET", f"/v2/{repository}/tags/list", headers=headers)
        status = connection.getresponse().status
        connection.close()
        if status == 401:
            return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_token_that_runs_out_in_the_middle_is_fetched_anew(registry, tokens):
    """The server said five minutes, and the tokens last some seconds only."""
    name = f"docker://{registry.address}/team/late:v1"
    copy(TINY, name)
    tokens.issued.clear()
    config, layer = b'{"late":"config"}', secrets.token_bytes(300_000)
    descriptors = [
        Descriptor(kind, digest_of(data), len(data))
        for kind, data in ((OCI_CONFIG, config), (OCI_LAYER, layer))
    ]
    tokens.lifetimes[:] = [8, 8]
    source = open_source(parse_image_name(name), ME)
    sink = open_sink(parse_image_name(f"docker://{registry.address}/team/late-2:v1"), ME)
    try:
        manifest = parse_manifest(source.read_manifest().raw)
        sink.put_blob(descriptors[0], config, what="config")
        assert len(tokens.issued) == 2
        for repository, token in zip(("team/late", "team/late-2"), tokens.issued[:], strict=True):
            wait_until_run_out(registry.address, repository, token)
        for descriptor in (manifest.config, *manifest.layers):
            with source.open_blob(descriptor, what="blob") as stream:
                assert digest_of(read_all(stream, size=descriptor.size)) == descriptor.digest
        assert len(tokens.issued) == 3
        sink.put_blob(descriptors[1], layer, what="layer")
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptors[0].to_json(),
            "layers": [descriptors[1].to_json()],
        }
        sink.put_manifest(json.dumps(document).encode(), OCI_MANIFEST, by_name=True)
        assert len(tokens.issued) == 4
    finally:
        source.close()
        sink.close()
