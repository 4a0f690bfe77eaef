# SPDX-License-Identifier: Apache-2.0
import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from imagers.errors import (
    AttestationError,
    EvidenceRejected,
    EvidenceStale,
    FormatError,
    KeyRefused,
    KeyUnavailable,
    NoTEE,
    NotFound,
    RateLimited,
    RemoteError,
    TagMismatch,
    TimedOut,
    Unauthorized,
    UsageError,
)
from imagers.evidence.plugins import load_attester
from imagers.kbs.client import BrokerClient
from imagers.kbs.jwe import seal_answer
from imagers.kbs.messages import parse_attestation, parse_request
from imagers.kbs.tee_key import ECKey
from imagers.model.digest import digest_of
from imagers.model.evidence import Evidence
from imagers.model.keys import SecretKey
from imagers.net.http import HTTPSettings
from imagers.net.retry import RetryPolicy
from imagers.waiting import Cancellation

URI = "kbs:///default/key/1"
IMAGE = digest_of(b"manifest")
OTHER = digest_of(b"another manifest")
SECRET = b"a very secret key-encryption key"
ONCE = HTTPSettings(retry=RetryPolicy(attempts=1))

AUTH, ATTEST, RESOURCE = "/kbs/v0/auth", "/kbs/v0/attest", "/kbs/v0/resource/default/key/1"
CHALLENGE = json.dumps({"nonce": "bm9uY2U=", "extra-params": ""}).encode()
COOKIE = {"Set-Cookie": "kbs-session-id=0123abc; Expires=Wed, 21 Oct 2026 07:28:00 GMT"}
TOKEN = {"token": "aaa.bbb.ccc"}


def read(client, digest=IMAGE, uri=URI):
    with client.get(uri, manifest_digest=digest) as secret, secret.view() as data:
        return bytes(data)


@pytest.fixture
def client(embedded):
    embedded.put(URI, SECRET, image=IMAGE)
    with embedded.client() as one:
        yield one


@pytest.fixture
def trustee(scripted):
    """A peer that answers as Trustee does: a good handshake, and 401 for every refusal."""
    scripted.say(AUTH, (200, COOKIE, CHALLENGE))
    scripted.say(ATTEST, (200, COOKIE, json.dumps(TOKEN).encode()))
    return scripted


@pytest.fixture
def guest(trustee):
    with BrokerClient(trustee.url, attester=load_attester("sample"), http=ONCE) as one:
        yield one


def sealed_for(trustee, secret=SECRET):
    """The answer for the key of the last handshake that `trustee` saw."""
    body = [one[3] for one in trustee.requests if one[1] == ATTEST][-1]
    return seal_answer(SecretKey(secret), parse_attestation(body).tee_pubkey)


# With our broker


def test_get_bound_secret_gives_it(client):
    assert read(client) == SECRET


def test_get_many_secrets_take_one_handshake(embedded, client):
    for number in range(5):
        embedded.put(f"kbs:///default/many/{number}", b"%d" % number, image=IMAGE)
    got = [read(client, uri=f"kbs:///default/many/{number}") for number in range(5)]
    assert got == [b"0", b"1", b"2", b"3", b"4"]
    assert embedded.handshakes == 1
    assert embedded.releases == 5


MANY = [f"kbs:///default/many/{number}" for number in range(130)]  # more than one request takes


def opened(secrets):
    read = {}
    for uri, secret in secrets.items():
        with secret, secret.view() as data:
            read[uri] = bytes(data)
    return read


def test_get_all_gives_every_secret_by_one_handshake(embedded, client):
    for uri in MANY:
        embedded.put(uri, uri.encode(), image=IMAGE)
    assert opened(client.get_all(MANY, manifest_digest=IMAGE)) == {u: u.encode() for u in MANY}
    assert embedded.handshakes == 1
    assert embedded.releases == len(MANY)


@pytest.mark.parametrize("image", [OTHER, None], ids=["refused", "missing"])
def test_get_all_gives_none_where_one_is_not_to_be_had(embedded, client, image):
    for uri in MANY[:-1]:
        embedded.put(uri, b"secret", image=IMAGE)
    if image is not None:
        embedded.put(MANY[-1], b"secret", image=image)
    assert client.get_all(MANY, manifest_digest=IMAGE) == {}
    # It was no fault of the request: the next one is asked so again.
    assert len(opened(client.get_all(MANY[:2], manifest_digest=IMAGE))) == 2


def test_get_all_of_no_image_names_none(embedded, client):
    embedded.put(MANY[0], b"secret", image=IMAGE)
    assert client.get_all([MANY[0]], manifest_digest=None) == {}


def test_get_from_many_threads_takes_one_handshake(embedded, client):
    barrier = threading.Barrier(8)
    results = []

    def run():
        barrier.wait()
        results.append(read(client))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [SECRET] * 8
    assert embedded.handshakes == 1


@pytest.mark.parametrize(
    ("digest", "piece"),
    [(OTHER, f"not bound to the image {OTHER}"), (None, "names no image")],
    ids=["another image", "no image"],
)
def test_get_for_another_image_refused_with_the_rule_and_one_handshake(
    embedded, client, digest, piece
):
    for _ in range(2):
        with pytest.raises(KeyRefused) as caught:
            client.get(URI, manifest_digest=digest)
        assert caught.value.exit_code == 31
        assert "rule 'bound-image'" in caught.value.reason
        assert piece in caught.value.reason
        assert str(IMAGE) not in caught.value.reason
    assert embedded.handshakes == 1
    assert embedded.releases == 0


def test_get_without_binding_refused(embedded, client):
    embedded.put("kbs:///default/key/2", SECRET)
    with pytest.raises(KeyRefused, match="not bound to any image"):
        client.get("kbs:///default/key/2", manifest_digest=IMAGE)


def test_get_denied_by_policy_refused_and_allowed_again_in_the_same_session(embedded, client):
    embedded.deny()
    with pytest.raises(KeyRefused, match="rule 'deny-all' denies it"):
        client.get(URI, manifest_digest=IMAGE)
    embedded.allow_bound()
    assert read(client) == SECRET
    assert embedded.handshakes == 1


def test_get_missing_secret_is_unavailable(embedded, client):
    with pytest.raises(KeyUnavailable) as caught:
        client.get("kbs:///default/key/none", manifest_digest=IMAGE)
    assert caught.value.exit_code == 30
    assert not isinstance(caught.value, KeyRefused)
    assert "'kbs:///default/key/none'" in str(caught.value)
    assert embedded.handshakes == 1


def test_get_after_the_session_expired_shakes_hands_once_more(embedded, client):
    assert read(client) == SECRET
    with embedded.clock_moved(timedelta(minutes=5, seconds=1)):
        assert read(client) == SECRET
        assert read(client) == SECRET
    assert embedded.handshakes == 2


def test_get_uri_that_is_none_refused_before_anything_is_sent(embedded, client):
    with pytest.raises(FormatError):
        client.get("https://example.org/key", manifest_digest=None)
    assert embedded.handshakes == 0


class Liar:
    """An attester whose evidence is for something else."""

    tee = "sample"

    def __init__(self, change):
        self._change = change

    def collect(self, report_data):
        good = load_attester("sample").collect(report_data)
        return Evidence(tee=good.tee, body=self._change(good.body), report_data=report_data)


@pytest.mark.parametrize(
    ("change", "piece"),
    [
        (
            lambda body: body | {"report_data": base64.b64encode(bytes(48)).decode()},
            "other report data",
        ),
        (lambda body: body | {"report_data": ""}, "other report data"),
        (lambda body: body | {"report_data": "!"}, "expected base64"),
        (lambda _: [], "expected an object"),
        (lambda _: {"svn": "1"}, "is missing"),
    ],
)
def test_get_with_bad_evidence_rejected_and_nothing_released(embedded, change, piece):
    embedded.put(URI, SECRET, image=IMAGE)
    with (
        BrokerClient(embedded.url, attester=Liar(change)) as client,
        pytest.raises(EvidenceRejected) as caught,
    ):
        client.get(URI, manifest_digest=IMAGE)
    assert caught.value.exit_code == 40
    assert piece in str(caught.value)
    assert embedded.handshakes == 0
    assert [row.outcome for row in embedded.log if row.event == "attest"] == ["refused"]


def test_get_of_a_tee_that_the_broker_does_not_take_is_attestation_error(embedded):
    class Unknown:
        tee = "snp"

        def collect(self, report_data):
            raise AssertionError(report_data)  # unreachable: the broker refuses before

    with (
        BrokerClient(embedded.url, attester=Unknown()) as client,
        pytest.raises(AttestationError, match="no evidence of the TEE 'snp'"),
    ):
        client.get(URI, manifest_digest=None)


def test_get_error_of_the_attester_passes_unchanged(embedded):
    class Absent:
        tee = "sample"

        def collect(self, report_data):
            assert len(report_data.digest) == 48
            raise NoTEE("no device here")

    with (
        BrokerClient(embedded.url, attester=Absent()) as client,
        pytest.raises(NoTEE, match="no device here"),
    ):
        client.get(URI, manifest_digest=None)


class Hanging:
    """A device that gives no evidence until it is told to."""

    tee = "sample"

    def __init__(self):
        self.go_on = threading.Event()
        self.asked = threading.Event()

    def collect(self, report_data):
        self.asked.set()
        self.go_on.wait(60)
        return load_attester("sample").collect(report_data)


def test_device_that_hangs_is_waited_for_until_a_limit_and_the_next_one_may_ask_again(embedded):
    device = Hanging()
    embedded.put(URI, SECRET, image=IMAGE)
    with BrokerClient(embedded.url, attester=device) as client:
        limit = Cancellation(seconds=0.5, phase="keys")
        with pytest.raises(TimedOut) as caught, limit.in_force():
            read(client)
        assert caught.value.waited_for == "evidence of the TEE 'sample'"
        device.go_on.set()
        assert read(client) == SECRET


def test_handshake_of_another_thread_is_waited_for_until_a_limit(embedded):
    device = Hanging()
    embedded.put(URI, SECRET, image=IMAGE)
    with BrokerClient(embedded.url, attester=device) as client:
        first = ThreadPoolExecutor(1)
        result = first.submit(read, client)
        assert device.asked.wait(30)
        with (
            pytest.raises(TimedOut, match="waited for another handshake with 127"),
            Cancellation(seconds=0.5, phase="keys").in_force(),
        ):
            read(client)
        device.go_on.set()
        assert result.result(30) == SECRET  # the one that had no limit
        first.shutdown()
    assert embedded.handshakes == 1


def test_get_from_a_dead_broker_is_remote_error(embedded):
    url = embedded.url.replace("127.0.0.1", "127.0.0.1").rpartition(":")[0] + ":1"
    with (
        BrokerClient(url, attester=embedded.attester, http=ONCE) as client,
        pytest.raises(RemoteError, match="refused"),
    ):
        client.get(URI, manifest_digest=None)


def test_get_over_plain_http_from_another_machine_refused(embedded):
    with (
        BrokerClient("http://192.0.2.1", attester=embedded.attester) as client,
        pytest.raises(UsageError),
    ):
        client.get(URI, manifest_digest=None)


def test_client_prints_no_session(client):
    read(client)
    assert "Bearer" not in repr(client)
    assert "kbs-session-id" not in repr(client._session)


# With a peer that answers as Trustee


def test_get_from_trustee_sends_what_it_wants(trustee, guest):
    trustee.say(RESOURCE, (401, {}, b"{}"))
    with pytest.raises(RemoteError):
        guest.get(URI, manifest_digest=IMAGE)
    (auth, attest, resource) = trustee.requests
    assert auth[:2] == ("POST", AUTH)
    assert parse_request(auth[3]).version == "0.4.0"
    assert attest[2]["Cookie"] == "kbs-session-id=0123abc"
    assert parse_attestation(attest[3]).nonce == "bm9uY2U="
    assert resource[1] == f"{RESOURCE}?image-digest={IMAGE}"
    assert resource[2]["Authorization"] == "Bearer aaa.bbb.ccc"
    assert resource[2]["Cookie"] == "kbs-session-id=0123abc"


def test_init_data_of_the_machine_is_sent_along(trustee):
    document = 'version = "0.1.0"'
    attester = load_attester("sample")
    for init_data in (None, document):
        with (
            BrokerClient(trustee.url, attester=attester, init_data=init_data, http=ONCE) as one,
            pytest.raises(RemoteError),
        ):
            one.get(URI, manifest_digest=IMAGE)
    without, sent = (parse_attestation(one[3]) for one in trustee.requests if one[1] == ATTEST)
    assert without.init_data is None
    assert (sent.init_data.format, sent.init_data.body) == ("toml", document)


def test_get_without_image_sends_no_query(trustee, guest):
    trustee.say_error(RESOURCE, 401, "PolicyDeny")
    with pytest.raises(KeyRefused):
        guest.get(URI, manifest_digest=None)
    assert trustee.requests[-1][1] == RESOURCE


def test_get_denied_by_trustee_refused_after_one_handshake(trustee, guest):
    trustee.say_error(RESOURCE, 401, "PolicyDeny", "Access denied by policy")
    for _ in range(2):
        with pytest.raises(KeyRefused) as caught:
            guest.get(URI, manifest_digest=IMAGE)
        assert caught.value.reason == "PolicyDeny: Access denied by policy"
    assert trustee.count(ATTEST) == 1


def test_get_missing_at_trustee_refused_with_a_hint(trustee, guest):
    trustee.say_error(RESOURCE, 401, "PluginInternalError", "internal plugin error")
    with pytest.raises(KeyRefused) as caught:
        guest.get(URI, manifest_digest=IMAGE)
    assert "no such resource" in (caught.value.hint or "")
    assert trustee.count(ATTEST) == 1


@pytest.mark.parametrize("name", ["TokenNotFound", "AttestationError", "SomethingNew"])
def test_get_401_in_an_old_session_costs_one_handshake_more(trustee, guest, name):
    guest._current(stale=None)
    trustee.say_error(RESOURCE, 401, name, "x")
    with pytest.raises((AttestationError, KeyRefused)):
        guest.get(URI, manifest_digest=IMAGE)
    assert trustee.count(ATTEST) == 2
    assert trustee.count(RESOURCE) == 2


def test_get_401_in_a_fresh_session_costs_none(trustee, guest):
    trustee.say_error(RESOURCE, 401, "TokenVerifierError", "x")
    with pytest.raises(AttestationError, match="does not know the session"):
        guest.get(URI, manifest_digest=IMAGE)
    assert trustee.count(ATTEST) == 1


def test_get_new_session_uses_a_new_key(guest):
    one, _ = guest._current(stale=None)
    other, _ = guest._current(stale=one)
    again, _ = guest._current(stale=one)
    assert one.key.public != other.key.public
    assert again is other


def test_get_answer_for_another_guest_is_tag_mismatch(trustee, guest):
    stolen = seal_answer(SecretKey(SECRET), ECKey().public)
    trustee.say(RESOURCE, (200, {}, stolen))
    with pytest.raises(TagMismatch):
        guest.get(URI, manifest_digest=IMAGE)


def test_get_answer_for_this_guest_is_opened(trustee, guest):
    guest._current(stale=None)
    trustee.say(RESOURCE, (200, {}, sealed_for(trustee)))
    assert read(guest) == SECRET


@pytest.mark.parametrize("body", [b"", b"plain secret", b"{}", b"[]"])
def test_get_answer_that_is_none_is_format_error(trustee, guest, body):
    trustee.say(RESOURCE, (200, {}, body))
    with pytest.raises(FormatError) as caught:
        guest.get(URI, manifest_digest=IMAGE)
    assert "plain secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (403, "PolicyDeny", KeyRefused),
        (403, "", Unauthorized),
        (404, "ResourceNotFound", KeyUnavailable),
        (404, "", NotFound),
        (429, "TooManySessions", RateLimited),
        (500, "InternalError", RemoteError),
        (400, "SerdeError", RemoteError),
        (204, "", RemoteError),
    ],
)
def test_get_status_maps_to_its_error(trustee, guest, status, name, kind):
    if name:
        trustee.say_error(RESOURCE, status, name, "x")
    else:
        trustee.say(RESOURCE, (status, {}, b""))
    with pytest.raises(kind) as caught:
        guest.get(URI, manifest_digest=IMAGE)
    assert type(caught.value) is kind
    assert trustee.count(ATTEST) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((AUTH, 401, "AttestationError"), AttestationError),
        ((AUTH, 400, "SerdeError"), AttestationError),
        ((AUTH, 429, "TooManySessions"), RateLimited),
        ((AUTH, 404, ""), NotFound),
        ((AUTH, 503, ""), RemoteError),
        ((ATTEST, 401, "AttestationError"), EvidenceRejected),
        ((ATTEST, 401, "SessionNotFound"), EvidenceStale),
        ((ATTEST, 500, "InternalError"), RemoteError),
        ((ATTEST, 404, ""), NotFound),
    ],
)
def test_handshake_status_maps_to_its_error(trustee, guest, answer, kind):
    path, status, name = answer
    if name:
        trustee.say_error(path, status, name, "some detail")
    else:
        trustee.say(path, (status, {}, b"<html>"))
    with pytest.raises(kind) as caught:
        guest.get(URI, manifest_digest=IMAGE)
    assert type(caught.value) is kind
    assert trustee.count(path) == 1
    assert trustee.count(RESOURCE) == 0


@pytest.mark.parametrize(
    "cookie",
    [
        {},
        {"Set-Cookie": "other=1"},
        {"Set-Cookie": "xkbs-session-id=1"},
        {"Set-Cookie": "kbs-session-id=; Path=/"},
        {"Set-Cookie": "kbs-session-id=" + "a" * 129},
    ],
)
def test_handshake_without_a_cookie_is_remote_error(trustee, guest, cookie):
    trustee.say(AUTH, (200, cookie, CHALLENGE))
    with pytest.raises(RemoteError, match="no cookie 'kbs-session-id'"):
        guest.get(URI, manifest_digest=IMAGE)


def test_handshake_token_that_could_split_a_header_refused(trustee, guest):
    trustee.say(ATTEST, (200, {}, b'{"token":"a.b.c\\r\\nX: y"}'))
    with pytest.raises(FormatError, match="JWT"):
        guest.get(URI, manifest_digest=IMAGE)


def test_handshake_that_failed_is_tried_again_by_the_next_get(trustee, guest):
    trustee.say(AUTH, (503, {}, b""), (200, COOKIE, CHALLENGE))
    with pytest.raises(RemoteError):
        guest.get(URI, manifest_digest=IMAGE)
    guest._current(stale=None)
    trustee.say(RESOURCE, (200, {}, sealed_for(trustee)))
    assert read(guest) == SECRET


# Many secrets in one request

RELEASE = "/imagers/v1/release"
TWO = [URI, "kbs:///default/key/2"]


@pytest.mark.parametrize("status", [404, 405])
def test_get_all_of_a_broker_that_knows_no_such_request_is_asked_once(trustee, guest, status):
    trustee.say(RELEASE, (status, {}, b"nothing here"))
    for _ in range(2):
        assert guest.get_all(TWO, manifest_digest=IMAGE) == {}
    assert trustee.count(RELEASE) == 1


def test_get_all_says_what_it_wants_and_shows_the_session(trustee, guest):
    trustee.say_error(RELEASE, 404, "ResourceNotFound", "there is no resource 'default/key/2'")
    for _ in range(2):
        assert guest.get_all(TWO, manifest_digest=IMAGE) == {}
    asked = [one for one in trustee.requests if one[1] == RELEASE]
    assert len(asked) == 2
    _, _, headers, body = asked[0]
    assert json.loads(body) == {
        "resources": ["default/key/1", "default/key/2"],
        "image-digest": str(IMAGE),
    }
    assert headers["Authorization"] == "Bearer aaa.bbb.ccc"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"[]", "expected an object"),
        (b'{"resources": {}}', "default/key/1"),
        (b'{"resources": {"default/key/1": {"protected": "e30"}}}', "is missing"),
    ],
)
def test_get_all_with_an_answer_that_is_none_is_told(trustee, guest, answer, told):
    trustee.say(RELEASE, (200, {}, answer))
    with pytest.raises(FormatError, match=told):
        guest.get_all(TWO, manifest_digest=IMAGE)
