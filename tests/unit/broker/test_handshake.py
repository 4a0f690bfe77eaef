"""Names of tests that attack a step begin their docstring with its number in the module."""

import base64
import json
import threading

import pytest

from imagers.attest.messages import InitData, Request, parse_challenge
from imagers.attest.tee_key import TEEKey
from imagers.broker.refusals import Refusal
from imagers.errors import FormatError, Unsupported
from imagers.model.evidence import Claims


def refused(call, *arguments):
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value


def test_handshake_gives_a_token(state, guest, rows):
    _, token = guest.attest()
    attested = state.guest_tokens.check(token, now=state.now())
    assert (attested.tee, attested.tee_pubkey) == ("sample", guest.key.public)
    (row,) = rows()
    assert (row.event, row.outcome, row.tee) == ("attest", "ok", "sample")


def test_auth_gives_cookie_nonce_and_expiry(handshake, state):
    answer = handshake.auth(Request(tee="sample").to_bytes())
    assert len(answer.cookie) == 32
    assert set(answer.cookie) <= set("0123456789abcdef")
    assert len(base64.b64decode(parse_challenge(answer.body).nonce)) == 32
    assert answer.expires - state.now() == state.config.session_lifetime
    assert json.loads(answer.body)["extra-params"] == ""


def test_auth_twice_shares_nothing(guest):
    one, other = guest.auth(), guest.auth()
    assert one[0] != other[0]
    assert one[1] != other[1]


@pytest.mark.parametrize("version", ["0.1.1", "0.4.1", "0.4.0 ", "", "0.4"])
def test_auth_other_version_refused(handshake, version):
    """1: peers compare for equality."""
    refusal = refused(handshake.auth, Request(tee="sample", version=version).to_bytes())
    assert (refusal.name, refusal.status) == ("AttestationError", 401)
    assert "expected protocol version '0.4.0'" in refusal.detail


def test_auth_tee_without_a_verifier_refused(handshake):
    """1: a TEE that is not enabled cannot begin."""
    refusal = refused(handshake.auth, Request(tee="snp").to_bytes())
    assert refusal.status == 401
    assert "no evidence of the TEE 'snp'" in refusal.detail


def test_auth_refused_is_in_the_audit_log(handshake, rows):
    refusal = refused(handshake.auth, Request(tee="snp").to_bytes())
    (row,) = rows()
    assert (row.event, row.outcome, row.tee, row.detail) == (
        "auth",
        "refused",
        "snp",
        refusal.detail,
    )


def test_auth_malformed_is_format_error(handshake):
    with pytest.raises(FormatError):
        handshake.auth(b"{")


def test_auth_beyond_the_limit_refused_until_sessions_expire(guest, clock):
    for _ in range(20):
        guest.auth()
    refusal = refused(guest.auth)
    assert (refusal.name, refusal.status) == ("TooManySessions", 429)
    clock.advance(minutes=5)
    guest.auth()


@pytest.mark.parametrize("cookie", [None, "", "0" * 32])
def test_attest_without_a_session_refused(handshake, guest, rows, cookie):
    """2."""
    _, nonce = guest.auth()
    for refusal in (
        refused(handshake.attest, cookie, guest.message(nonce)),
        refused(handshake.check_session, cookie),
    ):
        assert (refusal.name, refusal.status) == ("SessionNotFound", 401)
        assert rows()[-1].detail == refusal.detail


def test_attest_in_an_expired_session_refused(handshake, guest, clock):
    """2: the lifetime counts from auth."""
    cookie, nonce = guest.auth()
    clock.advance(minutes=4, seconds=59)
    other = guest.auth()
    clock.advance(seconds=1)
    assert refused(handshake.attest, cookie, guest.message(nonce)).name == "SessionNotFound"
    handshake.attest(other[0], guest.message(other[1]))


def test_attest_with_the_nonce_of_another_session_refused(handshake, guest):
    """2: good evidence, replayed into another handshake."""
    _, nonce = guest.auth()
    cookie, _ = guest.auth()
    refusal = refused(handshake.attest, cookie, guest.message(nonce))
    assert "nonce is not the one of this session" in refusal.detail


def test_attest_with_evidence_for_another_nonce_refused(handshake, guest):
    """3: the right nonce in the message, an old one in the evidence."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce, bound_nonce=base64.b64encode(bytes(32)).decode())
    refusal = refused(handshake.attest, cookie, message)
    assert refusal.status == 401
    assert "other report data" in refusal.detail


def test_attest_with_evidence_for_another_key_refused(handshake, guest):
    """3: who relays somebody's evidence cannot put his own key beside it."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce, key=TEEKey(), bound_key=guest.key)
    assert "other report data" in refused(handshake.attest, cookie, message).detail


def test_attest_again_with_the_same_message_gives_the_same_token(handshake, guest, rows):
    """4: a lost answer may be asked for again."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    first = handshake.attest(cookie, message)
    assert handshake.attest(cookie, message).body == first.body
    assert len(rows()) == 1


def test_attest_again_with_another_key_refused(handshake, guest, rows):
    """4: a stolen cookie does not buy a token for the thief's key."""
    cookie, nonce = guest.auth()
    handshake.attest(cookie, guest.message(nonce))
    refusal = refused(handshake.attest, cookie, guest.message(nonce, key=TEEKey()))
    assert refusal.status == 401
    assert "attested already" in refusal.detail
    assert [row.outcome for row in rows()] == ["ok", "refused"]


def test_attest_again_leaves_the_first_token_good(handshake, state, guest):
    """4."""
    cookie, token = guest.attest()
    refused(handshake.attest, cookie, b"noise")
    with state.store.transaction() as transaction:
        session = transaction.find_session(cookie, 0)
    assert session.token == token


def test_attest_from_many_threads_with_many_keys_exactly_one_wins(handshake, guest):
    """4: the change from open to attested happens once."""
    cookie, nonce = guest.auth()
    messages = [guest.message(nonce, key=TEEKey()) for _ in range(8)]
    barrier = threading.Barrier(8)
    results = []

    def run(message):
        barrier.wait()
        try:
            results.append(handshake.attest(cookie, message).body)
        except Refusal as refusal:
            results.append(refusal.name)

    threads = [threading.Thread(target=run, args=(message,)) for message in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, bytes) for one in results) == 1
    assert results.count("AttestationError") == 7


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"{",
        lambda _: b"[]",
        lambda message: message.replace(b'"P-256"', b'"P-384"'),
        lambda message: message.replace(b'"svn":"1"', b'"svn":1'),
        lambda message: message.replace(
            b'"additional_evidence":""', b'"additional_evidence":"{1}"'
        ),
    ],
    ids=["not JSON", "no object", "other curve", "bad evidence", "device evidence"],
)
def test_attest_refused_ends_the_session(handshake, guest, rows, spoil):
    """5: a nonce is tried once."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    refusal = refused(handshake.attest, cookie, spoil(message))
    assert refusal.status in (400, 401)
    assert refused(handshake.attest, cookie, message).name == "SessionNotFound"
    row = rows()[0]
    assert (row.outcome, row.detail, row.tee) == ("refused", refusal.detail, "sample")


def test_attest_point_off_the_curve_refused(handshake, guest):
    """2: no token is made for a key that nothing can be sealed to."""
    cookie, nonce = guest.auth()
    key = TEEKey()
    key.public = type(key.public)(crv="P-256", x=key.public.y, y=key.public.x)
    refusal = refused(handshake.attest, cookie, guest.message(nonce, key=key))
    assert (refusal.name, refusal.status) == ("SerdeError", 400)
    assert "point on P-256" in refusal.detail


def test_attest_with_init_data_says_that_it_was_not_judged(handshake, guest, rows):
    cookie, nonce = guest.auth()
    answer = handshake.attest(cookie, guest.message(nonce, init_data=InitData("toml", "x")))
    token = json.loads(answer.body)["token"]
    assert "toml" not in base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()
    assert "init data was not judged" in rows()[0].detail


def test_attest_verifier_that_breaks_is_our_fault_and_gives_no_token(handshake, state, guest):
    class Broken:
        tee = "sample"

        def verify(self, *_, **__):
            raise ZeroDivisionError

    cookie, nonce = guest.auth()
    state.verifiers["sample"] = Broken()
    with pytest.raises(ZeroDivisionError):
        handshake.attest(cookie, guest.message(nonce))
    with state.store.transaction() as transaction:
        assert transaction.find_session(cookie, 0).token is None


def test_attest_verifier_that_speaks_for_another_tee_gives_no_token(handshake, state, guest):
    class Other:
        tee = "sample"

        def verify(self, *_, **more):
            return Claims("snp", "cpu", {}, more["now"])

    cookie, nonce = guest.auth()
    state.verifiers["sample"] = Other()
    with pytest.raises(RuntimeError, match="'sample' gave claims of 'snp'"):
        handshake.attest(cookie, guest.message(nonce))


def test_attest_unsupported_key_is_refused_not_raised(handshake, guest):
    cookie, nonce = guest.auth()
    message = guest.message(nonce).replace(b"ECDH-ES+A256KW", b"ECDH-ES+A128KW")
    try:
        refusal = refused(handshake.attest, cookie, message)
    except Unsupported:  # pragma: no cover
        pytest.fail("the error of the parser left the handshake")
    assert refusal.name == "SerdeError"
