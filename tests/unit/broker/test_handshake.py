# SPDX-License-Identifier: Apache-2.0
"""Names of tests that attack a step begin their docstring with its number in the module."""

import base64
import json
import threading
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta

import pytest

from imagers.broker import handshake as module
from imagers.broker.handshake import Handshake, _shown_init_data
from imagers.broker.refusals import Refusal
from imagers.broker.start import open_state
from imagers.errors import FormatError, LocalError, Unsupported
from imagers.evidence.init_data import make_init_data, parse_init_data
from imagers.evidence.plugins import load_attester, load_verifier
from imagers.kbs.messages import (
    Attestation,
    InitData,
    Request,
    RSAPublicKey,
    hash_device_data,
    hash_report_data,
    parse_challenge,
)
from imagers.kbs.tee_key import ECKey
from imagers.model.base64 import encode_base64url
from imagers.model.evidence import Claims
from tests.unit.broker.conftest import Now

SampleVerifier = type(load_verifier("sample"))


def refused(call, *arguments):
    with pytest.raises(Refusal) as caught:
        call(*arguments)
    return caught.value


def session_of(state, cookie):
    with state.store.reading() as transaction:
        return transaction.find_session(state.challenges.open_cookie(cookie).name)


def test_handshake_gives_a_token(state, guest, rows):
    _, token = guest.attest()
    attested = state.guest_tokens.check(token, now=state.now())
    assert (attested.tee, attested.tee_pubkey) == ("sample", guest.key.public)
    (row,) = rows()
    assert (row.event, row.outcome, row.tee) == ("attest", "ok", "sample")


def test_auth_gives_cookie_nonce_and_expiry(handshake, state):
    answer = handshake.auth(Request(tee="sample").to_bytes())
    assert state.challenges.open_cookie(answer.cookie).tee == "sample"
    assert len(base64.b64decode(parse_challenge(answer.body).nonce)) == 32
    assert answer.expires - state.now() == state.config.session_lifetime
    assert json.loads(answer.body)["extra-params"] == ""
    assert answer.session == ""


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


def test_auth_writes_nothing_down(state, guest):
    """1: who asks for challenges and shows no evidence takes nothing from anybody."""
    path = state.config.state_directory / "broker.sqlite-wal"
    before = path.stat().st_size
    for _ in range(200):
        guest.auth()
    assert path.stat().st_size == before
    with state.store.reading() as transaction:
        assert transaction.count_sessions() == 0
    guest.attest()


def test_auth_refused_is_told_of_the_caller(handshake, state, monkeypatch):
    told = []

    async def tell(_, event, **more):
        told.append((event.event, more))

    monkeypatch.setattr(type(state), "log_refusal", tell)
    refused(lambda: handshake.auth(Request(tee="snp").to_bytes(), caller="192.0.2.7"))
    refused(lambda: handshake.attest(None, b"", caller="192.0.2.8"))
    refused(lambda: handshake.check_session("x", caller="192.0.2.9"))
    assert told == [
        ("auth", {"caller": "192.0.2.7"}),
        ("attest", {"caller": "192.0.2.8"}),
        ("attest", {"caller": "192.0.2.9"}),
    ]
    told.clear()
    refused(handshake.auth, Request(tee="snp").to_bytes())
    refused(handshake.attest, None, b"")
    refused(handshake.check_session, "x")
    assert [more for _, more in told] == [{"caller": ""}] * 3


def test_attest_refused_is_told_of_the_caller(handshake, guest, state, monkeypatch):
    told = []

    async def tell(*_, **more):
        told.append(more)

    monkeypatch.setattr(type(state), "log_refusal", tell)
    cookie, _ = guest.auth()
    refused(lambda: handshake.attest(cookie, b"noise", caller="192.0.2.7"))
    refused(handshake.attest, cookie, b"noise")
    assert told == [{"caller": "192.0.2.7"}, {"caller": ""}]


def test_answer_cannot_be_changed(handshake):
    answer = handshake.auth(Request(tee="sample").to_bytes())
    with pytest.raises(FrozenInstanceError):
        answer.cookie = "x"
    assert not hasattr(answer, "__dict__")


@pytest.mark.parametrize(
    ("cookie", "detail"),
    [
        (None, "the request has no cookie of a session"),
        ("", "the session is unknown or expired"),
        ("0" * 32, "the session is unknown or expired"),
    ],
)
def test_attest_without_a_session_refused(handshake, guest, rows, cookie, detail):
    """2."""
    _, nonce = guest.auth()
    for refusal in (
        refused(handshake.attest, cookie, guest.message(nonce)),
        refused(handshake.check_session, cookie),
    ):
        assert (refusal.name, refusal.status) == ("SessionNotFound", 401)
        row = rows()[-1]
        assert (row.event, row.outcome, row.detail) == ("attest", "refused", detail)


def test_check_session_gives_what_the_cookie_says(handshake, guest, state):
    ticket = handshake.check_session(guest.auth()[0])
    assert (ticket.tee, ticket.algorithm) == ("sample", "sha384")
    lifetime = timedelta(milliseconds=ticket.expires_ms - state.session_time.now_ms())
    assert lifetime == state.config.session_lifetime


def test_attest_with_the_cookie_of_another_store_refused(guest, handshake, state, tmp_path):
    """2: the same master key, another database."""
    folder = tmp_path / "other"
    folder.mkdir(mode=0o700)
    for name in ("master.key", "admin.key", "admin.pub"):
        (folder / name).write_bytes((state.config.state_directory / name).read_bytes())
        (folder / name).chmod(0o600)
    other = open_state(replace(state.config, state_directory=folder))
    cookie, nonce = guest.auth()
    refusal = refused(Now(Handshake(other)).attest, cookie, guest.message(nonce))
    assert refusal.name == "SessionNotFound"
    handshake.attest(cookie, guest.message(nonce))
    other.close()


def test_attest_at_another_process_of_the_store_taken_and_taken_once(guest, state, rows):
    """2, 4: no state that matters is in a process."""
    other = open_state(state.config)
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    answer = Now(Handshake(other)).attest(cookie, message)
    assert Now(Handshake(state)).attest(cookie, message).body == answer.body
    other_key = guest.message(nonce, key=ECKey())
    assert "attested already" in refused(Now(Handshake(state)).attest, cookie, other_key).detail
    assert [row.event for row in rows()].count("attest") == 2
    other.close()


def test_attest_in_an_expired_session_refused(handshake, guest, clock):
    """2: the lifetime counts from auth."""
    cookie, nonce = guest.auth()
    clock.advance(minutes=4, seconds=59)
    other = guest.auth()
    clock.advance(seconds=1)
    assert refused(handshake.attest, cookie, guest.message(nonce)).name == "SessionNotFound"
    # Before anything of the message is looked at.
    assert refused(handshake.attest, cookie, b"noise").name == "SessionNotFound"
    handshake.attest(other[0], guest.message(other[1]))


def test_attest_with_the_nonce_of_another_session_refused(handshake, guest):
    """2: good evidence, replayed into another handshake."""
    _, nonce = guest.auth()
    cookie, _ = guest.auth()
    refusal = refused(handshake.attest, cookie, guest.message(nonce))
    assert (refusal.name, refusal.status) == ("AttestationError", 401)
    assert "nonce is not the one of this session" in refusal.detail


def test_attest_of_another_tee_than_announced_refused(handshake, state, guest):
    """2: the cookie says which verifier judges; the message cannot."""
    cookie, _ = state.challenges.issue(
        "snp", algorithm="sha384", expires_ms=state.session_time.now_ms() + 1000
    )
    _, nonce = guest.auth()
    assert "nonce" in refused(handshake.attest, cookie, guest.message(nonce)).detail


def test_attest_hashes_with_the_algorithm_of_the_cookie(handshake, state, guest):
    """2, 3: evidence for another one is for other report data."""
    cookie, nonce = state.challenges.issue(
        "sample", algorithm="sha512", expires_ms=state.session_time.now_ms() + 1000
    )
    message = json.loads(guest.message(nonce))
    assert refused(handshake.attest, cookie, json.dumps(message).encode()).status == 401
    report_data = hash_report_data(nonce=nonce, tee_pubkey=guest.key.public, report_hash="sha512")
    message["tee-evidence"]["primary_evidence"] = load_attester("sample").collect(report_data).body
    handshake.attest(cookie, json.dumps(message).encode())


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
    message = guest.message(nonce, key=ECKey(), bound_key=guest.key)
    assert "other report data" in refused(handshake.attest, cookie, message).detail


def test_attest_again_with_the_same_message_gives_the_same_token(handshake, guest, rows):
    """4: a lost answer may be asked for again."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    first = handshake.attest(cookie, message)
    assert handshake.attest(cookie, message).body == first.body
    assert len(rows()) == 1


def test_attest_again_with_the_same_message_is_not_judged_again(handshake, state, guest):
    """4: whatever the verifier would say now."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    first = handshake.attest(cookie, message)
    state.verifiers.clear()
    assert handshake.attest(cookie, message).body == first.body


def devices(guest, nonce, text, bound=None):
    """A message with evidence of devices, which its own evidence binds."""
    report_data = hash_report_data(
        nonce=nonce,
        tee_pubkey=guest.key.public,
        additional_evidence=text if bound is None else bound,
    )
    evidence = load_attester("sample").collect(report_data)
    return Attestation(
        nonce=nonce,
        tee_pubkey=guest.key.public,
        primary_evidence=evidence.body,
        additional_evidence=text,
    ).to_bytes()


def device_text(guest, nonce, *, key=None):
    """Evidence of a sample device for this handshake."""
    data = hash_device_data(nonce=nonce, tee_pubkey=(key or guest.key).public)
    return json.dumps({"sampledevice": load_attester("sampledevice").collect(data).body})


def test_attest_with_evidence_of_a_device_gives_a_token_with_a_submod_for_it(
    handshake, guest, rows
):
    cookie, nonce = guest.auth()
    message = devices(guest, nonce, device_text(guest, nonce))
    token = json.loads(handshake.attest(cookie, message).body)["token"]
    payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert {name: one["imagers.claims"]["tee"] for name, one in payload["submods"].items()} == {
        "cpu0": "sample",
        "gpu0": "sampledevice",
    }
    assert "sampledevice as contraindicated" in rows()[0].detail


def test_attest_with_evidence_of_a_device_of_another_guest_refused(handshake, guest):
    """The device binds the key of this handshake; the machine's word for it is not enough."""
    cookie, nonce = guest.auth()
    message = devices(guest, nonce, device_text(guest, nonce, key=ECKey()))
    assert "other report data" in refused(handshake.attest, cookie, message).detail


def test_attest_with_evidence_of_a_device_that_the_machine_does_not_bind_refused(handshake, guest):
    """Somebody on the way has put his own device into the message."""
    cookie, nonce = guest.auth()
    for bound in ("", "{}"):
        message = devices(guest, nonce, device_text(guest, nonce), bound=bound)
        assert "other report data" in refused(handshake.attest, cookie, message).detail


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"nvidia":"x"}', "takes no evidence of the device 'nvidia'"),
        ('{"sample":{"svn":"1","report_data":""}}', "takes no evidence of the device 'sample'"),
        ('{"sampledevice":{}}', "sample evidence at $.svn: is missing"),
        ('{"sampledevice":1,"sampledevice":2}', "sampledevice"),
        ("[]", "evidence of devices"),
        ("{", "evidence of devices"),
        (json.dumps({f"a{number}": 1 for number in range(9)}), "at most 8 kinds of devices, got 9"),
    ],
)
def test_attest_with_evidence_of_devices_that_is_none_refused(handshake, guest, text, why):
    cookie, nonce = guest.auth()
    assert why in refused(handshake.attest, cookie, devices(guest, nonce, text)).detail


def test_auth_for_a_device_alone_refused(handshake):
    """A GPU says nothing of the machine that it is in."""
    body = Request.offering_hashes("sampledevice").to_bytes()
    assert "beside that of a TEE, not alone" in refused(handshake.auth, body).detail


def test_attest_with_evidence_of_no_devices_is_bound_to_that(handshake, guest):
    """3: a guest without devices may say so, and its evidence is for these words."""
    cookie, nonce = guest.auth()
    message = devices(guest, nonce, "{}")
    other = message.replace(b'"additional_evidence":"{}"', b'"additional_evidence":""')
    assert other != message
    assert "other report data" in refused(handshake.attest, cookie, other).detail
    handshake.attest(cookie, message)


def test_attest_again_with_another_key_refused(handshake, guest, rows):
    """4: a stolen cookie does not buy a token for the thief's key."""
    cookie, nonce = guest.auth()
    handshake.attest(cookie, guest.message(nonce))
    refusal = refused(handshake.attest, cookie, guest.message(nonce, key=ECKey()))
    assert refusal.status == 401
    assert "attested already" in refusal.detail
    assert [row.outcome for row in rows()] == ["ok", "refused"]


def test_attest_again_leaves_the_first_token_good(handshake, state, guest):
    """4."""
    cookie, token = guest.attest()
    refused(handshake.attest, cookie, b"noise")
    assert session_of(state, cookie).token == token


def test_attest_from_many_threads_with_many_keys_exactly_one_wins(handshake, guest):
    """4: the change from open to attested happens once."""
    cookie, nonce = guest.auth()
    messages = [guest.message(nonce, key=ECKey()) for _ in range(8)]
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
def test_attest_refused_does_not_use_up_the_nonce(handshake, guest, rows, state, spoil):
    """5: nobody ends a handshake by sending noise, and other evidence may be tried."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    refusal = refused(handshake.attest, cookie, spoil(message))
    assert refusal.status in (400, 401)
    row = rows()[0]
    assert (row.outcome, row.detail, row.tee) == ("refused", refusal.detail, "sample")
    assert row.session == state.challenges.open_cookie(cookie).name[:12]
    assert session_of(state, cookie) is None
    handshake.attest(cookie, message)


def test_attest_refusals_of_one_caller_do_not_fill_the_audit_log(handshake, guest, rows):
    """5."""
    cookie, _ = guest.auth()
    for _ in range(100):
        refused(lambda: handshake.attest(cookie, b"noise", caller="192.0.2.1"))
    assert len(rows()) == 30
    guest.attest()
    assert len(rows()) == 31


def test_attest_session_is_kept_until_no_clock_takes_its_nonce(state, guest, clock):
    """4: its time, and the longest error of a clock."""
    first, _ = guest.attest()
    session = session_of(state, first)
    assert session.keep_until_ms - session.expires_ms == 300_000
    assert session.expires_ms == int((clock.now + timedelta(minutes=5)).timestamp() * 1000)
    clock.advance(minutes=10, milliseconds=-1)
    guest.attest()
    assert session_of(state, first) == session
    clock.advance(seconds=1)  # rows are dropped once a second
    guest.attest()
    assert session_of(state, first) is None


def test_attest_after_the_clock_went_back_takes_no_nonce_again(handshake, guest, clock, state):
    """4: the row is gone, but the store knows how late it was."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    handshake.attest(cookie, message)
    clock.advance(minutes=10)
    guest.attest()
    assert session_of(state, cookie) is None
    clock.advance(minutes=-5)
    assert refused(handshake.attest, cookie, message).name == "SessionNotFound"
    other = open_state(state.config)  # another process, that has not seen the time itself
    assert refused(Now(Handshake(other)).attest, cookie, message).name == "SessionNotFound"
    other.close()


def test_attest_while_another_process_sees_later_time_refused(handshake, guest, state):
    """4: the time of the store counts, not that of the process."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    with state.store.transaction() as transaction:
        transaction.keep_time(state.session_time.now_ms() + 300_000)
    assert refused(handshake.attest, cookie, message).name == "SessionNotFound"
    assert session_of(state, cookie) is None


def test_attest_keeps_the_time(guest, state):
    guest.attest()
    with state.store.reading() as transaction:
        assert transaction.store_row().seen_ms == state.session_time.now_ms()


def test_attest_with_a_clock_too_far_behind_is_our_fault(handshake, guest, state):
    """4."""
    cookie, nonce = guest.auth()
    with state.store.transaction() as transaction:
        transaction.keep_time(state.session_time.now_ms() + 300_001)
    with pytest.raises(LocalError, match="the clock is 300 s behind"):
        handshake.attest(cookie, guest.message(nonce))


def test_attest_after_the_store_began_again_is_for_those_who_ask_again(handshake, guest, state):
    """4: nonces of another time of this store are of another store."""
    cookie, nonce = guest.auth()
    with state.store.transaction() as transaction:
        transaction.begin_again(0)
    for _ in range(2):
        assert refused(handshake.attest, cookie, guest.message(nonce)).name == "SessionNotFound"
    guest.attest()


def test_attest_with_a_cookie_of_before_is_refused_however_much_the_broker_knows(
    handshake, guest, state, monkeypatch
):
    """4: while evidence is judged, another request tells the broker that the store began again."""
    issue = state.guest_tokens.issue

    def begin_again_meanwhile(*arguments, **more):
        with state.store.transaction() as transaction:
            transaction.begin_again(state.session_time.now_ms())
        with state.store.reading() as transaction:
            state.rules(transaction)
            assert state.challenges.store_id == transaction.store_row().id
        return issue(*arguments, **more)

    cookie, nonce = guest.auth()
    monkeypatch.setattr(state.guest_tokens, "issue", begin_again_meanwhile)
    assert refused(handshake.attest, cookie, guest.message(nonce)).name == "SessionNotFound"


def test_broker_knows_that_the_store_began_again_by_any_look(state):
    with state.store.transaction() as transaction:
        transaction.begin_again(0)
        state.rules(transaction)  # it may be undone
        assert state.challenges.store_id != transaction.store_row().id
    with state.store.reading() as transaction:
        state.rules(transaction)
        assert state.challenges.store_id == transaction.store_row().id


def test_attest_after_the_store_lost_its_sessions_takes_no_nonce_of_before(
    handshake, guest, state, rows
):
    """4: or what was attested once would be so again."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    handshake.attest(cookie, message)
    with state.store.transaction() as transaction:  # as a database that keeps them in memory
        transaction._run("DELETE FROM sessions")
        transaction._run("DELETE FROM era")
    before = state.challenges.store_id
    for _ in range(2):
        assert refused(handshake.attest, cookie, message).name == "SessionNotFound"
    assert state.challenges.store_id != before
    guest.attest()
    assert [row.detail for row in rows() if "lost its sessions" in row.detail] != []


def test_attest_while_judging_takes_the_rest_of_the_time_refused(
    handshake, guest, clock, state, monkeypatch
):
    """4: what counts is when the row is written."""
    issue = state.guest_tokens.issue

    def slow(*arguments, **more):
        clock.advance(minutes=5)
        return issue(*arguments, **more)

    cookie, nonce = guest.auth()
    monkeypatch.setattr(state.guest_tokens, "issue", slow)
    assert refused(handshake.attest, cookie, guest.message(nonce)).name == "SessionNotFound"
    assert session_of(state, cookie) is None


def test_attest_beyond_the_limit_refused_until_sessions_are_over(guest, clock, handshake, rows):
    """6."""
    first = guest.auth()
    for _ in range(20):
        guest.attest()
    refusal = refused(guest.attest)
    assert (refusal.name, refusal.status) == ("TooManySessions", 429)
    assert refusal.detail == "too many guests have attested; try later"
    assert rows()[-1].detail == refusal.detail
    assert refused(handshake.attest, first[0], guest.message(first[1])).status == 429
    clock.advance(minutes=10)
    guest.attest()


def test_attest_gives_the_verifier_the_time_of_the_broker(guest, state, clock):
    class Recording(SampleVerifier):
        def verify(self, evidence, **more):
            self.now = more["now"]
            return super().verify(evidence, **more)

    verifier = state.verifiers["sample"] = Recording()
    guest.attest()
    assert verifier.now == clock.now


class Machines(SampleVerifier):
    """Verifies sample evidence, and tells the machines apart."""

    machine = ""

    def verify(self, evidence, **more):
        return replace(super().verify(evidence, **more), instance=self.machine)


def test_attest_of_one_machine_too_often_refused_and_of_others_taken(guest, state, clock):
    """6: one machine cannot take the places of all."""
    machines = state.verifiers["sample"] = Machines()
    machines.machine = "chip-1"
    for _ in range(3):
        cookie, _ = guest.attest()
    assert session_of(state, cookie).instance == "chip-1"
    refusal = refused(guest.attest)
    assert (refusal.name, refusal.detail) == (
        "TooManySessions",
        "this machine has attested too often; try later",
    )
    machines.machine = "chip-2"
    guest.attest()
    machines.machine = ""
    for _ in range(4):
        guest.attest()
    machines.machine = "chip-1"
    clock.advance(minutes=10)
    guest.attest()


def test_attest_with_claims_that_make_a_huge_token_refused(handshake, guest, monkeypatch):
    """6: each session keeps one."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    monkeypatch.setattr(module, "_MAX_TOKEN", 10)
    refusal = refused(handshake.attest, cookie, message)
    assert refusal.name == "AttestationError"
    assert "expected claims for a token of at most 10 characters" in refusal.detail
    monkeypatch.undo()
    token = json.loads(handshake.attest(cookie, message).body)["token"]
    assert 4 * len(token) < module._MAX_TOKEN == 32 * 1024


def test_attest_token_of_the_longest_length_taken(handshake, guest, monkeypatch, state):
    """6."""
    cookie, nonce = guest.auth()
    message = guest.message(nonce)
    issue = state.guest_tokens.issue
    tokens = []

    def same(*arguments, **more):
        if not tokens:
            tokens.append(issue(*arguments, **more))
        return tokens[0]

    monkeypatch.setattr(state.guest_tokens, "issue", same)
    monkeypatch.setattr(module, "_MAX_TOKEN", 10)
    refused(handshake.attest, cookie, message)
    monkeypatch.setattr(module, "_MAX_TOKEN", len(tokens[0]))
    handshake.attest(cookie, message)


def test_attest_answer_has_the_cookie_and_the_first_expiry(handshake, guest, clock, state):
    cookie, nonce = guest.auth()
    began = clock.now
    clock.advance(minutes=1)
    answer = handshake.attest(cookie, guest.message(nonce))
    assert (answer.cookie, answer.expires) == (cookie, began + timedelta(minutes=5))
    assert answer.session == state.challenges.open_cookie(cookie).name
    token = json.loads(answer.body)["token"]
    payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert payload["exp"] == int(answer.expires.timestamp())
    assert payload["iat"] == int(clock.now.timestamp())


def test_attest_row_names_the_session(guest, state, rows):
    cookie, _ = guest.attest()
    (row,) = rows()
    assert row.session == state.challenges.open_cookie(cookie).name[:12]
    assert row.detail == "evidence was accepted; appraised as contraindicated"


def test_attest_with_an_rsa_modulus_of_zeros_and_few_bits_refused(handshake, guest):
    """2: 784 bits in 256 bytes; its secrets would be anybody's who factors it."""
    cookie, nonce = guest.auth()
    key = ECKey()
    key.public = RSAPublicKey(n=encode_base64url(bytes(158) + b"\xff" * 98), e="AQAB")
    refusal = refused(handshake.attest, cookie, guest.message(nonce, key=key))
    assert (refusal.name, refusal.status) == ("SerdeError", 400)
    assert "zero bytes in front" in refusal.detail


def test_attest_point_off_the_curve_refused(handshake, guest):
    """2: no token is made for a key that nothing can be sealed to."""
    cookie, nonce = guest.auth()
    key = ECKey()
    key.public = type(key.public)(crv="P-256", x=key.public.y, y=key.public.x)
    refusal = refused(handshake.attest, cookie, guest.message(nonce, key=key))
    assert (refusal.name, refusal.status) == ("SerdeError", 400)
    assert "point on P-256" in refusal.detail


INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n'


@pytest.mark.parametrize(
    ("kind", "body"), [("toml", "x"), ("json", INIT_DATA), ("toml", ""), ("toml", "SURROGATE")]
)
def test_attest_with_what_is_no_init_data_refused(handshake, guest, kind, body):
    cookie, nonce = guest.auth()
    message = guest.message(nonce, init_data=InitData(kind, body))
    refusal = refused(handshake.attest, cookie, message.replace(b"SURROGATE", b"\\ud800"))
    assert refusal.name == "SerdeError"


def test_attest_with_init_data_says_that_it_was_not_judged(handshake, guest, rows):
    cookie, nonce = guest.auth()
    answer = handshake.attest(cookie, guest.message(nonce, init_data=InitData("toml", INIT_DATA)))
    token = json.loads(answer.body)["token"]
    assert "toml" not in base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()
    assert "init data was not judged" in rows()[0].detail


def test_init_data_that_is_too_long_for_a_token_is_not_seen_and_no_refusal():
    claims = Claims(
        tee="snp",
        tee_class="cpu",
        maker="m",
        measured=(),
        debug=False,
        report_data="",
        init_data="00",
        values={},
        established_at=datetime(2026, 11, 1, tzinfo=UTC),
    )
    short, long = ({"a": "x" * size} for size in (100, 13_000))
    assert shown(short, claims) == short
    assert shown(long, claims) is None
    assert shown(short, replace(claims, init_data="")) is None


def shown(data, claims):
    return _shown_init_data(parse_init_data(make_init_data(data)), claims)


def test_attest_verifier_that_breaks_is_our_fault_and_gives_no_token(handshake, state, guest):
    class Broken(SampleVerifier):
        def verify(self, *_, **__):
            raise ZeroDivisionError

    cookie, nonce = guest.auth()
    state.verifiers["sample"] = Broken()
    with pytest.raises(ZeroDivisionError):
        handshake.attest(cookie, guest.message(nonce))
    assert session_of(state, cookie) is None


def test_attest_verifier_that_speaks_for_another_tee_gives_no_token(handshake, state, guest):
    class Other(SampleVerifier):
        def verify(self, evidence, **more):
            return replace(super().verify(evidence, **more), tee="snp")

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


def test_sessions_that_the_database_lost_are_shaken_hands_for_once_more(state, guest, rows):
    guest.attest()
    with state.store.transaction() as transaction:
        transaction._run("DELETE FROM sessions")
        transaction._run("DELETE FROM era")
    with pytest.raises(Refusal, match="unknown or expired"):
        guest.attest()
    guest.attest()
    assert [row.event for row in rows() if "lost its sessions" in row.detail] == ["start"]
