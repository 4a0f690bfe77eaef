# SPDX-License-Identifier: Apache-2.0
"""What admins say of images, and that releases keep to it."""

import asyncio
import json
import secrets
import shutil
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from imagers.broker.config import BrokerConfig
from imagers.broker.handshake import Handshake
from imagers.broker.images import Images
from imagers.broker.keeping.rows import Admin, Approval
from imagers.broker.keeping.tables import DEFAULT_TENANT
from imagers.broker.refusals import Refusal
from imagers.broker.releases import Asked, Credentials, Releases
from imagers.broker.resources import Ends, Resources
from imagers.broker.start import open_state
from imagers.errors import FormatError, LocalError
from imagers.evidence.plugins import load_attester
from imagers.kbs.images import sign_approval
from imagers.kbs.messages import Attestation, Request, hash_report_data, parse_challenge
from imagers.kbs.tee_key import ECKey
from imagers.model.base64 import encode_base64
from imagers.model.digest import digest_of
from imagers.model.keys import SecretKey
from tests.postgresql import Server
from tests.unit.broker.conftest import Clock

REPOSITORY, PATH = "default", "default/key/1"
A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))
KEY = ECKey()
NEEDS_TWO = {
    "name": "two", "effect": "allow", "resource": "*/*/*", "image": "bound",
    "trust": "affirming", "approvals": 2,
}  # fmt: skip
ANY = {"name": "any", "effect": "allow", "resource": "*/*/*", "image": "any"}


def new_admin(name):
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    row = Admin(
        id=sha256(public).hexdigest(),
        tenant=DEFAULT_TENANT,
        name=name,
        roles=frozenset({"owner"}),
        public_key=public,
    )
    return SimpleNamespace(key=key, row=row)


ANN, BOB, EVE, ROOT = map(new_admin, ("ann", "bob", "eve", "root"))


class Broker:
    """One over a directory, in a loop of its own, with a clock that can be moved."""

    def __init__(self, directory, **config):
        self.clock = Clock()
        self._runner = asyncio.Runner()
        self._config = BrokerConfig(
            state_directory=directory, allow_sample_tee=True, clock=self.clock, **config
        )
        self._open()
        with self.state.store.transaction() as transaction:
            for one in (ANN, BOB, EVE, ROOT):
                if transaction.find_admin(one.row.id) is None:
                    transaction.insert_admin(one.row)

    def _open(self):
        self.state = open_state(self._config)
        self.images, self.resources = Images(self.state), Resources(self.state)
        self.handshake, self.releases = Handshake(self.state), Releases(self.state)

    def restart(self):
        self.state.close()
        self._open()

    def close(self):
        self._runner.close()
        self.state.close()

    def run(self, coroutine):
        return self._runner.run(coroutine)

    def policy(self, *rules):
        self.run(self.resources.set_policy(ROOT.row, json.dumps({"rules": rules}).encode()))

    def put(self, path=PATH, *, replace=False, ends=None):
        secret = SecretKey(b"secret")
        self.run(self.resources.put(ROOT.row, path, secret, replace=replace, ends=ends))

    def bind(self, digest, path=PATH, *, by=EVE):
        body = json.dumps({"manifest_digest": str(digest)}).encode()
        self.run(self.resources.bind(by.row, path, body))

    def approve(self, digest, *, by=ANN, key=None, until=None, repository=REPOSITORY):
        seconds = int((until or self.clock() + timedelta(days=30)).timestamp())
        signature = sign_approval(
            (key or by).key, repository=REPOSITORY, digest=digest, until=seconds
        )
        body = {"until": seconds, "signature": encode_base64(signature)}
        self._say(digest, lambda told: self.images.approve(by.row, repository, told), **body)

    def revoke(self, digest, reason="why", repository=REPOSITORY):
        self._say(
            digest, lambda told: self.images.revoke(ROOT.row, repository, told), reason=reason
        )

    def supersede(self, digest, successor):
        self._say(
            digest,
            lambda told: self.images.supersede(ROOT.row, REPOSITORY, told),
            successor=str(successor),
        )

    def floor(self, digest):
        self._say(digest, lambda told: self.images.set_floor(ROOT.row, REPOSITORY, told))

    def _say(self, digest, call, **body):
        named = None if digest is None else str(digest)
        self.run(call(json.dumps({"manifest_digest": named, **body}).encode()))

    def states(self):
        told = json.loads(self.run(self.images.list(ANN.row, REPOSITORY)))
        return [(one["manifest_digest"], one["state"]) for one in told["images"]]

    def attest(self):
        answer = self.run(self.handshake.auth(Request.offering_hashes("sample").to_bytes()))
        nonce = parse_challenge(answer.body).nonce
        bound = hash_report_data(nonce=nonce, tee_pubkey=KEY.public)
        body = Attestation(
            nonce=nonce,
            tee_pubkey=KEY.public,
            primary_evidence=load_attester("sample").collect(bound).body,
        )
        self.run(self.handshake.attest(answer.cookie, body.to_bytes()))
        return Credentials(cookie=answer.cookie)

    def release(self, image=A, path=PATH, credentials=None):
        images = [] if image is None else [str(image)]
        asked = Asked((path,), images)
        self.run(self.releases.release(credentials or self.attest(), asked))

    def rows(self, event):
        with self.state.store.reading() as transaction:
            rows = transaction.list_audit(1000, {"event": event})
        return [SimpleNamespace(**row) for row in rows]


@pytest.fixture
def broker(tmp_path):
    opened = Broker(tmp_path / "state")
    opened.put()
    for one in (A, B, C):
        opened.bind(one)
    yield opened
    opened.close()


def refused(call, *arguments, **named):
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    return caught.value


def test_an_image_is_known_in_the_order_of_its_first_binding(broker):
    broker.put("default/key/2")
    broker.bind(A, "default/key/2", by=ANN)
    assert broker.states() == [(str(one), "active") for one in (A, B, C)]
    told = json.loads(broker.run(broker.images.list(ANN.row, REPOSITORY)))
    assert told["floor"] is None
    assert {one["proposed_by"] for one in told["images"]} == {"eve"}
    assert json.loads(broker.run(broker.images.list(ANN.row, "other")))["images"] == []


def test_a_revoked_image_is_refused_at_once_with_its_successor(broker):
    old = broker.attest()
    broker.release(credentials=old)
    broker.supersede(A, B)
    broker.release(credentials=old)
    broker.revoke(A, "CVE-2026-1")
    refusal = refused(broker.release, credentials=old)
    assert (refusal.status, refusal.name) == (403, "ImageRevoked")
    assert str(B) in refusal.detail
    assert "CVE" not in refusal.detail
    assert "CVE-2026-1" in broker.rows("release")[-1].detail
    broker.release(B, credentials=old)
    (row,) = broker.rows("revoke")
    assert (row.image, "CVE-2026-1" in row.detail) == (str(A), True)
    assert broker.states()[0] == (str(A), "revoked")


def test_a_revoked_successor_is_not_told_as_the_one_to_take(broker):
    broker.supersede(A, B)
    broker.supersede(B, C)
    broker.revoke(A)
    assert str(C) in refused(broker.release).detail
    broker.revoke(C)
    assert str(B) in refused(broker.release).detail
    broker.revoke(B)
    assert "successor" not in refused(broker.release).detail


def test_no_policy_brings_a_revoked_image_back_and_neither_does_silence(broker):
    broker.policy(ANY)
    broker.release()
    broker.release(None)
    broker.revoke(A)
    assert refused(broker.release).name == "ImageRevoked"
    for image in (None, digest_of(b"made up")):
        refusal = refused(broker.release, image)
        assert (refusal.name, refusal.rule) == ("PolicyDeny", "any")
        assert "name one of its images" in refusal.detail
        assert str(A) in refusal.told
        assert "revoked" not in refusal.detail
    broker.release(B)


def test_a_policy_in_rego_cannot_bring_a_revoked_image_back(broker):
    text = b"package policy\nallow if { input.imagers.bindings[0] }\n"
    broker.run(broker.resources.set_policy(ROOT.row, text))
    broker.release()
    broker.revoke(A)
    assert refused(broker.release).name == "ImageRevoked"
    assert refused(broker.release, None).name == "PolicyDeny"
    broker.release(B)
    broker.run(broker.state.engine.close())


def test_a_policy_in_rego_sees_states_and_approvals(broker):
    text = (
        "package policy\nallow if {\n  some one in input.imagers.bindings\n"
        '  one.digest == input.imagers.image\n  one.state == "superseded"\n'
        "  one.approvals == 1\n}\n"
    )
    broker.run(broker.resources.set_policy(ROOT.row, text.encode()))
    broker.supersede(A, B)
    assert refused(broker.release).name == "PolicyDeny"
    broker.approve(A)
    broker.release()
    assert refused(broker.release, B).name == "PolicyDeny"
    broker.run(broker.state.engine.close())


@pytest.mark.parametrize("how", ["delete", "replace", "another name"])
def test_a_revocation_outlives_the_secret_and_its_bindings(broker, how):
    broker.revoke(A)
    path = PATH
    if how == "delete":
        broker.run(broker.resources.delete(ROOT.row, PATH))
        broker.put()
    elif how == "replace":
        broker.put(replace=True)
    else:
        path = "default/other/9"
        broker.put(path)
    broker.bind(A, path)
    assert refused(broker.release, path=path).name == "ImageRevoked"
    broker.restart()
    assert refused(broker.release, path=path).name == "ImageRevoked"
    assert broker.states()[0] == (str(A), "revoked")


def test_a_revocation_is_of_one_repository(broker):
    broker.put("other/key/1")
    broker.bind(A, "other/key/1")
    broker.revoke(A)
    broker.release(path="other/key/1")


def test_revoking_twice_keeps_the_first_reason(broker):
    broker.revoke(A, "first")
    broker.revoke(A, "second")
    told = json.loads(broker.run(broker.images.list(ANN.row, REPOSITORY)))
    assert told["images"][0]["reason"] == "first"
    assert len(broker.rows("revoke")) == 1


def test_nothing_older_than_the_floor_is_served(broker):
    broker.floor(B)
    refusal = refused(broker.release)
    assert (refusal.status, refusal.name) == (403, "ImageTooOld")
    broker.release(B)
    broker.release(C)
    assert [state for _, state in broker.states()] == ["too-old", "active", "active"]
    broker.policy(ANY)
    assert refused(broker.release, None).name == "PolicyDeny"
    assert refused(broker.release, digest_of(b"made up")).name == "ImageTooOld"
    broker.floor(None)
    broker.release()
    broker.release(None)


def test_two_admins_who_did_not_propose_it_have_to_approve(broker):
    broker.policy(NEEDS_TWO)
    assert "has 0 of 2 approvals" in refused(broker.release).detail
    broker.approve(A, by=ANN)
    broker.approve(A, by=ANN)
    assert "has 1 of 2 approvals" in refused(broker.release).detail
    assert broker.states()[0][1] == "proposed"
    assert refused(broker.approve, A, by=EVE).name == "PolicyDeny"
    broker.approve(A, by=BOB)
    broker.release()
    assert broker.states()[0][1] == "active"
    assert "has 0 of 2 approvals" in refused(broker.release, B).detail
    assert [row.image for row in broker.rows("approve")] == [str(A)] * 3


def test_an_approval_ends_with_its_time_and_no_clock_brings_it_back(broker):
    broker.policy(NEEDS_TWO)
    broker.approve(A, by=ANN, until=broker.clock() + timedelta(minutes=4))
    broker.approve(A, by=BOB)
    credentials = broker.attest()
    broker.release(credentials=credentials)
    broker.clock.advance(minutes=4)
    assert "has 1 of 2" in refused(broker.release, credentials=credentials).detail
    broker.clock.advance(minutes=-4)
    assert "has 1 of 2" in refused(broker.release, credentials=credentials).detail
    broker.restart()
    assert "has 1 of 2" in refused(broker.release, credentials=credentials).detail
    broker.clock.advance(hours=-1)
    broker.restart()
    assert "has 1 of 2" in refused(broker.release).detail
    broker.approve(A, by=ANN)
    broker.release()


def test_an_approval_ends_with_its_admin(broker):
    broker.policy(NEEDS_TWO)
    broker.approve(A, by=ANN)
    broker.approve(A, by=BOB)
    broker.release()
    with broker.state.store.transaction() as transaction:
        transaction.delete_admin(BOB.row.id)
    assert "has 1 of 2" in refused(broker.release).detail


def test_an_approval_of_another_tenants_admin_does_not_count(broker):
    broker.policy(NEEDS_TWO)
    broker.approve(A, by=ANN)
    with broker.state.store.transaction() as transaction:
        transaction.insert_tenant("theirs")
        transaction.delete_admin(BOB.row.id)
        theirs = Admin(
            id=BOB.row.id,
            tenant="theirs",
            name="bob",
            roles=BOB.row.roles,
            public_key=BOB.row.public_key,
        )
        transaction.insert_admin(theirs)
    their_word = SimpleNamespace(key=BOB.key, row=theirs)
    assert refused(broker.approve, A, by=their_word).name == "RepositoryDenied"
    with broker.state.store.transaction() as transaction:
        until = int(broker.clock().timestamp()) + 60
        signature = sign_approval(BOB.key, repository=REPOSITORY, digest=A, until=until)
        transaction.set_approval(REPOSITORY, A, Approval(theirs.id, until, signature))
    assert "has 1 of 2" in refused(broker.release).detail


@pytest.mark.parametrize(
    ("more", "name", "piece"),
    [
        ({"key": BOB}, "SerdeError", "not this admin's"),
        ({"repository": "other"}, "SerdeError", "of something else"),
        ({"by": EVE}, "PolicyDeny", "another admin"),
        ({"until": datetime(2026, 10, 1, tzinfo=UTC)}, "SerdeError", "over"),
    ],
)
def test_approve_that_would_not_count_refused(broker, more, name, piece):
    refusal = refused(broker.approve, A, **more)
    assert refusal.name == name
    assert piece in refusal.detail
    assert broker.rows("approve") == []


def test_an_approval_of_a_key_that_may_no_more_approve_does_not_count(broker):
    broker.policy(NEEDS_TWO)
    for one in (ANN, BOB):
        broker.approve(A, by=one)
    broker.release()
    with broker.state.store.transaction() as transaction:
        transaction.delete_admin(BOB.row.id)
        transaction.insert_admin(replace(BOB.row, roles=frozenset({"auditor"})))
    assert "has 1 of 2" in refused(broker.release).detail


def test_another_tenants_images_are_neither_seen_nor_changed(broker):
    with broker.state.store.transaction() as transaction:
        transaction.insert_tenant("theirs")
        theirs = replace(EVE.row, id="0" * 64, tenant="theirs", public_key=bytes(32))
        transaction.insert_admin(theirs)
    for repository in (REPOSITORY, "nobody"):
        told = json.loads(broker.run(broker.images.list(theirs, repository)))
        assert told == {"repository": repository, "floor": None, "images": []}
        body = json.dumps({"manifest_digest": str(A), "reason": "x"}).encode()
        refusal = refused(broker.run, broker.images.revoke(theirs, repository, body))
        assert refusal.detail == f"the repository '{repository}' is not one of the admin's tenant"


def test_approve_of_a_revoked_image_refused(broker):
    broker.revoke(A)
    assert refused(broker.approve, A).name == "ImageRevoked"


def test_what_nobody_bound_is_no_image_of_the_repository(broker):
    unknown = digest_of(b"unknown")
    for call in (broker.approve, broker.revoke, broker.floor):
        assert refused(call, unknown).name == "ResourceNotFound"
    for pair in ((A, unknown), (unknown, A)):
        assert refused(broker.supersede, *pair).name == "ResourceNotFound"
    assert refused(broker.revoke, A, repository="other").name == "ResourceNotFound"


def test_supersede_in_a_circle_or_by_a_revoked_image_refused(broker):
    assert "leads to" in refused(broker.supersede, A, A).detail
    broker.supersede(A, B)
    broker.supersede(B, C)
    for pair in ((C, A), (C, B), (B, A)):
        assert "leads to" in refused(broker.supersede, *pair).detail
    broker.revoke(C)
    assert refused(broker.supersede, A, C).name == "ImageRevoked"
    broker.supersede(C, broker_new(broker))
    assert broker.states()[2][1] == "revoked"


def broker_new(broker):
    new = digest_of(b"new")
    broker.bind(new)
    return new


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": ""},
        {"reason": "x" * 401},
        {"reason": "a\nb"},
        {"reason": "x", "more": 1},
        {"reason": 1},
    ],
)
def test_revoke_message_that_is_none_refused(broker, body):
    told = json.dumps({"manifest_digest": str(A), **body}).encode()
    with pytest.raises(FormatError):
        broker.run(broker.images.revoke(ROOT.row, REPOSITORY, told))
    broker.release()


# --- many brokers


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def two(server, tmp_path):
    """Two brokers over one store in PostgreSQL."""
    url = server.new_database(f"t{secrets.token_hex(8)}")
    one = Broker(tmp_path / "one", database=url, name="one")
    (tmp_path / "other").mkdir(mode=0o700)
    for name in ("master.key", "admin.pub"):
        shutil.copy(tmp_path / "one" / name, tmp_path / "other" / name)
    other = Broker(tmp_path / "other", database=url, name="other")
    one.put()
    for image in (A, B):
        one.bind(image)
    yield one, other
    other.close()
    one.close()


def test_what_one_broker_revokes_is_refused_by_the_other_at_once(two):
    one, other = two
    kept = other.attest()
    other.release(credentials=kept)
    one.supersede(A, B)
    one.revoke(A)
    refusal = refused(other.release, credentials=kept)
    assert (refusal.name, str(B) in refusal.detail) == ("ImageRevoked", True)
    other.release(B, credentials=kept)
    one.policy(NEEDS_TWO)
    assert "has 0 of 2" in refused(other.release, B).detail
    other.approve(B, by=ANN)
    one.approve(B, by=BOB)
    for broker in two:
        broker.release(B)


def test_approval_that_one_broker_says_is_over_is_so_at_one_whose_clock_is_behind(two):
    one, other = two
    one.policy(NEEDS_TWO)
    one.approve(A, by=ANN, until=one.clock() + timedelta(minutes=2))
    one.approve(A, by=BOB)
    for broker in two:
        broker.release()
    kept = [broker.attest() for broker in two]
    one.clock.advance(minutes=2)
    assert "has 1 of 2" in refused(one.release, credentials=kept[0]).detail
    assert "has 1 of 2" in refused(other.release, credentials=kept[1]).detail


def test_uses_are_counted_by_all_brokers_together(two):
    one, other = two
    one.put("default/key/2", ends=Ends(max_uses=5))
    one.bind(A, "default/key/2")
    results = []

    def ask(broker):
        kept = broker.attest()
        path = "default/key/2"
        results.extend(_status(broker, A, path, credentials=kept) for _ in range(6))

    threads = [threading.Thread(target=ask, args=(broker,)) for broker in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 503: what was in force kept changing, which is no release.
    assert results.count(200) <= 5
    assert set(results) <= {200, 403, 503}
    while results.count(200) < 5:
        one.release(A, "default/key/2")
        results.append(200)
    assert refused(other.release, A, "default/key/2").name == "ResourceUsedUp"


# --- orders of events


@dataclass
class Model:
    """Who may have what, in a few lines.

    Attributes:
        latest: the highest time that there was.
        refused: images that were refused, and no admin did anything since.
    """

    number: dict = field(default_factory=dict)
    by: dict = field(default_factory=dict)
    bound: set = field(default_factory=set)
    revoked: set = field(default_factory=set)
    approvals: dict = field(default_factory=dict)
    admins: set = field(default_factory=set)
    floor: int = 0
    latest: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    refused: set = field(default_factory=set)

    def may(self, image, now):
        good = [
            admin
            for (digest, admin), until in self.approvals.items()
            if digest == image and until > now and admin != self.by.get(image)
        ]
        is_served = image in self.bound and image not in self.revoked
        is_served = is_served and self.number[image] >= self.floor
        return is_served and len(set(good) & self.admins) >= 2


which = st.sampled_from([A, B, C])
who = st.sampled_from(["ann", "bob", "eve"])
NAMED = {"ann": ANN, "bob": BOB, "eve": EVE}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("bind"), which, who),
        st.tuples(st.just("approve"), which, who, st.integers(1, 500)),
        st.tuples(st.just("both"), which),
        st.tuples(st.just("revoke"), which),
        st.tuples(st.just("supersede"), which, which),
        st.tuples(st.just("floor"), st.none() | which),
        st.tuples(st.just("dismiss"), who),
        st.tuples(st.just("forget"), st.booleans()),
        st.tuples(st.just("wait"), st.integers(-250, 250)),
        st.tuples(st.just("long ago"), st.integers(1000, 5000)),
        st.tuples(st.just("restart")),
        st.tuples(st.just("release"), which, st.booleans()),
        st.tuples(st.just("release"), which, st.booleans()),
    ),
    min_size=5,
    max_size=30,
)


@settings(max_examples=60)
@given(STEPS)
def test_no_order_of_events_serves_what_may_not_be_served(tmp_path_factory, steps):
    """A "no" stays one until an admin does something, and after a revocation for ever."""
    broker = Broker(tmp_path_factory.mktemp("images") / "state")
    try:
        broker.policy(NEEDS_TWO)
        broker.put()
        model, kept = Model(admins=set(NAMED)), []
        for name, *told in steps:
            _step(broker, model, kept, name, *told)
    finally:
        broker.close()


def _step(broker, model, kept, name, *told):
    model.latest = max(model.latest, broker.clock())
    if name == "release":
        _release(broker, model, kept, *told)
    elif name == "wait":
        broker.clock.advance(seconds=told[0])
    elif name == "long ago":
        broker.clock.advance(seconds=-told[0])
        broker.restart()
    elif name == "restart":
        broker.restart()
    else:
        model.refused.clear()
        try:
            _admin(broker, model, name, *told)
        except (Refusal, LocalError):  # the latter: a clock that is too far behind
            return


def _admin(broker, model, name, *told):
    if name == "bind":
        image, admin = told
        broker.bind(image, by=NAMED[admin])
        model.bound.add(image)
        model.number.setdefault(image, len(model.number) + 1)
        model.by.setdefault(image, admin)
    elif name == "both":
        for admin in ("ann", "bob"):
            _admin(broker, model, "approve", told[0], admin, 5000)
    elif name == "approve":
        image, admin, seconds = told
        until = (broker.clock() + timedelta(seconds=seconds)).replace(microsecond=0)
        broker.approve(image, by=NAMED[admin], until=until)
        model.approvals[image, admin] = until
    elif name == "revoke":
        broker.revoke(told[0])
        model.revoked.add(told[0])
    elif name == "supersede":
        broker.supersede(*told)
    elif name == "floor":
        broker.floor(told[0])
        model.floor = model.number[told[0]] if told[0] else 0
    elif name == "dismiss":
        with broker.state.store.transaction() as transaction:
            transaction.delete_admin(NAMED[told[0]].row.id)
        model.admins.discard(told[0])
    else:
        (is_replaced,) = told
        if is_replaced:
            broker.put(replace=True)
        else:
            broker.run(broker.resources.delete(ROOT.row, PATH))
            broker.put()
        model.bound.clear()


def _status(broker, *asked, **more):
    """What a guest is answered."""
    try:
        broker.release(*asked, **more)
    except Refusal as refusal:
        return refusal.status
    return 200


def _release(broker, model, kept, image, is_old):
    try:
        if not (is_old and kept):
            kept.append(broker.attest())
        status = _status(broker, image, credentials=kept[0 if is_old else -1])
    except LocalError:  # a clock that is too far behind
        return
    assert status in (200, 401, 403)
    may = model.may(image, broker.clock())
    if status == 200:
        assert may
        assert image not in model.refused
    elif status == 403:
        # What the highest time and the present one both allow is served.
        assert not (may and model.may(image, model.latest))
        model.refused.add(image)
