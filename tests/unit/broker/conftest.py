# SPDX-License-Identifier: Apache-2.0
"""A broker that listens, one that does not, and a plain HTTP client for it."""

import asyncio
import inspect
import json
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from imagers.broker.config import BrokerConfig
from imagers.broker.handshake import Handshake
from imagers.broker.keeping.rows import Admin
from imagers.broker.keeping.sqlite import SQLiteDatabase
from imagers.broker.keeping.store import Store
from imagers.broker.releases import Asked, Releases
from imagers.broker.resources import Resources
from imagers.broker.sealing import Sealer
from imagers.broker.start import open_state
from imagers.broker.tenants import Tenants
from imagers.evidence.plugins import load_attester
from imagers.kbs.admin import load_admin_key
from imagers.kbs.messages import Attestation, Request, hash_report_data, parse_challenge
from imagers.kbs.tee_key import ECKey
from imagers.kbs.wire import admin_key_id
from imagers.testing.broker import EmbeddedBroker


@pytest.fixture
def embedded():
    with EmbeddedBroker() as broker:
        yield broker


class Clock:
    def __init__(self):
        self.now = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self):
        return self.now

    def advance(self, **by):
        self.now += timedelta(**by)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(tmp_path, clock):
    config = BrokerConfig(
        state_directory=tmp_path / "state",
        allow_sample_tee=True,
        clock=clock,
        max_sessions=20,
        max_sessions_of_instance=3,
    )
    opened = open_state(config)
    yield opened
    opened.close()


class Now:
    """An object whose coroutines are run to their end, each in a loop of its own.

    Args:
        first: arguments that each call begins with.
    """

    def __init__(self, of, *first):
        self._of = of
        self._first = first

    def __getattr__(self, name):
        member = getattr(self._of, name)
        if not inspect.iscoroutinefunction(member):
            return member
        return lambda *args, **named: asyncio.run(member(*self._first, *args, **named))


@pytest.fixture
def handshake(state):
    return Now(Handshake(state))


def first_admin(state):
    """The one that the first start made, who may do all."""
    with state.store.reading() as transaction:
        return transaction.admins()[0]


@pytest.fixture
def admin(state):
    return first_admin(state)


@pytest.fixture
def new_admin(state):
    """Makes an admin of a tenant, with the roles that are given, past all checks."""

    def make(tenant, *roles):
        key = Ed25519PrivateKey.generate().public_key()
        row = Admin(
            id=admin_key_id(key),
            tenant=tenant,
            name=f"{'-'.join(roles)}-{admin_key_id(key)[:6]}",
            roles=frozenset(roles),
            public_key=key.public_bytes_raw(),
        )
        with state.store.transaction() as transaction:
            transaction.insert_admin(row)
        return row

    return make


@pytest.fixture
def tenants(state, admin):
    """The tenants `a` and `b`, with the repositories `of-a` and `of-b`."""
    found = Now(Tenants(state))
    for name in ("a", "b"):
        found.add(admin, name)
        found.assign(admin, f"of-{name}", json.dumps({"tenant": name}).encode())
    return found


@pytest.fixture
def resources(state, admin):
    return Now(Resources(state), admin)


def change_as_a_broker(directory, work):
    """Change the store of a state directory as another broker of it would."""
    with Store(SQLiteDatabase(directory / "broker.sqlite")) as store:
        store.unseal(Sealer([bytearray((directory / "master.key").read_bytes())]))
        with store.transaction() as transaction:
            work(transaction)


class Release:
    """One secret at a time, for guests of a broker."""

    def __init__(self, state):
        self._releases = Releases(state)

    def __call__(self, credentials, path, images=(), **more):
        asked = Asked((path,), images)
        released = asyncio.run(self._releases.release(credentials, asked, **more))
        return released.bodies[0]


@pytest.fixture
def rows(state):
    """The audit log, without its first row about the start."""

    def read():
        with state.store.transaction() as transaction:
            return [SimpleNamespace(**row) for row in transaction.list_audit(1000)][1:]

    return read


@pytest.fixture
def guest(handshake):
    """Steps of a guest that knows the protocol and can break it."""

    class Guest:
        key = ECKey()

        def auth(self):
            answer = handshake.auth(Request.offering_hashes("sample").to_bytes())
            return answer.cookie, parse_challenge(answer.body).nonce

        def message(self, nonce, *, key=None, bound_nonce=None, bound_key=None, **more):
            key = key or self.key
            report_data = hash_report_data(
                nonce=bound_nonce or nonce, tee_pubkey=(bound_key or key).public
            )
            evidence = load_attester("sample").collect(report_data)
            return Attestation(
                nonce=nonce, tee_pubkey=key.public, primary_evidence=evidence.body, **more
            ).to_bytes()

        def attest(self):
            cookie, nonce = self.auth()
            answer = handshake.attest(cookie, self.message(nonce), caller="192.0.2.7")
            return cookie, json.loads(answer.body)["token"]

    return Guest()


def plain_http(url):
    """(status, headers, body) of a request, without any client of ours."""

    def send(method, path, body=None, **headers):
        request = urllib.request.Request(
            url + path,
            data=body,
            method=method,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    return send


@pytest.fixture(scope="session")
def http_of():
    return plain_http


@pytest.fixture
def http(embedded):
    return plain_http(embedded.url)


@pytest.fixture(scope="module")
def shared():
    """For tests that change nothing at the broker."""
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="module")
def shared_http(shared):
    return plain_http(shared.url)


def _admin_headers(broker):
    """Of an admin who made his token with a library of others."""
    key = JWK.from_pyca(load_admin_key(broker.admin_key_file))
    now = int(time.time())
    token = JWT(
        header={"alg": "EdDSA"},
        claims={"iat": now, "exp": now + 60, "role": "admin"},
        algs=["EdDSA"],
    )
    token.make_signed_token(key)
    return {"Authorization": f"Bearer {token.serialize()}"}


@pytest.fixture(scope="session")
def admin_headers():
    return _admin_headers
