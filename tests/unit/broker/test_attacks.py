# SPDX-License-Identifier: Apache-2.0
"""What guests mix up, steal and change, against a model of who may have what.

The model is the protocol in a few lines: a session takes evidence once, over its own nonce and
the key that is sent; a secret is sealed to the key of the session, or of the token, that counts.
"""

import asyncio
import json
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from imagers.broker.config import BrokerConfig
from imagers.broker.handshake import Handshake
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.refusals import Refusal
from imagers.broker.releases import Asked, Credentials, Releases
from imagers.broker.resources import Resources
from imagers.broker.start import open_state
from imagers.errors import ImagersError
from imagers.evidence.plugins import load_attester
from imagers.kbs.jwe import open_answer
from imagers.kbs.messages import Attestation, Request, hash_report_data, parse_challenge
from imagers.kbs.tee_key import ECKey
from imagers.model.base64 import decode_base64url, encode_base64url
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from imagers.model.strict_json import dump_json
from imagers.pki.jose import sign_token
from tests.unit.broker.conftest import Clock, first_admin

PATH, SECRET, IMAGE = "default/key/1", b"a very secret key-encryption key", digest_of(b"manifest")
KEYS = (ECKey(), ECKey())  # of the guest, and of who attacks it
LIFETIME = timedelta(minutes=5)


class Broker:
    """Its two halves, in one loop, and its clock."""

    def __init__(self, directory):
        self.clock = Clock()
        config = BrokerConfig(
            state_directory=directory,
            allow_sample_tee=True,
            clock=self.clock,
            session_lifetime=LIFETIME,
        )
        self.state = open_state(config)
        self.handshake, resources = Handshake(self.state), Resources(self.state)
        self.releases = Releases(self.state)
        self._runner = asyncio.Runner()
        admin = first_admin(self.state)
        self.run(resources.put(admin, PATH, SecretKey(SECRET), replace=False))
        bound = json.dumps({"manifest_digest": str(IMAGE)}).encode()
        self.run(resources.bind(admin, PATH, bound))

    def run(self, coroutine):
        return self._runner.run(coroutine)

    def close(self):
        self._runner.close()
        self.state.close()

    def auth(self):
        answer = self.run(self.handshake.auth(Request.offering_hashes("sample").to_bytes()))
        return answer.cookie, parse_challenge(answer.body).nonce

    def attest(self, cookie, body):
        answer = self.run(self.handshake.attest(cookie, body))
        return json.loads(answer.body)["token"]

    def release(self, cookie, token):
        credentials = Credentials(cookie=cookie, bearer=token)
        return self.run(self.releases.release(credentials, Asked((PATH,), [str(IMAGE)]))).bodies[0]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("attacks") / "state")
    yield broker
    broker.close()


def message(nonce, key, *, bound_nonce, bound_key):
    """Evidence as whoever has the TEE `sample` can make it, over what he likes."""
    report_data = hash_report_data(nonce=bound_nonce, tee_pubkey=bound_key.public)
    evidence = load_attester("sample").collect(report_data)
    return Attestation(
        nonce=nonce, tee_pubkey=key.public, primary_evidence=evidence.body
    ).to_bytes()


@dataclass
class Session:
    """What the model knows of one."""

    cookie: str
    nonce: str
    ends: object
    body: bytes = b""
    token: str = ""
    key: object = None


def opens(answer, key):
    try:
        with open_answer(answer, key) as secret, secret.view() as data:
            return bytes(data) == SECRET
    except ImagersError:
        return False


index = st.integers(0, 3)
who = st.integers(0, 1)
STEPS = st.lists(
    st.one_of(
        st.just(("auth",)),
        # Evidence as it should be, which most of the time is what gives a session.
        st.tuples(st.just("shake"), index, who),
        # Good evidence of another session, and evidence of any mixture.
        st.tuples(st.just("replay"), index, index, who),
        st.tuples(st.just("attest"), index, index, index, who, who),
        st.tuples(st.just("again"), index),
        st.tuples(st.just("release"), st.none() | index, st.none() | index),
        st.tuples(st.just("wait"), st.integers(0, 200)),
    ),
    min_size=4,
    max_size=25,
)


@settings(max_examples=40)
@given(STEPS)
def test_nobody_gets_what_the_model_does_not_give_him(broker, steps):
    sessions = []

    def at(number):
        return sessions[number % len(sessions)]

    for name, *told in [("auth",), *steps]:
        arguments = told
        if name == "shake":
            arguments = [*(told[0],) * 3, *(told[1],) * 2]
        elif name == "replay":
            arguments = [told[0], *(told[1],) * 2, *(told[2],) * 2]
        now = broker.clock()
        if name == "auth":
            cookie, nonce = broker.auth()
            sessions.append(Session(cookie, nonce, now + LIFETIME))
        elif name == "wait":
            broker.clock.advance(seconds=arguments[0])
        elif name == "release":
            _release(broker, *(None if one is None else at(one) for one in arguments))
        elif name == "again":
            one = at(arguments[0])
            _attest(broker, one, one.body or b"{}", is_good=bool(one.body), key=one.key)
        else:
            *numbers, key, bound_key = arguments
            cookie_of, nonce_of, bound_nonce_of = map(at, numbers)
            body = message(
                nonce_of.nonce,
                KEYS[key],
                bound_nonce=bound_nonce_of.nonce,
                bound_key=KEYS[bound_key],
            )
            is_good = cookie_of is nonce_of is bound_nonce_of and key == bound_key
            _attest(broker, cookie_of, body, is_good=is_good, key=KEYS[key])


def _attest(broker, session, body, *, is_good, key):
    """Evidence counts in its own session, once, in time; the same message gives the same token."""
    may = is_good and broker.clock() < session.ends and session.body in (b"", body)
    if not may:
        with pytest.raises((Refusal, ImagersError)):
            broker.attest(session.cookie, body)
        return
    token = broker.attest(session.cookie, body)
    assert session.token in ("", token)
    session.body, session.token, session.key = body, token, key


def _release(broker, by_cookie, by_token):
    """A good session goes before a token; a stranger's cookie makes no token better."""
    now = broker.clock()
    counting = [
        one for one in (by_cookie, by_token) if one is not None and one.token and now < one.ends
    ]
    cookie = by_cookie and by_cookie.cookie
    token = (by_token and by_token.token) or None
    if not counting:
        with pytest.raises(Refusal) as caught:
            broker.release(cookie, token)
        assert caught.value.status == 401
        return
    answer = broker.release(cookie, token)
    assert [opens(answer, key) for key in KEYS] == [key is counting[0].key for key in KEYS]


# --- tokens


def attested(broker, key=KEYS[0]):
    cookie, nonce = broker.auth()
    return broker.attest(cookie, message(nonce, key, bound_nonce=nonce, bound_key=key))


def leaves(value, path=()):
    """The places of all that stands in a JSON document."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from leaves(one, (*path, name))
    elif isinstance(value, list) and value:
        for number, one in enumerate(value):
            yield from leaves(one, (*path, number))
    else:
        yield path


def with_changed(payload, path, value):
    copy = deepcopy(payload)
    place = copy
    for one in path[:-1]:
        place = place[one]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


def test_token_with_any_claim_changed_is_nobodys(broker):
    """With the signature that it had, and with one of a key that somebody brought along."""
    token = attested(broker)
    head, body, signature = token.split(".")
    header = json.loads(decode_base64url(head, what="header"))
    payload = json.loads(decode_base64url(body, what="payload"))
    stranger = ec.generate_private_key(ec.SECP256R1())
    places = list(leaves(payload))
    assert len(places) > 30
    for path in places:
        for value in (..., None, 0, "", "x", 9_999_999_999, True, KEYS[1].public.to_json()):
            changed = with_changed(payload, path, value)
            if changed == payload:
                continue
            text = encode_base64url(dump_json(changed))
            for forged in (
                f"{head}.{text}.{signature}",
                sign_token(changed, key=stranger, header={"kid": header["kid"]}),
            ):
                with pytest.raises(Refusal) as caught:
                    broker.state.guest_of(forged, DEFAULT_TENANT, now=broker.clock())
                assert caught.value.name == "TokenVerifierError"
    assert broker.state.guest_of(token, DEFAULT_TENANT, now=broker.clock()).tee == "sample"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES384"},
        {"alg": "ES256", "crit": ["exp"]},
        {"alg": "ES256", "kid": "another", "jku": "https://evil.example"},
        {},
        {"alg": ["ES256"]},
    ],
)
def test_token_with_another_header_is_nobodys(broker, header):
    _, body, signature = attested(broker).split(".")
    for end in (signature, "", "AA", encode_base64url(bytes(64))):
        forged = f"{encode_base64url(dump_json(header))}.{body}.{end}"
        with pytest.raises(Refusal) as caught:
            broker.state.guest_of(forged, DEFAULT_TENANT, now=broker.clock())
        assert caught.value.name == "TokenVerifierError"


def test_token_that_was_stolen_gives_nothing_that_can_be_read(broker):
    answer = broker.release(None, attested(broker))
    assert opens(answer, KEYS[0])
    assert not opens(answer, KEYS[1])


def test_cookie_and_token_end_with_their_session(broker):
    cookie, nonce = broker.auth()
    body = message(nonce, KEYS[0], bound_nonce=nonce, bound_key=KEYS[0])
    token = broker.attest(cookie, body)
    broker.clock.now += LIFETIME - timedelta(seconds=1)
    assert opens(broker.release(cookie, None), KEYS[0])
    assert opens(broker.release(None, token), KEYS[0])
    broker.clock.now += timedelta(seconds=1)
    for shown in ((cookie, None), (None, token), (cookie, token)):
        with pytest.raises(Refusal) as caught:
            broker.release(*shown)
        assert caught.value.status == 401
    with pytest.raises(Refusal) as caught:
        broker.attest(cookie, body)
    assert caught.value.name == "SessionNotFound"
